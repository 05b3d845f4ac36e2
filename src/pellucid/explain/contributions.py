"""Contributions: the last layer's sum, opened: how much each position of the map that it reads adds to the score."""

from __future__ import annotations

import numpy as np

from ..layers.base import as_image
from ..model import Model
from ..network import INPUT
from . import taps
from .graph import map_of_last_layer
from .maps import Map, answer, over_pixels, shared_out
from .question import ask


def contributions(model: Model, image: np.ndarray, target: int | str | None = None) -> Map:
    """The terms of the target's logit in the last layer, added up at each position of the map it reads; signed.

    They are exact: the positions add up to the logit less the layer's bias, up to rounding in float32. Where the last
    dense layer reads means over the map (global average pooling), they are the class activation map (Zhou, Khosla,
    Lapedriza, Oliva and Torralba, "Learning deep features for discriminative localization", 2016), divided
    by the number of positions. Where it reads maxima, each channel's share stands where its maximum is; where it reads
    the flattened map, each value has its own weight. `positions` has the resolution of the map; over the image each
    value is spread evenly over its cell, so that the pixels have the same sum.

    Facts: what the positions add up to ("total"), and the layer's bias for the target ("bias"). Raises ValueError where
    the last layer reads no map in such a way, naming what is between, and for what cannot be asked about
    (`question.ask`).
    """
    question = ask(model, image, target)
    name = map_of_last_layer(question.bare.network)
    at = question.read if name == INPUT else taps.values(question.bare, question.read[None], [name])[name][0]
    # All between is a weighted sum of the map's values, or a choice among them; the gradient is each value's weight.
    weights = question.gradients(question.read[None], [name])[name][0]
    positions = over_pixels(at.astype(np.float64) * weights)
    total = float(positions.sum())
    size = as_image(question.read.shape)[:2]
    values = positions if positions.shape == size else shared_out(positions, size)
    biases = question.bare.parameters.get(f"{question.bare.network.output}.bias")
    bias = 0.0 if biases is None else float(biases[question.target])
    return answer("contributions", question, values, layer=name, positions=positions.astype(np.float32),
                  facts={"total": total, "bias": bias},
                  note=f"The {positions.shape[0]}x{positions.shape[1]} positions of {name} add up to {total:.4g}; with "
                       f"the bias of {bias:.4g} that is the logit, {question.score:.4g}.")
