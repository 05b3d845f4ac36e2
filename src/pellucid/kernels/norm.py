"""Batch normalisation, forward and backward, with what follows it in the same pass; and sums over a channel.

A following ReLU is not kept: whether it let a value pass is computed again from x. Nor is the map before a following
2x2 pooling: the place of each maximum is, as a byte.

Every sum over images and positions is made in float64, in the same order for any number of threads: groups of
IMAGES images are summed in parallel, then their sums one after another.
"""

from __future__ import annotations

import operator

import halide as hl

from .machine import LANES_OF_BLOCK, Machine, Program, blocked, channels, kernel, pin, variables
from .pointwise import rectified
from .pool import largest_of

IMAGES = 8  # summed by one task; part of the order of summation, so never derived from the threads
VALUES_OF_TASK = 4096  # a parallel task handles at least about this many vectors


def f64(value):
    return hl.cast(hl.Float(64), value)


def f32(value):
    return hl.cast(hl.Float(32), value)


def positions(x):
    """Positions of a map."""
    return x.dim(1).extent() * x.dim(2).extent()


def count(x):
    """Values a channel has, in float64."""
    return f64(positions(x)) * f64(x.dim(4).extent())


def first(x, c, b):
    """A channel's first value."""
    return x[c, x.dim(1).min(), x.dim(2).min(), b, x.dim(4).min()]


def elements(f: hl.Func, *at) -> list:
    """The values of a function at a point."""
    return [f[at]] if f.outputs() == 1 else [f[at][i] for i in range(f.outputs())]


