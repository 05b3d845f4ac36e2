"""Small random changes to training images that leave their class alone.

What is drawn depends on (seed, epoch) only, for all images of the epoch at once: a run resumed in the middle of an
epoch sees what an unbroken run sees.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

# Streams of random numbers that share (seed, epoch) must differ from each other.
ORDER, SHIFT, MIRROR, CUTOUT = 0, 1, 2, 3


@dataclass(frozen=True)
class Augmentation:
    """How training images are changed: moved by up to `shift` pixels each way, mirrored left to right every other
    epoch if `mirror`, and a square of `cutout` pixels a side painted over with the image's mean.

    What a shift brings into view is the picture's own border reflected where images are mirrored, as photographs are,
    and else 0, as around scanned letters. Mirroring every other epoch instead of at random: Jordan, "94% on CIFAR-10
    in 3.29 seconds on a single GPU", 2024, section 3.6. Cutout: DeVries and Taylor, 2017.
    """

    shift: int = 0
    mirror: bool = False
    cutout: int = 0

    def of_epoch(self, seed: int, epoch: int, count: int) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
        """The changes of one epoch to `count` training images: a function of some images and their numbers."""
        moves = generator(seed, epoch, SHIFT).integers(-self.shift, self.shift, (count, 2), endpoint=True)
        turned = (generator(seed, 0, MIRROR).integers(0, 2, count) + epoch) % 2 == 1 if self.mirror else None
        holes = generator(seed, epoch, CUTOUT).random((count, 2)) if self.cutout else None

        def change(images: np.ndarray, chosen: np.ndarray) -> np.ndarray:
            if self.shift:
                images = shift(images, moves[chosen], reflect=self.mirror)
            if self.mirror:
                images = np.where(turned[chosen, None, None, None], images[:, :, ::-1], images)
            if self.cutout:
                images = cut_out(images, holes[chosen], self.cutout)
            return images

        return change


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


def shift(images: np.ndarray, moves: np.ndarray, reflect: bool = False) -> np.ndarray:
    """Move image i down by `moves[i, 0]` and right by `moves[i, 1]` pixels; what comes into view is 0, or with
    `reflect` what lies inside the border.

    images: (N, H, W, C) of any number type; moves: (N, 2) integers, negative for up and left. Returns a new array of
    the same shape and type. Raises ValueError when the shapes do not fit together.
    """
    if images.ndim != 4 or moves.shape != (len(images), 2):
        raise ValueError(f"expected images (N, H, W, C) and moves (N, 2), got {images.shape} and {moves.shape}")
    reach = int(np.abs(moves).max(initial=0))
    if reach == 0:
        return images.copy()
    _, height, width, _ = images.shape
    padded = np.pad(images, ((0, 0), (reach, reach), (reach, reach), (0, 0)), "reflect" if reflect else "constant")
    # Every H x W window of the padded images, as a view (N, 2 reach + 1, 2 reach + 1, C, H, W); one is taken of each.
    every = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(1, 2))
    taken = every[np.arange(len(images)), reach - moves[:, 0], reach - moves[:, 1]]
    return np.ascontiguousarray(np.moveaxis(taken, 1, -1))


def cut_out(images: np.ndarray, places: np.ndarray, side: int) -> np.ndarray:
    """Paint a square of `side` pixels over each image with its mean colour, as far as it lies inside.

    images: (N, H, W, C); places: (N, 2) from 0 to 1, the square's centre from top to bottom and left to right. Returns
    a new array of the same shape and type.
    """
    count, height, width, _ = images.shape
    inside = []
    for axis, length in ((0, height), (1, width)):
        first = np.floor(places[:, axis] * length).astype(int) - side // 2
        at = np.arange(length)
        inside.append((at >= first[:, None]) & (at < first[:, None] + side))
    covered = inside[0][:, :, None, None] & inside[1][:, None, :, None]
    mean = np.rint(images.mean(axis=(1, 2), keepdims=True)).astype(images.dtype)
    return np.where(covered, mean, images)
