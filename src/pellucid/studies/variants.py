"""A model without its padding, its strides or its pooling, with the weights it has: what each of them does.

A network whose head does not fit the maps any more is cut off before it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from ..layers import AvgPool, Conv, Layer, MaxPool
from ..model import Model
from ..network import INPUT, Network, Node
from .layers import looking, needed, with_parameters

Change = Callable[[Node, tuple, tuple], Layer]  # of a node, the shape it reads, and the strides before it


@dataclass(frozen=True)
class Variant:
    """A changed model: `whole` says that it ends in the model's own output. Without a `model`, `note` says why."""

    name: str
    note: str
    model: Model | None
    whole: bool = False


def variants(model: Model) -> list[Variant]:
    """The model as it is, and without padding, strides and pooling, where it has them."""
    network, found = model.network, [Variant("as it is", "the model itself", model, True)]
    windows = [(node, w) for node in network.nodes if isinstance(node.layer, Conv | MaxPool | AvgPool)
               for w in node.layer.windows(network.shapes[node.inputs[0]])]
    if any(w.before or w.after for _, w in windows):
        found.append(_variant(model, "without padding", "the same weights; nothing is added around any map",
                              _without_padding))
    if any(w.stride > 1 for _, w in windows):
        found.append(_variant(
            model, "without strides", "the same weights; every window moves by one position, and those after it take "
            "inputs as far apart as before, so that the model's own values are among these", _without_stride))
    if any(isinstance(node.layer, MaxPool | AvgPool) for node, _ in windows):
        found.append(_variant(
            model, "without pooling", "the same weights; of each pooling window the first position is taken, which is "
            "not what the weights were trained with", _without_pooling))
    return found


def _variant(model: Model, name: str, note: str, change: Change) -> Variant:
    """The changed network, whole or up to the last layer that it fits."""
    network, strides = model.network, _strides(model.network)
    nodes = {n.name: replace(n, layer=change(n, network.shapes[n.inputs[0]], strides.get(n.inputs[0])))
             for n in network.nodes}
    ends = [network.output, *(end for end in reversed(looking(network)) if len(network.shapes[end]) > 1)]
    refused = ""
    for end in dict.fromkeys(ends):
        try:
            made = Network(network.input_shape, tuple(nodes[n.name] for n in needed(network, end)), end)
            if len(made.output_shape) != len(network.shapes[end]):
                continue
            return Variant(name, note, with_parameters(made, model), end == network.output)
        except ValueError as e:
            refused = refused or str(e)
    return Variant(name, f"no layer of it fits: {refused}", None)


def _strides(network: Network) -> dict[str, tuple[int, ...]]:
    """How far apart neighbours of each map are in the input, where that is known."""
    return {INPUT: (1,) * (len(network.input_shape) - 1),
            **{name: tuple(f.stride for f in field) for name, field in network.receptive_fields.items() if field}}


def _without_padding(node: Node, shape, strides) -> Layer:
    return replace(node.layer, padding=0) if isinstance(node.layer, Conv | MaxPool | AvgPool) else node.layer


def _without_stride(node: Node, shape, strides) -> Layer:
    if not isinstance(node.layer, Conv | MaxPool | AvgPool) or strides is None:
        return node.layer
    axes = node.layer.windows(shape)
    return replace(node.layer, stride=1, dilation=tuple(w.dilation * s for w, s in zip(axes, strides, strict=True)),
                   padding=tuple((w.before * s, w.after * s) for w, s in zip(axes, strides, strict=True)))


def _without_pooling(node: Node, shape, strides) -> Layer:
    if not isinstance(node.layer, MaxPool | AvgPool):
        return node.layer
    return MaxPool(1, tuple(w.stride for w in node.layer.windows(shape)))
