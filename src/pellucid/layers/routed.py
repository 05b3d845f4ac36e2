"""The backward passes of a convolution and its 2x2 pooling from the pooled map, as kernel calls.

kernels/conv_pool_grad.py says what they compute.
"""

from __future__ import annotations

from ..geometry import BLOCK, MOST_ROUTED, blocks
from .filters import filter_view

LARGEST = 8 * 8  # positions of a pooled map. On larger maps, and with more channels, Winograd's kernels are as fast.
PARTS = 8  # that the images are added up in, whatever the number of threads


def fits(s) -> bool:
    """Whether these kernels should compute the gradients of these forward `Sums`."""
    height, width = s.map
    return (s.index is not None and s.x.inner == BLOCK and height // 2 * (width // 2) <= LARGEST
            and max(s.channels, s.filters) <= MOST_ROUTED)


def grad_weight(b, s, dy) -> None:
    """Note the calls that write the weight's gradient; `s` is the forward pass, dy the gradient to its result."""
    s.require_halo()
    inside, out = blocks(s.channels), blocks(s.filters)
    dw = b.scratch((inside, out, *s.size, BLOCK, BLOCK))
    b.call("conv_pool_grad_weight", x=s.x.planes(*s.start), dy=dy, index=s.index,
           images=-(-b.batch // PARTS), dw=dw)
    b.call("unpack_filters", packed=dw, first=b.constant([0] * inside), inputs=s.filters, outputs=s.channels, groups=1,
           dw=filter_view(b, s.size, s.filters, s.channels, transposed=True, gradient=True))


def grad_input(b, s, dy):
    """Note the call that computes the gradient to the input, and return it."""
    dx, taps = b.like(s.x), s.size[0] * s.size[1]
    b.call("conv_pool_grad_input", dy=dy, index=s.index, dx=dx, start_y=s.start[0], start_x=s.start[1],
           width=s.x.shape[1], relu=int(s.x.rectified), x=s.x if s.x.rectified else b.nothing(s.x),
           w=b.filters("weight", 0, (taps, 1), (s.channels, taps), (s.filters, taps * s.channels)))
    s.x.masked = s.x.rectified
    return dx
