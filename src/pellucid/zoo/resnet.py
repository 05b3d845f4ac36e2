"""Residual networks for ImageNet (He, Zhang, Ren and Sun, "Deep residual learning for image recognition", 2016).

The columns of table 1, with each later stage's stride on its first 3x3 convolution. For the deeper ones that is called
v1.5: the paper has it on the 1x1 before. Parameters are named as in torchvision (`conv1.weight`,
`layer1.0.downsample.0.weight`).
"""

from __future__ import annotations

from collections.abc import Callable

from ..layers import BatchNorm, Conv, Dense, GlobalAvgPool, MaxPool, ReLU
from ..layers.base import Shape
from ..network import Network, Residual, Sequential
from .registry import register

WIDTHS = (64, 128, 256, 512)
IMAGENET = (224, 224, 3)


@register
def resnet18(input_shape: Shape = IMAGENET, classes: int = 1000) -> Network:
    """The 18-layer column: two basic blocks a stage. 11,689,512 parameters."""
    return _resnet(input_shape, classes, _stem(), basic, (2, 2, 2, 2))


@register
def resnet34(input_shape: Shape = IMAGENET, classes: int = 1000) -> Network:
    """The 34-layer column: 3, 4, 6 and 3 basic blocks. 21,797,672 parameters."""
    return _resnet(input_shape, classes, _stem(), basic, (3, 4, 6, 3))


@register
def resnet50(input_shape: Shape = IMAGENET, classes: int = 1000) -> Network:
    """The 50-layer column: 3, 4, 6 and 3 bottlenecks. 25,557,032 parameters."""
    return _resnet(input_shape, classes, _stem(), _bottleneck, (3, 4, 6, 3), expansion=4)


@register
def resnet101(input_shape: Shape = IMAGENET, classes: int = 1000) -> Network:
    """The 101-layer column: 3, 4, 23 and 3 bottlenecks. 44,549,160 parameters."""
    return _resnet(input_shape, classes, _stem(), _bottleneck, (3, 4, 23, 3), expansion=4)


@register
def resnet152(input_shape: Shape = IMAGENET, classes: int = 1000) -> Network:
    """The 152-layer column: 3, 8, 36 and 3 bottlenecks. 60,192,808 parameters."""
    return _resnet(input_shape, classes, _stem(), _bottleneck, (3, 8, 36, 3), expansion=4)


@register
def cifar_resnet18(input_shape: Shape = (32, 32, 3), classes: int = 10) -> Network:
    """ResNet-18 (two basic blocks to a stage of 64, 128, 256, 512 filters) for small images: a 3x3 stem that keeps
    their size, and no pooling after it. Parameters are named as in torchvision's ResNet-18."""
    stem = {"conv1": Conv(64, 3, padding=1, bias=False), "bn1": BatchNorm(), "relu": ReLU()}
    return _resnet(input_shape, classes, stem, basic, (2, 2, 2, 2))


def _stem() -> dict:
    """A 7x7 convolution and a maximum, each of which halves the image."""
    return {"conv1": Conv(64, 7, stride=2, padding=3, bias=False), "bn1": BatchNorm(), "relu": ReLU(),
            "maxpool": MaxPool(3, stride=2, padding=1)}


def _resnet(input_shape: Shape, classes: int, stem: dict, block: Callable, depths: tuple[int, ...],
            expansion: int = 1) -> Network:
    """Stem, four stages of blocks, the average of each channel, one dense layer. Each stage but the first halves the
    map with its first block."""
    stages, channels = {}, WIDTHS[0]
    for number, (width, depth) in enumerate(zip(WIDTHS, depths, strict=True)):
        blocks = []
        for position in range(depth):
            stride = 2 if number and not position else 1
            blocks.append(_block(block(width, stride), channels, width * expansion, stride))
            channels = width * expansion
        stages[f"layer{number + 1}"] = Sequential(**{str(i): b for i, b in enumerate(blocks)})
    return Network.build(input_shape, Sequential(**stem, **stages, avgpool=GlobalAvgPool(), fc=Dense(classes)))


def _block(body: dict, channels: int, filters: int, stride: int) -> Sequential:
    """body(x) + x, then ReLU; where the shape changes, a 1x1 convolution stands in for the identity (option B)."""
    if stride == 1 and channels == filters:
        residual = Residual(Sequential(**body))
    else:
        shortcut = {"0": Conv(filters, 1, stride=stride, bias=False), "1": BatchNorm()}
        residual = Residual(Sequential(**body), downsample=Sequential(**shortcut))
    return Inline(residual, ReLU())


class Inline(Sequential):
    """A residual sum and its ReLU whose parts carry the name of the block itself: `layer1.0.conv1`."""

    def place(self, scope, source):
        (_, residual), (_, relu) = self.parts
        return scope.append("relu", relu, (residual.place(scope, source),))


def basic(width: int, stride: int) -> dict:
    """The parts of figure 5, left: two 3x3 convolutions."""
    return {"conv1": Conv(width, 3, stride=stride, padding=1, bias=False), "bn1": BatchNorm(), "relu1": ReLU(),
            "conv2": Conv(width, 3, padding=1, bias=False), "bn2": BatchNorm()}


def _bottleneck(width: int, stride: int) -> dict:
    """Figure 5, right: a 1x1 convolution that narrows, a 3x3, and a 1x1 that widens four times."""
    return {"conv1": Conv(width, 1, bias=False), "bn1": BatchNorm(), "relu1": ReLU(),
            "conv2": Conv(width, 3, stride=stride, padding=1, bias=False), "bn2": BatchNorm(), "relu2": ReLU(),
            "conv3": Conv(4 * width, 1, bias=False), "bn3": BatchNorm()}
