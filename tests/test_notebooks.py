"""The notebooks, executed as a user would, and what they show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


def outputs_of(name: str) -> list[str]:
    """The text of every output, in order; what the log says on the way is left out."""
    notebook: Any = nbformat.read(NOTEBOOKS / name, as_version=4)  # type: ignore[no-untyped-call]  # nbformat has no types
    nbclient.NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
    shown = []
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            assert output["output_type"] != "error"
            if output.get("name") == "stderr":
                continue
            text = output.get("text") or output.get("data", {}).get("text/plain", "")
            shown.append(text)
    return shown


@pytest.mark.timeout(120)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the machinery of notebooks
def test_the_quickstart_shows_what_it_says() -> None:
    outputs = outputs_of("01-quickstart.ipynb")
    state, text, keys, created, info, five, languages, total, status, adds_up = outputs
    assert state == "'idle'"
    assert len(text) > 10
    assert "'author_id'" in keys
    assert "'includes'" in keys
    assert "tzinfo=datetime.timezone.utc" in created
    assert info.startswith("BatchInfo(batcher='default', size=20, trigger='size'")
    assert five.strip() == five.strip().upper()
    assert languages.startswith("[('")
    assert total == "1000"
    assert status == "Failed(reason=ValueError('no English, please'))"
    assert adds_up == "True"


def test_notebooks_are_kept_without_outputs() -> None:
    for path in NOTEBOOKS.glob("*.ipynb"):
        notebook: Any = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]  # nbformat has no types
        assert all(not cell.get("outputs") for cell in notebook.cells), path.name
