"""A network is a value: a graph of named layers. Everything here follows from shapes alone; no array exists yet.

Nodes are listed so that each comes after those it reads. `input` is the name of the network's input. Names may be
nested by dots (`layer1.0.conv1`), and a parameter is called by its node's name and its own: `layer1.0.conv1.weight`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence as Ordered
from dataclasses import dataclass
from functools import cached_property
from math import isfinite, prod
from types import MappingProxyType

from . import layers as _layers  # noqa: F401  (importing it fills the registry that from_json asks)
from .blocks import INPUT, Concat, Part, Residual, Sequential, lay_out
from .geometry import ReceptiveField
from .layers.base import LONGEST_LIST, Layer, Parameter, Shape
from .layers.base import from_json as layer_from_json

__all__ = ["INPUT", "Concat", "Network", "Node", "Residual", "Sequential", "brief", "checked_shape"]

LARGEST = 2**31  # elements in one layer's output or one parameter
MOST_NODES = 10_000
LONGEST_NAME = 200
NAME = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*")

Field = tuple[ReceptiveField, ...] | None  # one an axis of the network's input; None: all of it


@dataclass(frozen=True)
class Node:
    """A layer with a name, and the names of the nodes it reads."""

    name: str
    layer: Layer
    inputs: tuple[str, ...] = (INPUT,)

    def __post_init__(self):
        if isinstance(self.inputs, list):
            object.__setattr__(self, "inputs", tuple(self.inputs))


@dataclass(frozen=True)
class Network:
    """A directed acyclic graph of layers, checked when it is made.

    `input_shape` is that of one image: (H, W, C), (L, C) or (features,). `output` names the node whose value is
    the network's; by default the last one. Raises ValueError, naming the layer, for anything that does not fit.
    """

    input_shape: Shape
    nodes: tuple[Node, ...]
    output: str = ""

    def __post_init__(self):
        if not isinstance(self.nodes, Ordered) or not all(isinstance(n, Node) for n in self.nodes):
            raise ValueError(f"a network needs a list of Nodes (see Network.build for layers), got {self.nodes!r:.200}")
        object.__setattr__(self, "input_shape", checked_shape(self.input_shape, "the network's input"))
        object.__setattr__(self, "nodes", tuple(self.nodes))
        if not self.nodes:
            raise ValueError("a network needs at least one layer, got none")
        if len(self.nodes) > MOST_NODES:
            raise ValueError(f"a network may have at most {MOST_NODES:,} layers, got {len(self.nodes):,}")
        object.__setattr__(self, "output", self.output or self.nodes[-1].name)
        _check_graph(self.nodes, self.output)
        _ = self.shapes  # checks them all

    def __reduce__(self):
        return Network, (self.input_shape, self.nodes, self.output)  # derived values are not copied or pickled

    @classmethod
    def build(cls, input_shape: Shape, body: Part) -> Network:
        """The network that a layer or a block (`Sequential`, `Residual`, `Concat`) describes."""
        nodes, output = lay_out(body)
        return cls(input_shape, tuple(Node(*n) for n in nodes), output)

    # What follows from shapes.

    @cached_property
    def shapes(self) -> MappingProxyType[str, Shape]:
        """Output shape of each node, without the batch; "input" included."""
        shapes = {INPUT: self.input_shape}
        for node in self.nodes:
            shapes[node.name] = _checked_output(node, [shapes[i] for i in node.inputs], self.input_shape)
        return MappingProxyType(shapes)

    def node(self, name: str) -> Node:
        """The node of that name. Raises ValueError if there is none."""
        try:
            return self._by_name[name]
        except (KeyError, TypeError):
            raise ValueError(f"no layer is called {name!r}; there are {_some(self._by_name)}") from None

    @cached_property
    def _by_name(self) -> dict[str, Node]:
        return {n.name: n for n in self.nodes}

    def input_shapes(self, node: Node) -> list[Shape]:
        """Shapes of what a node reads."""
        return [self.shapes[i] for i in node.inputs]

    @property
    def output_shape(self) -> Shape:
        return self.shapes[self.output]

    def parameters(self) -> dict[str, Parameter]:
        """Every parameter, running statistics included, as "node.parameter", in the order of the nodes."""
        return {
            f"{node.name}.{name}": parameter
            for node in self.nodes
            for name, parameter in node.layer.parameters(*self.input_shapes(node)).items()
        }

    @property
    def parameter_counts(self) -> dict[str, int]:
        """Trainable parameters of each node."""
        return {
            n.name: sum(p.size for p in n.layer.parameters(*self.input_shapes(n)).values() if p.trainable)
            for n in self.nodes
        }

    @property
    def parameter_count(self) -> int:
        """Trainable parameters in all."""
        return sum(self.parameter_counts.values())

    @property
    def macs(self) -> dict[str, int]:
        """Multiply-adds of each node for one image, forward."""
        return {n.name: n.layer.macs(*self.input_shapes(n)) for n in self.nodes}

    @property
    def activation_bytes(self) -> dict[str, int]:
        """Bytes of each node's output for one image, in float32."""
        return {n.name: 4 * prod(self.shapes[n.name]) for n in self.nodes}

    @property
    def receptive_fields(self) -> dict[str, Field]:
        """What one position of each node sees of the network's input: a field an axis, or None for all of it.

        Where branches of different stride meet, the field is the smallest of constant size that covers them at
        every position.
        """
        fields: dict[str, Field] = {INPUT: tuple(ReceptiveField() for _ in self.input_shape[:-1])}
        for node in self.nodes:
            shape = self.shapes[node.inputs[0]]
            field = _meet([fields[i] for i in node.inputs], shape[:-1])
            windows = node.layer.windows(shape)
            if field is None or windows is None or len(windows) != len(field):
                fields[node.name] = None
            else:
                fields[node.name] = tuple(f.through(w) for f, w in zip(field, windows, strict=True))
        return fields

    def summary(self) -> str:
        """A table of the layers: output, kernel, parameters, multiply-adds, receptive field, memory; with totals."""
        from .summary import summary

        return summary(self)

    # As data.

    def to_json(self) -> dict:
        """The network as dicts, lists, strings and numbers; `Network.from_json` reads it back."""
        return {
            "input_shape": list(self.input_shape),
            "nodes": [
                {
                    "name": n.name,
                    "kind": type(n.layer).__name__,
                    "inputs": list(n.inputs),
                    "fields": {k: _listed(v) for k, v in n.layer.to_json().items()},
                }
                for n in self.nodes
            ],
            "output": self.output,
        }

    @classmethod
    def from_json(cls, data: dict) -> Network:
        """The network that `to_json` wrote. Raises ValueError, and nothing else, for data that is not one."""
        _require_keys(data, ("input_shape", "nodes", "output"), "a network")
        if not isinstance(data["nodes"], list) or not 0 < len(data["nodes"]) <= MOST_NODES:
            raise ValueError(f"nodes must be a list of 1 to {MOST_NODES:,} layers, got {brief(data['nodes'])}")
        if not isinstance(data["input_shape"], list):
            raise ValueError(f"input_shape must be a list of integers, got {brief(data['input_shape'])}")
        _check_name(data["output"], "the output's name")
        return cls(data["input_shape"], [_node_from_json(n) for n in data["nodes"]], data["output"])


