from __future__ import annotations

import pytest

from rxtweets.display._marbles import Marbles, Mark, Strand, draw_marbles
from rxtweets.display._svg import RED
from tests.display.reading import HOSTILE, all_of, is_inside, numbers, parsed, texts


def values(*pairs: tuple[float, str]) -> tuple[Mark, ...]:
    return tuple(Mark(at, "next", label) for at, label in pairs)


def svg_of(*strands: Strand, seconds: float = 1.0) -> str:
    return draw_marbles(Marbles(strands, seconds)).svg


def round_boxes(svg: str) -> list[float]:
    """Where values are, from left to right."""
    return sorted(
        float(rect.attrib["x"]) + float(rect.attrib["width"]) / 2
        for rect in all_of(svg, "rect")
        if rect.attrib["rx"] == "12"
    )


def test_value_is_a_circle_at_its_time() -> None:
    svg = svg_of(Strand("a", values((0.0, "x"), (0.5, "y"), (1.0, "z"))))
    left, middle, right = round_boxes(svg)
    assert left < middle < right
    assert middle - left == pytest.approx(right - middle)
    assert {"x", "y", "z"} <= set(texts(svg))


def test_streams_share_the_scale() -> None:
    svg = svg_of(Strand("a", values((0.3, "x"))), Strand("b", values((0.3, "y"))))
    first, second = round_boxes(svg)
    assert first == second
    assert [text for text in texts(svg) if text in {"a", "b"}] == ["a", "b"]


def test_equal_values_have_the_same_colour_in_all_streams() -> None:
    svg = svg_of(Strand("a", values((0.1, "x"), (0.5, "y"))), Strand("b", values((0.8, "x"))))
    fills = [rect.attrib["fill"] for rect in all_of(svg, "rect") if rect.attrib["rx"] == "12"]
    assert len(fills) == 3
    assert len(set(fills)) == 2


def fills(svg: str) -> list[str]:
    return [box.attrib["fill"] for box in all_of(svg, "rect") if box.attrib.get("stroke")]


def test_many_different_values_have_different_colours() -> None:
    many = [
        Strand(f"{row}", values(*((at / 9, f"{row} {at}") for at in range(9)))) for row in "abcd"
    ]
    colours = fills(svg_of(*many))
    assert len(colours) == 36
    assert len(set(colours)) == 36


def test_batch_and_value_with_one_label_differ_in_colour() -> None:
    svg = svg_of(Strand("a", (Mark(0.2, "next", "3"), Mark(0.5, "next", "3", 3))))
    assert len(set(fills(svg))) == 2


def test_ticks_have_no_value_colour() -> None:
    dense = values(*((number / 500, "x") for number in range(500)))
    svg = svg_of(Strand("a", dense), Strand("b", values((0.5, "x"))))
    (ticks,) = [shape for shape in all_of(svg, "path") if "v" in shape.attrib["d"]]
    assert ticks.attrib["stroke"] not in fills(svg)


def test_batch_is_a_box_with_its_size() -> None:
    svg = svg_of(Strand("batches", (Mark(0.5, "next", "20", 20),)))
    assert [rect.attrib["rx"] for rect in all_of(svg, "rect")] == ["6", "3"]
    assert "20" in texts(svg)


def test_completion_is_a_bar_at_its_time() -> None:
    svg = svg_of(Strand("a", (Mark(0.5, "completed"),)))
    upright = [
        bar
        for bar in all_of(svg, "line")
        if bar.attrib["x1"] == bar.attrib["x2"] and bar.attrib.get("stroke-width") == "2.5"
    ]
    assert len(upright) == 1


def test_error_is_a_red_cross_with_its_text() -> None:
    svg = svg_of(Strand("a", (Mark(0.5, "error", "ValueError: no"),)))
    assert sum(shape.attrib["stroke"] == RED for shape in all_of(svg, "line")) == 2
    assert "ValueError: no" in texts(svg)


def test_values_are_ticks_when_too_close() -> None:
    svg = svg_of(Strand("a", values(*((number / 500, "x") for number in range(500)))))
    assert round_boxes(svg) == []
    assert "x" not in texts(svg)
    (ticks,) = [shape.attrib["d"] for shape in all_of(svg, "path") if "v" in shape.attrib["d"]]
    assert ticks.count("M") == 500


def test_diagram_of_many_values_is_small() -> None:
    svg = svg_of(Strand("a", values(*((number / 1e5, "x") for number in range(100_000)))))
    assert len(svg) < 64_000


def test_earlier_value_is_in_front_when_two_overlap() -> None:
    svg = svg_of(Strand("a", values((0.1, "x"), (0.101, "y"), (0.5, "z"), (0.9, "w"))))
    assert len(round_boxes(svg)) == 4
    order = [text for text in texts(svg) if text in {"x", "y"}]
    assert order == ["y", "x"]


@pytest.mark.parametrize("seconds", [0.0, 0.001, 0.7, 1.0, 3.0, 59.0, 86_400.0])
def test_time_labels_are_few_round_numbers(seconds: float) -> None:
    svg = svg_of(Strand("a", ()), seconds=seconds)
    times = [float(text.removesuffix(" s")) for text in texts(svg) if text.endswith(" s")]
    assert times[0] == 0
    assert len(times) <= 11
    assert all(at <= seconds * 1.0001 for at in times)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_escaped_in_marbles(text: str) -> None:
    marks = (*values((0.1, text)), Mark(0.5, "next", text, 3), Mark(0.9, "error", text))
    drawing = draw_marbles(Marbles((Strand(text, marks),), 1.0, text))
    assert len(parsed(drawing.svg))
    assert not set("\x1b\x00\u202e\ud800") & set(drawing.text)


def test_marbles_stay_on_the_page() -> None:
    marks = values((0.0, "a long label"), (1.0, "a long label"), (5.0, "after the end"))
    svg = svg_of(Strand("a very long name of a stream", marks), Strand("", ()), Strand("c", ()))
    assert is_inside(svg)
    assert numbers(parsed(svg), "height") > (3 * 44,)


def test_marbles_have_a_line_of_text_for_each_strand() -> None:
    marks = (*values((0.0, "a"), (0.5, "bc")), Mark(1.0, "completed"))
    record = Marbles((Strand("source", marks), Strand("x", (Mark(0.5, "error", "no"),))), 1.0)
    source, other, scale = draw_marbles(record).text.splitlines()
    assert source == "source  a" + "-" * 28 + "b" + "-" * 28 + "|-"
    assert other == "x       " + "-" * 29 + "#" + "-" * 30
    assert scale == "        0 … 1 s"


def test_marbles_text_shows_batch_sizes_up_to_nine() -> None:
    marks = (Mark(0.0, "next", "9", 9), Mark(0.5, "next", "10", 10), Mark(1.0, "next", "0", 0))
    line, _ = draw_marbles(Marbles((Strand("s", marks),), 1.0)).text.splitlines()
    assert line == "s  9" + "-" * 28 + "+" + "-" * 28 + "0-"


def test_marbles_text_puts_the_end_after_its_value() -> None:
    marks = (*values((1.0, "a")), Mark(1.0, "completed"))
    assert draw_marbles(Marbles((Strand("s", marks),), 1.0)).text.startswith(
        "s  " + "-" * 58 + "a|"
    )


def test_marbles_have_a_representation_and_named_strands() -> None:
    record = Marbles((Strand("a", ()),), 1.0, "title")
    assert record._repr_mimebundle_()["image/svg+xml"] == draw_marbles(record).svg
    assert record["a"].marks == ()
    with pytest.raises(KeyError, match="b"):
        record["b"]
