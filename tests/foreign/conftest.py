"""Clients of other projects, unmodified, behind one interface.

If a client insists on X's host, an adapter on its session sends the requests to the simulator.
Waits of the clients are recorded and skipped. No test asks a client for a feature that it lacks.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

from rxtweets.simulator import Simulator, Tweets

SEED = 7


@dataclass
class Heard:
    """The record of a client about a stream.

    Attributes:
        tweets: ids and texts in order.
        tags: of the rules that they matched.
        announced: disconnects that it reported.
        waits: seconds that it wanted to sleep.
    """

    tweets: list[tuple[str, str]] = field(default_factory=list)
    tags: set[str] = field(default_factory=set)
    announced: list[str] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)

    @property
    def texts(self) -> list[str]:
        return [text for _, text in self.tweets]


@dataclass
class Changed:
    """The record of a client about an answer to a change of rules.

    Attributes:
        rules: id, value and tag of each.
        problems: titles.
        deleted: how many.
    """

    rules: list[tuple[str, str, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    deleted: int = 0


class Client(ABC):
    """One client.

    Attributes:
        hears_announcements: whether it reports an announced disconnect.
        refused: its exception for a request that X refuses.
        forbidden: its exception for a token that X does not know.
        unread: its exception for a problem that it has no model of; else it returns the problem.
    """

    hears_announcements = True
    refused: type[Exception]
    forbidden: type[Exception]
    unread: type[Exception] | None = None

    def __init__(self, x: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
        self.x = x
        self.heard = Heard()
        self.monkeypatch = monkeypatch

    @abstractmethod
    def sample(self, count: int) -> Heard:
        """Read the sample stream until a number of tweets came."""

    @abstractmethod
    def search(self, count: int) -> Heard:
        """Read the filtered stream until a number of tweets came."""

    @abstractmethod
    def add(self, *rules: tuple[str, str]) -> Changed:
        """Add rules from pairs of value and tag; an empty tag is not sent."""

    @abstractmethod
    def rules(self) -> Changed:
        """Return all rules."""

    @abstractmethod
    def delete(self, *ids: str) -> Changed:
        """Delete rules."""

    @abstractmethod
    def close(self) -> None:
        """Close the resources that the client leaves open."""

    def wait(self, seconds: float) -> None:
        """Replace the client's sleep."""
        self.heard.waits.append(seconds)


