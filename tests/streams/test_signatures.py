"""The options of streams where users look for them: in help, in editors and in type checkers."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any, get_type_hints

import jedi
import pytest

import rxtweets
from rxtweets import ServerOptions, StreamOptions, TweetOptions
from rxtweets.api._options import connection_options
from rxtweets.streams._config import StreamConfig
from rxtweets.streams._sources import _tweets

FIELDS = [
    *("tweet_fields", "user_fields", "media_fields", "place_fields", "poll_fields"),
    "expansions",
]
STREAM = [
    *("backfill_minutes", "connections", "state_file", "start_time", "end_time", "limit"),
    *("free_stale_connections", "buffer_size", "overflow", "stall_timeout", "backoff"),
    *("max_line_mb", "isolated", "reader_cores"),
]
SERVER = [
    *("token", "base_url", "connect_timeout", "http1", "http2", "compress", "verify", "proxy"),
    "fast_paths",
]
LIKES = ["like_fields", *FIELDS[:3], "expansions"]

PARAMETERS: dict[Any, list[str]] = {
    rxtweets.sample_stream: [*FIELDS, *STREAM, *SERVER],
    rxtweets.sample10_stream: ["partition", *FIELDS, *STREAM, *SERVER],
    rxtweets.filtered_stream: ["rules", *FIELDS, *STREAM, *SERVER],
    rxtweets.firehose_stream: ["partition", "lang", *FIELDS, *STREAM, *SERVER],
    rxtweets.likes_stream: ["partition", "volume", *LIKES, *STREAM, *SERVER],
    rxtweets.compliance_stream: ["of", "partition", *STREAM, *SERVER],
    rxtweets.labels_stream: [*STREAM, *SERVER],
    rxtweets.activity_stream: [*STREAM, *SERVER],
    rxtweets.Rules: ["longest", *SERVER],
    rxtweets.Connections: SERVER,
}

each_of_them = pytest.mark.parametrize(
    ("function", "names"), PARAMETERS.items(), ids=lambda value: getattr(value, "__name__", "")
)


@each_of_them
def test_help_shows_every_option(function: Callable[..., Any], names: list[str]) -> None:
    assert list(inspect.signature(function).parameters) == names


@each_of_them
def test_editors_complete_every_option(function: Callable[..., Any], names: list[str]) -> None:
    code = f"import rxtweets\nrxtweets.{function.__name__}("
    call = jedi.Script(code, environment=jedi.InterpreterEnvironment())  # starts no process
    completed = {found.name for found in call.complete() if found.name.endswith("=")}
    assert completed == {f"{name}=" for name in names}
    (signature,) = call.get_signatures()
    assert [parameter.name for parameter in signature.params] == names


@pytest.mark.parametrize(
    ("options", "function"),
    [
        (ServerOptions, connection_options),
        (StreamOptions, StreamConfig.from_options),
        (TweetOptions, _tweets),
    ],
)
def test_option_class_has_the_types_of_the_signature(
    options: type, function: Callable[..., Any]
) -> None:
    declared = {name: kind.__forward_arg__ for name, kind in options.__annotations__.items()}
    shown = {
        part.name: part.annotation
        for part in inspect.signature(function).parameters.values()
        if part.kind is part.KEYWORD_ONLY
    }
    assert declared == shown
    assert get_type_hints(options)


def test_sample_stream_describes_every_option() -> None:
    text = inspect.getdoc(rxtweets.sample_stream) or ""
    arguments = text.split("Args:\n")[1].split("\n\nRaises:")[0]
    described = re.findall(r"^    (\w+): ", arguments, re.MULTILINE)
    assert described == [*FIELDS, *STREAM, *SERVER]
