"""Winograd's transforms for F(4x4, 3x3), the most by which they enlarge a value, and how they are scheduled."""

import halide as hl

from .machine import Machine, variables
from .pointwise import f32

# The identity's polynomials are evaluated at 0, P, -P, Q, -Q and infinity. Of pairs of small fractions these are among
# those that leave the smallest error (`benchmarks/accuracy.py`: a quarter of that of 1 and 2, the usual ones), and
# P Q = 1 saves a product. A SHARE is the product of a point's differences to the others.
P, Q = 2 / 3, 3 / 2
P_SHARE, Q_SHARE = 2 * P**2 * (P**2 - Q**2), 2 * Q**2 * (Q**2 - P**2)


def input_transform(d):
    """B' d for six values."""
    e, o, f, g = d[4] - d[2] * f32(Q**2), d[3] - d[1] * f32(Q**2), d[4] - d[2] * f32(P**2), d[3] - d[1] * f32(P**2)
    o, g, s = o * f32(P), g * f32(Q), f32(P**2 + Q**2)
    return [d[0] - d[2] * s + d[4], e + o, e - o, f + g, f - g, d[1] - d[3] * s + d[5]]


def output_transform(m):
    """A' m for six values."""
    s, d, t, e = m[1] + m[2], m[1] - m[2], m[3] + m[4], m[3] - m[4]
    return [m[0] + s + t, d * f32(P) + e * f32(Q), s * f32(P**2) + t * f32(Q**2), d * f32(P**3) + e * f32(Q**3) + m[5]]


def gradient_transform(d):
    """A d for four values."""
    s, a, t, e = (d[0] + d[2] * f32(P**2), d[1] * f32(P) + d[3] * f32(P**3),
                  d[0] + d[2] * f32(Q**2), d[1] * f32(Q) + d[3] * f32(Q**3))
    return [d[0], s + a, s - a, t + e, t - e, d[3]]


def filter_transform(g):
    """G g for three values."""
    s, a = g[0] * f32(1 / P_SHARE) + g[2] * f32(P**2 / P_SHARE), g[1] * f32(P / P_SHARE)
    t, e = g[0] * f32(1 / Q_SHARE) + g[2] * f32(Q**2 / Q_SHARE), g[1] * f32(Q / Q_SHARE)
    return [g[0], s + a, s - a, t + e, t - e, g[2]]


def filter_gradient(u):
    """G' u for six values."""
    s, d, t, e = (u[1] + u[2]) * f32(1 / P_SHARE), u[1] - u[2], (u[3] + u[4]) * f32(1 / Q_SHARE), u[3] - u[4]
    return [u[0] + s + t, d * f32(P / P_SHARE) + e * f32(Q / Q_SHARE), s * f32(P**2) + t * f32(Q**2) + u[5]]


# The most by which the transforms enlarge a value: each row's sum of absolute coefficients.
INPUT_GAINS = 2 + P**2 + Q**2, (1 + P) * (1 + Q**2), (1 + Q) * (1 + P**2)
GRADIENT_GAINS = 1.0, (1 + P) * (1 + P**2), (1 + Q) * (1 + Q**2)
FILTER_GAINS = 1.0, (1 + P + P**2) / -P_SHARE, (1 + Q + Q**2) / Q_SHARE


def gains(rows: tuple[float, float, float]) -> list[float]:
    """Of both passes, for each of the 36 points."""
    zero, p, q = rows
    six = zero, p, p, q, q, zero
    return [a * b for a in six for b in six]


def transformed(name: str, transform, read, size: int, width: int, *at):
    """(rows' pass, both passes) of a 2-D transform from `size` x `size` values to `width` x `width`.

    They are functions of (*at, column, row) and of (*at, row * width + column). `read(column, row)` is the value at a
    place of the tile, in terms of the variables `at`.
    """
    i, j, point = variables("i j point")
    rows, whole = hl.Func(name + "_rows"), hl.Func(name)
    rows[(*at, i, j)] = hl.mux(j, [hl.mux(i, transform([read(a, b) for a in range(size)])) for b in range(size)])
    whole[(*at, point)] = hl.mux(point / width, transform([rows[(*at, point % width, b)] for b in range(size)]))
    return rows, whole


def through_maximum(dy, index, c, column, row, b, n, before: int):
    """read(a, b) of `transformed` for the gradient to a map of which the largest of each 2x2 was taken.

    dy is the gradient to what was taken and `index` says, row by row, which of the four it was: there it passes to, and
    the others are zero. The tile begins `before`, 0 or 1, positions before that at four times column and row.
    """

    def read(i, j):
        at = c, 2 * column + (i + before) // 2, 2 * row + (j + before) // 2, b, n
        place = (i + before) % 2 + 2 * ((j + before) % 2)
        return hl.select(hl.cast(hl.Int(32), index[at]) == place, dy[at], 0.0)

    return read


def by_register(stage: hl.Func, machine: Machine, *unrolled: hl.Var, numbers: int = 1) -> hl.Var:
    """A tile's transform, unrolled: one register of channels after another, so that its values fit in the registers.
    The stage holds so many `numbers` for each channel.

    Returns the variable that counts the registers of a block, just outside the unrolled loops.
    """
    lane, register, within = stage.args()[0], hl.Var("register"), hl.Var("within")
    stage.split(lane, register, within, numbers * machine.lanes).reorder(within, *unrolled, register).vectorize(within)
    for v in unrolled:
        stage.unroll(v)
    return register


def a_register(stage: hl.Func, machine: Machine, consumer: hl.Func, at: hl.Var, registers: int = 1) -> None:
    """The first pass of a transform: for the registers of channels that the second is at."""
    lane, *others, i, j = stage.args()
    stage.compute_at(consumer, at).bound_extent(lane, registers * machine.lanes).vectorize(lane, machine.lanes)
    stage.reorder(i, j, lane, *others).unroll(i).unroll(j)


def shares(rows: tuple[float, float, float], point):
    """One over the gains at a point."""
    return hl.mux(point, [f32(1 / gain) for gain in gains(rows)])
