"""From a checked graph to a network and its parameters, node by node.

Each operator has a function in `operators` or `sliding`, which reads the graph's values and adds layers here.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import replace
from math import prod

import numpy as np

from ... import processors
from ...layers import Affine, BatchNorm, ChannelShuffle, Conv, Dense, Flatten
from ...layers.base import Layer, Shape
from ...network import INPUT, LONGEST_NAME, NAME, Network, Node
from . import folding
from .proto import MOST_AXES, Graph, array, check_shape, library, short, where
from .value import Impossible, Value, regrouped

MOST_CHANNELS = 2**26  # or features, of one value
MOST_MOVED = 2**22  # features that may be in another order
WEIGHT = ".weight"  # what the names of weights end in where a graph comes from PyTorch


class Importer:
    """A network in the making. `shape` is the input's, for graphs that leave height, width or channels open."""

    def __init__(self, graph: Graph, *, shape: Shape | None = None):
        self.graph, self.opset = graph, graph.opset
        self.nodes: dict[str, Node] = {}
        self.parameters: dict[str, np.ndarray] = {}
        self.values: dict[str, Value | np.ndarray] = {}
        self.names: set[str] = {INPUT}
        self.counts: Counter[str] = Counter()
        self.known_as: dict[str, list[str]] = defaultdict(list)  # the graph's names for what a node of ours makes
        self.shapes: dict[str, Shape] = {}  # what each node puts out
        self.bytes, self.folder = 0, folding.Folder()
        end = self._output()
        begin, value = self._input(end, shape)
        self._note(begin, value)
        for node in graph.order(end, {begin}):
            self._read(node)
        self.output = self._finished(end)
        self.network = Network(self.values[begin].shape, tuple(self.nodes.values()), self.output)

    # Where it begins and ends.

    def _output(self) -> str:
        names = [o.name for o in self.graph.proto.output]
        if len(names) > 1:
            raise ValueError(f"the graph puts out {len(names)} values ({', '.join(map(short, names[:5]))}); a network "
                             "has one: cut the others off")
        return names[0]

    def _input(self, end: str, shape: Shape | None) -> tuple[str, Value]:
        """The value that the network reads, which stands for images."""
        inputs = self.graph.inputs
        reached = {n for node in self.graph.order(end, set(inputs)) for n in node.input} | {end}
        read = [name for name in inputs if name in reached]
        if len(read) != 1:
            raise ValueError(f"the graph reads {len(read)} inputs ({', '.join(map(short, read[:5])) or 'none'}); a "
                             "network reads images and nothing else")
        info, (name,) = inputs[read[0]], read
        onnx = library()
        tensor = info.type.tensor_type
        if not info.type.HasField("tensor_type") or tensor.elem_type not in (
                onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE):
            raise ValueError(f"the input {short(name)} does not hold real numbers; a network reads those")
        dims = [d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim]
        if not 2 <= len(dims) <= 4:
            raise ValueError(f"the input {short(name)} has {len(dims)} axes; expected are images (N, C, H, W), signals "
                             "(N, C, L) or features (N, F)")
        batch = dims[0] or 1
        channels_last = self._read_channels_last(name)
        given = dims[1:] if channels_last else [*dims[2:], dims[1]]
        if shape is not None:
            if len(shape) != len(given) or any(n not in (None, m) for n, m in zip(given, shape, strict=True)):
                raise ValueError(f"the graph reads {tuple(n or 'any' for n in given)}, asked for was {tuple(shape)}")
            given = list(shape)
        if None in given:
            raise ValueError(f"the graph reads images of any size ({', '.join(str(n or 'any') for n in given)}); say "
                             "which: pellucid import has --input HxWxC for that")
        check_shape([batch, *given], f"the input {short(name)}")
        value = Value.of(INPUT, tuple(given), batch)
        if channels_last:
            value = value.transposed([0, *range(2, len(given) + 1), 1])
        return name, value

    def _read_channels_last(self, name: str) -> bool:
        """Whether the first thing done to the input is to move its last axis, then the channels, before the others."""
        readers = [n for n in self.graph.proto.node if name in n.input]
        moved = [list(a.ints) for n in readers if n.op_type == "Transpose" for a in n.attribute if a.name == "perm"]
        return bool(readers) and len(moved) == len(readers) and all(
            len(p) > 2 and p == [0, len(p) - 1, *range(1, len(p) - 1)] for p in moved)

    def _finished(self, end: str) -> str:
        value = self.values[end]
        if not isinstance(value, Value):
            raise ValueError(f"the output {short(end)} does not depend on the input")
        if value.axes[0] != "N" or value.order is not None or value.groups:
            raise ValueError(f"the output {short(end)} has its axes ({value.text}) in an order that a network's output "
                             "cannot have")
        if value.node == INPUT:
            raise ValueError("the graph does nothing to its input")
        return value.node

    # Reading.

    def _read(self, node) -> None:
        from .operators import OPERATORS

        try:
            inputs = [self.value(name) for name in node.input]
            if not any(isinstance(v, Value) for v in inputs):
                made = self.folder.fold(node, inputs)
            elif node.op_type == "Shape" and not node.domain:
                made = np.array(inputs[0].sizes, np.int64)[_part(node)]
            else:
                read = OPERATORS.get(node.op_type) if node.domain in ("", "ai.onnx") else None
                if read is None:
                    known = ", ".join(sorted(OPERATORS))
                    raise Impossible(f"this operator is not known; known are {known}")
                made = read(self, node, *inputs)
            if made is None:
                raise Impossible("this operator cannot compute a constant here")
            self._note(node.output[0], made)
        except ValueError as e:
            text = " ".join(str(e).split())[:400]
            raise ValueError(text if text.startswith(where(node)) else f"{where(node)}: {text}") from None
        except (TypeError, IndexError, KeyError, AttributeError, ArithmeticError) as e:
            # Wrong numbers of inputs, attributes left out or of other types: no list of them would be complete.
            said = " ".join(str(e).split())[:150]
            raise ValueError(f"{where(node)}: its inputs or attributes are not those of this operator ({said})") from e

    def _note(self, name: str, value: Value | np.ndarray) -> None:
        self.values[name] = value
        if isinstance(value, Value):
            if value.channels > MOST_CHANNELS or len(value.axes) > MOST_AXES:
                raise Impossible(f"a value with {value.channels:,} channels or features and {len(value.axes)} axes; at "
                                 f"most {MOST_CHANNELS:,} and {MOST_AXES} are read")
            self.known_as[value.node].append(name)

    def value(self, name: str) -> Value | np.ndarray | None:
        """What a name stands for; None for an optional input that is left out."""
        if not name:
            return None
        if name not in self.values:
            if name not in self.graph.constants:
                raise Impossible(f"the value {short(name)} is a second result, which no layer has")
            self.values[name] = array(self.graph.constants[name])
        return self.values[name]

    def alone(self, x: Value) -> bool:
        """Whether one node alone reads what a node of ours makes: then the node may be changed."""
        return all(self.graph.readers[name] == 1 for name in self.known_as[x.node])

    # Adding layers.

    def add(self, node, layer: Layer, *inputs: Value, parameters: dict[str, np.ndarray] | None = None,
            suffix: str = "") -> str:
        """A layer that reads values, with its parameters; returns its name."""
        name = self._name(node, layer, suffix)
        shapes = [v.shape for v in inputs]
        try:
            self.shapes[name] = layer.output_shape(*shapes)
            expected = layer.parameters(*shapes)
        except ValueError as e:
            raise Impossible(str(e)) from None
        given = parameters or {}
        for key, p in expected.items():
            if np.shape(given[key]) != p.shape:
                raise Impossible(f"its {key} has shape {np.shape(given[key])}, expected {p.shape}")
            self.parameters[f"{name}.{key}"] = given[key]
            self.bytes += 4 * p.size
        if self.bytes > processors.memory() / 2:
            raise Impossible(f"with it the parameters take {self.bytes:,} bytes, over half of this machine's memory")
        self.nodes[name] = Node(name, layer, tuple(v.node for v in inputs))
        return name

    def made(self, name: str, like: Value) -> Value:
        """What a layer that leaves its input's axes as they are puts out."""
        return Value(name, self.shapes[name], like.axes, like.batch, like.order, like.groups)

    def pointwise(self, node, layer: Layer, x: Value, **more) -> Value:
        """A layer that does the same at every place of a value."""
        return self.made(self.add(node, layer, x, **more), x)

    def _name(self, node, layer: Layer, suffix: str) -> str:
        """As its weight is called, if as PyTorch would; else as the graph's node; else by its kind."""
        weights = [n for n in node.input if n.endswith(WEIGHT)] if isinstance(layer, BatchNorm | Conv | Dense) else []
        for stem in (*(n.removesuffix(WEIGHT) for n in weights), node.name):
            name = re.sub(r"[^A-Za-z0-9_.]", "_", stem).strip("_.")
            name = re.sub(r"\.\.+", ".", name)[:LONGEST_NAME - 20]
            if NAME.fullmatch(name + suffix) and name + suffix not in self.names:
                self.names.add(name + suffix)
                return name + suffix
        while True:
            self.counts[layer.short] += 1
            name = f"{layer.short}{self.counts[layer.short]}"
            if name not in self.names:
                self.names.add(name)
                return name

    def affine(self, node, x: Value, scale, shift) -> Value:
        """`scale` x + `shift`, numbers or one a channel: by the layer before, if only this reads it, or a new one."""
        scale, shift = (np.broadcast_to(np.asarray(v, np.float32), (x.channels,)) for v in (scale, shift))
        before = self.nodes.get(x.node)
        if before and self.alone(x):
            kind = type(before.layer)
            if kind is Affine:
                for key, more in (("weight", 0), ("bias", shift)):
                    name = f"{x.node}.{key}"
                    self.parameters[name] = self.parameters[name] * scale + more
                return x
            if kind in (Dense, Conv) and not before.layer.bias and np.all(scale == 1):
                self.nodes[x.node] = Node(x.node, replace(before.layer, bias=True), before.inputs)
                self.parameters[f"{x.node}.bias"] = shift
                return x
        return self.pointwise(node, Affine(), x, parameters={"weight": scale, "bias": shift})

    def reshape(self, node, x: Value, sizes: tuple[int, ...]) -> Value:
        """A value whose axes become others of these sizes. Raises Impossible where no layer does that."""
        if tuple(sizes) == x.sizes:
            return x
        if len(sizes) > MOST_AXES:
            raise Impossible(f"{len(sizes)} axes; at most {MOST_AXES} are read")
        axes, flatten, shuffle, groups = ["N"], None, 0, 0
        whole = {"C", *x.spatial}
        for taken, made in regrouped(x, tuple(sizes)):
            labels = [a for a, _ in taken]
            if not taken:
                axes.append("1")
            elif len(labels) == len(made) == 1:
                axes += labels
                groups = groups or x.groups * (labels[0] in "GK")
            elif len(made) == 1 and set(labels) == whole:
                axes, flatten = [*axes, "C"], labels
            elif len(made) == 1 and sorted(labels) == ["G", "K"]:
                axes, shuffle = [*axes, "C"], x.groups * (labels == ["K", "G"])
            elif labels == ["C"] and len(made) == 2 and x.order is None:
                axes, groups = [*axes, "G", "K"], made[0]
            else:
                raise Impossible(f"{x.sizes} ({x.text}) becomes {tuple(sizes)}: it would need a layer that makes a map "
                                 "of features, or one place of several")
        if flatten:
            return self._flatten(node, x, flatten, axes)
        name = self.add(node, ChannelShuffle(shuffle), x) if shuffle > 1 else x.node
        return Value(name, x.shape, tuple(axes), x.batch, x.order, groups)

    def _flatten(self, node, x: Value, labels: list[str], axes: list[str]) -> Value:
        name, shape, order = self.add(node, Flatten(), x), (prod(x.shape),), None
        if labels != ["C", *x.spatial]:
            if shape[0] > MOST_MOVED:
                raise Impossible(f"{shape[0]:,} features in another order; at most {MOST_MOVED:,} are read")
            ours = ["C", *x.spatial]  # as Flatten orders them
            places = np.arange(shape[0]).reshape([x.size(a) for a in ours])
            order = tuple(places.transpose([ours.index(a) for a in labels]).ravel().tolist())
            order = None if order == tuple(range(shape[0])) else order
        return Value(name, shape, tuple(axes), x.batch, order)


def _part(node) -> slice:
    """What `Shape` takes of a shape: all, or what its attributes say."""
    given = {a.name: a.i for a in node.attribute}
    return slice(given.get("start", 0), given.get("end"))
