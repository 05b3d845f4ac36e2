"""From an image to what a network reads: size, colours, and pixel values scaled as in training.

A model carries its `Preprocessing`, so that predicting treats an image as training did.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING

import numpy as np

from .data.arrays import spread
from .data.pictures import checked_fit, fitted
from .layers.base import Shape
from .network import brief, checked_shape

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_COUNTED = 100_000  # images that mean and deviation are taken over
LEAST_STD = 1 / 255  # one grey level: a channel that varies less carries rounding, not a picture


@dataclass(frozen=True)
class Preprocessing:
    """What is done to images before the first layer: `(x / 255 - mean) / std` for each channel.

    `input_shape` is (H, W, C); `mean` and `std` have one value a channel, in units where white is 1. `fit` says how a
    picture of other proportions is brought to that shape: "crop", "crop 256" (or another number), "letterbox" or
    "stretch", see `pellucid.data.pictures`. Raises ValueError for a shape, a mean, a deviation or a fit that cannot be.
    """

    input_shape: Shape
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fit: str = "stretch"

    def __post_init__(self):
        object.__setattr__(self, "input_shape", checked_shape(self.input_shape, "the preprocessed image"))
        for name in ("mean", "std"):
            object.__setattr__(self, name, _channel_values(getattr(self, name), self.input_shape[-1], name))
        if min(self.std) < 1e-6:
            raise ValueError(f"std must be at least 1e-6 in every channel, got {min(self.std)}")
        checked_fit(self.fit, self.input_shape[:2] if len(self.input_shape) == 3 else None)

    @classmethod
    def from_images(cls, images: np.ndarray, fit: str = "stretch") -> Preprocessing:
        """Mean and standard deviation of each channel over uint8 images N,H,W,C (or N,H,W: grey).

        They are exact for up to 100,000 images; of more, as many are taken at equal distances. A channel that varies
        by less than one grey level is divided by one grey level, not by zero. Raises ValueError for other arrays and
        for none at all.
        """
        if images.ndim == 3:
            images = images[..., None]
        if images.ndim != 4 or images.dtype != np.uint8:
            raise ValueError(f"expected uint8 images N,H,W,C or N,H,W, got {images.dtype} of shape {images.shape}")
        if images.size == 0:
            raise ValueError(f"no pixels to take the mean of: images have shape {images.shape}")
        levels, channels = np.arange(256), images.shape[-1]
        counts = np.zeros((channels, 256), np.int64)
        chosen = spread(len(images), MOST_COUNTED)
        # Some images at a time: counting needs 8 bytes a pixel, and the images may be a file larger than memory.
        step = max(2**20 // (images.size // len(images)), 1)
        for first in range(0, len(chosen), step):
            block = images[chosen[first:first + step]]
            for c in range(channels):
                counts[c] += np.bincount(block[..., c].ravel(), minlength=256)
        mean = counts @ levels / counts.sum(axis=1)
        variance = (counts * (levels - mean[:, None]) ** 2).sum(axis=1) / counts.sum(axis=1)
        std = np.maximum(np.sqrt(variance) / 255, LEAST_STD)
        return cls(images.shape[1:], tuple((mean / 255).tolist()), tuple(std.tolist()), fit)

    @property
    def loading(self) -> dict:
        """The arguments by which `data.load` makes images that need nothing more done to them than `apply` does."""
        height, width, channels = self.input_shape
        return {"size": (height, width), "channels": channels, "fit": self.fit} if channels in (1, 3) else {}

    @property
    def scale(self) -> np.ndarray:
        """What a uint8 value is multiplied with: 1 / (255 std), float32, one a channel."""
        return (1 / (255 * np.array(self.std))).astype(np.float32)

    @property
    def shift(self) -> np.ndarray:
        """What is added then: -mean / std, float32, one a channel."""
        return (-np.array(self.mean) / np.array(self.std)).astype(np.float32)

    def apply(self, images: np.ndarray) -> np.ndarray:
        """uint8 images N,H,W,C (grey also N,H,W) of the right size -> float32 of shape (N, *input_shape).

        Raises ValueError for another size or type.
        """
        images = np.asarray(images)
        if images.dtype != np.uint8:
            raise ValueError(f"expected uint8 images with values 0 to 255, got {images.dtype}")
        if self.input_shape[-1] == 1 and images.shape[1:] == self.input_shape[:-1]:
            images = images[..., None]
        if images.ndim == 0 or images.shape[1:] != self.input_shape:
            wanted = ", ".join(map(str, self.input_shape))
            raise ValueError(f"expected images of shape (N, {wanted}), got {images.shape}; "
                             "Preprocessing.prepare resizes pictures")
        result = images.astype(np.float32)
        result *= self.scale
        result += self.shift
        return result

    def prepare(self, image: Image) -> np.ndarray:
        """A picture opened with Pillow as uint8 of `input_shape`, ready for `apply`.

        By the rules of `pellucid.data.pictures`, as the pictures of a data set are: training and predicting see the
        same bytes. That needs a JPEG that has been opened but not loaded yet. Raises ValueError for a picture that
        the rules refuse and for an `input_shape` that is no picture's.
        """
        return fitted(image, self.input_shape, self.fit)

    # As data.

    def to_json(self) -> dict:
        """As a dict of lists and a text; `from_json` reads it back without loss."""
        return {"input_shape": list(self.input_shape), "mean": list(self.mean), "std": list(self.std), "fit": self.fit}

    @classmethod
    def from_json(cls, data: dict) -> Preprocessing:
        """What `to_json` wrote; without `fit`, as once was written, it is "stretch". Raises ValueError for all else."""
        keys = ("input_shape", "mean", "std")
        if (not isinstance(data, dict) or set(data) - {"fit"} != set(keys)
                or not all(isinstance(data[k], list) for k in keys) or not isinstance(data.get("fit", ""), str)):
            raise ValueError(f"preprocessing must be an object with exactly the lists {', '.join(keys)} and the text "
                             f"fit, got {brief(data)}")
        return cls(**data)


def _channel_values(values, channels: int, name: str) -> tuple[float, ...]:
    """One finite float a channel. Raises ValueError for anything else."""
    if not isinstance(values, list | tuple) or len(values) != channels:
        raise ValueError(f"{name} must have one value for each of {channels} channels, got {brief(values)}")
    if not all(isinstance(v, int | float) and not isinstance(v, bool) and abs(v) < 1e6 and isfinite(v) for v in values):
        raise ValueError(f"{name} must be finite numbers (white is 1), got {brief(values)}")
    return tuple(map(float, values))
