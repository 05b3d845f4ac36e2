"""Neighbours: the images that the network finds most like this one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING

import numpy as np

from ..model import Model
from ..network import brief
from ..texts import printable
from . import taps
from .graph import last_dense
from .maps import side_by_side
from .question import BROKEN, checked, without_softmax

if TYPE_CHECKING:
    from ..data import Dataset, Part
    from ..draw import Picture

READ = 256  # images read at a time


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The nearest images, nearest first.

    image: as it was given; layer: the node whose values were compared; indices: int64 (k,), which of the images these
    are; distances: float64 (k,); images: (k, H, W, C); labels: int (k,), or None where none were given; names: of
    their classes, or None. typical: the median of the distances to all images searched; searched: how many these are.
    """

    image: np.ndarray
    layer: str
    indices: np.ndarray
    distances: np.ndarray
    images: np.ndarray
    labels: np.ndarray | None
    names: list[str] | None
    typical: float
    searched: int

    @property
    def picture(self) -> Picture:
        """The image and its neighbours, with their classes and distances."""
        names = self.names or [f"image {i}" for i in self.indices]
        captions = [f"{printable(name)}\n{distance:.3g}" for name, distance in zip(names, self.distances, strict=True)]
        return side_by_side([self.image, *self.images], ["this image", *captions])

    def _repr_html_(self) -> str:
        return (f"<figure>{self.picture}<figcaption>The nearest of {self.searched:,} images by the values of "
                f"{self.layer}, with their distances; half of all images are further than {self.typical:.3g}."
                "</figcaption></figure>")


def neighbours(model: Model, image: np.ndarray, data: Dataset | Part | np.ndarray, *, count: int = 8,
               labels: Sequence[int] | None = None, layer: str | None = None) -> Neighbours:
    """The images of `data` whose features are nearest to those of `image`, by Euclidean distance.

    Features are what the last dense layer reads, or the output of `layer`. `data` is a data set, a part of one
    (`data.split(...).train`), or an array of images (N, H, W, C), with `labels` (N,) if there are any; it is read some
    images at a time, and besides these and the neighbours eight bytes an image are held. Of equal distances the image
    of the lower number comes first. An image that is itself in `data` finds itself, at distance 0. Raises ValueError
    for images that do not fit, no images, labels of another number, a network without a dense layer, and features that
    are no finite numbers.
    """
    image, bare = checked(model, image), without_softmax(model)
    layer = bare.network.node(last_dense(bare.network)).inputs[0] if layer is None else layer
    images, labels = getattr(data, "images", data), getattr(data, "labels", labels)
    if not isinstance(count, Integral) or isinstance(count, bool) or count < 1:
        raise ValueError(f"count must be an integer of at least 1, got {brief(count)}")
    if len(images) == 0:
        raise ValueError("there are no images to search")
    if labels is not None and np.shape(labels) != (len(images),):
        raise ValueError(f"{len(images)} images need as many labels, got an array of shape {np.shape(labels)}")
    here = taps.values(bare, image[None], [layer])[layer].reshape(-1).astype(np.float64)
    distances = np.empty(len(images))
    for first in range(0, len(images), READ):
        part = images[first:first + READ]
        features = taps.values(bare, part, [layer])[layer].reshape(len(part), -1)
        if not (np.isfinite(here).all() and np.isfinite(features).all()):
            raise ValueError(f"layer {layer!r} has values that are not finite numbers; {BROKEN}")
        distances[first:first + READ] = np.sqrt(((features - here) ** 2).sum(axis=1))
    nearest = np.argsort(distances, kind="stable")[:count]
    found = taps.as_read(bare, np.stack([np.asarray(images[int(i)]) for i in nearest]))
    classes = getattr(data, "classes", model.classes)
    known = None if labels is None else np.asarray(labels)[nearest]
    names = None if known is None else [classes[i] if 0 <= i < len(classes) else str(i) for i in known]
    return Neighbours(image, layer, nearest, distances[nearest], found, known, names, float(np.median(distances)),
                      len(images))
