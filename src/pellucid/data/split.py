"""Training, validation and test images: stratified, seeded, never overlapping, no image and its copy on two sides.

The test set is the data set's own where it has one, else a quarter held out; validation is the source's own where it
sets images aside, else a tenth of what remains, at most 1,000 or 20 a class: more tells hardly more of a model, and
training has better use for them. Of what is held out here, every class is in every part. Images that
must stay together (the data set's `groups`, or else copies of one another) count as one; the shares are shares of
these. A training image that must stay together with one of the source's own test or validation is in no part.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, prod

import numpy as np

from . import duplicates
from .dataset import DataError, Dataset

TEST_FRACTION, VALIDATION_FRACTION = 0.25, 0.1
MOST_VALIDATION, MOST_OF_CLASS = 1000, 20  # the larger of the two counts


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

    def take(self, rows: np.ndarray) -> Part:
        """Some of the part's images, by their places in it."""
        images = Rows(self.images, rows) if isinstance(self.images, Rows) else self.images[rows]
        return Part(images, self.labels[rows], self.indices[rows])


@dataclass(frozen=True, eq=False)
class Dropped:
    """Images in no part, as ascending indices: copies of what the source brings for the test or for validation.

    `of_test` may have been training or validation images; `of_validation` were training images.
    """

    of_test: np.ndarray
    of_validation: np.ndarray

    def __len__(self) -> int:
        return len(self.of_test) + len(self.of_validation)


@dataclass(frozen=True, eq=False)
class Split:
    """The three parts of a data set, with its name and classes; `dataset` is that itself.

    `groups`: int64 (N,), equal for images that were kept together, the index of the first of them; `dropped`: the
    images that are in no part.
    """

    name: str
    classes: list[str]
    train: Part
    validation: Part
    test: Part
    groups: np.ndarray
    dropped: Dropped
    dataset: Dataset

    def files(self, part: str) -> list[str] | None:
        """The files behind the images of "train", "validation" or "test"; None where there are none."""
        own_test = part == "test" and self.dataset.has_test
        pictures = self.dataset.test_pictures if own_test else self.dataset.pictures
        return pictures and [pictures.files[i] for i in getattr(self, part).indices]


def split(dataset: Dataset, seed: int = 0) -> Split:
    """Split a data set; the same seed gives the same parts.

    Raises DataError, naming the class, where one has too few images (copies counted once) for one in each part that is
    held out here, and where no validation image of the source's own is left.
    """
    dataset.require_two_classes()
    groups, of_test = _kept_together(dataset)
    own = np.zeros(len(groups), bool)
    if dataset.validation is not None:
        own[dataset.validation] = True
    of_validation = np.isin(groups, groups[own]) & ~own & ~of_test
    validation = np.flatnonzero(own & ~of_test)
    if own.any() and not len(validation):
        raise DataError(f"{dataset.name}: every validation image is also a test image; put others into validation, or "
                        "leave it out and a part of the training images is set aside")
    train = np.flatnonzero(~(own | of_test | of_validation))

    unit, labels = _units(groups[train], dataset.labels[train], len(dataset.classes))
    wanted = ["training", *["validation"] * (not own.any()), *["test"] * (not dataset.has_test)]
    _require_enough(dataset, own, labels, wanted)
    rest = np.arange(len(labels))
    if dataset.has_test:
        test = Part(dataset.test_images, dataset.test_labels, np.arange(len(dataset.test_labels)))
    else:
        rest, held_out = _hold_out(rest, labels, ceil(TEST_FRACTION * len(rest)), seed)
        test = _part(dataset, train[np.isin(unit, held_out)])
    if not own.any():
        most = max(MOST_VALIDATION, MOST_OF_CLASS * len(dataset.classes))
        rest, held_out = _hold_out(rest, labels, min(ceil(VALIDATION_FRACTION * len(rest)), most), seed)
        validation = train[np.isin(unit, held_out)]
    return Split(dataset.name, list(dataset.classes), _part(dataset, train[np.isin(unit, rest)]),
                 _part(dataset, validation), test, groups,
                 Dropped(np.flatnonzero(of_test), np.flatnonzero(of_validation)), dataset)


def _kept_together(dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """(groups, each called by its first image; which images share a group with a copy of a test image)."""
    count, groups = len(dataset.labels), dataset.groups
    copied = np.zeros(count, bool)
    if groups is not None:
        _, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
        groups = first[inverse]
    if groups is None or dataset.has_test:
        same = duplicates.exact(dataset.images, *[dataset.test_images] * dataset.has_test)
        groups = same[:count] if groups is None else groups
        copied = np.isin(same[:count], same[count:])
    return groups, np.isin(groups, groups[copied])


def _units(groups: np.ndarray, labels: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """(which unit each image is of, the label of each unit); units are groups in the order of their first image.

    A unit with images of several classes counts for the rarest of them, measured in units.
    """
    _, unit = np.unique(groups, return_inverse=True)
    unit_of, label = np.divmod(np.unique(unit * classes + labels), classes)
    rarest_first = np.lexsort((np.bincount(label, minlength=classes)[label], unit_of))
    first = np.unique(unit_of[rarest_first], return_index=True)[1]
    return unit, label[rarest_first][first]


def _require_enough(dataset: Dataset, own: np.ndarray, labels: np.ndarray, wanted: list[str]) -> None:
    """Raise DataError unless every class has a unit for each of the parts that are `wanted`."""
    counts = np.bincount(labels, minlength=len(dataset.classes))
    if counts.min() >= len(wanted):
        return
    rarest = int(counts.argmin())
    images = int(np.count_nonzero(dataset.labels[~own] == rarest))
    found = f"{images} image{'s' * (images != 1)}" + " outside its validation images" * bool(own.any())
    if images != counts[rarest]:
        found += f", of which {counts[rarest]} can be used (the others are copies, or belong together)"
    parts = " and ".join(filter(None, [", ".join(wanted[:-1]), wanted[-1]]))
    need = f"need one each, {len(wanted)} together" if len(wanted) > 1 else "needs one"
    raise DataError(f"{dataset.name}: class {dataset.classes[rarest]!r} has {found}, but {parts} {need}; add images or "
                    "leave the class out")


def _part(dataset: Dataset, indices: np.ndarray) -> Part:
    images = dataset.images
    rows = Rows(images, indices) if isinstance(images, np.memmap) else images[indices]
    return Part(rows, dataset.labels[indices], indices)


def _hold_out(indices: np.ndarray, labels: np.ndarray, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(kept, held out), each in ascending order: `size` of them, and of every class at least one, are held out."""
    from sklearn.model_selection import train_test_split  # takes a second, so only where it is needed

    classes = np.unique(labels[indices])
    kept, out = train_test_split(
        indices, test_size=max(size, len(classes)), stratify=labels[indices], random_state=seed % 2**32, shuffle=True
    )
    # Stratified shares are rounded, for a rare class perhaps to none: then its first in the shuffled order moves.
    for missing in np.setdiff1d(classes, labels[out]):
        moved = np.flatnonzero(labels[kept] == missing)[:1]
        out, kept = np.append(out, kept[moved]), np.delete(kept, moved)
    return np.sort(kept), np.sort(out)
