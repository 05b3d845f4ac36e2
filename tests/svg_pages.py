"""Reading pictures back: what stands where, in pixels of the picture."""

import base64
import io
import re
from dataclasses import dataclass
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from pellucid.draw.svg import SIZE, text_width

SVG = "{http://www.w3.org/2000/svg}"


@dataclass(frozen=True)
class Mark:
    """An element with where it is drawn: left, top, right and bottom."""

    element: ElementTree.Element
    tag: str
    kind: str
    box: tuple[float, float, float, float]
    href: str | None

    @property
    def text(self):
        title = self.element.find(f"{SVG}title")
        return (title.tail if title is not None else self.element.text) or ""

    @property
    def tip(self):
        return self.element.findtext(f"{SVG}title", "")


def marks(picture, tag=None):
    """All that is drawn, in order."""
    found = []
    _walk(ElementTree.fromstring(picture.svg), 0.0, 0.0, None, found)
    return [m for m in found if tag in (None, m.tag)]


def texts(picture):
    return [m.text for m in marks(picture, "text")]


def kinds(picture, tag, word):
    """The elements of a class."""
    return [m for m in marks(picture, tag) if word in m.kind.split()]


def rgb(code):
    """The numbers of a colour such as #ff8000."""
    return [int(code[i : i + 2], 16) for i in (1, 3, 5)]


def pixels(mark):
    """The pixels of an image element, as Pillow reads them."""
    return Image.open(io.BytesIO(base64.b64decode(mark.element.get("href").partition(",")[2])))


def rgba(mark):
    return np.asarray(pixels(mark).convert("RGBA"))


def points(mark):
    """The corners of a path."""
    numbers = [float(v) for v in re.findall(r"-?\d+\.?\d*", mark.element.get("d"))]
    return np.reshape(numbers, (-1, 2))


def _walk(element, x, y, href, found):
    tag = element.tag.removeprefix(SVG)
    if tag in ("svg", "g", "a"):
        if moved := re.fullmatch(r"translate\((\S+) (\S+)\)", element.get("transform", "")):
            x, y = x + float(moved[1]), y + float(moved[2])
        for child in element:
            _walk(child, x, y, element.get("href", href), found)
    elif tag not in ("style", "title"):
        left, top, right, bottom = _box(tag, element)
        found.append(Mark(element, tag, element.get("class", ""), (left + x, top + y, right + x, bottom + y), href))


def _box(tag, element):
    def get(*names):
        return [float(element.get(name, 0)) for name in names]

    if tag in ("rect", "image"):
        x, y, width, height = get("x", "y", "width", "height")
        return x, y, x + width, y + height
    if tag == "line":
        x1, y1, x2, y2 = get("x1", "y1", "x2", "y2")
        return min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)
    if tag == "circle":
        x, y, r = get("cx", "cy", "r")
        return x - r, y - r, x + r, y + r
    if tag == "path":
        corners = points(Mark(element, tag, "", (0, 0, 0, 0), None))
        return *corners.min(0), *corners.max(0)
    assert tag == "text", tag
    size = float(element.get("font-size", SIZE))
    title = element.find(f"{SVG}title")
    long = text_width((title.tail if title is not None else element.text) or "", size)
    before = long * {"start": 0, "middle": 0.5, "end": 1}[element.get("text-anchor", "start")]
    if turned := re.fullmatch(r"translate\((\S+) (\S+)\) rotate\(-90\)", element.get("transform", "")):
        x, y = float(turned[1]), float(turned[2])
        return x - 0.75 * size, y + before - long, x + 0.2 * size, y + before
    x, y = get("x", "y")
    return x - before, y - 0.75 * size, x - before + long, y + 0.2 * size
