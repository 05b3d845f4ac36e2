"""Whether two maps over one image say the same."""

from __future__ import annotations

import numpy as np

PART = 0.25  # of an image, that is compared
AGREE = 0.5  # of that, at least so much is shared where two maps agree; by chance it is PART


def overlap(first: np.ndarray, second: np.ndarray, part: float = PART) -> float | None:
    """What two maps (H, W) share of the part of the image that matters most to each: from 0 to 1, by chance `part`.

    That part are the pixels of the highest values, as many as `part` of the image, but none where the map is not above
    zero; where one map has fewer, so many of the other are compared. None where a map is nowhere above zero: it names
    no part. Raises ValueError for maps of two sizes.
    """
    if first.shape != second.shape:
        raise ValueError(f"maps over one image have one size, got {first.shape} and {second.shape}")
    count = min(max(int(part * first.size), 1), *(int((m > 0).sum()) for m in (first, second)))
    if not count:
        return None
    tops = [np.argsort(-m, axis=None, kind="stable")[:count] for m in (first, second)]
    return len(np.intersect1d(*tops)) / count
