"""A blurred image: what is left of a picture when its details are gone."""

from __future__ import annotations

import numpy as np


def blurred(image: np.ndarray, sigma: float) -> np.ndarray:
    """(H, W, C) or (L, C) convolved with a Gaussian of standard deviation `sigma` pixels along each spatial axis.

    The border's pixels count for what is beyond it. uint8 stays uint8, rounded.
    """
    from scipy.ndimage import gaussian_filter

    found = gaussian_filter(image.astype(np.float32), (*[sigma] * (image.ndim - 1), 0), mode="nearest")
    return np.rint(found).astype(np.uint8) if image.dtype == np.uint8 else found
