"""Weighted sums over windows as kernel calls: what a convolution's forward pass and the gradient to its input are.

Which kernels run depends on the layer's shape alone: depthwise filters, 1x1 filters as a matrix product, Winograd's for
3x3 where the table of `engine.algorithms` says so, and the direct kernels for everything else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..geometry import BLOCK, blocks, channel_bands
from . import winograd
from .filters import filter_view

if TYPE_CHECKING:
    from ..engine.tensor import Argument, Tensor

STRIP_BYTES = 3 << 13  # of input and gradient that are multiplied at a time for the filters: they stay in the L1 cache
MATRIX_BYTES = 1 << 18  # of input that a task of a 1x1 convolution copies side by side: it stays in the L2 cache
FEW = 256  # channels to which the filters of a block of outputs stay in the L1 cache, so that copying does not pay
IMAGE_STEPS = ("stride_y", "stride_x", "dilation_y")  # what is left of stride and dilation for an image's runs of taps


@dataclass(frozen=True)
class Sums:
    """y = act(scale (sums over windows of x) + bias + residual). Pairs are (y, x); all channels' counts are in full."""

    direction: str  # "forward" or "input": the gradient to it
    x: Tensor
    start: tuple[int, int]  # position of x under the first tap of the first window
    stride: tuple[int, int]
    dilation: tuple[int, int]
    size: tuple[int, int]  # of the layer's filters
    taps: tuple[Sequence[int], Sequence[int]]  # the filters' rows and columns that are used, in order
    channels: int
    filters: int
    groups: int
    map: tuple[int, int]  # positions of the windows
    y: Argument = None
    scale: object = None
    bias: object = None
    residual: Argument = None
    relu: bool = False
    index: Tensor = None  # with it y is the largest of each 2x2, before the bias, and this says which it was
    maxima: Tensor = None  # with it x is the gradient to the largest of each 2x2 of a map, and this says which it was

    @property
    def weight(self) -> dict:
        """The arguments of `filter_view`."""
        return {"size": self.size, "inside": self.channels // self.groups, "out": self.filters // self.groups,
                "groups": self.groups, "taps": self.taps, "transposed": self.direction == "input"}

    @property
    def epilogue(self) -> dict:
        """The arguments that all kernels share."""
        shared = {"bias": self.bias, "relu": int(self.relu)}
        return {**shared, "y.0": self.y, "y.1": self.index} if self.index else {
            **shared, "residual": self.residual, "y": self.y}

    @property
    def steps(self) -> dict:
        """Stride and dilation, as kernels take them."""
        return {"stride_y": self.stride[0], "stride_x": self.stride[1], "dilation_y": self.dilation[0],
                "dilation_x": self.dilation[1]}

    def require_halo(self) -> None:
        """Zeros as far as the windows reach."""
        for axis in (0, 1):
            last = self.start[axis] + self.stride[axis] * (self.map[axis] - 1) \
                + self.dilation[axis] * (len(self.taps[axis]) - 1)
            self.x.require_halo(axis, max(-self.start[axis], 0), max(last + 1 - self.x.shape[axis], 0))


def algorithm(b, s: Sums, direction: str) -> str:
    """The kind of kernels for a direction of a convolution: "depthwise", "matrix", "winograd" or "direct"."""
    if is_depthwise(s.channels, s.filters, s.groups):
        return "depthwise"
    if s.x.inner < BLOCK or s.groups > 1:
        return "direct"
    if direction != "weight" and len(s.taps[0]) == len(s.taps[1]) == 1:
        return "matrix"
    if winograd.fits(s.size, s.stride, s.dilation, s.taps):
        # The table is of layers: for the gradient to the input, what is read are the layer's outputs.
        layers = (s.filters, s.channels) if s.direction == "input" else (s.channels, s.filters)
        return b.algorithm(direction, s.map, *layers)
    return "direct"


def pools(b, s: Sums) -> bool:
    """Whether there are kernels that take the 2x2 maxima of these sums in the same pass."""
    if s.x.inner < BLOCK:
        return s.groups == 1 and not b.needs_gradient(s.x)
    return algorithm(b, s, s.direction) == "winograd"


