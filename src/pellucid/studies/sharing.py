"""Parameter sharing: a convolution is a product with a sparse matrix in which the same few weights stand again and
again; the dense layer that it replaces would fill that matrix."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from ..explain import taps
from ..geometry import Window, output_size
from ..layers import Conv
from ..model import Model
from ..ops import conv_matrix
from ..summary import by
from ..texts import number
from .layers import convolution, up_to
from .result import Study, checked, model_study, pictured, require_finite, times

if TYPE_CHECKING:
    from ..draw import Picture

MOST_CHECKED = 2**21  # numbers of the matrix that is multiplied out
MOST_DRAWN = 48  # rows and columns of the matrix that is drawn


@dataclass(frozen=True)
class Part:
    """Some rows of a layer's matrix: those of the first `filters` filters at the first `positions`, and the columns
    they need, the first `inputs` positions of the first `channels` channels."""

    positions: tuple[int, ...]
    filters: int
    inputs: tuple[int, ...]
    channels: int

    @property
    def rows(self) -> int:
        return prod(self.positions) * self.filters

    @property
    def columns(self) -> int:
        return prod(self.inputs) * self.channels


@dataclass(frozen=True, eq=False)
class Sharing(Study):
    """`weights`: shared weights of the layer; `rows` and `columns` of its matrix, `nonzero` of whose entries may differ
    from zero: those where a tap lies on the input and not on padding; `uses`: how many entries a weight has at least
    and at most. `checked`: the part that was multiplied with the layer's input, and `difference` from the layer's
    output, as a share of its largest value. Biases are in none of the counts but `biases`."""

    name, title = "sharing", "Parameter sharing"
    claim = ("A convolution is a dense layer in which most weights are zero and the others are a few numbers that "
             "return in every row.")

    layer: str
    kernel: str
    weights: int
    biases: int
    rows: int
    columns: int
    nonzero: int
    uses: tuple[int, int]
    checked: Part
    difference: float
    drawn: Part
    matrix: np.ndarray = pictured()
    owner: np.ndarray = pictured()  # which weight an entry is, from 0; -1 for none

    @property
    def dense(self) -> int:
        """Weights of the dense layer between the same inputs and outputs."""
        return self.rows * self.columns

    @property
    def sentence(self) -> str:
        least, most = self.uses
        stands = number(most, "time") if least == most else f"{least:,} to {most:,} times"
        whole = (self.checked.rows, self.checked.columns) == (self.rows, self.columns)
        part = "the matrix gives" if whole else f"{self.checked.rows:,} rows of the matrix give"
        return (f"{self.layer} ({self.kernel}) makes {self.rows:,} numbers of {self.columns:,} with {self.weights:,} "
                f"weights, each of which stands {stands} in the layer's matrix; {self.nonzero / self.dense:.2%} of the "
                f"matrix is not zero. The dense layer in its place has {self.dense:,} weights, "
                f"{times(self.dense / self.weights)} times as many. Multiplied with an image, {part} the layer's "
                f"output, to {self.difference:.1g} of its largest value. Drawn is one filter on one channel of the "
                f"input, at its first {by(self.drawn.positions)} positions.")

    def to_json(self) -> dict:
        return {**super().to_json(), "dense": self.dense}

    def figures(self) -> list[Picture]:
        from .. import draw

        counts = [("shared weights", self.weights), ("in the matrix, not zero", self.nonzero),
                  ("of the dense layer", self.dense)]
        return [draw.sparse_matrix(self.matrix, self.owner),
                draw.bars([name for name, _ in counts], [n for _, n in counts], title=f"Weights: {self.layer}")]


@model_study("sharing")
def sharing(model: Model, images: np.ndarray, layer: str | None = None) -> Sharing:
    """A convolution, by default the first, as its sparse matrix A: counted, drawn in part, and multiplied with the
    first image, A x + b against what the layer computes.

    The counts are of the whole matrix, from the geometry; large ones are multiplied out in part. Raises ValueError for
    images that do not fit and for a layer that is no convolution, DoesNotApply for a network without any.
    """
    images = checked(model, images)[:1]
    network, node = model.network, convolution(model.network, layer)
    shape, conv = network.shapes[node.inputs[0]], node.layer
    axes = conv.windows(shape)
    weight = np.float64(model.parameters[f"{node.name}.weight"])
    per_weight = [_uses(w, n) for w, n in zip(axes, shape[:-1], strict=True)]
    output = network.shapes[node.name]
    part = largest_part(conv, axes, shape, output, MOST_CHECKED)
    small = _drawn_part(conv, axes, shape, output)
    numbers = np.arange(1.0, 1 + weight.size).reshape(weight.shape)
    return Sharing(
        node.name, f"{len(weight)} filters of {conv.kernel_text(shape)}", weight.size,
        len(weight) if conv.bias else 0, prod(output), prod(shape),
        nonzero=prod(map(sum, per_weight)) * weight.shape[0] * weight.shape[1],
        uses=(prod(map(min, per_weight)), prod(map(max, per_weight))),
        checked=part, difference=_difference(model, images, node.name, part, axes, weight),
        drawn=small, matrix=matrix_of(weight, small, axes), owner=matrix_of(numbers, small, axes).astype(np.int64) - 1)


def matrix_of(weight: np.ndarray, part: Part, axes: tuple[Window, ...]) -> np.ndarray:
    """The rows and columns of the layer's matrix that a part has, float64 (rows, columns)."""
    padding = []
    for window, count, n in zip(axes, part.positions, part.inputs, strict=True):
        last = window.start(count - 1) + window.reach  # one past what the last position reads
        padding.append((window.before, max(last - n, 0)))
    matrix = conv_matrix(weight[:part.filters, :part.channels], part.inputs, stride=tuple(w.stride for w in axes),
                         padding=padding, dilation=tuple(w.dilation for w in axes))
    # There are more positions where all that the last one reads is padding, and an input is there all the same.
    found = output_size(part.inputs, [replace(w, before=before, after=after)
                                      for w, (before, after) in zip(axes, padding, strict=True)])
    by_position = matrix.reshape(*found, part.filters, part.columns)[tuple(map(slice, part.positions))]
    return by_position.reshape(part.rows, part.columns)


