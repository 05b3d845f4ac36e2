"""Convolution, 1-D and 2-D. The filter is not flipped: cross-correlation, as in every library."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .. import reference
from ..geometry import BLOCK, Padding, Window, blocks, channel_bands, conv_macs, per_axis, windows
from .base import Layer, Parameter, Shape, epilogue_gradient, require_spatial, window_text
from .initialisation import bias as bias_init
from .initialisation import fans
from .initialisation import weight as weight_init


@dataclass(frozen=True)
class Conv(Layer):
    """`filters` filters of `size`, each over `channels / groups` input channels.

    Input (H, W, C) or (L, C); output (H', W', filters). `groups` = C is the depthwise convolution. `padding` as in
    `geometry.windows`; `init` as in `initialisation.weight`. Parameters: weight (filters, C / groups, kh, kw), bias.
    """

    filters: int
    size: int | tuple[int, ...]
    stride: int | tuple[int, ...] = 1
    padding: Padding = 0
    dilation: int | tuple[int, ...] = 1
    groups: int = 1
    bias: bool = True
    init: str = "he"

    fuses_relu: ClassVar[bool] = True

    def __post_init__(self):
        super().__post_init__()
        for name in ("filters", "groups"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")
        if self.filters % self.groups:
            raise ValueError(f"groups ({self.groups}) must divide the number of filters ({self.filters})")
        if not isinstance(self.bias, bool):
            raise ValueError(f"bias must be true or false, got {self.bias!r}")
        weight_init(self.init, (1, 1))

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
        made = {"weight": Parameter(form, weight_init(self.init, form, self.groups))}
        if self.bias:
            made["bias"] = Parameter((self.filters,), bias_init(self.init, fans(form)[0]))
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
            grads = {"weight": reference.conv_grad_weight(x, dy, weight.shape[2:], **options)}
            if self.bias:
                grads["bias"] = reference.conv_grad_bias(dy)
            return [reference.conv_grad_input(dy, weight, x.shape[1:-1], **options)], grads

        return reference.conv(x, weight, parameters.get("bias"), **options), backward

    def reads_image(self, shape: Shape) -> bool:
        return shape[-1] < BLOCK and self.groups == 1 and self.windows(shape)[-1].dilation == 1

    def lower(self, b, x, relu=False):
        height, width, channels = x.shape
        axes = self.windows(x.logical)
        wy, wx = axes if len(axes) == 2 else (Window(1), axes[0])
        y = b.tensor(self.output_shape(x.logical))
        for axis, (w, n) in enumerate(((wy, height), (wx, width))):
            x.require_halo(axis, *w.overhang(n))
        form = _Form(b, self.filters, channels, self.groups, (wy.size, wx.size), x.inner)

        packed = form.pack(b)
        b.call(b.tile("conv" if x.inner == BLOCK else "conv_image", y.shape[1]),
               x=form.source(x, wy.before, wx.before), w=form.taps(packed),
               bias=b.parameter("bias") if self.bias else b.zeros((blocks(self.filters), BLOCK)), first=form.first,
               stride_x=wx.stride, stride_y=wy.stride, dilation_x=wx.dilation, dilation_y=wy.dilation,
               relu=int(relu), y=y)

        def backward(dy):
            dy = epilogue_gradient(b, y, dy, relu, self.bias)
            dw = b.scratch(packed.shape)
            blocked = x.inner == BLOCK
            bands = {"bands": form.bands if blocked else 1}
            b.call("conv_grad_weight" if blocked else "conv_image_grad_weight",
                   x=form.source(x, wy.before, wx.before), dy=dy, first=form.first, stride_x=wx.stride,
                   stride_y=wy.stride, dilation_x=wx.dilation, dilation_y=wy.dilation, dw=form.taps(dw), **bands)
            form.unpack(b, dw)
            return [self._lower_input_gradient(b, x, dy, wy, wx) if b.needs_gradient(x) else None]

        return y, backward

    def _lower_input_gradient(self, b, x, dy, wy: Window, wx: Window):
        """dx as convolutions of dy with flipped filters, one for each residue of the strides."""
        dx = b.like(x)
        height, width, channels = x.shape
        phases = [(py, px) for py in wy.transposed(height) for px in wx.transposed(width)]
        if any(not (py.taps and px.taps) for py, px in phases):
            b.call("clear", y=dx)  # inputs that no window touches
        for py, px in phases:
            if not (py.taps and px.taps):
                continue
            for axis, (p, n) in enumerate(((py, dy.shape[0]), (px, dy.shape[1]))):
                dy.require_halo(axis, max(-p.start, 0), max(p.start + p.count + (len(p.taps) - 1) * p.dilation - n, 0))
            form = _Form(b, channels, self.filters, self.groups, (len(py.taps), len(px.taps)), BLOCK)
            packed = form.pack(b, transposed=True, taps=(py.taps, px.taps), size=(wy.size, wx.size))
            b.call(b.tile("conv", px.count), x=dy.shifted(py.start, px.start), w=form.taps(packed),
                   bias=b.zeros((blocks(channels), BLOCK)), first=form.first, stride_x=1, stride_y=1,
                   dilation_x=px.dilation, dilation_y=py.dilation, relu=0,
                   y=dx.every((py.first, px.first), (wy.stride, wx.stride), (py.count, px.count)))
        return dx


class _Form:
    """Filters as the kernels hold them: (kb, cb, j, i, c, k), where a block of outputs sees a band of input blocks."""

    def __init__(self, b, outputs: int, inputs: int, groups: int, size: tuple[int, int], inner: int):
        self.outputs, self.inputs, self.groups, self.size, self.inner = outputs, inputs, groups, size, inner
        first, self.bands = channel_bands(outputs, inputs, groups) if inner == BLOCK else ([0] * blocks(outputs), 1)
        self.first = b.constant(first)

    def pack(self, b, transposed=False, taps=None, size=None):
        """Note the call that packs the node's weight; returns the scratch. `taps` picks rows and columns of it."""
        packed = b.scratch((blocks(self.outputs), self.bands, *self.size, self.inner, BLOCK))
        height, width = size or self.size
        rows, columns = taps or (range(height), range(width))
        step = [t[1] - t[0] if len(t) > 1 else 1 for t in (columns, rows)]
        inside, plane = self.inputs // self.groups, height * width
        out = self.outputs // self.groups
        # PyTorch's weight is (O, I / groups, kh, kw); transposed, its O is what we read and its I what we write.
        of_input, of_output = (plane * out, plane) if transposed else (plane, plane * inside)
        per_group = plane * inside * out
        view = b.filters("weight", rows[0] * width + columns[0], (len(columns), step[0]), (len(rows), step[1] * width),
                         (inside, of_input), (out, of_output), (self.groups, per_group))
        b.prepare("pack_filters", w=view, first=self.first, inner=self.inner, packed=packed)
        return packed

    def unpack(self, b, dw) -> None:
        """Note the call that writes the weight's gradient from its packed form."""
        height, width = self.size
        inside, out, plane = self.inputs // self.groups, self.outputs // self.groups, height * width
        view = b.filters("weight", 0, (width, 1), (height, width), (inside, plane), (out, plane * inside),
                         (self.groups, plane * inside * out), gradient=True)
        b.call("unpack_filters", packed=dw, first=self.first, inputs=inside, outputs=out, groups=self.groups, dw=view)

    def taps(self, packed):
        """Packed filters as the convolution reads them; an image's (channel, column) taps are one run."""
        if self.inner == BLOCK:
            return packed.whole()
        height, width = self.size
        run, row = self.inner * width, BLOCK * self.inner * width
        return packed.seen((BLOCK, 1), (run, BLOCK), (1, row), (height, row), (1, row * height),
                           (blocks(self.outputs), row * height))

    def source(self, x, y: int, column: int):
        """The input as the convolution reads it: position 0 is under the first tap of the first window."""
        if self.inner == BLOCK:
            return x.shifted(-y, -column)
        return x.runs(self.inner * self.size[1], -y, -column)

