"""Whether probabilities can be believed: of images named with a probability of 0.8, eight in ten should be right.

Images are sorted into bins by the probability of the class they are given. A bin's gap is the distance between its
share of right answers and its mean probability; the expected calibration error (ECE) is the mean gap, bins weighted by
their images. With bins of equal width: Naeini, Cooper and Hauskrecht, "Obtaining well calibrated probabilities using
Bayesian binning", 2015; Guo et al., "On calibration of modern neural networks", 2017, whose 15 bins are taken here.
With bins of equally many images: Nixon et al., "Measuring calibration in deep learning", 2019.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BINS = 15


@dataclass(frozen=True)
class Bin:
    """Images whose probability lies above `low` and up to `high`: how many, its mean, and the share that is right."""

    low: float
    high: float
    count: int
    confidence: float | None  # these two are None for a bin without images
    accuracy: float | None


def bin_numbers(confidence: np.ndarray, count: int = BINS) -> np.ndarray:
    """(N,), which of `count` bins of equal width, each closed above, a probability lies in."""
    return np.clip(np.ceil(np.nan_to_num(confidence) * count) - 1, 0, count - 1).astype(np.intp)


def equal_width(confidence: np.ndarray, correct: np.ndarray, count: int = BINS) -> list[Bin]:
    """The reliability curve: `count` bins of equal width from 0 to 1."""
    numbers = bin_numbers(confidence, count)
    return [_bin(i / count, (i + 1) / count, confidence[numbers == i], correct[numbers == i]) for i in range(count)]


def equal_mass(confidence: np.ndarray, correct: np.ndarray, count: int = BINS) -> list[Bin]:
    """`count` bins (fewer for fewer images) of equally many images, up to one."""
    order = np.argsort(confidence, kind="stable")
    runs = np.array_split(order, min(count, len(order)))
    edges = [0.0, *(float(confidence[run[-1]]) for run in runs)]
    return [_bin(edges[i], edges[i + 1], confidence[run], correct[run]) for i, run in enumerate(runs)]


def calibration_error(bins: list[Bin]) -> float:
    """The mean of |accuracy - confidence| over the images of all bins."""
    gaps = sum(b.count * abs(b.accuracy - b.confidence) for b in bins if b.count)
    return gaps / sum(b.count for b in bins)


def _bin(low: float, high: float, confidence: np.ndarray, correct: np.ndarray) -> Bin:
    if not len(confidence):
        return Bin(low, high, 0, None, None)
    return Bin(low, high, len(confidence), float(confidence.mean()), float(correct.mean()))
