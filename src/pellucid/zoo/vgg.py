"""Networks of stacked 3x3 convolutions (Simonyan and Zisserman, "Very deep convolutional networks", 2014)."""

from __future__ import annotations

from ..layers import BatchNorm, Conv, Dense, Dropout, Flatten, GlobalMaxPool, MaxPool, ReLU
from ..layers.base import Shape
from ..network import Network, Sequential
from .registry import register

POOL = "pool"
# Table 1 of the paper, column D: filters of each 3x3 convolution, and where the map is halved.
VGG16 = (64, 64, POOL, 128, 128, POOL, 256, 256, 256, POOL, 512, 512, 512, POOL, 512, 512, 512, POOL)
CIFAR = (64, 64, POOL, 128, 128, POOL, 256, 256, POOL, 512)


@register
def vgg16(input_shape: Shape = (224, 224, 3), classes: int = 1000) -> Network:
    """VGG-16, column D of table 1: thirteen 3x3 convolutions with ReLU, three dense layers with dropout between.

    Parameters are named as in torchvision (`features.0.weight`, `classifier.0.weight`). 138,357,544 of them for
    1,000 classes at 224x224, as published.
    """
    features = [part for width in VGG16
                for part in ([MaxPool(2)] if width == POOL else [Conv(width, 3, padding=1), ReLU()])]
    classifier = [Dense(4096), ReLU(), Dropout(), Dense(4096), ReLU(), Dropout(), Dense(classes)]
    return Network.build(input_shape, Sequential(
        features=_numbered(features), flatten=Flatten(), classifier=_numbered(classifier)))


@register
def cifar_vgg(input_shape: Shape = (32, 32, 3), classes: int = 10) -> Network:
    """A VGG for small images: 3x3 convolutions with batch normalisation and ReLU, of 64, 64, pool, 128, 128, pool,
    256, 256, pool and 512 filters; then the largest answer of each filter, and one dense layer."""
    parts = [part for width in CIFAR for part in (
        [MaxPool(2)] if width == POOL else [Conv(width, 3, padding=1, bias=False), BatchNorm(), ReLU()])]
    return Network.build(input_shape, Sequential(*parts, GlobalMaxPool(), Dense(classes)))


def _numbered(parts: list) -> Sequential:
    """Parts named 0, 1, 2, ... as in torch.nn.Sequential."""
    return Sequential(**{str(number): part for number, part in enumerate(parts)})