def checked_shape(shape: Ordered[int], what: str) -> Shape:
    """`shape` as a tuple. Raises ValueError unless it is one to three positive integers of a sensible product."""
    if not isinstance(shape, Ordered) or isinstance(shape, str | bytes) or not 1 <= len(shape) <= 3:
        raise ValueError(f"{what} must have shape (H, W, C), (L, C) or (features,), got {brief(shape)}")
    if not all(isinstance(n, int) and not isinstance(n, bool) and 1 <= n <= LARGEST for n in shape):
        raise ValueError(f"{what} must have a shape of positive integers, got {brief(shape)}")
    if prod(shape) > LARGEST:
        raise ValueError(f"{what} would have {prod(shape):,} elements; at most {LARGEST:,} are possible")
    return tuple(shape)


# Checks of the graph.


def _check_graph(nodes: tuple[Node, ...], output: str) -> None:
    """Raise ValueError unless names, layers and inputs make an acyclic graph in which every node is used."""
    names = set()
    for node in nodes:
        _check_name(node.name, "the name of a layer")
        if node.name == INPUT:
            raise ValueError(f"layer {INPUT!r}: this name is reserved for the network's input; choose another")
        if node.name in names:
            raise ValueError(f"layer {node.name!r}: two layers have this name; give one of them another")
        names.add(node.name)
    defined = {INPUT}
    for node in nodes:
        where = _where(node)
        if not isinstance(node.layer, Layer):
            raise ValueError(f"layer {node.name!r}: expected a layer such as ReLU(), got {brief(node.layer)}")
        if not isinstance(node.inputs, tuple) or not all(isinstance(i, str) for i in node.inputs):
            raise ValueError(f"{where}: inputs must be a tuple of names, got {brief(node.inputs)}")
        for i in node.inputs:
            if i == node.name:
                raise ValueError(f"{where} reads its own output; a network must not have cycles")
            if i in names and i not in defined:
                raise ValueError(f"{where} reads {i!r}, which comes after it; list layers after those they read, "
                                 "without cycles")
            if i not in defined:
                raise ValueError(f"{where} reads {i[:LONGEST_NAME]!r}, which does not exist; "
                                 f"before it there are {_some(defined)}")
        expected, got = node.layer.inputs, len(node.inputs)
        if expected is None and got < 2:
            raise ValueError(f"{where} takes two or more inputs, got {got}; Residual and Concat provide them")
        if expected is not None and got != expected:
            raise ValueError(f"{where} takes {expected} input{'s' * (expected != 1)}, got {got}")
        defined.add(node.name)
    if not isinstance(output, str) or output not in names:
        raise ValueError(f"the output must be the name of a layer, got {output!r}; there are {_some(names)}")
    read = {output}
    for node in reversed(nodes):
        if node.name not in read:
            raise ValueError(f"{_where(node)}: nothing reads its output on the way to {output!r}, the network's "
                             "output; connect it or leave it out")
        read.update(node.inputs)


