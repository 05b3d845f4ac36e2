"""LeNet-5 (LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to document recognition", 1998)."""

from __future__ import annotations

from ..layers import AvgPool, Conv, Dense, Flatten, ScaledTanh, TakeChannels
from ..layers.base import Shape
from ..network import Concat, Network, Sequential
from .registry import register

SIDE = 32  # pixels of the paper's images: digits of up to 20 pixels, centred in 28, with a border of 2
# Table I of the paper: which maps of S2 the maps of C3 read. All rows of a table read equally many.
THREE = ((0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (4, 5, 0), (5, 0, 1))  # maps 0 to 5
FOUR = ((0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (3, 4, 5, 0), (4, 5, 0, 1), (5, 0, 1, 2))  # 6 to 11
APART = ((0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5))  # 12 to 14; map 15 reads all six


@register
def lenet5(input_shape: Shape = (32, 32, 1), classes: int = 10) -> Network:
    """Figure 2 of the paper, layer by layer, with the paper's 60,000 trainable parameters up to F6.

    As published: the sizes, the partial connections of C3, subsampling with a trainable coefficient and bias, and
    1.7159 tanh(2x / 3) after every layer, subsampling included. The coefficient multiplies the mean of four pixels here
    and their sum there, so it is four times the paper's.

    Not as published: the output. The paper's units give |f - w|^2 for the 84 numbers f of F6 and ten fixed codes w of
    -1 and 1, drawn by hand as 7x12 pictures. |f|^2 and |w|^2 are the same for all classes, so a softmax over minus
    these is one over 2 w.f: a dense layer without bias. That layer is here, its 84 weights a class learned, and
    training is by cross entropy, not by the paper's equation 9. Weights start by "glorot".

    Images of 28 to 31 pixels a side get the border that makes them 32; larger ones leave C5 larger than the paper's one
    pixel, and F6 reads it all. Raises ValueError for smaller ones.
    """
    if len(input_shape) != 3 or min(input_shape[:2]) < SIDE - 4:
        raise ValueError(f"lenet5 needs images of at least {SIDE - 4} pixels a side, got {input_shape}")
    border = tuple(((max(SIDE - n, 0)) // 2, (max(SIDE - n, 0) + 1) // 2) for n in input_shape[:2])
    return Network.build(input_shape, Sequential(
        c1=Conv(6, 5, padding=border, init="glorot"), c1_tanh=ScaledTanh(), s2=_subsampling(6), s2_tanh=ScaledTanh(),
        c3=Concat(three=_connected(THREE), four=_connected(FOUR), apart=_connected(APART),
                  all=Conv(1, 5, init="glorot")),
        c3_tanh=ScaledTanh(), s4=_subsampling(16), s4_tanh=ScaledTanh(),
        c5=Conv(120, 5, init="glorot"), c5_tanh=ScaledTanh(), flatten=Flatten(),
        f6=Dense(84, init="glorot"), f6_tanh=ScaledTanh(), output=Dense(classes, bias=False, init="glorot"),
    ))


def _subsampling(maps: int) -> Sequential:
    """The mean of 2x2 pixels, times a coefficient, plus a bias, both the map's own."""
    return Sequential(mean=AvgPool(2), scale=Conv(maps, 1, groups=maps, init="glorot"))


def _connected(table: tuple[tuple[int, ...], ...]) -> Sequential:
    """A 5x5 filter for each row of a table, over the maps that the row names."""
    return Sequential(take=TakeChannels(table), conv=Conv(len(table), 5, groups=len(table), init="glorot"))
