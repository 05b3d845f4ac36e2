"""The zoo's networks as one writes them in PyTorch, with the same parameter names, so that weights can be copied.

`network("lenet", model)` is one with the weights of ours. ReLUs work in place, as they do in torchvision: it saves
PyTorch memory and time.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn

import pellucid

WIDTHS = (64, 128, 256, 512)


def network(name: str, model: pellucid.Model) -> nn.Module:
    """The network of that name, with a copy of the parameters of `model`, which must have all of them."""
    *_, inputs = model.network.input_shape
    net = NETWORKS[name](inputs, model.network.output_shape[-1])
    missing, unknown = net.load_state_dict(
        {name: torch.from_numpy(array.copy()) for name, array in model.parameters.items()}, strict=False)
    if unknown or any(not name.endswith(".num_batches_tracked") for name in missing):
        raise ValueError(f"{name}: parameters do not fit: missing {missing}, unknown {unknown}")
    return net


def _conv(inputs: int, filters: int, size: int = 3, stride: int = 1, bias: bool = False) -> nn.Conv2d:
    return nn.Conv2d(inputs, filters, size, stride, padding=size // 2, bias=bias)


def _relu() -> nn.ReLU:
    return nn.ReLU(inplace=True)


def lenet(inputs: int, classes: int) -> nn.Module:
    """For images of 28x28."""
    return nn.Sequential(OrderedDict(
        conv1=_conv(inputs, 32, bias=True), relu1=_relu(), pool1=nn.MaxPool2d(2),
        conv2=_conv(32, 64, bias=True), relu2=_relu(), pool2=nn.MaxPool2d(2), flatten=nn.Flatten(),
        dense1=nn.Linear(64 * 7 * 7, 128), relu3=_relu(), dense2=nn.Linear(128, classes)))


def cifar_vgg(inputs: int, classes: int) -> nn.Module:
    parts, number = OrderedDict(), 0
    for stage in ((64, 64), (128, 128), (256, 256), (512,)):
        for width in stage:
            number += 1
            parts |= {f"conv{number}": _conv(inputs, width), f"bn{number}": nn.BatchNorm2d(width),
                      f"relu{number}": _relu()}
            inputs = width
        parts[f"pool{number}"] = nn.MaxPool2d(2) if len(stage) > 1 else nn.AdaptiveMaxPool2d(1)
    return nn.Sequential(parts | {"flatten": nn.Flatten(), "dense1": nn.Linear(inputs, classes)})


def convnet(inputs: int, classes: int, width: int = 64) -> nn.Module:
    """For colour images of 32x32."""
    first = _conv(inputs, 32)
    first.weight.requires_grad_(False)
    parts, inputs = OrderedDict(conv1=first, relu1=_relu()), 32
    for stage, filters in enumerate((width, 4 * width, 4 * width)):
        for number in (2 * stage + 1, 2 * stage + 2):
            parts[f"conv{number + 1}"] = _conv(inputs, filters)
            if number % 2:
                parts[f"pool{stage + 1}"] = nn.MaxPool2d(2)
            parts |= {f"bn{number}": nn.BatchNorm2d(filters, momentum=0.4), f"gelu{number}": nn.GELU()}
            inputs = filters
    return nn.Sequential(parts | {"pool4": nn.AdaptiveMaxPool2d(1), "flatten": nn.Flatten(),
                                  "dense1": nn.Linear(inputs, classes)})


def vgg16(inputs: int, classes: int) -> nn.Module:
    """For images of 224x224."""
    features = []
    for width, depth in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(depth):
            features += [_conv(inputs, width, bias=True), _relu()]
            inputs = width
        features.append(nn.MaxPool2d(2))
    classifier = nn.Sequential(
        nn.Linear(512 * 7 * 7, 4096), _relu(), nn.Dropout(), nn.Linear(4096, 4096), _relu(), nn.Dropout(),
        nn.Linear(4096, classes))
    return nn.Sequential(OrderedDict(features=nn.Sequential(*features), flatten=nn.Flatten(), classifier=classifier))


class _Block(nn.Module):
    """body(x) + x, then ReLU; where the shape changes, a 1x1 convolution stands in for x."""

    def __init__(self, inputs: int, filters: int, stride: int):
        super().__init__()
        self.relu = _relu()
        self.downsample = None
        if stride != 1 or inputs != filters:
            self.downsample = nn.Sequential(_conv(inputs, filters, 1, stride), nn.BatchNorm2d(filters))

    def forward(self, x):
        return self.relu(self.body(x) + (x if self.downsample is None else self.downsample(x)))


class _Basic(_Block):
    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__(inputs, width, stride)
        self.conv1, self.bn1 = _conv(inputs, width, stride=stride), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = _conv(width, width), nn.BatchNorm2d(width)

    def body(self, x):
        return self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))


class _Bottleneck(_Block):
    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__(inputs, 4 * width, stride)
        self.conv1, self.bn1 = _conv(inputs, width, 1), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = _conv(width, width, stride=stride), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = _conv(width, 4 * width, 1), nn.BatchNorm2d(4 * width)

    def body(self, x):
        x = self.relu(self.bn1(self.conv1(x)))
        return self.bn3(self.conv3(self.relu(self.bn2(self.conv2(x)))))


def _resnet(stem: dict, block: type[_Block], depths: tuple[int, ...], expansion: int, classes: int) -> nn.Module:
    parts, inputs = OrderedDict(stem), WIDTHS[0]
    for stage, (width, depth) in enumerate(zip(WIDTHS, depths, strict=True)):
        blocks = []
        for position in range(depth):
            blocks.append(block(inputs, width, 2 if stage and not position else 1))
            inputs = width * expansion
        parts[f"layer{stage + 1}"] = nn.Sequential(*blocks)
    return nn.Sequential(parts | {
        "avgpool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "fc": nn.Linear(inputs, classes)})


def resnet50(inputs: int, classes: int) -> nn.Module:
    stem = {"conv1": _conv(inputs, 64, 7, 2), "bn1": nn.BatchNorm2d(64), "relu": _relu(),
            "maxpool": nn.MaxPool2d(3, 2, padding=1)}
    return _resnet(stem, _Bottleneck, (3, 4, 6, 3), 4, classes)


def cifar_resnet18(inputs: int, classes: int) -> nn.Module:
    stem = {"conv1": _conv(inputs, 64), "bn1": nn.BatchNorm2d(64), "relu": _relu()}
    return _resnet(stem, _Basic, (2, 2, 2, 2), 1, classes)


NETWORKS = {made.__name__: made for made in (lenet, cifar_vgg, cifar_resnet18, convnet, vgg16, resnet50)}
