"""Pictures in a real kernel, and the thread that draws them."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from reactivex.subject import Subject

from rxtweets import Batcher, Message, Pipeline
from rxtweets._support import notebook_shell
from rxtweets.display import _live
from rxtweets.display import _notebook as notebook
from rxtweets.display._live import Live
from rxtweets.display._svg import Drawing
from tests.display import kernels
from tests.display.reading import parsed, texts

SETUP = """
import threading
import rxtweets
from rxtweets import Batcher, Pipeline, display

def threads():
    return sorted(thread.name for thread in threading.enumerate() if "rxtweets" in thread.name)

def settled(condition, timeout=20.0):
    deadline = threading.Event()
    for _ in range(int(timeout / 0.02)):
        if condition():
            return True
        deadline.wait(0.02)
    return False

x = rxtweets.simulator.serve(rate=400, seed=7)
tweets = rxtweets.sample_stream(token="any", base_url=x.url)
"""
START = """
def no_thai(message):
    if message.metadata["lang"] == "th":
        raise ValueError("no Thai, please")
    return message

live = Pipeline(
    tweets, handle_message=no_thai, batchers={"default": Batcher(lambda batch: None, 20, 0.2)}
).start()
live
"""

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of the machinery of notebooks
]


def test_pipeline_picture_ends_with_the_last_counters() -> None:
    cells = kernels.run(
        SETUP,
        START,
        "settled(lambda: live.stats().failed > 3 and live.stats().batches > 5)",
        "last = live.stop(); (last.processed, last.failed, last.batches)",
        "x.close(); settled(lambda: not threads())",
        "len(live.errors), str(live.errors[-1]).split(': ')[1]",
    )
    svg = kernels.picture(cells[1])
    processed, failed, batches = eval(kernels.value(cells[3]))  # noqa: S307 - three numbers
    assert {"stopped", f"{processed:,} messages", f"{failed} failed"} <= set(texts(svg))
    assert f"{batches} batches" in texts(svg)
    assert any("no Thai, please" in text for text in texts(svg))
    assert kernels.value(cells[2]) == kernels.value(cells[4]) == "True"
    assert "ValueError('no Thai, please')\"" in kernels.value(cells[5])
    assert kernels.streams(cells) == set()


def test_picture_is_redrawn_while_other_cells_run() -> None:
    cells = kernels.run(
        SETUP,
        START,
        "seen = live.stats().delivered",
        "settled(lambda: live.stats().delivered > seen + 200)",
        "threads().count('rxtweets-display')",
    )
    svg = kernels.picture(cells[1])
    assert "● connected" in texts(svg)
    assert len([text for text in texts(svg) if text.endswith(" messages/s")]) == 1
    assert kernels.value(cells[4]) == "1"


def test_stream_picture_is_live_until_the_last_unsubscribe() -> None:
    cells = kernels.run(
        SETUP,
        "seen = []\nsubscription = tweets.subscribe(seen.append)\ntweets",
        "settled(lambda: len(seen) > 100)",
        "subscription.dispose(); settled(lambda: tweets.state.name == 'stopped')",
        "x.close(); settled(lambda: not threads()), tweets.stats().delivered",
        "tweets",
    )
    delivered = eval(kernels.value(cells[4]))[1]  # noqa: S307 - a flag and a number
    for cell in (cells[1], cells[5]):
        assert {"● stopped", f"{delivered:,} messages"} <= set(texts(kernels.picture(cell)))
    assert kernels.streams(cells) == set()


def test_rerun_cell_never_holds_two_connections() -> None:
    fresh = "tweets = rxtweets.sample_stream(token='any', base_url=x.url)\n" + START
    cells = kernels.run(
        SETUP,
        fresh,
        "settled(lambda: live.stats().delivered > 50); first = live; first.stats().state",
        fresh,
        "settled(lambda: live.stats().delivered > 50)",
        "[request.status for request in x.requests], first.stats().state, live.stats().state",
    )
    assert kernels.value(cells[5]) == "([200, 200], 'stopped', 'connected')"
    assert "● stopped" in texts(kernels.picture(cells[1]))
    assert "● connected" in texts(kernels.picture(cells[3]))


def test_rerun_cell_replaces_pipeline_on_the_same_stream() -> None:
    cells = kernels.run(
        SETUP,
        START,
        "first = live; settled(lambda: live.stats().delivered > 50)",
        START,
        "first.wait(10), live is not first, settled(lambda: live.stats().state == 'connected')",
        "max(threads().count(name) for name in ('rxtweets-reader', 'rxtweets-deliver'))",
    )
    assert kernels.value(cells[4]) == "(True, True, True)"
    assert kernels.value(cells[5]) == "1"


def test_pipeline_of_another_cell_continues() -> None:
    other = START.replace("live", "other")
    cells = kernels.run(
        SETUP,
        START,
        other,
        "settled(lambda: other.stats().delivered > 50)",
        START,
        "settled(lambda: live.stats().state == 'connected'), other.wait(0.001)",
        "len(x.requests)",
    )
    assert kernels.value(cells[5]) == "(True, False)"
    assert kernels.value(cells[6]) == "1"


def test_chart_is_redrawn_until_the_pipeline_stops() -> None:
    cells = kernels.run(
        SETUP,
        "counts = {'tweets': 0}\n"
        "def count(batch):\n"
        "    counts['tweets'] += len(batch)\n"
        "live = Pipeline(tweets, batchers={'default': Batcher(count, 20, 0.2)}).start()\n"
        "display.Live(lambda: display.bars(counts, title='seen'), until=live)",
        "settled(lambda: counts['tweets'] > 100)",
        "live.stop(); x.close(); counts['tweets']",
    )
    assert kernels.value(cells[3]) in texts(kernels.picture(cells[1]))


def test_drawing_error_is_shown_only_in_the_picture() -> None:
    cells = kernels.run(
        "from rxtweets import display\nimport threading\nlive = display.Live(lambda: 1 / 0)\nlive",
        "live.stop()",
    )
    assert texts(kernels.picture(cells[0])) == [
        "this picture cannot be drawn: ZeroDivisionError: division by zero"
    ]
    assert kernels.streams(cells) == set()


def test_thread_warnings_are_not_printed_in_cells() -> None:
    cells = kernels.run(
        "import threading, rxtweets\n"
        "from rxtweets.simulator.script import Close, Serve\n"
        "x = rxtweets.simulator.serve(script=[[Serve(2), Close()], [Serve(2), Close()]])\n"
        "tweets = rxtweets.sample_stream(token='any', base_url=x.url)\n"
        "seen = tweets.take(5).to_list().run()\nx.close()",
        "[failure.text.split(' in ')[0] for failure in tweets.errors]",
    )
    assert kernels.streams(cells) == set()
    assert "reconnecting" in kernels.value(cells[1])


# Without a kernel.


@pytest.fixture
def cells(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """Stands for a kernel: says which cell runs."""
    cell = SimpleNamespace(id="a", run="1")
    shell = SimpleNamespace(
        kernel=object(),
        get_parent=lambda: {"metadata": {"cellId": cell.id}, "header": {"msg_id": cell.run}},
        events=SimpleNamespace(register=lambda *_: None),
    )
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setattr(notebook, "_started", [])
    return cell


class Thing:
    def __init__(self) -> None:
        self.stopped = 0
        self.parts = (SimpleNamespace(state=SimpleNamespace(name="connected")),)

    def stop(self) -> None:
        self.stopped += 1
        self.parts[0].state.name = "stopped"


def test_rerun_cell_stops_objects_of_its_last_run(cells: SimpleNamespace) -> None:
    first, second, third = Thing(), Thing(), Thing()
    notebook.started(first)
    cells.run = "2"
    notebook.started(second)
    cells.run = "3"
    notebook.started(third)
    assert (first.stopped, second.stopped, third.stopped) == (1, 1, 0)


@pytest.mark.usefixtures("cells")
def test_one_cell_run_can_start_several_objects() -> None:
    first, second = Thing(), Thing()
    notebook.started(first)
    notebook.started(second)
    assert first.stopped == 0


def test_rerun_cell_stops_only_its_own_objects_of_one_type(cells: SimpleNamespace) -> None:
    class Other(Thing):
        pass

    first, other, second = Thing(), Other(), Thing()
    notebook.started(first)
    cells.run = "2"
    notebook.started(other)
    cells.id, cells.run = "b", "3"
    notebook.started(second)
    assert (first.stopped, other.stopped) == (0, 0)


def test_started_continues_when_stop_raises(
    cells: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    class Stubborn(Thing):
        def stop(self) -> None:
            super().stop()
            raise ValueError("not me")

    first, second = Stubborn(), Stubborn()
    notebook.started(first)
    cells.run = "2"
    notebook.started(second)
    assert first.stopped == 1
    assert "not me" in caplog.text


def test_started_keeps_no_object_alive(cells: SimpleNamespace) -> None:
    notebook.started(Thing())
    cells.run = "2"
    notebook.started(second := Thing())
    assert [ref() for _, ref in notebook._started] == [second]


def test_started_does_nothing_outside_of_notebooks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    monkeypatch.setattr(notebook, "_started", [])
    notebook.started(Thing())
    assert notebook._started == []
    assert not notebook_shell.is_notebook()


class Place:
    """Stands for a display handle."""

    def __init__(self) -> None:
        self.shown: list[Any] = []
        self.drawn = threading.Semaphore(0)

    def update(self, picture: Any) -> None:
        self.shown.append(picture)
        self.drawn.release()


def shown_in_a_place(live: Live) -> Place:
    place = Place()
    live._places.append(place)
    _live._refresher.add(live)
    return place


@pytest.mark.usefixtures("cells")
def test_picture_is_redrawn_and_drawn_once_at_the_end() -> None:
    over = threading.Event()
    live = Live(lambda: Drawing("", "over" if over.is_set() else "on"), over.is_set)
    place = shown_in_a_place(live)
    for _ in range(2):
        assert place.drawn.acquire(timeout=10)
    over.set()
    for _ in range(2):
        place.drawn.acquire(timeout=10)
        if place.shown[-1].text == "over":
            break
    assert [picture.text for picture in place.shown][-1] == "over"
    assert [picture.text for picture in place.shown].count("over") == 1


@pytest.mark.usefixtures("cells")
def test_picture_is_drawn_again_when_it_ends_during_display(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    over, place = threading.Event(), Place()

    def display(_: object, *, display_id: bool) -> Place:
        assert display_id
        over.set()
        return place

    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=display))
    Live(lambda: Drawing("", "over" if over.is_set() else "on"), over.is_set)._ipython_display_()
    assert place.drawn.acquire(timeout=10)
    assert place.shown[-1].text == "over"


@pytest.mark.usefixtures("cells")
def test_one_thread_draws_all_pictures() -> None:
    before = threading.active_count()
    lives = [Live(lambda: Drawing("", "")) for _ in range(5)]
    places = [shown_in_a_place(live) for live in lives]
    assert all(place.drawn.acquire(timeout=10) for place in places)
    names = [thread.name for thread in threading.enumerate()]
    assert names.count("rxtweets-display") == 1
    for live in lives:
        live.stop()
    for thread in threading.enumerate():
        if thread.name == "rxtweets-display":
            thread.join(10)
    assert threading.active_count() <= before


@pytest.mark.usefixtures("cells")
def test_picture_is_drawn_before_stop_returns() -> None:
    counts = [0]
    live = Live(lambda: Drawing("", str(counts[0])))
    place = shown_in_a_place(live)
    counts[0] = 42
    live.stop()
    assert place.shown[-1].text == "42"
    assert live.is_over


@pytest.mark.usefixtures("cells")
def test_picture_is_redrawn_after_a_drawing_error() -> None:
    answers: list[Any] = [Drawing("", "fine"), ValueError("<oh>")]

    def draw() -> Drawing:
        answer = answers.pop() if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, Drawing)
        return answer

    live = Live(draw)
    place = shown_in_a_place(live)
    for _ in range(2):
        assert place.drawn.acquire(timeout=10)
    live.stop()
    assert place.shown[0].text == "this picture cannot be drawn: ValueError: <oh>"
    assert len(parsed(place.shown[0].svg))
    assert place.shown[1].text == "fine"


def test_closed_place_is_drawn_no_more() -> None:
    def gone(_: Any) -> None:
        raise OSError("no such socket")

    live = Live(lambda: Drawing("", "here"))
    place = Place()
    live._places.extend((SimpleNamespace(update=gone), place))
    for _ in range(2):
        live.refresh()
    assert [picture.text for picture in place.shown] == ["here", "here"]
    assert list(live._places) == [place]


def test_picture_is_redrawn_in_the_latest_three_places() -> None:
    live = Live(lambda: Drawing("", ""))
    live._places.extend(Place() for _ in range(5))
    assert len(live._places) == 3


def test_watch_returns_the_last_snapshot_of_a_deleted_pipeline() -> None:
    source: Subject[Message[str]] = Subject()
    pipeline = Pipeline(source, batchers={"default": Batcher(lambda _: None)})
    watch = _live.Watch(pipeline)
    before = watch.look()
    del pipeline
    assert watch.look() == before
    assert watch.has_ended()


def test_picture_is_its_text_outside_of_ipython() -> None:
    assert repr(Live(lambda: Drawing("", "text"))) == "text"
