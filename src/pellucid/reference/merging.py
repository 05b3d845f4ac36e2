"""Where branches meet: the sum of a residual block, and concatenation along the channels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .arrays import float64, require_shape


def add(*xs) -> np.ndarray:
    """The sum of arrays of one shape. Its gradient to each of them is `dy` itself."""
    y = np.zeros(np.shape(xs[0]))
    for x in xs:
        x = float64(x)
        require_shape("an input of add", x, y.shape)
        y += x
    return y


def concat(*xs) -> np.ndarray:
    """Channels of all inputs, one after another: (..., C1), (..., C2), ... -> (..., C1 + C2 + ...)."""
    return np.concatenate([float64(x) for x in xs], axis=-1)


def split(dy, channels: Sequence[int]) -> list[np.ndarray]:
    """Gradient of `concat`: `dy` cut along its last axis into parts of so many channels each."""
    dy = float64(dy)
    if dy.shape[-1] != sum(channels):
        raise ValueError(f"channels {tuple(channels)} sum to {sum(channels)}, but dy has {dy.shape[-1]}")
    ends = np.cumsum(channels)
    return [dy[..., end - n : end] for n, end in zip(channels, ends, strict=True)]
