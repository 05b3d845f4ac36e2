"""Dropout with a mask that is computed, not stored: a hash of the element's number decides.

`layers/dropout.py` has the same arithmetic in numpy, and says where it comes from.
"""

from __future__ import annotations

import halide as hl

from .machine import LANES_OF_BLOCK as BLOCK
from .machine import Machine, Program, blocked, kernel, pin, variables
from .pointwise import over_rows


def hash32(h):
    """`layers.dropout.hash32`, for uint32 expressions."""
    h = (h ^ (h >> 16)) * hl.u32(0x7FEB352D)
    h = (h ^ (h >> 15)) * hl.u32(0x846CA68B)
    return h ^ (h >> 16)


@kernel("dropout")
def dropout(machine: Machine) -> Program:
    """y = x `scale` where the element's hash is at least `threshold`, else x times 0.

    The forward pass and, with dy for x, the backward pass. `height`, `width` and `channels` are the layer's own, for
    they number the elements.
    """
    x = blocked("x")
    counter = hl.ImageParam(hl.UInt(32), 1, "counter")
    key, threshold = hl.Param(hl.UInt(32), "key"), hl.Param(hl.UInt(32), "threshold")
    scale = hl.Param(hl.Float(32), "scale")
    height, width, count = (hl.Param(hl.UInt(32), name) for name in ("height", "width", "channels"))
    order = c, X, Y, b, n = variables("c x y b n")

    # The algorithm: numbers of elements count channels, then columns, rows, images.
    seed, y = hl.Func("seed"), hl.Func("y")
    seed[()] = hash32(hash32(counter[counter.dim(0).min()]) ^ key)
    image, row, column, channel = (hl.cast(hl.UInt(32), v) for v in (n, Y, X, b * BLOCK + c))
    element = ((image * height + row) * width + column) * count + channel
    kept = hash32(hash32(element ^ seed[()]) + seed[()]) >= threshold
    y[order] = x[order] * hl.select(kept, scale, hl.f32(0))

    # The schedule.
    over_rows(y.bound(c, 0, BLOCK), order, pin(y.output_buffer()).dim(1).extent())
    seed.compute_root()
    return Program([y], [x, counter, key, threshold, scale, height, width, count])
