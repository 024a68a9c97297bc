"""The webhook, against a real server on loopback; and the console."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Any

import pytest
import tenacity

import rxtweets
from rxtweets import Batch, Message
from rxtweets.subscribers import ConsoleSubscriber, WebhookSubscriber
from tests.subscribers._hook import Answer, Hook

Make = Callable[..., list[Message[Any]]]


def store_for(hook: Hook, pauses: list[float] | None = None, **options: Any) -> WebhookSubscriber:
    sleep = (lambda _: None) if pauses is None else pauses.append
    return WebhookSubscriber(hook.url, wait=tenacity.wait_fixed(0.5), sleep=sleep, **options)


def test_batch_is_posted_with_its_lines(hook: Hook, tweets: Make) -> None:
    messages = tweets(3)
    with store_for(hook, headers={"Authorization": "Bearer x"}) as store:
        store.on_next(Batch(messages, "timeout", "alerts"))
    [(headers, body)] = hook.got
    assert headers["authorization"] == "Bearer x"
    assert headers["content-type"] == "application/json"
    assert (body["batcher"], body["trigger"]) == ("alerts", "timeout")
    assert [message["raw"] for message in body["messages"]] == [
        json.loads(message.raw) for message in messages
    ]


def test_idempotency_key_depends_on_the_messages(hook: Hook, tweets: Make) -> None:
    hook.script = [(500, {})]
    with store_for(hook) as store:
        store.on_next(Batch(tweets(3)))
        store.on_next(Batch(tweets(3)))
        store.on_next(Batch(tweets(3, 1)))
    keys = [headers["idempotency-key"] for headers, _ in hook.got]
    assert keys[0] == keys[1] == keys[2] != keys[3]


@pytest.mark.parametrize("trouble", [(500, {}), (503, {}), (429, {}), (408, {}), None])
def test_temporary_status_is_retried(hook: Hook, tweets: Make, trouble: Answer | None) -> None:
    hook.script = [trouble, trouble]
    pauses: list[float] = []
    with store_for(hook, pauses) as store:
        store.on_next(Batch(tweets(1)))
    assert len(hook.got) == 3
    assert pauses == [0.5, 0.5]


@pytest.mark.parametrize("status", [302, 400, 401, 404, 410])
def test_permanent_status_fails_the_batch_immediately(
    hook: Hook, tweets: Make, status: int
) -> None:
    hook.script = [(status, {})]
    with store_for(hook) as store, pytest.raises(rxtweets.errors.SubscriberError) as raised:
        store.on_next(Batch(tweets(1)))
    assert len(hook.got) == 1
    assert f"/hook answered {status}" in str(raised.value)
    assert "hush" not in f"{raised.value}{store!r}"


def test_status_counts_when_the_response_cannot_be_read(hook: Hook, tweets: Make) -> None:
    hook.text = b"not gzip"
    hook.script = [(503, {"Content-Encoding": "gzip"}), (200, {"Content-Encoding": "gzip"})]
    with store_for(hook) as store:
        store.on_next(Batch(tweets(1)))
    assert len(hook.got) == 2


def test_error_has_the_text_of_the_response(hook: Hook, tweets: Make) -> None:
    hook.text = b"no such hook"
    hook.script = [(404, {})]
    with (
        store_for(hook) as store,
        pytest.raises(rxtweets.errors.SubscriberError, match="no such hook"),
    ):
        store.on_next(Batch(tweets(1)))


@pytest.mark.parametrize(
    "value", ["Bearer hush\n", " Bearer hush", "Bearer hush €", b"Bearer hush"]
)
def test_invalid_header_is_refused_and_not_shown(value: Any) -> None:
    with pytest.raises(rxtweets.ConfigurationError, match="Authorization") as raised:
        WebhookSubscriber("http://127.0.0.1:9/", headers={"Authorization": value})
    assert "hush" not in str(raised.value)


def test_webhook_gives_up_by_its_policy(hook: Hook, tweets: Make) -> None:
    hook.script = [(500, {})] * 9
    with (
        store_for(hook, stop=tenacity.stop_after_attempt(3)) as store,
        pytest.raises(rxtweets.errors.SubscriberError, match="500"),
    ):
        store.on_next(Batch(tweets(1)))
    assert len(hook.got) == 3


@pytest.mark.parametrize(
    ("value", "least", "most"),
    [
        ("7", 7, 7),
        ("0", 0.5, 0.5),
        ("nonsense", 0.5, 0.5),
        ("nan", 0.5, 0.5),
        ("99999", 300, 300),
        ("in 200 s", 30, 200),
        (formatdate(0, usegmt=True), 0.5, 0.5),
    ],
)
def test_retry_after_is_honoured(
    hook: Hook, tweets: Make, value: str, least: float, most: float
) -> None:
    if value == "in 200 s":
        value = formatdate(time.time() + 200, usegmt=True)
    hook.script = [(503, {"Retry-After": value})]
    pauses: list[float] = []
    with store_for(hook, pauses) as store:
        store.on_next(Batch(tweets(1)))
    assert least <= pauses[0] <= most


def test_unreachable_server_fails_the_batch(tweets: Make) -> None:
    store = WebhookSubscriber("http://127.0.0.1:9/", sleep=lambda _: None)
    with store, pytest.raises(rxtweets.errors.SubscriberError, match="ConnectError"):
        store.on_next(Batch(tweets(1)))


@pytest.mark.parametrize("wrong", [{"stop": 3}, {"wait": tenacity.wait_fixed}, {"sleep": 1}])
def test_webhook_refuses_invalid_strategies(wrong: dict[str, Any]) -> None:
    [name] = wrong
    with pytest.raises(rxtweets.ConfigurationError, match=f"^{name}="):
        WebhookSubscriber("http://127.0.0.1:9/", **wrong)


@pytest.mark.parametrize(
    "url",
    [
        *("", "ftp://host/", "http://", "no url", None),
        *("http://two words/", "http://a..b/", f"http://{'a' * 64}/", "http://host:99999/"),
    ],
)
def test_invalid_url_is_refused(url: Any) -> None:
    with pytest.raises(rxtweets.ConfigurationError, match="url"):
        WebhookSubscriber(url)


def test_console_replaces_half_surrogate_pairs() -> None:
    written = io.BytesIO()
    console = ConsoleSubscriber(io.TextIOWrapper(written, encoding="utf-8"), width=60)
    console.on_next(Batch([Message("half \ud83d of a pair")]))
    assert written.getvalue().decode().endswith("half   of a pair\n")


def test_console_replaces_characters_outside_its_encoding() -> None:
    written = io.BytesIO()
    console = ConsoleSubscriber(io.TextIOWrapper(written, encoding="ascii"), width=60)
    console.on_next(Batch([Message("café")]))
    assert b"caf?" in written.getvalue()


def test_console_prints_a_line_for_each_batch() -> None:
    file = io.StringIO()
    console = ConsoleSubscriber(file, width=60)
    console.on_next(Batch([Message("one\x1b[2J"), Message("two")]))
    console.on_next(Batch([Message("x" * 100)], "timeout"))
    first, second = file.getvalue().splitlines()
    assert first == "    1 │   2 by size    │ one [2J ▪ two"
    assert len(second) <= 60
    assert "by timeout" in second
