"""Whether what was exported gives the model's answers, on real images: asked before an export is called done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .. import data
from ..model import Model

MOST_IMAGES = 512  # of a data set, at equal distances
BATCH = 32
TOLERANCE = 1e-4  # of a probability; float32 sums in another order differ by a hundredth of it


@dataclass(frozen=True)
class Agreement:
    """How `images` images of `data` were answered: the largest difference of a probability, and for how many the most
    probable class was the same."""

    data: str
    images: int
    difference: float
    agreed: int

    def require(self, what: str) -> None:
        """Raise ValueError where the answers are not the same."""
        if not self.difference <= TOLERANCE:  # NaN is no agreement either
            raise ValueError(f"{what} does not give the model's answers: on {self.images:,} images of {self.data} a "
                             f"probability differs by {self.difference:.2g}, at most {TOLERANCE:g} is allowed, and "
                             f"{self.images - self.agreed:,} labels do; nothing was written. Please report it")


def images_for(model: Model, source: str | None = None,
               progress: Callable[[int, int], object] | None = None) -> tuple[str, np.ndarray]:
    """(name, uint8 images as the model reads them) to compare on: of the data set `source`, or of the one that the
    model was trained on. `progress` is `data.load`'s. Raises ValueError where there is none that can be read."""
    model.require_preprocessing()
    known = source if source is not None else model.record.get("source")
    if not isinstance(known, str) or not known:
        raise ValueError("the model does not say what data it was trained on; give images to compare on: --check DATA")
    dataset = data.load(known, **model.preprocessing.loading, progress=progress)
    count = len(dataset.images)
    chosen = np.unique(np.linspace(0, count - 1, min(count, MOST_IMAGES)).round().astype(np.int64))
    return dataset.name, np.asarray(dataset.images[chosen])


def compare(model: Model, answer: Callable[[np.ndarray], np.ndarray], name: str, images: np.ndarray) -> Agreement:
    """The model's probabilities beside those that `answer` gives for uint8 images, `BATCH` at a time."""
    differences, agreed = [0.0], 0
    for first in range(0, len(images), BATCH):
        part = images[first:first + BATCH]
        ours, theirs = model.predict(part), answer(part)
        differences.append(float(np.abs(ours - theirs).max()))
        agreed += int((ours.argmax(axis=1) == theirs.argmax(axis=1)).sum())
    return Agreement(name, len(images), float(np.max(differences)), agreed)
