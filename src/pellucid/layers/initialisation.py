"""How weights start. Each function returns an `Initialiser`: (generator, shape) -> float32 array.

Shapes are PyTorch's: (O, I / groups, kh, kw) or (O, I). Fan-in is the number of inputs to one output, fan-out
the number of outputs one input reaches.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod, sqrt

import numpy as np

Initialiser = Callable[["np.random.Generator", tuple[int, ...]], np.ndarray]  # numpy.random is slow to import


def fans(shape: tuple[int, ...], groups: int = 1) -> tuple[int, int]:
    """(fan-in, fan-out) of a weight."""
    taps = prod(shape[2:])
    return shape[1] * taps, shape[0] // groups * taps


def zeros(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return np.zeros(shape, np.float32)


def ones(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return np.ones(shape, np.float32)


def uniform(bound: float) -> Initialiser:
    """Uniform in [-bound, bound]."""
    return lambda rng, shape: rng.uniform(-bound, bound, shape).astype(np.float32)


def normal(deviation: float) -> Initialiser:
    """Normal with mean 0."""
    return lambda rng, shape: (rng.standard_normal(shape, np.float32) * np.float32(deviation)).astype(np.float32)


def weight(scheme: str, shape: tuple[int, ...], groups: int = 1) -> Initialiser:
    """The initialiser of a weight under a scheme.

    - "he": normal with variance 2 / fan-in (He et al., "Delving deep into rectifiers", 2015, eq. 10).
    - "glorot": uniform with variance 2 / (fan-in + fan-out) (Glorot and Bengio, "Understanding the difficulty of
      training deep feedforward neural networks", 2010, eq. 16).
    - "pytorch": uniform with bound 1 / sqrt(fan-in), what torch.nn.Conv2d and torch.nn.Linear do.
    - "whitening": as "he", until training sets them from its images (`pellucid.training.whitening`).

    Raises ValueError for another name.
    """
    fan_in, fan_out = fans(shape, groups)
    if scheme in ("he", "whitening"):
        return normal(sqrt(2 / fan_in))
    if scheme == "glorot":
        return uniform(sqrt(6 / (fan_in + fan_out)))
    if scheme == "pytorch":
        return uniform(1 / sqrt(fan_in))
    raise ValueError(f'init must be "he", "glorot", "pytorch" or "whitening", got {scheme!r}')


def bias(scheme: str, fan_in: int) -> Initialiser:
    """Zeros, except under "pytorch", which draws biases with the weights' bound."""
    return uniform(1 / sqrt(fan_in)) if scheme == "pytorch" else zeros
