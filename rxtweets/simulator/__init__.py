"""X's stream on your desk: real HTTP, simulated or recorded tweets, faults by script.

::

    with rxtweets.simulator.serve(rate=1000, seed=7) as x:
        tweets = rxtweets.sample_stream(token="any", base_url=x.url)

May import: `rxtweets.api`, `rxtweets._messages` and below.
"""

from rxtweets.simulator import script
from rxtweets.simulator._server import Request, Simulator, serve
from rxtweets.simulator._tweets import Tweets

__all__ = ["Request", "Simulator", "Tweets", "script", "serve"]
