"""From a model to an ONNX graph: pixels in, calibrated probabilities out, and every layer an operator or a few.

Maps are N, C, H, W within the graph. A layer's parameters are constants named as the model names them; with the network
in the metadata they are what `pellucid.exchange.onnx.load` makes the model of again, without loss.
"""

from __future__ import annotations

import json
from math import prod

import numpy as np

from ... import __version__, reference, views
from ...geometry import Window, parts, per_axis
from ...layers import TakeChannels
from ...layers.activation import Softmax
from ...layers.base import Shape
from ...model import Model
from ...network import INPUT, Node
from . import resizing
from .proto import LARGEST_FILE, checksum, library

IMAGES, PROBABILITIES = "images", "probabilities"  # what the graph reads and puts out
BEGIN = "network/in"  # the value that the network's first layers read
OPSET = 17  # that of ONNX Runtime 1.12 (2022), unless an operator needs a newer one
ROOM = 2**24  # bytes left for everything but the parameters
IR_VERSION = {17: 8, 19: 9, 20: 9}  # of the format, by operator set


def to_proto(model: Model):
    """The graph of a model as an `onnx.ModelProto`.

    It reads `images`: uint8 (N, H, W, C) of any size where the model has preprocessing, else float32 as the network
    reads them; and puts out `probabilities` (N, classes), float32, calibrated. N is free. The metadata hold the
    class names (`classes`, a JSON list) and what else the model is (`pellucid`, JSON). Raises ValueError for a network
    that classifies nothing, has a layer without an ONNX form, or is too large for the format.
    """
    model.require_classes()
    if 4 * sum(p.size for p in model.network.parameters().values()) > LARGEST_FILE - ROOM:
        raise ValueError("the parameters take more than the 2 GiB that an ONNX file of one part can hold")
    onnx, w = library(), Writer(model)
    w.probabilities(w.layers(w.preprocess()))
    shape = model.network.input_shape
    kind = onnx.TensorProto.UINT8 if model.preprocessing else onnx.TensorProto.FLOAT
    if model.preprocessing and len(shape) == 3:
        shape = "H", "W", shape[2]
    graph = onnx.helper.make_graph(
        w.nodes, "pellucid", [onnx.helper.make_tensor_value_info(IMAGES, kind, ["N", *shape])],
        [onnx.helper.make_tensor_value_info(PROBABILITIES, onnx.TensorProto.FLOAT, ["N", len(model.classes)])],
        w.constants)
    proto = onnx.helper.make_model(
        graph, producer_name="pellucid", producer_version=__version__, ir_version=IR_VERSION[w.opset],
        opset_imports=[onnx.helper.make_opsetid("", w.opset)])
    onnx.helper.set_model_props(proto, {"classes": json.dumps(model.classes), "pellucid": json.dumps({
        "network": model.network.to_json(), "nodes": checksum(w.nodes), "record": model.record,
        "preprocessing": model.preprocessing and model.preprocessing.to_json(),
        "calibration": model.calibration and model.calibration.to_json(), "tta": model.tta,
    })})
    onnx.checker.check_model(proto)
    return proto


def resizing_alone(proto):
    """The part of `to_proto`'s graph that resizes, as a graph of its own; None where it has none."""
    onnx, nodes = library(), proto.graph.node
    ends = [i for i, node in enumerate(nodes) if resizing.PIXELS in node.output]
    if not ends:
        return None
    graph = onnx.helper.make_graph(
        nodes[:ends[0] + 1], "resizing", proto.graph.input,
        [onnx.helper.make_tensor_value_info(resizing.PIXELS, onnx.TensorProto.DOUBLE, None)],
        [tensor for tensor in proto.graph.initializer if tensor.name.startswith("resize/")])
    return onnx.helper.make_model(graph, ir_version=proto.ir_version, opset_imports=proto.opset_import)


