"""What is chosen where nothing is asked for: the network, how long to train it, how images are changed.

A recipe says how much to spend; the images say the rest. What images were asked is noted in words, for people and
config.json.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np

from .. import optim, views
from ..layers import BatchNorm, Conv, Dense, MaxPool
from ..model import Model
from ..network import Network
from ..schedules import Cosine, OneCycle
from . import augment, handedness
from .plan import Plan
from .whitening import whiten

MOST_EPOCHS = 60  # where no number is given, of a standard recipe: more than that small folders do not need
TINY, SMALL = 16, 32  # pixels a side below which, and up to which, grey images are so: digits, letters
# Peaks of the learning rate: of Muon, for batches of MUON_BATCH; of SGD with batch normalisation, for batches of 128,
# and without.
MUON_LR, NORMED_LR, PLAIN_LR = 0.12, 0.2, 0.05
MUON_BATCH = 512
# Of Muon, in a network with one dense layer, the last: the rate of what is no filter as a share of that of filters; the
# rate of biases of batch normalisations as a multiple of that, for batches of MUON_BATCH; what the weights of the dense
# layer are multiplied with before training.
OTHERS, BIAS_RATE, HEAD = 0.02, 1536.0, 0.1
FEW = 200  # steps
UNEVEN = 2.0  # times as many images as the rarest class has, from which on classes are weighted


@dataclass(frozen=True)
class Recipe:
    """How much to spend. `effort` multiplies the epochs that are the default; of `widths` the first is taken for which
    a given time is enough for `least` epochs, or the first where no time is given. `tta` is the model's where training
    images are mirrored."""

    effort: float
    widths: tuple[int, ...]
    least: int
    tta: str = views.MIRROR


RECIPES = {
    "fast": Recipe(0.5, (32, 24, 16), 2),
    "standard": Recipe(1.0, (64, 48, 32, 16), 5),
    "best": Recipe(3.0, (96, 64, 48, 32), 6, views.SHIFTS),
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

    Muon's goes with the root of the batch: its steps have one length, of which the noise in them is a larger share the
    fewer images they are made from. With batch normalisation, SGD's goes with the batch (Goyal et al., "Accurate, large
    minibatch SGD", 2017, section 2.1), and training of less than FEW steps has a lower one: its running statistics
    could not follow.
    """
    if new and _normalised(network):
        rate = Cosine(lr or MUON_LR * sqrt(plan.batch_size / MUON_BATCH), plan.steps)
        return optim.Muon(rate, others=OTHERS if _has_head(network) else optim.Muon.others)
    peak = PLAIN_LR
    if any(isinstance(node.layer, BatchNorm) for node in network.nodes):
        peak = NORMED_LR * plan.batch_size / 128 * min(1.0, plan.steps / FEW)
    return optim.SGD(OneCycle(lr or peak, plan.steps), momentum=0.9, nesterov=True, weight_decay=5e-4)


def bias_rate(network: Network, chosen: optim.Optimiser, plan: Plan) -> float:
    """How many times as fast as other parameters the biases of batch normalisations learn: under Muon, in a network
    whose dense layer begins small, in proportion to the root of the batch. With the rate itself that makes for as far a
    way however the images are divided into steps.

    (That they learn faster is from Page, "How to train your ResNet", 2018; that the last layer begins small, from the
    record that `convnet` names.)
    """
    if isinstance(chosen, optim.Muon) and _has_head(network):
        return BIAS_RATE * sqrt(plan.batch_size / MUON_BATCH)
    return 1.0


def bias_factors(network: Network, rate: float) -> dict[str, float]:
    """The factors of the learning rate that `bias_rate` means, by parameter."""
    return {f"{node.name}.bias": rate for node in network.nodes if isinstance(node.layer, BatchNorm) and rate != 1}


def initialise(model: Model, images, biases: float) -> None:
    """What is done to random weights before training on these images, in place: first layers that whiten are set, and
    where `biases`, their rate, is not 1, the weights of the last layer are made HEAD times as large. Gradients to all
    before it are smaller by as much, which is why biases bear their rate."""
    whiten(model, images)
    if biases != 1:
        model.buffer.arrays[f"{model.network.output}.weight"] *= np.float32(HEAD)
        model.changed()


def _has_head(network: Network) -> bool:
    """Whether the last layer is dense and no other is."""
    dense = [node.name for node in network.nodes if isinstance(node.layer, Dense)]
    return dense == [network.output]


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


def label_smoothing(shape: tuple[int, ...]) -> float:
    """The share of each label that is spread over all classes (Szegedy et al., "Rethinking the Inception architecture",
    2016, section 7): more for images in colour, (H, W, C), than for grey ones, which leave less doubt."""
    return 0.1 if len(shape) < 3 or shape[2] == 1 else 0.2


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
