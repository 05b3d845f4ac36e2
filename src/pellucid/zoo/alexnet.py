"""AlexNet (Krizhevsky, Sutskever and Hinton, "ImageNet classification with deep convolutional neural networks", 2012),
and the smaller one that torchvision calls by this name."""

from __future__ import annotations

from ..layers import LRN, AdaptiveAvgPool, Conv, Dense, Dropout, Flatten, MaxPool, ReLU
from ..layers.base import Shape
from ..network import Network, Sequential
from .registry import register
from .vgg import numbered


@register
def alexnet(input_shape: Shape = (224, 224, 3), classes: int = 1000) -> Network:
    """The network of one tower in figure 2 of Krizhevsky, "One weird trick for parallelizing convolutional neural
    networks", 2014, as torchvision has it: no response normalisation, no groups, and maps brought to 6x6 before the
    dense layers, whatever the images' size. Parameters are named as in torchvision; 61,100,840 of them."""
    features = [Conv(64, 11, stride=4, padding=2), ReLU(), MaxPool(3, 2),
                Conv(192, 5, padding=2), ReLU(), MaxPool(3, 2),
                Conv(384, 3, padding=1), ReLU(),
                Conv(256, 3, padding=1), ReLU(),
                Conv(256, 3, padding=1), ReLU(), MaxPool(3, 2)]
    classifier = [Dropout(), Dense(4096), ReLU(), Dropout(), Dense(4096), ReLU(), Dense(classes)]
    return Network.build(input_shape, Sequential(
        features=numbered(features), avgpool=AdaptiveAvgPool(6), flatten=Flatten(), classifier=numbered(classifier)))


@register
def alexnet2012(input_shape: Shape = (227, 227, 3), classes: int = 1000) -> Network:
    """The paper's network (section 3.5 and figure 2): local response normalisation after the first two layers, maxima
    of 3x3 every 2 pixels, which overlap, and convolutions in two groups, each of which had a GPU of its own.
    60,965,224 parameters.

    The paper says 224x224 and 55x55 positions for 11x11 filters every 4 pixels, which do not fit: (224 - 11) / 4 is no
    integer, (227 - 11) / 4 + 1 is 55. Here images of 227 are read as they are; others get a border of 2 zeros, which
    makes 55 of 224 too. The paper starts biases of some layers at 1 and weights with a deviation of 0.01; here they
    start as everywhere.
    """
    if len(input_shape) != 3:
        raise ValueError(f"alexnet2012 needs images (H, W, C), got {input_shape}")
    border = tuple(0 if (n - 11) % 4 == 0 else 2 for n in input_shape[:2])
    return Network.build(input_shape, Sequential(
        conv1=Conv(96, 11, stride=4, padding=border), relu1=ReLU(), norm1=_normalise(), pool1=MaxPool(3, 2),
        conv2=Conv(256, 5, padding=2, groups=2), relu2=ReLU(), norm2=_normalise(), pool2=MaxPool(3, 2),
        conv3=Conv(384, 3, padding=1), relu3=ReLU(),
        conv4=Conv(384, 3, padding=1, groups=2), relu4=ReLU(),
        conv5=Conv(256, 3, padding=1, groups=2), relu5=ReLU(), pool5=MaxPool(3, 2),
        flatten=Flatten(),
        fc6=Dense(4096), relu6=ReLU(), drop6=Dropout(), fc7=Dense(4096), relu7=ReLU(), drop7=Dropout(),
        fc8=Dense(classes),
    ))


def _normalise() -> LRN:
    """Section 3.3: k = 2, n = 5, alpha = 1e-4, beta = 0.75. `LRN` divides alpha by n; the paper does not."""
    return LRN(size=5, alpha=5e-4, beta=0.75, k=2.0)
