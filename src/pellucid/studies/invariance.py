"""Pooling's invariance: how much of a small shift is left after it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ..data.arrays import spread
from ..model import Model
from ..training.plan import whole
from .layers import POOLING, looking
from .result import DoesNotApply, Study, checked, model_study
from .shifts import Distance, compared

if TYPE_CHECKING:
    from ..draw import Picture


@dataclass(frozen=True)
class PoolingLayer:
    """A pooling layer: how far its input and its output are from what they were when the image is shifted by 1, 2, ...
    pixels; 1 is as far as those of another image, and None stands where all images have the same."""

    layer: str
    kernel: str
    before: tuple[float | None, ...]
    after: tuple[float | None, ...]


@dataclass(frozen=True, eq=False)
class Invariance(Study):
    """`layers`: the pooling layers; `shifts`: pixels, from 1 to as many."""

    name, title = "invariance", "Pooling's invariance to small shifts"
    claim = "After pooling a small shift of the input makes less of a difference than before."

    images: int
    shifts: int
    layers: tuple[PoolingLayer, ...]

    @property
    def sentence(self) -> str:
        parts = []
        for v in self.layers:
            if v.before[0] and v.after[0] is not None:
                word = "less" if v.after[0] < v.before[0] else "not less"
                parts.append(f"{v.layer} ({v.kernel}) {v.before[0]:.0%} before and {v.after[0]:.0%} after it: {word}")
        if not parts:
            return "All images have the same maps around the pooling layers, so nothing can be said of how they change."
        return (f"When one of {self.images:,} images moves by one pixel, maps change, in shares of what another image "
                f"changes: {'; '.join(parts)}.")

    def figures(self) -> list[Picture]:
        from .. import draw

        shifts = list(range(self.shifts + 1))
        return [draw.curves(
            [(name, shifts, [0.0, *(np.nan if y is None else y for y in ys)])
             for name, ys in (("before", v.before), ("after", v.after))],
            x_label="shift of the image, in pixels", y_label="change, where another image is 100%", percent=True,
            title=f"{v.layer} ({v.kernel})") for v in self.layers]


@model_study("invariance")
def invariance(model: Model, images: np.ndarray, *, shifts: int = 4, most: int = 64) -> Invariance:
    """For each pooling layer how much its input and its output change when at most `most` of the images move by 1 to
    `shifts` pixels, along each axis; means over images, axes, positions and channels.

    The same positions are compared, so that 0 is invariance, not equivariance. Raises ValueError for images that do not
    fit, DoesNotApply for a single image and for a network without pooling.
    """
    images, shifts, most = checked(model, images), whole("shifts", shifts, 1), whole("most", most, 2)
    if len(images) < 2:
        raise DoesNotApply("there is one image only, and no other to compare a shift with")
    images, network = images[spread(len(images), most)], model.network
    nodes = [network.node(name) for name in looking(network) if isinstance(network.node(name).layer, POOLING)]
    if not nodes:
        raise DoesNotApply("this network has no pooling layer")
    names = sorted({name for node in nodes for name in (node.name, node.inputs[0])})
    found: dict[tuple[str, int], Distance] = defaultdict(partial(Distance, by_place=True))
    for _, shift, still, moved in compared(model, images, names, shifts):
        for name in names:
            found[name, shift].add(moved[name], still[name])
    return Invariance(len(images), shifts, tuple(
        PoolingLayer(node.name, " ".join([type(node.layer).__name__, *_text(network, node)]),
                     *(tuple(found[name, shift].value for shift in range(1, shifts + 1))
                       for name in (node.inputs[0], node.name)))
        for node in nodes))


def _text(network, node) -> list[str]:
    return [text] if (text := node.layer.kernel_text(network.shapes[node.inputs[0]])) else []
