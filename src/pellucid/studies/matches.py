"""What in the images a unit answers most: the strongest places, and the windows of the image behind them.

Images are read some at a time, and only the strongest answers are kept, so that any number of them takes little memory.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from math import prod

import numpy as np

from ..explain import taps
from ..model import Model
from ..network import INPUT, Field
from .result import require_finite

MEMORY = 2**26  # bytes of values that are looked at together
CHUNK = 64  # images that `taps` computes together, where memory allows
MOST_PIXELS = 64  # along each side of a patch that is kept; larger ones lose every second pixel, or more

Window = tuple[tuple[int, int], ...]  # first and one past the last position, an axis; may reach beyond the image


@dataclass(frozen=True)
class Match:
    """A strong answer: the number of the image, the place in the layer's map (none for a layer without positions), the
    value, and the window of the input behind it, which reaches beyond the image where padding was read."""

    image: int
    place: tuple[int, ...]
    value: float
    window: Window


def blocks(model: Model, images: np.ndarray, names: Collection[str]) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """The values at some taps, some images at a time: (number of the first, {name: (n, ...)}).

    Raises ValueError for values that are not finite, naming the layer.
    """
    shapes = {**model.network.shapes, INPUT: model.network.input_shape}
    fit = MEMORY // (4 * sum(prod(shapes[name]) for name in names))
    each = max(fit // CHUNK * CHUNK, min(fit, CHUNK), 1)
    for first in range(0, len(images), each):
        values = taps.values(model, np.ascontiguousarray(images[first:first + each]), names)
        for name in sorted(values):
            require_finite(values[name], f"the values of {name}")
        yield first, values


def strongest(model: Model, images: np.ndarray, names: Collection[str], count: int) -> dict[str, list[list[Match]]]:
    """For each layer and each of its channels the `count` images with the strongest answers, at their strongest place.

    No two are from one image; of equal answers the first image and the first place count. Raises what `blocks` does.
    """
    kept: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
    for first, values in blocks(model, images, names):
        for name, value in values.items():
            flat = value.reshape(len(value), -1, value.shape[-1])
            place = flat.argmax(axis=1)
            found = (np.take_along_axis(flat, place[:, None], axis=1)[:, 0], place,
                     np.broadcast_to(np.arange(first, first + len(value))[:, None], place.shape))
            if name in kept:
                found = tuple(np.concatenate(pair) for pair in zip(kept[name], found, strict=True))
            order = np.argsort(-found[0], axis=0, kind="stable")[:count]
            kept[name] = tuple(np.take_along_axis(part, order, axis=0) for part in found)
    fields = model.network.receptive_fields
    return {name: [_matches(model, name, fields[name], *(part[:, channel] for part in kept[name]))
                   for channel in range(kept[name][0].shape[1])] for name in kept}


def window_of(model: Model, field: Field, place: tuple[int, ...]) -> Window:
    """The positions of the input that a place sees: those of its field, or all of them."""
    if field is None:
        return tuple((0, n) for n in model.network.input_shape[:-1])
    seen = [f.covers(p) for f, p in zip(field, place, strict=True)]
    return tuple((span.start, span.stop) for span in seen)


def cut(model: Model, image: np.ndarray, window: Window) -> np.ndarray:
    """A window of an image: uint8 (h, w, C) or (l, C); padding as the colour that zeros stand for, the mean one.

    Only every second position or less is kept of a window that is longer than `MOST_PIXELS`; of one that covers the
    image and more, the image.
    """
    limits, lows, highs, sides = (float(image.min()), float(image.max())), [], [], []
    for (low, high), n in zip(window, image.shape[:-1], strict=True):
        low, high = (0, n) if low <= 0 and high >= n else (low, high)
        lows.append(min(max(low, 0), n))
        highs.append(min(max(high, 0), n))
        sides.append((min(max(-low, 0), high - low), min(max(high - n, 0), high - low)))
    inside = as_pixels(model, image[tuple(map(slice, lows, highs))], limits)
    shape = [before + n + after for n, (before, after) in zip(inside.shape, sides, strict=False)]
    patch = np.empty((*shape, image.shape[-1]), np.uint8)
    patch[:] = as_pixels(model, np.zeros(image.shape[-1:], np.float32), limits)
    patch[tuple(slice(before, before + n) for n, (before, _) in zip(inside.shape, sides, strict=False))] = inside
    step = -(-max(shape) // MOST_PIXELS)
    return patch[tuple(slice(step // 2, None, step) for _ in shape)]


def as_pixels(model: Model, values: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """What the network reads as uint8: float32 by the model's preprocessing backwards, or without one with `limits` as
    black and white; uint8 as it is."""
    if values.dtype == np.uint8:
        return values
    if model.preprocessing:
        levels = (values - model.preprocessing.shift) / model.preprocessing.scale
    else:
        levels = (values - limits[0]) / ((limits[1] - limits[0]) or 1.0) * 255
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)


def _matches(model: Model, name: str, field: Field, values, places, numbers) -> list[Match]:
    size = model.network.shapes[name][:-1]
    found = []
    for value, place, number in zip(values.tolist(), places.tolist(), numbers.tolist(), strict=True):
        where = tuple(int(i) for i in np.unravel_index(place, size)) if size else ()
        found.append(Match(number, where, value, window_of(model, field if size else None, where)))
    return found
