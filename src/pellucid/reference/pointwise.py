"""Functions of one number, applied to every number of an array, and their derivatives times `dy`.

Arrays may have any shape; results have the same.
"""

from __future__ import annotations

from math import erfc, pi, sqrt

import numpy as np

from .arrays import float64

_erfc = np.vectorize(erfc, otypes=[np.float64])  # numpy has no error function


def relu(x) -> np.ndarray:
    """max(x, 0)."""
    return np.maximum(float64(x), 0)


def relu_grad(x, dy) -> np.ndarray:
    """`dy` where x > 0. The derivative at 0, where there is none, is taken as 0."""
    return np.where(float64(x) > 0, float64(dy), 0)


def leaky_relu(x, slope: float = 0.01) -> np.ndarray:
    """x where x > 0, slope times x elsewhere."""
    x = float64(x)
    return np.where(x > 0, x, slope * x)


def leaky_relu_grad(x, dy, slope: float = 0.01) -> np.ndarray:
    """`dy` where x > 0, slope times `dy` elsewhere, 0 included."""
    dy = float64(dy)
    return np.where(float64(x) > 0, dy, slope * dy)


def clip(x, low: float | None = None, high: float | None = None) -> np.ndarray:
    """min(max(x, low), high); None is no bound."""
    x = float64(x)
    x = x if low is None else np.where(x < low, low, x)
    return x if high is None else np.where(x > high, high, x)


def clip_grad(x, dy, low: float | None = None, high: float | None = None) -> np.ndarray:
    """`dy` where x lies within the bounds, the bounds included, 0 elsewhere."""
    x, dy = float64(x), float64(dy)
    dy = dy if low is None else np.where(x < low, 0, dy)
    return dy if high is None else np.where(x > high, 0, dy)


def sigmoid(x) -> np.ndarray:
    """1 / (1 + exp(-x)), written so that nothing overflows."""
    x = float64(x)
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, e) / (1 + e)


def sigmoid_grad(x, dy) -> np.ndarray:
    """s' = s (1 - s), and 1 - s(x) is s(-x)."""
    return float64(dy) * sigmoid(x) * sigmoid(-float64(x))


def tanh(x) -> np.ndarray:
    """(exp(x) - exp(-x)) / (exp(x) + exp(-x))."""
    return np.tanh(float64(x))


def tanh_grad(x, dy) -> np.ndarray:
    """tanh' = 1 - tanh^2."""
    return float64(dy) * (1 - tanh(x) ** 2)


def scaled_tanh(x, amplitude: float, slope: float) -> np.ndarray:
    """amplitude tanh(slope x)."""
    return amplitude * np.tanh(slope * float64(x))


def scaled_tanh_grad(x, dy, amplitude: float, slope: float) -> np.ndarray:
    """amplitude slope (1 - tanh^2)."""
    return amplitude * slope * tanh_grad(slope * float64(x), dy)


def silu(x) -> np.ndarray:
    """x times sigmoid(x) (Elfwing et al., "Sigmoid-weighted linear units", 2017; also called swish)."""
    return float64(x) * sigmoid(x)


def silu_grad(x, dy) -> np.ndarray:
    """(x s)' = s + x s (1 - s)."""
    x = float64(x)
    return float64(dy) * sigmoid(x) * (1 + x * sigmoid(-x))


def gelu(x) -> np.ndarray:
    """x times P(Z <= x) for a standard normal Z (Hendrycks and Gimpel, "Gaussian error linear units", 2016).

    The exact form with the error function, not the tanh approximation.
    """
    x = float64(x)
    return x * _normal_cdf(x)


def gelu_grad(x, dy) -> np.ndarray:
    """(x P)' = P + x p, with p the standard normal density."""
    x = float64(x)
    density = np.exp(-(x**2) / 2) / sqrt(2 * pi)
    return float64(dy) * (_normal_cdf(x) + x * density)


def dropout(x, mask, rate: float) -> np.ndarray:
    """x / (1 - rate) where `mask` is true, 0 elsewhere, so that the mean stays when a share `rate` is dropped.

    (Srivastava et al., "Dropout", 2014, with the scaling done while training.) `mask` has x's shape. Raises
    ValueError unless 0 <= rate < 1.
    """
    if not 0 <= rate < 1:
        raise ValueError(f"rate must be at least 0 and below 1, got {rate!r}")
    return np.where(mask, float64(x) / (1 - rate), 0)


def dropout_grad(dy, mask, rate: float) -> np.ndarray:
    """Gradient of `dropout` to its input: the same mask and factor, applied to `dy`."""
    return dropout(dy, mask, rate)


def _normal_cdf(x: np.ndarray) -> np.ndarray:
    """P(Z <= x); erfc keeps its digits for very negative x, where 1 + erf would lose them."""
    return _erfc(-x / sqrt(2)) / 2
