"""Where a value lies in memory: blocks of 16 channels, a halo of zeros, and the views kernels get of it.

Halide dimensions are (c, x, y, b, n), c innermost: channel 16 b + c. The halo is as wide as the widest padding any
reader asks for, known only when the whole plan is; so views are made late, by functions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod

import numpy as np

from ..geometry import BLOCK
from ..layers.base import Shape, as_image
from .library import View

ALIGNMENT = 64  # bytes: a cache line, and the widest vector register
SLACK = 64  # readable bytes past the end, for tiles that overhang a run of taps


@dataclass(eq=False)
class Storage:
    """A stretch of the arena. It lives from the first call that names it to the last."""

    size: Callable[[], int]  # bytes, once the halo is settled
    shape_of_halo: Callable[[], object]  # storages with a halo share memory only if this is equal
    first: int | None = None
    last: int | None = None
    pinned: bool = False
    address: int = 0

    def touch(self, time: int) -> None:
        self.first, self.last = time if self.first is None else self.first, time


@dataclass(frozen=True)
class Argument:
    """What a kernel call gets: memory, and the view of it once the memory has an address."""

    storage: Storage | None
    view: Callable[[], View]


@dataclass(eq=False)
class Tensor:
    """A value of the network for a whole batch."""

    logical: Shape  # without the batch, as the layer says it
    batch: int
    dtype: np.dtype
    inner: int = BLOCK  # channels side by side; less than 16 only for an image read as it comes
    needs_gradient: bool = False
    rectified: bool = False  # a ReLU's map that one layer reads: its backward pass may do that of the ReLU
    masked: bool = False  # and it has
    halo: list[list[int]] = field(default_factory=lambda: [[0, 0], [0, 0]])  # (before, after) for y, x
    shape: tuple[int, int, int] = ()  # (H, W, C)
    storage: Storage = None
    largest: Scratch | None = None  # where the largest absolute value of each image is, once somebody has asked

    def __post_init__(self):
        self.shape = self.shape or as_image(self.logical)
        self.dtype = np.dtype(self.dtype)
        self.storage = self.storage or Storage(
            lambda: self.batch * self.image_elements * self.dtype.itemsize + SLACK,
            lambda: (self.shape, self.inner, self.dtype, str(self.halo)) if any(map(any, self.halo)) else None,
        )

    @property
    def blocks(self) -> int:
        return -(-self.shape[2] // self.inner)

    @property
    def is_vector(self) -> bool:
        """One pixel: memory then holds each block of all images together, so that the batch is a matrix's rows."""
        return self.shape[:2] == (1, 1)

    @property
    def padded(self) -> tuple[int, int]:
        """Height and width with the halo."""
        return tuple(n + sum(h) for n, h in zip(self.shape[:2], self.halo, strict=True))

    @property
    def image_elements(self) -> int:
        return prod(self.padded) * self.blocks * self.inner

    def require_halo(self, axis: int, before: int, after: int) -> None:
        """At least so many zeros on either side of axis 0 (y) or 1 (x)."""
        side = self.halo[axis]
        side[0], side[1] = max(side[0], before), max(side[1], after)

    def strides(self) -> tuple[int, int, int, int, int]:
        """Elements from one (c, x, y, b, n) to the next."""
        height, width = self.padded
        if self.is_vector and height == width == 1:
            return 1, self.inner, self.inner, self.inner * self.batch, self.inner
        row, plane = self.inner * width, self.inner * width * height
        return 1, self.inner, row, plane, plane * self.blocks

    def address(self, y: int = 0, x: int = 0) -> int:
        """Of channel 0 of the first image at a position; negative positions lie in the halo."""
        _, sx, sy, _, _ = self.strides()
        return self.storage.address + ((y + self.halo[0][0]) * sy + (x + self.halo[1][0]) * sx) * self.dtype.itemsize

    # Views. Each is an Argument: the memory, and how a kernel sees it.

    def interior(self) -> Argument:
        """The values without the halo; coordinates begin at 0. What a kernel writes."""
        return self.every((0, 0), (1, 1), self.shape[:2])

    def every(self, first: tuple[int, int], step: tuple[int, int], count: tuple[int, int]) -> Argument:
        """Positions `first`, `first + step`, ... along y and x, numbered from 0."""

        def view():
            sc, sx, sy, sb, sn = self.strides()
            dims = ((0, self.inner, sc), (0, count[1], sx * step[1]), (0, count[0], sy * step[0]),
                    (0, self.blocks, sb), (0, self.batch, sn))
            return View(self.address(*first), self.dtype, dims)

        return Argument(self.storage, view)

    def shifted(self, y: int, x: int) -> Argument:
        """The values with their halo, numbered so that (`y`, `x`) is position (0, 0). What a convolution reads."""

        def view():
            (top, _), (left, _) = self.halo
            height, width = self.padded
            sc, sx, sy, sb, sn = self.strides()
            dims = ((0, self.inner, sc), (-left - x, width, sx), (-top - y, height, sy),
                    (0, self.blocks, sb), (0, self.batch, sn))
            return View(self.storage.address, self.dtype, dims)

        return Argument(self.storage, view)

    def runs(self, taps: int, y: int, x: int) -> Argument:
        """An image as overlapping runs: position (y, x) holds the `taps` values that follow it in its row.

        The run may overhang the row's end by less than a register tile; it reads the next row or the slack.
        """

        def view():
            (top, _), (left, _) = self.halo
            height, width = self.padded
            _, sx, sy, sb, sn = self.strides()
            columns = width - -(-taps // self.inner) + 1
            dims = ((0, taps + 2, 1), (-left - x, columns, sx), (-top - y, height, sy), (0, 1, sb), (0, self.batch, sn))
            return View(self.storage.address, self.dtype, dims)

        return Argument(self.storage, view)

    def planes(self, y: int, x: int) -> Argument:
        """Each block of an image as one run of numbers, from position (`y`, `x`) on: (element, one row, b, n)."""

        def view():
            _, sx, sy, sb, sn = self.strides()
            skipped = (y + self.halo[0][0]) * sy + (x + self.halo[1][0]) * sx
            dims = ((0, prod(self.padded) * sx - skipped, 1), (0, 1, sy), (0, self.blocks, sb), (0, self.batch, sn))
            return View(self.address(y, x), self.dtype, dims)

        return Argument(self.storage, view)

    def matrix(self) -> Argument:
        """A feature vector with the batch as the x axis: (c, n, 1, b, 1)."""

        def view():
            _, _, _, sb, sn = self.strides()
            dims = ((0, self.inner, 1), (0, self.batch, sn), (0, 1, sn), (0, self.blocks, sb), (0, 1, sn))
            return View(self.address(), self.dtype, dims)

        return Argument(self.storage, view)

    def vector(self) -> Argument:
        """A feature vector as (c, b, n)."""

        def view():
            _, _, _, sb, sn = self.strides()
            return View(self.address(), self.dtype, ((0, self.inner, 1), (0, self.blocks, sb), (0, self.batch, sn)))

        return Argument(self.storage, view)


@dataclass(eq=False)
class Scratch:
    """Plain memory a layer needs between its calls; `shape` as numpy has it, last axis innermost."""

    shape: tuple[int, ...]
    dtype: np.dtype
    storage: Storage = None

    def __post_init__(self):
        self.dtype = np.dtype(self.dtype)
        self.storage = Storage(lambda: prod(self.shape) * self.dtype.itemsize + SLACK, lambda: None)

    def whole(self) -> Argument:
        """All of it."""
        strides = np.cumprod((1, *self.shape[:0:-1])).tolist()
        return self.seen(*zip(reversed(self.shape), strides, strict=True))

    def seen(self, *dims: tuple[int, int]) -> Argument:
        """As (extent, stride) pairs, innermost first."""
        return Argument(self.storage, lambda: View(self.storage.address, self.dtype, tuple((0, e, s) for e, s in dims)))


def aligned(size: int, dtype=np.uint8) -> np.ndarray:
    """A zeroed array of `size` elements that begins on a cache line."""
    dtype = np.dtype(dtype)
    raw = np.zeros(size * dtype.itemsize + ALIGNMENT, np.uint8)
    skip = -raw.ctypes.data % ALIGNMENT
    return raw[skip:skip + size * dtype.itemsize].view(dtype)
