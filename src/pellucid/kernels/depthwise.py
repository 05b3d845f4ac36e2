"""Depthwise convolution: one filter a channel. (Howard et al., "MobileNets", 2017.)"""

import halide as hl

from .machine import LANES_OF_BLOCK as BLOCK
from .machine import Machine, Program, blocked, channels, kernel, pin, variables
from .pointwise import rectified

ROWS_OF_TASK = 8  # rows of a block of outputs that a task of the forward pass computes


def taps(name: str):
    """Filters (c, i, j, b): column i, row j."""
    p = pin(hl.ImageParam(hl.Float(32), 4, name))
    for d in (1, 2, 3):
        p.dim(d).set_min(0)
    return p


def scalars() -> list:
    return [hl.Param(hl.Int(32), n) for n in ("stride_x", "stride_y", "dilation_x", "dilation_y")]


@kernel("depthwise")
def depthwise(machine: Machine) -> Program:
    """y(c, x, y, b, n) = act(sum of w(c, i, j, b) x(c, sx x + dx i, sy y + dy j, b, n) + bias(c, b) + residual)."""
    x, w, bias, residual = blocked("x"), taps("w"), channels("bias"), blocked("residual")
    sx, sy, dx, dy = steps = scalars()
    relu = hl.Param(hl.Int(32), "relu")
    c, X, Y, b, n = variables("c X Y b n")

    # The algorithm.
    r = hl.RDom([(0, w.dim(1).extent()), (0, w.dim(2).extent())], "r")
    acc, out = hl.Func("acc"), hl.Func("y")
    acc[c, X, Y, b, n] = 0.0
    acc[c, X, Y, b, n] += w[c, r.x, r.y, b] * x[c, sx * X + dx * r.x, sy * Y + dy * r.y, b, n]
    total = acc[c, X, Y, b, n] + bias[c, b] + residual[c, X, Y, b, n]
    out[c, X, Y, b, n] = rectified(total, relu)

    # The schedule.
    yo, task = variables("yo task")
    (out.bound(c, 0, BLOCK).split(Y, yo, Y, ROWS_OF_TASK, hl.TailStrategy.GuardWithIf).reorder(c, X, Y, yo, b, n)
        .vectorize(c, BLOCK).fuse(yo, b, task).fuse(task, n, task).parallel(task))
    acc.compute_at(out, X).bound_extent(c, BLOCK).vectorize(c, BLOCK)
    acc.update().reorder(c, r.x, r.y).vectorize(c, BLOCK)
    square = (w.dim(1).extent() == 3) & (w.dim(2).extent() == 3) & (dx == 1)
    for stride in (1, 2):
        out.specialize(square & (sx == stride))
    pin(out.output_buffer())
    bias.dim(1).set_min(0)
    return Program([out], [x, w, bias, residual, *steps, relu])


@kernel("depthwise_grad_weight")
def depthwise_grad_weight(machine: Machine) -> Program:
    """dw(c, i, j, b) = sum of dy(c, x, y, b, n) x(c, sx x + dx i, sy y + dy j, b, n): images in parallel, then added
    in order."""
    x, dy = blocked("x"), blocked("dy")
    sx, sy, dil_x, dil_y = steps = scalars()
    c, i, j, b, n = variables("c i j b n")

    # The algorithm.
    r = hl.RDom([(0, dy.dim(1).extent()), (0, dy.dim(2).extent())], "r")
    rn = hl.RDom([(0, dy.dim(4).extent())], "rn")
    part, dw = hl.Func("part"), hl.Func("dw")
    part[c, i, j, b, n] = 0.0
    part[c, i, j, b, n] += dy[c, r.x, r.y, b, n] * x[c, sx * r.x + dil_x * i, sy * r.y + dil_y * j, b, n]
    dw[c, i, j, b] = 0.0
    dw[c, i, j, b] += part[c, i, j, b, rn.x]

    # The schedule.
    task, io = variables("task io")
    part.compute_root().bound_extent(c, BLOCK).vectorize(c, BLOCK)
    (part.update().split(i, io, i, 3, hl.TailStrategy.GuardWithIf).reorder(c, i, r.x, r.y, io, j, b, n)
        .vectorize(c, BLOCK).unroll(i).fuse(b, n, task).parallel(task))
    dw.bound(c, 0, BLOCK).vectorize(c, BLOCK)
    dw.update().reorder(c, rn.x, i, j, b).vectorize(c, BLOCK).parallel(b)
    out = pin(dw.output_buffer())
    for p, dims in ((x, (3, 4)), (dy, (1, 2, 3, 4)), (out, (1, 2, 3))):
        for d in dims:
            p.dim(d).set_min(0)
    return Program([dw], [x, dy, *steps])


@kernel("pack_taps")
def pack_taps(machine: Machine) -> Program:
    """w(c, i, j, b) from PyTorch's filters (i, j, channel) times `scale` of the channel, zero past the last channel."""
    w, scale = hl.ImageParam(hl.Float(32), 3, "w"), channels("scale")
    w.dim(0).set_stride(hl.Expr())  # any: flipped filters run backwards
    for d in range(3):
        w.dim(d).set_min(0)
    c, i, j, b = variables("c i j b")
    packed, channel, count = hl.Func("packed"), b * BLOCK + c, w.dim(2).extent()
    packed[c, i, j, b] = hl.select(channel < count, w[i, j, hl.min(channel, count - 1)] * scale[c, b], 0.0)
    packed.bound(c, 0, BLOCK).vectorize(c, BLOCK).parallel(b)
    pin(packed.output_buffer())
    return Program([packed], [w, scale])


@kernel("unpack_taps")
def unpack_taps(machine: Machine) -> Program:
    """PyTorch's layout from packed filters: the inverse of `pack_taps`, for gradients."""
    packed = taps("packed")
    i, j, channel = variables("i j channel")
    dw = hl.Func("dw")
    dw[i, j, channel] = packed[channel % BLOCK, i, j, channel / BLOCK]
    return Program([dw], [packed])
