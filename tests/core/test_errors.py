from __future__ import annotations

import copy
import inspect
import pickle

import pytest

import rxtweets
from rxtweets import errors

ALL = [
    value
    for _, value in inspect.getmembers(errors, inspect.isclass)
    if value.__module__ == errors.__name__
]


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_error_is_public_and_in_the_drawing(
    kind: type[Exception],
) -> None:
    assert issubclass(kind, rxtweets.RxTweetsError)
    assert getattr(rxtweets.errors, kind.__name__) is kind
    assert kind.__name__ in errors.__all__
    assert errors.__doc__ is not None
    assert kind.__name__ in errors.__doc__
    assert kind.__doc__


def test_bad_values_are_value_errors() -> None:
    assert issubclass(rxtweets.ConfigurationError, ValueError)
    assert issubclass(rxtweets.errors.DecodeError, ValueError)


@pytest.mark.parametrize(
    "error",
    [
        errors.ConfigurationError("m"),
        errors.RuleSyntaxError("m", "cat (", 4),
        errors.RulesRefused("m", (1,), 2),
        errors.DecodeError("m", b"l"),
        errors.SourceError("m", 3),
        errors.StreamStalled("m"),
        errors.ServerDisconnect("m", "SlowReader"),
        errors.RateLimitError("m", 429, "b", {"a": "b"}),
        errors.ProxyError("m", "http://p", 502, {"a": "b"}, retryable=True),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_error_can_be_pickled_and_copied(error: Exception, protocol: int) -> None:
    error.add_note("a note")
    for again in (pickle.loads(pickle.dumps(error, protocol)), copy.copy(error)):  # noqa: S301 - our own bytes
        assert type(again) is type(error)
        assert (str(again), again.args, vars(again)) == (str(error), error.args, vars(error))


@pytest.mark.parametrize(
    ("kind", "retryable"),
    [
        (rxtweets.errors.StreamError, True),
        (rxtweets.errors.ConnectionLost, True),
        (rxtweets.errors.StreamStalled, True),
        (rxtweets.errors.HostNotFound, True),
        (rxtweets.errors.ServerDisconnect, True),
        (rxtweets.errors.TLSError, False),
        (rxtweets.errors.ResponseError, False),
    ],
)
def test_error_says_whether_a_retry_can_succeed(
    kind: type[rxtweets.errors.StreamError], retryable: bool
) -> None:
    assert kind.retryable is retryable


def test_disconnect_keeps_its_reason() -> None:
    assert rxtweets.errors.ServerDisconnect("m", "SlowReader").disconnect_type == "SlowReader"


@pytest.mark.parametrize("kind", [rxtweets.errors.StreamStalled, rxtweets.errors.HostNotFound])
def test_lost_connections_have_one_base(kind: type[Exception]) -> None:
    assert issubclass(kind, rxtweets.errors.ConnectionLost)


def test_headers_are_copied_into_the_error() -> None:
    headers = {"a": "b"}
    made = rxtweets.errors.RateLimitError("m", 429, "", headers)
    headers["a"] = "c"
    assert made.headers == {"a": "b"}
