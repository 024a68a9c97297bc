"""No output shows the token, and no other host receives it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import re
import socket
import socketserver
import subprocess
import sys
import textwrap
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from traceback import format_exception, walk_tb
from typing import Any
from urllib.parse import quote, unquote

import nbformat
import pytest
from hyperframe import frame as frames
from nbclient import NotebookClient
from orjson import dumps

import rxtweets
from rxtweets import events, simulator
from rxtweets.api import _client as client
from rxtweets.api import _proxies as proxies
from rxtweets.api._options import Token, connection_options
from rxtweets.cli import main
from rxtweets.errors._redaction import mask
from rxtweets.simulator.script import (
    Abort,
    Close,
    Disconnect,
    Line,
    Part,
    Reply,
    Serve,
    forbidden,
    no_rules,
    rate_limited,
    unauthorized,
    unavailable,
    usage_capped,
)
from rxtweets.subscribers import WebhookSubscriber
from tests.streams.watching import Watched

SECRET = "AAAAAAAAsecret-of-the-app%3Dtoken"

PROGRAM = textwrap.dedent(
    """
    import logging, os, pickle, sys, threading, traceback, warnings
    logging.basicConfig(level=1, stream=sys.stdout, format="%(name)s %(message)s %(args)s")
    import rxtweets
    options = {
        "base_url": os.environ["URL"],
        "backoff": rxtweets.Backoff(scale=0.001),
        **eval(os.environ["OPTIONS"]),
    }
    stream = rxtweets.filtered_stream(tweet_fields=["no_such_field"], **options)
    over = threading.Event()

    def show(value):
        print(repr(value), str(value), getattr(value, "__dict__", None))

    def fail(error):
        show(error)
        traceback.print_exception(error)
        while error is not None:
            show(error)
            show(error.args)
            try:
                print(pickle.dumps(error))
            except Exception as refusal:
                show(refusal)
            error = error.__cause__ or error.__context__
        over.set()

    stream.events.subscribe(show)
    stream.subscribe(show, fail, over.set)
    assert over.wait(30)
    assert stream.telemetry.bus.flush()
    for value in (stream, stream.stats(), stream.state, rxtweets.Rules, rxtweets.Connections):
        show(value)
    for client in (rxtweets.Rules, rxtweets.Connections):
        try:
            made = client(**{k: v for k, v in options.items() if k != "backoff"})
            show(made)
            show(vars(made))
            (made.get if client is rxtweets.Rules else made.list)()
        except rxtweets.RxTweetsError as error:
            fail(error)
    for client in (stream, made):
        try:
            print(pickle.dumps(client))
        except Exception as refusal:
            show(refusal)
    raise SystemExit(stream.stats().nonsense)
    """
)


def output_of(script: Sequence[Part], options: str) -> str:
    with simulator.serve(script=script, rate=None, rules=["the"], token=SECRET) as x:
        environment = {**os.environ, "URL": x.url, "OPTIONS": options, "X_BEARER_TOKEN": SECRET}
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert [request.headers["authorization"] for request in x.requests]
    return done.stdout + done.stderr


ENDINGS: dict[str, Part] = {
    "401": unauthorized(),
    "403": forbidden(),
    "409": no_rules(),
    "429": usage_capped(),
    "302": Reply(302, b"", {"location": "http://127.0.0.1:9/elsewhere"}),
}


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("options", ["{'http2': False}", "{'http1': False}"])
def test_failing_run_prints_no_token(ending: str, options: str) -> None:
    script: list[Part] = [
        [Serve(20), Abort(mid_frame=True)],
        [Serve(3), Line(b"nonsense"), Line(b"{}"), Disconnect(), Close()],
        unavailable(),
        rate_limited(reset=0),
        ENDINGS[ending],
    ]
    printed = output_of(script, options)
    assert "AttributeError" in printed, printed[-2000:]
    assert "Disconnected(" in printed
    assert "httpcore" in printed
    assert SECRET not in printed
    assert "secret-of-the-app" not in printed


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the machinery of notebooks
def test_failing_notebook_shows_no_token() -> None:
    with simulator.serve(token="another") as x:
        cell = f"""
        import os, threading
        os.environ["X_BEARER_TOKEN"] = bytes.fromhex("{SECRET.encode().hex()}").decode()
        import rxtweets
        stream = rxtweets.sample_stream(base_url="{x.url}")
        errors = []
        over = threading.Event()
        stream.subscribe(print, lambda error: (errors.append(error), over.set()))
        over.wait(20)
        display(stream, stream.state, stream.stats())
        raise errors[0]
        """
        notebook: Any = nbformat.v4.new_notebook()  # type: ignore[no-untyped-call]  # it has no types
        code: Any = nbformat.v4.new_code_cell(textwrap.dedent(cell))  # type: ignore[no-untyped-call]  # it has no types
        notebook.cells = [code]
        # nbclient does not close the loop that it makes.
        asyncio.run(NotebookClient(notebook, timeout=60, allow_errors=True).async_execute())
    written = nbformat.writes(notebook)  # type: ignore[no-untyped-call]  # it has no types
    assert "AuthenticationError" in written
    assert SECRET not in written


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("http", [{"http2": False}, {"http1": False}], ids=["HTTP/1.1", "HTTP/2"])
def test_redirect_to_another_host_is_not_followed(status: int, http: dict[str, Any]) -> None:
    with simulator.serve() as other:
        moved = Reply(status, b"", {"location": f"{other.url}/2/tweets/sample/stream"})
        with simulator.serve(script=[moved]) as x, Watched(x, token=SECRET, **http) as w:
            error = w.until_error()
            assert isinstance(error, rxtweets.errors.ResponseError)
            assert error.status == status
        assert other.requests == []


def test_urls_have_no_token() -> None:
    with simulator.serve(rules=["the"], token=SECRET) as x:
        options: dict[str, Any] = {"token": SECRET, "base_url": x.url}
        rules = rxtweets.Rules(**options)
        rules.sync(["a b", "c"])
        rxtweets.Connections(**options).list()
        with Watched(x, rxtweets.filtered_stream, token=SECRET) as w:
            w.until(lambda: len(x.requests) >= 5)
        for request in x.requests:
            assert SECRET not in request.path
            assert SECRET not in repr(request)
            assert not any(SECRET in value for value in request.query.values())


FORMS = {
    "as it was sent": SECRET,
    "decoded": unquote(SECRET),
    "encoded again": quote(SECRET),
    "encoded with small letters": SECRET.replace("%3D", "%3d"),
    "in JSON": SECRET.replace("%3D", "\\u003d"),
    "in HTML": SECRET.replace("%3D", "&#61;"),
    "in a repr": repr(unquote(SECRET)),
    "cut off": SECRET[:20],
}


@pytest.mark.parametrize("form", FORMS)
def test_secret_is_masked_in_every_form(form: str) -> None:
    token = Token(SECRET)
    text = f'{{"said": "{FORMS[form]}!"}}'
    for masked in (mask(text), mask(text.encode()).decode()):
        assert "secret-of-the" not in masked
        assert masked.startswith('{"said": "') or form == "in a repr"
        assert masked.endswith('!"}')
    assert mask("nothing of it") == "nothing of it"
    del token


@pytest.mark.parametrize(
    ("token", "shown"),
    [
        ("a+b/c==secret-token", "a b/c==secret-token"),
        ("a+b/c==secret-token", "a%2Bb%2Fc%3D%3Dsecret-token"),
        ("a+b/c==secret-token", "a+b\\/c==secret-token"),
        ("a%2Bb%2fc-secret-token", "a+b/c-secret-token"),
        ('a"b<c-secret-token', "a&quot;b&lt;c-secret-token"),
        ('a"b\\c-secret-token', r"a\"b\\c-secret-token"),
        ('"a-secret-token', r"\"a-secret-token"),
        ("+a-secret-token", r"\\\u002Ba-secret-token"),
    ],
)
def test_encoded_characters_are_masked(token: str, shown: str) -> None:
    kept = Token(token)
    assert mask(f"Bearer {shown}.") == "Bearer ***."
    assert mask(f"Bearer {shown}.".encode()) == b"Bearer ***."
    del kept


def test_backslashes_are_searched_in_linear_time() -> None:
    kept = Token("!a-secret-token")
    many = "\\" * 2**20  # too long in quadratic time
    assert mask(f"{many} {many}!a-secret-token") == f"{many} ***"
    del kept


def test_secrets_are_long_and_forgotten_with_their_token() -> None:
    token, word = Token("a-token-that-is-gone"), Token("data")
    assert mask("a-token-that-is-gone data") == "*** data"
    del token, word
    assert mask("a-token-that-is-gone data") == "a-token-that-is-gone data"


@pytest.mark.parametrize(
    ("proxy", "hidden"),
    [
        ("http://user:pass-word@proxy:1", ["pass-word", "user:pass-word"]),
        ("http://user:pass-word@proxy:1", [b64encode(b"user:pass-word").decode()]),
        ("user:p%40ss-word@proxy:1", ["p@ss-word", b64encode(b"user:p@ss-word").decode()]),
        ("http://only-a-key@proxy", ["only-a-key", b64encode(b"only-a-key:").decode()]),
        ("socks5://me:word@proxy", ["me:word", b64encode(b"me:word").decode()]),
    ],
)
def test_credentials_of_a_proxy_are_masked(
    proxy: str, hidden: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxies, "find_spec", lambda _: True)  # of the library for SOCKS
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    options = connection_options(token=SECRET)
    for text in hidden:
        assert text not in mask(f"<{text}>")
    assert "pass-word" not in repr(options)


Pieces = Callable[[str], bytes]
"""From the text of a request to the answer."""


@contextlib.contextmanager
def reflecting(answer: Pieces) -> Iterator[str]:
    """A server that sends requests back."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            sent = self.request.recv(65_536)
            if sent.startswith(b"PRI"):  # HTTP/2, where HPACK encodes it
                sent = f"authorization: Bearer {SECRET}\r\n".encode()
            with contextlib.suppress(OSError):
                self.request.sendall(answer(sent.decode("latin-1")))
                self.request.shutdown(socket.SHUT_WR)
                while self.request.recv(65_536):
                    pass

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def field_of(sent: str) -> str:
    [field] = re.findall(r"(?i)authorization: (Bearer [^\r]*)", sent)
    return str(field)


