"""Deletion and insertion: does a map find the pixels that the answer depends on?

Pixels are taken away, or put in, in the order of the map, and the target's probability is followed (Petsiuk, Das and
Saenko, "RISE: randomized input sampling for explanation of black-box models", 2018). How far it falls
says as much of the network and of the image as of the map; so each curve comes with that of random orders, the mean of
`CONTROLS`. The probability is what `Model.predict` gives, test-time augmentation and calibration included.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..model import Model
from ..network import brief
from .blur import blurred
from .maps import Map
from .question import BATCH, Question, checked, chosen

if TYPE_CHECKING:
    from ..draw import Picture

STEPS = 32  # equal parts of the pixels
CONTROLS = 5  # random orders
SIGMAS = 8  # of the blur, that fit along the longer side of an image


@dataclass(frozen=True, eq=False)
class Curve:
    """The target's probability while pixels are taken away or put in.

    kind: "deletion" or "insertion"; method: the map's; fractions: of the pixels, (n,), from 0 to 1; probabilities: (n,)
    in the map's order; area: under them; control: (n,), the mean over random orders; control_area: under it;
    control_spread: the standard deviation of the areas of single random orders.
    """

    kind: str
    method: str
    fractions: np.ndarray
    probabilities: np.ndarray
    area: float
    control: np.ndarray
    control_area: float
    control_spread: float

    @property
    def picture(self) -> Picture:
        """The curve, and that of random orders."""
        from .. import draw

        how = "taken away" if self.kind == "deletion" else "put in"
        return draw.curves([(self.method, self.fractions, self.probabilities),
                            ("random order", self.fractions, self.control)],
                           x_label=f"share of pixels {how}", y_label="probability", title=self.kind, percent=True)

    def _repr_html_(self) -> str:
        return str(self.picture)

    @property
    def gain(self) -> float:
        """By how much the area is better than that of random orders: smaller for deletion, larger for insertion."""
        return (self.control_area - self.area) * (1 if self.kind == "deletion" else -1)


def deletion(model: Model, map: Map, *, baseline: np.ndarray | None = None, steps: int = STEPS) -> Curve:
    """Pixels are replaced by those of `baseline`, the map's largest first: the smaller the area, the better the map.

    `baseline` is an image like the map's; by default what the network reads as zero, the mean colour of the training
    images. Pixels of equal value are taken in an order that is random but always the same. Raises ValueError for a map
    that does not fit the model, and for steps that are not an integer from 1 to the number of pixels.
    """
    question = _question(model, map)
    return _curve("deletion", question, map, question.read, question.baseline(baseline), steps)


def insertion(model: Model, map: Map, *, baseline: np.ndarray | None = None, steps: int = STEPS) -> Curve:
    """Pixels of the image replace those of `baseline`, the map's largest first: the larger the area, the better.

    `baseline` is by default the image blurred by a Gaussian whose standard deviation is an eighth of its longer side;
    the curve's first point says how much of the answer the blur has left. All else is as in `deletion`.
    """
    question = _question(model, map)
    start = question.baseline(baseline)
    if baseline is None:
        start = blurred(question.read, max(map.values.shape) / SIGMAS)
    return _curve("insertion", question, map, start, question.read, steps)


def _question(model: Model, map: Map) -> Question:
    model.require_classes()
    image = checked(model, map.image)
    return Question(model, image, chosen(model, image, map.target))


def _curve(kind: str, question: Question, map: Map, start: np.ndarray, end: np.ndarray, steps: int) -> Curve:
    pixels = map.values.size
    if pixels * start.shape[-1] != start.size or not np.isfinite(map.values).all():
        raise ValueError(f"expected a map of finite numbers, one for each pixel of {start.shape}, got "
                         f"{map.values.shape}")
    if not isinstance(steps, int | np.integer) or isinstance(steps, bool) or not 1 <= steps <= pixels:
        raise ValueError(f"steps must be an integer from 1 to {pixels}, the number of pixels, got {brief(steps)}")
    counts = np.rint(np.linspace(0, pixels, steps + 1)).astype(int)
    fractions = counts / pixels
    ties = np.random.default_rng(0).permutation(pixels)
    orders = [np.lexsort((ties, -map.values.ravel())),
              *(np.random.default_rng(1 + i).permutation(pixels) for i in range(CONTROLS))]
    found = np.array([_along(question, order, counts, start, end) for order in orders])
    areas = (found[:, 1:] + found[:, :-1]) / 2 @ np.diff(fractions)  # trapezoids
    return Curve(kind, map.method, fractions, found[0], float(areas[0]), found[1:].mean(axis=0),
                 float(areas[1:].mean()), float(areas[1:].std(ddof=1)))


def _along(question: Question, order: np.ndarray, counts: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """The target's probability with the first pixels of an order from `end` and the others from `start`."""
    channels, found = start.shape[-1], []
    for first in range(0, len(counts), BATCH):
        part = counts[first:first + BATCH]
        images = np.repeat(start.reshape(1, -1, channels), len(part), axis=0)
        for image, count in zip(images, part, strict=True):
            image[order[:count]] = end.reshape(-1, channels)[order[:count]]
        logs = question.model.log_probabilities(images.reshape(-1, *start.shape))
        found.append(np.exp(logs[:, question.target]))
    return np.concatenate(found)
