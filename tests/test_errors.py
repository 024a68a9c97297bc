from __future__ import annotations

import inspect

import pytest

import rxtweets
from rxtweets import errors

ALL = [
    value
    for _, value in inspect.getmembers(errors, inspect.isclass)
    if value.__module__ == errors.__name__
]


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_every_error_is_public_has_the_one_base_and_a_place_in_the_drawing(
    kind: type[Exception],
) -> None:
    assert issubclass(kind, rxtweets.RxTweetsError)
    assert getattr(rxtweets, kind.__name__) is kind
    assert kind.__name__ in errors.__all__
    assert errors.__doc__ is not None
    assert kind.__name__ in errors.__doc__
    assert kind.__doc__


def test_bad_values_are_value_errors_too() -> None:
    assert issubclass(rxtweets.ConfigurationError, ValueError)
    assert issubclass(rxtweets.DecodeError, ValueError)
