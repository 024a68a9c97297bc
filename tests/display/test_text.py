from __future__ import annotations

import unicodedata

import pytest

from rxtweets import Batch, Message, Stats
from rxtweets.display._text import batch_line, data_text, end_line, summary_line

HEAD = "    1 │   1 by size    │ "


def columns_of(text: str) -> int:
    return sum(
        0
        if unicodedata.category(character) in {"Cf", "Mn", "Me"}
        else 1 + (unicodedata.east_asian_width(character) in "WF")
        for character in text
    )


def line_of(*texts: str, width: int = 80) -> str:
    return batch_line(1, Batch([Message(text) for text in texts]), width)


def test_long_data_is_cut_before_it_is_cleaned() -> None:
    assert data_text(Message("a\n" * 1_000), 3) == "a a"
    assert data_text(Message([1, 2, 3]), 5) == "[1, 2"


def test_summary_has_all_main_counters_when_they_are_zero() -> None:
    assert summary_line(Stats()) == (
        "idle · delivered 0 · processed 0 · batches 0 · dropped 0 · reconnects 0 · lag –"
    )


def test_summary_has_the_counters_of_the_same_names() -> None:
    line = summary_line(Stats(received=9999, delivered=1000, dropped=200, queued=34))
    assert "received" not in line
    assert "delivered 1,000" in line
    assert "dropped 200" in line
    assert "queued 34" in line


def test_end_line_has_no_connection_for_a_recording() -> None:
    assert end_line(Stats(delivered=1000, undecodable=2)) == (
        "delivered 1,000 · dropped 0 · undecodable 2"
    )


def test_end_line_has_connection_counters_for_a_stream() -> None:
    counts = {"delivered": 5, "unsubscribed": 3, "beyond_limit": 7, "connects": 2, "reconnects": 1}
    stats = Stats(state="stopped", lag=0.002, **counts)
    assert end_line(stats) == (
        "stopped · delivered 5 · dropped 0 · reconnects 1 · lag 2 ms · unsubscribed 3"
        " · beyond the limit 7"
    )


def test_summary_groups_large_numbers() -> None:
    line = summary_line(Stats(processed=1_234_567, batches=61_728, reconnects=1000))
    assert "processed 1,234,567 · batches 61,728" in line
    assert "reconnects 1,000" in line


def test_summary_shows_the_rate_when_it_is_known() -> None:
    line = summary_line(Stats(state="connected"), rate=1234.4)
    assert line.startswith("connected · 1,234/s · delivered")


def test_summary_shows_a_rate_of_zero() -> None:
    assert " · 0/s · " in summary_line(Stats(), rate=0.0)


@pytest.mark.parametrize(
    ("stats", "text"),
    [
        (Stats(failed=1), "failed 1"),
        (Stats(undecodable=2), "undecodable 2"),
        (Stats(unknown=3), "unknown 3"),
        (Stats(batches_failed=4), "batches failed 4"),
        (Stats(abandoned=5000), "abandoned 5,000"),
    ],
)
def test_summary_shows_faults_when_they_are_not_zero(stats: Stats, text: str) -> None:
    assert summary_line(stats).endswith(f" · lag – · {text}")


@pytest.mark.parametrize(
    ("lag", "text"),
    [
        (0.0, "0 ms"),
        (0.0421, "42 ms"),
        (0.999, "999 ms"),
        (1.0, "1.0 s"),
        (119.94, "119.9 s"),
        (5400.0, "1.5 h"),
        (172_799.0, "48.0 h"),
        (172_800.0, "2 d"),
        (400_000_000.0, "4,630 d"),
        (-0.25, "-250 ms"),
        (-3.0, "-3.0 s"),
    ],
)
def test_lag_is_shown_in_the_unit_that_fits(lag: float, text: str) -> None:
    assert summary_line(Stats(lag=lag)).endswith(f" · lag {text}")


@pytest.mark.parametrize("lag", [120.0, 150.0, -120.0])
def test_lag_of_minutes_is_shown(lag: float) -> None:
    assert "lag 0.0" not in summary_line(Stats(lag=lag)).replace("-", "")


def test_batch_line_shows_number_size_trigger_and_texts() -> None:
    batch = Batch([Message("one"), Message("two")], "timeout")
    assert batch_line(42, batch, 80) == "   42 │   2 by timeout │ one ▪ two"


def test_batch_line_shows_data_of_any_type() -> None:
    assert batch_line(1, Batch([Message({"a": 1})]), 80) == HEAD + "{'a': 1}"


def test_batch_line_ends_with_an_ellipsis_when_cut() -> None:
    line = line_of("abcdefghij", width=len(HEAD) + 6)
    assert line == HEAD + "abcde…"


@pytest.mark.parametrize("text", ["x" * 300, "ツイート" * 80, "👍🏽" * 90, "é" * 300, "ạ̈" * 200])
@pytest.mark.parametrize("width", [40, 41, 80, 81])
def test_batch_line_is_not_wider_than_the_terminal(text: str, width: int) -> None:
    line = line_of(text, width=width)
    assert line.endswith("…")
    assert width - 2 <= columns_of(line) <= width


def test_batch_line_counts_no_column_for_combining_marks() -> None:
    text = "e\u0301" * 10
    assert line_of(text, width=len(HEAD) + 11) == HEAD + text


def test_batch_line_counts_two_columns_for_wide_characters() -> None:
    assert line_of("日本語", width=len(HEAD) + 6) == HEAD + "日本…"
    assert line_of("日本語", width=len(HEAD) + 7) == HEAD + "日本語"


@pytest.mark.parametrize("width", [0, 1, 10, len(HEAD)])
def test_batch_line_survives_a_narrow_terminal(width: int) -> None:
    assert line_of("text", width=width) == HEAD + "…"


@pytest.mark.parametrize(
    "control", ["\n", "\r\n", "\t", "\x1b", "\x00", "\x7f", "\x85", "\x9b", "\x07\x08"]
)
def test_batch_line_replaces_control_characters(control: str) -> None:
    assert line_of(f"a{control}b") == HEAD + "a b"


def test_summary_is_abbreviated_when_narrow() -> None:
    line = summary_line(Stats(state="connected", lag=0.001), 50.0, 80)
    assert len(line) <= 80
    assert line.startswith("connected · 50/s · deliv 0 · proc 0 · batch 0 · drop 0 · reconn 0 · ")
    assert line.endswith("lag 1 ms")


def test_summary_ends_with_an_ellipsis_when_cut() -> None:
    line = summary_line(Stats(state="connected"), 50.0, 30)
    assert len(line) == 30
    assert line.endswith("…")
