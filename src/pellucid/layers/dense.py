"""Fully-connected layers, and the flattening that leads from maps to them.

A dense layer is a matrix product, run by the convolution kernel with the batch as the image row. Where it reads a
flattened map it reads the map itself: its filters are as tall and wide as the map.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from .. import reference
from ..geometry import BLOCK, blocks
from .arithmetic import Uses, copied, dot, read
from .base import ALONE, Layer, Parameter, Shape, epilogue_gradient, leading
from .initialisation import bias as bias_init
from .initialisation import weight as weight_init

SQUARE = BLOCK * BLOCK  # weights between a block of inputs and a block of outputs


@dataclass(frozen=True)
class Dense(Layer):
    """`units` dot products with all features: (features,) -> (units,).

    Parameters: weight (units, features), bias (units,). `init` as in `initialisation.weight`.
    """

    units: int
    bias: bool = True
    init: str = "he"

    def __post_init__(self):
        super().__post_init__()
        if not isinstance(self.units, int) or isinstance(self.units, bool) or self.units < 1:
            raise ValueError(f"units must be an integer of at least 1, got {self.units!r}")
        if not isinstance(self.bias, bool):
            raise ValueError(f"bias must be true or false, got {self.bias!r}")
        weight_init(self.init, (1, 1))
        if self.init == "whitening":
            raise ValueError('init "whitening" is for convolutions that read the image')

    def output_shape(self, shape: Shape) -> Shape:
        if len(shape) != 1:
            raise ValueError(f"Dense needs a vector of features, got shape {shape}; put Flatten() before it")
        return (self.units,)

    def parameters(self, shape: Shape) -> dict[str, Parameter]:
        form = (self.units, shape[0])
        made = {"weight": Parameter(form, weight_init(self.init, form))}
        if self.bias:
            made["bias"] = Parameter((self.units,), bias_init(self.init, shape[0]))
        return made

    def macs(self, shape: Shape) -> int:
        return self.units * shape[0]

    def kernel_text(self, shape: Shape) -> str:
        return f"{shape[0]} -> {self.units}"

    def windows(self, shape: Shape) -> None:
        return None

    def define(self, parameters, x, *, training=False, seed=0):
        weight = parameters["weight"]

        def backward(dy):
            dx, dw, db = reference.dense_grad(x, weight, dy)
            return [dx], {"weight": dw, "bias": db} if self.bias else {"weight": dw}

        return reference.dense(x, weight, parameters.get("bias")), backward

    def terms(self, index, parameters, x):
        features = np.arange(len(x))
        weights = np.stack([np.full(len(x), index[0]), features], axis=1)
        return dot(parameters, x, features[:, None], weights, index)

    def derivatives(self, index, of, parameters, x):
        return np.arange(self.units)[:, None], parameters["weight"][:, index[0]].astype(float)

    def uses(self, name, index, parameters, x):
        output = np.array([index[:1]])
        if name == "bias":
            return Uses(output, np.ones(1))
        at = np.array([index[1:]])
        return Uses(output, read(x, at)[0], at)

    def fuses(self, b, followers, x):
        return leading(followers, "ReLU")

    def lower(self, b, x, after=ALONE):
        relu, y = after.relu, b.tensor((self.units,))
        height, width, channels = x.shape
        positions, c_blocks, k_blocks = height * width, blocks(channels), blocks(self.units)
        rows, zeros = positions * c_blocks, b.constant(np.zeros(positions * c_blocks + k_blocks))
        # PyTorch's features are (channel, row, column), columns fastest.
        source = ((width, 1), (height, width), (channels, positions), (self.units, positions * channels), (1, 1))
        matrix = x.matrix() if positions == 1 else _gather(b, x)
        product = {"stride_x": 1, "stride_y": 1, "dilation_x": 1, "dilation_y": 1}

        packed = b.scratch((k_blocks, c_blocks, height, width, BLOCK, BLOCK))
        b.prepare("pack_filters", w=b.filters("weight", 0, *source), scale=b.ones((k_blocks, BLOCK)),
                  first=zeros[:k_blocks], inner=BLOCK, packed=packed)
        as_rows = ((BLOCK, 1), (BLOCK, BLOCK), (1, SQUARE), (1, SQUARE), (rows, SQUARE), (k_blocks, SQUARE * rows))
        b.call(b.tile("conv", b.batch), x=matrix, w=packed.seen(*as_rows),
               bias=b.parameter("bias") if self.bias else b.zeros((k_blocks, BLOCK)), first=zeros[:k_blocks],
               residual=b.nothing((k_blocks, 1, b.batch, 1)), relu=int(relu), rows=1, y=y.matrix(),
               **product)

        def backward(dy):
            dy = epilogue_gradient(b, y, dy, relu, self.bias)
            b.call("dense_grad_weight", x=matrix, dy=dy.matrix(), positions=positions,
                   dw=b.filters("weight", 0, (positions, 1), *source[2:4], gradient=True))
            return [input_gradient(dy) if b.needs_gradient(x) else None]

        def input_gradient(dy):
            dx = b.like(x)
            turned = b.scratch((c_blocks, height, width, k_blocks, BLOCK, BLOCK))
            across = SQUARE * k_blocks
            b.prepare("pack_filters", w=b.filters("weight", 0, *source[:2], source[3], source[2], source[4]),
                      scale=b.ones((c_blocks, BLOCK)), first=zeros[:c_blocks], inner=BLOCK,
                      packed=turned.seen((BLOCK, 1), (BLOCK, BLOCK), (width, across), (height, across * width),
                                         (k_blocks, SQUARE), (c_blocks, across * positions)))
            out = dx.matrix() if positions == 1 else _rows(b, b.scratch((rows, b.batch, BLOCK)))
            b.call(b.tile("conv", b.batch), x=dy.matrix(), bias=b.zeros((rows, BLOCK)), first=zeros[:rows], relu=0,
                   rows=1, residual=b.nothing((rows, 1, b.batch, 1)),
                   w=turned.seen((BLOCK, 1), (BLOCK, BLOCK), (1, SQUARE), (1, SQUARE), (k_blocks, SQUARE),
                                 (rows, across)),
                   y=out.matrix if positions > 1 else out, **product)
            if positions > 1:
                if x.rectified:
                    b.call("relu_grad", y=x, dy=out.as_map(x), dx=dx)
                    x.masked = True
                else:
                    b.call("copy_blocks", x=out.as_map(x), y=dx)
            return dx

        return y, backward


@dataclass(frozen=True)
class _Rows:
    """A map's blocks as rows of a matrix, each block of all images together."""

    scratch: object
    batch: int

    @property
    def matrix(self):
        """(c, n, 1, row, 1)."""
        return self.scratch.seen((BLOCK, 1), (self.batch, BLOCK), (1, BLOCK),
                                 (self.scratch.shape[0], BLOCK * self.batch), (1, BLOCK))

    def as_map(self, like):
        """(c, x, y, b, n)."""
        height, width, channels = like.shape
        step = BLOCK * self.batch
        return self.scratch.seen((BLOCK, 1), (width, step), (height, step * width),
                                 (blocks(channels), step * width * height), (self.batch, BLOCK))


