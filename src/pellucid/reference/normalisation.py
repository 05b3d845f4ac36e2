"""Batch normalisation: each channel gets mean 0 and variance 1, then a learned scale and shift.

(Ioffe and Szegedy, "Batch normalization", 2015.) Statistics are a channel's, over images and positions: over
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


def _standardise(x, mean, var, eps: float) -> np.ndarray:
    return (float64(x) - float64(mean)) / np.sqrt(float64(var) + eps)


def _others(x: np.ndarray) -> tuple[int, ...]:
    """All axes but the channels'."""
    return tuple(range(x.ndim - 1))
