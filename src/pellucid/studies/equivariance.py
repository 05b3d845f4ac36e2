"""Translational equivariance: when the image moves, do a layer's answers move with it, and does the model change its
mind?"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from ..data.arrays import spread
from ..geometry import ReceptiveField
from ..model import Model
from ..training.plan import whole
from .layers import some, with_windows
from .matches import blocks
from .result import DoesNotApply, Study, checked, model_study
from .shifts import Distance, compared
from .variants import Variant, variants

if TYPE_CHECKING:
    from ..draw import Picture

WORK = 4 * 10**11  # multiply-adds that one variant may take
EXACT = 1e-4  # an error that rounding explains
FEWEST = 8  # images that are taken all the same, unless a variant takes many times the work of the model
MOST_TIMES = 2

SHIFT = "shift of the image, in pixels"
Slices = tuple[slice, ...]


@dataclass(frozen=True)
class LayerError:
    """A layer's equivariance error for shifts of 1, 2, ... pixels: how far the map of the moved image is from the moved
    map of the image, where 1 is as far as a map that has nothing to do with it (`shifts.Distance`).

    `inside` is of the positions that see neither padding nor the filled rim, None where there are none; `everywhere` of
    all that have a partner. A map can only move by whole positions: where the shift is no multiple of `stride`, the
    distance of neighbours in pixels along each axis, the better of the two whole moves next to it counts, and `whole`
    is false.
    """

    layer: str
    stride: tuple[int, ...]
    inside: tuple[float | None, ...]
    everywhere: tuple[float | None, ...]
    whole: tuple[bool, ...]


@dataclass(frozen=True)
class Measured:
    """A variant of the model: its layers, measured on `images` images, and for each shift the share of images whose
    answer changes, None where the variant has no answer. `agreement`: the share of images, not moved, to which it
    gives the model's answer. Without `layers`, `note` says why."""

    name: str
    note: str
    images: int
    layers: tuple[LayerError, ...]
    flips: tuple[float, ...] | None
    agreement: float | None


