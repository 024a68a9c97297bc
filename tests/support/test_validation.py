from __future__ import annotations

import math
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from rxtweets import Retry
from rxtweets._support import validation as check
from rxtweets.errors import ConfigurationError

ACCEPTED: list[tuple[Callable[..., Any], tuple[Any, ...], Any]] = [
    (check.whole_number, (1,), 1),
    (check.whole_number, (0, 0), 0),
    (check.number, (0,), 0.0),
    (check.number, (0.5, 0.5), 0.5),
    (check.seconds, (2,), 2.0),
    (check.seconds, (timedelta(minutes=1),), 60.0),
    (check.flag, (False,), False),
    (check.choice, ("a", ("a", "b")), "a"),
    (check.instance, (3, int), 3),
    (check.iterable, (["a"], "['a']"), ["a"]),
    (check.path_text, (Path("a"),), "a"),
    (check.function, (print,), print),
    (check.no_class, (3,), 3),
    (check.optional, (None,), None),
]

REFUSED: list[tuple[Callable[..., Any], tuple[Any, ...], str]] = [
    (check.whole_number, (True,), "x=True: give a whole number of 1 or more"),
    (check.whole_number, (-1, 0), "x=-1: give a whole number of 0 or more"),
    (check.whole_number, (1.0,), "x=1.0: give a whole number of 1 or more"),
    (check.number, (math.inf,), "x=inf: give a number, 0 or more"),
    (check.number, (-0.1,), "x=-0.1: give a number, 0 or more"),
    (check.number, (0.4, 0.5), "x=0.4: give a number, 0.5 or more"),
    (check.number, (10**400,), "x=1000"),
    (check.seconds, (0,), "x=0: give a number above 0"),
    (check.seconds, (math.nan,), "x=nan: give a number above 0"),
    (check.seconds, ("1",), "x='1': give a number above 0"),
    (check.flag, (1,), "x=1: give True or False"),
    (check.choice, ("c", ("a", "b")), "x='c': choose one of a, b"),
    (check.instance, (3, Retry), "x=3: give a rxtweets.Retry"),
    (check.iterable, ("cats", "['a']"), "x='cats': give a list, such as ['cats']"),
    (check.iterable, (3, "['a']"), "x=3: give a list, such as ['a']"),
    (check.path_text, (b"a",), "x=b'a': give the path of a file"),
    (check.file_path, ("/",), "x='/': give the name of a file"),
    (check.file_path, ("/nowhere/a",), "x='/nowhere/a': /nowhere is no directory that can be"),
    (check.function, (3,), "x=3: give a function"),
    (check.no_class, (int,), "x=<class 'int'> is a class: give an instance, int(...)"),
]


@pytest.mark.parametrize(("function", "args", "value"), ACCEPTED)
def test_check_returns_the_value(
    function: Callable[..., Any], args: tuple[Any, ...], value: Any
) -> None:
    first = (check.whole_number, "x") if function is check.optional else ("x",)
    assert function(*first, *args) == value


@pytest.mark.parametrize(("function", "args", "text"), REFUSED)
def test_check_refuses_and_names_the_value(
    function: Callable[..., Any], args: tuple[Any, ...], text: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        function("x", *args)
    assert str(caught.value).startswith(text)
