"""Activations and their gradients, and softmax over the channels.

Forward kernels read x and write y; gradients read x (ReLU: y) and dy and write dx. Every gradient is dy times
something finite, so zeros in the spare lanes of dy stay zeros.
"""

from __future__ import annotations

import halide as hl

from .machine import LANES_OF_BLOCK as BLOCK
from .machine import Machine, Program, blocked, kernel, pin, variables
from .pointwise import exp, f32, normal, over_rows, sigmoid, sigmoid_slope, strict, tanh, tanh_slope, tree

POSITION_VECTORS = 256  # blocks one parallel task of a softmax writes: three passes over each, two with an exponential


def gelu(x):
    """x P(Z <= x)."""
    tail, _ = normal(x)
    return x * hl.select(x < f32(0), tail, f32(1) - tail)


def gelu_slope(x):
    """P(Z <= x) + x density(x)."""
    tail, density = normal(x)
    return hl.select(x < f32(0), tail, f32(1) - tail) + x * density


def silu_slope(x):
    """s + x s (1 - s)."""
    return sigmoid(x) + x * sigmoid_slope(x)


def pointwise(output: str, formula, names: list[str], scalars: list, fused: bool = False) -> Program:
    """`output` = formula(inputs..., scalars...), number by number; `fused`, it may round otherwise and lose NaN."""
    inputs = [blocked(name) for name in names]
    order = variables("c x y b n")
    out = hl.Func(output)

    # The algorithm.
    value = formula(*[i[order] for i in inputs], *scalars)
    out[order] = value if fused else strict(value)

    # The schedule.
    columns = pin(out.output_buffer()).dim(1).extent()
    over_rows(out.bound(order[0], 0, BLOCK), order, columns)
    return Program([out], [*inputs, *scalars])


@kernel("relu")
def relu(machine: Machine) -> Program:
    return pointwise("y", lambda x: hl.select(x < f32(0), f32(0), x), ["x"], [])


@kernel("relu_grad")
def relu_grad(machine: Machine) -> Program:
    """From the output y: the input need not be kept. The derivative at 0 is 0."""
    return pointwise("dx", lambda y, dy: hl.select(y > f32(0), dy, f32(0)), ["y", "dy"], [])


@kernel("leaky_relu")
def leaky_relu(machine: Machine) -> Program:
    slope = hl.Param(hl.Float(32), "slope")
    return pointwise("y", lambda x, slope: hl.select(x < f32(0), slope * x, x), ["x"], [slope])


@kernel("clip")
def clip(machine: Machine) -> Program:
    low, high = (hl.Param(hl.Float(32), name) for name in ("low", "high"))
    return pointwise("y", lambda x, low, high: hl.select(x < low, low, x > high, high, x), ["x"], [low, high])


@kernel("clip_grad")
def clip_grad(machine: Machine) -> Program:
    low, high = (hl.Param(hl.Float(32), name) for name in ("low", "high"))
    return pointwise("dx", lambda x, dy, low, high: hl.select((x < low) | (x > high), f32(0), dy), ["x", "dy"],
                     [low, high])


@kernel("leaky_relu_grad")
def leaky_relu_grad(machine: Machine) -> Program:
    """From the input x, as a slope may be negative. The derivative at 0 is the slope."""
    slope = hl.Param(hl.Float(32), "slope")
    return pointwise("dx", lambda x, dy, slope: hl.select(x > f32(0), dy, slope * dy), ["x", "dy"], [slope])


@kernel("sigmoid", sigmoid)
@kernel("hyperbolic_tangent", tanh)  # `tanh` is a name of the C library
@kernel("silu", lambda x: x * sigmoid(x))
@kernel("gelu", gelu, True)
def smooth(machine: Machine, function, fused: bool = False) -> Program:
    return pointwise("y", function, ["x"], [], fused)


@kernel("sigmoid_grad", sigmoid_slope)
@kernel("hyperbolic_tangent_grad", tanh_slope)
@kernel("silu_grad", silu_slope)
@kernel("gelu_grad", gelu_slope, True)
def smooth_grad(machine: Machine, slope, fused: bool = False) -> Program:
    """From the input x: the derivative in terms of y loses its digits where y is close to its limit."""
    return pointwise("dx", lambda x, dy: dy * slope(x), ["x", "dy"], [], fused)


@kernel("scaled_tanh")
def scaled_tanh(machine: Machine) -> Program:
    return pointwise("y", lambda x, amplitude, slope: amplitude * tanh(slope * x), ["x"], scalars_of_tanh())


