"""How streams, tweets and figures look: SVG, HTML and text, as pure functions of snapshots.

::

    from rxtweets import display as draw        # `display` itself is IPython's

    draw.record({"tweets": tweets, "batches": batches}, seconds=3)        # a marble diagram
    draw.Live(lambda: draw.bars(counts.most_common(10)), until=pipeline)  # a chart that moves

Messages, batches, figures, streams and pipelines show themselves in a notebook.
"""

from rxtweets.display.charts import bars, lines
from rxtweets.display.drawing import Drawing
from rxtweets.display.marbles import Marbles, Mark, Strand
from rxtweets.display.pictures import Live
from rxtweets.display.recording import record
from rxtweets.display.snapshot import Snapshot, Stage, snapshot_of
from rxtweets.display.topology import draw_topology

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
