"""The small convolutional classifier: convolve, pool, convolve, pool, then decide."""

from __future__ import annotations

from ..layers import Conv, Dense, Flatten, MaxPool, ReLU
from ..layers.base import Shape
from ..network import Network, Sequential
from .registry import register


@register
def lenet(input_shape: Shape = (28, 28, 1), classes: int = 10) -> Network:
    """Two rounds of convolution and pooling, then two dense layers.

    The arrangement is that of LeNet-5 (LeCun et al., "Gradient-based learning applied to document recognition",
    1998, figure 2), in the form that is taught now: 3x3 filters with padding, ReLU and max pooling.
    """
    return Network.build(input_shape, Sequential(
        Conv(32, 3, padding=1), ReLU(), MaxPool(2),
        Conv(64, 3, padding=1), ReLU(), MaxPool(2),
        Flatten(), Dense(128), ReLU(), Dense(classes),
    ))
