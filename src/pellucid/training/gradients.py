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
from .setup import Setup
from .whitening import whiten

BATCHES = 4  # over which the norm of a gradient is averaged


@dataclass(frozen=True)
class Gradient:
    """The Euclidean norm of the loss's gradient to all parameters of a layer: before training, and at its end.

    It is the mean over a few batches of training images, as they come without changes. `depth` counts the layers with
    parameters from the input on, from 1; `parameters` is how many the layer has.
    """

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
    whiten(start, train.images)
    begin, still = engines.choose().begin, replace(setup, optimizer=STILL)
    first, last = (norms(begin(model, still), train.images, train.labels, size)
                   for model in (start, copy_of(trained)))
    return tuple(Gradient(name, kind, i, network.parameter_counts[name], first[name], last[name])
                 for i, (name, kind) in enumerate(layers(network, first), 1))


# At a rate of zero a step moves no weights; what it does to running statistics, gradients while training ignore.
STILL = SGD(lr=0.0)


def copy_of(model: Model) -> Model:
    """A model of its own with the same parameters and preprocessing."""
    copy = Model(model.network, None, preprocessing=model.preprocessing)
    copy.load_parameters(model.parameters)
    return copy


def norms(step, images, labels: np.ndarray, size: int) -> dict[str, float]:
    """The mean over a few batches of the norm of the gradient to each layer's parameters, by the layer's name.

    `step` is a training step that moves nothing (`STILL`) and takes `size` images at a time.
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
    return found


def layers(network: Network, found: dict[str, float]) -> list[tuple[str, str]]:
    """(name, kind) of the layers that have a norm, from the input on."""
    return [(n.name, type(n.layer).__name__) for n in network.nodes if n.name in found]


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
