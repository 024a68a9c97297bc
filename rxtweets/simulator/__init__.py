"""A simulator of X's streams on this machine: HTTP/1.1 and HTTP/2, tweets or a recording, faults.

::

    with rxtweets.simulator.serve(rate=1000, seed=7) as x:
        tweets = rxtweets.sample_stream(token="any", base_url=x.url)

`serve` starts it, `rxtweets.simulator.script` has the faults, ``rxtweets simulate`` serves it to
programs in any language.

May import: `rxtweets.api`, `rxtweets._messages` and below.
"""

from rxtweets.simulator import script
from rxtweets.simulator._server import Request, Simulator, serve
from rxtweets.simulator._tweets import Tweets

__all__ = ["Request", "Simulator", "Tweets", "script", "serve"]
