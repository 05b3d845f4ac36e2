"""Deletion and insertion: does a map find the pixels that the answer depends on?

Pixels are taken away, or put in, in the order of the map, and the target's probability is followed (Petsiuk, Das and
Saenko, "RISE: randomized input sampling for explanation of black-box models", 2018). How far it falls
says as much of the network and of the image as of the map; so each curve comes with that of random orders, the mean of
`CONTROLS`. The probability is what `Model.predict` gives, test-time augmentation and calibration included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..layers.base import as_image
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
    return _deletions(_question(model, [map]), [map], baseline, steps)[0]


def insertion(model: Model, map: Map, *, baseline: np.ndarray | None = None, steps: int = STEPS) -> Curve:
    """Pixels of the image replace those of `baseline`, the map's largest first: the larger the area, the better.

    `baseline` is by default the image blurred by a Gaussian whose standard deviation is an eighth of its longer side;
    the curve's first point says how much of the answer the blur has left. All else is as in `deletion`.
    """
    return _insertions(_question(model, [map]), [map], baseline, steps)[0]


def compared(model: Model, maps: Sequence[Map], *, steps: int = STEPS) -> list[tuple[Curve, Curve]]:
    """The curves of deletion and of insertion for maps of one image and target, in their order.

    They are what `deletion` and `insertion` give for each, but the random orders, the same for all, are followed once.
    Raises ValueError as these do, and for maps of several images or targets.
    """
    if not maps:
        return []
    question = _question(model, maps)
    return list(zip(_deletions(question, maps, None, steps), _insertions(question, maps, None, steps), strict=True))


def _question(model: Model, maps: Sequence[Map]) -> Question:
    model.require_classes()
    first, *others = maps
    if not all(m.target == first.target and np.array_equal(m.image, first.image) for m in others):
        raise ValueError("maps that are compared are of one image and one target")
    image = checked(model, first.image)
    return Question(model, image, chosen(model, image, first.target))


def _deletions(question: Question, maps: Sequence[Map], baseline: np.ndarray | None, steps: int) -> list[Curve]:
    return _curves("deletion", question, maps, question.read, question.baseline(baseline), steps)


def _insertions(question: Question, maps: Sequence[Map], baseline: np.ndarray | None, steps: int) -> list[Curve]:
    start = question.baseline(baseline)
    if baseline is None:
        start = blurred(question.read, max(as_image(question.read.shape)[:2]) / SIGMAS)
    return _curves("insertion", question, maps, start, question.read, steps)


def _curves(kind: str, question: Question, maps: Sequence[Map], start: np.ndarray, end: np.ndarray,
            steps: int) -> list[Curve]:
    pixels = start.size // start.shape[-1]
    for map in maps:
        if map.values.size != pixels or not np.isfinite(map.values).all():
            raise ValueError(f"expected a map of finite numbers, one for each pixel of {start.shape}, got "
                             f"{map.values.shape}")
    if not isinstance(steps, int | np.integer) or isinstance(steps, bool) or not 1 <= steps <= pixels:
        raise ValueError(f"steps must be an integer from 1 to {pixels}, the number of pixels, got {brief(steps)}")
    counts = np.rint(np.linspace(0, pixels, steps + 1)).astype(int)
    fractions = counts / pixels
    ties = np.random.default_rng(0).permutation(pixels)
    orders = [*(np.lexsort((ties, -map.values.ravel())) for map in maps),
              *(np.random.default_rng(1 + i).permutation(pixels) for i in range(CONTROLS))]
    points = [(orders[0], 0), (orders[0], pixels)]  # both ends are the same in every order
    points += [(order, count) for order in orders for count in counts[1:-1]]
    answers = _answers(question, points, start, end)
    found = np.empty((len(orders), len(counts)))
    found[:, [0, -1]], found[:, 1:-1] = answers[:2], answers[2:].reshape(len(orders), steps - 1)
    areas = (found[:, 1:] + found[:, :-1]) / 2 @ np.diff(fractions)  # trapezoids
    control, control_areas = found[len(maps):].mean(axis=0), areas[len(maps):]
    return [Curve(kind, map.method, fractions, along, float(area), control, float(control_areas.mean()),
                  float(control_areas.std(ddof=1))) for map, along, area in zip(maps, found, areas, strict=False)]


def _answers(question: Question, points: Sequence[tuple[np.ndarray, int]], start: np.ndarray,
             end: np.ndarray) -> np.ndarray:
    """The target's probability, for each (order, count), with so many first pixels from `end`, others from `start`."""
    pixels, found = (-1, start.shape[-1]), np.empty(len(points))
    for first in range(0, len(points), BATCH):
        part = points[first:first + BATCH]
        images = np.repeat(start[None], len(part), axis=0)
        for image, (order, count) in zip(images, part, strict=True):
            image.reshape(pixels)[order[:count]] = end.reshape(pixels)[order[:count]]
        found[first:first + BATCH] = np.exp(question.model.log_probabilities(images)[:, question.target])
    return found