def _checked_output(node: Node, shapes: list[Shape], input_shape: Shape) -> Shape:
    """The output shape of a node. Raises ValueError if its inputs do not fit or its output is empty or absurd."""
    where = _where(node, shapes)
    received = " and ".join(map(str, shapes[:4])) + " and more" * (len(shapes) > 4)
    try:
        shape = node.layer.output_shape(*shapes)
        if min(shape) > 0:
            parameters = node.layer.parameters(*shapes)
    except (ValueError, TypeError, ArithmeticError) as e:
        raise ValueError(f"{where}: {e} (its input is {received}, the network's {input_shape})") from e
    if min(shape) <= 0:
        raise ValueError(f"{where}: its output {shape} would be empty: its input {received} is too small for it. "
                         f"Use a larger input than {input_shape}, more padding or fewer layers that shrink")
    for what, dimensions in (("its output", shape), *((k, p.shape) for k, p in parameters.items())):
        if prod(dimensions) > LARGEST:
            raise ValueError(f"{where}: {what} would have {prod(dimensions):,} elements; at most {LARGEST:,} "
                             "are possible")
    return shape


def _check_name(name, what: str) -> None:
    if not isinstance(name, str) or len(name) > LONGEST_NAME or not NAME.fullmatch(name):
        raise ValueError(f"{what} must be letters, digits and underscores, parts joined by single dots, at most "
                         f"{LONGEST_NAME} characters, got {brief(name)}")