class Tweepy(Client):
    """`tweepy.StreamingClient`."""

    def __init__(self, x: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(x, monkeypatch)
        tweepy = pytest.importorskip("tweepy", reason="install the extra [foreign]")
        self.refused, self.forbidden = tweepy.BadRequest, tweepy.Unauthorized
        self._rule = tweepy.StreamRule
        self._failures: list[Exception] = []
        monkeypatch.setattr("tweepy.streaming.sleep", self.wait)
        self._client = self._made()

    def _made(self) -> Any:
        from tweepy import StreamingClient

        client = StreamingClient("any")
        _send_to(self.x, client.session)
        client.on_tweet = self._hear
        client.on_errors = self._hear_errors
        client.on_matching_rules = self._hear_rules
        client.on_exception = self._failures.append
        return client

    def sample(self, count: int) -> Heard:
        return self._listen(count, self._client.sample)

    def search(self, count: int) -> Heard:
        return self._listen(count, self._client.filter)

    def add(self, *rules: tuple[str, str]) -> Changed:
        asked = [self._rule(value=value, tag=tag or None) for value, tag in rules]
        return self._changed(self._client.add_rules(asked))

    def rules(self) -> Changed:
        return self._changed(self._client.get_rules())

    def delete(self, *ids: str) -> Changed:
        return self._changed(self._client.delete_rules(list(ids)))

    def close(self) -> None:
        self._client.session.close()

    def _listen(self, count: int, listen: Callable[[], object]) -> Heard:
        self.heard, self._wanted = Heard(), count
        listen()
        assert not self._failures
        return self.heard

    def _hear(self, tweet: Any) -> None:
        if len(self.heard.tweets) < self._wanted:
            self.heard.tweets.append((str(tweet.id), tweet.text))
        if len(self.heard.tweets) == self._wanted:
            self._client.disconnect()

    def _hear_errors(self, errors: list[dict[str, str]]) -> None:
        self.heard.announced += [problem["disconnect_type"] for problem in errors]

    def _hear_rules(self, rules: list[Any]) -> None:
        self.heard.tags |= {rule.tag for rule in rules}

    def _changed(self, answer: Any) -> Changed:
        return Changed(
            rules=[(rule.id, rule.value, rule.tag or "") for rule in answer.data or ()],
            problems=[error["title"] for error in answer.errors],
            deleted=answer.meta.get("summary", {}).get("deleted", 0),
        )


class AsyncTweepy(Tweepy):
    """`tweepy.asynchronous.AsyncStreamingClient`: its methods are coroutines."""

    def _made(self) -> Any:
        for name in ("aiohttp", "async_lru"):
            pytest.importorskip(name, reason="install the extra [foreign]")
        from tweepy.asynchronous import AsyncStreamingClient, streaming

        async def wait(seconds: float) -> None:
            self.wait(seconds)

        async def connect(method: str, endpoint: str, **options: Any) -> None:
            url = f"{self.x.url}/2/tweets/{endpoint}/stream"
            headers = {"Authorization": "Bearer any"}
            base = streaming.AsyncBaseStream
            await base._connect(client, method, url, headers=headers, **options)

        names = {"CancelledError": asyncio.CancelledError, "create_task": asyncio.create_task}
        self.monkeypatch.setattr(streaming, "asyncio", SimpleNamespace(sleep=wait, **names))
        client = AsyncStreamingClient("any")
        client._connect = connect
        client.on_tweet = self._as_coroutine(self._hear)
        client.on_errors = self._as_coroutine(self._hear_errors)
        client.on_matching_rules = self._as_coroutine(self._hear_rules)
        client.on_exception = self._as_coroutine(self._failures.append)
        return client

    def sample(self, count: int) -> Heard:
        return self._listen(count, lambda: asyncio.run(self._until_done(self._client.sample)))

    def search(self, count: int) -> Heard:
        return self._listen(count, lambda: asyncio.run(self._until_done(self._client.filter)))

    def add(self, *rules: tuple[str, str]) -> Changed:
        asked = [self._rule(value=value, tag=tag or None) for value, tag in rules]
        return self._ask(lambda: self._client.add_rules(asked))

    def rules(self) -> Changed:
        return self._ask(self._client.get_rules)

    def delete(self, *ids: str) -> Changed:
        return self._ask(lambda: self._client.delete_rules(list(ids)))

    def close(self) -> None:
        """It closes its sessions itself."""

    async def _until_done(self, listen: Callable[[], asyncio.Task[None]]) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await listen()

    def _ask(self, question: Callable[[], Any]) -> Changed:
        from aiohttp import ClientSession

        async def ask() -> Any:
            async with ClientSession() as session:
                self._client.session = _Elsewhere(session, self.x.url)
                try:
                    return await question()
                finally:
                    self._client.session = None

        return self._changed(asyncio.run(ask()))

    @staticmethod
    def _as_coroutine(listen: Callable[[Any], None]) -> Callable[[Any], Any]:
        async def heard(value: Any) -> None:
            listen(value)

        return heard


class Xdk(Client):
    """X's own `xdk`.

    Attributes:
        api: the client itself, for requests that other clients lack.
    """

    hears_announcements = False

    def __init__(self, x: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(x, monkeypatch)
        xdk = pytest.importorskip("xdk", reason="install the extra [foreign]")
        from pydantic import ValidationError
        from requests import HTTPError

        self.refused = self.forbidden = HTTPError
        self.unread = ValidationError
        monkeypatch.setattr("xdk.streaming.time", SimpleNamespace(sleep=self.wait))
        self.api = xdk.Client(base_url=x.url, bearer_token="any")
        self._responses: list[Any] = []
        self.api.session.hooks["response"].append(self._keep)

    def sample(self, count: int) -> Heard:
        return self._listen(count, self.api.stream.posts_sample())

    def search(self, count: int) -> Heard:
        return self._listen(count, self.api.stream.posts())

    def add(self, *rules: tuple[str, str]) -> Changed:
        asked = [{"value": value, **({"tag": tag} if tag else {})} for value, tag in rules]
        return self._changed(self.api.stream.update_rules(body={"add": asked}))

    def rules(self) -> Changed:
        [page] = self.api.stream.get_rules()
        return self._changed(page)

    def delete(self, *ids: str) -> Changed:
        body = {"delete": {"ids": list(ids)}}
        return self._changed(self.api.stream.update_rules(body=body))

    def close(self) -> None:
        while self._responses:
            self._responses.pop().close()
        self.api.session.close()

    def _keep(self, response: Any, *_: Any, **__: Any) -> None:
        self._responses.append(response)

    def _listen(self, count: int, stream: Any) -> Heard:
        self.heard = Heard()
        with contextlib.closing(stream):
            for answer in stream:
                self.heard.tweets.append((answer.data.id, answer.data.text))
                rules = getattr(answer, "matching_rules", None) or ()
                self.heard.tags |= {rule.tag for rule in rules}
                if len(self.heard.tweets) == count:
                    return self.heard
        return self.heard

    def _changed(self, answer: Any) -> Changed:
        summary = getattr(answer.meta, "summary", None) or {}
        rules = [(rule.id, rule.value, rule.tag or "") for rule in answer.data or ()]
        return Changed(
            rules, [error.title for error in answer.errors or ()], summary.get("deleted", 0)
        )


class Twarc(Client):
    """`twarc.Twarc2`, which asks for a token first."""

    def __init__(self, x: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(x, monkeypatch)
        pytest.importorskip("twarc", reason="install the extra [foreign]")
        import time

        from requests import HTTPError
        from twarc import Twarc2, client2

        self.refused = self.forbidden = HTTPError
        clock = SimpleNamespace(sleep=self.wait, time=time.time)
        make = client2.OAuth2Session

        def session(**options: Any) -> Any:
            return _send_to(x, make(**options))

        monkeypatch.setattr(client2, "OAuth2Session", session)
        monkeypatch.setattr(client2, "time", clock)
        monkeypatch.setattr("twarc.decorators2.time", clock)
        self._client = Twarc2(consumer_key="key", consumer_secret="secret", metadata=False)

    def sample(self, count: int) -> Heard:
        return self._listen(count, self._client.sample())

    def search(self, count: int) -> Heard:
        return self._listen(count, self._client.stream())

    def add(self, *rules: tuple[str, str]) -> Changed:
        asked = [{"value": value, **({"tag": tag} if tag else {})} for value, tag in rules]
        return self._changed(self._client.add_stream_rules(asked))

    def rules(self) -> Changed:
        return self._changed(self._client.get_stream_rules())

    def delete(self, *ids: str) -> Changed:
        return self._changed(self._client.delete_stream_rule_ids(list(ids)))

    def close(self) -> None:
        if self._client.last_response:
            self._client.last_response.close()
        self._client.client.close()

    def _listen(self, count: int, stream: Any) -> Heard:
        self.heard = Heard()
        with contextlib.closing(stream):
            for frame in stream:
                problems = frame.get("errors", [])
                self.heard.announced += [problem["disconnect_type"] for problem in problems]
                if "data" in frame:
                    self.heard.tweets.append((frame["data"]["id"], frame["data"]["text"]))
                self.heard.tags |= {rule["tag"] for rule in frame.get("matching_rules", ())}
                if len(self.heard.tweets) == count:
                    break
        return self.heard

    def _changed(self, answer: dict[str, Any]) -> Changed:
        return Changed(
            rules=[
                (rule["id"], rule["value"], rule.get("tag", "")) for rule in answer.get("data", ())
            ],
            problems=[error["title"] for error in answer.get("errors", ())],
            deleted=answer["meta"].get("summary", {}).get("deleted", 0),
        )


class _Elsewhere:
    """A session of aiohttp whose requests go to another host."""

    def __init__(self, session: Any, url: str) -> None:
        self._session = session
        self._url = url

    def request(self, method: str, url: str, **options: Any) -> Any:
        return self._session.request(method, _moved(url, self._url), **options)


def _send_to(x: Simulator, session: Any) -> Any:
    """Let an adapter send all requests of a session of requests to the simulator."""
    from requests.adapters import HTTPAdapter

    adapter = HTTPAdapter()
    send = adapter.send

    def elsewhere(request: Any, **options: Any) -> Any:
        request.url = _moved(request.url, x.url)
        return send(request, **options)

    adapter.send = elsewhere
    session.mount("https://", adapter)
    return session


def _moved(url: str, base: str) -> str:
    address = urlsplit(url)
    assert address.hostname == "api.twitter.com"
    return base + address._replace(scheme="", netloc="").geturl()


CLIENTS: dict[str, type[Client]] = {
    "tweepy": Tweepy,
    "tweepy-async": AsyncTweepy,
    "xdk": Xdk,
    "twarc": Twarc,
}


@pytest.fixture(params=CLIENTS)
def use(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[Simulator], Client]]:
    """Makes the client of a simulator."""
    before = psutil.Process().num_fds()
    made: list[Client] = []

    def make(x: Simulator) -> Client:
        made.append(CLIENTS[request.param](x, monkeypatch))
        return made[-1]

    yield make
    while made:
        made.pop().close()
    gc.collect()  # reference cycles of some clients hold sockets
    assert psutil.Process().num_fds() <= before + 1


@pytest.fixture
def texts() -> Callable[[int], list[str]]:
    """The first texts that a simulator with this seed makes."""
    return lambda count: [
        json.loads(frame)["data"]["text"] for frame in Tweets(SEED).frames(0, count)
    ]
