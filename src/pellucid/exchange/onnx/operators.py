"""ONNX's operators (https://onnx.ai/onnx/operators/) as layers; those that are not in `OPERATORS` are refused by name.

A function reads (importer, node, its inputs...) and returns the value that the node stands for. Inputs are `Value`s,
which depend on the images, or arrays, which do not, or None. It raises Impossible for what no layer here does.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np

from ...layers import (
    GELU,
    LRN,
    Add,
    Affine,
    BatchNorm,
    Clip,
    Concat,
    Dense,
    LeakyReLU,
    ReLU,
    Sigmoid,
    SiLU,
    Softmax,
    Tanh,
)
from ...network import Node
from . import sliding
from .proto import FLOATS, MOST_AXES, attributes, library
from .value import Impossible, Value


def pointwise(layer):
    """An operator of one value that is a layer; `layer(attributes)` makes it."""
    return lambda importer, node, x: importer.pointwise(node, layer(attributes(node)), x)


def same(importer, node, x: Value, *_) -> Value:
    """Operators that change nothing here: precision is float32 throughout, and dropout does nothing at inference."""
    return x


def cast(importer, node, x: Value) -> Value:
    kind = library().TensorProto.DataType.Name(attributes(node)["to"])
    if kind not in FLOATS:
        raise Impossible(f"a cast to {kind}, which cuts numbers, would need a layer of its own")
    return x


def dropout(importer, node, x: Value, ratio=None, training=None) -> Value:
    if training is not None and np.any(training) and (ratio is None or np.any(ratio)):
        raise Impossible("it drops values at inference too (training_mode)")
    return x


def batch_norm(importer, node, x: Value, *constants) -> Value:
    given = attributes(node)
    if given.get("training_mode") or any(isinstance(c, Value) for c in constants) or given.get("spatial", 1) != 1:
        raise Impossible("it normalises by the batch, or each place alone; at inference a layer has fixed statistics "
                         "of channels")
    names = "weight", "bias", "running_mean", "running_var"
    parameters = {name: np.asarray(c, np.float32) for name, c in zip(names, constants, strict=True)}
    x.require_usual()
    return importer.pointwise(node, BatchNorm(eps=float(given.get("epsilon", 1e-5))), x, parameters=parameters)


def gemm(importer, node, a: Value, b, c=None) -> Value:
    given = attributes(node)
    if given.get("transA") or not isinstance(a, Value):
        raise Impossible("a product that adds up over the images")
    weight, alpha = _weight(b, given.get("transB")), given.get("alpha", 1.0)
    weight = weight if alpha == 1 else weight * np.float32(alpha)
    bias = None
    if c is not None:
        if isinstance(c, Value) or prod(np.shape(c)[:-1]) != 1 or np.shape(c)[-1:] not in ((), (1,), weight.shape[:1]):
            raise Impossible("its C is not one number for each output")
        bias = np.broadcast_to(np.asarray(c, np.float32).reshape(-1), weight.shape[:1])
        bias = bias * np.float32(given.get("beta", 1.0))
    return _dense(importer, node, a, weight, bias)


def matmul(importer, node, a, b) -> Value:
    if not isinstance(a, Value):
        raise Impossible("a product with the images on the right")
    return _dense(importer, node, a, _weight(b, False), None)


def _weight(b, transposed) -> np.ndarray:
    """A matrix as PyTorch has it: (outputs, features)."""
    if isinstance(b, Value) or np.ndim(b) != 2:
        raise Impossible("a product of two values that depend on the input, or with more than a matrix")
    weight = np.asarray(b, np.float32)
    return weight if transposed else weight.T


def _dense(importer, node, x: Value, weight: np.ndarray, bias: np.ndarray | None) -> Value:
    if x.axes != ("N", "C"):
        raise Impossible(f"a matrix product along the axes {x.text}; a dense layer reads images and features")
    if x.order is not None:  # the graph's features are ours in another order
        moved = np.empty_like(weight)
        moved[:, list(x.order)] = weight
        weight = moved
    parameters = {"weight": weight} if bias is None else {"weight": weight, "bias": bias}
    name = importer.add(node, Dense(len(weight), bias=bias is not None), x, parameters=parameters)
    return Value.of(name, (len(weight),), x.batch)


def add(importer, node, *inputs) -> Value:
    values, constants = _parted(inputs)
    if len(values) > 1:
        if len({(v.axes, v.shape, v.order, v.groups) for v in values}) > 1:
            raise Impossible("a sum of values of different shapes or orders: "
                             + " and ".join(str(v.sizes) for v in values[:4]))
        total = importer.made(importer.add(node, Add(), *values), values[0])
    else:
        total = values[0]
    for constant in constants:
        total = importer.affine(node, total, 1, total.per_channel(constant))
    return total


def subtract(importer, node, a, b) -> Value:
    if isinstance(a, Value) and isinstance(b, Value):
        raise Impossible("a difference of two values that depend on the input")
    if isinstance(a, Value):
        return importer.affine(node, a, 1, -a.per_channel(b))
    return importer.affine(node, b, -1, b.per_channel(a))


def multiply(importer, node, a, b) -> Value:
    values, constants = _parted((a, b))
    if not constants:
        return _gated(importer, a, b) or _gated(importer, b, a) or _product()
    return importer.affine(node, values[0], values[0].per_channel(constants[0]), 0)


def _gated(importer, x: Value, gate: Value) -> Value | None:
    """x sigmoid(x), as exporters write SiLU, if that is what it is and nobody else reads the sigmoid."""
    node = importer.nodes.get(gate.node)
    if not node or not isinstance(node.layer, Sigmoid) or node.inputs != (x.node,) or x.axes != gate.axes \
            or not importer.alone(gate):
        return None
    importer.nodes[gate.node] = Node(node.name, SiLU(), node.inputs)
    return gate


def _product():
    raise Impossible("a product of two values that depend on the input (gates) would need a layer of its own")


def divide(importer, node, a, b) -> Value:
    if isinstance(b, Value):
        raise Impossible("a quotient by a value that depends on the input")
    with np.errstate(divide="ignore"):
        factor = 1 / a.per_channel(b).astype(np.float64)
    if not np.isfinite(factor).all():
        raise Impossible("a division by zero")
    return importer.affine(node, a, factor.astype(np.float32), 0)


def _parted(inputs) -> tuple[list[Value], list[np.ndarray]]:
    given = [v for v in inputs if v is not None]
    return [v for v in given if isinstance(v, Value)], [v for v in given if not isinstance(v, Value)]


def clip(importer, node, x: Value, low=None, high=None) -> Value:
    given = attributes(node)
    if isinstance(low, Value) or isinstance(high, Value):
        raise Impossible("its bounds depend on the input")
    bounds = [given.get(name) if v is None else v for name, v in (("min", low), ("max", high))]
    bounds = [None if v is None or abs(float(np.ravel(v)[0])) >= 3e38 else float(np.ravel(v)[0]) for v in bounds]
    return x if bounds == [None, None] else importer.pointwise(node, Clip(*bounds), x)


def hard_sigmoid(importer, node, x: Value) -> Value:
    """max(0, min(1, alpha x + beta)), as two layers."""
    given = attributes(node)
    ones = np.ones(x.channels, np.float32)
    alpha, beta = (np.float32(given.get(name, default)) for name, default in (("alpha", 0.2), ("beta", 0.5)))
    parameters = {"weight": ones * alpha, "bias": ones * beta}
    x = importer.pointwise(node, Affine(), x, parameters=parameters, suffix="_affine")
    return importer.pointwise(node, Clip(0.0, 1.0), x)


def prelu(importer, node, x: Value, slope) -> Value:
    """max(x, 0) - slope max(-x, 0), with a slope for each channel: as layers that there are."""
    if isinstance(slope, Value):
        raise Impossible("its slope depends on the input")
    slopes = x.per_channel(slope)
    if np.all(slopes == slopes[0]):
        return importer.pointwise(node, LeakyReLU(float(slopes[0])), x)
    positive = importer.pointwise(node, ReLU(), x, suffix="_positive")
    zeros, negative = np.zeros_like(slopes), x
    for layer, weight, suffix in ((Affine(), zeros - 1, "_turned"), (ReLU(), None, "_negative"),
                                  (Affine(), -slopes, "_scaled")):
        parameters = None if weight is None else {"weight": weight, "bias": zeros}
        negative = importer.pointwise(node, layer, negative, parameters=parameters, suffix=suffix)
    return importer.made(importer.add(node, Add(), positive, negative), x)


def gelu(importer, node, x: Value) -> Value:
    if attributes(node).get("approximate", "none") != "none":
        raise Impossible("GELU by its tanh approximation; the layer here is the exact one")
    return importer.pointwise(node, GELU(), x)


def lrn(importer, node, x: Value) -> Value:
    given = attributes(node)
    x.require_usual()
    return importer.pointwise(node, LRN(int(given["size"]), *(
        float(given.get(name, default)) for name, default in (("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0)))), x)


def softmax(importer, node, x: Value) -> Value:
    old = importer.opset < 13  # then it is over all axes from `axis` on
    axis = int(attributes(node).get("axis", 1 if old else -1)) % len(x.axes)
    over = x.axes[axis:] if old else x.axes[axis:axis + 1]
    if [a for a in over if x.size(a) > 1] not in (["C"], []) or "C" not in over:
        raise Impossible(f"a softmax over the axes {', '.join(over)}; the layer here is over channels at each place")
    return importer.pointwise(node, Softmax(), x)


def concat(importer, node, *inputs) -> Value:
    values, constants = _parted(inputs)
    if constants:
        raise Impossible("putting constants beside a value would need a layer of its own")
    if len(values) == 1:
        return values[0]
    axis = int(attributes(node).get("axis", 1))
    alike = len({(v.axes, v.shape[:-1], v.batch) for v in values}) == 1 and all(v.order is None for v in values)
    if not -len(values[0].axes) <= axis < len(values[0].axes) or not alike or values[0].axes[axis] != "C":
        raise Impossible(f"putting values of shapes {', '.join(str(v.sizes) for v in values[:4])} side by side along "
                         f"axis {axis}; the layer here puts channels side by side")
    name = importer.add(node, Concat(), *values)
    return replace(values[0], node=name, shape=(*values[0].shape[:-1], sum(v.channels for v in values)))


# What only moves axes.


def reshape(importer, node, x: Value, shape=None) -> Value:
    given = attributes(node)
    shape = given.get("shape") if shape is None else shape
    if isinstance(shape, Value) or shape is None:
        raise Impossible("its shape depends on the input's values")
    sizes = [x.sizes[i] if n == 0 and not given.get("allowzero") and i < len(x.sizes) else int(n)
             for i, n in enumerate(np.ravel(shape))]
    if sizes.count(-1) == 1:
        known = -prod(sizes)
        sizes[sizes.index(-1)] = prod(x.sizes) // known if known > 0 else 0
    return importer.reshape(node, x, tuple(sizes))


def flatten(importer, node, x: Value) -> Value:
    axis = int(attributes(node).get("axis", 1))
    axis += len(x.sizes) * (axis < 0)
    return importer.reshape(node, x, (prod(x.sizes[:axis]), prod(x.sizes[axis:])))


def squeeze(importer, node, x: Value, axes=None) -> Value:
    axes = attributes(node).get("axes") if axes is None else axes
    gone = [i for i, n in enumerate(x.sizes) if n == 1 and i] if axes is None else [int(a) % len(x.sizes)
                                                                                 for a in np.ravel(axes)]
    if any(x.sizes[a] != 1 for a in gone):
        raise Impossible(f"axes {gone} of {x.sizes} are not all of size 1")
    return importer.reshape(node, x, tuple(n for i, n in enumerate(x.sizes) if i not in gone))


def unsqueeze(importer, node, x: Value, axes=None) -> Value:
    axes = attributes(node).get("axes") if axes is None else axes
    rank = len(x.sizes) + np.size(axes)
    if rank > MOST_AXES:
        raise Impossible(f"{rank} axes; at most {MOST_AXES} are read")
    new, old = {int(a) % rank for a in np.ravel(axes)}, iter(x.axes)
    if 0 in new:
        raise Impossible("an axis before the images'")
    return replace(x, axes=tuple("1" if i in new else next(old) for i in range(rank)))


def transpose(importer, node, x: Value) -> Value:
    return x.transposed(attributes(node).get("perm"))


OPERATORS = {
    "Add": add, "AveragePool": sliding.avg_pool, "BatchNormalization": batch_norm, "Cast": cast, "Clip": clip,
    "Concat": concat, "Conv": sliding.conv, "Div": divide, "Dropout": dropout, "Flatten": flatten, "Gelu": gelu,
    "Gemm": gemm, "HardSigmoid": hard_sigmoid, "Identity": same, "LRN": lrn,
    "LeakyRelu": pointwise(lambda given: LeakyReLU(float(given.get("alpha", 0.01)))), "MatMul": matmul,
    "MaxPool": sliding.max_pool, "Mul": multiply, "PRelu": prelu, "Pad": sliding.pad,
    "Relu": pointwise(lambda _: ReLU()), "Reshape": reshape, "Sigmoid": pointwise(lambda _: Sigmoid()),
    "Softmax": softmax, "Squeeze": squeeze, "Sub": subtract, "Sum": add, "Tanh": pointwise(lambda _: Tanh()),
    "Transpose": transpose, "Unsqueeze": unsqueeze, **sliding.GLOBAL,
}
