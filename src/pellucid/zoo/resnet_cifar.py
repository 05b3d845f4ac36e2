"""The networks that the paper on residual networks compares on CIFAR-10, with the identity path and without it (He,
Zhang, Ren and Sun, "Deep residual learning for image recognition", 2016, section 4.2).

A 3x3 convolution of 16 filters, then stages of 16, 32 and 64 filters on maps of 32, 16 and 8 pixels, each of n blocks
of two 3x3 convolutions with batch normalisation; the mean of each channel; one dense layer: 6n + 2 layers with weights.
The plain networks are the same without the sums. Shortcuts have no parameters (option A), so both have equally many.
"""

from __future__ import annotations

from ..layers import AvgPool, BatchNorm, Conv, Dense, GlobalAvgPool, PadChannels, ReLU
from ..layers.base import Shape
from ..network import Network, Residual, Sequential
from .registry import register
from .resnet import Inline, basic

WIDTHS = (16, 32, 64)
CIFAR = (32, 32, 3)


@register
def resnet20(input_shape: Shape = CIFAR, classes: int = 10) -> Network:
    """n = 3: 0.27 million parameters."""
    return _stages(input_shape, classes, 3, residual=True)


@register
def resnet32(input_shape: Shape = CIFAR, classes: int = 10) -> Network:
    """n = 5: 0.46 million parameters."""
    return _stages(input_shape, classes, 5, residual=True)


@register
def resnet44(input_shape: Shape = CIFAR, classes: int = 10) -> Network:
    """n = 7: 0.66 million parameters."""
    return _stages(input_shape, classes, 7, residual=True)


@register
def resnet56(input_shape: Shape = CIFAR, classes: int = 10) -> Network:
    """n = 9: 0.85 million parameters."""
    return _stages(input_shape, classes, 9, residual=True)


@register
def resnet110(input_shape: Shape = CIFAR, classes: int = 10) -> Network:
    """n = 18: 1.7 million parameters."""
    return _stages(input_shape, classes, 18, residual=True)


@register
def plain20(input_shape: Shape = CIFAR, classes: int = 10) -> Network:
    """n = 3, without the identity path."""
    return _stages(input_shape, classes, 3, residual=False)


@register
def plain32(input_shape: Shape = CIFAR, classes: int = 10) -> Network:
    """n = 5, without the identity path."""
    return _stages(input_shape, classes, 5, residual=False)


@register
def plain44(input_shape: Shape = CIFAR, classes: int = 10) -> Network:
    """n = 7, without the identity path."""
    return _stages(input_shape, classes, 7, residual=False)


@register
def plain56(input_shape: Shape = CIFAR, classes: int = 10) -> Network:
    """n = 9, without the identity path."""
    return _stages(input_shape, classes, 9, residual=False)


@register
def plain110(input_shape: Shape = CIFAR, classes: int = 10) -> Network:
    """n = 18, without the identity path."""
    return _stages(input_shape, classes, 18, residual=False)


def _stages(input_shape: Shape, classes: int, n: int, residual: bool) -> Network:
    parts = {"conv1": Conv(WIDTHS[0], 3, padding=1, bias=False), "bn1": BatchNorm(), "relu": ReLU()}
    for number, width in enumerate(WIDTHS):
        strides = [2 if number and not position else 1 for position in range(n)]
        blocks = [_block(width, stride, residual) for stride in strides]
        parts[f"layer{number + 1}"] = Sequential(**{str(i): block for i, block in enumerate(blocks)})
    return Network.build(input_shape, Sequential(**parts, avgpool=GlobalAvgPool(), fc=Dense(classes)))


def _block(width: int, stride: int, residual: bool) -> Sequential:
    """Two 3x3 convolutions and, in a residual network, their input: every second pixel of it and zeros for the channels
    it has not, where the block halves the map."""
    body = basic(width, stride)
    if not residual:
        return Sequential(**body, relu=ReLU())
    if stride == 1:
        return Inline(Residual(Sequential(**body)), ReLU())
    identity = Sequential(subsample=AvgPool(1, stride=stride), pad=PadChannels(width))
    return Inline(Residual(Sequential(**body), shortcut=identity), ReLU())