def with_body(status: str, body: str, head: str = "") -> bytes:
    lines = f"HTTP/1.1 {status}\r\n{head}content-length: {len(body)}\r\n\r\n"
    return (lines + body).encode()


CHUNKED = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"

PLACES: dict[str, Pieces] = {
    "a body": lambda sent: with_body("403 No", sent),
    "a problem": lambda sent: with_body("401 No", dumps({"title": "No", "detail": sent}).decode()),
    "a long body": lambda sent: with_body("403 No", "a" * 65_480 + sent),
    "a field": lambda sent: with_body("403 No", "", f"x-you-sent: {field_of(sent)}\r\n"),
    "a redirect": lambda sent: with_body("302 No", "", f"location: /?auth={quote(sent)}\r\n"),
    "a reason": lambda sent: with_body(f"403 {field_of(sent)}", ""),
    "no HTTP": lambda sent: (field_of(sent) + "\r\n\r\n").encode(),
    "a wrong field": lambda sent: f"HTTP/1.1 403 No\r\n{field_of(sent)} \x01\r\n\r\n".encode(),
    "an encoding": lambda sent: with_body("200 OK", "", f"content-encoding: {field_of(sent)}\r\n"),
    "a chunk's size": lambda sent: (CHUNKED + field_of(sent) + "\r\n").encode(),
    "a line that is no JSON": lambda sent: with_body("200 OK", field_of(sent) + "\r\n"),
    "a line that is cut off": lambda sent: with_body("200 OK", "{" + field_of(sent)),
    "a line that is too long": lambda sent: with_body("200 OK", field_of(sent) * 1000 + "\r\n"),
    "an unknown message": lambda sent: with_body("200 OK", dumps({"new": sent}).decode() + "\r\n"),
    "a disconnect": lambda sent: with_body(
        "200 OK",
        dumps({"errors": [{"disconnect_type": field_of(sent), "detail": sent}]}).decode() + "\r\n",
    ),
    "an answer": lambda sent: with_body(
        "200 OK", dumps({"data": [{"id": "1", "value": field_of(sent)}], "meta": {}}).decode()
    ),
    "GOAWAY": lambda sent: (
        frames.SettingsFrame(0).serialize()
        + frames.GoAwayFrame(0, 0, 1, additional_data=sent.encode()).serialize()
    ),
}


