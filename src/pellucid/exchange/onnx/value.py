"""A value while a graph is read: which of our nodes makes it, and how the graph's axes lie in it.

ONNX keeps maps as N, C, H, W and moves axes about; here a map is N, H, W, C. What only moves, adds or drops axes needs
no layer: it is noted in the value's `axes`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

import numpy as np

from ...layers.base import Shape

SPATIAL = {1: (), 2: ("L",), 3: ("H", "W")}  # by the number of axes of our shape
Group = list[tuple[str, int]]  # axes, each with its size, that become others


class Impossible(ValueError):
    """What would need a layer that there is not; the message says which."""


@dataclass(frozen=True)
class Value:
    """What node `node` makes, of `shape` without the batch.

    `axes` says what each of the graph's axes is: "N" images, "C" channels or features, "H", "W" or "L" places, "1" one
    of size 1 that our shape has not. `order` tells which of our features stands at each place of the graph's, None if
    they are in the same order. While channels are seen as two axes, `groups` is the number of groups, and the axes are
    "G", the group, and "K", the channel within it.
    """

    node: str
    shape: Shape
    axes: tuple[str, ...]
    batch: int = 1
    order: tuple[int, ...] | None = None
    groups: int = 0

    @classmethod
    def of(cls, node: str, shape: Shape, batch: int, ones: int = 0) -> Value:
        """A value as ONNX has it: channels before places; `ones` axes of size 1 after a vector's features."""
        return cls(node, tuple(shape), ("N", "C", *SPATIAL[len(shape)], *("1",) * ones), batch)

    @property
    def channels(self) -> int:
        return self.shape[-1]

    @property
    def spatial(self) -> tuple[str, ...]:
        return SPATIAL[len(self.shape)]

    def size(self, axis: str) -> int:
        if axis in self.spatial:
            return self.shape[self.spatial.index(axis)]
        of_channels = {"C": self.channels, "G": self.groups, "K": self.channels // max(self.groups, 1)}
        return {"N": self.batch, "1": 1, **of_channels}[axis]

    @property
    def sizes(self) -> tuple[int, ...]:
        """The graph's shape of it."""
        return tuple(map(self.size, self.axes))

    @property
    def is_usual(self) -> bool:
        """Whether channels come right after the images, then places in their order: what ONNX's layers read."""
        return tuple(a for a in self.axes if a != "1") == ("N", "C", *self.spatial) and self.axes[:2] == ("N", "C")

    def require_usual(self) -> Value:
        """Itself. Raises Impossible where axes were moved about: a layer would have to move them back."""
        if not self.is_usual:
            raise Impossible(f"it reads axes {self.text}, where images, channels and places are expected: it would "
                             "need a layer that moves axes")
        return self

    @property
    def text(self) -> str:
        return ", ".join(self.axes)

    def transposed(self, perm) -> Value:
        """With the graph's axes in another order."""
        perm = list(range(len(self.axes)))[::-1] if perm is None else [int(p) for p in perm]
        if sorted(perm) != list(range(len(self.axes))):
            raise Impossible(f"perm {perm} does not order {len(self.axes)} axes")
        return replace(self, axes=tuple(self.axes[p] for p in perm))

    def per_channel(self, constant: np.ndarray) -> np.ndarray:
        """A constant that the graph combines with this value, as one number for each of our channels, float32. Raises
        Impossible for one that differs between places or images."""
        constant = np.asarray(constant)
        if constant.ndim > len(self.axes):
            raise Impossible(f"a constant of shape {constant.shape} does not fit a value of shape {self.sizes}")
        aligned = constant.reshape((1,) * (len(self.axes) - constant.ndim) + constant.shape)
        if not {"G", "K"}.isdisjoint(self.axes):
            raise Impossible("arithmetic on channels that are split into groups would need a layer of its own")
        at = self.axes.index("C")
        others = [n for axis, n in enumerate(aligned.shape) if axis != at]
        if any(n != 1 for n in others) or aligned.shape[at] not in (1, self.channels):
            raise Impossible(f"a constant of shape {constant.shape} differs between places or images of a value of "
                             f"shape {self.sizes}; only one number for all or one a channel is an affine layer")
        given = np.broadcast_to(aligned.reshape(-1), (self.channels,)).astype(np.float32)
        if self.order is None:
            return given
        ours = np.empty_like(given)
        ours[list(self.order)] = given
        return ours


def regrouped(value: Value, sizes: tuple[int, ...]) -> list[tuple[Group, list[int]]]:
    """Which axes become which sizes when a value is reshaped: the axes cut where products agree, the batch left out."""
    if value.axes[0] != "N" or not sizes or sizes[0] != value.batch:
        raise Impossible(f"it would mix the images of a batch: {value.sizes} becomes {sizes}")
    ins = [(a, value.size(a)) for a in value.axes[1:] if a != "1"]
    outs = list(sizes[1:])
    groups: list[tuple[Group, list[int]]] = []
    while ins or outs:
        if outs and outs[0] == 1 and not (ins and ins[0][1] == 1):
            groups.append(([], [outs.pop(0)]))
        elif ins and not outs and groups and groups[-1][0] and ins[0][1] == 1:  # places of size 1 after all else
            groups[-1][0].append(ins.pop(0))
        else:
            taken, made = [], []
            while not taken or not made or prod(n for _, n in taken) != prod(made):
                less = not taken or made and prod(n for _, n in taken) < prod(made)
                source, target = (ins, taken) if less else (outs, made)
                if not source:
                    raise Impossible(f"{value.sizes} cannot become {sizes}")
                target.append(source.pop(0))
            groups.append((taken, made))
    return groups
