"""Start from another model's layers: its network with a new last layer, and its weights in all others."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

import numpy as np

from ..layers import Dense
from ..layers.activation import Softmax
from ..model import Model
from ..network import Network

SLOW = 0.1  # of the learning rate, for layers that have learned already


@dataclass(frozen=True)
class Beginning:
    """What training begins from: a network, the weights of its old layers, and the names of its new ones."""

    path: str
    model: Model
    network: Network
    weights: dict[str, np.ndarray]
    fresh: list[str]


def beginning(model: Model, path: str | os.PathLike, classes: int) -> Beginning:
    """The model in a file with a new last dense layer for so many classes.

    Raises ValueError for a model that does not classify or whose last layer is not dense.
    """
    model.require_classes()
    network = model.network
    nodes, last = list(network.nodes), network.node(network.output)
    if isinstance(last.layer, Softmax) and len(last.inputs) == 1:
        nodes.remove(last)  # the loss takes the softmax itself
        last = network.node(last.inputs[0])
    if not isinstance(last.layer, Dense):
        raise ValueError(f"{path}: its last layer, {last.name}, is {type(last.layer).__name__}; only a dense layer "
                         "can be replaced by one for other classes")
    nodes[nodes.index(last)] = replace(last, layer=replace(last.layer, units=classes))
    network = Network(network.input_shape, nodes, last.name)
    old = {name: values for name, values in model.parameters.items() if name.rpartition(".")[0] != last.name}
    return Beginning(os.path.abspath(path), model, network, old, [last.name])
