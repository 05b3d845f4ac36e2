"""A 3x3 convolution of stride 1 as calls of Winograd's kernels: kernels/winograd.py says what they compute."""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt, prod

from ..geometry import BLOCK, POINTS, TILE, TILES_TOGETHER, blocks
from .filters import filter_view

LEAST = 32  # channels and filters below which the transforms cost more than they save, and small integers stay exact
ERROR = 2e-5  # of a result at most, as a share of the layer's largest
TILES = 48  # of a chunk of the map, which fill registers 6 or 8 at a time: their transforms stay in the caches
ADDED_TILES = 72  # of a chunk that the gradient to the filters adds at a time; 56 to 200 take as long, within noise
ADDED_INTEGERS = 144  # the same of integers of 16 bits, which take half of the memory
MOST_INTEGER = 2**15 - 1
# Of the largest integers: x's over the filters', and dy's over x's. Numbers that differ more in size get the larger; at
# about these the error is least.
X_TO_FILTERS, DY_TO_X = 2, 4


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

    def require_halo(self, value, start: tuple[int, int], overhang: int, side: int = TILE) -> None:
        """Zeros as far as the tiles reach, from position `start` of a value on, each `side + overhang` wide."""
        for axis, (first, tiles) in enumerate(zip(start, (self.y, self.x), strict=True)):
            value.require_halo(axis, max(-first, 0), max(first + side * tiles + overhang - value.shape[axis], 0))


def limits(terms: int, ratio: int) -> tuple[int, int]:
    """The largest two integers, the first about `ratio` times the second, of so many products of which the sum fits in
    32 bits, whatever they are."""
    most = (2**31 - 1) // terms
    low = min(isqrt(most // ratio), MOST_INTEGER)
    return min(most // low, MOST_INTEGER), low


def largest(b, x):
    """Where the largest absolute value of each image of `x` is."""
    if x.largest is None:
        x.largest = b.scratch((b.batch,))
        b.call("largest", x=x, y=x.largest)
    return x.largest


def largest_filter(b, weight: dict):
    """Where the largest absolute value of the node's filters is: the same in both directions."""
    if b.node not in b.largest_filters:
        b.largest_filters[b.node] = most = b.scratch((1,))
        size = prod(weight["size"]) * weight["inside"] * weight["out"]
        b.prepare("largest_filter", w=b.filters("weight", 0, (size, 1)), y=most)
    return b.largest_filters[b.node]


def convolve(b, s) -> None:
    """Note the calls that compute `Sums`."""
    tiles = Tiles.over(s.map)
    for value in (s.x, s.maxima) if s.maxima else (s.x,):
        tiles.require_halo(value, s.start, overhang=2, side=TILE // 2 if s.maxima else TILE)
    kernel, filters = "winograd_pool" if s.index else "winograd", {"scale": s.scale, "w": filter_view(b, **s.weight)}
    sums = {"x": s.x.shifted(*s.start), "tiles_x": tiles.x, "tiles_y": tiles.y, **s.epilogue}
    if b.integers:
        u = b.scratch((POINTS, blocks(s.filters), blocks(s.channels), BLOCK // 2, 2 * BLOCK), "int16")
        most, (limit, limit_w) = largest_filter(b, s.weight), limits(BLOCK * blocks(s.channels), X_TO_FILTERS)
        b.prepare("winograd_filters_int16", u=u, largest=most, limit=limit_w, **filters)
        sums |= {"largest": largest(b, s.x), "largest_w": most, "limit": limit, "unit": 1 / (limit * limit_w)}
        if s.maxima:
            kernel, sums["index"] = "winograd_unpool", s.maxima.shifted(*s.start)
        kernel += "_int16"
    else:
        u = b.scratch((POINTS, blocks(s.filters), blocks(s.channels), BLOCK, BLOCK))
        b.prepare("winograd_filters", u=u, **filters)
    if tiles.count <= TILES:
        rows, images = tiles.y, min(TILES // tiles.count, b.batch)
    else:
        rows, images = max(TILES // tiles.x, 1), 1
    chunks = -(-tiles.y // rows) * -(-b.batch // images)
    b.call(kernel, u=u, rows=rows, images=images, out_blocks=b.share(blocks(s.filters), chunks), **sums)


def grad_weight(b, s, dy, maxima=None) -> None:
    """Note the calls that write the weight's gradient; arguments as those of `convolve.grad_weight`."""
    tiles = Tiles.over(s.map)
    tiles.require_halo(s.x, s.start, overhang=2)
    for value in (dy, maxima) if maxima else (dy,):
        tiles.require_halo(value, (0, 0), overhang=0, side=TILE // 2 if maxima else TILE)
    total = tiles.count * b.batch
    chunks = -(-total // (ADDED_INTEGERS if b.integers else ADDED_TILES))
    groups = -(-total // (TILES_TOGETHER * chunks))
    du = b.scratch((POINTS, blocks(s.filters), blocks(s.channels), BLOCK, BLOCK))
    sums = {"x": s.x.shifted(*s.start), "dy": dy.shifted(0, 0), "tiles_x": tiles.x, "tiles_y": tiles.y,
            "groups": groups, "chunks": chunks, "out_blocks": b.share(blocks(s.filters), POINTS), "du": du}
    if b.integers:
        limit_dy, limit = limits(TILES_TOGETHER * groups, DY_TO_X)
        kernel = "winograd_grad_weight_int16"
        if maxima:
            kernel, sums["index"] = "winograd_unpool_grad_weight_int16", maxima.shifted(0, 0)
        b.call(kernel, largest=largest(b, s.x), largest_dy=largest(b, dy), limit=limit,
               limit_dy=limit_dy, **sums)
    else:
        b.call("winograd_grad_weight", **sums)
    b.call("winograd_filter_gradient", du=du,
           dw=b.filters("weight", 0, (9, 1), (s.channels, 9), (s.filters, 9 * s.channels), gradient=True))