class Writer:
    """The nodes and constants of a graph, as they are added."""

    def __init__(self, model: Model):
        self.model, self.network, self.parameters = model, model.network, model.parameters
        self.onnx, self.opset = library(), OPSET
        self.nodes, self.constants = [], []

    def add(self, operator: str, inputs: list[str], name: str, output: str | None = None, **attributes) -> str:
        """A node; returns the name of its value, which no parameter has: it ends in "/out"."""
        output = output or f"{name}/out"
        self.nodes.append(self.onnx.helper.make_node(operator, inputs, [output], name=name, **attributes))
        return output

    def constant(self, name: str, values, dtype=np.float32) -> str:
        array = np.ascontiguousarray(values, dtype)
        self.constants.append(self.onnx.numpy_helper.from_array(array.reshape(np.shape(values)), name))
        return name

    def parameter(self, node: Node, name: str) -> str:
        return self.constant(f"{node.name}.{name}", self.parameters[f"{node.name}.{name}"])

    def need(self, opset: int) -> None:
        self.opset = max(self.opset, opset)

    def preprocess(self) -> str:
        """From the images to what the network reads, channels before places."""
        x, rank = IMAGES, len(self.network.input_shape) + 1
        if p := self.model.preprocessing:
            if rank == 4:
                x = resizing.resize(self, x, p.input_shape[:2], p.fit)
            x = self.add("Cast", [x], "images/float", to=self.onnx.TensorProto.FLOAT)
            x = self.add("Mul", [x, self.constant("images/scale", p.scale)], "images/scaled")
            x = self.add("Add", [x, self.constant("images/shift", p.shift)], "images/shifted")
        if self.model.tta != views.NONE:
            x = self.as_views(x)
        if rank == 2:
            return self.add("Identity", [x], "network", BEGIN)
        return self.add("Transpose", [x], "network", BEGIN, perm=[0, rank - 1, *range(1, rank - 1)])

    def as_views(self, x: str) -> str:
        """The batch as often as there are views: at all places, then all these from right to left."""
        height, width = size = self.network.input_shape[:2]
        if by := views.border(self.model.tta, size):
            pads = self.constant("tta/pads", [0, by, by, 0] * 2, np.int64)
            padded, moved = self.add("Pad", [x, pads], "tta/padded", mode="reflect"), []
            axes = self.constant("tta/axes", [1, 2], np.int64)
            for i, (top, left, _) in enumerate(views.crops(self.model.tta, size)):
                ends = [self.constant(f"tta/{name}{i}", values, np.int64) for name, values in (
                    ("start", [top, left]), ("end", [top + height, left + width]))]
                moved.append(self.add("Slice", [padded, *ends, axes], f"tta/moved{i}"))
            x = self.add("Concat", moved, "tta/moved", axis=0)
        start, end, axis, step = (self.constant(f"tta/{name}", [value], np.int64) for name, value in (
            ("start", -1), ("end", -2**31), ("axis", 2), ("step", -1)))
        return self.add("Concat", [x, self.add("Slice", [x, start, end, axis, step], "tta/mirrored")], "tta/both",
                        axis=0)

    def layers(self, begin: str) -> str:
        """All layers; returns the name of the network's output."""
        values = {INPUT: begin}
        for node in self.network.nodes:
            write = FORMS.get(type(node.layer).__name__)
            if write is None:
                raise ValueError(f"layer {node.name!r} ({type(node.layer).__name__}) has no ONNX form here")
            values[node.name] = write(self, node, self.network.input_shapes(node)[0],
                                      *(values[i] for i in node.inputs))
        return values[self.network.output]

    def probabilities(self, scores: str) -> None:
        """From the network's output to the graph's."""
        ends_in_softmax = isinstance(self.network.node(self.network.output).layer, Softmax)
        calibration = self.model.calibration
        if ends_in_softmax and not calibration and self.model.tta == views.NONE:
            self.add("Identity", [scores], PROBABILITIES, PROBABILITIES)
            return
        if ends_in_softmax:
            scores = self.add("Log", [scores], "calibration/log")
        if self.model.tta != views.NONE:
            crops = views.crops(self.model.tta, self.network.input_shape[:2])
            weights = np.array([weight / 2 for _, _, weight in crops] * 2)[:, None, None]
            form = self.constant("tta/form", [len(weights), -1, len(self.model.classes)], np.int64)
            first = self.constant("tta/first", [0], np.int64)
            scores = self.add("Reshape", [scores, form], "tta/views")
            scores = self.add("Mul", [scores, self.constant("tta/weights", weights)], "tta/weighted")
            scores = self.add("ReduceSum", [scores, first], "tta/mean", keepdims=0)
        if calibration:
            temperature = self.constant("calibration/temperature", np.float32(calibration.temperature))
            scores = self.add("Div", [scores, temperature], "calibration/scores")
        self.add("Softmax", [scores], PROBABILITIES, PROBABILITIES, axis=1)


# How each kind of layer is written: (writer, node, shape of its first input, names of its inputs) -> its value's name.


def simple(operator: str, *fields: tuple[str, str, type], **constants):
    """A layer that is an operator; `fields` are the layer's name for a setting, the operator's, and the type there."""
    def write(w: Writer, node: Node, shape: Shape, *inputs: str) -> str:
        settings = {theirs: kind(getattr(node.layer, ours)) for ours, theirs, kind in fields}
        return w.add(operator, list(inputs), node.name, **settings, **constants)

    return write


