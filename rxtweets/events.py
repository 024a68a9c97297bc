"""The events of streams and pipelines, as `stream.events` emits them."""

from rxtweets._core import events as _events
from rxtweets._core.events import *  # noqa: F403 - the public name of that module

__all__ = _events.__all__
