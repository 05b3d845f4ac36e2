"""Two things every definition needs: float64, and a check that shapes fit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def float64(x) -> np.ndarray:
    return np.asarray(x, np.float64)


def require_shape(name: str, x: np.ndarray, expected: Sequence[int]) -> None:
    """Raise ValueError unless `x` has the expected shape."""
    if x.shape != tuple(expected):
        raise ValueError(f"{name} has shape {x.shape}, expected {tuple(expected)}")
