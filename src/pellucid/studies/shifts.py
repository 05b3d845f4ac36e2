"""Images moved by some pixels, and how far two maps are apart."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import numpy as np

from ..explain import taps
from ..model import Model
from ..network import INPUT
from .matches import CHUNK, MEMORY
from .result import require_finite


def moved(images: np.ndarray, axis: int, shift: int) -> np.ndarray:
    """Images (N, ...) moved along their axis `axis` by `shift` positions towards the end; the first line is repeated
    where nothing was."""
    sources = np.maximum(np.arange(images.shape[1 + axis]) - shift, 0)
    return np.ascontiguousarray(images.take(sources, axis=1 + axis))


def compared(model: Model, images: np.ndarray, names: list[str],
             shifts: int) -> Iterator[tuple[int, int, dict[str, np.ndarray], dict[str, np.ndarray]]]:
    """The values at some taps for some images at a time and for the same ones moved: (axis, shift, values, values of
    the moved), for every axis and every shift from 1 to `shifts`. Raises ValueError for values that are not finite."""
    shapes = {**model.network.shapes, INPUT: model.network.input_shape}
    size = 16 * sum(prod(shapes[name]) for name in names)  # bytes for an image: in float64, and moved in float32
    each = max(min(MEMORY // size, CHUNK), 1)
    for first in range(0, len(images), each):
        block = images[first:first + each]
        still = {name: value.astype(np.float64) for name, value in taps.values(model, block, names).items()}
        for axis in range(block.ndim - 2):
            for shift in range(1, shifts + 1):
                after = taps.values(model, moved(block, axis, shift), names)
                for name in names:
                    require_finite(after[name], f"the values of {name}")
                yield axis, shift, still, after


class Distance:
    """How far maps are from others, in units in which two that vary alike, and have nothing to do with each other, are
    1 apart: the root of the mean squared difference over that of twice the variance of the others' values.

    The variance is that of a channel, over images and positions, or with `by_place` that of a channel at a position,
    over images: then 1 is how far the maps of two different images are apart.
    """

    def __init__(self, by_place: bool = False) -> None:
        self.by_place = by_place
        self.difference, self.count, self.sums, self.squares = 0.0, 0, 0.0, 0.0

    def add(self, maps: np.ndarray, others: np.ndarray) -> None:
        """Take in more of both, (N, ..., C); `others` are float64."""
        self.difference += float(np.square(maps - others).sum())
        flat = others.reshape(len(others), -1) if self.by_place else others.reshape(-1, others.shape[-1])
        self.count += len(flat)
        self.sums = self.sums + flat.sum(axis=0)
        self.squares = self.squares + np.square(flat).sum(axis=0)

    @property
    def value(self) -> float | None:
        """The distance; None where there is nothing to compare, or maps differ from some that do not vary."""
        if not self.count:
            return None
        if self.difference == 0:
            return 0.0
        variation = float((self.squares - np.square(self.sums) / self.count).sum())
        return float(np.sqrt(self.difference / (2 * variation))) if variation > 0 else None
