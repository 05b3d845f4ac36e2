"""What a number looks at: its window in the layer below, and its receptive field in the image."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..layers.arithmetic import PADDING, Arithmetic, Index
from ..network import INPUT, Network


class Span(NamedTuple):
    """Positions `first` to `last`, both counted, `step` apart, on an axis of `size`; those outside it are padding."""

    first: int
    last: int
    size: int
    step: int = 1

    @property
    def before(self) -> int:
        """Positions in the padding before the axis."""
        return sum(i < 0 for i in self._positions)

    @property
    def after(self) -> int:
        """Positions in the padding after the axis."""
        return sum(i >= self.size for i in self._positions)

    @property
    def clipped(self) -> range:
        """The positions that there are."""
        inside = [i for i in self._positions if 0 <= i < self.size]
        return range(inside[0], inside[-1] + 1, self.step) if inside else range(0)

    @property
    def _positions(self) -> range:
        return range(self.first, self.last + 1, self.step)

    def text(self) -> str:
        """2 to 4; with the padding, if there is some."""
        known = self.clipped
        if not known:
            return f"only padding of {self.size}"
        if (self.first, self.last, self.step) == (0, self.size - 1, 1):
            return f"all {self.size}"
        said = f"{known[0]} to {known[-1]}" if len(known) > 1 else str(known[0])
        if self.step > 1 and len(known) > 1:
            said += f" in steps of {self.step}"
        padding = [f"{n} {side}" for n, side in ((self.before, "before"), (self.after, "after")) if n]
        return f"{said} of {self.size}" + (f" and padding {' and '.join(padding)}" if padding else "")

    def to_json(self) -> dict:
        return self._asdict() | {"padding_before": self.before, "padding_after": self.after}


def axis_names(shape: tuple[int, ...]) -> tuple[str, ...]:
    """What the axes of a map, a signal or a vector are called in texts."""
    return {3: ("y", "x", "channel"), 2: ("x", "channel"), 1: ("feature",)}[len(shape)]


def said(spans: tuple[Span, ...], shape: tuple[int, ...]) -> str:
    """Spans in words, those of the first axes of `shape`."""
    texts = [(name, span.text()) for name, span in zip(axis_names(shape), spans, strict=False)]
    return ", ".join(f"{text} features" if name == "feature" and text.startswith("all") else f"{name} {text}"
                     for name, text in texts)


def window(made: Arithmetic, of: int, shape: tuple[int, ...]) -> tuple[Span, ...]:
    """The positions that a number reads of one of its layer's inputs, padding included; of a vector, its features."""
    at = made.at[(made.of == of) | (made.of == PADDING)]
    spans = []
    for axis, size in enumerate(shape[:-1] or shape):
        taken = np.unique(at[:, axis])
        step = int(np.diff(taken).min()) if len(taken) > 1 else 1
        spans.append(Span(int(taken[0]), int(taken[-1]), size, step))
    return tuple(spans)


class Fields:
    """Receptive fields of single numbers. They come from the network's, and from its terms where those say no more than
    "all of it": a number after Flatten sees what its one source saw."""

    def __init__(self, network: Network):
        self.network, self.known = network, network.receptive_fields

    def of(self, name: str, index: Index, made) -> tuple[Span, ...] | None:
        """Spans of the image, one a spatial axis; None for all of it. `made` gives the arithmetic of (name, index)."""
        if not self.network.input_shape[:-1]:
            return None
        if self.known[name] is not None:
            return self._covered(name, index[:-1], index[:-1])
        terms, node, found = made(name, index), self.network.node(name), []
        for of, source in enumerate(node.inputs):
            at = terms.at[terms.of == of]
            if not len(at):
                continue
            if source == INPUT or self.known[source] is not None:
                found.append(self._covered(source, at.min(axis=0)[:-1], at.max(axis=0)[:-1]))
            elif len(at) == 1:
                found.append(self.of(source, tuple(at[0].tolist()), made))
            else:
                return None
        if not found or None in found:
            return None
        return tuple(Span(min(s.first for s in axis), max(s.last for s in axis), axis[0].size)
                     for axis in zip(*found, strict=True))

    def _covered(self, name: str, first, last) -> tuple[Span, ...]:
        axes = zip(self.known[name], first, last, self.network.input_shape, strict=False)
        return tuple(Span(f.covers(int(a)).start, f.covers(int(b)).stop - 1, n) for f, a, b, n in axes)
