"""Thousands of connections, one after the other."""

from __future__ import annotations

import gc
import logging
import sys
import threading
from pathlib import Path

import pytest

import rxtweets
from rxtweets import Backoff, simulator
from rxtweets.simulator import _server as server
from rxtweets.simulator.script import Close, Part, Serve

RECONNECTS = 5_000
SETTLED = 2_000


@pytest.mark.exhaustive
@pytest.mark.timeout(500)
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts what /proc shows")
def test_reconnects_leak_nothing(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Logs of pytest and requests of the simulator would grow, too.
    caplog.set_level(logging.ERROR, "rxtweets")
    monkeypatch.setattr(server, "KEPT_REQUESTS", 10)

    def held() -> tuple[int, int]:
        gc.collect()
        return sys.getallocatedblocks(), len(list(Path("/proc/self/fd").iterdir()))

    def script(_: simulator.Request) -> Part:
        return [Serve(2), Close()]

    at_once = Backoff(scale=0.0, proved_after=0.0, connects=10**6)
    with simulator.serve(script=script, rate=None, connects=10**6) as x:
        stream = rxtweets.sample_stream(token="any", base_url=x.url, backoff=at_once)
        with stream.subscribe():
            assert x.wait_for_requests(SETTLED, 400)
            blocks, descriptors = held()
            threads = threading.active_count()
            assert x.wait_for_requests(RECONNECTS, 400)
            blocks_now, descriptors_now = held()
            # Client and server keep one time of each connection, for their limits of connections.
            assert blocks_now - blocks < 2.5 * (RECONNECTS - SETTLED)
            assert abs(descriptors_now - descriptors) <= 8
            assert abs(threading.active_count() - threads) <= 6
            assert stream.stats().reconnects >= RECONNECTS - 2
