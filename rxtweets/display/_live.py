"""Pictures that live in the output of a cell: drawn anew until what they show is over."""

from __future__ import annotations

import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from rxtweets._support.notebook_shell import is_notebook, shell
from rxtweets._support.workers import is_interrupt, start_thread
from rxtweets.display._snapshot import (
    Shown,
    Snapshot,
    has_ended,
    is_running,
    snapshot_of,
    with_rates,
)
from rxtweets.display._svg import RED, Drawing, page, words
from rxtweets.display._topology import draw_topology

__all__ = ["Live", "show"]

PERIOD = 1 / 3
"""Seconds between two drawings: quick enough for the eye, slow enough for the browser."""

SPAN = 2.0
"""Seconds that a rate is measured over: less of it trembles, more of it lags behind."""

STEP = 0.25
"""Seconds between two looks that are kept; more come when cells end."""

MOST_RATES = 120
MOST_PLACES = 3


class Live:
    """A picture that is drawn anew three times a second, wherever it was shown last.

    The last value of a cell is shown; so is what is given to IPython's ``display``::

        draw.Live(lambda: draw.bars(counts.most_common(10)), until=pipeline)

    One thread draws all pictures of the program. It ends with the last of them, and after the
    last drawing the picture stays as it is, in the saved notebook too. Each run of a cell also
    draws at its end. A picture that was shown more than three times lives in the latest three
    places. In a terminal it is written once, as text.

    Args:
        draw: makes the picture: a `Drawing`, or whatever a notebook can show. What it raises is
            shown in the picture, and the next drawing tries again.
        until: a pipeline, a stream, or a function that says whether it is over; without it the
            picture lives until `stop`.
    """

    def __init__(self, draw: Callable[[], Any], until: Any = None) -> None:
        self._draw = draw
        self._until = _ending(until)
        self._places: deque[Any] = deque(maxlen=MOST_PLACES)
        self._stopped = False

    @property
    def is_over(self) -> bool:
        """Whether it is drawn no more: it was stopped, or what it shows has ended."""
        return self._stopped or self._until()

    def stop(self) -> None:
        """Draw once more, and then never again."""
        self._stopped = True
        _refresher.refresh()

    def refresh(self) -> bool:
        """Draw it wherever it is shown; whether it goes on."""
        over, picture = self._look()
        for place in tuple(self._places):
            try:
                place.update(picture)
            except Exception:  # noqa: BLE001 - a notebook that has gone; a thread must not print
                self._places.remove(place)
        return not over

    def _look(self) -> tuple[bool, Any]:
        """Return whether it has ended, asked before the picture is drawn, and the picture."""
        over = self._stopped
        try:
            over = self.is_over
            return over, self._draw()
        except BaseException as error:  # of the user's function; shown, not printed
            if is_interrupt(error):
                raise
            return over, _complaint(error)

    def _ipython_display_(self) -> None:
        from IPython.display import display  # noqa: PLC0415 - only where IPython runs

        if not is_notebook():
            display(self._look()[1])  # type: ignore[no-untyped-call]  # IPython has no types here
            return
        over, picture = self._look()
        place = display(picture, display_id=True)  # type: ignore[no-untyped-call]  # as above
        self._places.append(place)
        if not over:
            _refresher.add(self)

    def __repr__(self) -> str:
        return str(self._look()[1])


class Watch:
    """Looks at a pipeline or a stream again and again; knows the rates between the looks."""

    def __init__(self, shown: Shown) -> None:
        self._shown = weakref.ref(shown)
        self._looks: deque[tuple[float, Snapshot]] = deque()
        self._rates: tuple[float, ...] = ()
        self._last = Snapshot("stopped", (), is_over=True)

    def look(self) -> Snapshot:
        """What it is doing now; the last that is known if it is gone."""
        shown = self._shown()
        if shown is None:
            return self._last
        now, at = snapshot_of(shown), time.monotonic()
        if now.is_over:
            self._last = replace(now, rates=self._rates)
            return self._last
        while len(self._looks) > 1 and at - self._looks[0][0] > SPAN:
            self._looks.popleft()
        since, before = self._looks[0] if self._looks else (at, None)
        self._last = with_rates(now, before, at - since, self._rates)
        if not self._looks or at - self._looks[-1][0] >= STEP:
            self._looks.append((at, now))
            self._rates = self._last.rates[-MOST_RATES:]
        return self._last

    def has_ended(self) -> bool:
        """Whether nothing more will happen."""
        shown = self._shown()
        return shown is None or has_ended(shown) or not is_running(shown)


def show(shown: Shown) -> None:
    """Show a pipeline or a stream in the cell that runs now, live until it has ended."""
    with _lock:
        live = _shown.get(shown)
        if live is None:
            watch = Watch(shown)
            live = Live(lambda: draw_topology(watch.look()), watch.has_ended)
            _shown[shown] = live
    live._ipython_display_()


class _Refresher:
    """The one thread that draws; it lives as long as there is something to draw."""

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.RLock())
        self._pictures: list[Live] = []
        self._running = False
        self._listens = False

    def add(self, picture: Live) -> None:
        """Draw this one too, until it is over."""
        with self._changed:
            if picture not in self._pictures:
                self._pictures.append(picture)
            self._listen()
            if not self._running:
                start_thread("rxtweets-display", self._run, goes_on=True)
                self._running = True

    def refresh(self, *_: object) -> None:
        """Draw all now; those that are over for the last time."""
        with self._changed:
            self._pictures = [picture for picture in self._pictures if picture.refresh()]
            self._changed.notify_all()

    def _listen(self) -> None:
        """Draw at the end of every cell: when the last one has run, nobody waits for threads."""
        if not self._listens:
            self._listens = True
            shell().events.register("post_run_cell", self.refresh)

    def _run(self) -> None:
        with self._changed:
            while self._pictures:
                self._changed.wait_for(lambda: not self._pictures, PERIOD)
                self.refresh()
            self._running = False


_lock = threading.Lock()
_shown: weakref.WeakKeyDictionary[Any, Live] = weakref.WeakKeyDictionary()
_refresher = _Refresher()


def _ending(until: Any) -> Callable[[], bool]:
    if until is None:
        return lambda: False
    if hasattr(until, "stats"):
        return Watch(until).has_ended
    ending: Callable[[], bool] = until
    return ending


def _complaint(error: BaseException) -> Drawing:
    said = f"this picture cannot be drawn: {type(error).__name__}: {error}"
    return Drawing(page(640, 40, [words(12, 24, said, fill=RED)], "an error"), said)
