"""From an image to what a network reads: size, colours, and pixel values scaled as in training.

A model carries its `Preprocessing`, so that predicting treats an image as training did.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING

import numpy as np

from .layers.base import Shape
from .network import brief, checked_shape

if TYPE_CHECKING:
    from PIL.Image import Image

LEAST_STD = 1 / 255  # one grey level: a channel that varies less carries rounding, not a picture


@dataclass(frozen=True)
class Preprocessing:
    """What is done to images before the first layer: `(x / 255 - mean) / std` for each channel.

    `input_shape` is (H, W, C); `mean` and `std` have one value a channel, in units where white is 1. Raises
    ValueError for a shape, a mean or a deviation that cannot be.
    """

    input_shape: Shape
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self):
        object.__setattr__(self, "input_shape", checked_shape(self.input_shape, "the preprocessed image"))
        for name in ("mean", "std"):
            object.__setattr__(self, name, _channel_values(getattr(self, name), self.input_shape[-1], name))
        if min(self.std) < 1e-6:
            raise ValueError(f"std must be at least 1e-6 in every channel, got {min(self.std)}")

    @classmethod
    def from_images(cls, images: np.ndarray) -> Preprocessing:
        """Mean and standard deviation of each channel over uint8 images N,H,W,C (or N,H,W: grey), exactly.

        A channel that varies by less than one grey level is divided by one grey level, not by zero. Raises
        ValueError for other arrays and for none at all.
        """
        if images.ndim == 3:
            images = images[..., None]
        if images.ndim != 4 or images.dtype != np.uint8:
            raise ValueError(f"expected uint8 images N,H,W,C or N,H,W, got {images.dtype} of shape {images.shape}")
        if images.size == 0:
            raise ValueError(f"no pixels to take the mean of: images have shape {images.shape}")
        levels = np.arange(256)
        mean, std = [], []
        for c in range(images.shape[-1]):
            # Image by image: counting needs 8 bytes a pixel, and the images may be a file larger than memory.
            counts = sum(np.bincount(image[..., c].ravel(), minlength=256) for image in images)
            middle = float(counts @ levels) / counts.sum()
            mean.append(middle / 255)
            std.append(max(float(np.sqrt(counts @ (levels - middle) ** 2 / counts.sum())) / 255, LEAST_STD))
        return cls(images.shape[1:], tuple(map(float, mean)), tuple(std))

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

        It is turned upright as its EXIF data say, laid over white where it is transparent, reduced to 8 bits by
        dropping the lower ones where it has 16, converted to grey (ITU-R 601 luma) or RGB, and resized to the
        full (H, W), without regard to its proportions, by Pillow's bilinear filter, which averages when it
        shrinks. Raises ValueError for pictures of real numbers and for an `input_shape` that is no picture's.
        """
        from PIL import Image as pillow
        from PIL import ImageOps

        if len(self.input_shape) != 3 or self.input_shape[2] not in (1, 3):
            raise ValueError(f"a picture becomes an array of shape (H, W, 1) or (H, W, 3), not {self.input_shape}")
        height, width, channels = self.input_shape
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I"):
            image = pillow.fromarray(_eight_bits(np.asarray(image)))
        elif image.mode == "F":
            raise ValueError("the picture holds real numbers, whose range is unknown; save it with 8 or 16 bits")
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = pillow.alpha_composite(pillow.new("RGBA", image.size, "white"), image)
        image = image.convert("L" if channels == 1 else "RGB")
        image = image.resize((width, height), pillow.Resampling.BILINEAR)
        return np.asarray(image, np.uint8).reshape(self.input_shape)

    # As data.

    def to_json(self) -> dict:
        """As a dict of lists; `from_json` reads it back without loss."""
        return {"input_shape": list(self.input_shape), "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_json(cls, data: dict) -> Preprocessing:
        """What `to_json` wrote. Raises ValueError for anything else."""
        keys = ("input_shape", "mean", "std")
        if not isinstance(data, dict) or set(data) != set(keys) or not all(isinstance(data[k], list) for k in keys):
            raise ValueError(f"preprocessing must be an object with exactly the lists {', '.join(keys)}, "
                             f"got {brief(data)}")
        return cls(**data)


def _channel_values(values, channels: int, name: str) -> tuple[float, ...]:
    """One finite float a channel. Raises ValueError for anything else."""
    if not isinstance(values, list | tuple) or len(values) != channels:
        raise ValueError(f"{name} must have one value for each of {channels} channels, got {brief(values)}")
    if not all(isinstance(v, int | float) and not isinstance(v, bool) and abs(v) < 1e6 and isfinite(v) for v in values):
        raise ValueError(f"{name} must be finite numbers (white is 1), got {brief(values)}")
    return tuple(map(float, values))


def _eight_bits(values: np.ndarray) -> np.ndarray:
    """The upper 8 of 16 bits. Raises ValueError for integers beyond 16 bits."""
    if values.size and not 0 <= values.min() <= values.max() <= 65535:
        raise ValueError(f"the picture's values reach from {values.min()} to {values.max()}; at most 16 bits are read")
    return (values >> 8).astype(np.uint8)
