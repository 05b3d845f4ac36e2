"""Visual hierarchy: layer by layer units see more of the image and answer to more special things."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..data.arrays import spread
from ..explain.graph import logits
from ..explain.maps import shown
from ..layers import Affine, AvgPool, BatchNorm, MaxPool
from ..model import Model
from ..network import Network
from ..summary import by
from ..training.plan import whole
from .layers import convolutions, cost, some
from .matches import Match, as_pixels, cut, strongest
from .maximise import STEPS, Limits, Made, maximise
from .result import Study, checked, model_study, pictured

if TYPE_CHECKING:
    from ..draw import Picture

GROUPS = 100  # of images taken at random
WORK, FEWEST = 6 * 10**11, 24  # multiply-adds that a layer's images may take; steps below which none are made
SAMPLE = 256  # images from which the range of float32 values is taken


@dataclass(frozen=True)
class Unit:
    """A channel: what of the images it answers most, and the values of the image made for it: that which the making
    began from, and the end; None where none was made."""

    channel: int
    matches: tuple[Match, ...]
    start: float | None
    made: float | None

    @property
    def gain(self) -> float | None:
        """How many times the best answer to a given image the answer to the made one is."""
        best = self.matches[0].value
        return self.made / best if self.made is not None and best > 0 else None


@dataclass(frozen=True)
class Level:
    """A layer and some of its units, whose values are those of `unit`: the layer after its normalisation.

    `field` is what a position sees, None for all; `one_class`: of a unit's best images, the share that the model calls
    by one name, averaged over the units; `gain`: the median over units of how much stronger the made images are."""

    layer: str
    unit: str
    field: tuple[int, ...] | None
    units: tuple[Unit, ...]
    one_class: float | None
    gain: float | None
    patches: tuple[tuple[np.ndarray, ...], ...] = pictured()
    made: tuple[np.ndarray, ...] = pictured()


@dataclass(frozen=True, eq=False)
class Hierarchy(Study):
    """`levels` from the first to the last; `one_class_by_chance` is what `one_class` is for images taken at random."""

    name, title = "hierarchy", "Visual hierarchy"
    claim = "First layers find edges and colours, later ones parts, the last ones whole things."

    images: int
    count: int
    input_size: tuple[int, ...]
    one_class_by_chance: float | None
    levels: tuple[Level, ...]

    @property
    def sentence(self) -> str:
        seen = ", ".join(f"{by(v.field)} in {v.layer}" if v.field else f"all in {v.layer}" for v in self.levels)
        text = f"What one unit sees grows: {seen}, of {by(self.input_size)} positions."
        if self.one_class_by_chance is not None:
            shares = ", ".join(f"{v.one_class:.0%} in {v.layer}" for v in self.levels)
            text += (f" Of the {self.count} of {self.images:,} images that a unit answers most, the model gives "
                     f"one answer to {shares}; taken at random, to {self.one_class_by_chance:.0%}.")
        gains = [f"{v.gain:.1f} in {v.layer}" for v in self.levels if v.gain is not None]
        if gains:
            text += (" How many times as strongly as the best of these a unit answers an image made for it: "
                     f"{', '.join(gains)}.")
        return text

    def figures(self) -> list[Picture]:
        from .. import draw

        pictures = []
        for level in self.levels:
            images, captions = [], []
            for i, unit in enumerate(level.units):
                if level.made:
                    images.append(shown(level.made[i]))
                    captions.append(f"made: {unit.made:.3g}")
                images += map(shown, level.patches[i])
                captions += [f"{m.value:.3g}\nimage {m.image}" for m in unit.matches]
                row = len(captions) - len(unit.matches) - bool(level.made)
                captions[row] = f"{level.layer}\nunit {unit.channel}\n{captions[row]}"
            pictures.append(draw.gallery(images, captions, columns=len(level.units[0].matches) + bool(level.made)))
        return pictures


@model_study("hierarchy")
def hierarchy(model: Model, images: np.ndarray, *, layers: int = 5, units: int = 4, count: int = 6, steps: int = STEPS,
              seed: int = 0) -> Hierarchy:
    """For some units of at most `layers` convolutions and of the output, what of the images they answer most, and an
    image made for each.

    Layers and units are taken at equal distances; units that no image moves above zero are passed over. Images are
    made by activation maximisation (`maximise`) in `steps` steps, fewer for large networks; none with 0, and none for
    a layer for which that takes too long. Raises ValueError for images that do not fit, DoesNotApply for a network
    without convolutions.
    """
    images = checked(model, images)
    layers, units, count = whole("layers", layers, 1), whole("units", units, 1), whole("count", count, 1)
    steps, network = whole("steps", steps, 0), model.network
    named = {name: unit_of(network, name) for name in some(convolutions(network), layers)}
    if network.shapes[answer := logits(network)][:-1] == ():
        named[answer] = answer
    found = strongest(model, images, set(named.values()), count)
    chosen = {name: some(_answering(found[unit]), units) for name, unit in named.items()}
    classes, limits = _answers(model, images, found), limits_of(model, images)
    levels = []
    for name, unit in named.items():
        matches = [found[unit][c] for c in chosen[name]]
        # A gradient to the input takes about as long as the value twice over.
        affordable = min(steps, WORK // (3 * len(matches) * cost(network, unit)))
        made = [None] * len(matches)
        if affordable >= min(steps, FEWEST) > 0:
            made = maximise(model, unit, chosen[name], limits, steps=affordable, seed=seed)
        members = [Unit(int(c), tuple(m), made and made.start, made and made.value)
                   for c, m, made in zip(chosen[name], matches, made, strict=True)]
        gains = [u.gain for u in members if u.gain is not None]
        field = network.receptive_fields[unit]
        levels.append(Level(
            name, unit, field and tuple(f.size for f in field), tuple(members),
            classes and float(np.mean([_one_class([classes[m.image] for m in own]) for own in found[unit]])),
            float(np.median(gains)) if gains else None,
            tuple(tuple(cut(model, images[m.image], m.window) for m in own) for own in matches),
            tuple(_shown(model, m, limits) for m in made if m)))
    by_chance = _by_chance(model, images, count, seed)
    return Hierarchy(len(images), min(count, len(images)), network.input_shape[:-1], by_chance, tuple(levels))


def unit_of(network: Network, name: str) -> str:
    """The node whose value says how much a convolution's filter answers: the normalisation after it, if there is one,
    since that may turn its sign; else itself."""
    unit = name
    while len(readers := [node for node in network.nodes if name in node.inputs]) == 1:
        name = readers[0].name
        if isinstance(readers[0].layer, BatchNorm | Affine):
            unit = name
        elif not isinstance(readers[0].layer, MaxPool | AvgPool):
            break
    return unit


def _answering(found: list[list[Match]]) -> list[int]:
    """The channels that some image moves above zero; all of them where there is no such."""
    return [channel for channel, own in enumerate(found) if own[0].value > 0] or list(range(len(found)))


def limits_of(model: Model, images: np.ndarray) -> Limits:
    """Those of all pixels, or of the float32 images' own values."""
    if images.dtype == np.uint8:
        scale, shift = model.preprocessing.scale, model.preprocessing.shift
        return Limits(shift, np.zeros_like(shift), 255 * scale + shift)
    sample = images[spread(len(images), SAMPLE)]
    axes = tuple(range(sample.ndim - 1))
    return Limits(sample.min(axis=axes), sample.mean(axis=axes), sample.max(axis=axes))


