"""Where branches meet: the sum of residual blocks and concatenation of channels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .. import reference
from .arithmetic import added, copied
from .base import Layer, Shape


def _two_or_more(name: str, shapes: tuple[Shape, ...]) -> None:
    if len(shapes) < 2:
        raise ValueError(f"{name} needs two or more inputs, got {len(shapes)}")


@dataclass(frozen=True)
class Add(Layer):
    """The sum of inputs of one shape (the shortcut of He et al., "Deep residual learning", 2016)."""

    inputs: ClassVar[int | None] = None

    def output_shape(self, *shapes: Shape) -> Shape:
        """The inputs' shape. Raises ValueError if they differ."""
        _two_or_more("Add", shapes)
        if len(set(shapes)) > 1:
            raise ValueError(f"Add needs inputs of one shape, got {' and '.join(map(str, shapes))}; "
                             "let a 1x1 convolution with a stride change the shape of the shortcut")
        return shapes[0]

    def define(self, parameters, *inputs, training=False, seed=0):
        return reference.add(*inputs), lambda dy: ([dy for _ in inputs], {})

    def terms(self, index, parameters, *inputs):
        return added(index, *inputs)

    def lower(self, b, *inputs):
        y = b.like(inputs[0])
        total = inputs[0]
        for x in inputs[1:]:
            b.call("add", a=total, b=x, y=y)
            total = y
        return y, lambda dy: [dy if b.needs_gradient(x) else None for x in inputs]


@dataclass(frozen=True)
class Concat(Layer):
    """The channels of all inputs, one after another; everything else must agree."""

    inputs: ClassVar[int | None] = None

    def output_shape(self, *shapes: Shape) -> Shape:
        """Raises ValueError if the inputs differ in more than their channels."""
        _two_or_more("Concat", shapes)
        if len({s[:-1] for s in shapes}) > 1:
            raise ValueError("Concat puts channels (the last axis) side by side, so all other sizes must agree; "
                             f"got {' and '.join(map(str, shapes))}")
        return (*shapes[0][:-1], sum(s[-1] for s in shapes))

    def define(self, parameters, *inputs, training=False, seed=0):
        channels = [x.shape[-1] for x in inputs]
        return reference.concat(*inputs), lambda dy: (reference.split(dy, channels), {})

    def terms(self, index, parameters, *inputs):
        *position, channel = index
        of = 0
        while channel >= inputs[of].shape[-1]:
            channel -= inputs[of].shape[-1]
            of += 1
        return copied(inputs[of], (*position, channel), of)

    def readers(self, index, of, *shapes):
        return np.array([(*index[:-1], index[-1] + sum(shape[-1] for shape in shapes[:of]))])

    def lower(self, b, *inputs):
        y = b.tensor(self.output_shape(*(x.logical for x in inputs)))
        counts = [x.shape[-1] for x in inputs]
        offsets = [sum(counts[:i]) for i in range(len(counts))]
        for x, count, offset in zip(inputs, counts, offsets, strict=True):  # in order: each clears the lanes after it
            b.call("concat_put", x=x, y=y, channels=count, offset=offset)

        def backward(dy):
            gradients = []
            for x, count, offset in zip(inputs, counts, offsets, strict=True):
                dx = None
                if b.needs_gradient(x):
                    dx = b.like(x)
                    b.call("channel_slice", x=dy, y=dx, channels=count, offset=offset)
                gradients.append(dx)
            return gradients

        return y, backward
