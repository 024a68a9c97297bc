"""Parquet in S3, against a local S3 server."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from rxtweets import Batch, Message
from rxtweets.subscribers import ParquetSubscriber

Make = Callable[..., list[Message[Any]]]

SERVER = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(f"http://{server._server.host}:{server._server.port}", flush=True)
sys.stdin.read()
server.stop()
"""


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    pytest.importorskip("moto")
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as server:
        assert server.stdout is not None
        try:
            url = server.stdout.readline().strip()
            assert re.fullmatch(r"http://127\.0\.0\.1:\d+", url), url
            yield url
        finally:
            server.kill()


@pytest.fixture
def filesystem(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    fs = pytest.importorskip("pyarrow.fs")

    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    s3 = fs.S3FileSystem(
        access_key="a",
        secret_key="b",
        region="us-east-1",
        endpoint_override=endpoint,
        allow_bucket_creation=True,
        allow_bucket_deletion=True,
    )
    s3.create_dir("tweets")
    yield s3
    s3.delete_dir("tweets")


def ids_in(filesystem: Any) -> list[str]:
    dataset = pytest.importorskip("pyarrow.dataset")

    found = dataset.dataset("tweets/live", filesystem=filesystem, partitioning="hive")
    return sorted(found.to_table(columns=["id"])["id"].to_pylist())


def test_batches_are_objects_and_come_once(filesystem: Any, tweets: Make) -> None:
    messages = tweets(60)
    with ParquetSubscriber("tweets/live", filesystem=filesystem) as store:
        store.on_next(Batch(messages[:20]))
        store.on_next(Batch(messages[20:40]))
        store.on_next(Batch(messages[:20]))
    with ParquetSubscriber("tweets/live", filesystem=filesystem) as store:
        store.on_next(Batch(messages[10:60]))
    assert ids_in(filesystem) == sorted(each.id for each in messages)


def test_a_uri_names_the_place(
    filesystem: Any, endpoint: str, tweets: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    host = endpoint.removeprefix("http://")
    uri = f"s3://tweets/live?scheme=http&endpoint_override={host}&region=us-east-1"
    with ParquetSubscriber(uri) as store:
        store.on_next(Batch(tweets(5)))
    assert len(ids_in(filesystem)) == 5
