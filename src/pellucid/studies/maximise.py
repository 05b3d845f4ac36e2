"""Activation maximisation: images made so that a unit answers them as much as it can.

Gradient ascent on the input (Erhan, Bengio, Courville and Vincent, "Visualizing higher-layer features of a deep
network", 2009). Left alone it finds patterns of single pixels that no image has; so, as is usual since Mordvintsev,
Olah and Tyka, "Inceptionism", 2015, and Olah, Mordvintsev and Schubert, "Feature visualization", 2017, the image is
moved a little before each step, smoothed less and less, and drawn towards the mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..explain import taps
from ..model import Model
from ..training.plan import whole
from .layers import up_to
from .matches import CHUNK, Window, window_of

STEPS = 64
STEP = 0.5  # of the input's deviation: the largest change of a value in a step, at the beginning
DECAY = 0.01  # of a value's distance from the mean, in each step
# Of the side of what the unit sees: the largest move, and the deviation of the blur at the beginning; none at the end.
JITTER, SMOOTH = 1 / 16, 1 / 32


@dataclass(frozen=True)
class Made:
    """An image made for a unit: `image`, float32 as the network reads it, and the `window` that the unit sees of it;
    the unit's value for what it began from and for what came out."""

    channel: int
    start: float
    value: float
    window: Window
    image: np.ndarray


@dataclass(frozen=True)
class Limits:
    """The least, the mean and the greatest value of each input channel, as the network reads them."""

    low: np.ndarray
    mean: np.ndarray
    high: np.ndarray


def maximise(model: Model, layer: str, channels: Sequence[int], limits: Limits, *,
             steps: int = STEPS, seed: int = 0) -> list[Made]:
    """For some channels of a layer an image that the unit in the middle of the map answers as much as can be.

    All begin from the same noise around the mean; the same seed gives the same images. Raises
    ValueError for a layer or a channel that is not there.
    """
    part, steps = up_to(model, layer), whole("steps", steps, 1)
    shape = part.network.output_shape
    for channel in channels:
        whole("a channel", channel, 0, shape[-1] - 1)
    place = tuple(n // 2 for n in shape[:-1])
    window = window_of(part, part.network.receptive_fields[layer] if place else None, place)
    sides = [min(high - low, n) for (low, high), n in zip(window, part.network.input_shape[:-1], strict=True)]
    made = []
    for first in range(0, len(channels), CHUNK):
        some = list(channels[first:first + CHUNK])
        start, images = _ascend(part, [(*place, c) for c in some], sides, limits, steps, seed)
        before = _answers(part, start, place, some)
        after = _answers(part, images, place, some)
        made += [Made(int(c), float(b), float(a), window, image)
                 for c, b, a, image in zip(some, before, after, images, strict=True)]
    return made


def _ascend(part: Model, units: list[tuple[int, ...]], sides: list[int], limits: Limits, steps: int,
            seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(what it begins from, what comes out), one image a unit that sees so many positions along each axis."""
    spread, rng = (limits.high - limits.low) / 4, np.random.default_rng(seed)
    noise = rng.standard_normal(part.network.input_shape, np.float32)
    start = np.clip(limits.mean + 0.1 * spread * noise, limits.low, limits.high)
    images = np.repeat(start[None], len(units), axis=0)
    cotangent = np.zeros((len(units), *part.network.output_shape), np.float32)
    for image, unit in enumerate(units):
        cotangent[image, *unit] = 1
    axes = tuple(range(1, 1 + len(sides)))
    for step in range(steps):
        left = 1 - step / steps
        moves = [int(rng.integers(-(most := int(n * JITTER)), most + 1)) for n in sides]
        moved = np.ascontiguousarray(np.roll(images, moves, axes))
        gradient = np.roll(taps.gradients(part, moved, cotangent, ["input"])["input"],
                           [-m for m in moves], axes)
        gradient = _smoothed(gradient, SMOOTH * left * max(sides), axes)
        largest = np.abs(gradient).max(axis=(*axes, -1), keepdims=True)
        images += STEP * (0.1 + 0.9 * left) * spread * gradient / np.where(largest > 0, largest, 1)
        images -= DECAY * (images - limits.mean)
        np.clip(images, limits.low, limits.high, out=images)
    return np.repeat(start[None], len(units), axis=0), images


def _smoothed(values: np.ndarray, deviation: float, axes: tuple[int, ...]) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(values, deviation, axes=axes, mode="nearest")


def _answers(part: Model, images: np.ndarray, place: tuple[int, ...], channels: list[int]) -> np.ndarray:
    values = taps.values(part, images, [part.network.output])[part.network.output]
    return values[(np.arange(len(images)), *place, channels)]