def _where(node: Node, shapes: Ordered[Shape] = ()) -> str:
    """How errors call a node: layer 'conv1' (Conv 3x3), with its hyperparameters where the shapes allow."""
    if not isinstance(node.layer, Layer):
        return f"layer {node.name!r}"
    try:
        text = node.layer.kernel_text(*shapes)
    except (TypeError, ValueError, ArithmeticError):  # what the layer is about to be refused for
        text = ""
    return f"layer {node.name!r} ({' '.join(filter(None, (type(node.layer).__name__, text[:40])))})"


def _some(names) -> str:
    """A few of many names, for errors."""
    names = list(names) if isinstance(names, dict) else sorted(names)
    return ", ".join(names[:8]) + (f" and {len(names) - 8:,} more" if len(names) > 8 else "")


# Receptive fields.


def _meet(fields: list[Field], positions: Shape) -> Field:
    """The field of a node that reads several at the same position, `positions` of them along each axis."""
    if any(f is None for f in fields) or len({len(f) for f in fields}) != 1 or len(fields[0]) != len(positions):
        return None
    return tuple(_cover(list(axis), n) for axis, n in zip(zip(*fields, strict=True), positions, strict=True))


def _cover(fields: list[ReceptiveField], positions: int) -> ReceptiveField:
    """The smallest field that covers all of them at every position from 0 to `positions` - 1.

    Ends move linearly with the position, so the first and the last decide. With equal strides this is the union.
    """
    candidates = []
    for stride in sorted({f.stride for f in fields}):
        ends = [
            (f.covers(o).start - o * stride, f.covers(o).stop - o * stride) for f in fields for o in (0, positions - 1)
        ]
        first = min(start for start, _ in ends)
        candidates.append(ReceptiveField(max(stop for _, stop in ends) - first, stride, first))
    return min(candidates, key=lambda f: f.size)


# JSON.


def _node_from_json(data) -> Node:
    _require_keys(data, ("name", "kind", "inputs", "fields"), "a layer")
    name, inputs, fields = data["name"], data["inputs"], data["fields"]
    _check_name(name, "the name of a layer")
    if not isinstance(inputs, list) or not all(isinstance(i, str) for i in inputs):
        raise ValueError(f"layer {name!r}: inputs must be a list of names, got {brief(inputs)}")
    if not isinstance(fields, dict):
        raise ValueError(f"layer {name!r}: fields must be an object, got {brief(fields)}")
    for key, value in fields.items():
        if not isinstance(key, str) or not _plain(value):
            raise ValueError(f"layer {name!r}: field {brief(key)} has the impossible value {brief(value)}")
    try:
        return Node(name, layer_from_json(data["kind"], fields), tuple(inputs))
    except ValueError as e:
        raise ValueError(f"layer {name!r}: {e}") from e


def _require_keys(data, keys: tuple[str, ...], what: str) -> None:
    if not isinstance(data, dict) or set(data) != set(keys):
        got = ", ".join(sorted(brief(k) for k in data)[:12]) if isinstance(data, dict) else brief(data)
        raise ValueError(f"{what} must be an object with exactly the keys {', '.join(keys)}, got {got}")


def _plain(value, depth: int = 2) -> bool:
    """Whether a value can be a layer's field: a short string, a moderate number, or a short list of such."""
    if isinstance(value, list):
        return depth > 0 and len(value) <= LONGEST_LIST and all(_plain(v, depth - 1) for v in value)
    if isinstance(value, str):
        return len(value) <= LONGEST_NAME
    if isinstance(value, float):
        return isfinite(value)
    return value is None or isinstance(value, int) and abs(value) <= LARGEST


def _listed(value):
    """Tuples as JSON's lists."""
    return [_listed(v) for v in value] if isinstance(value, tuple | list) else value


def brief(value) -> str:
    """A value in an error, however large it is."""
    if isinstance(value, list | dict) and len(value) > 8:
        return f"{'a list' if isinstance(value, list) else 'an object'} of {len(value):,}"
    if isinstance(value, int) and abs(value) > 10**30:
        return "an enormous integer"
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer or a nesting too long to print
        return f"an unprintable {type(value).__name__}"
    return text if len(text) <= 100 else text[:97] + "..."
