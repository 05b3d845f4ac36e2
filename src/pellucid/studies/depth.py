"""Pooling and depth: how far a position sees, and how space becomes channels, layer by layer. From the graph alone."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from ..model import Model
from ..network import Network
from ..summary import by
from ..texts import number
from .layers import NO_WINDOWS, looking
from .result import DoesNotApply, Study, checked, model_study

if TYPE_CHECKING:
    from ..draw import Picture


@dataclass(frozen=True)
class Level:
    """A layer that looks at more than one position: `field`, what a position sees of the input, padding included, and
    None for all of it; `stride`, the distance of neighbours in positions of the input; `size` of the map; `values` in
    all."""

    layer: str
    kind: str
    field: tuple[int, ...] | None
    stride: tuple[int, ...] | None
    size: tuple[int, ...]
    channels: int
    values: int


@dataclass(frozen=True, eq=False)
class Depth(Study):
    """`levels`: the layers that look at more than one position, from the input to the output."""

    name, title = "depth", "Pooling and depth"
    claim = ("Each layer sees a little more than the one before; strides and pooling make maps smaller and the view "
             "wider, while channels become more.")

    input_size: tuple[int, ...]
    input_channels: int
    levels: tuple[Level, ...]

    @property
    def sentence(self) -> str:
        spatial = [level for level in self.levels if level.size]
        first, last = spatial[0], spatial[-1]
        count = number(len(spatial), "layer that looks", "layers that look")
        text = (f"In {count} at neighbours, from the input to {last.layer}, the map goes from "
                f"{by(self.input_size)} positions to {by(last.size)} and the channels from "
                f"{self.input_channels:,} to {last.channels:,}.")
        if first.field and last.field:
            share = prod(min(f, n) for f, n in zip(last.field, self.input_size, strict=True)) / prod(self.input_size)
            text += f" A position of {first.layer} sees {by(first.field)} positions of the input"
            text += f", one of {last.layer} {by(last.field)}" if last is not first else ""
            text += f", neighbours {by(last.stride)} apart: " + ("all of it." if share == 1 else f"{share:.0%} of it.")
        return text

    def figures(self) -> list[Picture]:
        from .. import draw

        spatial = [level for level in self.levels if level.size]
        seen = [(i, level.field[-1]) for i, level in enumerate(spatial, 1) if level.field]
        numbers = list(range(len(spatial) + 1))
        pictures = []
        if seen:
            pictures.append(draw.curves(
                [("receptive field", [0, *(i for i, _ in seen)], [1, *(size for _, size in seen)]),
                 ("size of the input", [0, len(spatial)], [self.input_size[-1]] * 2)],
                x_label="layers that look at neighbours", y_label="positions of the input's row",
                title="What one position sees"))
        pictures.append(draw.curves(
            [("positions of a row", numbers, [self.input_size[-1], *(s.size[-1] for s in spatial)]),
             ("channels", numbers, [self.input_channels, *(s.channels for s in spatial)])],
            x_label="layers that look at neighbours", y_label="number", title="Space becomes channels"))
        return pictures


@model_study("depth")
def depth(model: Model, images: np.ndarray | None = None) -> Depth:
    """Receptive fields, map sizes and channels of a model's layers; images are not needed.

    Raises DoesNotApply for a network in which no layer looks at neighbours.
    """
    if images is not None:
        checked(model, images)
    network = model.network
    levels = tuple(_level(network, name) for name in looking(network))
    if not any(level.size for level in levels):
        raise DoesNotApply(NO_WINDOWS)
    return Depth(network.input_shape[:-1], network.input_shape[-1], levels)


def _level(network: Network, name: str) -> Level:
    shape, field = network.shapes[name], network.receptive_fields[name]
    return Level(
        name, type(network.node(name).layer).__name__, field and tuple(f.size for f in field),
        field and tuple(f.stride for f in field), shape[:-1], shape[-1], prod(shape))
