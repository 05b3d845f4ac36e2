"""A first layer and the 2x2 pooling after it in one pass: the map between them, often the largest, is never stored."""

import halide as hl

from .conv import operands, packed_filters
from .machine import LANES_OF_BLOCK as BLOCK
from .machine import Machine, Program, blocked, channels, kernel, pin, variables
from .pointwise import rectified
from .pool import largest_of


@kernel("conv_image_pool")
def conv_image_pool(machine: Machine) -> Program:
    """y.0(k, x, y, kb, n) = act(bias + the largest of 2x2 sums); y.1 = which it was, row by row (the first, of equals).

    The sums are those of `conv_image`: of w(k, c, 0, j, 0, kb) x(c, sx x, sy y + dy j, 0, n).
    """
    tk = machine.pair
    x, w, bias = operands("x", None), packed_filters("w", None), channels("bias")
    sx, sy, dy, relu = scalars = [hl.Param(hl.Int(32), n) for n in ("stride_x", "stride_y", "dilation_y", "relu")]
    k, q, X, Y, kb, n = variables("k q X Y kb n")

    # The algorithm. q counts the tk blocks of output channels in the register tile.
    r = hl.RDom([(0, w.dim(1).extent()), (0, w.dim(3).extent())], "r")
    acc, out = hl.Func("acc"), hl.Func("y")
    acc[k, q, X, Y, kb, n] = 0.0
    acc[k, q, X, Y, kb, n] += (
        w[k, r.x, 0, r.y, 0, hl.min(kb * tk + q, w.dim(5).max())] * x[r.x, sx * X, sy * Y + dy * r.y, 0, n])
    largest, place = largest_of([
        hl.Expr(acc[k, kb % tk, 2 * X + tap % 2, 2 * Y + tap // 2, kb // tk, n]) for tap in range(4)])
    out[k, X, Y, kb, n] = (rectified(largest + bias[k, kb], relu), place)

    # The schedule: the 2x2 sums of tk blocks live in registers.
    ko, ki, task = variables("ko ki task")
    (out.split(kb, ko, ki, tk, hl.TailStrategy.GuardWithIf).reorder(k, ki, X, Y, ko, n).vectorize(k, BLOCK)
        .unroll(ki).fuse(ko, n, task).parallel(task))
    acc.compute_at(out, X).bound_extent(q, tk).bound_extent(X, 2).bound_extent(Y, 2)
    acc.vectorize(k).unroll(q).unroll(X).unroll(Y)
    acc.update().reorder(k, q, X, Y, r.x, r.y, kb, n).vectorize(k).unroll(q).unroll(X).unroll(Y)
    out.specialize(sx == 1)

    y, index = out.output_buffers()
    pin(y)
    index.dim(0).set_stride(1)  # outputs of one function share their bounds; only the first may fix them
    bias.dim(1).set_min(0)
    for d in (2, 3, 4, 5):
        w.dim(d).set_min(0)
    return Program([out], [x, w, bias, *scalars])


@kernel("conv_image_pool_grad_weight")
def conv_image_pool_grad_weight(machine: Machine) -> Program:
    """dw(k, c, 0, j, 0, kb) = sum of dy(k, x, y, kb, n) x(c, sx x', sy y' + dy j, 0, n), where (x', y') is the place of
    the 2x2 that held the maximum: (2 x, 2 y) + index."""
    columns = 3  # taps in the register tile: a row of a 3x3 filter, or a colour's
    x, dy, index = operands("x", None), blocked("dy"), blocked("index", hl.UInt(8))
    sx, sy, dil_y = scalars = [hl.Param(hl.Int(32), n) for n in ("stride_x", "stride_y", "dilation_y")]
    k, c, i, j, cb, kb, n = variables("k c i j cb kb n")

    # The algorithm. The sum over one image stays in registers.
    r = hl.RDom([(0, dy.dim(1).extent()), (0, dy.dim(2).extent())], "r")
    rn = hl.RDom([(0, dy.dim(4).extent())], "rn")
    part, total, out = hl.Func("part"), hl.Func("total"), hl.Func("dw")
    part[k, c, j, kb, n] = hl.f32(0)
    value = hl.Expr(part[k, c, j, kb, n])
    for tap in range(4):
        passed = hl.select(index[k, r.x, r.y, kb, n] == hl.u8(tap), dy[k, r.x, r.y, kb, n], hl.f32(0))
        value = value + passed * x[c, sx * (2 * r.x + tap % 2), sy * (2 * r.y + tap // 2) + dil_y * j, 0, n]
    part[k, c, j, kb, n] = value
    total[k, c, j, kb] = 0.0
    total[k, c, j, kb] += part[k, c, j, kb, rn.x]
    out[k, c, i, j, cb, kb] = total[k, c, j, kb]

    # The schedule. One task a block of channels and a row of the filter; the batch inside it, so the order is fixed.
    co, task = variables("co task")
    out.vectorize(k, BLOCK).reorder(k, c, i, cb, j, kb).fuse(j, kb, task).parallel(task)
    total.compute_at(out, task).vectorize(k)
    (total.update().split(c, co, c, columns, hl.TailStrategy.GuardWithIf).reorder(k, c, co, j, kb, rn.x)
        .vectorize(k).unroll(c))
    part.compute_at(total, co).bound_extent(c, columns).vectorize(k).unroll(c)
    part.update().reorder(k, c, r.x, r.y).vectorize(k).unroll(c)
    out.specialize(sx == 1)

    o = pin(out.output_buffer())
    o.dim(1).set_min(0).set_stride(BLOCK)
    for p, dims in ((dy, (1, 2, 3, 4)), (x, (3, 4)), (o, (2, 3, 4, 5))):
        for d in dims:
            p.dim(d).set_min(0)
    return Program([out], [x, dy, index, *scalars])
