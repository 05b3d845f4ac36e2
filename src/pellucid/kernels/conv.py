"""Direct convolution of blocked activations.

The gradient to the input is a forward convolution with flipped filters (`geometry.Window.transposed`), and a
dense layer is a convolution whose image row is the batch, so these programs are all the multiply-adds there are.

Groups: a block of 16 output channels reads a band of input blocks that begins at `first(kb)`; filters outside
the group are zero. Without groups every band begins at 0 and spans all blocks. A zero filter does not hide an
infinity, since inf * 0 is NaN: it reaches the other channels of its block.
"""

import halide as hl

from .machine import LANES_OF_BLOCK as BLOCK
from .machine import Machine, Program, blocked, channels, kernel, pin, variables
from .pointwise import rectified

# Columns of the output held in registers. The engine picks the one that wastes least on a layer's width.
TILES = (1, 2, 3, 4, 5, 6, 8, 14)


def fits(machine: Machine, columns: int) -> bool:
    """Whether the accumulators, one row of filters and a broadcast value fit in the registers."""
    vectors = machine.vectors * machine.pair
    return (columns + 1) * vectors + 1 <= machine.registers


def operands(name: str, inner: int | None):
    """An activation (c, x, y, b, n): 16 channels a block, or an image row whose (c, x) taps are one run."""
    p = hl.ImageParam(hl.Float(32), 5, name)
    if inner:
        pin(p).dim(1).set_stride(inner)
    else:
        p.dim(0).set_min(0).set_stride(1)
    return p


def packed_filters(name: str, inner: int | None):
    """Filters (k, c, i, j, cb, kb), packed so that offsets in the innermost loops are constants."""
    p = pin(hl.ImageParam(hl.Float(32), 6, name))
    p.dim(1).set_min(0).set_stride(BLOCK)
    if inner:
        p.dim(1).set_extent(inner)
    return p


def conv(machine: Machine, columns: int, inner: int | None) -> Program:
    """y(k, x, y, kb, n) = act(sum of w(k, c, i, j, cb, kb) x(c, sx x + dx i, sy y + dy j, first(kb) + cb, n)
    + bias(k, kb) + residual(k, x, y, kb, n)).

    `inner` is 16 for blocked inputs; None for the image itself, whose rows hold all (channel, column) pairs of a
    window in one run of any length.
    """
    tk = machine.pair
    x, w = operands("x", inner), packed_filters("w", inner)
    bias, residual = channels("bias"), blocked("residual")
    first = hl.ImageParam(hl.Int(32), 1, "first")
    scalars = [hl.Param(hl.Int(32), n) for n in ("stride_x", "stride_y", "dilation_x", "dilation_y", "rows", "relu")]
    sx, sy, dx, dy, rows, relu = scalars
    k, q, X, Y, kb, n = variables("k q X Y kb n")

    # The algorithm. q counts the tk blocks of output channels in the register tile.
    taps = (w.dim(2).extent(), w.dim(3).extent(), w.dim(4).extent())
    r = hl.RDom([(0, inner or w.dim(1).extent()), (0, taps[0]), (0, taps[1]), (0, taps[2])], "r")
    acc, out = hl.Func("acc"), hl.Func("y")
    block = hl.min(kb * tk + q, w.dim(5).max())
    band = hl.clamp(first[block], 0, x.dim(3).max() - (taps[2] - 1)) if inner else 0
    acc[k, q, X, Y, kb, n] = 0.0
    acc[k, q, X, Y, kb, n] += w[k, r[0], r[1], r[2], r[3], block] * x[
        r[0], sx * X + dx * r[1], sy * Y + dy * r[2], band + r[3], n
    ]
    total = acc[k, kb % tk, X, Y, kb // tk, n] + bias[k, kb] + residual[k, X, Y, kb, n]
    out[k, X, Y, kb, n] = rectified(total, relu)

    # The schedule: tk x columns accumulators live in registers across the whole reduction; one task `rows` rows of an
    # image and a tile of output channels.
    xo, yo, ko, ki, task = variables("xo yo ko ki task")
    (out.split(kb, ko, ki, tk, hl.TailStrategy.GuardWithIf)
        .split(X, xo, X, columns, hl.TailStrategy.ShiftInwards).split(Y, yo, Y, rows, hl.TailStrategy.GuardWithIf)
        .reorder(k, X, ki, xo, Y, ko, yo, n).vectorize(k, BLOCK).unroll(X).unroll(ki)
        .fuse(ko, yo, task).fuse(task, n, task).parallel(task))
    acc.compute_at(out, xo).bound_extent(q, tk).vectorize(k).unroll(q).unroll(X)
    acc.update().reorder(k, q, X, r[0], r[1], r[2], r[3], Y, kb, n).vectorize(k).unroll(q).unroll(X)
    # The stride of the hot loop becomes a constant. The gradient to an input has stride 1.
    for stride in (1, 2):
        out.specialize(sx == stride)

    pin(out.output_buffer())
    for p in (bias, first):
        p.dim(0).set_min(0)
    w.dim(5).set_min(0)
    for d in (2, 3, 4):
        w.dim(d).set_min(0)
    return Program([out], [x, w, bias, residual, first, *scalars])


for _columns in TILES:
    kernel(f"conv_{_columns}", _columns, BLOCK, when=lambda m, c=_columns: c == 1 or fits(m, c))(conv)
    kernel(f"conv_image_{_columns}", _columns, None, when=lambda m, c=_columns: c == 1 or fits(m, c))(conv)
