"""Pictures as SVG, with all text escaped."""

from __future__ import annotations

from dataclasses import dataclass, field

from rxtweets.display._html import FONTS, escaped, sanitized

INK, GREY, PAPER = "#0f1419", "#536471", "#ffffff"
BLUE, GREEN, YELLOW, RED = "#1d6fb8", "#0a7a4b", "#9a6700", "#c4183c"
SERIES = (BLUE, "#c4561a", GREEN, "#7b4bb5", YELLOW, "#b02a76", "#3a7d8c", GREY)
"""Colours that most colour-blind readers can distinguish.

Their contrast on white is 4.5 or more, as text needs.
"""

DARKENING = 0.6
"""How much darker each repetition of the colours is."""

PICTURE_WIDTH, PADDING = 640, 8


def colour_of(number: int) -> str:
    """Return a colour for each number from 0: those of `SERIES`, then darker and darker ones."""
    repetition, place = divmod(number, len(SERIES))
    parts = (int(SERIES[place][at : at + 2], 16) for at in (1, 3, 5))
    return "#" + "".join(f"{round(part / (1 + DARKENING * repetition)):02x}" for part in parts)


@dataclass(frozen=True, slots=True)
class Drawing:
    """A picture, and a text for places that show no pictures.

    Attributes:
        svg: the picture, a whole SVG document.
        text: the content of the picture in words.
    """

    svg: str = field(repr=False)
    text: str

    def __str__(self) -> str:
        return self.text

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        return {"text/plain": self.text, "image/svg+xml": self.svg}


class Canvas:
    """White paper, as notebooks have dark or light themes; later shapes are in front.

    A keyword ``stroke_width=2`` is the attribute ``stroke-width="2"``.

    Args:
        title: written at the top.
        width: in pixels.
    """

    def __init__(self, title: str = "", width: float = PICTURE_WIDTH) -> None:
        self.width = width
        self._title = title
        self._shapes: list[str] = []
        if title:
            self.text(PADDING, 20, title, font_weight=600)

    def shape(self, name: str, content: str = "", /, **attributes: str | float) -> None:
        """Draw an element; ``content`` is not escaped."""
        written = "".join(
            f' {key.replace("_", "-")}="'
            f'{escaped(value) if isinstance(value, str) else f"{round(value, 2):g}"}"'
            for key, value in attributes.items()
        )
        element = f"<{name}{written}>{content}</{name}>" if content else f"<{name}{written}/>"
        self._shapes.append(element)

    def text(self, x: float, y: float, text: str, **attributes: str | float) -> None:
        """Write text; its direction does not affect the shapes around it."""
        own = {"direction": "ltr", "unicode_bidi": "plaintext", "fill": INK} | attributes
        self.shape("text", escaped(text), x=x, y=y, **own)

    def line(self, x1: float, y1: float, x2: float, y2: float, **attributes: str | float) -> None:
        """Draw a line between two points."""
        self.shape("line", x1=x1, y1=y1, x2=x2, y2=y2, **({"stroke": GREY} | attributes))

    def rectangle(
        self, x: float, y: float, width: float, height: float, **attributes: str | float
    ) -> None:
        """Draw a rectangle by its upper left corner and its size."""
        self.shape("rect", x=x, y=y, width=width, height=height, **attributes)

    def drawing(self, height: float, text: list[str], label: str = "") -> Drawing:
        """Return the picture.

        Args:
            height: in pixels.
            text: lines of the text, without the title.
            label: read aloud by screen readers; by default the title.
        """
        width = self.width
        paper = Canvas(width=width)
        paper.rectangle(0, 0, width, height, fill=PAPER, rx=6)
        svg = (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}" '
            f'viewBox="0 0 {width:g} {height:g}" font-family="{FONTS}" font-size="11" role="img">'
            f"<title>{escaped(self._title or label)}</title>"
            f"{''.join(paper._shapes + self._shapes)}</svg>"
        )
        title = [sanitized(self._title)] if self._title else []
        return Drawing(svg, "\n".join([*title, *text]))
