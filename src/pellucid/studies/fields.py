"""Looking locally: what a unit can see, and what of it it really looks at."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from ..data.arrays import spread
from ..explain import taps
from ..model import Model
from ..summary import by
from ..training.plan import whole
from .layers import cost, some, up_to, with_windows
from .matches import MEMORY, window_of
from .result import Study, checked, model_study, pictured, require_finite

if TYPE_CHECKING:
    from ..draw import Picture

WORK, FEWEST = 5 * 10**11, 8  # multiply-adds that it may take; images that are looked at all the same
TOGETHER = 16  # images, unless the layer is large
THRESHOLD = 1 - 0.9545  # of the largest: within two deviations, if the field were a bell


@dataclass(frozen=True)
class FieldOf:
    """The fields of the unit in the middle of a layer's map, in positions of the input.

    `field` is the theoretical one, padding included, and `seen` what of it lies on the image; `looked_at` counts the
    positions of the effective one, and `side` is that of a square of so many (of a signal: its length); `half`: how
    few positions hold half of the gradient. `map` is the mean absolute gradient of the unit to every position of the
    input, (H, W) or (L,), with 1 as its largest.
    """

    layer: str
    field: tuple[int, ...]
    seen: tuple[int, ...]
    looked_at: int
    side: float
    half: int
    map: np.ndarray = pictured()

    @property
    def share(self) -> float:
        """What of the seen positions is looked at."""
        return self.looked_at / prod(self.seen)


@dataclass(frozen=True, eq=False)
class Fields(Study):
    """`layers` that look at neighbours, from the first to the last, measured on `images` images."""

    name, title = "fields", "Looking locally"
    claim = "A unit sees a window of the image only, its receptive field, and in it the middle more than the rim."

    images: int
    input_size: tuple[int, ...]
    layers: tuple[FieldOf, ...]

    @property
    def sentence(self) -> str:
        parts = []
        for f in (self.layers[0], self.layers[-1])[:len(self.layers)]:
            looks = (f"looks at {f.looked_at:,} of the {prod(f.seen):,} of them that are on the image ({f.share:.0%}), "
                     f"half of its gradient falling on {f.half:,} ({f.half / prod(f.seen):.0%})"
                     if f.looked_at else "looks at none of them: no gradient reaches the image")
            parts.append(f"a unit of {f.layer} can see {by(f.field)} positions and {looks}")
        text = "; ".join(parts)
        return (f"{text[0].upper()}{text[1:]}. Looked at is where its gradient, over {self.images:,} images, is more "
                f"than {THRESHOLD:.2%} of its largest.")

    def figures(self) -> list[Picture]:
        from .. import draw

        numbers = list(range(1, len(self.layers) + 1))
        seen = [prod(f.seen) ** (1 / len(f.seen)) for f in self.layers]
        pictures = [draw.curves(
            [("can see", numbers, seen), ("looks at", numbers, [f.side for f in self.layers])],
            x_label=f"layers, from {self.layers[0].layer} to {self.layers[-1].layer}",
            y_label="side, in positions of the input", title="Theoretical and effective receptive field")]
        for f in self.layers:
            title = f"{f.layer}: sees {by(f.seen)}, looks at {f.looked_at:,} positions"
            pictures.append(draw.heatmap(f.map if f.map.ndim == 2 else f.map[None], title=title))
        return pictures


@model_study("fields")
def fields(model: Model, images: np.ndarray, *, most: int = 48, layers: int = 8, seed: int = 0) -> Fields:
    """Theoretical and effective receptive fields of at most `layers` layers, on at most `most` of the images.

    The effective field (Luo, Li, Urtasun and Zemel, "Understanding the effective receptive field in deep convolutional
    neural networks", 2016) is where the absolute gradient of the middle unit to the input, averaged over images, is
    more than 4.55% of its largest value; each image asks another channel, in an order drawn by `seed`. Large
    networks are asked about fewer images. Raises ValueError for images that do not fit, DoesNotApply for a network in
    which no layer looks at neighbours.
    """
    images, most, network = checked(model, images), whole("most", most, 1), model.network
    names = some(with_windows(network), whole("layers", layers, 1))
    # A gradient to the input takes about as long as the value twice over.
    affordable = WORK // (3 * sum(cost(network, name) for name in names))
    images = np.ascontiguousarray(images[spread(len(images), min(most, max(affordable, FEWEST)))])
    return Fields(len(images), network.input_shape[:-1], tuple(_field(model, images, name, seed) for name in names))


def _field(model: Model, images: np.ndarray, name: str, seed: int) -> FieldOf:
    field, seen_map = model.network.receptive_fields[name], effective(model, images, name, seed)
    window = window_of(model, field, middle(model, name))
    seen = tuple(max(min(high, n) - max(low, 0), 1) for (low, high), n in zip(window, seen_map.shape, strict=True))
    looked_at = int((seen_map > THRESHOLD).sum())
    side = looked_at ** (1 / len(seen))
    return FieldOf(name, tuple(f.size for f in field), seen, looked_at, side, half_of(seen_map), seen_map)


def middle(model: Model, name: str) -> tuple[int, ...]:
    """The position in the middle of a layer's map, the later of two."""
    return tuple(n // 2 for n in model.network.shapes[name][:-1])


def half_of(values: np.ndarray) -> int:
    """How few of some values, none below zero, hold half of their sum."""
    ranked = np.cumsum(np.sort(values, axis=None)[::-1])
    return int(np.searchsorted(ranked, ranked[-1] / 2) + 1) if ranked[-1] > 0 else 0


def effective(model: Model, images: np.ndarray, name: str, seed: int = 0) -> np.ndarray:
    """The mean over images of the absolute gradient of a layer's middle unit to each position of the input, summed over
    the input's channels and divided by its largest: float64 (H, W) or (L,). Zeros where no gradient arrives."""
    part, place = up_to(model, name), middle(model, name)
    channels = np.random.default_rng(seed).permutation(part.network.output_shape[-1])
    total = np.zeros(part.network.input_shape[:-1])
    each = TOGETHER if TOGETHER * 4 * prod(part.network.output_shape) <= MEMORY else 1
    for first in range(0, len(images), each):
        some = images[first:first + each]
        cotangent = np.zeros((len(some), *part.network.output_shape), np.float32)
        for i, own in enumerate(cotangent):
            own[*place, channels[(first + i) % len(channels)]] = 1
        total += np.abs(taps.gradients(part, some, cotangent, ["input"])["input"]).sum(axis=(0, -1))
    require_finite(total, f"the gradients of {name}")
    return total / (total.max() or 1.0)
