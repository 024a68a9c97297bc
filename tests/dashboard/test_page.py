"""The page over real HTTP: what it says, to whom, and what it refuses."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from reactivex.disposable import SerialDisposable
from reactivex.subject import Subject

import rxtweets
from rxtweets import Batch, Batcher, Message, Pipeline, StageStats, Stats, dashboard
from rxtweets import operators as ops
from rxtweets._core.events import BatchDelivered
from rxtweets.dashboard import _app, _broadcast
from rxtweets.dashboard._cards import PipelineCard, ReportedCard, _BatchSample
from rxtweets.dashboard._server import serve_cards
from rxtweets.testing import DummySource

PATIENCE = 20.0
HOSTILE = "<script>alert(1)</script> & \u202egnp.exe"


class Held:
    """A pipeline whose messages the test pushes."""

    def __init__(self) -> None:
        self.batches: list[Any] = []
        self.pipeline = Pipeline(
            DummySource(),
            handle_message=self._handle,
            batchers={"default": Batcher(self.batches.append, size=2, timeout=60.0)},
        )

    def _handle(self, message: Message[Any]) -> Message[Any]:
        if "fail" in message.data:
            raise ValueError("asked for")
        return message

    def push(self, *texts: str) -> None:
        messages = [Message(text, {"id": str(number)}) for number, text in enumerate(texts, 1)]
        self.pipeline.push(messages)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_broadcast, "PERIOD", 0.02)


@pytest.fixture
def held() -> Iterator[Held]:
    held = Held()
    with held.pipeline:
        yield held


@pytest.fixture
def page(held: Held) -> Iterator[dashboard.Dashboard]:
    with dashboard.serve(held.pipeline, port=0) as page:
        yield page


@pytest.fixture
def controlled(held: Held) -> Iterator[dashboard.Dashboard]:
    with dashboard.serve(held.pipeline, port=0, controls=True) as page:
        yield page


def moments(url: str) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yield the names and values of the events, as a browser gets them."""
    with httpx.stream("GET", f"{url}moments", timeout=PATIENCE) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        name = ""
        for line in answer.iter_lines():
            field, _, value = line.partition(": ")
            if field == "event":
                name = value
            elif field == "data":
                yield name, json.loads(value)


def first_with(url: str, wanted: Any) -> dict[str, Any]:
    """Return the first card for which the function holds."""
    return next(cards[0] for _, cards in moments(url) if wanted(cards[0]))


class Shown:
    """A card with values of the test."""

    def __init__(self, values: dict[str, Any]) -> None:
        self._values = values
        self.name = str(values.get("name", ""))

    def point(self) -> dict[str, float | None]:
        return {}

    def values(self) -> dict[str, Any]:
        return dict(self._values)


def act(url: str, name: str, **headers: str) -> httpx.Response:
    address, _, token = url.partition("#")
    given = {"X-Rxtweets-Token": token} | headers
    return httpx.post(f"{address}cards/0/{name}", headers=given, timeout=PATIENCE)


def test_first_moment_is_whole_and_others_follow(page: dashboard.Dashboard) -> None:
    stream = moments(page.url)
    name, cards = next(stream)
    assert name == "whole"
    assert cards[0]["name"] == "pipeline 1: DummySource"
    name, cards = next(stream)
    assert name == "moment"
    assert len(cards[0]["points"]) == 1


def test_page_shows_figures_failures_and_batches(held: Held, page: dashboard.Dashboard) -> None:
    _, listening = next(moments(page.url))  # batches are noted from now on
    assert listening[0]["batches"] == []
    held.push("one", "two", "fail")
    card = first_with(page.url, lambda card: card["batches"] and card["failures"])
    figures = {figure["name"]: figure for figure in card["figures"]}
    assert figures["batches"]["value"] == "1"
    assert figures["failed"] == {"name": "failed", "value": "1", "is loss": True}
    assert {tweet["text"] for tweet in card["batches"][0]["tweets"]} == {"one", "two"}
    assert card["failures"][0]["tweets"] == [{"id": "3", "text": "fail"}]
    assert {stage["kind"] for stage in card["stages"]} == {
        "source", "processors", "batcher", "subscribers",
    }  # fmt: skip


