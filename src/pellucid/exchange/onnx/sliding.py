"""Operators whose windows slide: convolution and pooling, with ONNX's ways to pad."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ...geometry import Window, windows
from ...layers import AvgPool, Conv, Dense, GlobalAvgPool, GlobalMaxPool, MaxPool, Pad
from .proto import attributes
from .value import Impossible, Value


def conv(importer, node, x: Value, weight, bias=None) -> Value:
    given = attributes(node)
    x.require_usual()
    weight, bias = _constant("weight", weight), None if bias is None else _constant("bias", bias)
    if weight.ndim != len(x.axes):
        raise Impossible(f"its weight has shape {weight.shape}, its input {x.sizes}; they need as many axes")
    size = given.get("kernel_shape", list(weight.shape[2:]))
    if list(size) != list(weight.shape[2:]):
        raise Impossible(f"kernel_shape {list(size)} is not that of its weight {weight.shape}")
    parameters = {"weight": weight} if bias is None else {"weight": weight, "bias": bias}
    groups = int(given.get("group", 1))
    if not x.spatial:  # a vector seen as a map of one place
        if any(n != 1 for n in size) or any(given.get("pads", [0])) or groups != 1:
            raise Impossible("a convolution of a vector that is more than a dense layer")
        layer = Dense(weight.shape[0], bias=bias is not None)
        parameters["weight"] = weight.reshape(weight.shape[:2])
    else:
        axes = _windows(x, size, given)
        layer = Conv(weight.shape[0], *_fields(axes), groups=groups, bias=bias is not None)
    name = importer.add(node, layer, x, parameters=parameters)
    return importer.made(name, x)


def max_pool(importer, node, x: Value) -> Value:
    given = attributes(node)
    axes = _pool_windows(x, given)
    # Padding never wins a maximum, so that rounding up is padding at the end.
    axes = [w.rounded_up(n) if given.get("ceil_mode") else w for w, n in zip(axes, x.shape, strict=False)]
    return importer.made(importer.add(node, MaxPool(*_pool_fields(axes)), x), x)


def avg_pool(importer, node, x: Value) -> Value:
    given = attributes(node)
    axes, counted = _pool_windows(x, given), bool(given.get("count_include_pad", 0))
    if given.get("ceil_mode"):
        longer = [w.rounded_up(n) for w, n in zip(axes, x.shape, strict=False)]
        if counted and longer != axes and any(w.before or w.after for w in axes):
            # What is padded counts, what is beyond the padding does not: the padding becomes part of the map.
            sides = tuple((w.before, w.after) for w in axes)
            x = importer.made(importer.add(node, Pad(sides), x, suffix="_pad"), x)
            longer = [replace(w, before=0, after=w.after - after) for w, (_, after) in zip(longer, sides, strict=True)]
        counted = counted and longer == axes
        axes = longer
    counted = counted or not any(w.before or w.after for w in axes)  # without padding it is all one
    return importer.made(importer.add(node, AvgPool(*_pool_fields(axes), count_include_pad=counted), x), x)


def global_pool(kind: type):
    def read(importer, node, x: Value) -> Value:
        x.require_usual()
        if not x.spatial:
            return x  # a map of one place
        ones = len(x.spatial)
        return Value.of(importer.add(node, kind(), x), (x.channels,), x.batch, ones)

    return read


def pad(importer, node, x: Value, pads=None, value=None, axes=None) -> Value:
    given = attributes(node)
    mode, rank = given.get("mode", "constant"), len(x.axes)
    value = given.get("value", 0) if value is None else value
    pads = given.get("pads", given.get("paddings")) if pads is None else _constant("pads", pads, float)
    if mode != "constant" or np.any(np.asarray(value) != 0):
        raise Impossible(f"padding by {mode if mode != 'constant' else 'another number'}, not by zeros, would need a "
                         "layer of its own")
    places = range(rank) if axes is None else [int(a) % rank for a in np.ravel(axes)]
    pairs = [(x.axes[a], (int(pads[i]), int(pads[i + len(places)]))) for i, a in enumerate(places)]
    if any(p for axis, pair in pairs if axis not in x.spatial for p in pair):  # of which several may be called "1"
        raise Impossible("padding images, channels or what has one place would need a layer of its own")
    sides = dict(pairs)
    if min((p for pair in sides.values() for p in pair), default=0) < 0:
        raise Impossible("negative padding, which cuts a map, would need a layer of its own")
    wanted = tuple(sides.get(axis, (0, 0)) for axis in x.spatial)
    return importer.pointwise(node, Pad(wanted), x) if any(map(any, wanted)) else x


def _constant(name: str, value, kind=np.float32) -> np.ndarray:
    """A parameter's numbers. Raises Impossible for what a graph computes from its input."""
    if isinstance(value, Value):
        raise Impossible(f"its {name} depends on the graph's input; a layer's are constants")
    return value if kind is float else np.asarray(value, kind)


def _windows(x: Value, size, given: dict) -> list[Window]:
    """A window along each axis of places. Raises Impossible, or ValueError for numbers that no window has."""
    rank = len(x.spatial)
    size, strides, dilations = (
        [int(n) for n in values] for values in
        (size, given.get("strides", [1] * rank), given.get("dilations", [1] * rank)))
    pads = [int(p) for p in given.get("pads", [0] * 2 * rank)]
    mode = given.get("auto_pad", "NOTSET")
    if len(x.axes) != rank + 2 or not len(size) == len(strides) == len(dilations) == len(pads) // 2 == rank:
        raise Impossible(f"a window of {len(size)} axes on a value of {len(x.axes)}; signals have 1 and images 2")
    places = x.shape[:-1]
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        same = windows(places, size, strides, "same", dilations)
        return [replace(w, before=w.after, after=w.before) for w in same] if mode == "SAME_LOWER" else list(same)
    if mode not in ("NOTSET", "VALID"):
        raise Impossible(f"auto_pad {mode} is not known")
    if mode == "VALID":
        pads = [0] * 2 * rank
    return list(windows(places, size, strides, tuple(zip(pads[:rank], pads[rank:], strict=True)), dilations))


def _pool_windows(x: Value, given: dict) -> list[Window]:
    x.require_usual()
    if not x.spatial:
        raise Impossible("pooling of a vector")
    if "kernel_shape" not in given:
        raise Impossible("it has no kernel_shape")
    return _windows(x, given["kernel_shape"], given)


def _fields(axes: list[Window]) -> tuple:
    """size, stride, padding and dilation as layers hold them: one number where all axes agree."""
    def plain(values: list):
        return values[0] if len(set(values)) == 1 else tuple(values)

    sides = [w.before if w.before == w.after else (w.before, w.after) for w in axes]
    padding = plain(sides) if all(isinstance(s, int) for s in sides) else tuple((w.before, w.after) for w in axes)
    return (plain([w.size for w in axes]), plain([w.stride for w in axes]), padding,
            plain([w.dilation for w in axes]))


_pool_fields = _fields
GLOBAL = {"GlobalAveragePool": global_pool(GlobalAvgPool), "GlobalMaxPool": global_pool(GlobalMaxPool)}
