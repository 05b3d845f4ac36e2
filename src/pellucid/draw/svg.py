"""What all pictures share: `Picture`, colours, texts, and `Sketch`, the sheet that everything is drawn on.

A picture has no ids and its style reaches nothing outside it, so that any number of them can stand in one page. It
brings its own paper, dark where the reader's system is dark; what shows numbers by colour does it by how much of the
paper it covers, so that zero is the paper.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import floor, isnan, log10
from re import match
from unicodedata import combining, east_asian_width
from xml.sax.saxutils import escape, quoteattr

from .. import files

# (on light, on dark). Series stand out from the paper by 3:1 and more, and from each other for people with normal
# sight and each of the three kinds of colour blindness; `tests/test_draw_svg.py` computes it.
PAPER, INK, MUTED = ("#ffffff", "#17191d"), ("#1f2328", "#e6e8eb"), ("#57606a", "#a3abb5")
RULE, GRID, CELL = ("#848d97", "#7d8590"), ("#e4e7eb", "#2c3137"), ("#eef0f3", "#262a30")
SERIES = (("#1d3592", "#486fe8"), ("#a9300c", "#e55e0b"), ("#03a494", "#91f4d9"), ("#bc7b00", "#feb408"),
          ("#7661b8", "#a6a2ff"), ("#671e41", "#9b5881"))
ABOVE, BELOW = "#d55e00", "#0072b2"  # zero, on both papers: vermilion and blue of Okabe and Ito's colours, 2008
MARK = ("#b3007d", "#ff6fd0")  # the frame around what is being looked at
# A filter's weights, one each, under the dark text of light paper on both; told apart as the series are.
TINTS = ("#97c2f0", "#fcc17c", "#e8777a", "#9e8eef", "#5caeb2", "#c3af32", "#58ebc0", "#fce872", "#c3d7f8", "#abbd9b",
         "#b1fbbf", "#4fccc5")

SIZE = 12  # of the text, in pixels
LINE = 16  # from one line of text to the next
FONT = "Arial,Helvetica,'Liberation Sans',sans-serif"


def _style() -> str:
    rules = {
        "text": ("fill:currentColor", None), ".muted": ("color:", MUTED), ".strong": ("font-weight:bold", None),
        ".paper": ("fill:", PAPER), ".cell": ("fill:", CELL), ".rule": ("fill:none;stroke:", RULE),
        ".grid": ("fill:none;stroke:", GRID), ".mark": ("fill:none;stroke-width:2.5;stroke:", MARK),
        ".marked": ("color:", MARK), ".on": (f"color:{INK[0]}", None),
        ".hollow": ("stroke-dasharray:3 2", None), ".none": ("fill:transparent", None),
        "image": ("image-rendering:pixelated", None), ".smooth": ("image-rendering:auto", None),
        "a:hover rect": ("stroke-width:2;stroke:", MARK),
        **{f".s{i}": ("color:", pair) for i, pair in enumerate(SERIES)},
    }
    light = f".pellucid{{font:{SIZE}px {FONT};color:{INK[0]};max-width:100%;height:auto}}" + "".join(
        f".pellucid {name}{{{rule}{pair[0] if pair else ''}}}" for name, (rule, pair) in rules.items())
    dark = f".pellucid{{color:{INK[1]}}}" + "".join(
        f".pellucid {name}{{{rule.rpartition(';')[2]}{pair[1]}}}" for name, (rule, pair) in rules.items() if pair)
    return f"{light}@media screen and (prefers-color-scheme:dark){{{dark}}}"  # paper to print on is light


STYLE = _style()


@dataclass(frozen=True)
class Picture:
    """A complete SVG text, `width` by `height` pixels large. `str(picture)` is the text; notebooks show it."""

    svg: str
    width: int
    height: int

    def save(self, path: str | os.PathLike) -> None:
        """Write it into a file, whole or not at all. Raises OSError where that cannot be written."""
        files.atomic_text(path, self.svg)

    def __str__(self) -> str:
        return self.svg

    def _repr_html_(self) -> str:
        return self.svg


# Numbers and texts.


def number(value: float, digits: int = 3) -> str:
    """A number as a reader writes it: whole ones in full, others with `digits` significant digits, NaN as a dash.

    Below 0.0001 and from a million on it is written as 1.2e-7, unless it is whole and below a billion.
    """
    if isnan(value):
        return "–"
    if value == 0:
        return "0"
    if value == floor(value) and abs(value) < 1e9:
        return str(int(value))
    mantissa, _, power = f"{value:.{digits - 1}e}".partition("e")
    if -4 <= int(power) < 6:
        text = f"{value:.{max(digits - 1 - int(power), 0)}f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    return f"{mantissa.rstrip('0').rstrip('.') if '.' in mantissa else mantissa}e{int(power)}"


def short(value: float, digits: int = 3) -> str:
    """A large number with so many digits and a unit: 950, 1.5k, 25.6M, 4.1G."""
    unit = min(max(floor(log10(abs(value))) // 3, 0), 4) if value else 0
    if abs(float(f"{value / 1000**unit:.{digits}g}")) >= 1000 and unit < 4:
        unit += 1
    return number(float(f"{value / 1000**unit:.{digits}g}"), digits) + ("", "k", "M", "G", "T")[unit]


def percent(value: float, digits: int = 1) -> str:
    """0.931 as 93.1%, NaN as a dash. Only all of it is 100% and only nothing 0%: 0.9996 is >99.9%, 0.0004 is <0.1%."""
    if isnan(value):
        return "–"
    least = 10.0 ** -(digits + 2)
    if 1 - least / 2 <= value < 1:
        return f">{1 - least:.{digits}%}"
    if 0 < value < least / 2:
        return f"<{least:.{digits}%}"
    return f"{value:.0%}" if value in (0, 1) else f"{value:.{digits}%}"


def clean(text: object) -> str:
    """A text of one line without control characters, which XML cannot hold or which would turn other text around."""
    text = str(text)
    if text.isprintable():  # soon seen, even of a text as long as a picture
        return text
    return "".join(c if c.isprintable() else " " if c.isspace() else "" for c in text)


def text_width(text: str, size: float = SIZE) -> float:
    """About how wide a text is, in pixels; rather too wide, since the reader's font may be wider than ours."""
    total = 0.0
    for c in text:
        if combining(c):
            continue
        if east_asian_width(c) in "WF":
            total += 1.02
        else:
            total += 0.32 if c in "iljtfrI.,:;'|!()[] " else 0.92 if c in "mwMWQO@%&" else 0.72 if c.isupper() else 0.58
    return total * size


