"""A map over an image: how much each pixel has to do with the target's score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from .question import Question

if TYPE_CHECKING:
    from ..draw import Picture


@dataclass(frozen=True, eq=False)
class Map:
    """What a method says.

    values: float32 (H, W), (1, L) for signals; positive speaks for the target, negative against it, where the method
    tells these apart. score: the target's logit, which is what is explained. layer: the node whose map it was made
    from, where it was not made at the pixels; positions: the values at that node's own resolution. image: as it was
    given. note: what the values are and add up to, in a sentence; facts: the numbers in it.
    """

    method: str
    target: int
    target_name: str
    values: np.ndarray
    score: float
    image: np.ndarray
    layer: str | None = None
    positions: np.ndarray | None = None
    note: str = ""
    facts: Mapping[str, float] = field(default_factory=dict)

    @property
    def picture(self) -> Picture:
        """The map over its image; a curve for signals."""
        from .. import draw

        title = f"{words(self.method)}: {self.target_name}"
        if self.image.ndim == 2:
            return draw.curves([(self.method, range(self.values.size), self.values[0])], x_label="position",
                               y_label="value", title=title)
        return draw.overlay(shown(self.image), self.values, title=title)

    def _repr_html_(self) -> str:
        return f"<figure>{self.picture}<figcaption>{escape(self.note)}</figcaption></figure>"


def words(method: str) -> str:
    """A method's name as prose has it."""
    return {"grad_cam": "Grad-CAM", "gradient_times_input": "gradient x input"}.get(method, method.replace("_", " "))


def answer(method: str, question: Question, values: np.ndarray, **more) -> Map:
    """The map of a method for a question."""
    target = question.target
    return Map(method, target, question.model.classes[target], np.ascontiguousarray(values, np.float32),
               question.score, question.image, **more)


def over_pixels(values: np.ndarray) -> np.ndarray:
    """(H, W, C) or (L, C) summed over the channels, in float64: (H, W) or (1, L)."""
    return as_rows(values.sum(axis=-1, dtype=np.float64))


def as_rows(values: np.ndarray) -> np.ndarray:
    """(H, W) as it is, (L,) as one row."""
    return values[None] if values.ndim == 1 else values


def stretched(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(h, w) brought to (H, W) by linear interpolation between the centres of cells; constant beyond the outer ones."""
    for axis, n in enumerate(size):
        at = np.clip((np.arange(n) + 0.5) * values.shape[axis] / n - 0.5, 0, values.shape[axis] - 1)
        low = np.floor(at).astype(int)
        high = np.minimum(low + 1, values.shape[axis] - 1)
        share = np.expand_dims(at - low, 1 - axis)
        values = (1 - share) * values.take(low, axis) + share * values.take(high, axis)
    return values


def shared_out(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(h, w) brought to (H, W), each value spread evenly over its cell: the sum stays what it is."""
    for axis, n in enumerate(size):
        cells = values.shape[axis]
        edges = np.arange(n + 1) * cells / n
        total = np.concatenate([np.zeros_like(values.take([0], axis)), values.cumsum(axis)], axis)
        low = np.minimum(np.floor(edges).astype(int), cells - 1)
        share = np.expand_dims(edges - low, 1 - axis)
        # The integral of the cells up to each edge; a pixel holds the difference of its two edges.
        values = np.diff(total.take(low, axis) + share * values.take(low, axis), axis=axis)
    return values


def shown(image: np.ndarray) -> np.ndarray:
    """An image as `pellucid.draw` takes them: uint8 (H, W) or (H, W, 3); a signal is one row high. float32 is stretched
    from black, its smallest value, to white; of other numbers of channels the mean is shown."""
    image = image if image.ndim == 3 else image[None]
    if image.dtype != np.uint8:
        image = np.rint((image - image.min()) * (255 / max(float(np.ptp(image)), 1e-12)))
    return (image if image.shape[2] == 3 else np.rint(image.mean(axis=2))).astype(np.uint8)


def side_by_side(images: Sequence[np.ndarray], captions: Sequence[str]) -> Picture:
    """Images above their captions; signals as curves in one plot, the mean of their channels."""
    from .. import draw

    if images[0].ndim == 3:
        return draw.gallery([shown(image) for image in images], captions)
    series = [(caption.replace("\n", ", "), range(len(signal)), signal.mean(axis=1))
              for caption, signal in zip(captions, images, strict=True)]
    channels = images[0].shape[1]
    return draw.curves(series, x_label="position", y_label="value" if channels == 1 else f"mean of {channels} channels")
