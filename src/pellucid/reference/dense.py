"""The fully-connected layer, and the flattening that leads from an image to it."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from .arrays import float64, require_shape


def dense(x, w, bias=None) -> np.ndarray:
    """Each unit is a dot product: `y[n, o] = bias[o] + sum over i of w[o, i] x[n, i]`.

    `x` is (N, I), `w` (O, I), `bias` (O,) or None for zero; returns (N, O). Raises ValueError if shapes do not fit.
    """
    x, w = float64(x), float64(w)
    if x.ndim != 2 or w.ndim != 2 or x.shape[1] != w.shape[1]:
        raise ValueError(f"dense needs x (N, I) and w (O, I), got shapes {x.shape} and {w.shape}")
    y = np.zeros((len(x), len(w)))
    for o in range(len(w)):
        y[:, o] = x @ w[o]
    if bias is not None:
        bias = float64(bias)
        require_shape("bias", bias, (len(w),))
        y += bias
    return y


def dense_grad(x, w, dy) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradients of `dense` to its input (N, I), weight (O, I) and bias (O,), given `dy` (N, O)."""
    x, w, dy = float64(x), float64(w), float64(dy)
    require_shape("dy", dy, (len(x), len(w)))
    dx, dw = np.zeros_like(x), np.zeros_like(w)
    for o in range(len(w)):
        dx += dy[:, o, None] * w[o]
        dw[o] = dy[:, o] @ x
    return dx, dw, dy.sum(axis=0)


def flatten(x) -> np.ndarray:
    """(N, H, W, C) -> (N, C H W): one row an image, the channel slowest, as PyTorch orders it.

    Signals (N, L, C) become (N, C L), feature vectors stay.
    """
    x = float64(x)
    return np.moveaxis(x, -1, 1).reshape(len(x), prod(x.shape[1:]))


def unflatten(dy, shape: Sequence[int]) -> np.ndarray:
    """Undo `flatten`, which is also its gradient: (N, C H W) -> (N, H, W, C). `shape` is one image's (H, W, C)."""
    dy = float64(dy)
    *spatial, channels = shape
    require_shape("dy", dy, (len(dy), prod(shape)))
    return np.moveaxis(dy.reshape(len(dy), channels, *spatial), 1, -1)
