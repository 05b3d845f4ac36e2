"""Gradient of a convolution to its filters, from blocked activations.

The sum over a strip of an image, small enough for the L1 cache, stays in registers and is added to memory once a
strip: a plain reduction runs at a seventh of the speed.
"""

import halide as hl

from .conv import operands
from .machine import LANES_OF_BLOCK as BLOCK
from .machine import Machine, Program, blocked, kernel, pin, variables


def tile(machine: Machine, inner: int | None) -> int:
    """Input channels in the register tile. An image's runs of taps are short and often three long."""
    return machine.half() if inner else 3


def conv_grad_weight(machine: Machine, inner: int | None) -> Program:
    """dw(k, c, i, j, cb, kb) = sum of dy(k, x, y, kb, n) x(c, sx x + dx i, sy y + dy j, first(kb) + cb, n)."""
    tc = tile(machine, inner)
    x, dy = operands("x", inner), blocked("dy")
    first = hl.ImageParam(hl.Int(32), 1, "first")
    sx, sy, dil_x, dil_y = (hl.Param(hl.Int(32), n) for n in ("stride_x", "stride_y", "dilation_x", "dilation_y"))
    k, c, i, j, cb, kb, n, strip = variables("k c i j cb kb n strip")
    out = hl.Func("dw")
    bands = hl.Param(hl.Int(32), "bands")  # input blocks to a band: the extent of cb
    rows = hl.Param(hl.Int(32), "rows")  # of dy in a strip

    # The algorithm.
    height = dy.dim(2).extent()
    r = hl.RDom([(0, dy.dim(1).extent()), (0, rows)], "r")
    r.where(strip * rows + r.y < height)
    y = hl.min(strip * rows + r.y, hl.max(height - 1, 0))  # what the condition says, for Halide's bounds
    rn = hl.RDom([(0, (height + rows - 1) / rows), (0, dy.dim(4).extent())], "rn")
    part, total = hl.Func("part"), hl.Func("total")
    band = hl.clamp(first[kb], 0, x.dim(3).max() - (bands - 1)) if inner else 0
    part[k, c, i, j, cb, kb, strip, n] = 0.0
    part[k, c, i, j, cb, kb, strip, n] += dy[k, r.x, y, kb, n] * x[
        c, sx * r.x + dil_x * i, sy * y + dil_y * j, band + cb, n
    ]
    total[k, c, i, j, cb, kb] = 0.0
    total[k, c, i, j, cb, kb] += part[k, c, i, j, cb, kb, rn.x, rn.y]
    out[k, c, i, j, cb, kb] = total[k, c, i, j, cb, kb]

    # The schedule. One task a pair of channel blocks; the batch inside it, so the order of the sum is fixed.
    co, task = variables("co task")
    out.vectorize(k, BLOCK).reorder(k, c, i, j, cb, kb).fuse(cb, kb, task).parallel(task)
    total.compute_at(out, task).vectorize(k)
    (total.update().split(c, co, c, tc, hl.TailStrategy.GuardWithIf)
        .reorder(k, c, i, j, co, cb, kb, rn.x, rn.y).vectorize(k).unroll(c))
    part.compute_at(total, i).bound_extent(c, tc).vectorize(k).unroll(c)
    part.update().reorder(k, c, r.x, r.y).vectorize(k).unroll(c)
    for stride in (1, 2):
        out.specialize(sx == stride)

    o = pin(out.output_buffer())
    o.dim(1).set_min(0).set_stride(BLOCK)
    if inner:
        o.dim(1).set_extent(inner)
    for p in (dy, x):
        for d in (1, 2, 3, 4):
            if p is dy or d > 2:
                p.dim(d).set_min(0)
    for d in (2, 3, 4, 5):
        o.dim(d).set_min(0)
    first.dim(0).set_min(0)
    return Program([out], [x, dy, first, bands, rows, sx, sy, dil_x, dil_y])


kernel("conv_grad_weight", BLOCK)(conv_grad_weight)
kernel("conv_image_grad_weight", None)(conv_grad_weight)
