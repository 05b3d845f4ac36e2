"""A network as PyTorch modules, under its own names: each kind of layer has its counterpart here.

A kind without one is refused by name. Importing this module imports PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable
from zlib import crc32

import torch
import torch.nn.functional as F
from torch import nn

from .distributed import ALONE, Processes
from .layers import LAYERS
from .layers.base import Shape
from .layers.dropout import MASK, mix, threshold
from .layers.norm import _count
from .network import INPUT, Network

# From a layer and the shapes of its inputs to a module that reads N, C, H, W, N, C, L or N, F.
COUNTERPARTS: dict[str, Callable[..., nn.Module]] = {}


def counterpart(kind: str):
    """Decorator: the function makes the PyTorch module for layers of that kind."""

    def note(function):
        COUNTERPARTS[kind] = function
        return function

    return note


class NetworkModule(nn.Module):
    """A network as a PyTorch module: float32 images as the network reads them, channels last, to its output.

    Convolutions run in PyTorch's channels_last format, which is how images come. Raises ValueError for a layer that has
    no counterpart here, and for a name of a layer that PyTorch has no room for.
    """

    def __init__(self, network: Network):
        super().__init__()
        self._network, self._order = network, []
        last = {name: i for i, node in enumerate(network.nodes) for name in node.inputs}
        for i, node in enumerate(network.nodes):
            kind = type(node.layer).__name__
            if kind not in COUNTERPARTS:
                raise ValueError(f"layer {node.name!r}: {kind} has no counterpart in PyTorch here; there are "
                                 f"{', '.join(sorted(COUNTERPARTS))}. Use the native engine")
            module = COUNTERPARTS[kind](node.layer, *network.input_shapes(node))
            if isinstance(module, Dropout):
                module.key = crc32(node.name.encode())
            self._place(node.name, module)
            done = [name for name in dict.fromkeys(node.inputs) if last[name] == i and name != network.output]
            self._order.append((node.name, module, node.inputs, done))
        known = network.parameters()
        for name, p in self.named_parameters():
            p.requires_grad_(known[name].trainable)

    def _place(self, name: str, module: nn.Module) -> None:
        """Put a module where its dotted name says."""
        *outer, own = name.split(".")
        room: nn.Module = self
        try:
            for part in outer:
                if part not in dict(room.named_children()):
                    room.add_module(part, nn.Module())
                room = room.get_submodule(part)
            if own in dict(room.named_children()):
                raise KeyError(own)
            room.add_module(own, module)
        except KeyError:
            raise ValueError(f"layer {name!r}: PyTorch's modules have something else by this name; give the layer "
                             "another, or use the native engine") from None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        values = {INPUT: x.movedim(-1, 1)}
        for name, module, inputs, done in self._order:
            values[name] = module(*(values[i] for i in inputs))
            for other in done:
                del values[other]
        return values[self._network.output].movedim(1, -1)

    def dropped_by(self, counter: int, first: int) -> None:
        """Set what dropout drops: by the step's `counter`, for images of the batch from number `first` on."""
        for module in self.modules():
            if isinstance(module, Dropout):
                module.seed, module.first = mix(counter, module.key), first

    def normalised_over(self, batch: int, processes: Processes) -> None:
        """Let batch normalisation take its statistics over the `batch` images of all processes together."""
        for module in self.modules():
            if isinstance(module, BatchNorm):
                module.batch, module.processes = batch, processes


class _Padded:
    """Zeros (or `fill`) on each side first, as `F.pad` takes them."""

    sides: tuple[int, ...] = ()
    fill = 0.0

    def forward(self, x):
        return super().forward(F.pad(x, self.sides, value=self.fill) if self.sides else x)


class Conv1d(_Padded, nn.Conv1d):
    pass


class Conv2d(_Padded, nn.Conv2d):
    pass


class MaxPool1d(_Padded, nn.MaxPool1d):
    fill = -torch.inf


class MaxPool2d(_Padded, nn.MaxPool2d):
    fill = -torch.inf


class AvgPool1d(_Padded, nn.AvgPool1d):
    pass


class AvgPool2d(_Padded, nn.AvgPool2d):
    pass