def all_that_is_shown(error: BaseException) -> Iterator[object]:
    """The parts of an error that programs show; its tracebacks have no frames of httpx."""
    yield from format_exception(error)
    chain: list[BaseException] = [error]
    while chain:
        cause = chain.pop()
        yield from (str(cause), repr(cause), cause.args, vars(cause))
        files = {frame.f_code.co_filename for frame, _ in walk_tb(cause.__traceback__)}
        assert not [file for file in files if "/httpx/" in file or "/httpcore/" in file]
        if isinstance(cause, rxtweets.RxTweetsError):
            yield pickle.dumps(cause)
        chain += [more for more in (cause.__cause__, cause.__context__) if more is not None]


@pytest.mark.parametrize("isolated", [False, True], ids=["", "isolated"])
@pytest.mark.parametrize("fast", [True, False], ids=["fast", "httpx"])
@pytest.mark.parametrize("place", PLACES)
def test_reflected_token_is_shown_nowhere(
    place: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    *,
    fast: bool,
    isolated: bool,
) -> None:
    monkeypatch.setattr(client, "PAUSE", 0.0)
    caplog.set_level(1)
    shown: list[object] = []
    http = {"http1": False, "fast_paths": fast} if place == "GOAWAY" else {"fast_paths": fast}
    if place != "GOAWAY":
        http["http2"] = False
    with reflecting(PLACES[place]) as url:
        options: dict[str, Any] = {"token": SECRET, "base_url": url, **http}
        with Watched(isolated=isolated, max_line_mb=0.02, **options) as w:
            [end] = w.until_event(events.Disconnected)[:1]
            assert w.stream.telemetry.bus.flush()
        shown += w.events
        shown += all_that_is_shown(end.error)
        shown += [w.stream, w.stream.stats()]
        try:
            shown += rxtweets.Rules(**options).get()
        except rxtweets.RxTweetsError as error:
            shown += all_that_is_shown(error)
    written = "".join(map(repr, shown)) + caplog.text
    missing = {"Disconnected(", "httpcore"} - set(re.findall(r"Disconnected\(|httpcore", written))
    assert not missing
    assert re.findall(r".{0,80}secret-of-the-app", written) == []


