from __future__ import annotations

import copy
import logging
import pickle
import socket
import ssl
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, cast

import pytest

import rxtweets
from rxtweets import (
    Backoff,
    ConfigurationError,
    MessageStream,
    StreamOptions,
    labels_stream,
    sample10_stream,
    sample_stream,
)
from rxtweets.api._endpoints import ENDPOINTS
from rxtweets.api._options import ConnectionOptions, Token, connection_options
from rxtweets.instrumentation.opentelemetry import instrument
from rxtweets.instrumentation.prometheus import serve_metrics
from rxtweets.streams._billing import Limit
from rxtweets.streams._config import StreamConfig
from rxtweets.streams._single import LiveStream
from rxtweets.subscribers import WebhookSubscriber

SECRET = "AAAAAAAAAAAA%2Bsecret%3D"
NAN, INFINITY = float("nan"), float("inf")


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("X_BEARER_TOKEN", "TWITTER_BEARER_TOKEN", "RXTWEETS_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        pytest.fail("a connection was tried")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def plain() -> dict[str, Any]:
    return {"token": SECRET, "base_url": "http://127.0.0.1:9"}


def options_of(base_url: str = "https://api.x.com", **changes: Any) -> ConnectionOptions:
    options: dict[str, Any] = {"token": SECRET, "base_url": base_url, **changes}
    return built(cast("StreamOptions", options)).connection


def bad_values() -> Iterator[tuple[str, object]]:
    for name in ("stall_timeout", "connect_timeout", "max_line_mb"):
        for seconds in (0, -1, -0.5, NAN, INFINITY, -INFINITY, True, "30", None, [30], 1j):
            yield name, seconds
    for name in ("stall_timeout", "connect_timeout"):
        yield name, timedelta(0)
        yield name, timedelta(seconds=-1)
    for megabytes in (timedelta(seconds=3), 1e-7, 0.0009):
        yield "max_line_mb", megabytes
    for size in (0, -1, 1.5, 10.0, NAN, True, False, "100", None):
        yield "buffer_size", size
    for minutes in (6, -1, 2.0, True, "3"):
        yield "backfill_minutes", minutes
    for policy in ("drop", "", "DROP_OLDEST", None, 3, True):
        yield "overflow", policy
    for backoff in (None, 5, "slow", Backoff):
        yield "backoff", backoff
    for verify in ("/etc/ssl/cert.pem", None, 1, 0):
        yield "verify", verify


@pytest.mark.parametrize(("name", "value"), list(bad_values()))
def test_invalid_value_is_refused_by_name(plain: dict[str, Any], name: str, value: object) -> None:
    options: dict[str, Any] = {**plain, name: value}
    with pytest.raises(ConfigurationError, match=name) as caught:
        sample_stream(**options)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    "base_url",
    [
        "api.x.com",
        "127.0.0.1:8080",
        "//api.x.com",
        "ftp://api.x.com",
        "wss://api.x.com",
        "https://",
        "https:///2/tweets",
        "https://api.x.com?query=1",
        "https://api.x.com#part",
        "https://user:word@api.x.com",
        "https://api.x.com:port",
        "https://api.x.com:99999999",
        "https://api.x.com\n.evil.example",
        " ",
        8080,
    ],
)
def test_base_url_is_refused_when_it_is_not_a_server(base_url: Any) -> None:
    with pytest.raises(ConfigurationError, match="base_url"):
        sample_stream(token=SECRET, base_url=base_url)


@pytest.mark.parametrize("proxy", ["proxy.example:3128", "ftp://proxy.example", "http://", ""])
def test_proxy_is_refused_when_it_is_not_a_server(plain: dict[str, Any], proxy: str) -> None:
    with pytest.raises(ConfigurationError, match="proxy"):
        sample_stream(**{**plain, "proxy": proxy})


