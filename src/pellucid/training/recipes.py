"""What is chosen where nothing is asked for: the network, how long to train it, how images are changed.

A recipe says how much to spend; the images say the rest. What images were asked is noted in words, for people and
config.json.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .. import optim
from ..layers import BatchNorm, Conv, MaxPool
from ..network import Network
from ..schedules import Cosine, OneCycle
from . import augment, handedness
from .plan import Plan

MOST_EPOCHS = 60  # where no number is given, of a standard recipe: more than that small folders do not need
TINY, SMALL = 16, 32  # pixels a side below which, and up to which, grey images are so: digits, letters
# Peaks of the learning rate: of Muon, whose steps have one length whatever the batch; of SGD with batch normalisation,
# for batches of 128, and without.
MUON_LR, NORMED_LR, PLAIN_LR = 0.24, 0.2, 0.05
BIAS_RATE = 0.1  # for an image in the batch
FEW = 200  # steps
UNEVEN = 2.0  # times as many images as the rarest class has, from which on classes are weighted


@dataclass(frozen=True)
class Recipe:
    """How much to spend. `effort` multiplies the epochs that are the default; of `widths` the first is taken for which
    a given time is enough for `least` epochs, or the first where no time is given."""

    effort: float
    widths: tuple[int, ...]
    least: int


RECIPES = {
    "fast": Recipe(0.5, (32, 24, 16), 2),
    "standard": Recipe(1.0, (64, 48, 32, 16), 5),
    "best": Recipe(3.0, (96, 64, 48, 32), 6),
}


def recipe_of(name: str | None) -> Recipe:
    """Raises ValueError for an unknown name."""
    if name is not None and (not isinstance(name, str) or name not in RECIPES):
        raise ValueError(f"no recipe is called {name!r}; there are {', '.join(RECIPES)}")
    return RECIPES[name or "standard"]


def networks(shape: tuple[int, int, int], recipe: Recipe) -> list[tuple[str, dict]]:
    """(name, options) of the networks of the zoo that suit images of (H, W, C), the best first."""
    if min(shape[:2]) < 8:
        return [("mlp", {})]
    grey = shape[2] == 1
    if grey and max(shape[:2]) < TINY:
        return [("lenet", {})]
    widths = recipe.widths
    if grey and max(shape[:2]) <= SMALL:  # there is less in them to learn
        widths = sorted({max(width // 4, 8) for width in widths}, reverse=True)
    return [("convnet", {"width": width}) for width in widths]


def optimizer(network: Network, plan: Plan, lr: float | None = None, *, new: bool = True) -> optim.Optimiser:
    """Muon under half a cosine where batch normalisation follows every convolution of a network with `new` weights;
    else SGD with Nesterov momentum under one cycle. `lr` replaces the peak of the rate.

    With batch normalisation, SGD's goes with the batch (Goyal et al., "Accurate, large minibatch SGD", 2017, section
    2.1), and training of less than FEW steps has a lower one: its running statistics could not follow.
    """
    if new and _normalised(network):
        return optim.Muon(Cosine(lr or MUON_LR, plan.steps))
    peak = PLAIN_LR
    if any(isinstance(node.layer, BatchNorm) for node in network.nodes):
        peak = NORMED_LR * plan.batch_size / 128 * min(1.0, plan.steps / FEW)
    return optim.SGD(OneCycle(lr or peak, plan.steps), momentum=0.9, nesterov=True, weight_decay=5e-4)


def bias_rate(chosen: optim.Optimiser, plan: Plan) -> float:
    """How many times as fast as other parameters the biases of batch normalisations learn.

    Under Muon in proportion to the batch: as many images move them as far, however they are divided into steps. (That
    they learn faster is from Page, "How to train your ResNet", 2018, by way of the article that `convnet` names.)
    """
    return max(BIAS_RATE * plan.batch_size, 1.0) if isinstance(chosen, optim.Muon) else 1.0


def _normalised(network: Network) -> bool:
    """Whether there are convolutions that are trained, and each one's answers are normalised next, or once pooled."""
    readers: dict[str, list] = {}
    for node in network.nodes:
        for source in node.inputs:
            readers.setdefault(source, []).append(node)

    def is_normalised(name: str) -> bool:
        found = readers.get(name, [])
        return bool(found) and all(
            isinstance(node.layer, BatchNorm) or isinstance(node.layer, MaxPool) and is_normalised(node.name)
            for node in found)

    trained = [node.name for node in network.nodes if isinstance(node.layer, Conv) and node.layer.trainable]
    return bool(trained) and all(map(is_normalised, trained))


def augmentation(
    images, shape: tuple[int, ...], seed: int, *, shift: int | None, mirror: bool | None, cutout: int | None
) -> tuple[augment.Augmentation, list[str]]:
    """What is asked for, and for the rest what suits the images; and in words what was found out."""
    notes = []
    if mirror is None and min(shape[:2]) < 8:
        mirror = False
    elif mirror is None:
        told = handedness.told_apart(images, seed)
        mirror = told is None or told < handedness.TELLING
        notes.append(f"images are {'also' if mirror else 'not'} mirrored left to right: " + (
            "they are too few to tell" if told is None else
            f"a linear classifier tells {told:.0%} of them from their mirror images"))
    return augment.Augmentation(augment.default_shift(shape) if shift is None else shift, mirror, cutout or 0), notes


def class_weights(
    labels: np.ndarray, classes: list[str], balance: bool | None
) -> tuple[list[float] | None, list[str]]:
    """A weight for the losses of each class, one over the root of its share (Mahajan et al., "Exploring the limits of
    weakly supervised pretraining", 2018, section 2.2), 1 in the mean over images, or None; and in words why.

    `balance` None weights classes where one has UNEVEN times as many images as another. `classes` are their names.
    """
    counts = np.bincount(labels, minlength=len(classes))
    ratio = counts.max() / max(counts.min(), 1)
    most, least = counts.argmax(), counts.argmin()
    uneven = (f"{classes[most]!r} has {counts[most]:,} training images, {classes[least]!r} has {counts[least]:,}: "
              "rare classes weigh ")
    if balance is False:
        return None, [uneven + "no more than others, as asked"] * bool(ratio >= UNEVEN)
    if ratio == 1 or balance is None and ratio < UNEVEN:
        return None, []
    weights = 1 / np.sqrt(np.maximum(counts, 1))
    weights *= counts.sum() / (weights @ counts)
    return weights.tolist(), [uneven + "more"]
