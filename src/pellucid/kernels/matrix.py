"""1x1 convolution as a matrix product: positions, of all rows and images in one run, times channels."""

import halide as hl

from .conv import packed_filters
from .machine import LANES_OF_BLOCK as BLOCK
from .machine import Machine, Program, blocked, channels, kernel, pin, places, variables
from .pointwise import rectified

GUARD = hl.TailStrategy.GuardWithIf


def conv_matrix(machine: Machine, columns: int) -> Program:
    """y(k, x, y, kb, n) = act(bias(k, kb) + sum of w(k, c, cb, kb) x(c, stride_x x, stride_y y, cb, n) + residual).

    A task copies `rows` rows of `images` images side by side and multiplies them by `out_blocks` blocks of filters.
    Positions are numbered t = x + width (y + height n), so a register tile does not end with a row.
    """
    vectors = machine.pair
    x, bias, residual, w = blocked("x"), channels("bias"), blocked("residual"), packed_filters("w", BLOCK)
    width, height, stride_x, stride_y, rows, images, out_blocks, relu = scalars = [hl.Param(hl.Int(32), n) for n in (
        "width", "height", "stride_x", "stride_y", "rows", "images", "out_blocks", "relu")]
    c, k, q, v, group, cb, kb, pair, n, X, Y = variables("c k q v group cb kb pair n X Y")

    # The algorithm. q counts the positions of a register tile and v its blocks of output channels.
    t = group * columns + q
    V, acc, M, out = hl.Func("V"), hl.Func("acc"), hl.Func("M"), hl.Func("y")
    at, column, row, image = places(t, (q, group), width, height, x)
    V[c, q, cb, group] = x[c, stride_x * column, stride_y * row, cb, image]
    r = hl.RDom([(0, BLOCK), (0, w.dim(4).extent())], "r")
    acc[k, v, q, group, pair] = 0.0
    acc[k, v, q, group, pair] += (
        w[k, r.x, 0, 0, r.y, hl.min(pair * vectors + v, w.dim(5).max())] * V[r.x, q, r.y, group])
    M[k, v, q, group, pair] = acc[k, v, q, group, pair]
    here = X + width * (Y + height * n)
    total = M[k, kb % vectors, here % columns, here / columns, kb / vectors] + bias[k, kb] + residual[k, X, Y, kb, n]
    out[k, X, Y, kb, n] = rectified(total, relu)

    # The schedule.
    ki, y_task, k_task, n_task, task = variables("ki y_task k_task n_task task")
    (out.bound(k, 0, BLOCK).split(Y, y_task, Y, rows, GUARD).split(n, n_task, n, images, GUARD)
        .split(kb, k_task, kb, out_blocks, GUARD).split(kb, kb, ki, vectors, GUARD)
        .reorder(k, X, Y, n, ki, kb, k_task, y_task, n_task).vectorize(k, BLOCK)
        .fuse(k_task, y_task, task).fuse(task, n_task, task).parallel(task))
    M.compute_at(out, kb).bound_extent(k, BLOCK).bound_extent(v, vectors).bound_extent(q, columns)
    M.reorder(k, v, q, group, pair).vectorize(k, BLOCK).unroll(v).unroll(q)
    acc.compute_at(M, group).bound_extent(k, BLOCK).bound_extent(v, vectors).vectorize(k, BLOCK).unroll(v).unroll(q)
    acc.update().reorder(k, v, q, r.x, r.y).vectorize(k, BLOCK).unroll(v).unroll(q).unroll(r.x, 4)
    at.compute_at(out, task).bound_extent(q, columns)
    (V.compute_at(out, task).bound_extent(c, BLOCK).bound_extent(q, columns).reorder_storage(c, q, cb, group)
        .reorder(c, q, cb, group).vectorize(c, BLOCK).unroll(q))

    y = pin(out.output_buffer())
    for p, dims in ((x, (3, 4)), (residual, (1, 2, 3, 4)), (y, (1, 2, 3, 4)), (w, (2, 3, 4, 5)), (bias, (1,))):
        for d in dims:
            p.dim(d).set_min(0)
    return Program([out], [x, w, bias, residual, *scalars])


# Columns of a register tile: as many as fit in the registers, for each instruction set one number.
for _columns, _fits in ((2, lambda m: m.registers < 8 * m.vectors), (12, lambda m: m.registers >= 32 * m.vectors),
                        (6, lambda m: 8 * m.vectors <= m.registers < 32 * m.vectors)):
    kernel(f"conv_matrix_{_columns}", _columns, when=_fits)(conv_matrix)