def largest_part(conv: Conv, axes, shape, output, most: int) -> Part:
    """The most filters, then the most positions, whose matrix has at most so many numbers; at least one of each.

    A filter of one of several groups reads that group's channels: then only the first group counts.
    """
    channels = shape[-1] // conv.groups
    part = Part((1,) * len(axes), 1, _inputs(axes, (1,) * len(axes), shape), channels)
    for filters in range(output[-1] // conv.groups, 1, -1):
        if (more := replace(part, filters=filters)).rows * more.columns <= most:
            part = more
            break
    for axis in reversed(range(len(axes))):
        for count in range(output[axis], 1, -1):
            positions = (*part.positions[:axis], count, *part.positions[axis + 1:])
            more = replace(part, positions=positions, inputs=_inputs(axes, positions, shape))
            if more.rows * more.columns <= most:
                part = more
                break
    return part


def _drawn_part(conv: Conv, axes, shape, output) -> Part:
    """One filter over one channel, at as many positions along each axis as can be drawn."""
    part = Part((1,) * len(axes), 1, _inputs(axes, (1,) * len(axes), shape), 1)
    for count in range(2, max(output[:-1]) + 1):
        positions = tuple(min(count, n) for n in output[:-1])
        more = replace(part, positions=positions, inputs=_inputs(axes, positions, shape))
        if max(more.rows, more.columns) > MOST_DRAWN:
            break
        part = more
    return part


def _inputs(axes, positions, shape) -> tuple[int, ...]:
    """Input positions that the first `positions` of an output read, padding left out; all of them for all."""
    return tuple(n if p == w.output_size(n) else min(max(w.start(p - 1) + w.reach, 1), n)
                 for w, p, n in zip(axes, positions, shape[:-1], strict=True))


def _uses(window: Window, n: int) -> list[int]:
    """For each tap of a window, at how many positions it lies on an axis of `n`."""
    sources = np.array([window.inputs(p) for p in range(window.output_size(n))])
    return ((0 <= sources) & (sources < n)).sum(axis=0).tolist()


def _difference(model: Model, images: np.ndarray, name: str, part: Part, axes, weight: np.ndarray) -> float:
    """The largest difference of A x + b from what the layer computes, as a share of the largest value."""
    source = model.network.node(name).inputs[0]
    read = taps.values(up_to(model, name), images, {source, name})
    require_finite(read[name], f"the values of {name}")
    x = np.float64(read[source][0][*map(slice, part.inputs), :part.channels])
    bias = model.parameters.get(f"{name}.bias", np.zeros(part.filters))[:part.filters]
    product = (matrix_of(weight, part, axes) @ x.ravel()).reshape(*part.positions, part.filters) + bias
    computed = read[name][0][*map(slice, part.positions), :part.filters]
    return float(np.abs(product - computed).max() / (np.abs(read[name]).max() or 1.0))