def test_socks_proxy_needs_its_library(
    plain: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rxtweets.api._proxies.find_spec", lambda _: None)
    with pytest.raises(ConfigurationError, match=r"pip install 'httpx\[socks\]'"):
        sample_stream(**{**plain, "proxy": "socks5://proxy.example"})


@pytest.mark.parametrize(
    "proxy", ["ftp://user:pass-word@proxy.example", "http://user:pass/word@proxy.example"]
)
def test_refused_proxy_hides_its_password(plain: dict[str, Any], proxy: str) -> None:
    with pytest.raises(ConfigurationError, match="proxy") as caught:
        sample_stream(**{**plain, "proxy": proxy})
    assert "pass" not in str(caught.value)


def of_the_environment(base_url: str = "https://api.x.com") -> str | None:
    return options_of(base_url).proxy


@pytest.mark.parametrize(
    ("variables", "proxy"),
    [
        ({"HTTPS_PROXY": "http://a:1"}, "http://a:1"),
        ({"https_proxy": "http://a:1"}, "http://a:1"),
        ({"HTTPS_PROXY": "a:1"}, "http://a:1"),
        ({"ALL_PROXY": "http://a:1"}, "http://a:1"),
        ({"HTTPS_PROXY": "http://a:1", "ALL_PROXY": "http://b:2"}, "http://a:1"),
        ({"HTTPS_PROXY": "http://a:1", "ALL_PROXY": "socks5://b:2"}, "http://a:1"),
        ({"HTTP_PROXY": "http://a:1"}, None),
        ({"HTTP_PROXY": "ftp://a:1", "NO_PROXY": "y.com"}, None),
        ({"HTTPS_PROXY": " "}, None),
        ({}, None),
    ],
)
def test_proxy_comes_from_the_variable_that_applies(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], proxy: str | None
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert of_the_environment() == proxy


@pytest.mark.parametrize(
    ("base_url", "entry", "is_covered"),
    [
        ("https://api.x.com", "*", True),
        ("https://api.x.com", "api.x.com", True),
        ("https://api.x.com", "API.X.COM", True),
        ("https://api.x.com", "y.com, x.com", True),
        ("https://api.x.com", "y.com x.com", True),
        ("https://api.x.com", ".x.com", True),
        ("https://api.x.com", "*.x.com", True),
        ("https://x.com", ".x.com", False),
        ("https://x.com", "x.com", True),
        ("https://apix.com", "x.com", False),
        ("https://api.x.com", "com.x", False),
        ("https://api.x.com", ",", False),
        ("https://api.x.com", "x.com:443", True),
        ("https://api.x.com", "x.com:80", False),
        ("https://api.x.com:80", "x.com:80", True),
        ("https://api.x.com", "https://x.com", True),
        ("https://api.x.com", "http://x.com", False),
        ("https://api.x.com", "all://x.com", True),
        ("https://localhost", "localhost", True),
        ("https://api.localhost", "localhost", False),
        ("https://127.0.0.1", "127.0.0.1", True),
        ("https://127.0.0.1:80", "127.0.0.1:80", True),
        ("https://127.0.0.1:80", "127.0.0.1:81", False),
        ("https://10.1.2.3", "10.0.0.0/8", True),
        ("https://11.1.2.3", "10.0.0.0/8", False),
        ("https://[::1]", "::1", True),
        ("https://[::1]", "[::1]", True),
        ("https://[::1]:80", "[::1]:80", True),
        ("https://[::1]:80", "[::1]:81", False),
        ("https://[fd00::7]", "fd00::/8", True),
    ],
)
def test_no_proxy_is_honoured(
    monkeypatch: pytest.MonkeyPatch, base_url: str, entry: str, *, is_covered: bool
) -> None:
    monkeypatch.setenv("ALL_PROXY", "http://a:1")
    monkeypatch.setenv("NO_PROXY", entry)
    assert (of_the_environment(base_url) is None) is is_covered


CLIENTS: dict[str, Callable[[], object]] = {
    "stream": lambda: sample_stream(token=SECRET),
    "isolated": lambda: sample_stream(token=SECRET, isolated=True),
    "filtered": lambda: rxtweets.filtered_stream(token=SECRET, rules=["cat"]),
    "Rules": lambda: rxtweets.Rules(token=SECRET),
    "Connections": lambda: rxtweets.Connections(token=SECRET),
    "webhook": lambda: WebhookSubscriber("https://hooks.example/x"),
}


@pytest.mark.parametrize("client", CLIENTS.values(), ids=CLIENTS)
def test_socks_from_the_environment_needs_its_library(
    monkeypatch: pytest.MonkeyPatch, client: Callable[[], object]
) -> None:
    monkeypatch.setattr("rxtweets.api._proxies.find_spec", lambda _: None)
    monkeypatch.setenv("ALL_PROXY", "socks5://proxy.example")
    with pytest.raises(ConfigurationError, match=r"ALL_PROXY.*pip install 'httpx\[socks\]'"):
        client()
    monkeypatch.setenv("NO_PROXY", "x.com,hooks.example")
    assert client() is not None


@pytest.mark.parametrize(
    "proxy",
    ["ftp://proxy.example", "socks://p:1", "http://", "http://p:0", "http://u:hush/word@p", "::::"],
)
@pytest.mark.parametrize("client", CLIENTS.values(), ids=CLIENTS)
def test_invalid_proxy_of_the_environment_is_refused(
    monkeypatch: pytest.MonkeyPatch, client: Callable[[], object], proxy: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    with pytest.raises(ConfigurationError, match="HTTPS_PROXY in the environment") as caught:
        client()
    assert "hush" not in str(caught.value)


def test_one_http_version_is_required(plain: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"http1.*http2"):
        sample_stream(**{**plain, "http1": False, "http2": False})


@pytest.mark.parametrize("versions", [(True, True), (True, False), (False, True)])
def test_one_http_version_is_sufficient(plain: dict[str, Any], versions: tuple[bool, bool]) -> None:
    http1, http2 = versions
    stream = sample_stream(**{**plain, "http1": http1, "http2": http2})
    assert stream.stats().state == "idle"


@pytest.mark.parametrize("name", ["http1", "http2", "compress", "fast_paths"])
def test_switch_takes_only_true_and_false(plain: dict[str, Any], name: str) -> None:
    options: dict[str, Any] = {**plain, name: "no"}
    with pytest.raises(ConfigurationError, match=name):
        sample_stream(**options)


@pytest.mark.parametrize(
    "name",
    ["tweet_fields", "user_fields", "media_fields", "place_fields", "poll_fields", "expansions"],
)
def test_fields_are_refused_as_one_text(plain: dict[str, Any], name: str) -> None:
    kind, _, rest = name.partition("_")
    with pytest.raises(ConfigurationError, match=rf"{kind}[._]?{rest}='author_id'"):
        sample_stream(**{**plain, name: "author_id"})


@pytest.mark.parametrize("value", [b"author_id", 5, None, [1, 2], [None]])
def test_fields_are_refused_when_not_a_sequence_of_names(
    plain: dict[str, Any], value: object
) -> None:
    with pytest.raises(ConfigurationError, match=r"tweet[._]fields"):
        sample_stream(**{**plain, "tweet_fields": value})


@pytest.mark.parametrize("partition", ["1", b"\x01", 1.0], ids=repr)
def test_partition_is_refused_when_it_is_not_a_number(
    plain: dict[str, Any], partition: Any
) -> None:
    with pytest.raises(ConfigurationError, match=r"partition=.*(has 1 to 2|\[1, 2\])"):
        sample10_stream(partition, **plain)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("buffersize", "buffer_size"),
        ("tokens", "token"),
        ("tweet_field", "tweet_fields"),
        ("overflow_policy", "overflow"),
        ("stall_time_out", "stall_timeout"),
        ("baseurl", "base_url"),
    ],
)
def test_unknown_option_is_refused_with_a_hint(
    plain: dict[str, Any], name: str, meant: str
) -> None:
    options: dict[str, Any] = {**plain, name: 1}
    with pytest.raises(ConfigurationError, match=rf"'{name}'.*did you mean {meant}\?"):
        sample_stream(**options)