@dataclass(frozen=True, eq=False)
class Equivariance(Study):
    """`shifts` in pixels, from 1 to as many; `variants`: first the model as it is, then without padding, strides and
    pooling, where it has them."""

    name, title = "equivariance", "Translational equivariance"
    claim = "When the image moves, the answers of a convolution move with it, and the model's answer stays the same."

    shifts: int
    variants: tuple[Measured, ...]

    @property
    def sentence(self) -> str:
        model, text = self.variants[0], ""
        for what, kind in (("a multiple of a layer's stride", True), ("another number of pixels", False)):
            said: dict[str, list[str]] = defaultdict(list)  # what is the case, and where
            for where, side in (("away from all borders", "inside"), ("over the whole map", "everywhere")):
                if worst := self._worst(side, kind):
                    said[worst].append(where)
            if said:
                parts = [f"{worst} {' and '.join(where)}" for worst, where in said.items()]
                text += f"When the image moves by {what}, maps {' and '.join(parts)}. "
        text = f"{text or 'No map could be compared. '}"
        if model.flips:
            text += f"Of {model.images:,} images, moved along each axis, {model.flips[0]:.1%} get another answer at 1"
            text += f" pixel, {model.flips[-1]:.1%} at {self.shifts}. " if self.shifts > 1 else " pixel. "
        for v in self.variants[1:]:
            if v.layers:
                text += self._beside(v)
        return text.rstrip()

    def _worst(self, side: str, kind: bool) -> str:
        """How the model's maps follow shifts that are whole moves of them, or are not; nothing where none are known."""
        errors = [(error, layer.layer) for layer in self.variants[0].layers
                  for error, whole_move in zip(getattr(layer, side), layer.whole, strict=True)
                  if error is not None and whole_move is kind]
        if not errors:
            return ""
        error, layer = max(errors)
        return f"are up to {error:.1%} off ({layer})" if error > EXACT else "follow exactly"

    def _beside(self, v: Measured) -> str:
        """A variant beside the model: over the whole map, in the last layer that can be compared, averaged over the
        shifts that padding (whole moves of the map) or strides and pooling (others, if there are) have to do with."""
        own = {layer.layer: layer for layer in self.variants[0].layers}
        for layer in reversed(v.layers):
            mine = own[layer.layer]
            pairs = [pair for *pair, whole_move in zip(mine.everywhere, layer.everywhere, mine.whole, strict=True)
                     if None not in pair and whole_move is (v.name == "without padding")]
            if pairs:
                before, after = np.mean(pairs, axis=0)
                alike = "" if v.agreement is None else f", and {v.agreement:.0%} of the answers are the model's"
                return f"{v.name.capitalize()} {layer.layer} is {after:.1%} off where it was {before:.1%}{alike}. "
        return ""

    def figures(self) -> list[Picture]:
        from .. import draw

        shifts, model = list(range(1, self.shifts + 1)), self.variants[0]
        pictures = []
        for side, title in (("inside", "Away from all borders"), ("everywhere", "Over the whole map")):
            series = [(layer.layer, shifts, _gaps(errors)) for layer in model.layers
                      if set(errors := getattr(layer, side)) != {None}]
            if series:
                pictures.append(draw.curves(series, x_label=SHIFT, y_label="equivariance error", percent=True,
                                            title=title))
        measured = [v for v in self.variants if v.layers]
        common = [layer.layer for layer in model.layers
                  if all(layer.layer in [other.layer for other in v.layers] for v in measured)]
        last = common[-1] if common else model.layers[-1].layer
        compared = [(v.name, shifts, _gaps(layer.everywhere)) for v in measured for layer in v.layers
                    if layer.layer == last]
        if len(compared) > 1:
            pictures.append(draw.curves(compared, x_label=SHIFT, y_label="equivariance error",
                                        percent=True, title=f"{last}, over the whole map"))
        if flips := [(v.name, [0, *shifts], [0.0, *v.flips]) for v in measured if v.flips]:
            pictures.append(draw.curves(flips, x_label=SHIFT, y_label="answers that change",
                                        percent=True, title="How often the answer changes"))
        return pictures


@model_study("equivariance")
def equivariance(model: Model, images: np.ndarray, *, shifts: int = 4, most: int = 64, layers: int = 8) -> Equivariance:
    """How exactly the maps of at most `layers` layers follow when at most `most` of the images move by 1 to `shifts`
    pixels along each axis, and how often the answer changes; the same for the model without padding, without strides
    and without pooling, with its own weights (`variants.variants`).

    Images move towards the end of an axis; the first line is repeated where nothing was. Errors are those of all axes
    together. Fewer images are taken for large networks, and variants left out that would take too long. Raises
    ValueError for images that do not fit, DoesNotApply for a network in which no layer looks at neighbours.
    """
    images, shifts, most = checked(model, images), whole("shifts", shifts, 1), whole("most", most, 1)
    layers, network = whole("layers", layers, 1), model.network
    names = [name for name in with_windows(network) if prod(network.shapes[name][:-1]) > 1]
    if not names:
        raise DoesNotApply("no layer of this network makes a map of several positions, which could move with the image")
    names, images = some(names, layers), images[spread(len(images), most)]
    answers = _answered(model, images)
    return Equivariance(shifts, tuple(_measured(v, model, images, names, shifts, answers) for v in variants(model)))


