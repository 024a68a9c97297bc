"""The notebooks, executed as by a user, and their outputs."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest

import rxtweets
from tests.display.reading import all_of, html_text, parsed, texts

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
SWITCH = "# X itself, with the token"
NAMES = sorted(path.name for path in NOTEBOOKS.glob("*.ipynb"))

BEFORE = "import threading as _threading\n_before = set(_threading.enumerate())"
AFTER = """
for _ in range(500):
    _left = [thread.name for thread in _threading.enumerate() if thread not in _before]
    if not _left:
        break
    _threading.Event().wait(0.02)
_left
"""

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of the machinery of notebooks
]


class Ran:
    """An executed notebook; it wrote nothing to standard error, and left no thread."""

    def __init__(self, name: str) -> None:
        notebook = read(name)
        notebook.cells = [_code(BEFORE), *notebook.cells, _code(AFTER)]
        execute(notebook)
        self.cells = [cell for cell in notebook.cells[1:-1] if cell.cell_type == "code"]
        for cell in self.cells:
            for output in cell.outputs:
                assert output["output_type"] != "error"
                assert output.get("name") != "stderr", output["text"]
        assert notebook.cells[-1].outputs[0]["data"]["text/plain"] == "[]"

    def cell(self, contains: str, *, exactly: bool = False) -> Any:
        """Return the only cell that contains, or is, this text."""
        (found,) = [
            cell
            for cell in self.cells
            if (cell.source == contains if exactly else contains in cell.source)
        ]
        return found

    def text(self, contains: str, *, exactly: bool = False) -> str:
        """Return the last output of a cell as text."""
        output = self.cell(contains, exactly=exactly).outputs[-1]
        return str(output.get("text") or output["data"]["text/plain"])

    def svg(self, contains: str, *, exactly: bool = False) -> str:
        """Return the only output of a cell, a picture."""
        (output,) = self.cell(contains, exactly=exactly).outputs
        return str(output["data"]["image/svg+xml"])

    def html(self, contains: str) -> str:
        """Return the text of the last output of a cell, which is HTML."""
        return html_text(self.cell(contains).outputs[-1]["data"]["text/html"])


def read(name: str) -> Any:
    return nbformat.read(NOTEBOOKS / name, as_version=4)  # type: ignore[no-untyped-call]  # nbformat has no types


def execute(notebook: Any) -> None:
    """Run a notebook in its directory, where it finds the recording."""
    here = {"metadata": {"path": str(NOTEBOOKS)}}
    nbclient.NotebookClient(notebook, timeout=60, kernel_name="python3", resources=here).execute()


def _code(source: str) -> Any:
    return nbformat.v4.new_code_cell(source)  # type: ignore[no-untyped-call]  # as above


def strand(text: str, name: str) -> str:
    """Return the characters of one stream of a marble diagram."""
    (line,) = [line for line in text.splitlines() if line.startswith(name + "  ")]
    return line.removeprefix(name).strip()


def marks(characters: str) -> str:
    return characters.replace("-", "")


def test_01_quickstart() -> None:
    ran = Ran("01-quickstart.ipynb")
    assert ran.text("tweets.state.name") == "'idle'"
    assert "UTC" in ran.html("message = rxtweets.collect(tweets, 1)")
    assert "'author_id'" in ran.text("sorted(message.metadata)")
    assert "tzinfo=datetime.timezone.utc" in ran.text("message.created_at")
    info = "BatchInfo(batcher='default', size=20, trigger='size'"
    assert ran.text("seen[0].info").startswith(info)
    printed = ran.text("for message in seen[0][:5]")
    assert printed == printed.upper()
    assert ran.text("Counter(languages)").startswith("[('")
    assert ran.text("def picky") == "1000"
    assert ran.text("event.message.status") == "Failed(reason=ValueError('no English, please'))"
    assert ran.text("stats.undecodable + stats.control") == "True"


def test_02_composing_operators() -> None:
    ran = Ran("02-composing-operators.ipynb")
    shown = ran.text("def drawn")
    assert [marks(strand(shown, name)) for name in ("source", "map", "filter", "take")] == [
        *("abcd|", "ABCD|", "bd|", "ab|"),
    ]
    shown = ran.text('"Fewer"')
    assert [
        marks(strand(shown, name)) for name in ("debounce", "throttle_first", "sample", "distinct")
    ] == ["bcd|", "acd|", "bccd|", "abcd|"]
    assert {"a1", "b2", "c3"} <= set(texts(ran.svg('"Several streams"')))
    shown = ran.text('"stock, 0.5 s or 3"')
    assert "0" in marks(strand(shown, "stock, 0.5 s or 3"))
    assert marks(strand(shown, "ours, 3 or 0.5 s")) == "312|"
    shown = ran.text("def fussy")
    assert marks(strand(shown, "stock.map(fussy)")) == "AB#"
    assert marks(strand(shown, "ops.process(fussy)")) == "ABDE|"
    shown = ran.text("from_file = ")
    assert marks(strand(shown, "stock, 1 s or 20")) == "++++++00++++++|"
    assert marks(strand(shown, "ours, 20 or 1 s")) == "+++++8+++++6|"
    assert marks(strand(shown, "debounce(1.0)")) == "he|"
    shown = ran.text("by_language = ")
    assert "5" in marks(strand(shown, "batch(5, 2.0)"))
    shown = ran.text("def slow")
    for name in ("tweets", "concurrency=1", "concurrency=10"):
        assert strand(shown, name).count("|") == 1
    # The sequential variant ends last.
    assert strand(shown, "concurrency=1").index("|") > strand(shown, "concurrency=10").index("|")


def test_03_a_pipeline_live() -> None:
    ran = Ran("03-a-pipeline-live.ipynb")
    svg = ran.svg("live = pipeline.start()")
    said = texts(svg)
    assert len(all_of(svg, "rect")) == 1 + 4  # the paper, and four stages
    assert "● stopped" in said
    assert any(text.endswith(" failed") for text in said)
    assert any("no Thai, please" in text for text in said)
    (delivered,) = re.findall(r"delivered ([\d,]+)", ran.text("live.stop()"))
    assert f"{delivered} messages" in said
    assert ran.text("live.wait(4)") == "False"
    assert ran.text("languages.most_common").startswith("[('")
    assert "no Thai, please" in ran.html("live.errors[-1].event.message")
    assert f"{delivered} messages" in texts(ran.svg("tweets", exactly=True))
    assert ran.text("stats.delivered == ") == "True"


def test_04_trends() -> None:
    ran = Ran("04-trends.ipynb")
    assert ran.text("def hashtags_of").count("#") == 6
    assert strand(ran.text("windows = "), "2 s, every 0.5 s").count("-") < 60
    top = texts(ran.svg("top = "))
    assert top[0] == "Hashtags of the last two seconds"
    assert len([text for text in top if text.startswith("#")]) == 10
    assert {"Tweets a second, by language", "0/s"} <= set(texts(ran.svg("chart = ")))
    (figure,) = ran.cell("def stacked").outputs
    assert figure["data"]["image/png"].startswith("iVBOR")
    assert any(text.startswith("#") for text in texts(ran.svg("def ranked")))
    assert ran.text("len(x.requests)") == "(True, True, 3)"


def test_05_writing_a_subscriber() -> None:
    ran = Ran("05-writing-a-subscriber.ipynb")
    assert ran.text("def test_csv_writes") == "'passed'"
    assert "500 messages" in texts(ran.svg("stream(limit=500)"))
    assert ran.text("csv.reader") == "(500, 500)"
    # Batches have 50 messages; on a slow machine some end earlier by their timeout.
    outcomes = ast.literal_eval(ran.text("outcomes", exactly=True))
    failed = [bad for _, bad in outcomes if bad]
    assert outcomes[2:4] == [(0, bad) for bad in failed]
    assert sum(map(sum, outcomes)) == 300
    shown = {f"{len(outcomes) - 2} batches", f"{sum(failed)} failed"}
    assert shown <= set(texts(ran.svg("class Database")))
    printed = ran.text("events.BatchFailed").splitlines()
    for line, size in zip(printed, failed, strict=True):
        assert line.endswith(f"the database is away') · {size} messages")


def test_06_failures() -> None:
    ran = Ran("06-failures.ipynb")
    states = ran.text("connection = draw.record")
    assert strand(states, "connected").count("●") == 3
    assert "503: Service Unavailable" in ran.text("print(failure)")
    assert ran.text("stats.server_errors") == "(4, 3, 1, 1)"
    assert ran.text("cut_off = ").startswith('[b\'{"data":')
    assert ran.text("wrong = ").startswith("AuthenticationError · 401")
    assert any(text.endswith(" dropped") for text in texts(ran.svg("def slow")))
    assert ran.text("stats.dropped > 0") == "(True, True)"
    assert len(parsed(ran.svg("def watched")))
    assert ran.text("missed > 0.3") == "(1, True, True)"
    assert ran.text("stats().duplicates") == "(0, True)"
    assert ran.text("stats.batched_failed") == "(True, True, 1)"


def test_07_operations() -> None:
    ran = Ran("07-operations.ipynb")
    assert ran.text("def processors") == "(True, 5, True)"
    assert ran.text("workers.limit = 50") == "(50, True)"
    assert ran.text("limit.update") == "True"
    assert ran.text("pipeline.pause()") == "0"
    assert re.search(r"rxtweets_received_total\{.*\} \d{3}", ran.text("serve_metrics(pipeline)"))
    assert ran.text("spans = ") == "True"
    assert ran.text("connections.list()") == "('connected', ['sample_stream'])"
    assert ran.text("stats = pipeline.stop") == "(True, 0)"


def test_08_sources_that_wait() -> None:
    ran = Ran("08-sources-that-wait.ipynb")
    assert ran.text("def numbers") == "(100, 100)"
    assert ran.text("asked_for = ") == "True"
    assert ran.text("def flaky") == "(200, True)"
    assert ran.text("def receive").endswith(", 10)")


def test_09_rules() -> None:
    ran = Ran("09-rules.ipynb")
    assert ran.text("report = rules.sync([") == "(2, 0, 0)"
    assert ran.text("dry_run=True") == "(['football'], ['art'], 2)"
    assert "has:legs is not known" in ran.text("except RuleSyntaxError")
    assert ran.text("rules.add(Rule").startswith("(['music', 'radio']")
    assert ran.text("filtered_stream(rules=wanted, token") == "(100, ['art', 'music'])"


def test_10_record_and_replay() -> None:
    ran = Ran("10-record-and-replay.ipynb")
    assert ran.text("rxtweets.record(folder") == "(300, ['sample.jsonl.gz'])"
    assert ran.text("again = ") == "True"
    assert marks(strand(ran.text("replayed = "), "batches")).count("+") > 3
    assert "shape: (5, 2)" in ran.text("frame = ")
    assert ran.text("foreign = ") == "(3, 1)"


def test_11_queues() -> None:
    ran = Ran("11-queues.ipynb")
    assert ran.text("ingested = ") == "(500, 500)"
    assert ran.text("def flaky") == "(500, True, 0)"
    assert ran.text("def broken") == "{'ValueError: a bug in this handler'}"
    assert ran.text("replayed = ") == "(True, 0)"
    assert ran.text("packer = ") == "(4, 200)"
    assert ran.text("waiting = ") == "(100, 100)"


@pytest.mark.parametrize("name", NAMES)
def test_notebooks_have_no_outputs(name: str) -> None:
    for cell in read(name).cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


@pytest.mark.parametrize("name", NAMES)
def test_notebook_has_one_cell_with_the_live_switch(name: str) -> None:
    switches = [cell for cell in read(name).cells if SWITCH in cell.source]
    assert len(switches) == 1


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", NAMES)
def test_notebook_runs_with_the_live_switch(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = read(name)
    for cell in notebook.cells:
        if SWITCH in cell.source:
            before = cell.source
            cell.source = re.sub(r"(?m)^( *)# (tweets = |return )", r"\1\2", before)
            assert cell.source != before
    with rxtweets.simulator.serve(rate=500) as x:
        monkeypatch.setenv("RXTWEETS_BASE_URL", x.url)
        monkeypatch.setenv("X_BEARER_TOKEN", "any")
        execute(notebook)
        assert {request.status for request in x.requests} <= {200, 201}  # 201: rules


@pytest.mark.parametrize("name", NAMES)
def test_notebook_has_a_title_and_valid_links(name: str) -> None:
    cells = read(name).cells
    assert cells[0].cell_type == "markdown"
    assert cells[0].source.startswith("# ")
    links = re.findall(r"\]\(([^):]+)\)", "".join(cell.source for cell in cells))
    assert all((NOTEBOOKS / link).exists() for link in links)
