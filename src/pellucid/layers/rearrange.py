"""Layers that compute nothing: channels in another order, and zeros around a map."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .. import reference
from ..geometry import Padding, Window, windows
from .arithmetic import copied
from .base import Layer, Shape, require_spatial
from .channels import sources


@dataclass(frozen=True)
class ChannelShuffle(Layer):
    """The first channel of each of `groups` groups, then the second of each, and so on: (C,) stays (C,).

    (Zhang et al., "ShuffleNet", 2018.) Raises ValueError unless `groups` is an integer of at least 1 that divides the
    channels.
    """

    groups: int

    def __post_init__(self):
        super().__post_init__()
        if not isinstance(self.groups, int) or isinstance(self.groups, bool) or self.groups < 1:
            raise ValueError(f"groups must be an integer of at least 1, got {self.groups!r}")

    def output_shape(self, shape: Shape) -> Shape:
        if shape[-1] % self.groups:
            raise ValueError(f"groups ({self.groups}) must divide the input's {shape[-1]} channels")
        return shape

    def kernel_text(self, shape: Shape) -> str:
        return f"{self.groups} groups"

    def define(self, parameters, x, *, training=False, seed=0):
        back = x.shape[-1] // self.groups
        return (reference.channel_shuffle(x, self.groups),
                lambda dy: ([reference.channel_shuffle(dy, back)], {}))

    def _source(self, channels: int) -> np.ndarray:
        """The channel that each output channel takes."""
        return np.arange(channels).reshape(self.groups, -1).T.ravel()

    def terms(self, index, parameters, x):
        return copied(x, (*index[:-1], self._source(x.shape[-1])[index[-1]]))

    def readers(self, index, of, shape):
        return np.array([(*index[:-1], *np.flatnonzero(self._source(shape[-1]) == index[-1]))])

    def lower(self, b, x):
        y, source = b.like(x), self._source(x.shape[2])
        b.call("take_channels", x=x, y=y, sources=sources(b, source[:, None]))

        def backward(dy):
            if not b.needs_gradient(x):
                return [None]
            dx = b.like(x)
            b.call("take_channels", x=dy, y=dx, sources=sources(b, np.argsort(source)[:, None]))
            return [dx]

        return y, backward


@dataclass(frozen=True)
class Pad(Layer):
    """Zeros around a map, which stay part of it; a convolution's own padding costs less.

    `padding` is an integer, one an axis, or a pair (before, after) for each axis. Raises ValueError for anything else.
    """

    padding: Padding

    def __post_init__(self):
        super().__post_init__()
        if self.padding == "same":
            raise ValueError('padding must be in numbers, got "same": that depends on a window')

    def sides(self, shape: Shape) -> list[tuple[int, int]]:
        """Zeros before and after each spatial axis."""
        require_spatial("Pad", shape)
        return [(w.before, w.after) for w in windows(shape[:-1], 1, 1, self.padding)]

    def windows(self, shape: Shape) -> tuple[Window, ...]:
        require_spatial("Pad", shape)
        return windows(shape[:-1], 1, 1, self.padding)

    def output_shape(self, shape: Shape) -> Shape:
        return (*(w.output_size(n) for w, n in zip(self.windows(shape), shape[:-1], strict=True)), shape[-1])

    def kernel_text(self, shape: Shape) -> str:
        return "p" + "x".join(str(before) if before == after else f"{before}+{after}"
                              for before, after in self.sides(shape))

    def define(self, parameters, x, *, training=False, seed=0):
        sides = self.sides(x.shape[1:])
        return reference.pad(x, sides), lambda dy: ([reference.pad_grad(dy, sides)], {})

    def terms(self, index, parameters, x):
        position = [w.start(i) for w, i in zip(self.windows(x.shape), index[:-1], strict=True)]
        return copied(x, (*position, index[-1]))

    def lower(self, b, x):
        y = b.tensor(self.output_shape(x.logical))
        top, left = (0, *(before for before, _ in self.sides(x.logical)))[-2:]
        inside = (top, left), (1, 1), x.shape[:2]
        b.call("clear", y=y)
        b.call("copy_blocks", x=x, y=y.every(*inside))

        def backward(dy):
            if not b.needs_gradient(x):
                return [None]
            dx = b.like(x)
            b.call("copy_blocks", x=dy.every(*inside), y=dx)
            return [dx]

        return y, backward
