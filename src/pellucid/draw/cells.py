"""Grids of numbers in cells, the same in every picture that shows arithmetic."""

from __future__ import annotations

import numpy as np

from .arrays import shade
from .svg import TINTS, Sketch, number, text_width

LEAST = 30  # side of a cell with a number, in pixels


def side(*arrays: np.ndarray, least: float = LEAST) -> float:
    """The side of a cell that has room for every number of the arrays."""
    return max(least, *(10 + text_width(number(v)) for a in arrays for v in np.unique(a)))


def tint(owner: int) -> str:
    """The colour of a filter's weight, by its place in a channel of the filter."""
    return TINTS[owner % len(TINTS)]


def grid(sketch: Sketch, x: float, y: float, values: np.ndarray, cell: float, *, owner: np.ndarray | None = None,
         inside: np.ndarray | None = None, texts: np.ndarray | None = None, limit: float | None = None,
         tips: np.ndarray | None = None, bold: tuple[int, int] | None = None) -> None:
    """Values (H, W) in cells with their upper left corner at x, y.

    `owner` (H, W) tints a cell as the weight that it belongs to, -1 not; `inside` is False where a cell is padding,
    which is hollow. `texts` stand small above the numbers. With `limit` the other cells are shaded by their value. The
    number at `bold` is bold.
    """
    for (i, j), value in np.ndenumerate(values):
        left, top = x + j * cell, y + i * cell
        mine = -1 if owner is None else int(owner[i, j])
        padding = inside is not None and not inside[i, j]
        tip = "" if tips is None else str(tips[i, j])
        box = (left + 1, top + 1, cell - 2, cell - 2)
        if mine >= 0:
            sketch.rect(*box, fill=tint(mine), tip=tip)
        elif not padding:
            sketch.rect(*box, "cell", tip=tip)
            if limit is not None:
                sketch.rect(*box, **shade(value, limit))
        if padding:
            sketch.rect(left + 1.5, top + 1.5, cell - 3, cell - 3, "rule hollow")
        kind = "strong" if (i, j) == bold else "on" if mine >= 0 else "muted" if padding else ""
        if texts is not None:
            sketch.text(left + cell / 2, top + cell / 2 - 4, texts[i, j], kind, anchor="middle", size=9)
        drop = 4 if texts is None else 10
        sketch.text(left + cell / 2, top + cell / 2 + drop, number(value), kind, anchor="middle", tip=tip)


def mark(sketch: Sketch, x: float, y: float, width: float, height: float) -> None:
    """The frame around what is being looked at."""
    sketch.rect(x, y, width, height, "mark", rx=3)
