"""A page in the browser that shows pipelines and streams while they run.

::

    # pip install 'rxtweets[dashboard]'
    with rxtweets.dashboard.serve(pipeline, port=8600) as page:
        print(page.url)
        pipeline.run()

The page shows the stages, rates and losses of the last five minutes, the latest failures with their
tweets, the latest batches, and the settings. It requests nothing from other hosts, reconnects
automatically, and shows when the program has ended. It is updated once a second; a slow browser
delays only its own page.

`serve` binds to 127.0.0.1, unless ``host`` is given: anyone who can open the page can read the
tweets on it.

May import: `rxtweets.display` and below.
"""

from rxtweets.dashboard._server import Dashboard, serve

__all__ = ["Dashboard", "serve"]
