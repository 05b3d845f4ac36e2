"""What a graph computes from constants alone: shapes for Reshape, sliced weights, scales of fused layers.

Exporters leave such arithmetic in a graph; it is done once, when the graph is read.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np

from .proto import attributes, check_shape, library, where

MOST_FOLDED = 2**30  # bytes that the folded nodes of a graph read or make together


class Folder:
    """The folding of one graph: what it reads and makes is counted before it is computed."""

    def __init__(self):
        self.bytes = 0

    def fold(self, node, inputs: list[np.ndarray | None]) -> np.ndarray | None:
        """The value of a node whose inputs are all constants; None for an operator that is not folded. Raises
        ValueError for what is absurdly large, and whatever numpy does for what cannot be computed."""
        function = FOLDED.get(node.op_type)
        if function is None or node.domain not in ("", "ai.onnx"):
            return None
        given = attributes(node)
        self.bytes += _numbers(node.op_type, given, inputs) * _width(given, inputs)
        if self.bytes > MOST_FOLDED:
            raise ValueError(f"{where(node)} and the constants before it take {self.bytes:,} bytes to compute; at most "
                             f"{MOST_FOLDED:,} are folded")
        with np.errstate(all="ignore"):
            return np.asarray(function(given, *inputs))


def _width(given: dict, inputs: list[np.ndarray | None]) -> int:
    """The most bytes that one of them takes."""
    return max((x.itemsize if x.dtype.kind == "f" and "to" not in given else 8 for x in inputs if x is not None),
               default=8)


def _numbers(operator: str, given: dict, inputs: list[np.ndarray | None]) -> int:
    """How many numbers folding reads or makes, other than by looking at the same ones in another way."""
    if operator in _VIEWS:
        return 0
    if operator in _BROADCAST:
        return prod(np.broadcast_shapes(*(x.shape for x in inputs)))
    if operator == "Gather":
        x, indices = inputs
        return max(x.size, indices.size * x.size // max(x.shape[given.get("axis", 0)], 1))
    return sum(x.size for x in inputs if x is not None)


def _filled(given: dict, shape: np.ndarray) -> np.ndarray:
    """One number at every place, which takes no memory until it is written to."""
    value = np.asarray(given.get("value", np.zeros(1, np.float32))).reshape(-1)
    return np.broadcast_to(value[0], check_shape(shape.ravel(), "what ConstantOfShape makes"))


def _axes(given: dict, axes) -> tuple[int, ...]:
    axes = given.get("axes") if axes is None else axes
    return None if axes is None else tuple(int(a) for a in np.ravel(axes))


def _unsqueeze(given, x, axes=None):
    return np.expand_dims(x, _axes(given, axes))


def _squeeze(given, x, axes=None):
    return np.squeeze(x, _axes(given, axes))


def _reshape(given, x, shape):
    sizes = [x.shape[i] if n == 0 and not given.get("allowzero") else int(n) for i, n in enumerate(shape)]
    return x.reshape(sizes)


def _slice(given, x, starts=None, ends=None, axes=None, steps=None):
    starts, ends = (given.get(name) if v is None else v for name, v in (("starts", starts), ("ends", ends)))
    axes = _axes(given, axes) or range(len(starts))
    steps = np.ones(len(starts), np.int64) if steps is None else steps
    index = [slice(None)] * x.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        # A negative step that goes past the first element has no end in Python's notation.
        end = None if step < 0 and end < -x.shape[axis] else int(end)
        index[axis] = slice(int(start), end, int(step))
    return x[tuple(index)]


def _cast(given, x):
    return x.astype(library().helper.tensor_dtype_to_np_dtype(given["to"]))


def _divide(given, a, b):
    return a / b if a.dtype.kind == "f" else a // b


def _constant(given):
    for name in ("value", "value_float", "value_floats", "value_int", "value_ints"):
        if name in given:
            return np.asarray(given[name], {"value_float": np.float32, "value_floats": np.float32}.get(name))
    raise ValueError("it holds neither numbers nor a tensor")


FOLDED: dict[str, Callable] = {
    "Add": lambda _, a, b: a + b,
    "Cast": _cast,
    "Concat": lambda given, *xs: np.concatenate(xs, given["axis"]),
    "Constant": _constant,
    "ConstantOfShape": _filled,
    "Div": _divide,
    "Gather": lambda given, x, i: np.take(x, i, given.get("axis", 0)),
    "Identity": lambda _, x: x,
    "Mul": lambda _, a, b: a * b,
    "Neg": lambda _, x: -x,
    "Reshape": _reshape,
    "Slice": _slice,
    "Sqrt": lambda _, x: np.sqrt(x),
    "Squeeze": _squeeze,
    "Sub": lambda _, a, b: a - b,
    "Transpose": lambda given, x: np.transpose(x, given.get("perm")),
    "Unsqueeze": _unsqueeze,
}
_BROADCAST = ("Add", "Div", "Mul", "Sub")
_VIEWS = ("Identity", "Slice", "Squeeze", "Transpose", "Unsqueeze")
