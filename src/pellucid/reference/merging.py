"""Where branches meet: the sum of a residual block, and concatenation along the channels. And what only rearranges:
channels taken, padded and in another order, zeros around a map."""

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


def take_channels(x, channels: Sequence[int]) -> np.ndarray:
    """The channels of these numbers, in this order: (..., C) -> (..., K)."""
    return float64(x)[..., list(channels)]


def take_channels_grad(dy, channels: Sequence[int], count: int) -> np.ndarray:
    """Gradient of `take_channels` to an input of `count` channels: each gets the sum of what it went to."""
    dy = float64(dy)
    dx = np.zeros((*dy.shape[:-1], count))
    for k, c in enumerate(channels):
        dx[..., c] += dy[..., k]
    return dx


def pad_channels(x, channels: int) -> np.ndarray:
    """Zeros after the channels, up to so many. Its gradient is the first channels of `dy`."""
    x = float64(x)
    return concat(x, np.zeros((*x.shape[:-1], channels - x.shape[-1])))


def channel_shuffle(x, groups: int) -> np.ndarray:
    """The channels, seen as `groups` rows, read column by column: the first of each group, then the second of each.

    (Zhang et al., "ShuffleNet", 2018, figure 1.) Its gradient is the shuffle by C / `groups`, which undoes it. Raises
    ValueError unless `groups` divides the channels.
    """
    x = float64(x)
    channels = x.shape[-1]
    if groups < 1 or channels % groups:
        raise ValueError(f"groups ({groups}) must divide the {channels} channels")
    return np.swapaxes(x.reshape(*x.shape[:-1], groups, channels // groups), -1, -2).reshape(x.shape)


def pad(x, padding: Sequence[tuple[int, int]]) -> np.ndarray:
    """Zeros around (N, H, W, C) or (N, L, C): `padding` is a pair (before, after) a spatial axis."""
    return np.pad(float64(x), [(0, 0), *padding, (0, 0)])


def pad_grad(dy, padding: Sequence[tuple[int, int]]) -> np.ndarray:
    """Gradient of `pad` to its input: `dy` without what stands over the zeros."""
    dy = float64(dy)
    inside = [slice(before, n - after) for (before, after), n in zip(padding, dy.shape[1:-1], strict=True)]
    return dy[:, *inside]
