"""Test-time augmentation: the views of an image that a model's scores are the mean over."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .network import brief

NONE, MIRROR, SHIFTS = KINDS = "none", "mirror", "shifts"
SIDE = 32  # pixels of an image for one by which it is moved
# Weights of an image where it is and moved (down, right). Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU",
# 2024, section 3.5, has two of these diagonals.
PLACES = {(0, 0): 1 / 2, (-1, -1): 1 / 8, (-1, 1): 1 / 8, (1, -1): 1 / 8, (1, 1): 1 / 8}


def named(kind: str | bool) -> str:
    """One of KINDS: True is "mirror" and False "none". Raises ValueError for anything else."""
    if isinstance(kind, bool):
        return MIRROR if kind else NONE
    if not isinstance(kind, str) or kind not in KINDS:
        raise ValueError(f"tta must be one of {', '.join(KINDS)}, got {brief(kind)}")
    return kind


def quick(kind: str) -> str:
    """What comes near a kind in little time."""
    return MIRROR if kind == SHIFTS else kind


def step(size: tuple[int, int]) -> int:
    """Pixels by which images of (height, width) are moved."""
    return max(round(min(size) / SIDE), 1)


def places(kind: str) -> dict[tuple[int, int], float]:
    """Where images are moved to, in steps down and right, and the weight of each place; these add up to 1."""
    return PLACES if kind == SHIFTS else {(0, 0): 1.0}


def count(kind: str) -> int:
    """The number of views."""
    return len(places(kind)) * (1 if kind == NONE else 2)


def of(kind: str, images: np.ndarray) -> Iterator[tuple[np.ndarray, float]]:
    """Views of images (N, H, W, C), of any number type, and their weights, which add up to 1.

    What a move brings into view is the picture's own border reflected. All but "none" have each view mirrored too.
    """
    if kind == NONE:
        yield images, 1.0
        return
    height, width = images.shape[1:3]
    by = step((height, width))
    padded = np.pad(images, ((0, 0), (by, by), (by, by), (0, 0)), "reflect") if kind == SHIFTS else None
    for (down, right), weight in places(kind).items():
        moved = images if padded is None else padded[:, by - by * down:, by - by * right:][:, :height, :width]
        yield np.ascontiguousarray(moved), weight / 2
        yield np.ascontiguousarray(moved[:, :, ::-1]), weight / 2
