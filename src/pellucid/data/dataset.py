"""What every source of images becomes: uint8 images, integer labels, class names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np


class DataError(ValueError):
    """Data that cannot be used. The message is one line: what was found, what was expected, how to mend it."""


@dataclass(frozen=True, eq=False)
class Pictures:
    """The files that images were made of, in their order, and what they were before they were brought to one size.

    files: their names, as people know them; sizes: int32 (N, 2), height and width; modes: Pillow's ("RGB", "L", ...);
    path: the folder, archive or table that lists them, where it is known.
    """

    files: tuple[str, ...]
    sizes: np.ndarray
    modes: tuple[str, ...]
    path: Path | None = None


@dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled images. Raises DataError where the parts do not fit together.

    images: uint8 (N, H, W, C), C from 1 to 4, in memory or a read-only map of a file; labels: int32 (N,), an index
    into `classes`; `test_images` and `test_labels`: the test set that the source brings itself, or None.
    `validation`: which of the images the source itself sets aside for validation, ascending, or None.
    `groups`: int64 (N,), equal for images that a split must keep together, or None. `pictures` and `test_pictures`:
    the files behind the images, where there are such. `left_out`: (file, why) for files that were not used. `fit`:
    how pictures of other proportions were brought to the size, see `Preprocessing`. `digest`: a short text that
    differs for other contents, where the source knows one without reading all images. `partial`: whether classes may be
    without an image, or one stand alone, which is good to look at and to evaluate on, but not to train on.
    `notes`: what people should know of how it was read, a line each.
    """

    name: str
    images: np.ndarray
    labels: np.ndarray
    classes: list[str]
    test_images: np.ndarray | None = None
    test_labels: np.ndarray | None = None
    validation: np.ndarray | None = None
    groups: np.ndarray | None = None
    pictures: Pictures | None = None
    test_pictures: Pictures | None = None
    left_out: tuple[tuple[str, str], ...] = ()
    fit: str = "stretch"
    digest: str | None = None
    partial: bool = False
    notes: tuple[str, ...] = ()

    def __post_init__(self):
        if not self.partial:
            self.require_two_classes()
        if len(set(self.classes)) != len(self.classes):
            twice = next(c for c in self.classes if self.classes.count(c) > 1)
            raise DataError(f"{self.name}: two classes are called {twice!r}; give each its own name")
        if (self.test_images is None) != (self.test_labels is None):
            missing = "labels" if self.test_labels is None else "images"
            raise DataError(f"{self.name}: the test set has no {missing}; give both or neither")
        self._check("", self.images, self.labels)
        absent = np.flatnonzero(np.bincount(self.labels, minlength=len(self.classes)) == 0)
        if len(absent) and not self.partial:
            raise DataError(
                f"{self.name}: class {self.classes[absent[0]]!r} (label {absent[0]}) has no image; labels must run "
                f"from 0 to {len(self.classes) - 1} without a gap: renumber them"
            )
        if self.has_test:
            self._check("test ", self.test_images, self.test_labels)
            if self.test_images.shape[1:] != self.images.shape[1:]:
                raise DataError(
                    f"{self.name}: test images are {self.test_images.shape[1:]} (height, width, channels), the "
                    f"others {self.images.shape[1:]}; make them the same size"
                )

    def require_two_classes(self) -> None:
        """Raise DataError where there is nothing to tell apart."""
        if len(self.classes) < 2:
            raise DataError(f"{self.name}: found {len(self.classes)} class, a classifier needs at least 2")

    def _check(self, part: str, images: np.ndarray, labels: np.ndarray) -> None:
        if images.dtype != np.uint8 or images.ndim != 4 or 0 in images.shape or images.shape[3] > 4:
            raise DataError(
                f"{self.name}: {part}images must be uint8 of shape (N, H, W, C) with at least one image and 1 to 4 "
                f"channels, got {images.dtype} {images.shape}"
            )
        if labels.dtype != np.int32 or labels.shape != images.shape[:1]:
            raise DataError(
                f"{self.name}: {len(images)} {part}images need as many int32 labels, got {labels.dtype} {labels.shape}"
            )
        if labels.min() < 0 or labels.max() >= len(self.classes):
            wrong = labels.min() if labels.min() < 0 else labels.max()
            raise DataError(
                f"{self.name}: {part}label {wrong} is out of range; with {len(self.classes)} classes labels run from "
                f"0 to {len(self.classes) - 1}"
            )

    @property
    def has_test(self) -> bool:
        """Whether the source brought a test set of its own."""
        return self.test_images is not None

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of every image."""
        return self.images.shape[1:]