def is_depthwise(channels: int, filters: int, groups: int) -> bool:
    """One filter a channel."""
    return channels == filters == groups > 1


def convolve(b, s: Sums) -> None:
    """Note the calls that compute the sums."""
    kind = algorithm(b, s, s.direction)
    if kind == "winograd":
        winograd.convolve(b, s)
        return
    assert s.maxima is None, "`unpools` has refused that"
    s.require_halo()
    {"depthwise": _depthwise, "matrix": _matrix, "direct": _direct}[kind](b, s)


def _direct(b, s: Sums) -> None:
    form = Filters(b, s.filters, s.channels, s.groups, (len(s.taps[0]), len(s.taps[1])), s.x.inner)
    packed = form.scratch(b)
    b.prepare("pack_filters", w=filter_view(b, **s.weight), scale=s.scale, first=form.first, inner=form.inner,
              packed=packed)
    operands = {"x": form.source(s.x, *s.start), "w": form.taps(packed), **s.epilogue}
    if s.index:
        b.call("conv_image_pool", **operands, **{k: s.steps[k] for k in IMAGE_STEPS})
    else:
        stem = "conv" if s.x.inner == BLOCK else "conv_image"
        rows = b.rows(s.map[0], blocks(s.filters))
        b.call(b.tile(stem, s.map[1]), first=form.first, rows=rows, **operands, **s.steps)


