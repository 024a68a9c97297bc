"""The dashboard in a browser, as people see, hear and operate it."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any, Self

import pytest

from rxtweets import Batcher, Message, Pipeline, dashboard
from rxtweets.dashboard import _broadcast
from rxtweets.testing import DummySource
from tests.browser.conftest import needed

pytestmark = pytest.mark.timeout(120)

PATIENCE_MS = 30_000
WIDE, NARROW = {"width": 1200, "height": 900}, {"width": 320, "height": 640}
HOSTILE = "<img src=x onerror=\"document.title='hit'\">"
TEXTS = ["plain", "fail of a handler", "fail " + HOSTILE, "שבת שלום", "好天気", "x" * 300]


def handle(message: Message[Any]) -> Message[Any]:
    if message.data.startswith("fail"):
        raise ValueError("asked for")
    return message


@pytest.fixture
def pipeline() -> Iterator[Pipeline]:
    batchers = {"default": Batcher(lambda _: None, size=2), "other": Batcher(lambda _: None)}
    with Pipeline(DummySource(), handle_message=handle, batchers=batchers) as pipeline:
        yield pipeline


@pytest.fixture
def page(pipeline: Pipeline) -> Iterator[dashboard.Dashboard]:
    with dashboard.serve(pipeline, port=0, controls=True) as page:
        yield page


class Tab:
    """A tab of the browser, which notes requests and what goes wrong.

    Attributes:
        asked: addresses of all requests.
        problems: errors of scripts and messages of the console.
    """

    def __init__(self, chromium: Any, url: str, *, has_clock: bool = False, **options: Any) -> None:
        self.asked: list[str] = []
        self.problems: list[str] = []
        self.tab = chromium.new_page(**options)
        self.tab.on("request", lambda request: self.asked.append(request.url))
        self.tab.on("pageerror", lambda error: self.problems.append(str(error)))
        self.tab.on("console", lambda message: self.problems.append(message.text))
        self.tab.set_default_timeout(PATIENCE_MS)
        if has_clock:
            self.tab.clock.install()
        self.tab.goto(url)
        self.says("live")

    def says(self, text: str) -> None:
        """Wait until the header says so."""
        self.shows(f"#connection:has-text('{text}')")

    def shows(self, selector: str) -> None:
        self.tab.wait_for_selector(selector)

    def violations(self) -> list[Any]:
        """The rules of accessibility that the page breaks now, with the elements."""
        try:
            axe = importlib.import_module("axe_playwright_python.sync_playwright")
        except ImportError:
            needed("axe-playwright-python")
        found = axe.Axe().run(self.tab).response["violations"]
        return [(rule["id"], rule["nodes"]) for rule in found]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.tab.close()


def push(pipeline: Pipeline) -> None:
    pipeline.push([Message(text, {"id": str(number)}) for number, text in enumerate(TEXTS, 1)])


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_page_is_accessible(
    chromium: Any, pipeline: Pipeline, page: dashboard.Dashboard, size: Any, theme: str
) -> None:
    with Tab(chromium, page.url, viewport=size, color_scheme=theme) as seen:
        push(pipeline)
        seen.shows(".failures .tweet")
        seen.shows(".batches .tweet")
        seen.tab.click("summary")
        assert seen.violations() == []
        room = "document.documentElement.scrollWidth <= window.innerWidth"
        assert seen.tab.evaluate(room), "the page scrolls sideways"
        assert seen.problems == []


def test_page_asks_no_other_host(
    chromium: Any, pipeline: Pipeline, page: dashboard.Dashboard
) -> None:
    with Tab(chromium, page.url) as seen:
        push(pipeline)
        seen.shows(".failures .tweet")
        address = page.url.partition("#")[0]
        asked = [url for url in seen.asked if not url.startswith("data:")]
        assert asked
        assert all(url.startswith(address) for url in asked)


def test_markup_of_tweets_is_text(
    chromium: Any, pipeline: Pipeline, page: dashboard.Dashboard
) -> None:
    with Tab(chromium, page.url) as seen:
        push(pipeline)
        seen.shows(".failures .tweet:has-text('onerror')")
        assert seen.tab.query_selector_all("main img") == []
        assert seen.tab.title() == "rxtweets"


def test_selection_in_a_list_stays(
    chromium: Any, pipeline: Pipeline, page: dashboard.Dashboard
) -> None:
    with Tab(chromium, page.url) as seen:
        pipeline.push([Message("fail first", {"id": "1"})])
        seen.shows(".failures .tweet")
        seen.tab.evaluate("getSelection().selectAllChildren(document.querySelector('.tweet'))")
        pipeline.push([Message("fail second", {"id": "2"})])
        seen.shows(".failures .tweet:has-text('second')")
        assert seen.tab.evaluate("getSelection().toString()") == "fail first"


def test_time_axis_has_the_times_of_its_ends(chromium: Any, page: dashboard.Dashboard) -> None:
    texts = "[...document.querySelectorAll('.axis span')].map((node) => node.textContent)"
    times = "(({at}) => [clock(at - 299), clock(at)])(cards[0].points.at(-1))"
    with Tab(chromium, page.url) as seen:
        shown, expected = seen.tab.evaluate(f"[{texts}, {times}]")
        assert [shown[0], shown[2]] == expected


def test_lost_connection_is_told_and_comes_back(chromium: Any, pipeline: Pipeline) -> None:
    with dashboard.serve(pipeline, port=0) as page:
        port = int(page.url.rstrip("/").rpartition(":")[2])
        seen = Tab(chromium, page.url)
    with seen:
        seen.says("no connection since")
        assert seen.violations() == []
        with dashboard.serve(pipeline, port=port):
            seen.says("live")


def test_silent_connection_is_told(
    chromium: Any, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_broadcast, "PERIOD", 600.0)
    with (
        dashboard.serve(pipeline, port=0) as page,
        Tab(chromium, page.url, has_clock=True) as seen,
    ):
        seen.tab.clock.fast_forward(6_000)
        seen.says("no connection since")
        seen.says("live")


def test_buttons_work_by_keyboard(
    chromium: Any, pipeline: Pipeline, page: dashboard.Dashboard
) -> None:
    with Tab(chromium, page.url) as seen:
        seen.shows("button:has-text('Pause')")
        seen.tab.keyboard.press("Tab")
        seen.tab.keyboard.press("Enter")
        seen.shows("button:has-text('Resume'):focus")
        assert pipeline.is_paused
        seen.tab.keyboard.press("Enter")
        seen.shows("button:has-text('Pause'):focus")
        assert not pipeline.is_paused


def test_end_of_the_pipeline_is_told(
    chromium: Any, pipeline: Pipeline, page: dashboard.Dashboard
) -> None:
    with Tab(chromium, page.url) as seen:
        seen.tab.click("button:has-text('Drain and end')")
        seen.says("ended")
        seen.shows(".state:has-text('ended: stopped')")
        assert pipeline.wait(PATIENCE_MS / 1000)