def shorten(text: str, room: float, size: float = SIZE) -> str:
    """The text, cut in its middle with an ellipsis where it is wider than `room` pixels."""
    if text_width(text, size) <= room:
        return text

    def kept(count: int) -> str:
        return text[: (count + 1) // 2] + "…" + text[len(text) - count // 2 :]

    too_many = bisect_left(range(len(text)), True, lo=1, key=lambda count: text_width(kept(count), size) > room)
    return kept(max(too_many - 1, 1))


def wrap(text: str, room: float, size: float = SIZE) -> list[str]:
    """The text in lines of about `room` pixels at most, broken between words."""
    lines: list[str] = []
    for word in clean(text).split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and text_width(longer, size) <= room:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def href(link: str) -> str:
    """The link, without control characters, if it opens something: a path, an anchor, a web page or a picture in it.

    Raises ValueError for other schemes, such as javascript:, which would run.
    """
    link = clean(link).strip()
    compact = "".join(link.split())  # browsers pass over some spaces
    scheme = match(r"([a-zA-Z][a-zA-Z0-9+.-]*):", compact)
    if scheme and scheme[1].lower() not in ("http", "https", "file") and not compact.lower().startswith("data:image/"):
        raise ValueError(f"a link may be a path, an anchor, or begin with http:, https:, file: or data:image/, got "
                         f"{compact[:60]!r}; write a colon in a file's name as %3A")
    return link


def _at(value: float) -> str:
    """A coordinate, to a hundredth of a pixel."""
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


def _attributes(given: dict[str, object]) -> str:
    found = []
    for name, value in given.items():
        if value is None or value == "":
            continue
        text = _at(float(value)) if isinstance(value, int | float) else clean(value)
        found.append(f" {name.rstrip('_').replace('_', '-')}={quoteattr(text)}")
    return "".join(found)


class Sketch:
    """Elements in the order in which they are drawn, in pixels from the upper left corner."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.opens = False  # something

    def add(self, tag: str, inside: str = "", *, tip: str = "", **attributes: object) -> None:
        """An element; `tip` shows when the reader points at it, `class_` is its class. Other texts are escaped here,
        `inside` is not."""
        inside = (f"<title>{escape(clean(tip))}</title>" if tip else "") + inside
        self.parts.append(f"<{tag}{_attributes(attributes)}" + (f">{inside}</{tag}>" if inside else "/>"))

    def rect(self, x: float, y: float, width: float, height: float, kind: str = "", **more: object) -> None:
        """A rectangle."""
        self.add("rect", class_=kind, x=x, y=y, width=width, height=height, **more)

    def line(self, x1: float, y1: float, x2: float, y2: float, kind: str = "rule", **more: object) -> None:
        """A straight line."""
        self.add("line", class_=kind, x1=x1, y1=y1, x2=x2, y2=y2, **more)

    def path(self, points: list[tuple[float, float]], kind: str = "rule", closed: bool = False, **more: object) -> None:
        """Straight lines from point to point."""
        d = "M" + "L".join(f"{_at(x)} {_at(y)}" for x, y in points) + "Z" * closed
        self.add("path", class_=kind, d=d, **more)

    def circle(self, x: float, y: float, r: float, kind: str = "", **more: object) -> None:
        """A disc in the colour of its class."""
        self.add("circle", class_=kind, cx=x, cy=y, r=r, fill="currentColor", **more)

    def text(self, x: float, y: float, text: object, kind: str = "", *, anchor: str = "start", size: float = SIZE,
             room: float | None = None, turned: bool = False, tip: str = "", **more: object) -> None:
        """A line of text whose baseline is at y. `anchor` is start, middle or end; `turned` reads upwards. A text
        wider than `room` is shortened and can be read in full by pointing at it."""
        whole = clean(text)
        shown = whole if room is None else shorten(whole, room, size)
        place = {"transform": f"translate({_at(x)} {_at(y)}) rotate(-90)"} if turned else {"x": x, "y": y}
        self.add("text", escape(shown), tip=tip or (whole if shown != whole else ""), class_=kind, **place,
                 text_anchor=None if anchor == "start" else anchor, font_size=None if size == SIZE else size, **more)

    def pixels(self, x: float, y: float, width: float, height: float, data: str, *, smooth: bool = False,
               **more: object) -> None:
        """A picture of pixels, given as a data: link of `arrays.embed` or `arrays.embed_signed`, stretched."""
        self.add("image", class_="smooth" if smooth else "", x=x, y=y, width=width, height=height,
                 preserveAspectRatio="none", href=data, **more)

    def put(self, other: Sketch, x: float, y: float) -> None:
        """All of another sketch, moved."""
        self.opens |= other.opens
        self.parts.append(f'<g transform="translate({_at(x)} {_at(y)})">' + "\n".join(other.parts) + "</g>")

    @contextmanager
    def linked(self, link: str | None) -> Iterator[None]:
        """What is drawn inside opens `link`; None leaves it as it is. Raises ValueError as `href`."""
        if link is not None:
            self.opens = True
            self.parts.append(f"<a{_attributes({'href': href(link)})}>")
        yield
        if link is not None:
            self.parts.append("</a>")

    def picture(self, width: float, height: float, label: str) -> Picture:
        """The sheet as a picture. `label` says what it shows to those who do not see it."""
        width, height = int(-(-width // 1)), int(-(-height // 1))
        # An image's parts are hidden from screen readers; links must not be.
        role = "group" if self.opens else "img"
        return Picture(
            f'<svg xmlns="http://www.w3.org/2000/svg" class="pellucid" viewBox="0 0 {width} {height}" width="{width}" '
            f'height="{height}" role="{role}"{_attributes({"aria-label": label})}><style>{STYLE}</style>'
            f'<rect class="paper" width="{width}" height="{height}"/>\n' + "\n".join(self.parts) + "\n</svg>\n",
            width, height)