def _measured(variant: Variant, whole_model: Model, images: np.ndarray, names: list[str], shifts: int,
              answers: np.ndarray | None) -> Measured:
    model = variant.model
    if model is None:
        return Measured(variant.name, variant.note, 0, (), None, None)
    network, passes = model.network, 1 + shifts * (images.ndim - 2)
    own, macs = max(sum(whole_model.network.macs.values()), 1), max(sum(network.macs.values()), 1)
    affordable = WORK // (passes * macs)
    if affordable < min(FEWEST, len(images)) and macs > MOST_TIMES * own:
        return Measured(variant.name, f"left out: it takes {macs:,} multiply-adds an image, the model {own:,}", 0,
                        (), None, None)
    chosen = spread(len(images), max(affordable, FEWEST))
    images, names = images[chosen], [name for name in names if name in network.shapes]
    fields, output = network.receptive_fields, network.output
    answering = variant.whole and len(network.output_shape) == 1
    taken = sorted({*names, *([output] if answering else [])})
    found: dict[tuple, Distance] = defaultdict(Distance)
    changed, asked = np.zeros(shifts), np.zeros(shifts)
    for axis, shift, still, moved in compared(model, images, taken, shifts):
        for name in names:
            for move in _moves(shift, fields[name][axis].stride):
                for side, parts in _partners(fields[name], network, name, axis, shift, move).items():
                    if parts:
                        there, here = parts
                        found[name, shift, side, axis, move].add(moved[name][:, *there], still[name][:, *here])
        if answering:
            changed[shift - 1] += int((moved[output].argmax(axis=-1) != still[output].argmax(axis=-1)).sum())
            asked[shift - 1] += len(moved[output])
    given = _answered(model, images) if answering else None
    return Measured(
        variant.name, variant.note, len(images),
        tuple(_error(name, tuple(f.stride for f in fields[name]), found, shifts) for name in names),
        tuple((changed / asked).tolist()) if answering else None,
        float((given == answers[chosen]).mean()) if answering and answers is not None else None)


def _moves(shift: int, stride: int) -> list[int]:
    """The whole moves of a map that are next to a shift of its image."""
    return sorted({shift // stride, -(-shift // stride)})


def _partners(field: tuple[ReceptiveField, ...], network, name: str, axis: int, shift: int,
              move: int) -> dict[str, tuple[Slices, Slices] | None]:
    """Which positions of the moved image's map to hold against which of the other's, inside and everywhere."""
    size, pixels, found = network.shapes[name][:-1], network.input_shape[:-1], {}
    for side in ("inside", "everywhere"):
        there, here = [], []
        for i, (f, count, n) in enumerate(zip(field, size, pixels, strict=True)):
            step, first = (move, shift) if i == axis else (0, 0)
            kept = [p for p in range(step, count) if side == "everywhere" or (
                f.covers(p).start >= first and f.covers(p).stop <= n
                and f.covers(p - step).start >= 0 and f.covers(p - step).stop <= n)]
            there.append(slice(kept[0], kept[-1] + 1) if kept else None)
            here.append(slice(kept[0] - step, kept[-1] + 1 - step) if kept else None)
        found[side] = (tuple(there), tuple(here)) if None not in there else None
    return found


def _error(name: str, stride: tuple[int, ...], found: dict[tuple, Distance], shifts: int) -> LayerError:
    """The errors of a layer: of the better move for each axis, all axes together."""
    errors: dict[str, list[float | None]] = {"inside": [], "everywhere": []}
    for side, values in errors.items():
        for shift in range(1, shifts + 1):
            best = []
            for axis, s in enumerate(stride):
                tried = [d for move in _moves(shift, s) if (d := found.get((name, shift, side, axis, move)))]
                best.append(min((d.value for d in tried if d.value is not None), default=None))
            known = [value for value in best if value is not None]
            values.append(float(np.sqrt(np.mean(np.square(known)))) if known else None)
    return LayerError(name, stride, tuple(errors["inside"]), tuple(errors["everywhere"]),
                      tuple(all(shift % s == 0 for s in stride) for shift in range(1, shifts + 1)))


def _answered(model: Model, images: np.ndarray) -> np.ndarray | None:
    """The classes that a model answers with, or None where its output is a map."""
    if len(model.network.output_shape) != 1:
        return None
    output = model.network.output
    return np.concatenate([values[output].argmax(axis=-1) for _, values in blocks(model, images, [output])])


def _gaps(values) -> list[float]:
    return [np.nan if y is None else y for y in values]
