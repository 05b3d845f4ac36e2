"""Test-time augmentation: the views of an image that a model's scores are the mean over."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .network import brief

NONE, MIRROR, SHIFTS = KINDS = "none", "mirror", "shifts"
SIDE = 32  # pixels of an image for one by which it is moved
# Weights of an image where it is and moved, in steps (down, right). Jordan, "94% on CIFAR-10 in 3.29 seconds on a
# single GPU", 2024, section 3.5, has two of these diagonals.
PLACES = {(0, 0): 1 / 2, (-1, -1): 1 / 8, (-1, 1): 1 / 8, (1, -1): 1 / 8, (1, 1): 1 / 8}


def named(kind: str | bool) -> str:
    """One of KINDS: True is "mirror" and False "none". Raises ValueError for anything else."""
    if isinstance(kind, bool):
        return MIRROR if kind else NONE
    if not isinstance(kind, str) or kind not in KINDS:
        raise ValueError(f"tta must be one of {', '.join(KINDS)}, got {brief(kind)}")
    return kind


def checked(kind: str | bool, shape: tuple[int, ...]) -> str:
    """`named`, for a network that reads inputs of `shape`. Raises ValueError where these have no such views, too."""
    kind = named(kind)
    if kind != NONE and len(shape) != 3 or kind == SHIFTS and min(shape[:2]) < 2:
        raise ValueError(f"tta {kind!r} is of images large enough for it, and the network reads {shape}")
    return kind


def quick(kind: str) -> str:
    """What comes near a kind in little time."""
    return MIRROR if kind == SHIFTS else kind


def step(size: tuple[int, int]) -> int:
    """Pixels by which "shifts" moves images of (height, width)."""
    return max(round(min(size) / SIDE), 1)


def border(kind: str, size: tuple[int, int]) -> int:
    """Pixels that images of (height, width) are widened by on each side, by reflection, for `crops` to lie in."""
    return step(size) if kind == SHIFTS else 0


def crops(kind: str, size: tuple[int, int]) -> list[tuple[int, int, float]]:
    """(top, left, weight) of the views in images of (height, width) with their border; weights add up to 1. Each is
    looked at as it is and, but for "none", mirrored."""
    if kind != SHIFTS:
        return [(0, 0, 1.0)]
    by = step(size)
    return [(by + by * down, by + by * right, weight) for (down, right), weight in PLACES.items()]


def count(kind: str) -> int:
    """The number of views."""
    return {NONE: 1, MIRROR: 2, SHIFTS: 2 * len(PLACES)}[kind]


def of(kind: str, images: np.ndarray) -> Iterator[tuple[np.ndarray, float]]:
    """Views of images (N, H, W, C), of any number type, and their weights, which add up to 1. For "none" they may have
    any shape."""
    if kind == NONE:
        yield images, 1.0
        return
    height, width = size = images.shape[1:3]
    if by := border(kind, size):
        images = np.pad(images, ((0, 0), (by, by), (by, by), (0, 0)), "reflect")
    for top, left, weight in crops(kind, size):
        view = images[:, top:top + height, left:left + width]
        yield view, weight / 2
        yield view[:, :, ::-1], weight / 2
