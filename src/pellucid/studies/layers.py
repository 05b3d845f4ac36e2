"""Which layers of a network a study is about, and the part of a network that ends in one of them."""

from __future__ import annotations

from collections.abc import Sequence

from ..data.arrays import spread
from ..layers import AdaptiveAvgPool, AvgPool, Conv, GlobalAvgPool, GlobalMaxPool, MaxPool
from ..model import Model
from ..network import Network, Node
from .result import DoesNotApply

POOLING = (MaxPool, AvgPool, AdaptiveAvgPool, GlobalMaxPool, GlobalAvgPool)
NO_WINDOWS = "no layer of this network looks at windows of several positions"


def looking(network: Network) -> list[str]:
    """The layers that look at more than one position, or leave positions out: convolutions and poolings but 1x1 ones
    of stride 1."""
    return [node.name for node in network.nodes if isinstance(node.layer, (Conv, *POOLING)) and _moves(network, node)]


def with_windows(network: Network) -> list[str]:
    """Those of them that make maps whose windows in the input are known. Raises DoesNotApply where there is none."""
    found = [name for name in looking(network)
             if network.receptive_fields[name] is not None and len(network.shapes[name]) > 1]
    if not found:
        raise DoesNotApply(NO_WINDOWS)
    return found


def _moves(network: Network, node: Node) -> bool:
    windows = node.layer.windows(network.shapes[node.inputs[0]])
    return windows is None or any(w.reach > 1 or w.stride > 1 for w in windows)


def convolutions(network: Network) -> list[str]:
    """The convolutions. Raises DoesNotApply where there is none."""
    found = [node.name for node in network.nodes if isinstance(node.layer, Conv)]
    if not found:
        raise DoesNotApply("this network has no convolution: each of its units sees all of the input")
    return found


def convolution(network: Network, name: str | None) -> Node:
    """The convolution of that name, by default the first. Raises ValueError where there is none."""
    node = network.node(name if name is not None else convolutions(network)[0])
    if not isinstance(node.layer, Conv):
        raise ValueError(f"{name!r} is a {type(node.layer).__name__}; convolutions are "
                         f"{', '.join(convolutions(network)[:8])}")
    return node


def some(names: Sequence, most: int) -> list:
    """At most so many of them at equal distances, the first and the last among them."""
    return [names[i] for i in spread(len(names), most)]


def up_to(model: Model, name: str) -> Model:
    """The part of a model that computes one layer, with copies of its parameters. Its output is that layer's."""
    return with_parameters(Network(model.network.input_shape, tuple(needed(model.network, name)), name), model)


def needed(network: Network, name: str) -> list[Node]:
    """The nodes that one is computed from, itself included, in order."""
    names = {name}
    for node in reversed(network.nodes):
        if node.name in names:
            names.update(node.inputs)
    return [node for node in network.nodes if node.name in names]


def cost(network: Network, name: str) -> int:
    """Multiply-adds that it takes to compute a node for one image."""
    return max(sum(network.macs[node.name] for node in needed(network, name)), 1)


def with_parameters(network: Network, model: Model) -> Model:
    """A model of that network with the parameters and the preprocessing of another."""
    made = Model(network, None, preprocessing=model.preprocessing)
    values = model.parameters
    made.load_parameters({key: values[key] for key in network.parameters()})
    return made
