"""Pooling: the maximum or the mean of each window, and the gradients to the input.

Sizes, strides and padding are run-time scalars, so one kernel serves every pool; the usual sizes are
specialised within it. Windows whose taps are not neighbours, and means that leave out padding, have kernels of their
own from the same programs. The gradients gather: each input position asks the windows that cover it, in order, so
nothing is added concurrently and every run gives the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass

import halide as hl

from .machine import LANES_OF_BLOCK, Machine, Program, blocked, kernel, pin, variables

USUAL = [(2, 2, 0), (3, 2, 0), (3, 2, 1)]  # square windows that deserve loops of their own: size, stride, padding
BYTE, WIDE = hl.UInt(8), hl.Int(32)  # types of the place of a maximum: windows of up to 256 taps, and larger ones
TAPS_OF_TASK = 4096  # a parallel task reads about this many vectors, or one image's block if that is more


@dataclass(frozen=True)
class Axis:
    """The window along one axis and its arithmetic. Its numbers are run-time scalars, or constants."""

    size: hl.Param | int
    stride: hl.Param | int
    before: hl.Param | int
    dilation: hl.Param | int = 1

    @classmethod
    def parameters(cls, name: str, dilated: bool = False) -> Axis:
        """Run-time scalars `size_x`, `stride_x`, `before_x`, and `dilation_x` if it is not 1."""
        fields = ("size", "stride", "before", *(("dilation",) if dilated else ()))
        return cls(*(hl.Param(hl.Int(32), f"{field}_{name}") for field in fields))

    @property
    def dilated(self) -> bool:
        return not isinstance(self.dilation, int)

    @property
    def reach(self):
        """Positions from the first tap to the last, both counted."""
        return self.dilation * (self.size - 1) + 1 if self.dilated else self.size

    def start(self, position):
        """Input index under the first tap; negative inside the padding."""
        return position * self.stride - self.before

    @property
    def covering(self):
        """The most windows that can cover one input position."""
        return (self.reach + self.stride - 1) // self.stride

    def ends(self, position, least, most):
        """Numbers of the first and last tap that lie between two input indices."""
        start = self.start(position)
        first = hl.max((least - start + self.dilation - 1) // self.dilation, 0)
        return first, hl.min((most - start) // self.dilation, self.size - 1)

    def nearest(self, position, number, dimension):
        """(number, input index) of the tap that lies in a dimension and is nearest to tap `number`."""
        if not self.dilated:
            index = within(self.start(position) + number, dimension)
            return index - self.start(position), index
        number = hl.clamp(number, *self.ends(position, dimension.min(), dimension.max()))
        return number, within(self.start(position) + number * self.dilation, dimension)  # it is: this is for Halide

    def tap(self, input_index, position):
        """(whether an input lies under the window at or after its first tap, the number of its tap)."""
        offset = input_index - self.start(position)
        if not self.dilated:
            return offset < self.size, offset
        return (offset < self.reach) & (offset % self.dilation == 0), offset // self.dilation

    def window(self, position, number):
        """The output position of window `number` (0, 1, ... in order) of those that may cover an input position."""
        return (position + self.before) // self.stride - (self.covering - 1) + number

    def is_(self, other: Axis):
        """Whether two windows are the same."""
        return (self.size == other.size) & (self.stride == other.stride) & (self.before == other.before)


def axes(dilated: bool = False) -> tuple[Axis, Axis, list]:
    """Both axes, and their scalars as a call gives them."""
    x, y = Axis.parameters("x", dilated), Axis.parameters("y", dilated)
    return x, y, [x.size, y.size, x.stride, y.stride, x.before, y.before, *([x.dilation, y.dilation] * dilated)]


def squares(x: Axis, y: Axis) -> list:
    """Whether a window is 2x2; whether it is 3x3."""
    return [(x.size == k) & (y.size == k) for k in (2, 3)]


def within(index, dimension):
    """An index, or the nearest end of the dimension if it lies outside."""
    return hl.clamp(index, dimension.min(), dimension.max())


def inside(index, dimension):
    """Whether an index lies in the dimension."""
    return (index >= dimension.min()) & (index <= dimension.max())


def schedule(machine: Machine, out: hl.Func, total: hl.Func, r: hl.RDom, taps, unrolled=()) -> None:
    """One task some blocks of some images; a position's reduction stays in registers.

    `taps` is the length of the reduction. Where a condition of `unrolled` holds, that length is known and its loops
    are unrolled.
    """
    c, x, _, b, n = out.args()
    buffer = out.output_buffers()[0]
    t, task = variables("t task")
    work = hl.max(buffer.dim(1).extent() * buffer.dim(2).extent() * taps, 1)
    (out.bound(c, 0, LANES_OF_BLOCK).vectorize(c, machine.lanes).unroll(c).fuse(b, n, t)
        .split(t, task, t, hl.max(TAPS_OF_TASK // work, 1), hl.TailStrategy.GuardWithIf).parallel(task))
    total.compute_at(out, x).bound_extent(c, LANES_OF_BLOCK).vectorize(c, machine.lanes).unroll(c)
    update = total.update()
    update.vectorize(c, machine.lanes).unroll(c).reorder(c, r.x, r.y)
    for condition in unrolled:
        update.specialize(condition).unroll(r.x).unroll(r.y)
    # Outputs of one function share their bounds; only the first may fix them.
    pin(buffer)
    for other in out.output_buffers()[1:]:
        other.dim(0).set_stride(1)


@kernel("max_pool", BYTE)
@kernel("max_pool_wide", WIDE)
@kernel("max_pool_dilated", WIDE, True)
def max_pool(machine: Machine, index_type: hl.Type, dilated: bool = False) -> Program:
    """y.0 = the largest value under the window; y.1 = which tap held it, counted row by row (the first, of equals).

    NaN beats every number.
    """
    x = blocked("x")
    c, X, Y, b, n = variables("c x y b n")
    ax, ay, scalars = axes(dilated)

    # The algorithm. A tap in the padding reads the nearest tap that is in the image, and counts as that one: it lies
    # under the window too (the padding is smaller than the window), so maximum and first place stay the same.
    r = hl.RDom([(0, ax.size), (0, ay.size)], "r")

    def tap(i, j):
        """(number, value) of the tap in column i, row j of the window."""
        (i, column), (j, row) = ax.nearest(X, i, x.dim(1)), ay.nearest(Y, j, x.dim(2))
        return j * ax.size + i, x[c, column, row, b, n]

    # The place stands before the value: Halide 21 writes a tuple's elements in turn, and the place is decided by
    # comparing with the value before.
    best = hl.Func("best")
    best[c, X, Y, b, n] = (tap(0, 0)[0], -hl.f32(float("inf")))
    number, value = tap(r.x, r.y)
    place, largest = best[c, X, Y, b, n][0], best[c, X, Y, b, n][1]
    wins = beats(value, largest)
    best[c, X, Y, b, n] = (hl.select(wins, number, place), hl.select(wins, value, largest))
    y = hl.Func("y")
    y[c, X, Y, b, n] = (largest, hl.cast(index_type, place))

    # The schedule.
    usual = () if index_type == WIDE else squares(ax, ay)
    schedule(machine, y, best, r, ax.size * ay.size, usual)
    return Program([y], [x, *scalars])


def beats(value, largest):
    """Whether a value replaces the largest one so far. Comparisons are exact: NaN is kept."""
    return hl.strict_float(value > largest) | hl.is_nan(value)


def largest_of(values: list):
    """(largest, its number as a byte; the first, of equals) of a few values."""
    largest, place = values[0], hl.u8(0)
    for number, value in enumerate(values[1:], 1):
        wins = beats(value, largest)
        largest, place = hl.select(wins, value, largest), hl.select(wins, hl.u8(number), place)
    return largest, place


@kernel("max_pool_inference")
@kernel("max_pool_dilated_inference", True)
def max_pool_inference(machine: Machine, dilated: bool = False) -> Program:
    """y = the largest value under the window; its place is not kept."""
    x = blocked("x")
    c, X, Y, b, n = variables("c x y b n")
    ax, ay, scalars = axes(dilated)

    # The algorithm, as above.
    r = hl.RDom([(0, ax.size), (0, ay.size)], "r")
    largest, y = hl.Func("largest"), hl.Func("y")
    value = x[c, ax.nearest(X, r.x, x.dim(1))[1], ay.nearest(Y, r.y, x.dim(2))[1], b, n]
    largest[c, X, Y, b, n] = -hl.f32(float("inf"))
    largest[c, X, Y, b, n] = hl.select(beats(value, largest[c, X, Y, b, n]), value, largest[c, X, Y, b, n])
    y[c, X, Y, b, n] = largest[c, X, Y, b, n]

    # The schedule.
    schedule(machine, y, largest, r, ax.size * ay.size, squares(ax, ay))
    return Program([y], [x, *scalars])


def gather(machine: Machine, dy, share, scale, usual=USUAL, along=None) -> Program:
    """dx = scale * sum, over the windows that cover an input position, of their share of dy.

    `share(tap, c, column, row, b, n)` is what the window at an output position passes to the input under its tap
    number `tap`; a `tap` of -1 says that the window does not cover the position. `along` is what `axes` gives.
    """
    c, X, Y, b, n = variables("c x y b n")
    ax, ay, scalars = along or axes()

    # The algorithm.
    def from_window(ax: Axis, ay: Axis, i, j):
        """The share of window (i, j) of those that may cover (X, Y)."""
        column, row = ax.window(X, i), ay.window(Y, j)
        (under_x, tap_x), (under_y, tap_y) = ax.tap(X, column), ay.tap(Y, row)
        covers = inside(column, dy.dim(1)) & inside(row, dy.dim(2)) & under_x & under_y
        tap = hl.select(covers, tap_y * ax.size + tap_x, -1)
        return share(tap, c, within(column, dy.dim(1)), within(row, dy.dim(2)), b, n)

    r = hl.RDom([(0, ax.covering), (0, ay.covering)], "r")
    total, dx = hl.Func("total"), hl.Func("dx")
    total[c, X, Y, b, n] = hl.f32(0)
    total[c, X, Y, b, n] += from_window(ax, ay, r.x, r.y)
    value = scale(total[c, X, Y, b, n], ax.size * ay.size)
    # The usual windows once more, with their numbers as constants, which leaves little of the arithmetic above.
    conditions = []
    for numbers in usual:
        k = Axis(*numbers)
        one = hl.f32(0)
        for j in range(k.covering):
            for i in range(k.covering):
                one += from_window(k, k, i, j)
        conditions.append(ax.is_(k) & ay.is_(k))
        value = hl.select(conditions[-1], scale(one, k.size * k.size), value)
    dx[c, X, Y, b, n] = value

    # The schedule.
    schedule(machine, dx, total, r, ax.covering * ay.covering)
    for condition in conditions:
        xi = hl.Var("xi")
        dx.specialize(condition).split(X, X, xi, 2, hl.TailStrategy.GuardWithIf).reorder(c, xi, X).unroll(xi)
    return Program([dx], [dy, *scalars])


@kernel("max_pool_grad", BYTE)
@kernel("max_pool_wide_grad", WIDE)
@kernel("max_pool_dilated_grad", WIDE, True)
def max_pool_grad(machine: Machine, index_type: hl.Type, dilated: bool = False) -> Program:
    """dx = sum of dy over the windows whose maximum stood here (index: y.1 of max_pool).

    With `relu` the map x is that of a ReLU and dx the gradient to what stood before it: a maximum of 0 passes nothing.
    """
    dy, index, y, relu = blocked("dy"), blocked("index", index_type), blocked("y"), hl.Param(hl.Int(32), "relu")

    def share(tap, *at):
        passed = (relu == 0) | (y[at] > 0.0)
        return hl.select((hl.cast(hl.Int(32), index[at]) == tap) & passed, dy[at], hl.f32(0))

    program = gather(machine, dy, share, lambda total, taps: total, () if index_type == WIDE else USUAL,
                     axes(dilated))
    return Program(program.outputs, [index, y, relu, *program.arguments])


@kernel("avg_pool_grad")
def avg_pool_grad(machine: Machine) -> Program:
    """dx = sum of dy over the windows that cover this position / taps of a window."""
    dy = blocked("dy")
    return gather(machine, dy, lambda tap, *at: hl.select(tap >= 0, dy[at], hl.f32(0)), divided)


def divided(total, taps):
    """total / taps, rounded once: in float64, the product with the reciprocal is as good as the quotient."""
    return hl.cast(hl.Float(32), hl.cast(hl.Float(64), total) * (hl.f64(1) / hl.cast(hl.Float(64), taps)))


@kernel("avg_pool")
def avg_pool(machine: Machine) -> Program:
    """y = sum of the values under the window / its taps; padding counts as zeros. Summed in float64."""
    x = blocked("x")
    c, X, Y, b, n = variables("c x y b n")
    ax, ay, scalars = axes()

    # The algorithm.
    r = hl.RDom([(0, ax.size), (0, ay.size)], "r")
    column, row = ax.start(X) + r.x, ay.start(Y) + r.y
    value = x[c, within(column, x.dim(1)), within(row, x.dim(2)), b, n]
    covered = inside(column, x.dim(1)) & inside(row, x.dim(2))
    total, y = hl.Func("total"), hl.Func("y")
    total[c, X, Y, b, n] = hl.f64(0)
    total[c, X, Y, b, n] += hl.cast(hl.Float(64), hl.select(covered, value, hl.f32(0)))
    y[c, X, Y, b, n] = divided(total[c, X, Y, b, n], ax.size * ay.size)

    # The schedule.
    schedule(machine, y, total, r, ax.size * ay.size, squares(ax, ay))
    return Program([y], [x, *scalars])


class Counted:
    """Windows whose taps may lie apart, and which count their taps: all of them with `padding`, else those in the
    image of `width` and `height`."""

    def __init__(self):
        self.x, self.y, scalars = axes(dilated=True)
        self.padding, self.width, self.height = (hl.Param(hl.Int(32), name) for name in ("padding", "width", "height"))
        self.scalars = [*scalars, self.padding, self.width, self.height]

    def taps(self, column, row):
        """How many a window counts, by its position."""
        counts = [last - first + 1 for first, last in (self.x.ends(column, 0, self.width - 1),
                                                       self.y.ends(row, 0, self.height - 1))]
        return hl.select(self.padding != 0, self.x.size * self.y.size, counts[0] * counts[1])


@kernel("avg_pool_counted")
def avg_pool_counted(machine: Machine) -> Program:
    """y = sum of the values under the window / the taps it counts. Summed in float64."""
    x, of = blocked("x"), Counted()
    c, X, Y, b, n = variables("c x y b n")

    # The algorithm.
    r = hl.RDom([(0, of.x.size), (0, of.y.size)], "r")
    column, row = of.x.start(X) + r.x * of.x.dilation, of.y.start(Y) + r.y * of.y.dilation
    value = x[c, within(column, x.dim(1)), within(row, x.dim(2)), b, n]
    covered = inside(column, x.dim(1)) & inside(row, x.dim(2))
    total, y = hl.Func("total"), hl.Func("y")
    total[c, X, Y, b, n] = hl.f64(0)
    total[c, X, Y, b, n] += hl.cast(hl.Float(64), hl.select(covered, value, hl.f32(0)))
    y[c, X, Y, b, n] = divided(total[c, X, Y, b, n], of.taps(X, Y))

    # The schedule.
    schedule(machine, y, total, r, of.x.size * of.y.size)
    return Program([y], [x, *of.scalars])


@kernel("avg_pool_counted_grad")
def avg_pool_counted_grad(machine: Machine) -> Program:
    """dx = sum of dy / the taps its window counts, over the windows that cover this position."""
    dy, of = blocked("dy"), Counted()

    def share(tap, c, column, row, b, n):
        return hl.select(tap >= 0, divided(dy[c, column, row, b, n], of.taps(column, row)), hl.f32(0))

    return gather(machine, dy, share, lambda total, taps: total, (), (of.x, of.y, of.scalars))
