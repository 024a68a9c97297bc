"""Parquet in S3 and in Google Cloud Storage, against local emulators."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from rxtweets import Batch, Message
from rxtweets.subscribers import ParquetSubscriber

Make = Callable[..., list[Message[Any]]]

SERVERS = {
    "s3": """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(f"{server._server.host}:{server._server.port}", flush=True)
sys.stdin.read()
""",
    "gs": """
import sys
from gcp_storage_emulator.server import create_server
server = create_server("127.0.0.1", 0, in_memory=True)
server.start()
print(f"127.0.0.1:{server._api._httpd.server_port}", flush=True)
sys.stdin.read()
""",
}

URIS = {
    "s3": "s3://{}?scheme=http&endpoint_override={}&region=us-east-1",
    "gs": "gs://anonymous@{}?scheme=http&endpoint_override={}&retry_limit_seconds=10",
}


@pytest.fixture(params=SERVERS, scope="module")
def cloud(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def endpoint(cloud: str) -> Iterator[str]:
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", SERVERS[cloud]],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as server:
        assert server.stdout is not None
        try:
            host = server.stdout.readline().strip()
            assert re.fullmatch(r"127\.0\.0\.1:\d+", host), host
            yield host
        finally:
            server.kill()


@pytest.fixture
def filesystem(cloud: str, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    fs = pytest.importorskip("pyarrow.fs")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    if cloud == "s3":
        made = fs.S3FileSystem(
            region="us-east-1",
            scheme="http",
            endpoint_override=endpoint,
            allow_bucket_creation=True,
        )
    else:
        made = fs.GcsFileSystem(
            anonymous=True,
            scheme="http",
            endpoint_override=endpoint,
            project_id="p",
            retry_time_limit=timedelta(seconds=10),
        )
    return made


@pytest.fixture
def directory(filesystem: Any) -> str:
    """Return a directory in a new bucket."""
    bucket = f"tweets-{uuid4().hex}"
    filesystem.create_dir(bucket)
    return f"{bucket}/live"


def ids_in(directory: str, filesystem: Any) -> list[str]:
    dataset = pytest.importorskip("pyarrow.dataset")

    found = dataset.dataset(directory, filesystem=filesystem, partitioning="hive")
    return sorted(found.to_table(columns=["id"])["id"].to_pylist())


def test_batches_are_stored_once_as_objects(filesystem: Any, directory: str, tweets: Make) -> None:
    messages = tweets(60)
    with ParquetSubscriber(directory, filesystem=filesystem) as store:
        store.on_next(Batch(messages[:20]))
        store.on_next(Batch(messages[20:40]))
        store.on_next(Batch(messages[:20]))
    with ParquetSubscriber(directory, filesystem=filesystem) as store:
        store.on_next(Batch(messages[10:60]))
    assert ids_in(directory, filesystem) == sorted(message.id for message in messages)


def test_uri_names_the_bucket(
    cloud: str, endpoint: str, filesystem: Any, directory: str, tweets: Make
) -> None:
    with ParquetSubscriber(URIS[cloud].format(directory, endpoint)) as store:
        store.on_next(Batch(tweets(5)))
    assert len(ids_in(directory, filesystem)) == 5