def _sliding(axes: tuple[Window, ...]) -> dict:
    return {"kernel_shape": [a.size for a in axes], "strides": [a.stride for a in axes],
            "dilations": [a.dilation for a in axes],
            "pads": [a.before for a in axes] + [a.after for a in axes]}


def _conv(w: Writer, node: Node, shape: Shape, x: str) -> str:
    inputs = [x, w.parameter(node, "weight"), *([w.parameter(node, "bias")] if node.layer.bias else [])]
    return w.add("Conv", inputs, node.name, group=node.layer.groups, **_sliding(node.layer.windows(shape)))


def _pool(operator: str):
    def write(w: Writer, node: Node, shape: Shape, x: str) -> str:
        axes, settings = node.layer.windows(shape), _sliding(node.layer.windows(shape))
        mean, wide = operator == "AveragePool", any(max(a.before, a.after) >= a.size for a in axes)
        if wide:  # ONNX Runtime pads a pooling itself by less than the number of its taps
            sides = [(a.before, a.after) for a in axes]
            x = _padded(w, x, sides, f"{node.name}/padded", 0 if mean else -np.inf)
            settings["pads"] = [0] * 2 * len(axes)
        if mean:
            settings["count_include_pad"] = int(wide or node.layer.count_include_pad)
            if any(a.dilation > 1 for a in axes):
                w.need(19)
            else:
                del settings["dilations"]
        x = w.add(operator, [x], node.name, **settings)
        if mean and wide and not node.layer.count_include_pad:
            options = {**node.layer.options, "count_include_pad": True}
            seen = reference.avg_pool(np.ones((1, *shape[:-1], 1)), node.layer.size, **options)  # a part of each window
            x = w.add("Div", [x, w.constant(f"{node.name}/seen", np.moveaxis(seen, -1, 1))], f"{node.name}/mean")
        return x

    return write


def _global_pool(operator: str):
    def write(w: Writer, node: Node, shape: Shape, x: str) -> str:
        return w.add("Flatten", [w.add(operator, [x], node.name)], f"{node.name}/flat", axis=1)

    return write


def _batch_norm(w: Writer, node: Node, shape: Shape, x: str) -> str:
    names = [w.parameter(node, name) for name in ("weight", "bias", "running_mean", "running_var")]
    return w.add("BatchNormalization", [x, *names], node.name, epsilon=node.layer.eps)


def _dense(w: Writer, node: Node, shape: Shape, x: str) -> str:
    inputs = [x, w.parameter(node, "weight"), *([w.parameter(node, "bias")] if node.layer.bias else [])]
    return w.add("Gemm", inputs, node.name, transB=1)


def _affine(w: Writer, node: Node, shape: Shape, x: str) -> str:
    form = (-1, *(1,) * (len(shape) - 1))  # channels come before places
    for operator, name, value in (("Mul", "weight", node.name), ("Add", "bias", f"{node.name}/shift")):
        array = w.parameters[f"{node.name}.{name}"].reshape(form)
        x = w.add(operator, [x, w.constant(f"{node.name}.{name}", array)], value)
    return x


def _clip(w: Writer, node: Node, shape: Shape, x: str) -> str:
    bounds = [v if v is None else w.constant(f"{node.name}/{name}", np.float32(v))
              for name, v in (("low", node.layer.low), ("high", node.layer.high))]
    return w.add("Clip", [x, *(b or "" for b in bounds)], node.name)


def _lrn(w: Writer, node: Node, shape: Shape, x: str) -> str:
    """ONNX Runtime has it for images alone: others get axes for its sake."""
    layer = node.layer
    settings = {"size": layer.size, "alpha": float(layer.alpha), "beta": float(layer.beta), "bias": float(layer.k)}
    if len(shape) == 3:
        return w.add("LRN", [x], node.name, **settings)
    axes = w.constant(f"{node.name}/axes", range(len(shape) + 1, 4), np.int64)
    x = w.add("Unsqueeze", [x, axes], f"{node.name}/image")
    return w.add("Squeeze", [w.add("LRN", [x], node.name, **settings), axes], f"{node.name}/back")


def _silu(w: Writer, node: Node, shape: Shape, x: str) -> str:
    return w.add("Mul", [x, w.add("Sigmoid", [x], node.name)], f"{node.name}/product")


def _gelu(w: Writer, node: Node, shape: Shape, x: str) -> str:
    w.need(20)
    return w.add("Gelu", [x], node.name)


def _sum(w: Writer, node: Node, shape: Shape, *inputs: str) -> str:
    return w.add("Add" if len(inputs) == 2 else "Sum", list(inputs), node.name)


