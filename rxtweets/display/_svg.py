"""SVG from a few shapes, everything escaped in one place; and what a notebook is given to show."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from rxtweets.display._html import markup

__all__ = [
    "BLUE",
    "GREEN",
    "GREY",
    "INK",
    "PAPER",
    "RED",
    "SERIES",
    "YELLOW",
    "Drawing",
    "colour_of",
    "line",
    "page",
    "rectangle",
    "shape",
    "words",
]

INK, GREY, PAPER = "#0f1419", "#536471", "#ffffff"
BLUE, GREEN, YELLOW, RED = "#1d6fb8", "#0a7a4b", "#9a6700", "#c4183c"
SERIES = (BLUE, "#c4561a", GREEN, "#7b4bb5", YELLOW, "#b02a76", "#3a7d8c", GREY)
"""Colours that can be told apart on white, also by most who see few colours; each has a contrast of
4.5 or more, so that text may have it."""

DARKER = 0.6
"""The factor by which each further round through the colours is darker."""


def colour_of(number: int) -> str:
    """A colour for each number from 0: those of `SERIES`, then the same ones darker and darker."""
    around, place = divmod(number, len(SERIES))
    parts = (int(SERIES[place][at : at + 2], 16) for at in (1, 3, 5))
    return "#" + "".join(f"{round(part / (1 + DARKER * around)):02x}" for part in parts)


FONT = "system-ui, 'Segoe UI', Roboto, 'Noto Sans', 'DejaVu Sans', sans-serif"


@dataclass(frozen=True, slots=True)
class Drawing:
    """A picture and what is read in its place where no pictures are shown.

    Attributes:
        svg: the picture, a whole SVG document.
        text: the same in words.
    """

    svg: str = field(repr=False)
    text: str

    def __str__(self) -> str:
        return self.text

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        return {"text/plain": self.text, "image/svg+xml": self.svg}


def page(width: float, height: float, parts: Iterable[str], title: str) -> str:
    """A whole document on white paper: the themes of notebooks are dark or light.

    Args:
        width: in pixels.
        height: in pixels.
        parts: of the picture, from back to front.
        title: read aloud to those who do not see it.
    """
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}" '
        f'viewBox="0 0 {width:g} {height:g}" font-family="{FONT}" font-size="11" role="img">'
        f"<title>{markup(title)}</title>"
        + rectangle(0, 0, width, height, fill=PAPER, rx=6)
        + "".join(parts)
        + "</svg>"
    )


def shape(name: str, *inside: str, **attributes: str | float) -> str:
    """An element; ``stroke_width=2`` is ``stroke-width="2"``.

    Args:
        name: of the element.
        inside: markup.
        attributes: in any order; a trailing underscore is left out.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_value(value)}"'
        for key, value in attributes.items()
    )
    return f"<{name}{written}>{''.join(inside)}</{name}>" if inside else f"<{name}{written}/>"


def words(x: float, y: float, text: str, **attributes: str | float) -> str:
    """Text whose direction is its own: neither it nor what is beside it is turned."""
    own = {"direction": "ltr", "unicode_bidi": "plaintext", "fill": INK} | attributes
    return shape("text", markup(text), x=x, y=y, **own)


def line(x1: float, y1: float, x2: float, y2: float, **attributes: str | float) -> str:
    """A line from one point to another."""
    return shape("line", x1=x1, y1=y1, x2=x2, y2=y2, **({"stroke": GREY} | attributes))


def rectangle(x: float, y: float, width: float, height: float, **attributes: str | float) -> str:
    """A rectangle by its upper left corner and its size."""
    return shape("rect", x=x, y=y, width=width, height=height, **attributes)


def _value(value: str | float) -> str:
    return markup(value) if isinstance(value, str) else f"{round(value, 2):g}"
