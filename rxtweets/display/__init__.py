"""How streams, tweets and figures look: SVG, HTML and text, as pure functions of snapshots.

::

    from rxtweets import display as draw        # `display` itself is IPython's

    draw.record({"tweets": tweets, "batches": batches}, seconds=3)        # a marble diagram
    draw.Live(lambda: draw.bars(counts.most_common(10)), until=pipeline)  # a chart that moves

Messages, batches, figures, streams and pipelines show themselves in a notebook.
May import: `rxtweets._core` and below.
"""

from rxtweets.display import _stats, _tweets  # noqa: F401 - they register how values look
from rxtweets.display._charts import bars, lines
from rxtweets.display._live import Live
from rxtweets.display._marble_recorder import record
from rxtweets.display._marbles import Marbles, Mark, Strand
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