def _pad(w: Writer, node: Node, shape: Shape, x: str) -> str:
    return _padded(w, x, node.layer.sides(shape), node.name, 0)


def _padded(w: Writer, x: str, sides, name: str, value: float) -> str:
    before, after = zip(*sides, strict=True)
    places = w.constant(f"{name}/sides", [0, 0, *before, 0, 0, *after], np.int64)
    return w.add("Pad", [x, places, w.constant(f"{name}/value", np.float32(value))], name)


def _shuffle(w: Writer, node: Node, shape: Shape, x: str) -> str:
    groups, (*places, channels) = node.layer.groups, shape
    split = w.constant(f"{node.name}/split", [0, groups, channels // groups, *places], np.int64)
    whole = w.constant(f"{node.name}/whole", [0, channels, *places], np.int64)
    x = w.add("Reshape", [x, split], f"{node.name}/groups")
    x = w.add("Transpose", [x], f"{node.name}/turned", perm=[0, 2, 1, *range(3, 3 + len(places))])
    return w.add("Reshape", [x, whole], node.name)


def _adaptive(w: Writer, node: Node, shape: Shape, x: str) -> str:
    sizes = per_axis(node.layer.size, len(shape) - 1, "size")
    if sizes == shape[:-1]:
        return x
    if not any(n % size for n, size in zip(shape, sizes, strict=False)):
        steps = [n // size for n, size in zip(shape, sizes, strict=False)]
        return w.add("AveragePool", [x], node.name, kernel_shape=steps, strides=steps)
    # Parts that differ in size: each axis by a matrix, the last one from the right, the one before it from the left.
    for axis, (n, size) in reversed(list(enumerate(zip(shape[:-1], sizes, strict=True)))):
        means = np.zeros((size, n))
        for row, part in zip(means, parts(n, size), strict=True):
            row[part.start:part.stop] = 1 / len(part)
        last = axis == len(sizes) - 1
        matrix = w.constant(f"{node.name}/axis{axis}", means.T if last else means)
        x = w.add("MatMul", [x, matrix] if last else [matrix, x], f"{node.name}/{axis}")
    return x


def _channels(w: Writer, node: Node, shape: Shape, x: str) -> str:
    """Channels taken or added, as a product with zeros and ones: what imports it needs no operator of its own."""
    layer, channels = node.layer, shape[-1]
    order = list(layer.order) if isinstance(layer, TakeChannels) else list(range(channels))
    count = node.layer.output_shape(shape)[-1]
    matrix = np.zeros((count, channels))
    matrix[np.arange(len(order)), order] = 1
    if len(shape) == 1:
        return w.add("Gemm", [x, w.constant(f"{node.name}/taken", matrix)], node.name, transB=1)
    ones = (1,) * (len(shape) - 1)
    return w.add("Conv", [x, w.constant(f"{node.name}/taken", matrix.reshape(count, channels, *ones))], node.name)


def _scaled_tanh(w: Writer, node: Node, shape: Shape, x: str) -> str:
    slope = w.constant(f"{node.name}/slope", np.float32(node.layer.slope))
    amplitude = w.constant(f"{node.name}/amplitude", np.float32(node.layer.amplitude))
    x = w.add("Tanh", [w.add("Mul", [x, slope], f"{node.name}/scaled")], f"{node.name}/tanh")
    return w.add("Mul", [x, amplitude], node.name)


def _flatten(w: Writer, node: Node, shape: Shape, x: str) -> str:
    return w.add("Flatten", [x], node.name, axis=1) if prod(shape[:-1]) != 1 or len(shape) > 1 else x


FORMS = {
    "AdaptiveAvgPool": _adaptive, "Add": _sum, "Affine": _affine, "AvgPool": _pool("AveragePool"),
    "BatchNorm": _batch_norm,
    "ChannelShuffle": _shuffle, "Clip": _clip, "Concat": simple("Concat", axis=1), "Conv": _conv, "Dense": _dense,
    "Dropout": lambda w, node, shape, x: x,  # nothing at inference
    "Flatten": _flatten, "GELU": _gelu, "GlobalAvgPool": _global_pool("GlobalAveragePool"),
    "GlobalMaxPool": _global_pool("GlobalMaxPool"),
    "LRN": _lrn,
    "LeakyReLU": simple("LeakyRelu", ("slope", "alpha", float)), "MaxPool": _pool("MaxPool"), "Pad": _pad,
    "PadChannels": _channels, "ReLU": simple("Relu"), "ScaledTanh": _scaled_tanh, "SiLU": _silu,
    "Sigmoid": simple("Sigmoid"), "Softmax": simple("Softmax", axis=1), "TakeChannels": _channels,
    "Tanh": simple("Tanh"),
}
