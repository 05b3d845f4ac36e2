"""Networks of stacked 3x3 convolutions (Simonyan and Zisserman, "Very deep convolutional networks", 2014)."""

from __future__ import annotations

from ..layers import AdaptiveAvgPool, BatchNorm, Conv, Dense, Dropout, Flatten, GlobalMaxPool, MaxPool, ReLU
from ..layers.base import Shape
from ..network import Network, Sequential
from .registry import register

POOL = "pool"
# Table 1 of the paper: filters of each 3x3 convolution, and where the map is halved.
A = (64, POOL, 128, POOL, 256, 256, POOL, 512, 512, POOL, 512, 512, POOL)
B = (64, 64, POOL, 128, 128, POOL, 256, 256, POOL, 512, 512, POOL, 512, 512, POOL)
D = (64, 64, POOL, 128, 128, POOL, 256, 256, 256, POOL, 512, 512, 512, POOL, 512, 512, 512, POOL)
E = (64, 64, POOL, 128, 128, POOL, 256, 256, 256, 256, POOL, 512, 512, 512, 512, POOL, 512, 512, 512, 512, POOL)
CIFAR = (64, 64, POOL, 128, 128, POOL, 256, 256, POOL, 512)
IMAGENET = (224, 224, 3)


@register
def vgg11(input_shape: Shape = IMAGENET, classes: int = 1000) -> Network:
    """Column A: eight 3x3 convolutions with ReLU, three dense layers with dropout between. 132,863,336 parameters."""
    return _vgg(input_shape, classes, A)


@register
def vgg11_bn(input_shape: Shape = IMAGENET, classes: int = 1000) -> Network:
    """Column A with batch normalisation after each convolution, which the paper did not know yet. 132,868,840
    parameters."""
    return _vgg(input_shape, classes, A, batch_norm=True)


@register
def vgg13(input_shape: Shape = IMAGENET, classes: int = 1000) -> Network:
    """Column B: ten 3x3 convolutions. 133,047,848 parameters."""
    return _vgg(input_shape, classes, B)


@register
def vgg13_bn(input_shape: Shape = IMAGENET, classes: int = 1000) -> Network:
    """Column B with batch normalisation. 133,053,736 parameters."""
    return _vgg(input_shape, classes, B, batch_norm=True)


@register
def vgg16(input_shape: Shape = IMAGENET, classes: int = 1000) -> Network:
    """Column D: thirteen 3x3 convolutions. 138,357,544 parameters."""
    return _vgg(input_shape, classes, D)


@register
def vgg16_bn(input_shape: Shape = IMAGENET, classes: int = 1000) -> Network:
    """Column D with batch normalisation. 138,365,992 parameters."""
    return _vgg(input_shape, classes, D, batch_norm=True)


@register
def vgg19(input_shape: Shape = IMAGENET, classes: int = 1000) -> Network:
    """Column E: sixteen 3x3 convolutions. 143,667,240 parameters."""
    return _vgg(input_shape, classes, E)


@register
def vgg19_bn(input_shape: Shape = IMAGENET, classes: int = 1000) -> Network:
    """Column E with batch normalisation. 143,678,248 parameters."""
    return _vgg(input_shape, classes, E, batch_norm=True)


@register
def cifar_vgg(input_shape: Shape = (32, 32, 3), classes: int = 10) -> Network:
    """A VGG for small images: 3x3 convolutions with batch normalisation and ReLU, of 64, 64, pool, 128, 128, pool,
    256, 256, pool and 512 filters; then the largest answer of each filter, and one dense layer."""
    parts = [part for width in CIFAR for part in (
        [MaxPool(2)] if width == POOL else [Conv(width, 3, padding=1, bias=False), BatchNorm(), ReLU()])]
    return Network.build(input_shape, Sequential(*parts, GlobalMaxPool(), Dense(classes)))


def _vgg(input_shape: Shape, classes: int, column: tuple, batch_norm: bool = False) -> Network:
    """A column of the table. Parameters are named as in torchvision (`features.0.weight`, `classifier.0.weight`), and
    as there, maps of another size than 7x7, from images of another size than 224x224, are brought to it by means."""
    features = []
    for width in column:
        normalised = [BatchNorm()] if batch_norm else []
        features += [MaxPool(2)] if width == POOL else [Conv(width, 3, padding=1), *normalised, ReLU()]
    classifier = [Dense(4096), ReLU(), Dropout(), Dense(4096), ReLU(), Dropout(), Dense(classes)]
    return Network.build(input_shape, Sequential(
        features=numbered(features), avgpool=AdaptiveAvgPool(7), flatten=Flatten(), classifier=numbered(classifier)))


def numbered(parts: list) -> Sequential:
    """Parts named 0, 1, 2, ... as in torch.nn.Sequential."""
    return Sequential(**{str(number): part for number, part in enumerate(parts)})
