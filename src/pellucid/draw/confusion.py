"""The confusion matrix: which class is taken for which."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .arrays import PALE, embed_signed, numbers, shade
from .images import MARGIN
from .svg import LINE, Picture, Sketch, clean, number, percent, shorten, text_width

WITH_NUMBERS = 20  # classes up to which cells have numbers
WITH_NAMES = 120  # classes up to which rows and columns have names
MOST = 2000
NAMES = 150  # room for a class's name


def confusion(matrix, classes: Sequence[str], *, links: Sequence[Sequence[str | None]] | None = None,
              totals: tuple[Sequence[float], Sequence[float]] | None = None) -> Picture:
    """Counts (classes, classes): rows are the true classes, columns the answers; shaded by the share of their row.

    Right answers, on the diagonal, are blue and mistakes orange, on a scale that ends with the worst of them; the
    root of the share is shaded, which lets rare mistakes be seen. Up to 20 classes have numbers, the recall of each
    row and the precision of each column; more have shades and names, and more than 120 no names. Where the matrix is
    a part of a larger one, `totals` are what its rows and columns hold in all. `links[i][j]` opens something from a
    cell, None nothing. Raises ValueError for other shapes, counts that are negative or missing, more than 2000
    classes, and links that would run.
    """
    counts, names = numbers("matrix", matrix, 2, missing=False), [str(c) for c in classes]
    n = len(names)
    if counts.shape != (n, n):
        raise ValueError(f"matrix: expected a row and a column for each of {n} classes, got shape {counts.shape}")
    if (counts < 0).any():
        raise ValueError(f"matrix: counts must not be negative, got {number(counts.min())}")
    if n > MOST:
        raise ValueError(f"matrix: at most {MOST} classes can be drawn, got {n}")
    if links is not None and (len(links) != n or any(len(row) != n for row in links)):
        raise ValueError(f"links: expected {n} rows of {n}")
    given, answered = _totals(counts, totals)
    shares = _shares(counts, given[:, None], 0.0)
    worst = float(np.where(np.eye(n, dtype=bool), 0.0, shares).max())
    strength = np.where(np.eye(n, dtype=bool), -(shares**0.5), (shares / (worst or 1.0)) ** 0.5)
    numbered = n <= WITH_NUMBERS
    if numbered:
        cell = max(40.0 if n <= 10 else 30.0, max(text_width(_count(v)) for v in np.unique(counts)) + 8)
    else:
        cell = max(11.0 if n <= WITH_NAMES else 900 // n, 1.0)
    size = 12 if numbered else 9
    shown = [shorten(clean(name), NAMES, size) for name in names] if n <= WITH_NAMES else []
    room = max((text_width(name, size) for name in shown), default=0.0) + 8
    flat = numbered and max(text_width(name) for name in shown) <= cell - 2  # names fit above the columns
    left = MARGIN + LINE + max(room, text_width("precision") + 8 if numbered else 0)
    top = MARGIN + LINE + 4 + (LINE if flat else room)
    wide = n * cell
    sketch = Sketch()
    sketch.text(left + wide / 2, MARGIN + 12, "answer", "muted", anchor="middle")
    sketch.text(MARGIN + 12, top + wide / 2, "true class", "muted", anchor="middle", turned=True)
    for i, name in enumerate(shown):
        middle, tip = (i + 0.5) * cell, names[i] if shown[i] != names[i] else ""
        sketch.text(left - 6, top + middle + size / 3, name, anchor="end", size=size, tip=tip)
        if flat:
            sketch.text(left + middle, top - 6, name, anchor="middle", tip=tip)
        else:
            sketch.text(left + middle + size / 3, top - 6, name, size=size, turned=True, tip=tip)
    if numbered:
        _cells(sketch, left, top, counts, shares, strength, names, links, cell)
        right, bottom = _rates(sketch, left, top, np.diag(counts), given, answered, cell)
    else:
        _shades(sketch, left, top, counts, shares, strength, names, links, cell)
        right, bottom = left + wide, top + wide
    bottom, wanted = _legend(sketch, left, bottom + 10, worst, PALE if numbered else None)
    right_answers, total = np.trace(counts), counts.sum()
    label = f"confusion matrix of {n} classes: {_count(right_answers)} of {_count(total)} answers are right"
    return sketch.picture(max(right, wanted) + MARGIN, bottom + MARGIN, label)


def _totals(counts: np.ndarray, totals) -> list[np.ndarray]:
    """What rows and columns hold in all: as given, or as the matrix says."""
    sums = [counts.sum(1), counts.sum(0)]
    if totals is None:
        return sums
    found = [numbers("totals", t, 1, missing=False) for t in totals]
    for name, there, whole in zip(("row", "column"), sums, found, strict=True):
        if len(whole) != len(counts):
            raise ValueError(f"totals: expected a number for each of {len(counts)} {name}s, got {len(whole)}")
        for i in np.flatnonzero(whole < there):
            raise ValueError(f"totals: {name} {i} holds {number(there[i])} and its total is {number(whole[i])}")
    return found


def _shares(parts: np.ndarray, wholes: np.ndarray, of_nothing: float) -> np.ndarray:
    return np.divide(parts, wholes, out=np.full(parts.shape, of_nothing), where=wholes > 0)


def _count(value: float) -> str:
    return f"{value:,.0f}" if value == round(value) else number(value)


def _cell(names: list[str], counts: np.ndarray, shares: np.ndarray, i: int, j: int) -> str:
    what = "right" if i == j else f"taken for {clean(names[j])}"
    return f"{clean(names[i])}, {what}: {_count(counts[i, j])} ({percent(shares[i, j])})"


def _cells(sketch: Sketch, left: float, top: float, counts, shares, strength, names, links, cell: float) -> None:
    for i, j in np.ndindex(counts.shape):
        x, y = left + j * cell, top + i * cell
        tip = _cell(names, counts, shares, i, j)
        with sketch.linked(None if links is None else links[i][j]):
            sketch.rect(x + 0.5, y + 0.5, cell - 1, cell - 1, "cell")
            sketch.rect(x + 0.5, y + 0.5, cell - 1, cell - 1, tip=tip, **shade(strength[i, j], 1.0))
            sketch.text(x + cell / 2, y + cell / 2 + 4, _count(counts[i, j]), "" if counts[i, j] else "muted",
                        anchor="middle", tip=tip)


def _rates(sketch: Sketch, left: float, top: float, right_answers: np.ndarray, given: np.ndarray, answered: np.ndarray,
           cell: float) -> tuple[float, float]:
    """Recall beside the rows and precision below the columns; returns where they end."""
    n = len(right_answers)
    right, bottom = left + n * cell + 10, top + n * cell
    digits, size = (1, 10) if cell >= 40 else (0, 9)
    sketch.text(right, top - 6, "recall", "muted")
    sketch.text(left - 6, bottom + 16, "precision", "muted", anchor="end")
    rates = (_shares(right_answers, wholes, np.nan) for wholes in (given, answered))
    for i, (recall, precision) in enumerate(zip(*rates, strict=True)):
        sketch.text(right, top + (i + 0.5) * cell + 4, percent(recall), "muted")
        sketch.text(left + (i + 0.5) * cell, bottom + 16, percent(precision, digits), "muted", anchor="middle",
                    size=size)
    return right + text_width(">99.9%"), bottom + 18


def _shades(sketch: Sketch, left: float, top: float, counts, shares, strength, names, links, cell: float) -> None:
    """All cells as one picture of pixels; what opens or says something lies over it."""
    n, wide = len(counts), len(counts) * cell
    sketch.rect(left, top, wide, wide, "cell")
    sketch.pixels(left, top, wide, wide, embed_signed(strength, 1.0))
    sketch.rect(left, top, wide, wide, "rule")
    for i, j in np.argwhere(counts > 0):
        link = None if links is None else links[i][j]
        if link is None and n > WITH_NAMES:
            continue
        with sketch.linked(link):
            sketch.rect(left + j * cell, top + i * cell, cell, cell, "none", tip=_cell(names, counts, shares, i, j))


def _legend(sketch: Sketch, left: float, top: float, worst: float, opacity: float | None) -> tuple[float, float]:
    """Which colour is which share, as strong as in the cells; returns where it ends."""
    y, end, shares = top, left, np.linspace(0, 1, 64)[None]
    for text, sign, most in (("right: 0%", -1, 1.0), ("mistakes: 0%", 1, worst)):
        if most:
            until = f"{percent(most)} of the true class"
            sketch.text(left + 76, y + 10, text, "muted", anchor="end")
            sketch.rect(left + 82, y, 100, 11, "cell")
            sketch.pixels(left + 82, y, 100, 11, embed_signed(sign * shares**0.5, 1.0), smooth=True,
                          opacity=opacity)
            sketch.text(left + 188, y + 10, until, "muted")
            y, end = y + LINE, max(end, left + 188 + text_width(until))
    return y, end