def sums(machine: Machine, x, values, c, b) -> list:
    """For each float64 term of `values(c, x, y, b, n)`, its sum over a channel of a map like `x`."""
    group, t, task = variables("group t task")
    like = [x.dim(d) for d in range(5)]
    r = hl.RDom([(like[1].min(), like[1].extent()), (like[2].min(), like[2].extent()), (0, IMAGES)], "r")
    rg = hl.RDom([(0, (like[4].extent() + IMAGES - 1) // IMAGES)], "rg")
    n = like[4].min() + group * IMAGES + r.z
    r.where(n <= like[4].max())
    n = hl.min(n, hl.max(like[4].max(), like[4].min()))  # what the condition says, for Halide's bounds; holds for N = 0

    # The algorithm.
    part, total = hl.Func("part"), hl.Func("total")
    terms = values(c, r.x, r.y, b, n)
    zeros = tuple(hl.f64(0) for _ in terms)
    part[c, b, group], total[c, b] = zeros, zeros
    part[c, b, group] = tuple(map(operator.add, elements(part, c, b, group), terms))
    total[c, b] = tuple(map(operator.add, elements(total, c, b), elements(part, c, b, rg.x)))

    # The schedule.
    lanes = max(machine.lanes // 2, 2)  # float64 values in a register
    tasks = hl.max(VALUES_OF_TASK // hl.max(positions(x) * IMAGES, 1), 1)
    part.compute_root().bound_extent(c, LANES_OF_BLOCK).vectorize(c, lanes).unroll(c)
    (part.update().reorder(c, r.x, r.y, r.z, b, group).vectorize(c, lanes).unroll(c).fuse(b, group, t)
        .split(t, task, t, tasks, hl.TailStrategy.GuardWithIf).parallel(task))
    total.compute_root().bound_extent(c, LANES_OF_BLOCK).vectorize(c, lanes).unroll(c)
    total.update().reorder(c, rg.x, b).vectorize(c, lanes).unroll(c)
    return elements(total, c, b)


def per_channel(machine: Machine, out: hl.Func) -> hl.Func:
    """The schedule of a vector of channels (c, b): too short to share out."""
    out.bound(out.args()[0], 0, LANES_OF_BLOCK).vectorize(out.args()[0], machine.lanes)
    pin(out.output_buffer())
    return out


def per_value(machine: Machine, out: hl.Func, *coefficients: hl.Func) -> hl.Func:
    """The schedule of a map: tasks of some blocks of some images, the coefficients of a block computed once."""
    c, _, y, b, n = out.args()
    t, task = variables("t task")
    buffer, *others = out.output_buffers()
    values = hl.max(positions(buffer), 1)
    (out.bound(c, 0, LANES_OF_BLOCK).vectorize(c, machine.lanes).unroll(c).fuse(b, n, t)
        .split(t, task, t, hl.max(VALUES_OF_TASK // values, 1), hl.TailStrategy.GuardWithIf).parallel(task))
    for f in coefficients:
        f.compute_at(out, t).bound_extent(f.args()[0], LANES_OF_BLOCK).vectorize(f.args()[0], machine.lanes)
    pin(buffer)
    for other in others:  # outputs of one function share their bounds; only the first may fix them
        other.dim(0).set_stride(1)
    return out


@kernel("channel_sum")
def channel_sum(machine: Machine) -> Program:
    """dbias = the sum of dy over images and positions: a bias's gradient."""
    dy = blocked("dy")
    c, b = variables("c b")
    dbias = hl.Func("dbias")
    dbias[c, b] = f32(sums(machine, dy, lambda *at: [f64(dy[at])], c, b)[0])
    return Program([per_channel(machine, dbias)], [dy])


@kernel("batch_moments")
def batch_moments(machine: Machine) -> Program:
    """mean, var = a channel's mean and (biased) variance.

    One pass in float64, over differences from the channel's first value: products of float32 numbers are exact there,
    and a mean that is large against the deviation cancels nothing.
    """
    x = blocked("x")
    c, b = variables("c b")

    def terms(c, X, Y, b, n):
        d = f64(x[c, X, Y, b, n]) - f64(first(x, c, b))
        return [d, d * d]

    total, squares = sums(machine, x, terms, c, b)
    shifted = total / count(x)
    mean, var = hl.Func("mean"), hl.Func("var")
    mean[c, b] = f32(f64(first(x, c, b)) + shifted)
    variance = squares / count(x) - shifted * shifted
    var[c, b] = f32(hl.select(hl.strict_float(variance < 0), hl.f64(0), variance))  # not max: NaN stays NaN
    return Program([per_channel(machine, mean), per_channel(machine, var)], [x])


@kernel("batch_norm_running")
def batch_norm_running(machine: Machine) -> Program:
    """running = (1 - momentum) old + momentum new, where the new variance is `unbiased` times the batch's.

    In place: `old_mean`, `old_var` may be the buffers of `running_mean`, `running_var`.
    """
    mean, var, old_mean, old_var = (channels(name) for name in ("mean", "var", "old_mean", "old_var"))
    momentum, unbiased = (hl.Param(hl.Float(32), name) for name in ("momentum", "unbiased"))
    c, b = variables("c b")
    running_mean, running_var = hl.Func("running_mean"), hl.Func("running_var")
    running_mean[c, b] = (1 - momentum) * old_mean[c, b] + momentum * mean[c, b]
    running_var[c, b] = (1 - momentum) * old_var[c, b] + momentum * (unbiased * var[c, b])
    outputs = [per_channel(machine, running_mean), per_channel(machine, running_var)]
    return Program(outputs, [mean, var, old_mean, old_var, momentum, unbiased])


@kernel("batch_norm_scale")
def batch_norm_scale(machine: Machine) -> Program:
    """inverse = 1 / sqrt(var + eps); scale = weight * inverse."""
    var, weight, eps = channels("var"), channels("weight"), hl.Param(hl.Float(32), "eps")
    c, b = variables("c b")
    inverse, scale = hl.Func("inverse"), hl.Func("scale")
    deviation = hl.sqrt(f64(var[c, b]) + f64(eps))
    inverse[c, b] = f32(hl.f64(1) / deviation)
    scale[c, b] = f32(f64(weight[c, b]) / deviation)
    return Program([per_channel(machine, inverse), per_channel(machine, scale)], [var, weight, eps])


@kernel("batch_norm_shift")
def batch_norm_shift(machine: Machine) -> Program:
    """shift = bias + (before - mean) * scale: the bias of a convolution with bias `before` whose filters are multiplied
    by `scale`, which is that convolution and the normalisation after it."""
    mean, scale, bias, before = (channels(name) for name in ("mean", "scale", "bias", "before"))
    c, b = variables("c b")
    shift = hl.Func("shift")
    shift[c, b] = bias[c, b] + (before[c, b] - mean[c, b]) * scale[c, b]
    return Program([per_channel(machine, shift)], [mean, scale, bias, before])


def normal(x, mean, scale, bias, c, X, Y, b, n):
    """The normalised value at a place."""
    return (x[c, X, Y, b, n] - mean[c, b]) * scale[c, b] + bias[c, b]


@kernel("batch_norm")
def batch_norm(machine: Machine) -> Program:
    """y = act((x - mean) * scale + bias + residual)."""
    x, residual = blocked("x"), blocked("residual")
    mean, scale, bias = (channels(name) for name in ("mean", "scale", "bias"))
    relu = hl.Param(hl.Int(32), "relu")
    at = variables("c x y b n")
    y = hl.Func("y")
    value = normal(x, mean, scale, bias, *at) + residual[at]
    y[at] = rectified(value, relu)
    return Program([per_value(machine, y)], [x, mean, scale, bias, residual, relu])


@kernel("batch_norm_pool")
def batch_norm_pool(machine: Machine) -> Program:
    """y.0 = act(the largest of 2x2 normalised values); y.1 = which held it, row by row (the first, of equals)."""
    x = blocked("x")
    mean, scale, bias = (channels(name) for name in ("mean", "scale", "bias"))
    relu = hl.Param(hl.Int(32), "relu")
    c, X, Y, b, n = variables("c x y b n")
    values = [normal(x, mean, scale, bias, c, 2 * X + tap % 2, 2 * Y + tap // 2, b, n) for tap in range(4)]
    largest, place = largest_of(values)
    y = hl.Func("y")
    y[c, X, Y, b, n] = (rectified(largest, relu), place)
    return Program([per_value(machine, y)], [x, mean, scale, bias, relu])


class Incoming:
    """The gradient that reaches a normalisation's output: as it comes, through ReLU, or through 2x2 pooling too."""

    def __init__(self, after: str, x, mean, scale):
        self.after, self.x, self.mean, self.scale = after, x, mean, scale
        self.dy, self.bias = blocked("dy"), channels("bias")
        self.index, self.y, self.relu = blocked("index", hl.UInt(8)), blocked("y"), hl.Param(hl.Int(32), "relu")

    @property
    def arguments(self) -> list:
        return {"": [self.dy], "relu": [self.dy, self.bias], "pool": [self.dy, self.index, self.y, self.relu]}[
            self.after]

    def at(self, c, X, Y, b, n):
        if self.after == "pool":
            # A last odd row or column lies under no window.
            cell = c, hl.min(X / 2, self.dy.dim(1).max()), hl.min(Y / 2, self.dy.dim(2).max()), b, n
            under = (X / 2 <= self.dy.dim(1).max()) & (Y / 2 <= self.dy.dim(2).max())
            held = hl.cast(hl.Int(32), self.index[cell]) == X % 2 + 2 * (Y % 2)
            return hl.select(under & held & ((self.relu == 0) | (self.y[cell] > 0.0)), self.dy[cell], hl.f32(0))
        if self.after == "relu":
            passed = normal(self.x, self.mean, self.scale, self.bias, c, X, Y, b, n) > 0.0
            return hl.select(passed, self.dy[c, X, Y, b, n], hl.f32(0))
        return self.dy[c, X, Y, b, n]


@kernel("batch_norm_sums", "")
@kernel("batch_norm_relu_sums", "relu")
@kernel("batch_norm_pool_sums", "pool")
def batch_norm_sums(machine: Machine, after: str) -> Program:
    """dweight = sum of dz * (x - mean) * inverse; dbias = sum of dz, where dz is the gradient to the normalised map."""
    x = blocked("x")
    mean, inverse, scale = (channels(name) for name in ("mean", "inverse", "scale"))
    dz = Incoming(after, x, mean, scale)
    c, b = variables("c b")

    def terms(c, *at):
        d = f64(dz.at(c, *at))
        return [d * (f64(x[c, *at]) - f64(mean[c, at[2]])), d]

    with_x, alone = sums(machine, x, terms, c, b)
    dweight, dbias = hl.Func("dweight"), hl.Func("dbias")
    dweight[c, b] = f32(with_x * f64(inverse[c, b]))
    dbias[c, b] = f32(alone)
    arguments = [x, mean, inverse, *([scale] if after == "relu" else []), *dz.arguments]
    return Program([per_channel(machine, dweight), per_channel(machine, dbias)], arguments)


@kernel("batch_norm_grad", "")
@kernel("batch_norm_relu_grad", "relu")
@kernel("batch_norm_pool_grad", "pool")
def batch_norm_grad(machine: Machine, after: str) -> Program:
    """dx = scale * (dz - mean of dz - z * mean of dz z), where z = (x - mean) * inverse.

    The means over the batch come from dbias and dweight, the sums of dz and dz z.
    """
    x = blocked("x")
    mean, inverse, scale, dweight, dbias = (channels(n) for n in ("mean", "inverse", "scale", "dweight", "dbias"))
    dz = Incoming(after, x, mean, scale)
    c, X, Y, b, n = variables("c x y b n")
    common, slope, dx = (hl.Func(name) for name in ("common", "slope", "dx"))
    common[c, b] = f32(f64(dbias[c, b]) / count(x))
    slope[c, b] = f32(f64(dweight[c, b]) * f64(inverse[c, b]) / count(x))
    at = (c, X, Y, b, n)
    dx[at] = scale[c, b] * (dz.at(*at) - common[c, b] - (x[at] - mean[c, b]) * slope[c, b])
    arguments = [x, mean, inverse, scale, dweight, dbias, *dz.arguments]
    return Program([per_value(machine, dx, common, slope)], arguments)


@kernel("batch_norm_inference_grad")
def batch_norm_inference_grad(machine: Machine) -> Program:
    """dx = dy * scale: the statistics are constants."""
    dy, scale = blocked("dy"), channels("scale")
    c, X, Y, b, n = variables("c x y b n")
    dx = hl.Func("dx")
    dx[c, X, Y, b, n] = dy[c, X, Y, b, n] * scale[c, b]
    return Program([per_value(machine, dx)], [dy, scale])
