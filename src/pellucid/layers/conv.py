"""Convolution, 1-D and 2-D. The filter is not flipped: cross-correlation, as in every library."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .. import reference
from ..geometry import BLOCK, Padding, Window, blocks, conv_macs, per_axis, windows
from . import routed, winograd
from .arithmetic import Uses, beside, dot, everywhere, grid, read, under
from .base import (
    ALONE,
    Layer,
    Parameter,
    Shape,
    as_image,
    epilogue_gradient,
    halves,
    leading,
    require_spatial,
    window_text,
)
from .convolve import Sums, convolve, grad_weight, pools, unpools
from .initialisation import bias as bias_init
from .initialisation import fans
from .initialisation import weight as weight_init
from .norm import folded

PAIRS = {"size_x": 2, "size_y": 2, "stride_x": 2, "stride_y": 2, "before_x": 0, "before_y": 0}  # 2x2 pooling


@dataclass(frozen=True)
class Conv(Layer):
    """`filters` filters of `size`, each over `channels / groups` input channels.

    Input (H, W, C) or (L, C); output (H', W', filters). `groups` = C is the depthwise convolution. `padding` as in
    `geometry.windows`; `init` as in `initialisation.weight`. Parameters: weight (filters, C / groups, kh, kw), bias;
    they stay as they begin where `trainable` is false.
    """

    filters: int
    size: int | tuple[int, ...]
    stride: int | tuple[int, ...] = 1
    padding: Padding = 0
    dilation: int | tuple[int, ...] = 1
    groups: int = 1
    bias: bool = True
    init: str = "he"
    trainable: bool = True

    def __post_init__(self):
        super().__post_init__()
        for name in ("filters", "groups"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")
        if self.filters % self.groups:
            raise ValueError(f"groups ({self.groups}) must divide the number of filters ({self.filters})")
        for name in ("bias", "trainable"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be true or false, got {getattr(self, name)!r}")
        weight_init(self.init, (1, 1))
        dilated = self.dilation not in (1, (1,), (1, 1))
        if self.init == "whitening" and (self.groups > 1 or dilated or self.filters < 2):
            raise ValueError("filters that whiten come in pairs and see whole patches: there must be at least 2, with "
                             "groups 1 and dilation 1")

    def windows(self, shape: Shape) -> tuple[Window, ...]:
        require_spatial("Conv", shape)
        return windows(shape[:-1], self.size, self.stride, self.padding, self.dilation)

    def output_shape(self, shape: Shape) -> Shape:
        axes = self.windows(shape)
        if shape[-1] % self.groups:
            raise ValueError(f"groups ({self.groups}) must divide the input's {shape[-1]} channels")
        return (*(w.output_size(n) for w, n in zip(axes, shape[:-1], strict=True)), self.filters)

    def parameters(self, shape: Shape) -> dict[str, Parameter]:
        form = (self.filters, shape[-1] // self.groups, *per_axis(self.size, len(shape) - 1, "size"))
        made = {"weight": Parameter(form, weight_init(self.init, form, self.groups), self.trainable)}
        if self.bias:
            made["bias"] = Parameter((self.filters,), bias_init(self.init, fans(form)[0]), self.trainable)
        return made

    def macs(self, shape: Shape) -> int:
        sizes = per_axis(self.size, len(shape) - 1, "size")
        return conv_macs(self.output_shape(shape)[:-1], self.filters, sizes, shape[-1], self.groups)

    def kernel_text(self, shape: Shape) -> str:
        return window_text(self.windows(shape)) + (f" g{self.groups}" if self.groups > 1 else "")

    def define(self, parameters, x, *, training=False, seed=0):
        weight = parameters["weight"]
        options = {"stride": self.stride, "padding": self.padding, "dilation": self.dilation, "groups": self.groups}

        def backward(dy):
            grads = {}
            if self.trainable:
                grads["weight"] = reference.conv_grad_weight(x, dy, weight.shape[2:], **options)
                if self.bias:
                    grads["bias"] = reference.conv_grad_bias(dy)
            return [reference.conv_grad_input(dy, weight, x.shape[1:-1], **options)], grads

        return reference.conv(x, weight, parameters.get("bias"), **options), backward

    def terms(self, index, parameters, x):
        *position, k = index
        each = x.shape[-1] // self.groups
        first = k // (self.filters // self.groups) * each
        taps, sources = under(self.windows(x.shape), position)
        channels = np.arange(each)[:, None]
        at = beside(sources, first + channels)
        *tap, channel = beside(taps, channels).T
        weights = np.stack([np.full(len(at), k), channel, *tap], axis=1)
        return dot(parameters, x, at, weights, (k,), share=self._rounding(x.shape))

    def _rounding(self, shape: Shape) -> float:
        """The error of Winograd's algorithm, if the engine may choose it for this layer."""
        axes = self.windows(shape)
        size, stride, dilation = (tuple(getattr(w, name) for w in axes) for name in ("size", "stride", "dilation"))
        fits = winograd.fits(size, stride, dilation, [range(n) for n in size])
        return winograd.ERROR if fits and self.groups == 1 and min(shape[-1], self.filters) >= winograd.LEAST else 0.0

    def readers(self, index, of, shape):
        each = self.filters // self.groups
        first = index[-1] // (shape[-1] // self.groups) * each
        return grid(*self._seen_from(index, shape), range(first, first + each))

    def _seen_from(self, index, shape: Shape) -> list[list[int]]:
        """The positions along each axis whose windows lie on an index."""
        return [w.outputs(i, n) for w, i, n in zip(self.windows(shape), index[:-1], shape[:-1], strict=True)]

    def derivatives(self, index, of, parameters, x):
        outputs = self.readers(index, of, x.shape)
        *positions, filters = outputs.T
        taps = [(i - w.start(o)) // w.dilation
                for w, i, o in zip(self.windows(x.shape), index[:-1], positions, strict=True)]
        channel = index[-1] % (x.shape[-1] // self.groups)
        return outputs, parameters["weight"][filters, channel, *taps].astype(float)

    def uses(self, name, index, parameters, x):
        outputs = everywhere(self.output_shape(x.shape), index[0])
        if name == "bias":
            return Uses(outputs, np.ones(len(outputs)))
        k, channel, *tap = index
        channel += k // (self.filters // self.groups) * (x.shape[-1] // self.groups)
        at = [w.start(o) + t * w.dilation
              for w, o, t in zip(self.windows(x.shape), outputs.T[:-1], tap, strict=True)]
        at = np.stack([*at, np.full(len(outputs), channel)], axis=1)
        return Uses(outputs, read(x, at)[0], at)

    def reads_image(self, shape: Shape) -> bool:
        return shape[-1] < BLOCK and self.groups == 1 and self.windows(shape)[-1].dilation == 1

    def fuses(self, b, followers, x):
        kinds = () if b.gradients or b.training else ("BatchNorm",)
        count = leading(followers, *kinds, "ReLU")
        if len(x.logical) == 3 and halves(followers[count:]) and pools(b, self._sums(x)):
            return count + 1
        return leading(followers, *kinds, *(("Add",) if kinds else ()), "ReLU")

    def _axes(self, x) -> tuple[Window, Window]:
        """The windows along y and x: a signal is one row high."""
        axes = self.windows(x.logical)
        return axes if len(axes) == 2 else (Window(1), axes[0])

    def _sums(self, x, **rest) -> Sums:
        """The forward pass, with the arguments of `Sums` that depend on what follows."""
        wy, wx = self._axes(x)
        *size, _ = as_image(self.output_shape(x.logical))
        return Sums("forward", x, start=(-wy.before, -wx.before), stride=(wy.stride, wx.stride),
                    dilation=(wy.dilation, wx.dilation), size=(wy.size, wx.size),
                    taps=(range(wy.size), range(wx.size)), channels=x.shape[2], filters=self.filters,
                    groups=self.groups, map=tuple(size), **rest)

    def lower(self, b, x, after=ALONE):
        shape = *size, _ = self.output_shape(x.logical)
        y = b.tensor((size[0] // 2, size[1] // 2, self.filters) if after.pool else shape)
        y.rectified = after.relu and len(b.readers) == 1
        index = b.tensor(y.logical, "uint8") if after.pool else None
        bias = b.parameter("bias") if self.bias else b.zeros((blocks(self.filters), BLOCK))
        scale, bias = (folded(b, *after.norm, self.filters, bias) if after.norm
                       else (b.ones((blocks(self.filters), BLOCK)), bias))
        residual = after.residual.interior() if after.residual else b.nothing(y)
        forward = self._sums(x, y=y.interior(), index=index, scale=scale, bias=bias, residual=residual,
                             relu=after.relu)
        convolve(b, forward)

        def backward(dy):
            dy = epilogue_gradient(b, y, dy, after.relu, self.bias and self.trainable)
            if routed.fits(forward):
                if self.trainable:
                    routed.grad_weight(b, forward, dy)
                return [routed.grad_input(b, forward, dy) if b.needs_gradient(x) else None]
            maxima = index if after.pool and unpools(b, forward) else None
            if after.pool and not maxima and x.inner == BLOCK:  # a first layer needs no gradient to its map
                dz = b.tensor(shape)
                b.call("max_pool_grad", dy=dy, index=index, y=y, relu=0, dx=dz, **PAIRS)
                dy = dz
            if self.trainable:
                grad_weight(b, forward, dy, maxima)
            return [self._lower_input_gradient(b, x, dy, maxima) if b.needs_gradient(x) else None]

        return y, backward

    def _lower_input_gradient(self, b, x, dy, maxima=None):
        """dx as convolutions of dy with flipped filters, one for each residue of the strides. `maxima` as in `Sums`."""
        wy, wx = self._axes(x)
        dx = b.like(x)
        height, width, channels = x.shape
        phases = [(py, px) for py in wy.transposed(height) for px in wx.transposed(width)]
        reached = [(py, px) for py, px in phases if py.taps and px.taps]
        others = b.received(x) if reached == phases else None
        if reached != phases:
            b.call("clear", y=dx)  # inputs that no window touches
        scale, bias = b.ones((blocks(channels), BLOCK)), b.zeros((blocks(channels), BLOCK))
        for py, px in reached:
            size = py.count, px.count
            here = (py.first, px.first), (wy.stride, wx.stride), size
            convolve(b, Sums(
                "input", dy, start=(py.start, px.start), stride=(1, 1), dilation=(py.dilation, px.dilation),
                size=(wy.size, wx.size), taps=(py.taps, px.taps), channels=self.filters, filters=channels,
                groups=self.groups, map=size, maxima=maxima, y=dx.every(*here), scale=scale, bias=bias,
                residual=others.every(*here) if others else b.nothing((dx.blocks, *size, b.batch))))
        return dx