def test_reflected_credentials_are_shown_nowhere(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(1)

    def refuse(sent: str) -> bytes:
        basic = sent.lower().partition("proxy-authorization: ")[0]
        said = sent[len(basic) :].partition("\r\n")[0]
        return with_body(f"407 {said}", said, f"x-you-sent: {said}\r\n")

    with reflecting(refuse) as url:
        proxy = url.replace("://", "://user:hidden-word@")
        for base_url in ("https://x.example", "http://x.example"):
            options: dict[str, Any] = {"token": SECRET, "base_url": base_url, "proxy": proxy}
            with pytest.raises(rxtweets.RxTweetsError) as caught:
                rxtweets.Rules(**options).add("cats")
            written = "".join(map(repr, all_that_is_shown(caught.value))) + caplog.text
            assert b64encode(b"user:hidden-word").decode() not in written
            assert "hidden-word" not in written
            assert "407" in written


def test_reflected_key_of_a_webhook_is_masked(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(1)
    with reflecting(lambda sent: with_body("400 No", field_of(sent))) as url:
        hook = f"{url}/hook?key=a-key-in-a-url"
        headers = {"Authorization": "Bearer a-key-in-a-field", "X-Source": "rxtweets"}
        webhook = WebhookSubscriber(hook, headers=headers)
        with webhook, pytest.raises(rxtweets.errors.SubscriberError) as caught:
            webhook.on_next(rxtweets.Batch([rxtweets.Message("a")], "size", "any"))
    written = "".join(map(repr, all_that_is_shown(caught.value))) + caplog.text
    assert "answered 400: Bearer ***" in written
    assert "a-key-in" not in written


@pytest.mark.parametrize(
    ("command", "place"),
    [
        *((["rules", "list"], place) for place in ("a body", "a problem", "an answer", "no HTTP")),
        *((["tail", "x"], place) for place in ("a body", "a problem")),
    ],
)
def test_reflected_token_is_in_no_output(
    command: list[str],
    place: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(client, "PAUSE", 0.0)
    monkeypatch.setenv("X_BEARER_TOKEN", SECRET)
    with reflecting(PLACES[place]) as url:
        monkeypatch.setenv("RXTWEETS_BASE_URL", url)
        main(command)
    output = "".join(capfd.readouterr())
    assert "***" in output or "403" in output
    assert "secret-of-the-app" not in output


def test_errors_mask_their_text_body_and_headers() -> None:
    token = Token(SECRET)
    refused = rxtweets.errors.ResponseError(f"403 {SECRET}", 403, SECRET, {"x-sent": SECRET})
    proxy = rxtweets.errors.ProxyError(f"407 {SECRET}", "http://proxy", 407, {"x-sent": SECRET})
    for shown in (str(refused), refused.body, str(refused.headers), str(proxy), str(proxy.headers)):
        assert SECRET not in shown
        assert "***" in shown
    del token  # a secret is masked as long as its token exists