@pytest.mark.parametrize("name", ["partition", "fields", "selection", "endpoint", "cls"])
@pytest.mark.parametrize("stream", [sample_stream, labels_stream])
def test_option_of_another_stream_is_refused(
    plain: dict[str, Any], stream: Callable[..., object], name: str
) -> None:
    options: dict[str, Any] = {**plain, name: 1}
    with pytest.raises(ConfigurationError, match=f"unknown option '{name}'"):
        stream(**options)


def test_strange_option_is_refused_with_the_help_to_see(plain: dict[str, Any]) -> None:
    options: dict[str, Any] = {**plain, "zzz": 1}
    with pytest.raises(ConfigurationError, match=r"'zzz'.*help\(rxtweets.sample_stream\)"):
        sample_stream(**options)


def test_valid_options_make_an_idle_stream(plain: dict[str, Any]) -> None:
    stream = sample_stream(
        **plain,
        tweet_fields=("lang",),
        backfill_minutes=5,
        buffer_size=1,
        overflow="block",
        stall_timeout=timedelta(seconds=40),
        connect_timeout=0.5,
        backoff=Backoff(scale=0.1),
        max_line_mb=0.5,
        compress=False,
        verify=ssl.create_default_context(),
        proxy="http://127.0.0.1:3128",
    )
    assert isinstance(stream, MessageStream)
    assert (stream.stats().state, stream.stats().connects) == ("idle", 0)


