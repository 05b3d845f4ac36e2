"""The written rules by which arrays become images and labels, whatever they came in.

Pixels. uint8 is taken as it is. Other integers must lie in 0..255. Floating-point pixels are either in [0, 1] and
then scaled to 0..255 and rounded (half to even), or whole numbers in 0..255, at least one above 1, and then taken as
they are. One rule holds for a whole data set: a test set comes in the same type and range as the training set.
Anything else is refused, as are NaN and infinity. (N, H, W) is read as one channel.

Labels. Integers from 0 without a gap, or texts, which become classes in sorted order.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import numpy as np

from .dataset import DataError, Dataset

MOST_CLASSES = 100_000  # that labels may number
_BLOCK = 2**22  # values looked at together, so that checks take little memory beside the data


def spread(count: int, most: int) -> np.ndarray:
    """The numbers below `count`, or `most` of them at equal distances where there are more: ascending int64."""
    return np.linspace(0, count - 1, min(count, most)).round().astype(np.int64)


def require_memory(size: int, what: str) -> None:
    """Raise DataError where an array of `size` bytes takes more than half of the machine's memory."""
    try:
        limit = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, OSError, ValueError):  # no such question on this system
        limit = 8 * 2**30
    if size > limit:
        raise DataError(f"{what} would take {size:,} bytes of memory; at most {limit:,} (half of it) are used: "
                        "give fewer or smaller images")


def to_dataset(
    name: str,
    images: np.ndarray,
    labels: np.ndarray,
    test_images: np.ndarray | None = None,
    test_labels: np.ndarray | None = None,
    classes: Sequence[str] | None = None,
    terms: Sequence[str] = ("images", "labels", "test images", "test labels"),
    partial: bool = False,
) -> Dataset:
    """A data set from arrays by the rules above; `terms` are what messages call the four arrays.

    `classes` names the integer labels; `partial` is `Dataset`'s. Raises DataError for anything the rules refuse.
    """
    what = [f"{name}: {term}" for term in terms]
    for x, y, x_what, y_what in ((images, labels, *what[:2]), (test_images, test_labels, *what[2:])):
        if (x is None) != (y is None):
            raise DataError(f"{x_what if x is None else y_what} are missing; images and labels belong together")
        if x is not None:
            _check_shapes(x, y, x_what, y_what)
    unit = _in_unit_range(images, what[0])
    numbers, classes = _to_labels(labels, classes, what[1], gaps=partial)
    if test_images is None:
        return Dataset(name, _to_pixels(images, unit, what[0]), numbers, classes, partial=partial)
    if (images.dtype.kind == "f") != (test_images.dtype.kind == "f"):
        raise DataError(f"{what[0]} are {images.dtype} but {what[2]} are {test_images.dtype}; save both in one type")
    if _in_unit_range(test_images, what[2]) != unit:
        ranges = ("[0, 1]", "0..255") if unit else ("0..255", "[0, 1]")
        raise DataError(f"{what[0]} lie in {ranges[0]} but {what[2]} in {ranges[1]}; scale both alike")
    test_numbers, _ = _to_labels(test_labels, classes, what[3], known=labels.dtype.kind in "US")
    return Dataset(name, _to_pixels(images, unit, what[0]), numbers, classes,
                   _to_pixels(test_images, unit, what[2]), test_numbers, partial=partial)


def to_images(what: str, images: np.ndarray) -> np.ndarray:
    """Images without labels by the rules above, as uint8 (N, H, W, C); `what` is what messages call them."""
    _check_shapes(images, np.zeros(images.shape[:1]), what, f"{what}: labels")
    return _to_pixels(images, _in_unit_range(images, what), what)


def _check_shapes(images: np.ndarray, labels: np.ndarray, images_what: str, labels_what: str) -> None:
    shape = images.shape
    if images.ndim not in (3, 4):
        hint = "; reshape each row to its height and width" if images.ndim == 2 else ""
        raise DataError(f"{images_what} must have the shape (N, H, W) or (N, H, W, C), got {shape}{hint}")
    if 0 in shape:
        raise DataError(f"{images_what} are empty, of shape {shape}; expected at least one image of one pixel")
    if images.ndim == 4 and shape[3] not in (1, 2, 3, 4):
        hint = "; channels come last here: transpose(0, 2, 3, 1)" if shape[1] in (1, 2, 3, 4) else ""
        raise DataError(f"{images_what} of shape {shape} have {shape[3]} channels, expected 1 to 4{hint}")
    if images.dtype.kind not in "uif":
        raise DataError(f"{images_what} must be numbers (uint8 at best), got {images.dtype}")
    if labels.ndim == 2 and labels.shape[1] > 1:
        raise DataError(f"{labels_what} must be one number an image, got the shape {labels.shape}; "
                        "if they are one-hot, save labels.argmax(axis=1)")
    if labels.ndim not in (1, 2) or labels.shape[1:] not in ((), (1,)):
        raise DataError(f"{labels_what} must have the shape (N,), got {labels.shape}")
    if len(labels) != len(images):
        raise DataError(f"{images_what} are {len(images)} but {labels_what} are {len(labels)}; "
                        "each image needs one label")


