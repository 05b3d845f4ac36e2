"""Convolution, its three gradients and its matrix.

The filter is not flipped: this is cross-correlation, which the lecture and every library call convolution.
All five functions are the same loop, for each output position and each tap of the filter there,

    y[position] += w[tap] x[source]

read for y, for x, for w, and for the matrix that holds w. Each step multiplies the channels of all
images at one place with all filters at one tap.

Hyperparameters, everywhere: `stride` and `dilation` are an integer or one an axis; `padding` is an integer, one
an axis, a pair (before, after) an axis, or "same"; `groups` cuts the channels into that many equal parts,
convolved independently (`groups` = channels is a depthwise convolution).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ..geometry import Padding, Window, output_size, per_axis, windows
from .arrays import float64, require_shape
from .sliding import meetings

Size = int | Sequence[int]


def conv(
    x, w, bias=None, *, stride: Size = 1, padding: Padding = 0, dilation: Size = 1, groups: int = 1
) -> np.ndarray:
    """Slide the filters over the images: `y[n, p, o] = bias[o] + sum over taps t and channels c of
    w[o, c, t] x[n, p * stride - padding + t * dilation, c]`, with x zero outside the image.

    Args:
        x: (N, H, W, C) or (N, L, C).
        w: filters (O, C / groups, kh, kw) or (O, C / groups, k).
        bias: (O,), or None for zero.

    Returns (N, H', W', O) or (N, L', O); a side is 0 where the window does not fit. Raises ValueError if shapes
    do not fit.
    """
    x, w = float64(x), float64(w)
    axes = _windows(w, x.shape[1:-1], stride, padding, dilation)
    _require_channels(x, w.shape, groups)
    y = np.zeros((len(x), *output_size(x.shape[1:-1], axes), len(w)))
    for position, tap, source in meetings(x.shape[1:-1], axes):
        for outs, ins in _groups(w, groups):
            y[:, *position, outs] += x[:, *source, ins] @ w[outs, :, *tap].T
    if bias is not None:
        bias = float64(bias)
        require_shape("bias", bias, (len(w),))
        y += bias
    return y


def conv_grad_input(
    dy, w, input_size: Size, *, stride: Size = 1, padding: Padding = 0, dilation: Size = 1, groups: int = 1
) -> np.ndarray:
    """Gradient of `conv` to its input: each output hands its gradient back to the inputs it saw.

    `dy` is (N, H', W', O), `input_size` the input's (H, W), or (N, L', O) and (L,). Returns (N, H, W, C) or
    (N, L, C). Raises ValueError if shapes do not fit.
    """
    dy, w = float64(dy), float64(w)
    input_size = per_axis(input_size, w.ndim - 2, "input_size")
    axes = _windows(w, input_size, stride, padding, dilation)
    require_shape("dy", dy, (*dy.shape[:1], *output_size(input_size, axes), len(w)))
    dx = np.zeros((len(dy), *input_size, w.shape[1] * groups))
    _require_channels(dx, w.shape, groups)
    for position, tap, source in meetings(input_size, axes):
        for outs, ins in _groups(w, groups):
            dx[:, *source, ins] += dy[:, *position, outs] @ w[outs, :, *tap]
    return dx


def conv_grad_weight(
    x, dy, kernel_size: Size, *, stride: Size = 1, padding: Padding = 0, dilation: Size = 1, groups: int = 1
) -> np.ndarray:
    """Gradient of `conv` to its filters: a shared weight sums what it did at every position of every image.

    `kernel_size` is (kh, kw) or (k,). Returns (O, C / groups, kh, kw) or (O, C / groups, k). Raises ValueError if
    shapes do not fit.
    """
    x, dy = float64(x), float64(dy)
    kernel_size = per_axis(kernel_size, x.ndim - 2, "kernel_size")
    dw = np.zeros((dy.shape[-1], x.shape[-1] // groups if groups > 0 else 0, *kernel_size))
    axes = _windows(dw, x.shape[1:-1], stride, padding, dilation)
    _require_channels(x, dw.shape, groups)
    require_shape("dy", dy, (len(x), *output_size(x.shape[1:-1], axes), len(dw)))
    for position, tap, source in meetings(x.shape[1:-1], axes):
        for outs, ins in _groups(dw, groups):
            dw[outs, :, *tap] += dy[:, *position, outs].T @ x[:, *source, ins]
    return dw


def conv_grad_bias(dy) -> np.ndarray:
    """Gradient of `conv` to its bias, (O,): the sum of `dy` over images and positions."""
    dy = float64(dy)
    return dy.sum(axis=tuple(range(dy.ndim - 1)))


def conv_matrix(
    w, input_size: Size, *, stride: Size = 1, padding: Padding = 0, dilation: Size = 1, groups: int = 1
) -> np.ndarray:
    """Convolution as one matrix product: the A with `conv(x)[0].ravel() == A @ x[0].ravel()`.

    A row is an output (position, filter), a column an input (position, channel), both in the arrays' own order.
    A is sparse (an output sees only its window) and repeats the same few weights (they are shared); the filter
    [1] gives the identity. Returns (H' W' O, H W C). Raises ValueError if shapes do not fit.
    """
    w = float64(w)
    input_size = per_axis(input_size, w.ndim - 2, "input_size")
    axes = _windows(w, input_size, stride, padding, dilation)
    x_shape = (*input_size, w.shape[1] * groups)
    y_shape = (*output_size(input_size, axes), len(w))
    a = np.zeros(y_shape + x_shape)
    _require_channels(a, w.shape, groups)
    for position, tap, source in meetings(input_size, axes):
        for outs, ins in _groups(w, groups):
            a[*position, outs, *source, ins] = w[outs, :, *tap]
    return a.reshape(int(np.prod(y_shape)), int(np.prod(x_shape)))


def _windows(w: np.ndarray, input_size: Sequence[int], stride, padding, dilation) -> tuple[Window, ...]:
    """The filter's window along each axis."""
    if w.ndim < 3 or w.ndim - 2 != len(input_size):
        raise ValueError(
            f"filters of shape {w.shape} do not fit an input with {len(input_size)} spatial axes; expected "
            "(O, I / groups, kh, kw) for images N, H, W, C and (O, I / groups, k) for signals N, L, C"
        )
    return windows(input_size, w.shape[2:], stride, padding, dilation)


def _require_channels(x: np.ndarray, w_shape: Sequence[int], groups: int) -> None:
    if not isinstance(groups, int) or groups < 1 or x.shape[-1] % groups or w_shape[0] % groups:
        raise ValueError(
            f"groups must divide the {x.shape[-1]} channels and the {w_shape[0]} filters, got {groups!r}"
        )
    if x.shape[-1] != w_shape[1] * groups:
        raise ValueError(
            f"the input has {x.shape[-1]} channels, but filters of shape {tuple(w_shape)} in {groups} group(s) "
            f"read {w_shape[1] * groups}"
        )


def _groups(w: np.ndarray, groups: int) -> Iterator[tuple[slice, slice]]:
    """The filters of each group and the input channels they read."""
    filters, channels = len(w) // groups, w.shape[1]
    for g in range(groups):
        yield slice(g * filters, (g + 1) * filters), slice(g * channels, (g + 1) * channels)
