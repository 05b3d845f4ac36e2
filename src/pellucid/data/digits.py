"""The embedded default: the 1,797 scanned digits that scikit-learn ships (8x8 pixels, classes 0 to 9).

They are the test half of "Optical Recognition of Handwritten Digits" (E. Alpaydin and C. Kaynak, UCI, 1998): 32x32
bitmaps counted in blocks of 4x4, hence pixels from 0 to 16.
"""

from __future__ import annotations

import numpy as np

from .dataset import Dataset


def load_digits() -> Dataset:
    """The digits as uint8 (1797, 8, 8, 1): a pixel v of 0..16 becomes 255 v / 16, rounded half to even."""
    from sklearn.datasets import load_digits as load  # takes a second, so only where it is needed

    bunch = load()
    pixels = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    return Dataset("digits", pixels[..., np.newaxis], bunch.target.astype(np.int32), [str(d) for d in range(10)])
