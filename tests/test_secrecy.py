"""The token is shown nowhere, whatever goes wrong, and goes to no other host."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

import rxtweets
from rxtweets import simulator
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
    for each in (stream, made):
        try:
            print(pickle.dumps(each))
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
def test_all_that_a_failing_run_can_print_has_no_token_in_it(ending: str, options: str) -> None:
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
def test_the_output_of_a_notebook_that_fails_has_no_token_in_it() -> None:
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
        # On a loop of its own: the one that nbclient makes for itself stays open.
        asyncio.run(NotebookClient(notebook, timeout=60, allow_errors=True).async_execute())
    written = nbformat.writes(notebook)  # type: ignore[no-untyped-call]  # it has no types
    assert "AuthenticationError" in written
    assert SECRET not in written


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("http", [{"http2": False}, {"http1": False}], ids=["HTTP/1.1", "HTTP/2"])
def test_a_redirect_to_another_host_is_not_followed_with_the_token(
    status: int, http: dict[str, Any]
) -> None:
    with simulator.serve() as other:
        moved = Reply(status, b"", {"location": f"{other.url}/2/tweets/sample/stream"})
        with simulator.serve(script=[moved]) as x, Watched(x, token=SECRET, **http) as w:
            error = w.until_error()
            assert isinstance(error, rxtweets.ResponseError)
            assert error.status == status
        assert other.requests == []


def test_the_token_is_in_no_url_that_is_asked_for() -> None:
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
