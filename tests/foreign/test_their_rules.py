"""Clients of other projects manage the simulator's rules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from rxtweets import simulator
from rxtweets.simulator import Simulator

Use = Callable[[Simulator], Any]
CATS = ("cat has:links", "cats with links")


def test_rules_are_added_listed_and_deleted(use: Use) -> None:
    with simulator.serve() as x:
        client = use(x)
        assert client.rules().rules == []
        added = client.add(CATS, ("dog", "")).rules
        assert [(value, tag) for _, value, tag in added] == [CATS, ("dog", "")]
        assert client.rules().rules == added
        assert client.delete(added[0][0]).deleted == 1
        assert client.rules().rules == added[1:]


@pytest.mark.parametrize(
    ("value", "title"), [("cat has:links", "DuplicateRule"), ("(cat", "UnprocessableEntity")]
)
def test_refused_rule_has_its_reason(use: Use, value: str, title: str) -> None:
    with simulator.serve() as x:
        client = use(x)
        client.add(CATS)
        if client.unread:
            with pytest.raises(client.unread, match=value.strip("(")):
                client.add((value, ""))
        else:
            assert client.add((value, "")).problems == [title]
        assert len(client.rules().rules) == 1


def test_invalid_request_is_refused(use: Use) -> None:
    with simulator.serve() as x:
        client = use(x)
        with pytest.raises(client.refused, match="400"):
            client.add()