def test_tweets_are_data_and_never_markup(held: Held, page: dashboard.Dashboard) -> None:
    held.push(HOSTILE, "fail " + HOSTILE)
    card = first_with(page.url, lambda card: card["failures"])
    assert card["failures"][0]["tweets"][0]["text"] == "fail <script>alert(1)</script> & gnp.exe"
    assert "<script" not in card["picture"]


def test_id_that_is_no_text_is_shown(
    held: Held, page: dashboard.Dashboard, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "rxtweets")  # no report of a test can carry this id
    held.pipeline.push([Message("fail", {"id": "\ud800"})])
    card = first_with(page.url, lambda card: card["failures"])
    assert card["failures"][0]["tweets"] == [{"id": "\ufffd", "text": "fail"}]


def test_other_cards_outlive_a_card_that_has_no_json() -> None:
    with serve_cards([Shown({"name": "\ud800"}), Shown({"name": "b"})], 0, "127.0.0.1") as page:
        stream = moments(page.url)
        for _ in range(3):
            _, (broken, shown) = next(stream)
            assert "cannot be shown" in broken["problem"]
            assert broken["name"] == "\ufffd"
            assert shown["name"] == "b"


def test_points_are_kept_while_the_first_moment_is_sent() -> None:
    async def main() -> list[bytes]:
        broadcast = _broadcast.Broadcast([Shown({})])
        looking = asyncio.create_task(broadcast.run())
        viewer = broadcast.moments()
        sent = [await anext(viewer)]
        await asyncio.sleep(10 * _broadcast.PERIOD)  # the browser is slow
        sent.append(await anext(viewer))
        broadcast.end()
        await looking
        return sent

    assert [event.partition(b"\n")[0] for event in asyncio.run(main())] == [b"event: whole"] * 2


class Overtaken(SerialDisposable):
    """The page looks at the batches when the subscription is disposed of."""

    sample: _BatchSample

    def set_disposable(self, value: Any) -> None:
        if value is None:
            self.sample.latest()
        super().set_disposable(value)

    disposable = property(SerialDisposable.get_disposable, set_disposable)


def test_sample_of_batches_continues_when_page_looks_meanwhile() -> None:
    shown: Any = SimpleNamespace(events=Subject[Any]())
    sample, overtaken = _BatchSample(shown), Overtaken()
    overtaken.sample = sample
    sample._listening = overtaken
    for _ in range(3):
        sample.latest()
        shown.events.on_next(BatchDelivered(Batch([Message("one")]), 0.1))
    assert len(sample.latest()) == 3


def test_page_tells_that_the_pipeline_has_ended(held: Held, page: dashboard.Dashboard) -> None:
    held.pipeline.stop()
    assert first_with(page.url, lambda card: card["is over"])["state"] == "stopped"


def test_stream_has_the_name_of_its_source() -> None:
    tweets = rxtweets.sample_stream(token="any", base_url="http://127.0.0.1:1")
    with dashboard.serve(tweets, port=0) as page:
        assert next(moments(page.url))[1][0]["name"] == "stream 1: sample_stream"


def test_stream_without_a_subscriber_has_not_ended() -> None:
    tweets = rxtweets.sample_stream(token="any", base_url="http://127.0.0.1:1")
    values = PipelineCard(tweets, "stream").values()
    assert (values["state"], values["is over"]) == ("idle", False)


