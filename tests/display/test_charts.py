from __future__ import annotations

from collections import Counter

import pytest

from rxtweets.display._charts import bars, lines, sparkline
from rxtweets.display._svg import Canvas
from tests.display.reading import HOSTILE, all_of, is_inside, numbers, parsed, texts


def widths(svg: str) -> list[float]:
    return [float(bar.attrib["width"]) for bar in all_of(svg, "rect")[1:]]


def points(text: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in (point.split(",") for point in text.split())]


def curves(svg: str) -> list[list[tuple[float, float]]]:
    return [points(curve.attrib["points"]) for curve in all_of(svg, "polyline")]


def test_bar_lengths_are_proportional_to_values() -> None:
    first, second, third = widths(bars([("a", 100), ("b", 50), ("c", 25)]).svg)
    assert second == pytest.approx(first / 2, rel=0.01)
    assert third == pytest.approx(first / 4, rel=0.01)


def test_bars_keep_order_and_show_values() -> None:
    drawing = bars(Counter("aaabbc").most_common(2), title="letters")
    assert texts(drawing.svg) == ["letters", "a", "3", "b", "2"]
    assert drawing.text == "letters\na: 3\nb: 2"


def test_bars_accept_a_mapping() -> None:
    assert bars({"a": 1.5}).svg == bars([("a", 1.5)]).svg


@pytest.mark.parametrize("values", [[], [("a", 0)], [("a", 0.0), ("b", 0)]])
def test_bars_are_drawn_when_all_values_are_zero(
    values: list[tuple[str, float]],
) -> None:
    assert is_inside(bars(values).svg)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_are_escaped_in_charts(text: str) -> None:
    assert len(parsed(bars([(text, 1)], title=text).svg))
    assert len(parsed(lines({text: [1, 2]}, title=text, unit=text, span=text).svg))
    assert "\x1b" not in bars([(text, 1)], title=text).text + lines({text: [1]}, title=text).text


def test_line_rises_with_its_values() -> None:
    (curve,) = curves(lines({"a": [0, 5, 10]}).svg)
    (x1, y1), (x2, y2), (x3, y3) = curve
    assert x1 < x2 < x3
    assert x2 - x1 == pytest.approx(x3 - x2, abs=0.2)
    assert y1 - y2 == pytest.approx(y2 - y3, abs=0.2)
    assert y3 < y1


def test_lines_share_one_scale() -> None:
    high, low = curves(lines({"high": [0, 10], "low": [0, 5]}).svg)
    rise = high[0][1] - high[1][1]
    assert low[0][1] - low[1][1] == pytest.approx(rise / 2, abs=0.2)


def test_lines_end_at_the_same_place() -> None:
    long, short = curves(lines({"long": [1] * 10, "short": [1, 2]}).svg)
    assert long[-1][0] == short[-1][0]
    assert long[-2][0] == short[-2][0]


def test_line_shows_its_latest_value_and_unit() -> None:
    svg = lines({"en": [1, 2.5]}, unit="/s", span="the last minute").svg
    assert {"en 2.5", "0/s", "2.5/s", "the last minute"} <= set(texts(svg))


@pytest.mark.parametrize("series", [{}, {"a": []}, {"a": [0]}, {"a": [0, 0], "b": []}])
def test_lines_are_drawn_when_series_are_empty(series: dict[str, list[float]]) -> None:
    assert is_inside(lines(series).svg)


def test_picture_is_taller_when_there_are_many_lines() -> None:
    few, many = (lines({str(n): [1, 2] for n in range(count)}).svg for count in (2, 30))
    assert numbers(parsed(many), "height") > numbers(parsed(few), "height")


def test_sparkline_touches_its_top_and_ends() -> None:
    canvas = Canvas()
    sparkline(canvas, [0, 10, 5], 10, 20, 100, 30)
    svg = canvas.drawing(60, []).svg
    assert curves(svg) == [[(10, 50), (60, 20), (110, 35)]]
    (area,) = all_of(svg, "polygon")
    assert points(area.attrib["points"]) == [(10, 50), *curves(svg)[0], (110, 50)]


def test_sparkline_is_empty_without_values() -> None:
    canvas = Canvas()
    sparkline(canvas, [], 0, 0, 10, 10)
    assert len(all_of(canvas.drawing(60, []).svg, "rect")) == 1
    assert all_of(canvas.drawing(60, []).svg, "polygon") == []
