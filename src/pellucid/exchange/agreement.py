"""Whether what was exported gives the model's answers, on real images: asked before an export is called done."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from .. import data, views
from ..data.arrays import spread
from ..data.pictures import FITS
from ..model import Model
from ..preprocessing import Preprocessing

MOST_IMAGES = 512  # of a data set, at equal distances
MOST_PIXELS = 2**27  # of all pictures together
LARGEST = 2**24  # pixels of one picture: a graph resizes with 8 bytes a number
BATCH = 32
TOLERANCE = 1e-4  # of a probability; float32 sums in another order differ by a hundredth of it
ROUNDING = 1  # level of a pixel, by which versions of Pillow differ too


@dataclass(frozen=True)
class Agreement:
    """How `images` images of `data` were answered: the largest difference of a probability, for how many the most
    probable class was the same, and by how many levels of 255 a pixel differed where pictures were resized."""

    data: str
    images: int
    difference: float
    agreed: int
    levels: int = 0

    def require(self, what: str) -> None:
        """Raise ValueError where the answers are not the same."""
        if self.levels > ROUNDING:
            raise ValueError(f"{what} does not resize pictures as the model does: on {self.images:,} images of "
                             f"{self.data} a pixel differs by {self.levels} levels of 255, at most {ROUNDING} is "
                             "allowed; nothing was written. Please report it")
        if not self.difference <= TOLERANCE:  # NaN is no agreement either
            raise ValueError(f"{what} does not give the model's answers: on {self.images:,} images of {self.data} a "
                             f"probability differs by {self.difference:.2g}, at most {TOLERANCE:g} is allowed, and "
                             f"{self.images - self.agreed:,} labels do; nothing was written. Please report it")


def images_for(model: Model, source: str | None = None, progress: Callable[[int, int], object] | None = None, *,
               originals: bool = False) -> tuple[str, Sequence[np.ndarray]]:
    """(name, uint8 images as the model reads them) to compare on: of the data set `source`, or of the one that the
    model was trained on. With `originals`, pictures are (H, W, C) as they were before they were resized, but for very
    large ones. `progress` is `data.load`'s. Raises ValueError where there is none that can be read."""
    model.require_preprocessing()
    known = source if source is not None else model.record.get("source")
    if not isinstance(known, str) or not known:
        raise ValueError("the model does not say what data it was trained on; give images to compare on: --check DATA")
    dataset = data.load(known, **model.preprocessing.loading, partial=True, progress=progress)
    if originals and dataset.pictures and dataset.pictures.path:
        pixels = dataset.pictures.sizes.prod(axis=1, dtype=np.int64)
        small = np.flatnonzero(pixels <= LARGEST)
        if len(small):
            most = max(MOST_PIXELS // int(pixels[small].max()), 1)
            chosen = small[spread(len(small), min(most, MOST_IMAGES))]
            return dataset.name, data.originals(dataset.pictures, chosen, model.preprocessing.input_shape[-1])
    return dataset.name, np.asarray(dataset.images[spread(len(dataset.images), MOST_IMAGES)])


def compare(model: Model, answer: Callable[[np.ndarray], np.ndarray], name: str, images: Sequence[np.ndarray],
            resized: Callable[[np.ndarray], np.ndarray] | None = None) -> Agreement:
    """The model's probabilities beside those that `answer` gives for uint8 images.

    `resized` says what pixels of the network's size the other side makes of images, where it resizes them itself. They
    are compared with those that the model's preprocessing makes, and the model is asked about them.
    """
    differences, agreed, levels = [0.0], 0, 0
    for part in _batches(images, max(BATCH // views.count(model.tta), 1)):
        ready = part
        if resized is not None:
            ready = resized(part).astype(np.uint8)
            levels = max(levels, int(np.abs(ready.astype(int) - _prepared(model.preprocessing, part)).max()))
        ours, theirs = model.predict(ready), answer(part)
        differences.append(float(np.abs(ours - theirs).max()))
        agreed += int((ours.argmax(axis=1) == theirs.argmax(axis=1)).sum())
    return Agreement(name, len(images), float(np.max(differences)), agreed, levels)


def _batches(images: Sequence[np.ndarray], most_images: int) -> Iterator[np.ndarray]:
    """Runs of images of one size, of at most so many images and `LARGEST` pixels if they are several."""
    first = 0
    while first < len(images):
        shape = images[first].shape
        most = max(min(most_images, LARGEST // prod(shape[:2])), 1)
        end = first + 1
        while end < len(images) and end - first < most and images[end].shape == shape:
            end += 1
        yield np.stack(images[first:end])
        first = end


def _prepared(preprocessing: Preprocessing, images: np.ndarray) -> np.ndarray:
    """Images of one size as the model reads them."""
    from PIL import Image

    if images.shape[1:] == preprocessing.input_shape and preprocessing.fit in FITS:
        return images
    return np.stack([preprocessing.prepare(Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels))
                     for pixels in images])
