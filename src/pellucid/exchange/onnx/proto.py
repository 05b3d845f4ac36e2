"""An .onnx file as a checked graph: what stands in it is counted and compared before any memory is taken for it.

The format (https://onnx.ai/onnx/repo-docs/IR.html) is a protobuf message, read by the `onnx` package. Nothing in a file
is executed, and no other file is opened: weights kept outside of it are refused.
"""

from __future__ import annotations

import json
import os
import zlib
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from math import prod
from types import ModuleType

import numpy as np

from ...files import open_file
from ...modelfile import ModelFileError
from ...network import LARGEST, LONGEST_NAME, MOST_NODES

LARGEST_FILE = 2**31 - 1  # bytes of one protobuf message
MOST_ONNX_NODES = 10 * MOST_NODES  # of which many only compute shapes
MOST_AXES = 16
FLOATS = ("FLOAT", "FLOAT16", "DOUBLE")
INTEGERS = ("INT64", "INT32", "UINT8", "INT8", "BOOL")


def library(name: str = "onnx") -> ModuleType:
    """The module `onnx` or `onnxruntime`. Raises ImportError that says how to install it."""
    try:
        return import_module(name)
    except ImportError:
        raise ImportError(f"ONNX files need the package {name}: pip install 'pellucid[onnx]'") from None


@dataclass(frozen=True)
class Graph:
    """A model's graph by names. `constants` are its initialisers as they lie in the file."""

    proto: object
    opset: int
    metadata: dict[str, str]

    @cached_property
    def constants(self) -> dict[str, object]:
        return {t.name: t for t in self.proto.initializer}

    @cached_property
    def inputs(self) -> dict[str, object]:
        """What the graph reads. Older files list their initialisers among it."""
        return {i.name: i for i in self.proto.input if i.name not in self.constants}

    @cached_property
    def makers(self) -> dict[str, object]:
        """The node behind each value."""
        return {name: node for node in self.proto.node for name in node.output if name}

    @cached_property
    def readers(self) -> Counter:
        """How often each value is read; to be put out counts too."""
        read = Counter(name for node in self.proto.node for name in node.input if name)
        read.update(o.name for o in self.proto.output)
        return read

    def order(self, output: str, inputs: set[str]) -> list:
        """The nodes on the way from the inputs to a value, each after those it reads. Raises ValueError for cycles and
        for values that nothing makes."""
        ordered, state, stack = [], {}, [output]
        while stack:
            name = stack[-1]
            node = self.makers.get(name)
            if name in inputs or name in self.constants or name == "":
                stack.pop()
            elif node is None:
                raise ValueError(f"nothing makes the value {short(name)}, which the graph reads: it is incomplete")
            elif state.get(id(node)) == "done":
                stack.pop()
            elif state.get(id(node)) == "open" and all(
                    n in inputs or n in self.constants or n == "" or state.get(id(self.makers.get(n))) == "done"
                    for n in node.input):
                state[id(node)] = "done"
                ordered.append(node)
                stack.pop()
            elif state.get(id(node)) == "open":
                raise ValueError(f"the graph has a cycle through {where(node)}; a network must not have one")
            else:
                state[id(node)] = "open"
                stack += [n for n in node.input if state.get(id(self.makers.get(n))) != "done"]
        # As the file has them, where it is sorted, as it should be.
        done = {id(node) for node in ordered}
        as_filed = list({id(node): node for node in self.makers.values() if id(node) in done}.values())
        seen = {*inputs, *self.constants, ""}
        for node in as_filed:
            if not seen.issuperset(node.input):
                return ordered
            seen.update(node.output)
        return as_filed


def read(path: str | os.PathLike) -> Graph:
    """The graph of a file. Raises OSError for a file that cannot be read, ModelFileError, in one line, for what is no
    complete ONNX model."""
    onnx = library()
    with open_file(path) as (file, size):
        if size > LARGEST_FILE:
            raise ModelFileError(f"{path}: of {size:,} bytes; an .onnx file has at most {LARGEST_FILE:,}")
        data = file.read()
    try:
        model = onnx.load_model_from_string(data)
    except Exception:  # protobuf's own kinds, which depend on its version
        raise ModelFileError(f"{path}: not an ONNX model, or damaged; export it again") from None
    try:
        return checked(model)
    except ValueError as e:
        raise ModelFileError(f"{path}: {e}") from None