def _sliding(kinds: tuple, axes, *arguments, most: Callable, **options) -> nn.Module:
    """A module of `kinds` for one or two axes, padded by itself where both sides are equal and at most `most` each."""
    own = all(w.before == w.after <= most(w) for w in axes)
    padding = tuple(w.before if own else 0 for w in axes)
    module = kinds[len(axes) - 1](*arguments, tuple(w.size for w in axes), tuple(w.stride for w in axes), padding,
                                  **options)
    if not own:
        module.sides = tuple(side for w in reversed(axes) for side in (w.before, w.after))
    return module


@counterpart("Conv")
def _conv(layer, shape: Shape) -> nn.Module:
    axes = layer.windows(shape)
    return _sliding((Conv1d, Conv2d), axes, shape[-1], layer.filters, dilation=tuple(w.dilation for w in axes),
                    groups=layer.groups, bias=layer.bias, most=lambda w: w.before)


@counterpart("MaxPool")
def _maximum(layer, shape: Shape) -> nn.Module:
    axes = layer.windows(shape)
    return _sliding((MaxPool1d, MaxPool2d), axes, dilation=tuple(w.dilation for w in axes), most=lambda w: w.size // 2)


@counterpart("AvgPool")
def _average(layer, shape: Shape) -> nn.Module:
    axes = layer.windows(shape)
    if layer.count_include_pad and all(w.dilation == 1 for w in axes):
        return _sliding((AvgPool1d, AvgPool2d), axes, most=lambda w: w.size // 2)
    return Means(axes, shape[-1], layer.count_include_pad)


class Means(nn.Module):
    """Averages of any windows, by convolutions with ones: of the values, and of what is counted."""

    def __init__(self, axes, channels: int, padding_counts: bool):
        super().__init__()
        self.sides = tuple(side for w in reversed(axes) for side in (w.before, w.after))
        self.padding_counts, self.convolve = padding_counts, (F.conv1d, F.conv2d)[len(axes) - 1]
        self.options = {"stride": tuple(w.stride for w in axes), "dilation": tuple(w.dilation for w in axes),
                        "groups": channels}
        self.form = (channels, 1, *(w.size for w in axes))

    def forward(self, x):
        ones, values = x.new_ones(self.form), F.pad(x, self.sides)
        counted = torch.ones_like(values) if self.padding_counts else F.pad(torch.ones_like(x), self.sides)
        return self.convolve(values, ones, **self.options) / self.convolve(counted, ones, **self.options)


@counterpart("AdaptiveAvgPool")
def _adaptive(layer, shape: Shape) -> nn.Module:
    return (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d)[len(shape) - 2](layer.size)


@counterpart("GlobalAvgPool")
def _global_average(layer, shape: Shape) -> nn.Module:
    return nn.Sequential((nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d)[len(shape) - 2](1), nn.Flatten())


@counterpart("GlobalMaxPool")
def _global_maximum(layer, shape: Shape) -> nn.Module:
    return nn.Sequential((nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d)[len(shape) - 2](1), nn.Flatten())


@counterpart("Dense")
def _dense(layer, shape: Shape) -> nn.Module:
    return nn.Linear(shape[0], layer.units, layer.bias)


counterpart("Flatten")(lambda layer, shape: nn.Flatten())
counterpart("ReLU")(lambda layer, shape: nn.ReLU())
counterpart("LeakyReLU")(lambda layer, shape: nn.LeakyReLU(layer.slope))
counterpart("Sigmoid")(lambda layer, shape: nn.Sigmoid())
counterpart("Tanh")(lambda layer, shape: nn.Tanh())
counterpart("SiLU")(lambda layer, shape: nn.SiLU())
counterpart("GELU")(lambda layer, shape: nn.GELU())
counterpart("Softmax")(lambda layer, shape: nn.Softmax(1))


class Function(nn.Module):
    """A function without parameters."""

    def __init__(self, function: Callable):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Affine(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x):
        form = (1, -1) + (1,) * (x.ndim - 2)
        return x * self.weight.view(form) + self.bias.view(form)


def _with_positions(module: Callable) -> Callable:
    """A function that also takes channels without positions."""
    return lambda x: module(x) if x.ndim > 2 else module(x[..., None])[..., 0]


counterpart("Affine")(lambda layer, shape: Affine(shape[-1]))
counterpart("Clip")(lambda layer, shape: Function(lambda x: x.clamp(layer.low, layer.high)))
counterpart("ScaledTanh")(lambda layer, shape: Function(lambda x: layer.amplitude * torch.tanh(layer.slope * x)))
counterpart("LRN")(lambda layer, shape: Function(_with_positions(
    lambda x: F.local_response_norm(x, layer.size, layer.alpha, layer.beta, layer.k))))
counterpart("ChannelShuffle")(lambda layer, shape: Function(_with_positions(
    lambda x: F.channel_shuffle(x, layer.groups))))
counterpart("TakeChannels")(lambda layer, shape: Function(lambda x: x[:, list(layer.order)]))
counterpart("PadChannels")(lambda layer, shape: Function(
    lambda x: F.pad(x, [0, 0] * (x.ndim - 2) + [0, layer.channels - x.shape[1]])))
counterpart("Pad")(lambda layer, shape: Function(
    lambda x: F.pad(x, [side for pair in reversed(layer.sides(shape)) for side in pair])))


class Add(nn.Module):
    def forward(self, *inputs):
        return sum(inputs[1:], inputs[0])


class Concat(nn.Module):
    def forward(self, *inputs):
        return torch.cat(inputs, 1)


counterpart("Add")(lambda layer, *shapes: Add())
counterpart("Concat")(lambda layer, *shapes: Concat())


class Dropout(nn.Module):
    """Drops what the native engine's dropout drops: by the step, the layer and the number of the element.

    Elements are numbered over the images of all processes, so that their number does not matter.
    """

    def __init__(self, rate: float):
        super().__init__()
        self.rate, self.key, self.seed, self.first = rate, 0, 0, 0

    def forward(self, x):
        if not self.training or not self.rate:
            return x
        size = x[0].numel()
        element = torch.arange(self.first * size, self.first * size + x.numel(), device=x.device) & MASK
        kept = _hash32((_hash32(element ^ self.seed) + self.seed) & MASK) >= threshold(self.rate)
        return x * kept.view(len(x), *x.shape[2:], x.shape[1]).movedim(-1, 1) * (1 / (1 - self.rate))


def _hash32(h: torch.Tensor) -> torch.Tensor:
    """`layers.dropout.hash32` of 32-bit integers that are held in int64; products may wrap, their low half is right."""
    h = ((h ^ (h >> 16)) * 0x7FEB352D) & MASK
    h = ((h ^ (h >> 15)) * 0x846CA68B) & MASK
    return h ^ (h >> 16)


counterpart("Dropout")(lambda layer, shape: Dropout(layer.rate))


class BatchNorm(nn.Module):
    """Batch normalisation whose statistics are those of the images of all processes together.

    With one process it is PyTorch's own. With several, sums and then sums of squared differences from the mean are
    added over the processes in float32, and their gradients alike: the same formula on any device.
    """

    def __init__(self, channels: int, eps: float, momentum: float):
        super().__init__()
        self.eps, self.momentum, self.batch, self.processes = eps, momentum, None, ALONE
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x):
        count = 0
        if self.training:
            count = _count((self.batch or len(x)) * x[0, 0].numel())
        if not self.training or self.processes.count == 1:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, self.training,
                                self.momentum, self.eps)
        with torch.autocast(x.device.type, enabled=False):
            return self._over_all(x.float(), count)

    def _over_all(self, x, count: int):
        axes, form = [0, *range(2, x.ndim)], (1, -1) + (1,) * (x.ndim - 2)
        mean = _Summed.apply(x.sum(axes)) / count
        x = x - mean.view(form)
        var = _Summed.apply((x * x).sum(axes)) / count
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var * (count / (count - 1)), self.momentum)
        scale = self.weight * torch.rsqrt(var + self.eps)
        return x * scale.view(form) + self.bias.view(form)


class _Summed(torch.autograd.Function):
    """The sum over all processes; backward, the sum of the gradients."""

    @staticmethod
    def forward(context, x):
        return _Summed._sum(x)

    @staticmethod
    def backward(context, dy):
        return _Summed._sum(dy)

    @staticmethod
    def _sum(x):
        x = x.contiguous().clone()
        torch.distributed.all_reduce(x)
        return x


counterpart("BatchNorm")(lambda layer, shape: BatchNorm(shape[-1], layer.eps, layer.momentum))


def unmatched() -> set[str]:
    """Kinds of layers that have no counterpart."""
    return {kind for kind, layer in LAYERS.items() if layer.__module__.startswith(__package__)} - set(COUNTERPARTS)
