from __future__ import annotations

import os
from pathlib import Path

import orjson
import pytest

from rxtweets import ConfigurationError
from rxtweets.streams._state_file import Position, StateFile

NOON = 1_700_000_000.25
POSITION = Position(NOON, "1346889436626259968")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sample.state"


def test_position_is_none_without_a_file(path: Path) -> None:
    assert StateFile(path, "sample_stream").load() is None


def test_state_file_is_written_by_save_only(path: Path) -> None:
    StateFile(path, "sample_stream")
    assert not path.exists()


def test_position_is_loaded_again(path: Path) -> None:
    StateFile(path, "sample_stream").save(POSITION)
    assert StateFile(path, "sample_stream").load() == POSITION


def test_path_can_be_text(path: Path) -> None:
    StateFile(str(path), "sample_stream").save(POSITION)
    assert path.exists()


def test_save_writes_once_a_second(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("rxtweets.streams._state_file.time.monotonic", lambda: clock[0])
    file = StateFile(path, "sample_stream")
    for at, expected in ((100.0, "1"), (100.9, "1"), (101.0, "3"), (101.5, "3"), (102.0, "5")):
        clock[0] = at
        file.save(Position(NOON, {100.0: "1", 101.0: "3", 102.0: "5"}.get(at, "no")))
        position = file.load()
        assert position is not None
        assert position.newest_id == expected


def test_save_writes_immediately_with_now(path: Path) -> None:
    file = StateFile(path, "sample_stream")
    file.save(POSITION)
    file.save(Position(NOON + 1, "2"), now=True)
    assert file.load() == Position(NOON + 1, "2")


def test_save_is_atomic(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = StateFile(path, "sample_stream")
    file.save(POSITION)

    def broken(self: Path, _: bytes) -> int:
        with self.open("wb") as half:
            half.write(b'{"stream":"sam')
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", broken)
        with pytest.raises(OSError, match="No space"):
            file.save(Position(NOON + 1, "2"), now=True)
    assert file.load() == POSITION


def test_save_leaves_no_other_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = StateFile(path, "sample_stream")
    file.save(POSITION)

    def refuse(*_: object) -> None:
        raise OSError(13, "Permission denied")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OSError, match="Permission"):
        file.save(POSITION, now=True)
    assert list(path.parent.iterdir()) == [path]


def test_file_of_another_stream_is_refused(path: Path) -> None:
    StateFile(path, "sample_stream").save(POSITION)
    before = path.read_bytes()
    with pytest.raises(ConfigurationError, match=r"that of sample_stream, not of filtered_stream"):
        StateFile(path, "filtered_stream")
    assert path.read_bytes() == before


def test_file_of_another_partition_is_refused(path: Path) -> None:
    StateFile(path, "firehose_stream, partition 1").save(POSITION)
    with pytest.raises(ConfigurationError, match="partition 2"):
        StateFile(path, "firehose_stream, partition 2")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00\xff",
        b"[]",
        b"5",
        b"null",
        b'"text"',
        b"{}",
        b'{"stream":"sample_stream","newest_id":"1"}',
        b'{"stream":"sample_stream","alive_until":1.0}',
        b'{"alive_until":1.0,"newest_id":"1"}',
        b'{"stream":"sample_stream","alive_until":null,"newest_id":"1"}',
        b'{"stream":"sample_stream","alive_until":"1700000000","newest_id":"1"}',
        b'{"stream":"sample_stream","alive_until":true,"newest_id":"1"}',
        b'{"stream":"sample_stream","alive_until":-1,"newest_id":"1"}',
        b'{"stream":"sample_stream","alive_until":1e300,"newest_id":"1"}',
        b'{"stream":"sample_stream","alive_until":1.0,"newest_id":null}',
    ],
)
def test_invalid_position_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"state_file=.*sample.state.*delete it"):
        StateFile(path, "sample_stream")
    assert path.read_bytes() == content


def test_unknown_keys_are_ignored(path: Path) -> None:
    StateFile(path, "sample_stream").save(POSITION)
    path.write_bytes(orjson.dumps({**orjson.loads(path.read_bytes()), "more": [1]}))
    assert StateFile(path, "sample_stream").load() == POSITION


def test_directory_is_refused_as_a_file(path: Path) -> None:
    path.mkdir()
    with pytest.raises(ConfigurationError, match="state_file="):
        StateFile(path, "sample_stream")


def test_missing_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"state_file=.*no directory"):
        StateFile(tmp_path / "nowhere" / "x.state", "sample_stream")


def test_unwritable_directory_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Root can write anywhere, so the answer of the system is patched.
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(ConfigurationError, match="written to"):
        StateFile(path, "sample_stream")
