"""A notebook in JupyterLab and a browser, cell by cell."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import socket
import subprocess
import sys
import time
import urllib.request
from base64 import b64decode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import nbformat
import pytest

from tests.browser.conftest import needed
from tests.display.reading import parsed, texts

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
PIPELINE, TRENDS = "03-a-pipeline-live.ipynb", "04-trends.ipynb"
PATIENCE = 30.0
ONCE_MORE = 2.0
"""Seconds until keys without an effect are pressed again."""
IMAGE = """
cell => {
    const images = cell.querySelectorAll(".jp-OutputArea-output img");
    const [image] = images;
    return images.length === 1 && image.complete && image.naturalWidth ? {
        source: image.src,
        shown: image.width,
        natural: image.naturalWidth,
        room: image.closest(".jp-OutputArea-output").clientWidth,
    } : null;
}
"""
REQUESTS = "[request.status for request in x.requests]"

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The address of a JupyterLab, and its folder with the notebooks."""
    try:
        importlib.metadata.version("jupyterlab")
    except importlib.metadata.PackageNotFoundError:
        needed("jupyterlab")
    tmp_path = tmp_path_factory.mktemp("lab")
    folder = tmp_path / "work"
    folder.mkdir()
    for name in (PIPELINE, TRENDS):
        notebook: Any = nbformat.read(NOTEBOOKS / name, as_version=4)  # type: ignore[no-untyped-call]  # nbformat has no types
        last = nbformat.v4.new_code_cell(REQUESTS, id="requests")  # type: ignore[no-untyped-call]  # as above
        notebook.cells.insert(-3, last)
        nbformat.write(notebook, folder / name)  # type: ignore[no-untyped-call]  # as above
    no_news = tmp_path / "settings" / "@jupyterlab" / "apputils-extension"
    no_news.mkdir(parents=True)
    (no_news / "notification.jupyterlab-settings").write_text('{"fetchNews": "false"}')
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = {name: str(tmp_path / name) for name in ("HOME", "IPYTHONDIR", "JUPYTER_CONFIG_DIR")}
    own |= {name: str(tmp_path / name) for name in ("JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")}
    own["JUPYTERLAB_SETTINGS_DIR"] = str(tmp_path / "settings")
    server = subprocess.Popen(
        [
            *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"),
            *("--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}"),
            *("--ServerApp.port_retries=0", "--IdentityProvider.token="),
            *(f"--ServerApp.root_dir={folder}",),
            "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
        ],
        env={**os.environ, **own},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        until(lambda: answers(f"{address}/api"), "JupyterLab answers")
        yield address, folder
    finally:
        server.terminate()
        server.wait(PATIENCE)


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=1) as reply:  # noqa: S310 - on loopback
            return bool(reply.status == 200)
    except OSError:
        return False


def until(condition: Callable[[], Any], description: str, timeout: float = PATIENCE) -> Any:
    """Wait until the call returns a true value, and return it."""
    deadline = time.monotonic() + timeout
    while not (found := condition()):
        assert time.monotonic() < deadline, f"this did not happen: {description}"
        time.sleep(0.05)  # a server, a page or a file sends no signal when it changes
    return found


