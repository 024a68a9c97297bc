"""Pictures in the output of a cell, which are redrawn until their subject has ended."""

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
from rxtweets.display._snapshot import Shown, Snapshot, is_running, snapshot_of, with_rates
from rxtweets.display._svg import RED, Canvas, Drawing
from rxtweets.display._topology import draw_topology

PERIOD = 1 / 3
"""Seconds between two drawings."""

RATE_SPAN = 2.0
"""Seconds that a rate is measured over."""

RATE_STEP = 0.25
"""Seconds between two snapshots that are kept; the end of a cell takes further snapshots."""

MAX_RATES = 120
MAX_PLACES = 3


class Live:
    """A picture that is redrawn three times a second in the output of its cell.

    Bring your own plotting library, or use `bars` and `lines`. The picture is shown as the last
    value of a cell, or by IPython's ``display``::

        from matplotlib.figure import Figure

        def picture():
            figure = Figure(figsize=(6, 2))
            figure.subplots().bar(list(counts), list(counts.values()))
            return figure

        draw.Live(picture, until=pipeline)
        draw.Live(lambda: draw.bars(counts.most_common(10)), until=pipeline)

    One thread draws all pictures of the program, and ends with the last of them. After the last
    drawing the picture stays, in the saved notebook too. The end of a cell also redraws it. A
    picture that is shown more than three times is redrawn in the latest three places. In a
    terminal it is written once, as text.

    Args:
        draw: returns the picture: a `Drawing`, or another value that a notebook can show. An
            error is shown in the picture, and the next drawing tries again.
        until: a pipeline or a stream, or a function that returns whether it has ended; by default
            the picture is redrawn until `stop`.
    """

    def __init__(self, draw: Callable[[], Any], until: Any = None) -> None:
        self._draw = draw
        has_ended = Watch(until).has_ended if hasattr(until, "stats") else until
        self._has_ended: Callable[[], bool] = has_ended or (lambda: False)
        self._places: deque[Any] = deque(maxlen=MAX_PLACES)
        self._stopped = False

    @property
    def is_over(self) -> bool:
        """Whether redrawing has ended: after `stop`, or after the end of its subject."""
        return self._stopped or self._has_ended()

    def stop(self) -> None:
        """Draw it for the last time."""
        self._stopped = True
        _refresher.refresh()

    def refresh(self) -> bool:
        """Redraw it in its places; return whether it must be redrawn again."""
        over, picture = self._look()
        for place in tuple(self._places):
            try:
                place.update(picture)
            except Exception:  # noqa: BLE001 - the notebook was closed
                self._places.remove(place)
        return not over

    def _look(self) -> tuple[bool, Any]:
        """Return whether it has ended, asked before the drawing, and the picture."""
        over = self._stopped
        try:
            over = self.is_over
            return over, self._draw()
        except BaseException as error:
            if is_interrupt(error):
                raise
            return over, _error_drawing(error)

    def _ipython_display_(self) -> None:
        from IPython.display import display  # noqa: PLC0415 - only where IPython runs

        over, picture = self._look()
        if not is_notebook():
            display(picture)  # type: ignore[no-untyped-call]  # IPython has no types here
            return
        place = display(picture, display_id=True)  # type: ignore[no-untyped-call]  # as above
        self._places.append(place)
        if not over:
            _refresher.add(self)

    def __repr__(self) -> str:
        return str(self._look()[1])


def _error_drawing(error: BaseException) -> Drawing:
    said = f"this picture cannot be drawn: {type(error).__name__}: {error}"
    canvas = Canvas()
    canvas.text(12, 24, said, fill=RED)
    return canvas.drawing(40, [said], "an error")


class Watch:
    """Takes snapshots of a pipeline or a stream, with the rates between them."""

    def __init__(self, shown: Shown) -> None:
        self._shown = weakref.ref(shown)
        self._looks: deque[tuple[float, Snapshot]] = deque()
        self._rates: tuple[float, ...] = ()
        self._last = Snapshot("stopped", (), is_over=True)

    def look(self) -> Snapshot:
        """Return a snapshot; the last one after the pipeline was deleted."""
        shown = self._shown()
        if shown is None:
            return self._last
        now, at = snapshot_of(shown), time.monotonic()
        if now.is_over:
            self._last = replace(now, rates=self._rates)
            return self._last
        while len(self._looks) > 1 and at - self._looks[0][0] > RATE_SPAN:
            self._looks.popleft()
        since, before = self._looks[0] if self._looks else (at, None)
        self._last = with_rates(now, before, at - since, self._rates)
        if not self._looks or at - self._looks[-1][0] >= RATE_STEP:
            self._looks.append((at, now))
            self._rates = self._last.rates[-MAX_RATES:]
        return self._last

    def has_ended(self) -> bool:
        """Return whether it has ended, was not started, or was deleted."""
        shown = self._shown()
        return shown is None or not is_running(shown)


def show(shown: Shown) -> None:
    """Show a pipeline or a stream in the running cell, live until it has ended."""
    with _lives_lock:
        live = _lives.get(shown)
        if live is None:
            watch = Watch(shown)
            live = _lives[shown] = Live(lambda: draw_topology(watch.look()), watch.has_ended)
    live._ipython_display_()


class _Refresher:
    """The thread that draws, which runs as long as there is a picture to redraw."""

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.RLock())
        self._pictures: list[Live] = []
        self._running = False
        self._listens = False

    def add(self, picture: Live) -> None:
        """Redraw a picture until it has ended."""
        with self._changed:
            if picture not in self._pictures:
                self._pictures.append(picture)
            self._listen()
            if not self._running:
                start_thread("rxtweets-display", self._run, repeats=True)
                self._running = True

    def refresh(self, *_: object) -> None:
        """Draw all pictures now; those that have ended for the last time."""
        with self._changed:
            self._pictures = [picture for picture in self._pictures if picture.refresh()]
            self._changed.notify_all()

    def _listen(self) -> None:
        # The kernel does not wait for threads after the last cell: each cell draws at its end.
        if not self._listens:
            self._listens = True
            shell().events.register("post_run_cell", self.refresh)

    def _run(self) -> None:
        with self._changed:
            while self._pictures:
                self._changed.wait_for(lambda: not self._pictures, PERIOD)
                self.refresh()
            self._running = False


_lives_lock = threading.Lock()
_lives: weakref.WeakKeyDictionary[Any, Live] = weakref.WeakKeyDictionary()
_refresher = _Refresher()
