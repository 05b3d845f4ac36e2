"""Training, validation and test images: stratified, seeded, never overlapping.

The test set is the data set's own where it has one, else a quarter held out; validation is a tenth of what
remains. Every class is in every part.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, prod

import numpy as np

from .dataset import DataError, Dataset

TEST_FRACTION, VALIDATION_FRACTION = 0.25, 0.1


class Rows:
    """Some images of an array, which may be a file larger than memory: read when they are asked for.

    `rows[i]` for an integer, a slice or an array of integers gives an ordinary array of those images.
    """

    def __init__(self, images: np.ndarray, indices: np.ndarray):
        self._images, self._indices = images, indices
        self.shape, self.dtype, self.ndim = (len(indices), *images.shape[1:]), images.dtype, images.ndim

    @property
    def size(self) -> int:
        return prod(self.shape)

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, key) -> np.ndarray:
        return np.asarray(self._images[self._indices[key]])

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return np.asarray(self[:], dtype)


@dataclass(frozen=True, eq=False)
class Part:
    """Images (n, H, W, C) uint8 (an array or `Rows`), labels (n,) int32, and where each stands in the data set.

    `indices` count in the data set's images, or in its test images where it brings a test set of its own.
    """

    images: np.ndarray | Rows
    labels: np.ndarray
    indices: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class Split:
    """The three parts of a data set, with its name and classes."""

    name: str
    classes: list[str]
    train: Part
    validation: Part
    test: Part


def split(dataset: Dataset, seed: int = 0) -> Split:
    """Split a data set; the same seed gives the same parts.

    Raises DataError, naming the class, where one has too few images for one in each part.
    """
    needed = 2 if dataset.has_test else 3
    counts = np.bincount(dataset.labels, minlength=len(dataset.classes))
    if counts.min() < needed:
        rarest = int(counts.argmin())
        parts = "training and validation" if dataset.has_test else "training, validation and test"
        raise DataError(
            f"{dataset.name}: class {dataset.classes[rarest]!r} has {counts[rarest]} image"
            f"{'s' * bool(counts[rarest] != 1)}, but {parts} need one each, {needed} together; add images or leave "
            "the class out"
        )
    rest = np.arange(len(dataset.labels))
    if dataset.has_test:
        test = Part(dataset.test_images, dataset.test_labels, np.arange(len(dataset.test_labels)))
    else:
        rest, held_out = _hold_out(rest, dataset.labels, TEST_FRACTION, seed)
        test = _part(dataset, held_out)
    rest, validation = _hold_out(rest, dataset.labels, VALIDATION_FRACTION, seed)
    return Split(dataset.name, list(dataset.classes), _part(dataset, rest), _part(dataset, validation), test)


def _part(dataset: Dataset, indices: np.ndarray) -> Part:
    images = dataset.images
    rows = Rows(images, indices) if isinstance(images, np.memmap) else images[indices]
    return Part(rows, dataset.labels[indices], indices)


def _hold_out(indices: np.ndarray, labels: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(kept, held out), each in ascending order; of every class at least one is held out."""
    from sklearn.model_selection import train_test_split  # takes a second, so only where it is needed

    classes = np.unique(labels[indices])
    size = max(ceil(fraction * len(indices)), len(classes))
    kept, out = train_test_split(
        indices, test_size=size, stratify=labels[indices], random_state=seed % 2**32, shuffle=True
    )
    # Stratified shares are rounded, for a rare class perhaps to none: then its first in the shuffled order moves.
    for missing in np.setdiff1d(classes, labels[out]):
        moved = np.flatnonzero(labels[kept] == missing)[:1]
        out, kept = np.append(out, kept[moved]), np.delete(kept, moved)
    return np.sort(kept), np.sort(out)