def _blocks(array: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Runs of whole images of about `_BLOCK` values, with the number of the first."""
    step = max(_BLOCK // max(array[0].size, 1), 1)
    for first in range(0, len(array), step):
        yield first, array[first:first + step]


def _in_unit_range(images: np.ndarray, what: str) -> bool:
    """Whether pixels are floating-point in [0, 1]; DataError where they follow no rule."""
    if images.dtype == np.uint8:
        return False
    if images.dtype.kind == "f":
        _refuse_not_finite(images, what)
    low = min(block.min() for _, block in _blocks(images))
    high = max(block.max() for _, block in _blocks(images))
    if low < 0 or high > 255:
        raise DataError(f"{what} lie in [{low:g}, {high:g}]; pixels must lie in 0..255, or in [0, 1] as fractions")
    if images.dtype.kind != "f":
        return False
    if high <= 1:
        return True
    if any(np.any(block != np.rint(block)) for _, block in _blocks(images)):
        raise DataError(f"{what} are fractions in [{low:g}, {high:g}]; fractions must lie in [0, 1]: "
                        "divide them by their largest possible value")
    return False


def _refuse_not_finite(images: np.ndarray, what: str) -> None:
    count, where = 0, None
    for first, block in _blocks(images):
        wrong = ~np.isfinite(block)
        here = int(np.count_nonzero(wrong))
        if here and where is None:
            index = np.unravel_index(int(wrong.argmax()), block.shape)
            where, value = (first + int(index[0]), *map(int, index[1:])), block[index]
        count += here
    if count:
        place = f"image {where[0]}, row {where[1]}, column {where[2]}"
        place += f", channel {where[3]}" if len(where) > 3 else ""
        raise DataError(f"{what} hold {count} pixel{'s' * (count > 1)} that {'are' if count > 1 else 'is'} NaN or "
                        f"infinite, the first ({value}) in {place} (counted from 0); repair or leave out such images")


def _to_pixels(images: np.ndarray, unit: bool, what: str) -> np.ndarray:
    """uint8 (N, H, W, C) from pixels already found to follow the rules."""
    shape = images.shape if images.ndim == 4 else (*images.shape, 1)
    if images.dtype == np.uint8:
        return np.ascontiguousarray(images).reshape(shape)
    pixels = np.empty(images.shape, np.uint8)
    for first, block in _blocks(images):
        # In float64: x * 255 of a float16 would round twice.
        pixels[first:first + len(block)] = np.rint(block.astype(np.float64) * 255) if unit else block
    return pixels.reshape(shape)


def _to_labels(
    labels: np.ndarray, classes: Sequence[str] | None, what: str, known: bool = False, gaps: bool = False
) -> tuple[np.ndarray, list[str]]:
    """int32 labels and the class names; with `known`, texts must be among `classes`; with `gaps`, integers may have
    some."""
    labels = labels.reshape(-1)
    if labels.dtype.kind == "S":
        try:
            labels = np.char.decode(labels, "utf-8")
        except UnicodeDecodeError:
            raise DataError(f"{what} hold bytes that are not UTF-8 text") from None
    if labels.dtype.kind == "U":
        return _named_labels(labels, classes, what, known)
    if labels.dtype.kind not in "ui":
        raise DataError(f"{what} must be integers or texts, got {labels.dtype}; convert them with astype(int)")
    if known:
        raise DataError(f"{what} are {labels.dtype} but the training labels are texts; save both alike")
    low, high = int(labels.min()), int(labels.max())
    if low < 0:
        raise DataError(f"{what} hold {low}, the first at image {int(np.argmin(labels))}; labels start at 0")
    if classes is not None:
        if high >= len(classes):
            raise DataError(f"{what} hold {high}, the first at image {int(np.argmax(labels))}; with {len(classes)} "
                            f"classes labels run from 0 to {len(classes) - 1}")
        return labels.astype(np.int32), list(classes)
    if high >= MOST_CLASSES:
        raise DataError(f"{what} hold {high}, the first at image {int(np.argmax(labels))}; there can be at most "
                        f"{MOST_CLASSES:,} classes, numbered from 0")
    present = np.unique(labels)
    if len(present) != high + 1 and not gaps:
        gap = int(np.argmax(present != np.arange(len(present))))
        raise DataError(f"{what} run to {high} but none is {gap}; labels must run from 0 without a gap: renumber them")
    return labels.astype(np.int32), [str(i) for i in range(high + 1)]


def _named_labels(
    labels: np.ndarray, classes: Sequence[str] | None, what: str, known: bool
) -> tuple[np.ndarray, list[str]]:
    if classes is not None and not known:
        raise DataError(f"{what} are texts, so their names are the classes; leave out the array of class names")
    names, numbers = np.unique(labels, return_inverse=True)
    names = [str(n) for n in names]
    if any(not n.strip() for n in names):
        first = next(i for i, text in enumerate(labels) if not text.strip())
        raise DataError(f"{what} hold an empty text, the first at image {first}; a class needs a name")
    if not known:
        return numbers.astype(np.int32), names
    place = {c: i for i, c in enumerate(classes)}
    if unknown := [n for n in names if n not in place]:
        raise DataError(f"{what} name the class {unknown[0]!r} that no training image has")
    return np.array([place[n] for n in names], np.int32)[numbers], list(classes)
