"""What explanations ask of a network's graph: its last map, its last dense layer, and what stands between."""

from __future__ import annotations

from ..layers import AdaptiveAvgPool, AvgPool, Dense, Dropout, Flatten, GlobalAvgPool, GlobalMaxPool, MaxPool
from ..layers.activation import Softmax
from ..layers.base import as_image
from ..network import INPUT, Network

# Each value of their output is a weighted sum of values of their input, or one of them: gradient times value adds up.
SHARING_OUT = (AdaptiveAvgPool, AvgPool, Dropout, Flatten, GlobalAvgPool, GlobalMaxPool, MaxPool)
NOTHING_NEW = (AdaptiveAvgPool, Dropout)  # at inference; their input says more of where


def positions(network: Network, name: str) -> int:
    """How many positions a node's output has; a vector of features has one."""
    height, width, _ = as_image(network.shapes[name])
    return height * width


def logits(network: Network) -> str:
    """What the softmax is taken of: the network's output, or what it reads where it is a softmax itself."""
    last = network.node(network.output)
    return last.inputs[0] if isinstance(last.layer, Softmax) else last.name


def last_map(network: Network) -> str:
    """The last node with more than one position that every path from input to output passes through.

    `NOTHING_NEW` does not count: an adaptive pool may even show one position many times. Raises ValueError where there
    is none.
    """
    furthest = {name: i for i, node in enumerate(network.nodes) for name in node.inputs}  # where each is read last
    crossing, found = furthest[INPUT], None
    for i, node in enumerate(network.nodes):
        new = not isinstance(node.layer, NOTHING_NEW) and positions(network, node.name) > 1
        if new and crossing <= i:  # nothing before this node is read after it
            found = node.name
        crossing = max(crossing, furthest.get(node.name, i))
    if found is None:
        raise ValueError("this network has no layer whose output has positions and that everything passes through; "
                         "use gradient, integrated_gradients or occlusion, or name a layer")
    return found


def map_of_last_layer(network: Network) -> str:
    """The map, or "input", whose values the network's last layer adds up, through flattening and pooling at most.

    Raises ValueError, naming what is in between, where the last layer reads no map in this way.
    """
    last = node = network.node(network.output)
    if not isinstance(node.layer, (Dense, *SHARING_OUT)):
        raise ValueError(f"the last layer, {node.name!r} ({type(node.layer).__name__}), is not a dense layer or a "
                         "pool: its output is no sum over positions; use integrated_gradients or occlusion")
    name = node.inputs[0]
    while name != INPUT:
        node = network.node(name)
        if positions(network, name) > 1 and not isinstance(node.layer, NOTHING_NEW):
            break
        if not isinstance(node.layer, SHARING_OUT):
            raise ValueError(f"the last layer, {last.name!r}, reads {node.name!r} ({type(node.layer).__name__}) and "
                             "not a map through Flatten or a pool, so that its sum has no exact map over the image; "
                             "use integrated_gradients or occlusion")
        name = node.inputs[0]
    return name


def last_dense(network: Network) -> str:
    """The last dense layer. Raises ValueError where there is none."""
    for node in reversed(network.nodes):
        if isinstance(node.layer, Dense):
            return node.name
    raise ValueError("this network has no dense layer, whose input would be the features; name a layer whose output "
                     "is to be compared")