def built(options: StreamOptions) -> StreamConfig:
    settings: StreamOptions = {"token": SECRET, **options}
    return StreamConfig.from_options(ENDPOINTS["sample_stream"], {}, None, **settings)


def test_defaults_are_the_documented_ones() -> None:
    config = built({})
    connection = config.connection
    assert connection.base_url == "https://api.x.com"
    assert (connection.stall_timeout, connection.connect_timeout) == (30.0, 10.0)
    assert (connection.http1, connection.http2, connection.compress) == (True, True, True)
    assert connection.fast_paths is True
    assert (config.buffer_size, config.overflow) == (10_000, "drop_oldest")
    assert config.max_line == 16 * 2**20
    backoff = config.backoff
    assert (backoff.connects, backoff.window, backoff.scale) == (50, 900, 1)
    assert (config.backfill_minutes, config.is_replay) == (None, False)
    assert config.free_stale_connections is False
    assert (config.connections, config.state_file, config.limit) == (1, None, Limit())
    assert (config.isolated, config.reader_cores) == (False, None)


def test_timedelta_is_converted_to_seconds() -> None:
    assert options_of(stall_timeout=timedelta(minutes=2)).stall_timeout == 120.0


def test_base_url_comes_from_the_environment_by_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RXTWEETS_BASE_URL", "http://127.0.0.1:8080")
    assert connection_options(token=SECRET).base_url == "http://127.0.0.1:8080"
    assert options_of("https://api.x.com").base_url == "https://api.x.com"


def test_invalid_base_url_of_the_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RXTWEETS_BASE_URL", "localhost:8080")
    with pytest.raises(ConfigurationError, match="base_url"):
        sample_stream(token=SECRET)


def fields_of(stream: rxtweets.HotStream[Any]) -> dict[str, str]:
    assert isinstance(stream, LiveStream)
    return stream._parts.config.params(None)


def test_tweets_have_fields_by_default_and_likes_have_none() -> None:
    assert fields_of(sample_stream(token=SECRET)) == {
        "tweet.fields": "author_id,created_at,entities,lang,public_metrics",
        "expansions": "author_id",
    }
    assert fields_of(rxtweets.likes_stream(1, token=SECRET)) == {}


def test_fields_have_the_names_of_x() -> None:
    likes = rxtweets.likes_stream(1, token=SECRET, like_fields=["id"])
    assert fields_of(likes) == {"like_with_tweet_author.fields": "id"}
    tweets = sample_stream(
        token=SECRET,
        tweet_fields=["lang", "id", "lang"],
        user_fields=("name",),
        media_fields={"url": 1},
        place_fields=iter(["geo"]),
        poll_fields=["options"],
        expansions=[],
    )
    assert fields_of(tweets) == {
        "tweet.fields": "lang,id",
        "user.fields": "name",
        "media.fields": "url",
        "place.fields": "geo",
        "poll.fields": "options",
    }


@pytest.mark.parametrize("minutes", [0, 5, None, "auto"])
def test_backfill_takes_zero_to_five_minutes(minutes: Any) -> None:
    assert built({"backfill_minutes": minutes}).backfill_minutes == minutes


def test_stream_needs_a_token() -> None:
    with pytest.raises(
        ConfigurationError, match=r"X_BEARER_TOKEN.*TWITTER_BEARER_TOKEN.*token=.*rxtweets simulate"
    ):
        sample_stream()