@kernel("scaled_tanh_grad")
def scaled_tanh_grad(machine: Machine) -> Program:
    """From the input x."""

    def formula(x, dy, amplitude, slope):
        return dy * (amplitude * slope * tanh_slope(slope * x))

    return pointwise("dx", formula, ["x", "dy"], scalars_of_tanh())


def scalars_of_tanh() -> list[hl.Param]:
    return [hl.Param(hl.Float(32), name) for name in ("amplitude", "slope")]


def over_channels(operation, start, term, name: str, blocks, at: list[hl.Var]) -> tuple[hl.Func, list[hl.Func]]:
    """A Func of `at` that combines term(c, b, *at) over all channels, in a fixed order; and the Funcs to schedule.

    The lanes of a block are combined across blocks first, then with each other.
    """
    c = hl.Var("c")
    r = hl.RDom([(0, blocks)], name + "_blocks")
    lanes, whole = hl.Func(name + "_lanes"), hl.Func(name)
    lanes[c, *at] = start
    lanes[c, *at] = operation(lanes[c, *at], strict(term(c, r.x, *at)))
    whole[at] = tree(operation, [lanes[lane, *at] for lane in range(BLOCK)])
    lanes.bound(c, 0, BLOCK).vectorize(c)
    lanes.update().reorder(c, r.x).vectorize(c)
    return whole, [lanes, whole]


@kernel("softmax")
def softmax(machine: Machine) -> Program:
    """y = exp(x) / sum of exp(x) over the channels at each position; spare lanes 0."""
    x = blocked("x")
    count = hl.Param(hl.Int(32), "channels")
    order = c, X, Y, b, n = variables("c x y b n")
    blocks, at = (count + (BLOCK - 1)) / BLOCK, [X, Y, n]

    # The algorithm. Shifting by the largest value changes nothing and keeps exp from overflowing; a NaN that the
    # maximum passes over reaches the total.
    def exists(c, b):
        return b * BLOCK + c < count

    lowest = hl.Float(32).min()
    peak, peak_stages = over_channels(
        hl.max, lowest, lambda c, b, X, Y, n: hl.select(exists(c, b), x[c, X, Y, b, n], lowest), "peak", blocks, at)

    def shifted(c, b, X, Y, n):
        return hl.select(exists(c, b), exp(x[c, X, Y, b, n] - peak[X, Y, n]), f32(0))

    total, total_stages = over_channels(lambda p, q: p + q, f32(0), shifted, "total", blocks, at)
    y = hl.Func("y")
    y[order] = strict(shifted(c, b, X, Y, n) / total[X, Y, n])

    # The schedule.
    by_position(y, order, [*peak_stages, *total_stages])
    return Program([y], [x, count])


@kernel("softmax_grad")
def softmax_grad(machine: Machine) -> Program:
    """dx = y (dy - sum over the channels of y dy); spare lanes 0."""
    y, dy = blocked("y"), blocked("dy")
    count = hl.Param(hl.Int(32), "channels")
    order = c, X, Y, b, n = variables("c x y b n")
    blocks, at = (count + (BLOCK - 1)) / BLOCK, [X, Y, n]

    # The algorithm.
    def product(c, b, X, Y, n):
        return hl.select(b * BLOCK + c < count, y[c, X, Y, b, n] * dy[c, X, Y, b, n], f32(0))

    mean, stages = over_channels(lambda p, q: p + q, f32(0), product, "mean", blocks, at)
    dx = hl.Func("dx")
    value = y[order] * (dy[order] - mean[X, Y, n])
    dx[order] = strict(hl.select(b * BLOCK + c < count, value, f32(0)))

    # The schedule.
    by_position(dx, order, stages)
    return Program([dx], [y, dy, count])


def by_position(out: hl.Func, order: list[hl.Var], stages: list[hl.Func]) -> None:
    """The loops of a softmax: at each position the reductions over the channels, then all its blocks."""
    c, x, y, b, n = order
    t, task = hl.Var("t"), hl.Var("task")
    buffer = pin(out.output_buffer())
    vectors = buffer.dim(1).extent() * buffer.dim(3).extent()
    rows = hl.max(POSITION_VECTORS / hl.max(vectors, 1), 1)
    (out.bound(c, 0, BLOCK).reorder(c, b, x, y, n).vectorize(c).fuse(y, n, t)
        .split(t, task, t, rows, hl.TailStrategy.GuardWithIf).parallel(task))
    for stage in stages:
        stage.compute_at(out, x)
