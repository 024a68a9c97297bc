"""A page in the browser that shows pipelines and streams while they run.

::

    # pip install 'rxtweets[dashboard]'
    with rxtweets.dashboard.serve(pipeline, port=8600) as page:
        print(page.url)
        pipeline.run()

The page shows the stages of a notebook's picture, rates and losses of the last five minutes, the
latest failures with their tweets, the latest batches, and the settings. It needs no other host,
connects again by itself, and says so when the program has ended. It is sampled once a second, and
a slow browser delays nothing but its own page.

`serve` binds to this machine only, unless ``host`` says otherwise: whoever reaches the page reads
the tweets on it.

May import: `rxtweets.display` and below.
"""

from rxtweets.dashboard._server import Dashboard, serve

__all__ = ["Dashboard", "serve"]
