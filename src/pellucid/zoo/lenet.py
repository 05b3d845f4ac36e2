"""The small convolutional classifier: convolve, pool, convolve, pool, then decide."""

from __future__ import annotations

from ..layers import Conv, Dense, Flatten, MaxPool, ReLU
from ..layers.base import Shape
from ..network import Network, Sequential
from .registry import register


@register
def lenet(input_shape: Shape = (28, 28, 1), classes: int = 10, width: int = 32) -> Network:
    """Two rounds of convolution and pooling, then two dense layers. The first has `width` filters, the second twice as
    many, and the hidden dense layer four times.

    The arrangement is that of LeNet-5 (LeCun et al., "Gradient-based learning applied to document recognition",
    1998, figure 2), in the form that is taught now: 3x3 filters with padding, ReLU and max pooling. Raises ValueError
    if `width` is not a positive integer.
    """
    if not isinstance(width, int) or isinstance(width, bool) or width < 1:
        raise ValueError(f"width must be a positive integer, got {width!r}")
    return Network.build(input_shape, Sequential(
        Conv(width, 3, padding=1), ReLU(), MaxPool(2),
        Conv(2 * width, 3, padding=1), ReLU(), MaxPool(2),
        Flatten(), Dense(4 * width), ReLU(), Dense(classes),
    ))
