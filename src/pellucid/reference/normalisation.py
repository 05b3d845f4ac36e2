"""Batch normalisation: each channel gets mean 0 and variance 1, then a learned scale and shift. Local response
normalisation: each value is divided by a power of the energy around it.

(Ioffe and Szegedy, "Batch normalization", 2015.) Batch statistics are a channel's, over images and positions: over
every axis but the last. Vectors a channel have shape (C,).
"""

from __future__ import annotations

import numpy as np

from .arrays import float64


def batch_moments(x) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of each channel of a batch. The variance divides by the count (it is biased).

    Raises ValueError if the batch is empty.
    """
    x = float64(x)
    if x.size == 0:
        raise ValueError(f"the moments of an empty batch are not defined, got shape {x.shape}")
    mean = x.mean(axis=_others(x))
    return mean, ((x - mean) ** 2).mean(axis=_others(x))


def batch_norm(x, weight, bias, mean, var, eps: float) -> np.ndarray:
    """weight (x - mean) / sqrt(var + eps) + bias.

    `mean` and `var` are the batch's own moments while training, running estimates of them afterwards.
    """
    return float64(weight) * _standardise(x, mean, var, eps) + float64(bias)


def batch_norm_grad(x, weight, dy, eps: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradients of `batch_norm` to (x, weight, bias) while training.

    There mean and var are functions of x. Through the mean, what is common to all of a channel's gradients is
    lost; through the variance, what is proportional to the standardised input.
    """
    x, weight, dy = float64(x), float64(weight), float64(dy)
    mean, var = batch_moments(x)
    z = _standardise(x, mean, var, eps)
    common = dy.mean(axis=_others(x))
    proportional = (dy * z).mean(axis=_others(x))
    dx = weight / np.sqrt(var + eps) * (dy - common - z * proportional)
    return dx, (dy * z).sum(axis=_others(x)), dy.sum(axis=_others(x))


def batch_norm_inference_grad(x, weight, mean, var, eps: float, dy) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradients of `batch_norm` to (x, weight, bias) with fixed `mean` and `var`."""
    dy = float64(dy)
    z = _standardise(x, mean, var, eps)
    dx = dy * (float64(weight) / np.sqrt(float64(var) + eps))
    return dx, (dy * z).sum(axis=_others(dy)), dy.sum(axis=_others(dy))


def lrn(x, size: int, *, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> np.ndarray:
    """x / (k + alpha / size * sum of x^2 over the `size` channels around each)^beta, at each position alone.

    (Krizhevsky, Sutskever and Hinton, "ImageNet classification with deep convolutional neural networks", 2012, section
    3.3, where alpha is not divided by the size.) Raises ValueError unless `size` is odd.
    """
    x = float64(x)
    return x * _energy(x, size, alpha, k) ** -beta


def lrn_grad(x, dy, size: int, *, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> np.ndarray:
    """Gradient of `lrn` to its input: its own, and through the sums of all channels whose windows it stands in."""
    x, dy = float64(x), float64(dy)
    s = _energy(x, size, alpha, k)
    through = _around(dy * x * s ** (-beta - 1), size)
    return dy * s**-beta - 2 * alpha * beta / size * x * through


def _energy(x: np.ndarray, size: int, alpha: float, k: float) -> np.ndarray:
    return k + alpha / size * _around(x**2, size)


def _around(x: np.ndarray, size: int) -> np.ndarray:
    """The sum over the `size` channels around each; there are zeros beyond the first and the last."""
    if size < 1 or size % 2 == 0:
        raise ValueError(f"size must be odd, so that a channel has as many neighbours on either side, got {size!r}")
    y = np.zeros_like(x)
    for channel in range(x.shape[-1]):
        window = slice(max(channel - size // 2, 0), channel + size // 2 + 1)
        y[..., channel] = x[..., window].sum(axis=-1)
    return y


def _standardise(x, mean, var, eps: float) -> np.ndarray:
    return (float64(x) - float64(mean)) / np.sqrt(float64(var) + eps)


def _others(x: np.ndarray) -> tuple[int, ...]:
    """All axes but the channels'."""
    return tuple(range(x.ndim - 1))
