"""A part of the image: what the answer loses without it, and what it gives alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..layers.base import as_image
from ..model import Model
from ..network import brief
from . import taps
from .maps import as_rows
from .question import Question, ask

SIDE = 3  # a part that is found by itself has a third of each side of the image

Box = tuple[int, int, int, int]  # first row, first column, rows, columns


@dataclass(frozen=True, eq=False)
class Answer:
    """What a model says of one image: logits and probabilities, (C,) each; calibration and `tta` are in the latter."""

    logits: np.ndarray
    probabilities: np.ndarray

    @property
    def best(self) -> int:
        return int(self.probabilities.argmax())


@dataclass(frozen=True, eq=False)
class Region:
    """A part of an image, and the answers for the whole image, without that part, and for that part alone.

    `box` is its first row, first column, number of rows and of columns. What is covered shows what the network reads as
    zero, the mean colour of the training images.
    """

    box: Box
    target: int
    target_name: str
    whole: Answer
    covered: Answer
    alone: Answer

    @property
    def speaks(self) -> np.ndarray:
        """By how much each class's logit is higher with the part than without it, (C,)."""
        return self.whole.logits - self.covered.logits


def region(model: Model, image: np.ndarray, box: Sequence[int], target: int | str | None = None) -> Region:
    """What a part of the image, `box` (y, x, height, width) in pixels, does to the answer: measured, by covering it and
    by covering all else.

    Raises ValueError for a box that is not within the image and for what cannot be asked about (`question.ask`).
    """
    question = ask(model, image, target)
    y, x, height, width = box = checked_box(box, as_image(model.network.input_shape)[:2])
    part = slice(y, y + height), slice(x, x + width)
    covered, alone = question.read.copy(), np.zeros_like(question.read)
    rows = covered if covered.ndim == 3 else covered[None]  # a signal is one row high
    (alone if alone.ndim == 3 else alone[None])[part] = rows[part]
    rows[part] = 0
    return Region(box, question.target, model.classes[question.target],
                  *answers(question, np.stack([question.read, covered, alone])))


def answers(question: Question, images: np.ndarray) -> list[Answer]:
    """What the model says of images as the network reads them."""
    output = question.bare.network.output
    logits = taps.values(question.bare, images, [output])[output]
    probabilities = np.exp(question.model.log_probabilities(images))
    return [Answer(*each) for each in zip(logits, probabilities, strict=True)]


def checked_box(box: Sequence[int], size: tuple[int, int]) -> Box:
    """Raises ValueError unless it is a box of at least one pixel within an image of this size."""
    rows, columns = size
    if len(box) != 4 or not all(isinstance(n, int | np.integer) and not isinstance(n, bool) for n in box):
        raise ValueError(f"a part of an image is y, x, height, width: four whole numbers, got {brief(list(box))}")
    y, x, height, width = map(int, box)
    if min(y, x) < 0 or min(height, width) < 1 or y + height > rows or x + width > columns:
        raise ValueError(f"the part y={y}, x={x} of {height}x{width} pixels does not lie within the image, whose rows "
                         f"are 0 to {rows - 1} and columns 0 to {columns - 1}")
    return y, x, height, width


def strongest(values: np.ndarray) -> Box:
    """The box of a third of each side over which a map (H, W) has its largest sum; the first of equal ones."""
    values = as_rows(values)
    rows, columns = (max(round(n / SIDE), 1) for n in values.shape)
    total = np.pad(values.astype(np.float64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    sums = total[rows:, columns:] - total[:-rows, columns:] - total[rows:, :-columns] + total[:-rows, :-columns]
    y, x = np.unravel_index(sums.argmax(), sums.shape)
    return int(y), int(x), rows, columns


def place(box: Box, size: tuple[int, int]) -> str:
    """Where a box lies in an image, in words: "upper left", "middle", "lower right"."""
    y, x = ((first + length / 2) / n for first, length, n in zip(box[:2], box[2:], size, strict=True))
    words = " ".join(filter(None, (_third(y, "upper", "lower"), _third(x, "left", "right"))))
    return {"upper": "upper middle", "lower": "lower middle", "left": "left middle", "right": "right middle",
            "": "middle"}.get(words, words)


def _third(at: float, before: str, after: str) -> str:
    return before if at < 5 / 12 else after if at > 7 / 12 else ""
