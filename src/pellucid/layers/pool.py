"""Pooling: one number for each window and channel. Nothing is learned; channels do not mix.

A maximum says whether a pattern stands somewhere under the window, and no longer where: small shifts of the input
leave it as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import ClassVar

import numpy as np

from .. import reference
from ..geometry import Padding, Window, covering, output_size, parts, per_axis, windows
from .arithmetic import Index, beside, everywhere, grid, largest, mean, under
from .base import Layer, Shape, as_image, require_spatial, window_text

Size = int | tuple[int, ...]  # one integer, or one an axis

MOST_PARTS = 4096  # of an axis
BYTE = 256  # in windows of up to so many taps, the place of the maximum fits in a byte


@dataclass(frozen=True)
class Sliding:
    """A window that slides: `size` and `stride` are an integer or one an axis; `stride` None means `size`.

    `padding` is what `geometry.windows` takes, smaller than the window on every side; `dilation` is the distance of
    the window's taps.
    """

    size: Size
    stride: Size | None = None
    padding: Padding = 0
    dilation: Size = 1

    def windows(self, shape: Shape) -> tuple[Window, ...]:
        """The window along each axis. Raises ValueError if it does not fit, or might see nothing but padding."""
        require_spatial(type(self).__name__, shape)
        axes = windows(shape[:-1], self.size, self.size if self.stride is None else self.stride, self.padding,
                       self.dilation)
        for w, n in zip(axes, shape[:-1], strict=True):
            if not w.always_sees(n):
                raise ValueError(
                    f"pooling padding must be smaller than the window, got {(w.before, w.after)} for a window of "
                    f"{w.reach} on {n}: some windows would see nothing but padding"
                )
        if 0 in output_size(shape[:-1], axes):
            raise ValueError(
                f"a window of {'x'.join(str(w.size) for w in axes)} is larger than the input {shape}: use a smaller "
                "window, pad, or shrink the input less before it"
            )
        return axes

    def output_shape(self, shape: Shape) -> Shape:
        return (*output_size(shape[:-1], self.windows(shape)), shape[-1])

    def kernel_text(self, shape: Shape) -> str:
        return window_text(self.windows(shape))

    @property
    def options(self) -> dict:
        """The keywords of the functions in `reference`."""
        return {"stride": self.stride, "padding": self.padding, "dilation": self.dilation}

    def _window(self, index: Index, shape: Shape) -> np.ndarray:
        """The indices of the input under the window of an output, in scan order; some may lie in the padding."""
        return beside(under(self.windows(shape), index[:-1])[1], np.array([index[-1:]]))


@dataclass(frozen=True)
class MaxPool(Sliding, Layer):
    """The largest value under each window; padding never wins, and of equal values the first takes the gradient."""

    short: ClassVar[str] = "pool"

    def define(self, parameters, x, *, training=False, seed=0):
        y = reference.max_pool(x, self.size, **self.options)
        return y, lambda dy: ([reference.max_pool_grad(x, dy, self.size, **self.options)], {})

    def terms(self, index, parameters, x):
        return largest(x, self._window(index, x.shape))

    def lower(self, b, x):
        return _lower_max(b, x, self.output_shape(x.logical), self.windows(x.logical))


@dataclass(frozen=True)
class AvgPool(Sliding, Layer):
    """The mean of each window. Padding counts as zeros, so that every window divides by its full size; without
    `count_include_pad` (PyTorch's and ONNX's name) a window divides by the inputs that it sees."""

    count_include_pad: bool = True
    short: ClassVar[str] = "pool"

    def __post_init__(self):
        super().__post_init__()
        if not isinstance(self.count_include_pad, bool):
            raise ValueError(f"count_include_pad must be true or false, got {self.count_include_pad!r}")

    @property
    def options(self) -> dict:
        return {**super().options, "count_include_pad": self.count_include_pad}

    def define(self, parameters, x, *, training=False, seed=0):
        y = reference.avg_pool(x, self.size, **self.options)
        return y, lambda dy: ([reference.avg_pool_grad(dy, x.shape[1:-1], self.size, **self.options)], {})

    def terms(self, index, parameters, x):
        return mean(x, self._window(index, x.shape), self.count_include_pad)

    def lower(self, b, x):
        return _lower_avg(b, x, self.output_shape(x.logical), self.windows(x.logical), self.count_include_pad)


class Global:
    """One window that covers the whole map: (H, W, C) or (L, C) becomes (C,)."""

    def windows(self, shape: Shape) -> None:
        return None

    def output_shape(self, shape: Shape) -> Shape:
        require_spatial(type(self).__name__, shape)
        return shape[-1:]

    def readers(self, index: Index, of: int, shape: Shape) -> np.ndarray:
        return np.array([index[-1:]])


@dataclass(frozen=True)
class GlobalMaxPool(Global, Layer):
    """The largest value of each channel."""

    short: ClassVar[str] = "pool"

    def define(self, parameters, x, *, training=False, seed=0):
        return reference.global_max_pool(x), lambda dy: ([reference.global_max_pool_grad(x, dy)], {})

    def terms(self, index, parameters, x):
        return largest(x, everywhere(x.shape, *index))

    def lower(self, b, x):
        return _lower_max(b, x, self.output_shape(x.logical), _whole(x.logical))


@dataclass(frozen=True)
class GlobalAvgPool(Global, Layer):
    """The mean of each channel."""

    short: ClassVar[str] = "pool"

    def define(self, parameters, x, *, training=False, seed=0):
        return reference.global_avg_pool(x), lambda dy: ([reference.global_avg_pool_grad(dy, x.shape[1:-1])], {})

    def terms(self, index, parameters, x):
        return mean(x, everywhere(x.shape, *index))

    def lower(self, b, x):
        return _lower_avg(b, x, self.output_shape(x.logical), _whole(x.logical))


@dataclass(frozen=True)
class AdaptiveAvgPool(Layer):
    """Maps of one size from maps of any: each axis in `size` parts, and the mean of each part.

    `size` is an integer or one an axis; `geometry.parts` says which positions a part has. A map that has the size
    already stays as it is. Raises ValueError for a size that is not of integers from 1 to 4,096.
    """

    size: Size
    short: ClassVar[str] = "pool"

    def __post_init__(self):
        super().__post_init__()
        sizes = self.size if isinstance(self.size, tuple) else (self.size,)
        if not sizes or not all(isinstance(n, int) and not isinstance(n, bool)
                                and 1 <= n <= MOST_PARTS for n in sizes):
            raise ValueError(f"size must be an integer from 1 to {MOST_PARTS:,}, or one an axis, got {self.size!r}")

    def _parts(self, shape: Shape) -> list[list[range]]:
        require_spatial("AdaptiveAvgPool", shape)
        sizes = per_axis(self.size, len(shape) - 1, "size")
        return [parts(n, count) for n, count in zip(shape[:-1], sizes, strict=True)]

    def windows(self, shape: Shape) -> tuple[Window, ...]:
        """The smallest windows of one size that cover every part."""
        return tuple(map(covering, self._parts(shape)))

    def output_shape(self, shape: Shape) -> Shape:
        require_spatial("AdaptiveAvgPool", shape)
        return (*per_axis(self.size, len(shape) - 1, "size"), shape[-1])

    def kernel_text(self, shape: Shape) -> str:
        return "to " + "x".join(map(str, self.output_shape(shape)[:-1]))

    def define(self, parameters, x, *, training=False, seed=0):
        y = reference.adaptive_avg_pool(x, self.size)
        return y, lambda dy: ([reference.adaptive_avg_pool_grad(dy, x.shape[1:-1], self.size)], {})

    def terms(self, index, parameters, x):
        parts = [axis[i] for axis, i in zip(self._parts(x.shape), index[:-1], strict=True)]
        return mean(x, grid(*parts, index[-1:]))

    def readers(self, index, of, shape):
        return grid(*([i for i, part in enumerate(axis) if at in part]
                      for axis, at in zip(self._parts(shape), index[:-1], strict=True)), index[-1:])

    def lower(self, b, x):
        shape = self.output_shape(x.logical)
        if shape == x.logical:
            return x, lambda dy: [dy if b.needs_gradient(x) else None]
        (height, width), (rows, columns) = x.shape[:2], as_image(shape)[:2]

        def sizes(rows, columns, height, width) -> dict[str, int]:
            most_y, most_x = (max(map(len, parts(n, count))) for n, count in ((height, rows), (width, columns)))
            return {"columns": columns, "rows": rows, "width": width, "height": height, "most_x": most_x,
                    "most_y": most_y}

        y = b.tensor(shape)
        b.call("adaptive_avg_pool", x=x, y=y, **sizes(rows, columns, height, width))

        def backward(dy):
            if not b.needs_gradient(x):
                return [None]
            dx = b.like(x)
            b.call("adaptive_avg_pool_grad", dy=dy, dx=dx, **sizes(height, width, rows, columns))
            return [dx]

        return y, backward


def _lower_max(b, x, output_shape: Shape, axes: tuple[Window, ...]):
    y, scalars, dilated = b.tensor(output_shape), _scalars(axes), any(w.dilation > 1 for w in axes)
    if not b.needs_gradient(x):
        kernel = "max_pool_dilated_inference" if dilated else "max_pool_inference"
        b.call(kernel, x=x, y=y, **scalars, **(_dilations(axes) if dilated else {}))
        return y, lambda dy: [None]
    wide = prod(w.size for w in axes) > BYTE or dilated
    kernel = "max_pool_dilated" if dilated else "max_pool_wide" if wide else "max_pool"
    scalars |= _dilations(axes) if dilated else {}
    index = b.tensor(output_shape, "int32" if wide else "uint8")
    b.call(kernel, x=x, **{"y.0": y, "y.1": index}, **scalars)

    def backward(dy):
        dx = b.like(x)
        b.call(kernel + "_grad", dy=dy, index=index, y=y, relu=int(x.rectified), dx=dx, **scalars)
        x.masked = x.rectified
        return [dx]

    return y, backward


def _lower_avg(b, x, output_shape: Shape, axes: tuple[Window, ...], count_include_pad: bool = True):
    y, scalars, kernel = b.tensor(output_shape), _scalars(axes), "avg_pool"
    if any(w.dilation > 1 for w in axes) or not count_include_pad and any(w.before or w.after for w in axes):
        kernel = "avg_pool_counted"
        scalars |= _dilations(axes) | {"padding": int(count_include_pad), "width": x.shape[1], "height": x.shape[0]}
    b.call(kernel, x=x, y=y, **scalars)

    def backward(dy):
        if not b.needs_gradient(x):
            return [None]
        dx = b.like(x)
        b.call(kernel + "_grad", dy=dy, dx=dx, **scalars)
        return [dx]

    return y, backward


def _whole(shape: Shape) -> tuple[Window, ...]:
    """The window that covers a map. Its stride is its size, so that each position is known to be in one window."""
    return tuple(Window(n, n) for n in shape[:-1])


def _scalars(axes: tuple[Window, ...]) -> dict[str, int]:
    """The windows as kernels take them: a signal is an image one row high."""
    y, x = (Window(1),) * (2 - len(axes)) + axes
    return {"size_x": x.size, "size_y": y.size, "stride_x": x.stride, "stride_y": y.stride,
            "before_x": x.before, "before_y": y.before}


def _dilations(axes: tuple[Window, ...]) -> dict[str, int]:
    """The distances of taps, for the kernels that take them."""
    return {"dilation_x": axes[-1].dilation, "dilation_y": axes[0].dilation if len(axes) == 2 else 1}
