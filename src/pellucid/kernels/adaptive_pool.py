"""Adaptive average pooling: each axis is divided into a given number of parts, and each part gives its mean.

Part i of an axis of n in `parts` parts covers floor(i n / parts) up to ceil((i + 1) n / parts): neighbours may overlap
by one position. The parts that cover an input position follow by the same formula with n and `parts` exchanged.
"""

from __future__ import annotations

import halide as hl

from .machine import Machine, Program, blocked, kernel, variables
from .pool import schedule, within


def span(i, n, parts):
    """(first, one past the last) position of part i of an axis of n."""
    return i * n / parts, ((i + 1) * n + parts - 1) / parts


@kernel("adaptive_avg_pool", False)
@kernel("adaptive_avg_pool_grad", True)
def adaptive_avg_pool(machine: Machine, gradient: bool) -> Program:
    """y = the mean of x over each part, summed in float64; or dx = the sum of dy / (positions of its part) over the
    parts that cover a position.

    An output axis of `columns` (or `rows`) positions has spans of at most `most_x` (`most_y`) in the input's `width`
    (`height`).
    """
    x = blocked("dy" if gradient else "x")
    names = ("columns", "rows", "width", "height", "most_x", "most_y")
    scalars = columns, rows, width, height, most_x, most_y = [hl.Param(hl.Int(32), name) for name in names]
    c, X, Y, b, n = variables("c x y b n")

    # The algorithm.
    def along(i, tap, parts, size):
        """(position under a tap of part i, whether the part has so many, positions that the mean is taken over)."""
        first, end = span(i, size, parts)
        position = first + tap
        below = span(position, parts, size)  # of what x is the gradient to
        return position, position < end, (below[1] - below[0] if gradient else end - first)

    r = hl.RDom([(0, most_x), (0, most_y)], "r")
    column, in_row, across = along(X, r.x, columns, width)
    row, in_column, down = along(Y, r.y, rows, height)
    value = hl.cast(hl.Float(64), x[c, within(column, x.dim(1)), within(row, x.dim(2)), b, n])
    share = value / hl.cast(hl.Float(64), across * down) if gradient else value
    total, out = hl.Func("total"), hl.Func("dx" if gradient else "y")
    total[c, X, Y, b, n] = hl.f64(0)
    total[c, X, Y, b, n] += hl.select(in_row & in_column, share, hl.f64(0))
    whole = total[c, X, Y, b, n]
    if not gradient:
        (left, right), (top, bottom) = span(X, width, columns), span(Y, height, rows)
        whole = whole / hl.cast(hl.Float(64), (right - left) * (bottom - top))
    out[c, X, Y, b, n] = hl.cast(hl.Float(32), whole)

    # The schedule.
    schedule(machine, out, total, r, most_x * most_y)
    return Program([out], [x, *scalars])
