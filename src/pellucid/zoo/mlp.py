"""The fully connected network: every unit sees every pixel."""

from __future__ import annotations

from collections.abc import Sequence

from ..layers import Dense, Flatten, ReLU
from ..layers.base import Shape
from ..network import Network, Sequential
from .registry import register


@register
def mlp(input_shape: Shape = (28, 28, 1), classes: int = 10, hidden: Sequence[int] = (16, 16)) -> Network:
    """Dense layers with ReLU between them, of the sizes `hidden`; none of them leaves a linear classifier.

    The lecture's recap (MIT 6.390, lecture 7): two hidden layers of 16 over 784 pixels, and why a 426x426
    image needs millions of weights. The multilayer perceptron of Rumelhart, Hinton and Williams, "Learning
    representations by back-propagating errors", 1986. Raises ValueError if `hidden` is not a list of sizes.
    """
    if not isinstance(hidden, Sequence) or isinstance(hidden, str):
        raise ValueError(f"hidden must be a list of layer sizes such as (16, 16), got {hidden!r}")
    layers = [layer for units in hidden for layer in (Dense(units), ReLU())]
    return Network.build(input_shape, Sequential(Flatten(), *layers, Dense(classes)))
