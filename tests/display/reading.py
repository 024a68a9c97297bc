"""Independent parsers for pictures."""

from __future__ import annotations

from html.parser import HTMLParser
from xml.etree import ElementTree as ET

SVG = "{http://www.w3.org/2000/svg}"
VOID = {"br", "img", "hr", "input", "meta", "link", "col"}

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</td></table></svg>]]>&#x3c;&amp;",
    "\u202egnp.exe\u202c \u2066\u2067\u2068\u2069",
    "\x00\x01\x07\x08\x1b[31m\x7f\x9b\ufffe\uffff",
    "\ud800 lone \udfff",
    "a\nb\r\nc\u2028d\u2029e",
    "'; DROP TABLE tweets; --",
)
"""Texts that break out of markup, turn the writing direction, or break parsers."""

FORBIDDEN = set(
    "\x00\x01\x07\x08\x1b\x7f\x9b\u202a\u202b\u202d\u202e\u2066\u2067\u2069\ud800\udfff"
)


def parsed(svg: str) -> ET.Element:
    """Return the document; fail if it is malformed, or runs or loads anything."""
    assert not FORBIDDEN & set(svg)
    root = ET.fromstring(svg.encode())  # noqa: S314 - of our own making
    assert root.tag == SVG + "svg"
    for element in root.iter():
        assert element.tag.removeprefix(SVG) in {
            *("svg", "title", "rect", "text", "tspan", "line", "circle", "polyline", "polygon"),
            *("path", "g"),
        }
        assert not any(name.lower().startswith("on") or "href" in name for name in element.attrib)
    return root


def texts(svg: str) -> list[str]:
    """Return the texts of a picture in their order."""
    return ["".join(element.itertext()) for element in parsed(svg).iter(SVG + "text")]


def all_of(svg: str, name: str) -> list[ET.Element]:
    """Return the elements with this name."""
    return list(parsed(svg).iter(SVG + name))


def numbers(element: ET.Element, *names: str) -> tuple[float, ...]:
    """Return attributes as numbers."""
    return tuple(float(element.attrib[name]) for name in names)


def is_inside(svg: str) -> bool:
    """Return whether every shape lies on the page."""
    root = parsed(svg)
    width, height = numbers(root, "width", "height")
    for element in root.iter():
        for name, most in (("x", width), ("x1", width), ("x2", width), ("cx", width)):
            assert 0 <= float(element.attrib.get(name, 0)) <= most, element.attrib
        for name, most in (("y", height), ("y1", height), ("y2", height), ("cy", height)):
            assert 0 <= float(element.attrib.get(name, 0)) <= most, element.attrib
    return True


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.written: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.written.append(data)


def html_text(html: str) -> str:
    """Return the text of a page; fail if its tags do not match, or run or load anything."""
    assert not FORBIDDEN & set(html)
    page = _Page()
    page.feed(html)
    page.close()
    assert page.open == []
    assert set(page.tags) <= {
        *("div", "b", "bdi", "a", "table", "caption", "thead", "tbody", "tr", "th", "td"),
    }
    assert not any(name.startswith("on") or name == "src" for name, _ in page.attributes)
    for name, value in page.attributes:
        if name == "href":
            assert str(value).startswith("https://x.com/i/status/")
    return "".join(page.written)
