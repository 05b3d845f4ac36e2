"""Channels in another order, some of them several times or not at all."""

from __future__ import annotations

import halide as hl

from .machine import LANES_OF_BLOCK as BLOCK
from .machine import Machine, Program, blocked, kernel, pin, variables
from .pointwise import f32, over_rows


@kernel("take_channels")
def take_channels(machine: Machine) -> Program:
    """y's channel k = the sum over i of x's channel sources(i, k); a source of -1 adds nothing.

    One source a channel takes channels; the lists of the places where each channel went give the gradient of that.
    """
    x, sources = blocked("x"), hl.ImageParam(hl.Int(32), 2, "sources")
    order = c, X, Y, b, n = variables("c x y b n")
    y, total = hl.Func("y"), hl.Func("total")

    # The algorithm.
    r = hl.RDom([(0, sources.dim(0).extent())], "r")
    source = sources[r.x, b * BLOCK + c]
    safe = hl.clamp(source, 0, x.dim(3).extent() * BLOCK - 1)
    total[order] = f32(0)
    total[order] += hl.select(source >= 0, x[safe % BLOCK, X, Y, safe / BLOCK, n], f32(0))
    y[order] = total[order]

    # The schedule.
    over_rows(y.bound(c, 0, BLOCK), order, pin(y.output_buffer()).dim(1).extent())
    total.compute_at(y, X).bound_extent(c, BLOCK).vectorize(c, machine.lanes)
    total.update().reorder(c, r.x).vectorize(c, machine.lanes)
    x.dim(3).set_min(0)
    for d in range(2):
        sources.dim(d).set_min(0)
    return Program([y], [x, sources])
