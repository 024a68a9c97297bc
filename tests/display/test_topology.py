from __future__ import annotations

import pytest

from rxtweets.display._snapshot import Snapshot, Stage
from rxtweets.display._svg import RED
from rxtweets.display._topology import draw_topology
from tests.display.reading import HOSTILE, all_of, is_inside, numbers, parsed, texts

SOURCE = Stage("sample_stream", state="connected", passed=1234, queued=5, lag=0.25, rate=50)


def boxes(svg: str) -> list[tuple[float, float]]:
    """Where the boxes of the stages are."""
    return [numbers(rect, "x", "y") for rect in all_of(svg, "rect")[1:]]  # type: ignore[misc]  # two


def full(**changes: object) -> Snapshot:
    parts: dict[str, object] = {
        "state": "connected",
        "sources": (SOURCE,),
        "processors": (Stage("upcase", "50 at once", passed=1200, in_flight=37, rate=49),),
        "batchers": (Stage("default", "20 or 2 s", passed=1180, queued=12, rate=48),),
        "subscribers": (Stage("Database", passed=1180, batches=59),),
    }
    return Snapshot(**(parts | changes))  # type: ignore[arg-type]  # of the test


def test_stages_are_drawn_from_source_to_subscriber() -> None:
    svg = draw_topology(full()).svg
    assert [x for x, _ in boxes(svg)] == sorted({x for x, _ in boxes(svg)})
    said = texts(svg)
    order = [said.index(name) for name in ("sample_stream", "upcase", "default", "Database")]
    assert order == sorted(order)


def test_every_counter_is_drawn() -> None:
    said = texts(draw_topology(full()).svg)
    for text in (
        *("● connected", "1,234 messages", "5 waiting · lag 250 ms", "50 at once"),
        *("37 running", "20 or 2 s", "12 waiting", "59 batches", "50/s", "49/s", "48/s"),
    ):
        assert text in said


def test_topology_text_has_a_line_for_each_stage() -> None:
    assert draw_topology(full(rates=(0.0, 50.0, 100.0))).text.splitlines() == [
        "connected · 100 messages/s · ▁▅█",
        "source sample_stream: ● connected · 1,234 messages · 5 waiting · lag 250 ms · 50/s",
        "processors upcase: 50 at once · 1,200 messages · 37 running · 49/s",
        "batcher default: 20 or 2 s · 1,180 messages · 12 waiting · 48/s",
        "subscriber Database: 59 batches · 1,180 messages · 0/s",
    ]


def test_topology_text_shows_only_the_peak_at_the_end() -> None:
    lines = draw_topology(full(rates=(20.0, 10.0), is_over=True)).text.splitlines()
    assert lines[0] == "connected · peak 20 messages/s · █▅"
    assert not [line for line in lines[1:] if line.endswith("/s")]


def test_stages_of_a_kind_share_a_column() -> None:
    snapshot = full(
        sources=(SOURCE, SOURCE),
        batchers=tuple(Stage(name) for name in "abc"),
        subscribers=tuple(Stage(name) for name in "def"),
    )
    svg = draw_topology(snapshot).svg
    columns = sorted({x for x, _ in boxes(svg)})
    assert [sum(x == column for x, _ in boxes(svg)) for column in columns] == [2, 1, 3, 3]
    assert len(set(boxes(svg))) == 9
    assert is_inside(svg)


def test_batcher_arrow_leads_to_its_own_subscriber() -> None:
    one = draw_topology(full()).svg
    three = draw_topology(
        full(
            batchers=tuple(Stage(name) for name in "abc"),
            subscribers=tuple(Stage(name) for name in "def"),
        )
    ).svg
    assert len(all_of(one, "line")) == 3
    assert len(all_of(three, "line")) == 1 + 3 + 3


def test_rate_stays_readable_on_an_arrow() -> None:
    batchers = tuple(Stage(name, rate=7) for name in "abcde")
    svg = draw_topology(full(batchers=batchers, subscribers=())).svg
    rates = [shape for shape in all_of(svg, "text") if shape.text == "7/s"]
    assert [shape.get("paint-order") for shape in rates] == ["stroke"] * 5


def test_stream_is_one_box() -> None:
    svg = draw_topology(Snapshot("idle", (Stage("source", state="idle"),))).svg
    assert len(boxes(svg)) == 1
    assert all_of(svg, "line") == []


def test_only_failed_stage_is_red() -> None:
    healthy = draw_topology(full()).svg
    failing = draw_topology(full(processors=(Stage("upcase", failed=3),))).svg
    assert RED not in healthy
    assert "3 failed" in texts(failing)
    assert [rect.attrib["stroke"] for rect in all_of(failing, "rect")[1:]].count(RED) == 1


def test_drops_are_shown_in_red() -> None:
    svg = draw_topology(full(sources=(Stage("s", dropped=7, state="stalled"),))).svg
    (drops,) = [text for text in all_of(svg, "text") if "7 dropped" in "".join(text.itertext())]
    assert drops.attrib["fill"] == RED


def test_waiting_connection_shows_until_when() -> None:
    svg = draw_topology(full(sources=(Stage("s", state="backing off until 12:00:05"),))).svg
    assert {"● backing off", "until 12:00:05 UTC"} <= set(texts(svg))


def test_last_three_errors_are_drawn() -> None:
    svg = draw_topology(full(errors=tuple(f"error {number}" for number in range(9)))).svg
    assert texts(svg)[-3:] == ["✗ error 6", "✗ error 7", "✗ error 8"]


def test_notes_are_drawn_beside_the_state() -> None:
    assert "connected · reconnects 2" in texts(draw_topology(full(notes=("reconnects 2",))).svg)


def test_recent_rate_is_drawn_and_written() -> None:
    svg = draw_topology(full(rates=(10.0, 20.0, 15.0))).svg
    assert len(all_of(svg, "polyline")) == 1
    assert "15 messages/s" in texts(svg)


def test_topology_shows_only_the_peak_at_the_end() -> None:
    svg = draw_topology(full(rates=(10.0, 20.0, 15.0), is_over=True)).svg
    said = texts(svg)
    assert "peak 20 messages/s" in said
    assert not [text for text in said if text.endswith("/s") and text[0].isdigit()]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_escaped_in_topologies(text: str) -> None:
    drawing = draw_topology(
        full(
            sources=(Stage(text, text, text),),
            processors=(Stage(text, text),),
            errors=(text, text),
            notes=(text,),
        )
    )
    assert len(parsed(drawing.svg))
    assert not set("\x1b\x00\u202e\ud800") & set(drawing.text)


def test_usual_pipeline_fits_into_a_cell() -> None:
    assert numbers(parsed(draw_topology(full()).svg), "width") == (640,)


@pytest.mark.parametrize(
    ("rate", "text"), [(0.4, "0/s"), (999, "999/s"), (1_250, "1.2k/s"), (98_765, "99k/s")]
)
def test_rates_are_short(rate: float, text: str) -> None:
    svg = draw_topology(full(sources=(Stage("s", rate=rate),))).svg
    assert text in texts(svg)


def test_long_names_and_errors_are_cut() -> None:
    svg = draw_topology(full(processors=(Stage("x" * 500),), errors=("y" * 5000,))).svg
    assert len(svg) < 8_000
    assert is_inside(svg)
