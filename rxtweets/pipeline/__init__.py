"""The ready-made topology: sources, processors, batchers and their subscribers.

May import: `rxtweets.streams`, `rxtweets.operators`, `rxtweets.display` and below.
"""

from rxtweets.pipeline._batcher import Batcher
from rxtweets.pipeline._intake import Restart
from rxtweets.pipeline._pipeline import Pipeline
from rxtweets.pipeline._topology import (
    Topology,
    TopologyBatcher,
    TopologyProcessors,
    TopologySource,
)

__all__ = [
    "Batcher",
    "Pipeline",
    "Restart",
    "Topology",
    "TopologyBatcher",
    "TopologyProcessors",
    "TopologySource",
]
