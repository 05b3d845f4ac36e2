"""The published networks as PyTorch modules, written from the papers' tables and under torchvision's names where it has
them: what the zoo is compared with."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class AlexNet(nn.Module):
    def __init__(self, classes=1000):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2), nn.Conv2d(64, 192, 5, 1, 2), nn.ReLU(),
            nn.MaxPool2d(3, 2), nn.Conv2d(192, 384, 3, 1, 1), nn.ReLU(), nn.Conv2d(384, 256, 3, 1, 1), nn.ReLU(),
            nn.Conv2d(256, 256, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(3, 2))
        self.classifier = nn.Sequential(
            nn.Dropout(), nn.Linear(256 * 6 * 6, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU(),
            nn.Linear(4096, classes))

    def forward(self, x):
        return self.classifier(F.adaptive_avg_pool2d(self.features(x), 6).flatten(1))


class AlexNet2012(nn.Module):
    """Two GPUs: the second, fourth and fifth layer see the half of the maps that lies on their own."""

    def __init__(self, classes=1000, side=227):
        super().__init__()
        self.border = {227: 0, 224: 2}[side]
        self.conv1, self.conv2 = nn.Conv2d(3, 96, 11, 4), nn.Conv2d(96, 256, 5, padding=2, groups=2)
        self.conv3 = nn.Conv2d(256, 384, 3, padding=1)
        self.conv4 = nn.Conv2d(384, 384, 3, padding=1, groups=2)
        self.conv5 = nn.Conv2d(384, 256, 3, padding=1, groups=2)
        self.fc6, self.fc7, self.fc8 = nn.Linear(9216, 4096), nn.Linear(4096, 4096), nn.Linear(4096, classes)

    @staticmethod
    def normalised(a, k=2, n=5, alpha=1e-4, beta=0.75):
        """The formula of section 3.3, channel by channel."""
        last = a.shape[1] - 1
        sums = [(a[:, max(0, i - n // 2):min(last, i + n // 2) + 1] ** 2).sum(1) for i in range(last + 1)]
        return a / (k + alpha * torch.stack(sums, 1)) ** beta

    def forward(self, x):
        x = F.pad(x, [self.border] * 4)
        x = F.max_pool2d(self.normalised(F.relu(self.conv1(x))), 3, 2)
        x = F.max_pool2d(self.normalised(F.relu(self.conv2(x))), 3, 2)
        x = F.relu(self.conv4(F.relu(self.conv3(x))))
        x = F.max_pool2d(F.relu(self.conv5(x)), 3, 2).flatten(1)
        x = F.dropout(F.relu(self.fc6(x)), training=self.training)
        return self.fc8(F.dropout(F.relu(self.fc7(x)), training=self.training))


class LeNet5(nn.Module):
    """C3 by the columns of table I, as 16 separate units."""

    READS = ("012", "123", "234", "345", "045", "015", "0123", "1234", "2345", "0345", "0145", "0125", "0134", "1245",
             "0235", "012345")

    def __init__(self, classes=10, **_):
        super().__init__()
        self.c1 = nn.Conv2d(1, 6, 5)
        self.s2 = nn.Module()
        self.s2.scale = nn.Conv2d(6, 6, 1, groups=6)
        self.c3 = nn.Module()
        for name, filters, reads in (("three", 6, 3), ("four", 6, 4), ("apart", 3, 4)):
            part = nn.Module()
            part.conv = nn.Conv2d(filters * reads, filters, 5, groups=filters)
            setattr(self.c3, name, part)
        self.c3.all = nn.Conv2d(6, 1, 5)
        self.s4 = nn.Module()
        self.s4.scale = nn.Conv2d(16, 16, 1, groups=16)
        self.c5, self.f6 = nn.Conv2d(16, 120, 5), nn.Linear(120, 84)
        self.output = nn.Linear(84, classes, bias=False)

    def unit(self, number, s2):
        """Map `number` of C3: a filter over the maps that its column names, in the order in which they were learned."""
        part = (number >= 6) + (number >= 12) + (number > 14)
        name, first = (("three", 0), ("four", 6), ("apart", 12), ("all", 15))[part]
        layer = getattr(self.c3, name)
        layer = layer if name == "all" else layer.conv
        reads = [int(c) for c in self.READS[number]]
        if name in ("three", "four"):  # from its own number on, round the six
            reads = sorted(reads, key=lambda m: (m - (number - first)) % 6)
        return F.conv2d(s2[:, reads], layer.weight[[number - first]], layer.bias[[number - first]])

    def forward(self, x):
        def squash(a):
            return 1.7159 * torch.tanh(a * 2 / 3)

        s2 = squash(self.s2.scale(F.avg_pool2d(squash(self.c1(x)), 2)))
        c3 = squash(torch.cat([self.unit(number, s2) for number in range(16)], 1))
        s4 = squash(self.s4.scale(F.avg_pool2d(c3, 2)))
        return self.output(squash(self.f6(squash(self.c5(s4)).flatten(1))))


class VGG(nn.Module):
    """`depths` says how many convolutions stand before each of the five maxima."""

    def __init__(self, depths, batch_norm=False, classes=1000):
        super().__init__()
        parts, channels = [], 3
        for width, depth in zip((64, 128, 256, 512, 512), depths, strict=True):
            for _ in range(depth):
                normalised = [nn.BatchNorm2d(width)] if batch_norm else []
                parts += [nn.Conv2d(channels, width, 3, 1, 1), *normalised, nn.ReLU()]
                channels = width
            parts.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*parts)
        self.classifier = nn.Sequential(
            nn.Linear(512 * 7 * 7, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout(),
            nn.Linear(4096, classes))

    def forward(self, x):
        return self.classifier(F.adaptive_avg_pool2d(self.features(x), 7).flatten(1))


class Block(nn.Module):
    """Convolutions of these sizes and widths with batch normalisation, the stride at the first of 3x3."""

    def __init__(self, channels, layers, stride):
        super().__init__()
        self.depth, filters = len(layers), layers[-1][1]
        before = channels
        for number, (size, width) in enumerate(layers, 1):
            first = size == 3 and all(s != 3 for s, _ in layers[:number - 1])
            conv = nn.Conv2d(before, width, size, stride if first else 1, size // 2, bias=False)
            setattr(self, f"conv{number}", conv)
            setattr(self, f"bn{number}", nn.BatchNorm2d(width))
            before = width
        if stride != 1 or channels != filters:
            shrink = nn.Conv2d(channels, filters, 1, stride, bias=False)
            self.downsample = nn.Sequential(shrink, nn.BatchNorm2d(filters))

    def body(self, x):
        for number in range(1, self.depth + 1):
            x = getattr(self, f"bn{number}")(getattr(self, f"conv{number}")(x))
            x = F.relu(x) if number < self.depth else x
        return x

    def forward(self, x):
        return F.relu(self.body(x) + (self.downsample(x) if hasattr(self, "downsample") else x))


class CifarBlock(Block):
    """With option A: no parameters on the shortcut; without any shortcut where the network is plain."""

    def __init__(self, channels, width, stride, residual):
        super().__init__(channels, [(3, width)] * 2, stride)
        self.residual, self.stride, self.added = residual, stride, width - channels
        if hasattr(self, "downsample"):
            del self.downsample

    def forward(self, x):
        if not self.residual:
            return F.relu(self.body(x))
        shortcut = x[:, :, ::self.stride, ::self.stride]
        zeros = shortcut.new_zeros(len(x), self.added, *shortcut.shape[2:])
        return F.relu(self.body(x) + torch.cat([shortcut, zeros], 1))


class ResNet(nn.Module):
    def __init__(self, depths, bottleneck=False, classes=1000, small=False):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False) if small else nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1, self.small, channels = nn.BatchNorm2d(64), small, 64
        for number, (width, depth) in enumerate(zip((64, 128, 256, 512), depths, strict=True), 1):
            layers = [(1, width), (3, width), (1, 4 * width)] if bottleneck else [(3, width), (3, width)]
            blocks = []
            for i in range(depth):
                blocks.append(Block(channels, layers, 2 if i == 0 and number > 1 else 1))
                channels = layers[-1][1]
            setattr(self, f"layer{number}", nn.Sequential(*blocks))
        self.fc = nn.Linear(channels, classes)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = x if self.small else F.max_pool2d(x, 3, 2, 1)
        return self.fc(self.layer4(self.layer3(self.layer2(self.layer1(x)))).mean((2, 3)))


class CifarResNet(nn.Module):
    def __init__(self, n, residual=True, classes=10):
        super().__init__()
        self.conv1, self.bn1, channels = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), 16
        for number, width in enumerate((16, 32, 64), 1):
            blocks = []
            for i in range(n):
                blocks.append(CifarBlock(channels, width, 2 if i == 0 and number > 1 else 1, residual))
                channels = width
            setattr(self, f"layer{number}", nn.Sequential(*blocks))
        self.fc = nn.Linear(64, classes)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        return self.fc(self.layer3(self.layer2(self.layer1(x))).mean((2, 3)))


def _family(make, table, **options):
    return {name: lambda classes, value=value: make(value, classes=classes, **options) for name, value in table.items()}


VGGS = {"11": (1, 1, 2, 2, 2), "13": (2, 2, 2, 2, 2), "16": (2, 2, 3, 3, 3), "19": (2, 2, 4, 4, 4)}
TORCHVISION = {
    "alexnet": AlexNet,
    **_family(VGG, {f"vgg{k}": v for k, v in VGGS.items()}),
    **_family(VGG, {f"vgg{k}_bn": v for k, v in VGGS.items()}, batch_norm=True),
    **_family(ResNet, {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3)}),
    **_family(ResNet, {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3), "resnet152": (3, 8, 36, 3)},
              bottleneck=True),
}
DEPTHS = {20: 3, 32: 5, 44: 7, 56: 9, 110: 18}
MODULES = {  # name: a function from the number of classes to the module
    **TORCHVISION,
    "alexnet2012": AlexNet2012,
    "cifar_resnet18": lambda classes: ResNet((2, 2, 2, 2), classes=classes, small=True),
    "lenet5": LeNet5,
    **_family(CifarResNet, {f"resnet{k}": v for k, v in DEPTHS.items()}),
    **_family(CifarResNet, {f"plain{k}": v for k, v in DEPTHS.items()}, residual=False),
}


def shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a state_dict, without the counters that nothing reads."""
    return {name: tuple(t.shape) for name, t in module.state_dict().items() if not name.endswith("num_batches_tracked")}
