"""How far probabilities can be believed: what was claimed against what came true."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .arrays import numbers
from .axes import Axis, frame
from .images import MARGIN, finish
from .svg import ABOVE, BELOW, LINE, Picture, Sketch, percent, text_width

SIDE, LEFT = 240, 64  # of the plot, and the room for its axis
COUNTS = 56  # height of the counts below it


def reliability(bins: Sequence[Sequence[float]]) -> Picture:
    """Accuracy against confidence, with the counts below: a calibrated classifier's points lie on the diagonal.

    `bins` are rows (low, high, count, confidence, accuracy): the images whose probability lies between low and high,
    how many they are, its mean, and the share of right answers; the last two are NaN where there are no images. A
    point's size is its count; a line shows how far it is from the diagonal, blue where the classifier claims too much,
    orange where too little. Raises ValueError for no bins, other rows, and numbers that are no shares.
    """
    rows = np.array([[np.nan if v is None else v for v in row] for row in bins], dtype=object)
    found = numbers("bins", rows, 2)
    if found.shape[1] != 5:
        raise ValueError("bins: expected rows of low, high, count, confidence and accuracy, got rows of "
                         f"{found.shape[1]} numbers")
    counts, shares = found[:, 2], found[:, [0, 1, 3, 4]]
    if np.isnan(found[:, :3]).any() or (counts < 0).any() or np.isnan(found[counts > 0]).any():
        raise ValueError("bins: low, high and a count from 0 on must be there, and confidence and accuracy where the "
                         "count is not 0")
    if np.nanmin(shares) < 0 or np.nanmax(shares) > 1 or (found[:, 0] >= found[:, 1]).any():
        raise ValueError("bins: low, high, confidence and accuracy are shares between 0 and 1, and low below high")
    top = MARGIN + 6.0
    x, y = Axis(0, 1, LEFT, LEFT + SIDE, as_percent=True), Axis(0, 1, top + SIDE, top, as_percent=True)
    sketch = Sketch()
    frame(sketch, x, y, "", "share of right answers", ticks=(5, 5))
    sketch.line(x(0), y(0), x(1), y(1), "rule", stroke_dasharray="4 3")
    most = counts.max() or 1.0
    below = top + SIDE + 24
    for low, high, count, confidence, accuracy in found:
        tip = f"{percent(low)} to {percent(high)}: {count:,.0f} images"
        height = COUNTS * count / most
        sketch.rect(x(low) + 0.5, below + COUNTS - height, max(x(high) - x(low) - 1, 1), height, "s0",
                    fill="currentColor", tip=tip)
        if not count:
            continue
        tip += f", {percent(confidence)} claimed, {percent(accuracy)} right"
        sketch.line(x(confidence), y(confidence), x(confidence), y(accuracy), "", stroke_width=3,
                    stroke=ABOVE if accuracy > confidence else BELOW)
        sketch.circle(x(confidence), y(accuracy), 2.5 + 4.5 * (count / most) ** 0.5, "s0", tip=tip)
    sketch.line(x(0), below + COUNTS, x(1), below + COUNTS)
    sketch.text(LEFT - 6, below + 10, f"{most:,.0f}", "muted", anchor="end")
    sketch.text(LEFT - 6, below + COUNTS, "0", "muted", anchor="end")
    sketch.text(14, below + COUNTS / 2, "images", anchor="middle", turned=True)
    sketch.text((x(0) + x(1)) / 2, below + COUNTS + LINE, "probability of the answer", anchor="middle")
    legend = ((BELOW, "claims more than comes true"), (ABOVE, "claims less than comes true"))
    for i, (colour, text) in enumerate(legend):
        line = below + COUNTS + LINE * (i + 2) + 4
        sketch.line(LEFT, line - 4, LEFT + 18, line - 4, "", stroke=colour, stroke_width=3)
        sketch.text(LEFT + 26, line, text, "muted")
    return finish(sketch, max(LEFT + SIDE + 12, LEFT + 26 + text_width(legend[0][1])) - MARGIN,
                  below + COUNTS + LINE * 3 + 4, "",
                  f"share of right answers against probability in {len(found)} bins of {counts.sum():,.0f} images")
