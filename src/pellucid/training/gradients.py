"""The norm of the loss's gradient at each layer with parameters: how much of it gets through to the first ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..data.split import Part
from ..draw import Picture, curves
from ..layers import Conv, Dense
from ..model import Model
from ..network import Network
from ..optim import SGD
from . import engines
from .recipes import initialise
from .setup import Setup

BATCHES = 4  # over which the norm of a gradient is averaged


@dataclass(frozen=True)
class Norm:
    """The Euclidean norm of the loss's gradient to all parameters of a layer, in the mean over a few batches of images.

    `depth` counts the layers with parameters from the input on, from 1; `parameters` is how many the layer has.
    """

    layer: str
    kind: str
    depth: int
    parameters: int
    norm: float


@dataclass(frozen=True)
class Gradient:
    """The norm at a layer before training, and at its end, on training images as they come, without changes."""

    layer: str
    kind: str
    depth: int
    parameters: int
    start: float
    end: float


def of_run(setup: Setup, train: Part, trained: Model) -> tuple[Gradient, ...]:
    """The norms at each layer with parameters, of a new model as the run's was and of the trained one, which stays as
    it is. Dropout drops as in the first steps of the run."""
    network, size = setup.network, setup.plan.batch_size
    start = Model(network, setup.seed, preprocessing=setup.preprocessing)
    initialise(start, train.images, setup.biases)
    begin, still = engines.choose().begin, replace(setup, optimizer=STILL)
    first, last = (norms(begin(model, still), network, train.images, train.labels, size)
                   for model in (start, _copy(trained)))
    return tuple(Gradient(a.layer, a.kind, a.depth, a.parameters, a.norm, b.norm)
                 for a, b in zip(first, last, strict=True))


# At a rate of zero a step moves no weights; what it does to running statistics, gradients while training ignore.
STILL = SGD(lr=0.0)


def _copy(model: Model) -> Model:
    """A model of its own with the same parameters and preprocessing."""
    copy = Model(model.network, None, preprocessing=model.preprocessing)
    copy.load_parameters(model.parameters)
    return copy


def norms(step, network: Network, images, labels: np.ndarray, size: int) -> tuple[Norm, ...]:
    """The mean over a few batches of the norm of the gradient to each layer's parameters, from the input on.

    `step` is a training step of the network that moves nothing (`STILL`) and takes `size` images at a time.
    """
    found: dict[str, float] = {}
    batches = range(min(BATCHES, len(labels) // size))
    for i in batches:
        chosen = slice(i * size, (i + 1) * size)
        step(images[chosen], labels[chosen])
        of_layer: dict[str, float] = {}
        for name, g in step.gradients().items():
            layer = name.rpartition(".")[0]
            of_layer[layer] = of_layer.get(layer, 0.0) + float(np.square(g, dtype=np.float64).sum())
        for layer, square in of_layer.items():
            found[layer] = found.get(layer, 0.0) + square**0.5 / len(batches)
    trained = [node for node in network.nodes if node.name in found]
    return tuple(Norm(node.name, type(node.layer).__name__, depth, network.parameter_counts[node.name],
                      found[node.name]) for depth, node in enumerate(trained, 1))


def weighted(kind: str) -> bool:
    """Whether layers of a kind multiply by weights: those that curves over depth are drawn of, since the few parameters
    of a normalisation have norms of another size."""
    return kind in (Conv.__name__, Dense.__name__)


def picture(series: Sequence[tuple[str, Sequence[float]]], title: str = "") -> Picture:
    """Norms over depth, each series (name, the norms of its convolutions and dense layers from the input on)."""
    logs = []
    for name, values in series:
        values = np.array(values, float)
        logs.append((name, np.arange(1, len(values) + 1), np.log10(np.where(values > 0, values, np.nan))))
    return curves(logs, x_label="convolution or dense layer, from the input on",
                  y_label="norm of the gradient, as power of 10", title=title)
