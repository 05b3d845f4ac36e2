"""The image layer by layer: in each map, the channels that move the target's score most."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..data.arrays import spread
from ..geometry import Window
from ..layers.base import as_image
from ..model import Model
from ..network import Network, Node
from . import taps
from .graph import positions
from .question import ask

LAYERS, CHANNELS = 10, 16  # shown by default


@dataclass(frozen=True, eq=False)
class LayerMaps:
    """Some channels of one layer.

    `shape` is that of its whole value (H, W, C), `channels` the chosen ones and `maps` (H, W, k) their values.
    `influence` (k,) is the sum of value times gradient over a channel's positions: to first order, how much of the
    target's logit it carries, above zero for the target and below against it. `field` is what one position sees of the
    image, rows and columns, None for all of it.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    field: tuple[int, ...] | None
    channels: tuple[int, ...]
    influence: np.ndarray
    maps: np.ndarray


def layer_maps(model: Model, image: np.ndarray, target: int | str | None = None, *, layers: int = LAYERS,
               channels: int = CHANNELS) -> list[LayerMaps]:
    """The maps of at most so many layers, and of each at most so many channels, the most influential first.

    Layers are those with positions whose value is not at once normalised or passed through an activation alone: what
    such a run ends in stands for it. Where there are more, some at equal distances are taken, the first and the last
    among them. Raises ValueError for what cannot be asked about (`question.ask`).
    """
    question = ask(model, image, target)
    network = question.bare.network
    names = ends(network)
    names = [names[i] for i in spread(len(names), layers)]
    values = taps.values(question.bare, question.read[None], names)
    slopes = question.gradients(question.read[None], names)
    return [_layer(network, name, values[name][0], slopes[name][0], channels) for name in names]


def ends(network: Network) -> list[str]:
    """The nodes with more than one position that no pointwise layer reads, in order."""
    pointwise = {name for node in network.nodes if _pointwise(network, node) for name in node.inputs}
    return [node.name for node in network.nodes if node.name not in pointwise and positions(network, node.name) > 1]


def _pointwise(network: Network, node: Node) -> bool:
    if len(node.inputs) != 1 or network.shapes[node.name] != network.shapes[node.inputs[0]]:
        return False
    windows = node.layer.windows(network.shapes[node.name])
    return windows is not None and all(w == Window(1) for w in windows) and network.macs[node.name] == 0


def _layer(network: Network, name: str, value: np.ndarray, slope: np.ndarray, most: int) -> LayerMaps:
    influence = (value.astype(np.float64) * slope).sum(axis=tuple(range(value.ndim - 1)))
    chosen = np.argsort(-np.abs(influence), kind="stable")[:most]
    field = network.receptive_fields[name]
    return LayerMaps(name, type(network.node(name).layer).__name__, network.shapes[name],
                     field and tuple(f.size for f in field), tuple(chosen.tolist()), influence[chosen],
                     value.reshape(as_image(value.shape))[..., chosen])