def test_settings_have_the_options_of_a_stream_and_no_token() -> None:
    tweets = rxtweets.sample_stream(
        token="any-secret", base_url="http://127.0.0.1:1", limit=5, tweet_fields=["lang"]
    )
    settings = PipelineCard(tweets, "stream").values()["settings"]
    shown = dict(settings)
    assert shown["buffer"] == "10,000 messages for each connection, drop_oldest"
    assert (shown["limit"], shown["tweet.fields"]) == ("5 messages", "lang")
    assert "any-secret" not in str(settings)


@pytest.mark.parametrize(
    ("is_over", "state"), [(True, "stopped"), (False, "its process has ended")]
)
def test_card_of_a_process_tells_how_it_has_ended(is_over: bool, state: str) -> None:
    reported = {"state": "stopped" if is_over else "running", "is over": is_over}
    card = ReportedCard("worker 1", lambda: (Stats(), reported), lambda: False)
    assert (card.values()["state"], card.values()["is over"]) == (state, is_over)


def test_stop_sends_a_last_moment_and_ends_the_stream(held: Held) -> None:
    with dashboard.serve(held.pipeline, port=0) as page:
        stream = moments(page.url)
        next(stream)
        held.push("one", "two")
        assert held.pipeline.stop().batched == 2
        stopping = threading.Thread(target=page.stop)
        stopping.start()
        last = [cards[0] for _, cards in stream][-1]
        stopping.join(PATIENCE)
    assert last["is over"]
    with pytest.raises(httpx.ConnectError):
        httpx.get(page.url)


def test_page_outlives_what_cannot_be_shown() -> None:
    class Broken:
        errors = ()
        stats = property(lambda _: 1 // 0)

    broken: Any = PipelineCard(Broken(), "broken")
    with serve_cards([broken], 0, "127.0.0.1") as page:
        _, cards = next(moments(page.url))
    assert "ZeroDivisionError" in cards[0]["problem"]


def test_viewers_beyond_the_limit_are_refused_even_at_once(
    page: dashboard.Dashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_app, "MAX_VIEWERS", 3)

    async def main() -> list[int]:
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(httpx.AsyncClient(timeout=PATIENCE))

            async def view() -> int:
                stream = client.stream("GET", f"{page.url}moments")
                return (await stack.enter_async_context(stream)).status_code

            return await asyncio.gather(*(view() for _ in range(20)))

    assert sorted(asyncio.run(main())) == [200] * 3 + [503] * 17
    monkeypatch.undo()
    assert next(moments(page.url))


@pytest.mark.parametrize("path", ["", "page.js", "page.css"])
def test_files_forbid_other_hosts_scripts_and_frames(page: dashboard.Dashboard, path: str) -> None:
    answer = httpx.get(page.url + path)
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "//" not in answer.text.replace("http://www.w3.org", "") or path == "page.js"


@pytest.mark.parametrize(
    ("host", "status"),
    [("evil.example", 403), ("127.0.0.1.evil.example", 403), ("localhost", 200), ("[::1]", 200)],
)
def test_host_must_be_this_machine(page: dashboard.Dashboard, host: str, status: int) -> None:
    assert httpx.get(page.url, headers={"Host": host}).status_code == status


@pytest.mark.parametrize("host", ["MyMac.local", "mymac.local"])
def test_name_of_this_machine_has_no_case(
    held: Held, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "MyMac.local")
    with dashboard.serve(held.pipeline, port=0) as page:
        assert httpx.get(page.url, headers={"Host": host}).status_code == 200


def test_buttons_pause_resume_and_drain(held: Held, controlled: dashboard.Dashboard) -> None:
    url = controlled.url.partition("#")[0]
    assert act(controlled.url, "pause").status_code == 202
    assert first_with(url, lambda card: "resume" in card["actions"])
    assert act(controlled.url, "resume").status_code == 202
    assert first_with(url, lambda card: "pause" in card["actions"])
    assert act(controlled.url, "drain").status_code == 202
    assert held.pipeline.wait(PATIENCE)


@pytest.mark.parametrize(
    "headers",
    [{"X-Rxtweets-Token": "wrong"}, {"X-Rxtweets-Token": ""}, {"Origin": "http://evil.example"}],
)
def test_actions_need_the_token_and_no_foreign_origin(
    held: Held, controlled: dashboard.Dashboard, headers: dict[str, str]
) -> None:
    assert act(controlled.url, "pause", **headers).status_code == 403
    assert not held.pipeline.is_paused


def test_own_origin_may_act(controlled: dashboard.Dashboard) -> None:
    origin = controlled.url.partition("/#")[0]
    assert act(controlled.url, "pause", Origin=origin).status_code == 202


def test_without_controls_nothing_acts(held: Held, page: dashboard.Dashboard) -> None:
    assert "#" not in page.url
    assert act(page.url, "pause").status_code == 403
    assert not held.pipeline.is_paused


def test_token_is_not_in_the_repr(controlled: dashboard.Dashboard) -> None:
    assert controlled.url.partition("#")[2] not in repr(controlled)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (dashboard.serve, "needs a pipeline"),
        (lambda: dashboard.serve(object()), "give a pipeline"),
        (lambda: dashboard.serve(rxtweets.from_iterable([])), "give a pipeline"),
        (lambda: dashboard.serve(Held().pipeline, port=-1), "port=-1"),
        (lambda: dashboard.serve(Held().pipeline, port=70_000), "70000"),
        (lambda: dashboard.serve(Held().pipeline, host="no such host"), "no such host"),
        (lambda: dashboard.serve(Held().pipeline, host=""), "host=''"),
        (lambda: dashboard.serve(Held().pipeline, host=None), "host=None"),  # type: ignore[arg-type]  # refused
        (lambda: dashboard.serve(Held().pipeline, host="a" * 64), "aaaa"),
        (lambda: dashboard.serve(Held().pipeline, host="a\0"), "host="),
        (lambda: dashboard.serve(Held().pipeline, controls="yes"), "controls='yes'"),  # type: ignore[arg-type]  # refused
    ],
)
def test_invalid_arguments_are_refused(make: Any, words: str) -> None:
    with pytest.raises(rxtweets.errors.ConfigurationError, match=words):
        make()


