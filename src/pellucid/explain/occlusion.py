"""Occlusion: how far the score falls when a part of the image is covered."""

from __future__ import annotations

import numpy as np

from ..layers.base import as_image
from ..model import Model
from ..network import brief
from .maps import Map, answer
from .question import BATCH, ask

SQUARES = 7  # that stand side by side along the longer side of an image, by default


def occlusion(model: Model, image: np.ndarray, target: int | str | None = None, *, size: int | None = None,
              stride: int | None = None, baseline: np.ndarray | None = None) -> Map:
    """A square slides over the image, and the logit without what it covers is taken from the logit of the whole image;
    a pixel gets the mean over the squares that cover it; signed (Zeiler and Fergus, "Visualizing and understanding
    convolutional networks", 2014, section 4.2).

    `size` is the square's side in pixels, by default a seventh of the image's longer one, at least 2; `stride` its
    steps, by default half its side; the last square of a row ends at the border. What is covered shows `baseline`, an
    image like `image`; by default what the network reads as zero. Raises ValueError for a size or stride that does
    not fit and for what cannot be asked about (`question.ask`).
    """
    question = ask(model, image, target)
    height, width = as_image(question.read.shape)[:2]
    size = max(2, round(max(height, width) / SQUARES)) if size is None else _checked("size", size, max(height, width))
    stride = max(1, size // 2) if stride is None else _checked("stride", stride, size)
    below = question.baseline(baseline)
    squares = [(slice(y, y + size), slice(x, x + size)) for y in starts(height, size, stride)
               for x in starts(width, size, stride)]
    total, count = np.zeros((height, width)), np.zeros((height, width), int)
    for first in range(0, len(squares), BATCH):
        part = squares[first:first + BATCH]
        covered = np.repeat(question.read[None], len(part), axis=0)
        for each, square in zip(covered, part, strict=True):
            _rows(each)[square] = _rows(below)[square]
        for square, score in zip(part, question.scores(covered), strict=True):
            total[square] += question.score - score
            count[square] += 1
    what = f"stretches of {size}" if question.read.ndim == 2 else f"squares of {size}x{size}"
    return answer("occlusion", question, total / count, facts={"size": size, "stride": stride, "squares": len(squares)},
                  note=f"How far the logit falls, on average, when one of {len(squares)} {what} pixels that cover a "
                       "pixel hides what is under it.")


def starts(length: int, size: int, stride: int) -> list[int]:
    """Where squares start along an axis: every `stride` pixels, and the last where it ends at the border."""
    last = max(length - size, 0)
    return [*range(0, last, stride), last]


def _rows(image: np.ndarray) -> np.ndarray:
    """(H, W, C), a view; a signal is one row high."""
    return image if image.ndim == 3 else image[None]


def _checked(what: str, value, most: int) -> int:
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or not 1 <= value <= most:
        raise ValueError(f"{what} must be an integer from 1 to {most}, got {brief(value)}")
    return int(value)