def _rows(b, scratch) -> _Rows:
    return _Rows(scratch, b.batch)


def _gather(b, x):
    """Copy a map to rows, so that the matrix product's innermost offsets are constants."""
    rows = _rows(b, b.scratch((x.shape[0] * x.shape[1] * x.blocks, b.batch, BLOCK)))
    b.call("copy_blocks", x=x, y=rows.as_map(x))
    return rows.matrix


@dataclass(frozen=True)
class Flatten(Layer):
    """A map or signal as one vector of features, in PyTorch's order (C, H, W), so that its weights fit."""

    def output_shape(self, shape: Shape) -> Shape:
        return (prod(shape),)

    def windows(self, shape: Shape) -> None:
        return None

    def define(self, parameters, x, *, training=False, seed=0):
        return reference.flatten(x), lambda dy: ([reference.unflatten(dy, x.shape[1:])], {})

    def terms(self, index, parameters, x):
        channel, *position = np.unravel_index(index[0], (x.shape[-1], *x.shape[:-1]))
        return copied(x, (*position, channel))

    def readers(self, index, of, shape):
        return np.array([[np.ravel_multi_index((index[-1], *index[:-1]), (shape[-1], *shape[:-1]))]])

    def reads_image(self, shape: Shape) -> bool:
        return shape[-1] < BLOCK

    def lower(self, b, x):
        features = self.output_shape(x.logical)
        # A dense layer reads the map itself where its blocks are mostly channels. A map of one pixel is copied: it may
        # have a halo, and a dense layer reads vectors without one.
        full = x.inner == BLOCK and 2 * x.shape[2] > BLOCK * x.blocks and x.shape[:2] != (1, 1)
        if len(x.logical) == 1 or full and b.readers and all(isinstance(r, Dense) for r in b.readers):
            y = b.alias(x, features)

            def passed_on(dy):
                x.masked = y.masked
                return [dy if b.needs_gradient(x) else None]

            return y, passed_on
        y = b.tensor(features)
        height, width, channels = x.shape
        b.call("flatten", x=x, features=features[0], y=y.vector())

        def backward(dy):
            if not b.needs_gradient(x):
                return [None]
            dx = b.like(x)
            b.call("unflatten", y=dy.vector(), channels=channels, width=width, height=height, x=dx)
            return [dx]

        return y, backward