def checked(model) -> Graph:
    """The graph of a model. Raises ValueError, in one line, for what is no complete, self-contained one."""
    opsets = {o.domain: o.version for o in model.opset_import}
    opset = opsets.get("", opsets.get("ai.onnx"))
    graph = model.graph
    if opset is None or not graph.node or not graph.output:
        raise ValueError("not an ONNX model: it has no nodes, no output or no operator set; export it again")
    if len(graph.node) > MOST_ONNX_NODES:
        raise ValueError(f"the graph has {len(graph.node):,} nodes, more than the {MOST_ONNX_NODES:,} that are read")
    if len(graph.sparse_initializer):
        raise ValueError("the graph has sparse initialisers; save it with dense ones")
    made = Counter(name for node in graph.node for name in node.output if name)
    made.update(t.name for t in graph.initializer)
    if twice := [name for name, count in made.items() if count > 1]:
        raise ValueError(f"the value {short(twice[0])} is made twice; a name stands for one value")
    for tensor in graph.initializer:
        check_tensor(tensor)
    return Graph(graph, opset, {p.key: p.value for p in model.metadata_props})


def check_tensor(tensor) -> None:
    """Raise ValueError unless a tensor lies in the file, is of a type that is read, and has the bytes that its shape
    asks for."""
    onnx = library()
    what = f"the initialiser {short(tensor.name)}"
    if tensor.data_location == onnx.TensorProto.EXTERNAL or len(tensor.external_data):
        raise ValueError(f"{what} is kept in another file, which is not read; save the model as one file")
    kind = onnx.TensorProto.DataType.Name(tensor.data_type) \
        if tensor.data_type in onnx.TensorProto.DataType.values() else str(tensor.data_type)
    if kind not in FLOATS + INTEGERS:
        raise ValueError(f"{what} is of the type {kind}; {', '.join(FLOATS + INTEGERS)} are read")
    shape = check_shape(tensor.dims, what)
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    fields = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data")
    given = len(tensor.raw_data) // dtype.itemsize if tensor.HasField("raw_data") else max(
        len(getattr(tensor, field)) for field in fields)
    odd = tensor.HasField("raw_data") and len(tensor.raw_data) % dtype.itemsize
    if given != prod(shape) or odd:
        raise ValueError(f"{what} of shape {shape} has {prod(shape):,} numbers, the file holds {given:,} of them")


def check_shape(dims, what: str) -> tuple[int, ...]:
    """Dimensions as a tuple. Raises ValueError for absurd ones."""
    shape = tuple(int(n) for n in dims)
    if len(shape) > MOST_AXES or min(shape, default=0) < 0 or prod(shape) > LARGEST:
        raise ValueError(f"{what} has the impossible shape {str(shape)[:100]}; at most {LARGEST:,} numbers are read")
    return shape


def checksum(nodes) -> str:
    """CRC-32 over nodes, all but their names, by which it is seen whether a graph was changed."""
    described = [[n.domain, n.op_type, list(n.input), list(n.output),
                  sorted(a.SerializeToString(deterministic=True).hex() for a in n.attribute)] for n in nodes]
    return f"crc32:{zlib.crc32(json.dumps(described).encode()):08x}"


def array(tensor) -> np.ndarray:
    """The numbers of a tensor. Raises ValueError as `check_tensor` does."""
    check_tensor(tensor)
    return library().numpy_helper.to_array(tensor)


def attributes(node) -> dict:
    """A node's attributes by name; texts as str, tensors as arrays."""
    onnx = library()
    found = {}
    for a in node.attribute:
        if a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS):
            raise ValueError(f"{where(node)} holds a graph of its own; loops and branches are no layers")
        value = array(a.t) if a.type == onnx.AttributeProto.TENSOR else onnx.helper.get_attribute_value(a)
        if isinstance(value, float):
            value = float(str(np.float32(value)))  # 1e-05, not what float32 makes of it in float64
        found[a.name] = value.decode(errors="replace") if isinstance(value, bytes) else value
    return found


def where(node) -> str:
    """How errors call a node: its operator, and its name, or else its first output's."""
    return f"{node.domain + '.' if node.domain else ''}{node.op_type} {short(node.name or next(iter(node.output), ''))}"


def short(name: str) -> str:
    """A name in an error: quoted, on one line, never long."""
    return repr(name[:LONGEST_NAME // 2])
