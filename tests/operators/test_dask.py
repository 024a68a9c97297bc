"""`process(executor=…)` on a cluster of `dask.distributed`."""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Iterator
from typing import Any

import pytest

from rxtweets import Message, Retry

PATIENCE = 60.0

if importlib.util.find_spec("distributed") is None and not os.environ.get("CI"):
    pytest.skip("dask.distributed is not installed", allow_module_level=True)

# Warnings of dask at its start and stop do not concern this project.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    distributed: Any = importlib.import_module("distributed")
    with (
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address=None,
            memory_limit=0,
            silence_logs=50,
        ) as cluster,
        distributed.Client(cluster, timeout=PATIENCE) as client,
    ):
        yield client


def test_handlers_run_on_the_cluster(process: Any, client: Any) -> None:
    def with_process(message: Message[int]) -> Message[Any]:
        return message.put_data((message.data, os.getpid()))

    executor = client.get_executor()
    data = process(with_process, range(500), executor=executor, concurrency=4).until_end()
    assert sorted(number for number, _ in data) == list(range(500))
    assert os.getpid() not in {where for _, where in data}
    assert {where for _, where in data} <= set(client.run(os.getpid).values())


def test_failures_are_returned_by_the_cluster(process: Any, client: Any) -> None:
    def fail_odd(message: Message[int]) -> Message[int]:
        if message.data % 2:
            raise ValueError(message.data)
        return message

    watched = process(fail_odd, range(20), executor=client.get_executor(), ordered=True)
    assert watched.until_end() == list(range(0, 20, 2))
    assert {type(reason) for _, reason in watched.failed} == {ValueError}
    assert watched.stats().failed == 10


def test_equal_messages_are_handled_separately(process: Any, client: Any) -> None:
    """Dask runs equal calls once if functions count as pure."""

    def identity(message: Message[str]) -> Message[str]:
        return message

    watched = process(identity, ["same"] * 50, executor=client.get_executor())
    assert watched.until_end() == ["same"] * 50


def test_dead_worker_loses_only_its_messages(process: Any, client: Any) -> None:
    def die(message: Message[Any]) -> Message[Any]:
        if message.data == "die":
            os._exit(1)
        return message

    executor = client.get_executor(retries=0)
    client.cluster.scheduler.allowed_failures = 0
    watched = process(die, executor=executor, concurrency=1)
    watched.feed("a", "die")
    watched.until(lambda: watched.failed)
    watched.feed("b")
    assert sorted(watched.complete()) == ["a", "b"]
    assert watched.end == ["completed"]
    assert "KilledWorker" in str(watched.reasons()["die"])


def test_client_stays_open(process: Any, client: Any) -> None:
    process(lambda message: message, [1], executor=client.get_executor(), retry=Retry()).until_end()
    assert client.submit(lambda: 2).result(PATIENCE) == 2