@pytest.mark.parametrize(
    ("token", "says"),
    [
        *(
            (token, "has a space, a line end or another character")
            for token in ("AA BB", " AABB", "AABB ", "AABB\n", "AA\r\nBB", "AA\tBB", "AAÄBB")
        ),
        *((token, "has a space") for token in ("AA\x00BB", "“AABB”")),
        *((token, "give the token as text, not ") for token in (5, b"token", ["token"])),
    ],
)
def test_invalid_token_is_refused_unseen(token: Any, says: str) -> None:
    with pytest.raises(ConfigurationError, match=f"token.*{says}") as caught:
        sample_stream(token=token)
    assert str(token).strip() not in str(caught.value)


def test_invalid_token_of_the_environment_names_its_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("X_BEARER_TOKEN", f"{SECRET}\n")
    with pytest.raises(ConfigurationError, match="X_BEARER_TOKEN") as caught:
        sample_stream()
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "first", "second", "token"),
    [
        (None, "first", "second", "first"),
        (None, None, "second", "second"),
        (None, "", "second", "second"),
        ("given", "first", "second", "given"),
    ],
)
def test_token_comes_from_the_argument_or_the_environment(
    monkeypatch: pytest.MonkeyPatch, given: str | None, first: str | None, second: str, token: str
) -> None:
    if first is not None:
        monkeypatch.setenv("X_BEARER_TOKEN", first)
    monkeypatch.setenv("TWITTER_BEARER_TOKEN", second)
    assert Token(given).header() == f"Bearer {token}"


def test_empty_token_is_refused_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("X_BEARER_TOKEN", "first")
    with pytest.raises(ConfigurationError, match="token= is empty"):
        sample_stream(token="")


def test_token_is_parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[object] = []
    parse = Token.__init__

    def counted(token: Token, value: str | None = None) -> None:
        parsed.append(value)
        parse(token, value)

    monkeypatch.setattr(Token, "__init__", counted)
    rxtweets.filtered_stream(["cat"], token=SECRET, free_stale_connections=True, connections=2)
    assert parsed == [SECRET]


@pytest.mark.parametrize(
    "warn",
    [
        lambda: sample_stream(token=SECRET, tweet_fields=["langs"]),
        lambda: rxtweets.filtered_stream(["the"], token=SECRET),
        lambda: rxtweets.Rules(token=SECRET).check("the"),
    ],
    ids=["fields", "rules=", "Rules"],
)
def test_warning_names_the_line_of_the_caller(warn: Callable[[], object]) -> None:
    with pytest.warns(UserWarning, match="langs|stop word") as caught:
        warn()
    assert [warning.filename for warning in caught] == [__file__]


def test_repr_of_a_token_hides_it() -> None:
    token = Token(SECRET)
    for text in (repr(token), str(token), f"{token}", f"{token!s:>40}", repr([token])):
        assert SECRET not in text


def test_repr_of_options_hides_the_token() -> None:
    options = options_of()
    for text in (repr(options), str(options), f"{options}", repr(vars(options))):
        assert SECRET not in text
        assert "https://api.x.com" in text


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_token_and_options_cannot_be_pickled_or_copied(protocol: int) -> None:
    for secret in (Token(SECRET), options_of("http://127.0.0.1:9")):
        with pytest.raises(TypeError, match="not pickled"):
            pickle.dumps(secret, protocol)
        with pytest.raises(TypeError, match="not pickled"):
            copy.deepcopy(secret)


def test_repr_of_a_stream_hides_the_token(
    plain: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    stream = sample_stream(**plain)
    assert SECRET not in f"{stream!r} {stream} {stream.stats()}"
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    "construct",
    [
        lambda: rxtweets.replay([1]),  # type: ignore[list-item]
        lambda: rxtweets.sample_stream(token="t", state_file=b"x"),  # type: ignore[arg-type]
        lambda: rxtweets.subscribers.ParquetSubscriber(None),  # type: ignore[arg-type]
        lambda: rxtweets.subscribers.PostgresSubscriber(5),  # type: ignore[arg-type]
        lambda: serve_metrics("stream"),  # type: ignore[arg-type]
        lambda: instrument([]),  # type: ignore[arg-type]
    ],
)
def test_value_of_another_type_is_refused(construct: Callable[[], object]) -> None:
    with pytest.raises(ConfigurationError, match=r"give (a|the) "):
        construct()