def _answers(model: Model, images: np.ndarray, found: dict[str, list[list[Match]]]) -> dict[int, int] | None:
    """The class that the model gives to each image that is a match; None where it gives none."""
    if len(model.network.output_shape) != 1:
        return None
    chosen = sorted({m.image for matches in found.values() for own in matches for m in own})
    classes = model.log_probabilities(images[chosen], calibrated=False).argmax(axis=1)
    return dict(zip(chosen, classes.tolist(), strict=True))


def _one_class(classes: list[int]) -> float:
    """The share of the commonest."""
    return max(map(classes.count, classes)) / len(classes)


def _by_chance(model: Model, images: np.ndarray, count: int, seed: int) -> float | None:
    """The mean share of the commonest answer among `count` images, or all if there are less, taken at random."""
    if len(model.network.output_shape) != 1:
        return None
    rng, count = np.random.default_rng(seed), min(count, len(images))
    groups = np.stack([rng.choice(len(images), count, replace=False) for _ in range(GROUPS)])
    chosen, places = np.unique(groups, return_inverse=True)
    classes = model.log_probabilities(images[chosen], calibrated=False).argmax(axis=1)[places.reshape(groups.shape)]
    return float(np.mean([_one_class(group) for group in classes.tolist()]))


def _shown(model: Model, made: Made, limits: Limits) -> np.ndarray:
    """The window of a made image as uint8."""
    black_white = float(limits.low.min()), float(limits.high.max())
    return cut(model, as_pixels(model, made.image, black_white), made.window)