def _matrix(b, s: Sums) -> None:
    form = Filters(b, s.filters, s.channels, 1, (1, 1), BLOCK)
    packed = form.scratch(b)
    b.prepare("pack_filters", w=filter_view(b, **s.weight), scale=s.scale, first=form.first, inner=BLOCK, packed=packed)
    (columns,) = b.library.tiles("conv_matrix")
    height, width = s.map
    most = max(MATRIX_BYTES // (4 * BLOCK * blocks(s.channels)), 4 * columns)  # positions of a task
    if height * width <= most:
        rows, images = height, _fewest(b.batch, height * width, most, columns)
    else:
        rows, images = _fewest(height, width, most, columns), 1
    chunks = -(-height // rows) * -(-b.batch // images)
    copying = {"x": s.x.shifted(*s.start), "w": packed, "width": width, "height": height, "rows": rows,
               "images": images, "stride_x": s.stride[1], "stride_y": s.stride[0],
               "out_blocks": b.share(blocks(s.filters), chunks), **s.epilogue}
    kernel = f"conv_matrix_{columns}"
    if s.channels > FEW or s.stride != (1, 1) or s.start != (0, 0) or s.map != s.x.shape[:2]:
        b.call(kernel, **copying)
        return
    together = b.together(height, blocks(s.filters))
    direct = {"x": s.x, "w": packed, "first": form.first, "rows": 1, **s.epilogue, **s.steps}
    b.call_on_runs(together, ("x", "y", "residual"), (b.tile("conv", together * width), direct), (kernel, copying))


def _fewest(count: int, each: int, most: int, columns: int) -> int:
    """How many of `count` rows (or images) of `each` positions a task should take, at most `most` positions, so that
    register tiles of `columns` positions waste least; the largest such number."""
    def tiles(taken: int) -> int:
        last = count % taken
        return count // taken * -(-taken * each // columns) + -(-last * each // columns)

    return min(range(max(min(most // each, count), 1), 0, -1), key=tiles)


def _depthwise(b, s: Sums) -> None:
    rows, columns = s.taps
    packed = b.scratch((blocks(s.filters), len(rows), len(columns), BLOCK))
    b.prepare("pack_taps", w=channel_taps(b, s.size, s.channels, s.taps), scale=s.scale, packed=packed)
    b.call("depthwise", x=s.x.shifted(*s.start), w=packed, **s.steps, **s.epilogue)


def channel_taps(b, size: tuple[int, int], channels: int, taps=None, gradient: bool = False):
    """A depthwise weight (C, 1, kh, kw) as (column, row, channel)."""
    height, width = size
    rows, columns = taps or (range(height), range(width))
    row, column = (t[1] - t[0] if len(t) > 1 else 1 for t in (rows, columns))
    return b.filters("weight", rows[0] * width + columns[0], (len(columns), column), (len(rows), row * width),
                     (channels, height * width), gradient=gradient)


def unpools(b, s: Sums) -> bool:
    """Whether there are kernels for both gradients of these sums of a forward pass, that was pooled in the same pass,
    from that to the pooled map: for a padding of 1 all round and an even map."""
    return (b.integers and s.x.inner == BLOCK and s.start == (-1, -1) and s.map == s.x.shape[:2]
            and not any(n % 2 for n in s.map)
            and algorithm(b, s, "weight") == b.algorithm("input", s.map, s.channels, s.filters) == "winograd")


def grad_weight(b, s: Sums, dy: Tensor, maxima: Tensor | None = None) -> None:
    """Note the calls that write the weight's gradient; `s` is the forward pass and dy the gradient to its result, or,
    where `unpools` says so, that to its largest values, of which `maxima` says which they were."""
    kind = algorithm(b, s, "weight")
    if kind == "winograd":
        winograd.grad_weight(b, s, dy, maxima)
        return
    assert maxima is None, "`unpools` has refused that"
    s.require_halo()
    if kind == "depthwise":
        dw = b.scratch((blocks(s.filters), *s.size, BLOCK))
        b.call("depthwise_grad_weight", x=s.x.shifted(*s.start), dy=dy, dw=dw, **s.steps)
        b.call("unpack_taps", packed=dw, dw=channel_taps(b, s.size, s.channels, gradient=True))
        return
    form = Filters(b, s.filters, s.channels, s.groups, s.size, s.x.inner)
    dw, blocked = form.scratch(b), form.inner == BLOCK
    operands = {"x": form.source(s.x, *s.start), "dy": dy, "dw": form.taps(dw)}
    if s.index and not blocked:
        b.call("conv_image_pool_grad_weight", index=s.index, **operands, **{k: s.steps[k] for k in IMAGE_STEPS})
    else:
        row = 4 * BLOCK * (s.map[1] + s.stride[0] * (s.map[1] * s.stride[1] + s.size[1]))  # bytes of dy and x
        b.call("conv_grad_weight" if blocked else "conv_image_grad_weight", first=form.first, **operands, **s.steps,
               bands=form.bands if blocked else 1, rows=max(min(STRIP_BYTES // row, s.map[0]), 1))
    inside, out = s.channels // s.groups, s.filters // s.groups
    b.call("unpack_filters", packed=dw, first=form.first, inputs=inside, outputs=out, groups=s.groups,
           dw=filter_view(b, s.size, inside, out, s.groups, gradient=True))


class Filters:
    """Filters as the direct kernels hold them: (kb, cb, j, i, c, k), where a block of outputs sees a band of input
    blocks."""

    def __init__(self, b, outputs: int, inputs: int, groups: int, size: tuple[int, int], inner: int):
        self.outputs, self.size, self.inner = outputs, size, inner
        first, self.bands = channel_bands(outputs, inputs, groups) if inner == BLOCK else ([0] * blocks(outputs), 1)
        self.first = b.constant(first)

    def scratch(self, b):
        """Memory for packed filters."""
        return b.scratch((blocks(self.outputs), self.bands, *self.size, self.inner, BLOCK))

    def taps(self, packed):
        """Packed filters as the convolution reads them; an image's (channel, column) taps are one run."""
        if self.inner == BLOCK:
            return packed.whole()
        height, width = self.size
        run, row = self.inner * width, BLOCK * self.inner * width
        return packed.seen((BLOCK, 1), (run, BLOCK), (1, row), (height, row), (1, row * height),
                           (blocks(self.outputs), row * height))

    def source(self, x, y: int, column: int):
        """The input as the convolution reads it: position 0 is under the first tap of the first window."""
        if self.inner == BLOCK:
            return x.shifted(y, column)
        return x.runs(self.inner * self.size[1], y, column)
