"""A 3x3 convolution of stride 1 as calls of Winograd's kernels: kernels/winograd.py says what they compute."""

from __future__ import annotations

from dataclasses import dataclass

from ..geometry import BLOCK, POINTS, TILE, TILES_TOGETHER, blocks
from .filters import filter_view

LEAST = 32  # channels and filters below which the transforms cost more than they save, and small integers stay exact
ERROR = 5e-5  # of a result at most, as a share of the layer's largest
TILES = 48  # of a chunk of the map, which fill registers 6 or 8 at a time: their transforms stay in the caches
ADDED_TILES = 72  # of a chunk that the gradient to the filters adds at a time; 56 to 200 take as long, within noise


def fits(size, stride, dilation, taps) -> bool:
    """Whether these kernels can compute sums over windows of this form. The map may have any size."""
    return size == (3, 3) and stride == dilation == (1, 1) and [len(t) for t in taps] == [3, 3]


@dataclass(frozen=True)
class Tiles:
    """The tiles that cover a map of outputs."""

    y: int
    x: int

    @classmethod
    def over(cls, size: tuple[int, int]) -> Tiles:
        return cls(*(-(-n // TILE) for n in size))

    @property
    def count(self) -> int:
        return self.y * self.x

    def require_halo(self, value, start: tuple[int, int], overhang: int) -> None:
        """Zeros as far as the tiles reach, from position `start` of a value on, each `TILE + overhang` wide."""
        for axis, (first, tiles) in enumerate(zip(start, (self.y, self.x), strict=True)):
            value.require_halo(axis, max(-first, 0), max(first + TILE * tiles + overhang - value.shape[axis], 0))


def convolve(b, s) -> None:
    """Note the calls that compute `Sums`."""
    tiles = Tiles.over(s.map)
    tiles.require_halo(s.x, s.start, overhang=2)
    u = b.scratch((POINTS, blocks(s.filters), blocks(s.channels), BLOCK, BLOCK))
    b.prepare("winograd_filters", u=u, scale=s.scale, w=filter_view(b, **s.weight))
    if tiles.count <= TILES:
        rows, images = tiles.y, min(TILES // tiles.count, b.batch)
    else:
        rows, images = max(TILES // tiles.x, 1), 1
    chunks = -(-tiles.y // rows) * -(-b.batch // images)
    b.call("winograd_pool" if s.index else "winograd", x=s.x.shifted(*s.start), u=u, tiles_x=tiles.x, tiles_y=tiles.y,
           rows=rows, images=images, out_blocks=b.share(blocks(s.filters), chunks), **s.epilogue)


def grad_weight(b, s, dy) -> None:
    """Note the calls that write the weight's gradient; `s` is the forward pass and dy the gradient to its result."""
    tiles = Tiles.over(s.map)
    tiles.require_halo(s.x, s.start, overhang=2)
    tiles.require_halo(dy, (0, 0), overhang=0)
    total = tiles.count * b.batch
    chunks = -(-total // ADDED_TILES)
    du = b.scratch((POINTS, blocks(s.filters), blocks(s.channels), BLOCK, BLOCK))
    b.call("winograd_grad_weight", x=s.x.shifted(*s.start), dy=dy.shifted(0, 0), tiles_x=tiles.x, tiles_y=tiles.y,
           groups=-(-total // (TILES_TOGETHER * chunks)), chunks=chunks,
           out_blocks=b.share(blocks(s.filters), POINTS), du=du)
    b.call("winograd_filter_gradient", du=du,
           dw=b.filters("weight", 0, (9, 1), (s.channels, 9), (s.filters, 9 * s.channels), gradient=True))
