"""Named points: what something gives against what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, log10

import numpy as np

from .arrays import numbers
from .axes import Axis, frame, left_of, spanned
from .curves import colour
from .svg import LINE, SERIES, Picture, Sketch

WIDTH, HEIGHT = 310, 260  # of a panel, in pixels
LEFT, RIGHT, TOP, BOTTOM = 68, 16, 34, 46  # its margins


@dataclass(frozen=True)
class Panel:
    """One scatter plot; each list has a number a name. `x` is above zero, for a logarithmic axis."""

    title: str
    x_label: str
    x: Sequence[float]
    y: Sequence[float]
    spread: Sequence[float]


def scatter(names: Sequence[str], panels: Sequence[Panel], y_label: str, y_percent: bool = True) -> Picture:
    """Panels side by side with a point a name; a legend stands below. `spread` is a line above and below a point.

    Raises ValueError for no names, no panels, lists of other lengths, numbers that are missing or infinite, and x that
    are not above zero.
    """
    if not names or not panels:
        raise ValueError("a scatter plot needs at least one name and one panel")
    for p in panels:
        if not len(names) == len(p.x) == len(p.y) == len(p.spread):
            raise ValueError(f"{p.title}: expected {len(names)} numbers for x, y and spread, got {len(p.x)}, "
                             f"{len(p.y)} and {len(p.spread)}")
        for which in ("x", "y", "spread"):
            numbers(f"{p.title}: {which}", getattr(p, which), 1, missing=False)
        if min(p.x) <= 0:
            raise ValueError(f"{p.title}: x must be above zero on a logarithmic axis, got {min(p.x)}")
    ends = np.array([y + side * s for p in panels for y, s in zip(p.y, p.spread, strict=True) for side in (-1, 1)])
    high = max(1.0, ends.max()) if y_percent else None
    y = spanned(ends.min(), ends.max(), HEIGHT - BOTTOM, TOP, most=high, as_percent=y_percent)
    shift = max(left_of(y.ticks()) - LEFT, 0)  # where the axis' texts are wide
    sketch = Sketch()
    for i, p in enumerate(panels):
        _panel(sketch, names, p, i * WIDTH + shift, y, "" if i else y_label)
    for i, name in enumerate(names):
        below = HEIGHT + 14 + 18 * i
        _point(sketch, LEFT + shift, below - 4, i)
        sketch.text(LEFT + shift + 12, below, name, room=WIDTH * len(panels) - LEFT - 12 - RIGHT)
    return sketch.picture(WIDTH * len(panels) + shift, HEIGHT + 18 * len(names) + 6,
                          f"{y_label} against {', '.join(p.title for p in panels)} of {', '.join(map(str, names))}")


def _panel(sketch: Sketch, names: Sequence[str], p: Panel, left: float, y: Axis, y_label: str) -> None:
    first, last = floor(log10(min(p.x)) - 0.05), ceil(log10(max(p.x)) + 0.05)
    x = Axis(10.0**first, 10.0**last, left + LEFT, left + WIDTH - RIGHT, log=True)
    frame(sketch, x, y, p.x_label, y_label, ticks=(7, 6))
    sketch.text((x.start + x.end) / 2, TOP - LINE, p.title, "strong", anchor="middle", room=x.end - x.start + 30)
    for i, (name, value, height, spread) in enumerate(zip(names, p.x, p.y, p.spread, strict=True)):
        at = x(value)
        if spread:
            sketch.line(at, y(height + spread), at, y(height - spread))
        _point(sketch, at, y(height), i, name)


def _point(sketch: Sketch, x: float, y: float, i: int, tip: str = "") -> None:
    """The i-th name's: a disc, or a ring where the colours begin again."""
    kind = colour(i)
    sketch.circle(x, y, 5, kind, tip=tip)
    if i // len(SERIES) % 2:
        sketch.circle(x, y, 2.5, "paper")
