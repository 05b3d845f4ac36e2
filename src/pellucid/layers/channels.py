"""Channels in another order or number, without arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .. import reference
from ..geometry import BLOCK, blocks
from .arithmetic import beside, copied
from .base import LONGEST_LIST, Layer, Shape


@dataclass(frozen=True)
class TakeChannels(Layer):
    """The channels with these numbers, in this order; one may be taken several times, or not at all.

    `channels` is a list of numbers from 0, or a table of rows, which are taken one after another: then a convolution
    with as many groups as rows sees each row alone. Raises ValueError for anything else, and for lists of more than 64.
    """

    channels: tuple[int, ...] | tuple[tuple[int, ...], ...]
    short: ClassVar[str] = "take"

    def __post_init__(self):
        super().__post_init__()
        rows = self.channels if isinstance(self.channels, tuple) else ()
        tables = [row if isinstance(row, tuple) and all(isinstance(r, tuple) for r in rows) else (row,) for row in rows]
        if (not tables or not all(row and all(map(_number, row)) for row in tables)
                or max(map(len, (tables, *tables))) > LONGEST_LIST):
            raise ValueError("channels must be a list of channels' numbers, or a table of such lists, each of 1 to "
                             f"{LONGEST_LIST}, got {self.channels!r:.100}")

    @property
    def order(self) -> tuple[int, ...]:
        """The numbers, row after row."""
        return tuple(c for row in self.channels for c in (row if isinstance(row, tuple) else (row,)))

    def output_shape(self, shape: Shape) -> Shape:
        """Raises ValueError for an input without one of the channels."""
        if max(self.order) >= shape[-1]:
            raise ValueError(f"channel {max(self.order)} is to be taken of {shape[-1]}, which are numbered from 0")
        return (*shape[:-1], len(self.order))

    def define(self, parameters, x, *, training=False, seed=0):
        y = reference.take_channels(x, self.order)
        return y, lambda dy: ([reference.take_channels_grad(dy, self.order, x.shape[-1])], {})

    def terms(self, index, parameters, x):
        return copied(x, (*index[:-1], self.order[index[-1]]))

    def readers(self, index, of, shape):
        taken = [k for k, channel in enumerate(self.order) if channel == index[-1]]
        return beside(np.array([index[:-1]], int), np.array(taken, int)[:, None])

    def lower(self, b, x):
        y, channels = b.tensor(self.output_shape(x.logical)), x.shape[-1]
        b.call("take_channels", x=x, y=y, sources=sources(b, [[c] for c in self.order]))

        def backward(dy):
            if not b.needs_gradient(x):
                return [None]
            dx, went = b.like(x), [[k for k, c in enumerate(self.order) if c == own] for own in range(channels)]
            b.call("take_channels", x=dy, y=dx, sources=sources(b, went))
            return [dx]

        return y, backward


@dataclass(frozen=True)
class PadChannels(Layer):
    """`channels` channels: the input's, then zeros. Raises ValueError for an input that has more."""

    channels: int
    short: ClassVar[str] = "pad"

    def __post_init__(self):
        super().__post_init__()
        if not _number(self.channels) or not self.channels:
            raise ValueError(f"channels must be an integer of at least 1, got {self.channels!r}")

    def output_shape(self, shape: Shape) -> Shape:
        if shape[-1] > self.channels:
            raise ValueError(f"{shape[-1]} channels cannot be padded to {self.channels}")
        return (*shape[:-1], self.channels)

    def kernel_text(self, shape: Shape) -> str:
        return f"+{self.channels - shape[-1]} zeros"

    def define(self, parameters, x, *, training=False, seed=0):
        return reference.pad_channels(x, self.channels), lambda dy: ([dy[..., :x.shape[-1]]], {})

    def terms(self, index, parameters, x):
        return copied(x, index)

    def lower(self, b, x):
        y, channels = b.tensor(self.output_shape(x.logical)), x.shape[-1]
        b.call("channel_slice", x=x, y=y, channels=channels, offset=0)

        def backward(dy):
            if not b.needs_gradient(x):
                return [None]
            dx = b.like(x)
            b.call("channel_slice", x=dy, y=dx, channels=channels, offset=0)
            return [dx]

        return y, backward


def _number(value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def sources(b, lists) -> np.ndarray:
    """A list of channels for each channel, which is their sum, as a kernel reads it: -1 for none, in spare ones too."""
    table = np.full((blocks(len(lists)) * BLOCK, max(map(len, lists))), -1)
    for k, own in enumerate(lists):
        table[k, :len(own)] = own
    return b.constant(table)
