"""The network that pictures are trained with where none is asked for: small, and quick to learn."""

from __future__ import annotations

from ..layers import GELU, BatchNorm, Conv, Dense, GlobalMaxPool, MaxPool, ReLU
from ..layers.base import Shape
from ..network import Network, Sequential
from .registry import register

LEAST = 16  # filters of a layer: the kernels' blocks, of which a part costs as much as the whole
WHITENED = 32  # filters of the first layer in colour, where patches of 3x3 have 54 components and opposites; grey: 18
MOMENTUM = 0.4  # of the running statistics: filters move far in a step of Muon's, and they have to follow
SMALLEST = 3  # pixels a side that a map has at the end, or a few more


@register
def convnet(input_shape: Shape = (32, 32, 3), classes: int = 10, width: int = 64) -> Network:
    """A first convolution whose filters whiten the images and are not trained, ReLU, then a stage each time the map is
    halved, until it is about 4 pixels wide: convolution, 2x2 maximum, batch normalisation, GELU, convolution, batch
    normalisation, GELU.

    The last two stages have four times `width` filters, the one before them `width`; on large pictures, whose maps are
    large to begin with, those before that have half as many; none has less than 16. Then the largest answer of each
    filter, and one dense layer. Whitening, pooling right after the convolution, and widening after the first stage,
    are the arrangement of Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU", 2024, section 3.1. Raises
    ValueError for images of less than 8 pixels.
    """
    if len(input_shape) != 3 or min(input_shape[:2]) < 8:
        raise ValueError(f"convnet needs images of at least 8 pixels a side, got {input_shape}")
    if not isinstance(width, int) or isinstance(width, bool) or width < 1:
        raise ValueError(f"width must be a positive integer, got {width!r}")
    side, stages = min(input_shape[:2]), 0
    while side >> (stages + 1) >= SMALLEST:
        stages += 1
    widths = ([width // 2] * (stages - 3) + [width, 4 * width, 4 * width])[-stages:]
    whitened = WHITENED if input_shape[-1] > 1 else LEAST
    parts = [Conv(whitened, 3, padding=1, bias=False, init="whitening", trainable=False), ReLU()]
    for filters in (max(width, LEAST) for width in widths):
        parts += [Conv(filters, 3, padding=1, bias=False), MaxPool(2), BatchNorm(momentum=MOMENTUM), GELU(),
                  Conv(filters, 3, padding=1, bias=False), BatchNorm(momentum=MOMENTUM), GELU()]
    return Network.build(input_shape, Sequential(*parts, GlobalMaxPool(), Dense(classes)))
