from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Protocol

import httpx
import pytest

from rxtweets import simulator


class MakeClient(Protocol):
    def __call__(
        self, x: simulator.Simulator, *, http1: bool = True, token: str = "any", **options: Any
    ) -> httpx.Client: ...


@pytest.fixture
def client() -> Iterator[MakeClient]:
    """Make clients of a simulator; they are closed after the test."""
    with contextlib.ExitStack() as stack:

        def make(
            x: simulator.Simulator, *, http1: bool = True, token: str = "any", **options: Any
        ) -> httpx.Client:
            http = httpx.Client(
                base_url=x.url,
                http1=http1,
                http2=not http1,
                headers={"authorization": f"Bearer {token}"},
                timeout=20.0,
                **options,
            )
            return stack.enter_context(http)

        yield make
