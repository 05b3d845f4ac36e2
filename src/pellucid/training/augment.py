"""Small random changes to training images that leave their class alone.

What is drawn depends on (seed, epoch) only, for all images of the epoch at once: a run resumed in the middle of an
epoch sees what an unbroken run sees.
"""

from __future__ import annotations

import numpy as np

# Streams of random numbers that share (seed, epoch) must differ from each other.
ORDER, SHIFT = 0, 1


def generator(seed: int, epoch: int, stream: int) -> np.random.Generator:
    """The random numbers of one purpose (`stream`) in one epoch."""
    return np.random.default_rng((seed, epoch, stream))


def order(seed: int, epoch: int, count: int) -> np.ndarray:
    """The order in which an epoch visits `count` images: a permutation of range(count)."""
    return generator(seed, epoch, ORDER).permutation(count)


def default_shift(image_shape: tuple[int, ...]) -> int:
    """Pixels by which images of shape (H, W, C) may move: about a fourteenth of the side (8x8: 1, 28x28: 2).

    0 for images below 6 pixels, where one pixel is much of the picture, and for anything that is not an image.
    """
    if len(image_shape) != 3 or min(image_shape[:2]) < 6:
        return 0
    return max(1, round(min(image_shape[:2]) / 14))


def offsets(seed: int, epoch: int, count: int, pixels: int) -> np.ndarray:
    """How far each of `count` images moves down and right in an epoch: (count, 2) integers in [-pixels, pixels]."""
    return generator(seed, epoch, SHIFT).integers(-pixels, pixels, (count, 2), endpoint=True)


def shift(images: np.ndarray, moves: np.ndarray) -> np.ndarray:
    """Move image i down by `moves[i, 0]` and right by `moves[i, 1]` pixels; what comes into view is 0.

    images: (N, H, W, C) of any number type; moves: (N, 2) integers, negative for up and left. Returns a new array of
    the same shape and type. Raises ValueError when the shapes do not fit together.
    """
    if images.ndim != 4 or moves.shape != (len(images), 2):
        raise ValueError(f"expected images (N, H, W, C) and moves (N, 2), got {images.shape} and {moves.shape}")
    reach = int(np.abs(moves).max(initial=0))
    if reach == 0:
        return images.copy()
    _, height, width, _ = images.shape
    padded = np.pad(images, ((0, 0), (reach, reach), (reach, reach), (0, 0)))
    # Every H x W window of the padded images, as a view (N, 2 reach + 1, 2 reach + 1, C, H, W); one is taken of each.
    every = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(1, 2))
    taken = every[np.arange(len(images)), reach - moves[:, 0], reach - moves[:, 1]]
    return np.ascontiguousarray(np.moveaxis(taken, 1, -1))