def test_taken_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(rxtweets.errors.ConfigurationError, match=f"port {port}.*port=0"):
            dashboard.serve(Held().pipeline, port=port)


class Stages:
    """A stream whose stages have a share of time each, and one second between two looks."""

    errors = ()
    events = Subject[Any]()

    def __init__(self, **shares: tuple[float, ...]) -> None:
        self._shares = [(kind, share) for kind, given in shares.items() for share in given]
        self._seconds = 0.0

    def stats(self) -> Stats:
        return Stats()

    def stages(self) -> list[StageStats]:
        self._seconds += 1.0
        return [
            StageStats("default", 1, 0, 0, share * self._seconds, self._seconds, kind)
            for kind, share in self._shares
        ]


def test_stages_of_one_name_have_their_own_share_of_time() -> None:
    card = PipelineCard(Stages(processors=(0.2, 0.8), subscribers=(0.5,)), "stream")
    card.values()
    busy = {(row["kind"], row["name"]): row["busy"] for row in card.values()["stages"]}
    assert busy == {
        ("subscribers", "default"): pytest.approx(0.5),
        ("processors", "default 1"): pytest.approx(0.8),
        ("processors", "default 2"): pytest.approx(0.2),
    }


def test_stages_of_a_stream_begin_at_its_source() -> None:
    def first(message: Message[str]) -> Message[str]:
        return message

    tweets = rxtweets.from_iterable(["one", "two"])
    batches = tweets.pipe(ops.process(first), ops.process(first), ops.batch(2))
    batches.to_list().run()
    rows = PipelineCard(batches, "stream").values()["stages"]
    assert [(row["kind"], row["name"]) for row in rows] == [
        ("processors", "1"), ("processors", "2"), ("batcher", "default"),
    ]  # fmt: skip
