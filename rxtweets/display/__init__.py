"""Pictures of streams, tweets and counters, for notebooks and terminals.

In a notebook (``pip install 'rxtweets[notebook]'``), messages, batches and ``stats()`` show
themselves. So does a pipeline or a stream (not an Observable derived from one) that is the last
value of a cell: it shows each connection with its state and lag. A background thread draws the
picture three times a second until the pipeline stops; then the last state stays, in the saved file
too. Pictures need no network. In a terminal they are text.

::

    live = Pipeline(tweets, batchers={"default": Batcher(store, size=20, timeout=2.0)}).start()
    live  # the picture; in any later cell: live.stats(), live.errors, live.stop()

- Nothing is printed from the background. Failures are in the picture, and the latest thirty, with
  their events, in ``pipeline.errors``. Log records go only where `logging` is configured to send
  them.
- A cell that runs again never opens a second connection: the pipelines that it started are drained
  and stopped before the new one connects, and so are the streams that it connected. Pipelines and
  streams of other cells continue.
- Texts may have any writing direction. Tweet text is HTML-escaped.

::

    from rxtweets import display as draw        # `display` itself is IPython's

    draw.record({"tweets": tweets, "batches": batches}, seconds=3)        # a marble diagram
    draw.Live(lambda: draw.bars(counts.most_common(10)), until=pipeline)  # a chart that moves

`record` draws marble diagrams of any Observables, by the real clock or by the virtual one of RxPY's
``TestScheduler``. `Live` redraws any function that returns a picture. `bars`, `lines`,
`draw_topology` and `Marbles` are shown as SVG, and as text in a terminal.

May import: `rxtweets._core` and below.
"""

from rxtweets.display import _representations  # noqa: F401 - it registers messages and counters
from rxtweets.display._charts import bars, lines
from rxtweets.display._live import Live
from rxtweets.display._marbles import Marbles, Mark, Strand, record
from rxtweets.display._snapshot import Snapshot, Stage, snapshot_of
from rxtweets.display._svg import Drawing
from rxtweets.display._topology import draw_topology

__all__ = [
    "Drawing",
    "Live",
    "Marbles",
    "Mark",
    "Snapshot",
    "Stage",
    "Strand",
    "bars",
    "draw_topology",
    "lines",
    "record",
    "snapshot_of",
]
