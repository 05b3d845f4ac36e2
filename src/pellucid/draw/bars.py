"""Bars: a number a name."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .arrays import numbers
from .images import MARGIN, finish, heading
from .svg import ABOVE, BELOW, Picture, Sketch, clean, number, shorten, text_width
from .svg import percent as as_percent

ROW, THICK, LENGTH, NAMES = 20, 13, 260, 200


def bars(names: Sequence[str], values, *, title: str = "", percent: bool = False) -> Picture:
    """Horizontal bars from zero, to the right and orange above it, to the left and blue below, with their numbers.

    A number that is missing (NaN) is a dash; `percent` writes shares as per cent. Raises ValueError for no names,
    another number of values, and infinite values.
    """
    names = [str(n) for n in names]
    if not names:
        raise ValueError("bars need at least one name")
    found = numbers("values", values, 1)
    if len(found) != len(names):
        raise ValueError(f"expected a value for each of {len(names)} names, got {len(found)}")
    texts = [as_percent(v) if percent else number(v) for v in found]
    there = found[~np.isnan(found)]
    low, high = there.min(initial=0.0), there.max(initial=0.0)
    room = max(text_width(t) for t in texts) + 6
    sketch = Sketch()
    top = heading(sketch, title)
    labels = max(text_width(shorten(clean(n), NAMES)) for n in names)
    per = LENGTH / ((high - low) or 1.0)
    zero = MARGIN + labels + 8 + (room if low < 0 else 0) - low * per
    for i, (name, value, text) in enumerate(zip(names, found, texts, strict=True)):
        y = top + i * ROW
        sketch.text(MARGIN + labels, y + 14, name, anchor="end", room=NAMES)
        end = zero if value != value else zero + value * per
        if value == value and value:
            sketch.rect(min(zero, end), y + (ROW - THICK) / 2, abs(end - zero), THICK,
                        fill=ABOVE if value > 0 else BELOW)
        sketch.text(end - 5 if value < 0 else end + 5, y + 14, text, "muted", anchor="end" if value < 0 else "start")
    sketch.line(zero, top, zero, top + len(names) * ROW)
    said = ", ".join(f"{clean(n)} {t}" for n, t in zip(names, texts, strict=True))
    return finish(sketch, zero + high * per + room - MARGIN, top + len(names) * ROW, title,
                  f"{title}: {said}" if title else said)
