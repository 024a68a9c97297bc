from __future__ import annotations

import pytest

from rxtweets.cli import _bench as bench
from rxtweets.cli import main


@pytest.mark.timeout(120)
def test_table_has_a_line_for_every_row(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "ROWS", bench.ROWS[:1] + bench.ROWS[-1:])
    assert main(["bench", "--seconds", "1"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    lines = said.out.splitlines()
    for row in bench.ROWS:
        [line] = [line for line in lines if line.startswith(row.title + "  ")]
        rate, cost = line.split()[-2:]
        assert float(rate.replace(",", "")) > 0
        assert float(cost) > 0


@pytest.mark.parametrize("given", ["0", "-1", "nan"])
def test_invalid_seconds_are_refused(capsys: pytest.CaptureFixture[str], given: str) -> None:
    assert main(["bench", "--seconds", given]) == 2
    assert "--seconds" in capsys.readouterr().err
