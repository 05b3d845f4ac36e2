"""Pooling: one number for each window and channel, with nothing to learn.

`size` and `stride` are an integer or one an axis; `stride` None means `size`, so that windows do not overlap.
`padding` is as for convolution, but smaller than the window, so that each window sees at least one input. `dilation`
is the distance of a window's taps, 1 where they are neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..geometry import Padding, Window, output_size, parts, per_axis, windows
from .arrays import float64, require_shape
from .sliding import meetings

Size = int | Sequence[int]


def max_pool(
    x, size: Size, *, stride: Size | None = None, padding: Padding = 0, dilation: Size = 1
) -> np.ndarray:
    """The largest input in each window; padding never wins.

    `x` is (N, H, W, C) or (N, L, C); returns (N, H', W', C) or (N, L', C). Raises ValueError if the padding is not
    smaller than the window.
    """
    x = float64(x)
    axes = _windows(x.shape[1:-1], size, stride, padding, dilation)
    y = np.full((len(x), *output_size(x.shape[1:-1], axes), x.shape[-1]), -np.inf)
    for position, _, source in meetings(x.shape[1:-1], axes):
        y[:, *position] = np.maximum(y[:, *position], x[:, *source])
    return y


def max_pool_grad(
    x, dy, size: Size, *, stride: Size | None = None, padding: Padding = 0, dilation: Size = 1
) -> np.ndarray:
    """Gradient of `max_pool` to its input: the winner of each window takes all of it, the others nothing.

    Of equal inputs the first in scan order is the winner.
    """
    x, dy = float64(x), float64(dy)
    y = max_pool(x, size, stride=stride, padding=padding, dilation=dilation)
    axes = _windows(x.shape[1:-1], size, stride, padding, dilation)
    require_shape("dy", dy, y.shape)
    dx, decided = np.zeros_like(x), np.zeros(y.shape, bool)
    for position, _, source in meetings(x.shape[1:-1], axes):
        wins = (x[:, *source] == y[:, *position]) & ~decided[:, *position]
        dx[:, *source] += np.where(wins, dy[:, *position], 0)
        decided[:, *position] |= wins
    return dx


def avg_pool(
    x, size: Size, *, stride: Size | None = None, padding: Padding = 0, dilation: Size = 1,
    count_include_pad: bool = True,
) -> np.ndarray:
    """The mean of each window, padding counted as zeros; unless it is counted, of those inputs that there are.

    `x` is (N, H, W, C) or (N, L, C); returns (N, H', W', C) or (N, L', C). Raises ValueError if the padding is not
    smaller than the window.
    """
    x = float64(x)
    axes = _windows(x.shape[1:-1], size, stride, padding, dilation)
    y = np.zeros((len(x), *output_size(x.shape[1:-1], axes), x.shape[-1]))
    for position, _, source in meetings(x.shape[1:-1], axes):
        y[:, *position] += x[:, *source]
    return y / _taps(x.shape[1:-1], axes, count_include_pad)


def avg_pool_grad(
    dy, input_size: Size, size: Size, *, stride: Size | None = None, padding: Padding = 0, dilation: Size = 1,
    count_include_pad: bool = True,
) -> np.ndarray:
    """Gradient of `avg_pool` to its input, of spatial size `input_size`: a window's inputs all get the same share."""
    dy = float64(dy)
    input_size = per_axis(input_size, dy.ndim - 2, "input_size")
    axes = _windows(input_size, size, stride, padding, dilation)
    require_shape("dy", dy, (len(dy), *output_size(input_size, axes), dy.shape[-1]))
    share = dy / _taps(input_size, axes, count_include_pad)
    dx = np.zeros((len(dy), *input_size, dy.shape[-1]))
    for position, _, source in meetings(input_size, axes):
        dx[:, *source] += share[:, *position]
    return dx


def global_max_pool(x) -> np.ndarray:
    """The largest value of each channel: one window, the whole image. (N, H, W, C) or (N, L, C) -> (N, C)."""
    x = float64(x)
    return max_pool(x, x.shape[1:-1]).reshape(len(x), x.shape[-1])


def global_max_pool_grad(x, dy) -> np.ndarray:
    """Gradient of `global_max_pool` to its input: all of `dy` (N, C) goes to the first maximum in scan order."""
    x = float64(x)
    return max_pool_grad(x, _one_position(dy, x.ndim - 2), x.shape[1:-1])


def global_avg_pool(x) -> np.ndarray:
    """The mean of each channel: one window, the whole image. (N, H, W, C) or (N, L, C) -> (N, C)."""
    x = float64(x)
    return avg_pool(x, x.shape[1:-1]).reshape(len(x), x.shape[-1])


def global_avg_pool_grad(dy, input_size: Sequence[int]) -> np.ndarray:
    """Gradient of `global_avg_pool` to its input, of spatial size `input_size`, given `dy` (N, C)."""
    return avg_pool_grad(_one_position(dy, len(input_size)), input_size, input_size)


def adaptive_avg_pool(x, size: Size) -> np.ndarray:
    """Each axis in `size` parts (an integer, or one an axis), and the mean of each: `geometry.parts` says which.

    (N, H, W, C) or (N, L, C) -> (N, *size, C).
    """
    x = float64(x)
    axes = _parts(x.shape[1:-1], size)
    y = np.zeros((len(x), *map(len, axes), x.shape[-1]))
    for position in np.ndindex(y.shape[1:-1]):
        part = _part(axes, position)
        y[:, *position] = x[:, *part].mean(axis=tuple(range(1, x.ndim - 1)))
    return y


def adaptive_avg_pool_grad(dy, input_size: Sequence[int], size: Size) -> np.ndarray:
    """Gradient of `adaptive_avg_pool` to its input, of spatial size `input_size`: a part's inputs share alike."""
    dy = float64(dy)
    axes = _parts(input_size, size)
    require_shape("dy", dy, (len(dy), *map(len, axes), dy.shape[-1]))
    dx = np.zeros((len(dy), *input_size, dy.shape[-1]))
    for position in np.ndindex(dy.shape[1:-1]):
        part = _part(axes, position)
        taps = int(np.prod([s.stop - s.start for s in part]))
        dx[:, *part] += np.expand_dims(dy[:, *position], tuple(range(1, dy.ndim - 1))) / taps
    return dx


def _parts(input_size: Sequence[int], size: Size) -> list[list[range]]:
    sizes = per_axis(size, len(input_size), "size")
    return [parts(n, count) for n, count in zip(input_size, sizes, strict=True)]


def _part(axes: list[list[range]], position: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(slice(axis[i].start, axis[i].stop) for axis, i in zip(axes, position, strict=True))


def _windows(input_size: Sequence[int], size, stride, padding, dilation) -> tuple[Window, ...]:
    axes = windows(input_size, size, size if stride is None else stride, padding, dilation)
    for w, n in zip(axes, input_size, strict=True):
        if not w.always_sees(n):
            raise ValueError(
                f"pooling padding must be smaller than the window, got {(w.before, w.after)} for a window of {w.reach} "
                f"on {n}: some windows would see nothing but padding"
            )
    return axes


def _taps(input_size: Sequence[int], axes: Sequence[Window], padding: bool) -> np.ndarray | int:
    """Taps of a window, those in the padding counted or not: then for each position, with an axis for the channels."""
    if padding:
        return int(np.prod([w.size for w in axes]))
    counts = np.zeros((*output_size(input_size, axes), 1))
    for position, _, _ in meetings(input_size, axes):
        counts[position] += 1
    return counts


def _one_position(dy, axes: int) -> np.ndarray:
    """(N, C) -> (N, 1, 1, C): an image of one position."""
    dy = float64(dy)
    return dy.reshape(len(dy), *(1,) * axes, dy.shape[-1])
