"""Batch normalisation, forward and backward, and sums over a channel.

Every sum over images and positions is made in float64, in the same order for any number of threads: groups of
IMAGES images are summed in parallel, then their sums one after another.
"""

from __future__ import annotations

import operator

import halide as hl

from .machine import LANES_OF_BLOCK, Machine, Program, blocked, channels, kernel, pin, variables

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
    values = hl.max(positions(out.output_buffer()), 1)
    (out.bound(c, 0, LANES_OF_BLOCK).vectorize(c, machine.lanes).unroll(c).fuse(b, n, t)
        .split(t, task, t, hl.max(VALUES_OF_TASK // values, 1), hl.TailStrategy.GuardWithIf).parallel(task))
    for f in coefficients:
        f.compute_at(out, t).bound_extent(f.args()[0], LANES_OF_BLOCK).vectorize(f.args()[0], machine.lanes)
    pin(out.output_buffer())
    return out


def deviation(var, eps):
    return hl.sqrt(f64(var) + f64(eps))


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


@kernel("batch_norm")
def batch_norm(machine: Machine) -> Program:
    """y = (x - mean) / sqrt(var + eps) * weight + bias."""
    x = blocked("x")
    mean, var, weight, bias = (channels(name) for name in ("mean", "var", "weight", "bias"))
    eps = hl.Param(hl.Float(32), "eps")
    c, X, Y, b, n = variables("c x y b n")
    scale, y = hl.Func("scale"), hl.Func("y")
    scale[c, b] = f32(f64(weight[c, b]) / deviation(var[c, b], eps))
    y[c, X, Y, b, n] = (x[c, X, Y, b, n] - mean[c, b]) * scale[c, b] + bias[c, b]
    return Program([per_value(machine, y, scale)], [x, mean, var, weight, bias, eps])


@kernel("batch_norm_sums")
def batch_norm_sums(machine: Machine) -> Program:
    """dweight = sum of dy * (x - mean) / sqrt(var + eps); dbias = sum of dy."""
    x, dy = blocked("x"), blocked("dy")
    mean, var = channels("mean"), channels("var")
    eps = hl.Param(hl.Float(32), "eps")
    c, b = variables("c b")

    def terms(c, *at):
        b = at[2]
        return [f64(dy[c, *at]) * (f64(x[c, *at]) - f64(mean[c, b])), f64(dy[c, *at])]

    with_x, alone = sums(machine, dy, terms, c, b)
    dweight, dbias = hl.Func("dweight"), hl.Func("dbias")
    dweight[c, b] = f32(with_x / deviation(var[c, b], eps))
    dbias[c, b] = f32(alone)
    return Program([per_channel(machine, dweight), per_channel(machine, dbias)], [x, dy, mean, var, eps])


@kernel("batch_norm_grad")
def batch_norm_grad(machine: Machine) -> Program:
    """dx = weight / s * (dy - mean of dy - z * mean of dy z), where s = sqrt(var + eps) and z = (x - mean) / s.

    The means over the batch come from dbias and dweight, the sums of dy and dy z.
    """
    x, dy = blocked("x"), blocked("dy")
    mean, var, weight, dweight, dbias = (channels(name) for name in ("mean", "var", "weight", "dweight", "dbias"))
    eps = hl.Param(hl.Float(32), "eps")
    c, X, Y, b, n = variables("c x y b n")
    scale, common, slope, dx = (hl.Func(name) for name in ("scale", "common", "slope", "dx"))
    scale[c, b] = f32(f64(weight[c, b]) / deviation(var[c, b], eps))
    common[c, b] = f32(f64(dbias[c, b]) / count(x))
    slope[c, b] = f32(f64(dweight[c, b]) / (count(x) * deviation(var[c, b], eps)))
    at = (c, X, Y, b, n)
    dx[at] = scale[c, b] * (dy[at] - common[c, b] - (x[at] - mean[c, b]) * slope[c, b])
    arguments = [x, dy, mean, var, weight, dweight, dbias, eps]
    return Program([per_value(machine, dx, scale, common, slope)], arguments)


@kernel("batch_norm_inference_grad")
def batch_norm_inference_grad(machine: Machine) -> Program:
    """dx = dy * weight / sqrt(var + eps): the statistics are constants."""
    dy = blocked("dy")
    var, weight = channels("var"), channels("weight")
    eps = hl.Param(hl.Float(32), "eps")
    c, X, Y, b, n = variables("c x y b n")
    scale, dx = hl.Func("scale"), hl.Func("dx")
    scale[c, b] = f32(f64(weight[c, b]) / deviation(var[c, b], eps))
    dx[c, X, Y, b, n] = dy[c, X, Y, b, n] * scale[c, b]
    return Program([per_value(machine, dx, scale)], [dy, var, weight, eps])
