"""Where branches meet: the sum of two values, and channels put side by side, taken apart or reordered."""

from __future__ import annotations

import halide as hl

from .machine import LANES_OF_BLOCK as BLOCK
from .machine import Machine, Program, blocked, kernel, pin, variables
from .pointwise import f32, over_rows

ROWS_OF_TASK = 512  # columns that one parallel task of `concat_put` writes


@kernel("add")
def add(machine: Machine) -> Program:
    """y = a + b; y may be a or b."""
    first, second = blocked("a"), blocked("b")
    order = variables("c x y b n")
    y = hl.Func("y")

    # The algorithm.
    y[order] = first[order] + second[order]

    # The schedule.
    over_rows(y.bound(order[0], 0, BLOCK), order, pin(y.output_buffer()).dim(1).extent())
    return Program([y], [first, second])


def moved(x, channel, shift, order: list[hl.Var]):
    """x at `channel - shift`, the nearest channel it has where that is outside.

    Where the shift is a whole number of blocks the lanes stay in place and are read as one vector.
    """
    c, X, Y, b, n = order
    blocks = x.dim(3)
    source = hl.clamp(channel - shift, blocks.min() * BLOCK, (blocks.max() + 1) * BLOCK - 1)
    whole = hl.clamp(b - shift / BLOCK, blocks.min(), blocks.max())
    return hl.select(shift % BLOCK == 0, x[c, X, Y, whole, n], x[source % BLOCK, X, Y, source / BLOCK, n])


@kernel("concat_put")
def concat_put(machine: Machine) -> Program:
    """Write channels 0 to `channels` - 1 of x to channels `offset` on of y.

    Channels below stay; the lanes above, up to the end of the last block written, become 0. So writing the inputs of
    a concatenation in order leaves zeros in the spare lanes of the last block, whatever the memory held.
    """
    x = blocked("x")
    count, offset = hl.Param(hl.Int(32), "channels"), hl.Param(hl.Int(32), "offset")
    c, X, Y, b, n = variables("c x y b n")

    # The algorithm.
    first = offset / BLOCK
    r = hl.RDom([(first, (offset + count - 1) / BLOCK - first + 1)], "r")
    order = [c, X, Y, r.x, n]
    channel = r.x * BLOCK + c
    y = hl.Func("y")
    y[c, X, Y, b, n] = hl.undef(hl.Float(32))
    y[order] = hl.select(channel < offset, y[order], channel < offset + count, moved(x, channel, offset, order), f32(0))

    # The schedule.
    t, task = hl.Var("t"), hl.Var("task")
    buffer = pin(y.output_buffer())
    buffer.set_host_alignment(4 * machine.lanes)  # Halide loads what it updates as if it were aligned: check it
    rows = hl.max(ROWS_OF_TASK / hl.max(buffer.dim(1).extent(), 1), 1)
    y.bound(c, 0, BLOCK)
    (y.update().reorder(c, X, r.x, Y, n).vectorize(c, BLOCK, hl.TailStrategy.GuardWithIf).fuse(Y, n, t)
        .split(t, task, t, rows, hl.TailStrategy.GuardWithIf).parallel(task).specialize(offset % BLOCK == 0))
    return Program([y], [x, count, offset])


@kernel("channel_slice")
def channel_slice(machine: Machine) -> Program:
    """y = channels `offset` to `offset` + `channels` - 1 of x; spare lanes 0."""
    x = blocked("x")
    count, offset = hl.Param(hl.Int(32), "channels"), hl.Param(hl.Int(32), "offset")
    order = c, _, _, b, _ = variables("c x y b n")
    channel = b * BLOCK + c

    # The algorithm.
    y = hl.Func("y")
    y[order] = hl.select(channel < count, moved(x, channel, -offset, order), f32(0))

    # The schedule.
    over_rows(y.bound(c, 0, BLOCK), order, pin(y.output_buffer()).dim(1).extent()).specialize(offset % BLOCK == 0)
    return Program([y], [x, count, offset])
