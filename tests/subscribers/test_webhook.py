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


def test_a_batch_is_posted_with_its_lines(hook: Hook, tweets: Make) -> None:
    messages = tweets(3)
    with store_for(hook, headers={"Authorization": "Bearer x"}) as store:
        store.on_next(Batch(messages, "timeout", "alerts"))
    [(headers, body)] = hook.got
    assert headers["authorization"] == "Bearer x"
    assert headers["content-type"] == "application/json"
    assert (body["batcher"], body["trigger"]) == ("alerts", "timeout")
    assert [each["raw"] for each in body["messages"]] == [json.loads(each.raw) for each in messages]


def test_the_key_is_the_same_for_the_same_messages_only(hook: Hook, tweets: Make) -> None:
    hook.script = [(500, {})]
    with store_for(hook) as store:
        store.on_next(Batch(tweets(3)))
        store.on_next(Batch(tweets(3)))
        store.on_next(Batch(tweets(3, 1)))
    keys = [headers["idempotency-key"] for headers, _ in hook.got]
    assert keys[0] == keys[1] == keys[2] != keys[3]


@pytest.mark.parametrize("trouble", [(500, {}), (503, {}), (429, {}), (408, {}), None])
def test_what_can_pass_is_tried_again(hook: Hook, tweets: Make, trouble: Answer | None) -> None:
    hook.script = [trouble, trouble]
    pauses: list[float] = []
    with store_for(hook, pauses) as store:
        store.on_next(Batch(tweets(1)))
    assert len(hook.got) == 3
    assert pauses == [0.5, 0.5]


@pytest.mark.parametrize("status", [302, 400, 401, 404, 410])
def test_what_cannot_fails_the_batch_at_once(hook: Hook, tweets: Make, status: int) -> None:
    hook.script = [(status, {})]
    with store_for(hook) as store, pytest.raises(rxtweets.errors.SubscriberError) as raised:
        store.on_next(Batch(tweets(1)))
    assert len(hook.got) == 1
    assert f"/hook answered {status}" in str(raised.value)
    assert "hush" not in f"{raised.value}{store!r}"


def test_the_status_counts_even_if_the_text_cannot_be_read(hook: Hook, tweets: Make) -> None:
    hook.text = b"not gzip"
    hook.script = [(503, {"Content-Encoding": "gzip"}), (200, {"Content-Encoding": "gzip"})]
    with store_for(hook) as store:
        store.on_next(Batch(tweets(1)))
    assert len(hook.got) == 2


def test_an_error_says_what_the_answer_says(hook: Hook, tweets: Make) -> None:
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
def test_a_header_that_cannot_be_sent_is_refused_and_not_shown(value: Any) -> None:
    with pytest.raises(rxtweets.ConfigurationError, match="Authorization") as raised:
        WebhookSubscriber("http://127.0.0.1:9/", headers={"Authorization": value})
    assert "hush" not in str(raised.value)


def test_it_gives_up_by_the_policy(hook: Hook, tweets: Make) -> None:
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


def test_a_server_that_is_not_there_fails_the_batch(tweets: Make) -> None:
    store = WebhookSubscriber("http://127.0.0.1:9/", sleep=lambda _: None)
    with store, pytest.raises(rxtweets.errors.SubscriberError, match="ConnectError"):
        store.on_next(Batch(tweets(1)))


@pytest.mark.parametrize("wrong", [{"stop": 3}, {"wait": tenacity.wait_fixed}, {"sleep": 1}])
def test_what_is_no_strategy_is_refused(wrong: dict[str, Any]) -> None:
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
def test_a_webhook_needs_a_url(url: Any) -> None:
    with pytest.raises(rxtweets.ConfigurationError, match="url"):
        WebhookSubscriber(url)


def test_the_console_can_write_whatever_it_shows() -> None:
    written = io.BytesIO()
    console = ConsoleSubscriber(io.TextIOWrapper(written, encoding="utf-8"), width=60)
    console.on_next(Batch([Message("half \ud83d of a pair")]))
    assert written.getvalue().decode().endswith("half   of a pair\n")


def test_the_console_replaces_what_its_encoding_lacks() -> None:
    written = io.BytesIO()
    console = ConsoleSubscriber(io.TextIOWrapper(written, encoding="ascii"), width=60)
    console.on_next(Batch([Message("café")]))
    assert b"caf?" in written.getvalue()


def test_the_console_shows_a_line_a_batch() -> None:
    file = io.StringIO()
    console = ConsoleSubscriber(file, width=60)
    console.on_next(Batch([Message("one\x1b[2J"), Message("two")]))
    console.on_next(Batch([Message("x" * 100)], "timeout"))
    first, second = file.getvalue().splitlines()
    assert first == "    1 │   2 by size    │ one [2J ▪ two"
    assert len(second) <= 60
    assert "by timeout" in second
