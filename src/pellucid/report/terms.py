"""Opening a number: the path from it to a pixel, as a list of numbers that open, each into its terms."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
from markupsafe import Markup

from ..draw.arrays import embed
from ..explain.listing import number as digits
from ..explain.maps import shown
from ..explain.path import Key, Opened, Path
from ..explain.terms import Terms
from ..texts import number
from .shell import Section, render

SHOWN = 6  # terms of a number in the page; the rest is added up
SIDE = 112  # pixels of the image on which it is shown where a number looks


@dataclass(frozen=True)
class Row:
    """A term: where the page has the number it was made from, its cells, and a remark."""

    link: str
    cells: tuple[str, ...]
    note: str


@dataclass(frozen=True)
class Shown:
    """A number as the page shows it. `box` is what it sees of the image: x, y, width, height."""

    id: str
    name: str
    value: str
    about: str
    headings: tuple[str, ...]
    rows: list[Row]
    rest: tuple[str, str] | None
    closing: list[tuple[str, str]]
    after: str
    box: tuple[int, int, int, int]
    below: list


def section(path: Path, image: np.ndarray, title: str, lead: str, anchor: str) -> Section:
    """The section about a path through the network for an image (H, W, C)."""
    known = {opened.key for step in path.steps for opened in step.everything()}
    steps = [_shown(step, known, anchor, taken) for step, taken in zip_longest(path.steps, path.taken)]
    height, width = image.shape[:2]
    scale = SIDE / max(height, width)
    small = embed(shown(image), (round(scale * width), round(scale * height)))
    return Section(title, render(
        "explained/terms.html", steps=steps, ends=path.ends, width=width, height=height, image=Markup(small),
        seen=f"{anchor}-image", start=steps[0].name, rises=path.rises, opened=number(len(known), "number")),
        lead, anchor)


def _shown(opened: Opened, known: set[Key], prefix: str, taken: int | None = None) -> Shown:
    terms, order = opened.terms, opened.order
    kept = order[:SHOWN]
    for special in (taken, terms.winner):
        if special is not None and special not in kept:
            kept[-1] = special
    rest = terms.rest(kept)
    y, x, rows, columns = opened.seen or (0, 0, 0, 0)
    about = [terms.kind, *([] if opened.is_read else [number(len(terms), "term"), f"sees {rows}x{columns} pixels"])]
    return Shown(
        _anchor(prefix, opened.key), terms.address, digits(terms.value), ", ".join(about), terms.headings,
        [_row(terms, i, known, prefix, taken) for i in kept], rest and (rest[0], digits(rest[1])),
        [(text, digits(value)) for text, value in terms.closing()], ". ".join(terms.after()), (x, y, columns, rows),
        [_shown(each, known, prefix) for each in opened.below.values()])


def _row(terms: Terms, i: int, known: set[Key], prefix: str, taken: int | None) -> Row:
    key = terms[i].name, terms[i].index
    return Row("#" + _anchor(prefix, key) if key in known else "", (*terms.cells(i), digits(terms.numbers[i])),
               "the path goes on here" if i == taken else "")


def _anchor(prefix: str, key: Key) -> str:
    name, index = key
    return "-".join((prefix, name, *map(str, index)))
