"""Grad-CAM: where the channels that speak for the class are active in the last map."""

from __future__ import annotations

import numpy as np

from ..layers.base import as_image
from ..model import Model
from ..network import Network
from . import taps
from .graph import last_map
from .maps import Map, answer, as_rows, stretched
from .question import ask


def grad_cam(model: Model, image: np.ndarray, target: int | str | None = None, *, layer: str | None = None) -> Map:
    """Each channel of a layer's map is weighted by the mean of its gradient; their sum, what is below zero left out, is
    stretched over the image by linear interpolation (Selvaraju et al., "Grad-CAM: visual explanations from deep
    networks via gradient-based localization", 2017, equations 1 and 2).

    `layer` is by default the last map that everything passes through, see `graph.last_map`. Values are not signed: zero
    is "nothing that speaks for the class". Raises ValueError for a layer without positions, for a network without such
    a layer, and for what cannot be asked about (`question.ask`).
    """
    question = ask(model, image, target)
    network = question.bare.network
    name = last_map(network) if layer is None else _checked(network, layer)
    at = taps.values(question.bare, question.read[None], [name])[name][0]
    slopes = question.gradients(question.read[None], [name])[name][0]
    weights = slopes.mean(axis=tuple(range(slopes.ndim - 1)), dtype=np.float64)
    positions = as_rows(np.maximum(at @ weights, 0))
    values = stretched(positions, as_image(network.input_shape)[:2])
    return answer("grad_cam", question, values, layer=name, positions=positions.astype(np.float32),
                  note=f"Where the channels of {name} ({positions.shape[0]}x{positions.shape[1]} positions) that raise "
                       "the logit are active.")


def _checked(network: Network, layer: str) -> str:
    node = network.node(layer)
    if len(network.shapes[node.name]) == 1:
        raise ValueError(f"layer {layer!r} gives a vector of {network.shapes[node.name][0]} features; Grad-CAM needs a "
                         "layer whose output has positions, before Flatten or a global pool")
    return node.name