class Page:
    """The notebook in the browser."""

    def __init__(self, browser: Any, address: str, name: str) -> None:
        self.page = page = browser.new_page(viewport={"width": 1100, "height": 1500})
        page.goto(f"{address}/lab/tree/{name}?reset", wait_until="domcontentloaded")
        page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=1000 * PATIENCE)
        page.wait_for_selector(
            '.jp-Notebook-ExecutionIndicator[data-status="idle"]', timeout=30_000
        )

    def cell(self, contains: str) -> Any:
        """The code cell with this in its text."""
        return self.page.locator(".jp-CodeCell").filter(has_text=contains).first

    def run(self, contains: str) -> None:
        """Run this cell, and wait until it has run."""
        cell = self.cell(contains)
        before = self.prompt(cell)
        until(lambda: self.begun(cell, before), f"the cell {contains!r} begins")
        until(lambda: self.number(cell).isdigit(), f"the cell {contains!r} has run")

    def begun(self, cell: Any, before: str) -> bool:
        """Press the keys again: before the kernel is ready, JupyterLab drops them."""
        self.accept_kernel()
        cell.locator(".cm-content").click()
        self.page.keyboard.press("Control+Enter")
        with contextlib.suppress(AssertionError):
            until(lambda: self.prompt(cell) != before, "its number is another", ONCE_MORE)
        return self.prompt(cell) != before

    def accept_kernel(self) -> None:
        """Choose a kernel, which JupyterLab asks for if its list of kernels is late."""
        dialog = self.page.locator("dialog.jp-Dialog")
        if dialog.count():
            assert dialog.first.inner_text().startswith("Select Kernel")
            dialog.first.locator(".jp-mod-accept").click()

    def prompt(self, cell: Any) -> str:
        return str(cell.locator(".jp-InputPrompt").inner_text())

    def number(self, cell: Any) -> str:
        return self.prompt(cell)[1:-2]

    def text(self, contains: str) -> str:
        return str(self.cell(contains).locator(".jp-OutputArea-output").inner_text()).strip()

    def picture(self, contains: str) -> str:
        """Return the SVG that the cell shows."""
        head, _, data = str(self.image(contains)["source"]).partition(",")
        return b64decode(data).decode() if "base64" in head else unquote(data)

    def image(self, contains: str) -> dict[str, Any]:
        """Return the only picture of the cell, which is replaced often."""
        images = self.cell(contains).evaluate
        found: dict[str, Any] = until(lambda: images(IMAGE), f"{contains!r} has a picture")
        return found


def test_live_pipeline_is_shown_in_jupyterlab(
    lab: tuple[str, Path], chromium: Any, tmp_path: Path
) -> None:
    address, folder = lab
    page = Page(chromium, address, PIPELINE)
    for contains in ("import rxtweets", "def upcase", "live = pipeline.start()"):
        page.run(contains)

    first = page.picture("live = pipeline.start()")
    until(lambda: page.picture("live = pipeline.start()") != first, "the picture moves")
    page.run("live.wait(4)")
    page.run("live.errors[-1].event.message")
    page.run("languages.most_common")
    moved = page.picture("live = pipeline.start()")
    assert len(parsed(moved))
    assert "● connected" in texts(moved)
    assert any("no Thai, please" in text for text in texts(moved))
    image = page.image("live = pipeline.start()")
    assert image["shown"] == image["natural"] <= image["room"], "neither clipped nor scaled"
    page.page.screenshot(path=tmp_path / "running.png")

    page.run("live = pipeline.start()")  # again
    page.run("live.wait(4)")
    page.run(REQUESTS)
    assert page.text(REQUESTS) == "[200, 200]"
    assert page.page.locator('[data-mime-type="application/vnd.jupyter.stderr"]').count() == 0

    page.run("live.stop()")
    stopped = page.picture("live = pipeline.start()")
    assert "● stopped" in texts(stopped)
    page.run("x.close()")
    page.page.screenshot(path=tmp_path / "stopped.png")

    page.page.keyboard.press("Control+s")
    path = folder / PIPELINE
    until(lambda: "● stopped" in path.read_text(encoding="utf-8"), "the last picture is saved")
    page.page.close()


def test_charts_move_in_jupyterlab(lab: tuple[str, Path], chromium: Any, tmp_path: Path) -> None:
    address, _ = lab
    page = Page(chromium, address, TRENDS)
    for contains in ("import time", "def hashtags_of", "windows = ", "top = ", "chart = "):
        page.run(contains)
    first = {name: page.picture(name) for name in ("top = ", "chart = ")}
    until(lambda: page.picture("top = ") != first["top = "], "the bars move")
    until(lambda: page.picture("chart = ") != first["chart = "], "the lines move")
    page.page.screenshot(path=tmp_path / "charts.png")
    page.run("watching.dispose()")
    last = page.picture("top = ")
    page.run("len(x.requests)")
    assert page.picture("top = ") == last
    assert len([text for text in texts(last) if text.startswith("#")]) == 10
    page.page.close()
