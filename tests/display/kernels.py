"""Run cells in a real kernel, as a notebook does."""

from __future__ import annotations

from typing import Any

import nbclient
import nbformat


def run(*cells: str | tuple[str, str], timeout: float = 60) -> list[Any]:
    """Run cells one after the other; return them with their outputs.

    A pair is an id and a text: cells of one id are runs of one cell, as in JupyterLab.
    """
    notebook: Any = nbformat.v4.new_notebook()  # type: ignore[no-untyped-call]  # nbformat has no types
    for cell in cells:
        source = cell if isinstance(cell, str) else cell[1]
        notebook.cells.append(nbformat.v4.new_code_cell(source))  # type: ignore[no-untyped-call]  # as above
    nbclient.NotebookClient(notebook, timeout=int(timeout), kernel_name="python3").execute()
    return list(notebook.cells)


def picture(cell: Any) -> str:
    """Return the only picture of a cell."""
    (svg,) = [
        output["data"]["image/svg+xml"]
        for output in cell.outputs
        if "image/svg+xml" in output.get("data", {})
    ]
    return str(svg)


def value(cell: Any) -> str:
    """Return the text of the last output of a cell."""
    last = cell.outputs[-1]
    return str(last.get("text") or last["data"]["text/plain"])


def streams(cells: list[Any]) -> set[str]:
    """Return the names of the standard streams that the cells wrote to."""
    return {
        output["name"]
        for cell in cells
        for output in cell.outputs
        if output["output_type"] == "stream"
    }
