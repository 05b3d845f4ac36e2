"""ONNX files that are hostile, damaged or beyond what networks here can do: one line each, and nothing is allocated."""

from __future__ import annotations

import os
import tracemalloc

import numpy as np
import onnx
import pytest

from pellucid import exchange
from pellucid.exchange.onnx.proto import checked
from pellucid.modelfile import ModelFileError

helper, FLOAT = onnx.helper, onnx.TensorProto.FLOAT


def model(nodes, weights=(), shape=("N", 3, 8, 8), outputs=("y",), opset=17, kind=FLOAT):
    """A model of (operator, inputs, outputs, attributes); `weights` are tensors or (name, array)."""
    made = [helper.make_node(op, list(i), list(o), name=f"{op.lower()}_{n}", **a)
            for n, (op, i, o, a) in enumerate(nodes)]
    tensors = [w if isinstance(w, onnx.TensorProto) else onnx.numpy_helper.from_array(np.asarray(w[1]), w[0])
               for w in weights]
    graph = helper.make_graph(made, "g", [helper.make_tensor_value_info("x", kind, shape)],
                              [helper.make_tensor_value_info(o, FLOAT, None) for o in outputs], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def node(op, *inputs, out="y", **attributes):
    return op, inputs, (out,), attributes


def tensor(name, dims, raw=b"", kind=FLOAT, **fields):
    made = onnx.TensorProto(name=name, dims=dims, data_type=kind, raw_data=raw)
    for key, value in fields.items():
        getattr(made, key).extend(value) if isinstance(value, list) else setattr(made, key, value)
    return made


WEIGHT = ("w", np.ones((4, 3, 3, 3), np.float32))
ALONE = ["N", 3, 8, 8]
CONV = node("Conv", "x", "w")

REFUSED = {
    "operator": (model([node("Einsum", "x", equation="nchw->n")]), "Einsum 'einsum_0': this operator is not known"),
    "domain": (model([("Fancy", ("x",), ("y",), {"domain": "ai.example"})]), "ai.example.Fancy"),
    "cycle": (model([node("Add", "x", "b", out="a"), node("Relu", "a", out="b"), node("Relu", "b")]), "has a cycle"),
    "own output": (model([node("Add", "x", "y")]), "has a cycle"),
    "nothing makes it": (model([node("Relu", "nowhere")]), "nothing makes the value 'nowhere'"),
    "made twice": (model([node("Relu", "x"), node("Tanh", "x")]), "'y' is made twice"),
    "two outputs": (model([node("Relu", "x"), node("Tanh", "x", out="z")], outputs=("y", "z")), "puts out 2 values"),
    "no input": (model([node("Relu", "w")], [WEIGHT]), "reads 0 inputs"),
    "whole numbers": (model([node("Relu", "x")], kind=onnx.TensorProto.INT64), "does not hold real numbers"),
    "video": (model([node("Relu", "x")], shape=("N", 3, 4, 8, 8)), "has 5 axes"),
    "any size": (model([node("Relu", "x")], shape=("N", 3, "H", "W")), "images of any size (any, any, 3)"),
    "absurd input": (model([node("Relu", "x")], shape=(1, 3, 2**20, 2**20)), "impossible shape"),
    "negative input": (model([node("Relu", "x")], shape=(1, 3, -5, 8)), "impossible shape"),
    "external": (model([CONV], [tensor("w", [4, 3, 3, 3], data_location=1)]), "kept in another file"),
    "fewer numbers": (model([CONV], [tensor("w", [4, 3, 3, 3], bytes(40))]), "has 108 numbers, the file holds 10"),
    "more numbers": (model([CONV], [tensor("w", [4, 3, 3, 3], bytes(4000))]), "has 108 numbers, the file holds 1,000"),
    "huge": (model([CONV], [tensor("w", [2**40, 3, 3, 3])]), "impossible shape"),
    "negative": (model([CONV], [tensor("w", [-4, 3, 3, 3])]), "impossible shape"),
    "texts": (model([CONV], [tensor("w", [1], kind=onnx.TensorProto.STRING)]), "type STRING"),
    "no type": (model([CONV], [tensor("w", [1], kind=99)]), "type 99"),
    "huge constant": (model([node("ConstantOfShape", "s", out="w"), CONV], [("s", np.array([2**30, 3, 9, 9]))]),
                      "impossible shape"),
    "huge fold": (model([node("Add", "a", "b", out="w"), CONV],
                        [("a", np.ones((20000, 1), np.float32)), ("b", np.ones((1, 20000), np.float32))]),
                  "at most 1,073,741,824 are folded"),
    "wrong fold": (model([node("Reshape", "a", "s", out="w"), CONV],
                         [("a", np.ones(5, np.float32)), ("s", np.array([2, 2]))]), "Reshape 'reshape_0'"),
    "weights from pixels": (model([node("Conv", "x", "x")]), "its weight depends on the graph's input"),
    "other channels": (model([CONV], [("w", np.ones((4, 5, 3, 3), np.float32))]), "its weight has shape (4, 5, 3, 3)"),
    "filter too large": (model([CONV], [("w", np.ones((4, 3, 9, 9), np.float32))]), "would be empty"),
    "negative padding": (model([node("Conv", "x", "w", pads=[-1, 0, 0, 0])], [WEIGHT]), "padding must be an integer"),
    "stride zero": (model([node("MaxPool", "x", kernel_shape=[2, 2], strides=[0, 1])]), "stride must be"),
    "windows of a volume": (model([node("MaxPool", "x", kernel_shape=[2, 2, 2])]), "a window of 3 axes"),
    "reflection": (model([node("Pad", "x", "p", mode="reflect")], [("p", np.ones(8, np.int64))]), "padding by reflect"),
    "padding of one place": (model([node("GlobalAveragePool", "x", out="g"), node("Pad", "g", "p")],
                                   [("p", np.array([0, 0, 1, 0, 0, 0, 0, 0]))]), "padding images, channels or"),
    "gates": (model([node("Sigmoid", "x", out="s"), node("Tanh", "x", out="t"), node("Mul", "s", "t")]),
              "a product of two values"),
    "a map as bias": (model([node("Add", "x", "b")], [("b", np.ones((1, 3, 8, 8), np.float32))]),
                      "differs between places"),
    "mixing images": (model([node("Reshape", "x", "s")], [("s", np.array([6, -1]))], shape=(2, 3, 8, 8)),
                      "mix the images of a batch"),
    "a map of features": (model([node("Reshape", "x", "s")], [("s", np.array([0, 12, 4, 4]))]), "makes a map"),
    "places first": (model([node("Transpose", "x", perm=[0, 2, 3, 1], out="t"), node("Relu", "t", out="r"),
                            node("MaxPool", "r", kernel_shape=[2, 2])]), "a layer that moves axes"),
    "softmax over places": (model([node("Softmax", "x", axis=3)]), "a softmax over the axes W"),
    "even LRN": (model([node("LRN", "x", size=4)]), "size must be an odd number"),
    "a loop": (model([("Relu", ("x",), ("y",), {"body": helper.make_graph([], "b", [], [])})]), "a graph of its own"),
    "an input too few": (model([("Gemm", ("x",), ("y",), {})]), "are not those of this operator"),
    "no axis": (model([node("Gather", "a", "i", out="w"), CONV], [("a", np.float32(1)), ("i", np.array([0]))]),
                "are not those of this operator"),
    "no size": (model([node("LRN", "x")]), "are not those of this operator"),
    "many axes": (model([node("Unsqueeze", "x", "a")], [("a", np.arange(2, 50))]), "at most 16 are read"),
    "not finite": (model([CONV], [("w", np.full((4, 3, 3, 3), np.nan, np.float32))]), "not finite"),
    "the mask": (model([("Dropout", ("x",), ("d", "m"), {}), node("Relu", "m")]), "second result"),
    "no opset": (onnx.ModelProto(), "not an ONNX model"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_no_network_can_be_is_refused_in_one_line(case, tmp_path):
    given, expected = REFUSED[case]
    path = tmp_path / "m.onnx"
    path.write_bytes(given.SerializeToString())
    tracemalloc.start()
    try:
        with pytest.raises(ModelFileError) as refused:
            exchange.load(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    text = str(refused.value)
    assert expected in text and text.startswith(f"{path}: ") and "\n" not in text and len(text) < 600
    assert peak < 30e6


def test_a_network_larger_than_the_memory_is_refused_before_it_is_made(tmp_path, monkeypatch):
    from pellucid import processors

    given = model([node("ConstantOfShape", "s", out="w"), node("Flatten", "x", out="f"), node("Gemm", "f", "w")],
                  [("s", np.array([192, 2**19]))])
    (tmp_path / "m.onnx").write_bytes(given.SerializeToString())
    monkeypatch.setattr(processors, "memory", lambda: 2**29)
    with pytest.raises(ModelFileError, match="parameters take 402,653,184 bytes, over half of this machine's"):
        exchange.load(tmp_path / "m.onnx")


def test_a_chain_of_constants_is_counted_together(tmp_path, monkeypatch):
    from pellucid.exchange.onnx import folding

    chain = [node("Neg", f"c{i}", out=f"c{i + 1}") for i in range(9)]
    given = model([node("ConstantOfShape", "s", out="c0"), *chain, node("Unsqueeze", "c9", "a", out="c10"),
                   node("Conv", "x", "c10")], [("s", np.array([4, 3, 3])), ("a", np.array([3]))])
    (tmp_path / "m.onnx").write_bytes(given.SerializeToString())
    assert exchange.load(tmp_path / "m.onnx").network.output_shape == (6, 8, 4)
    monkeypatch.setattr(folding, "MOST_FOLDED", 8 * 36 * 4)
    with pytest.raises(ModelFileError, match="Neg 'neg_8' and the constants before it take 1,176 bytes to compute"):
        exchange.load(tmp_path / "m.onnx")


@pytest.mark.parametrize("content", [b"", b"\x08", b"PK\x03\x04 not a model", os.urandom(200), b"\xff" * 64])
def test_what_is_no_onnx_file_is_refused(content, tmp_path):
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(ModelFileError, match="not an ONNX model"):
        exchange.load(tmp_path / "m.onnx")


def test_cut_files_never_crash(tmp_path):
    whole = model([CONV, node("Relu", "y", out="z")], [WEIGHT], outputs=("z",)).SerializeToString()
    path = tmp_path / "m.onnx"
    for end in range(0, len(whole), 7):
        path.write_bytes(whole[:end])
        with pytest.raises(ModelFileError):
            exchange.load(path)
    path.write_bytes(whole)
    assert exchange.load(path).network.output_shape == (6, 6, 4)


def test_changed_bytes_never_crash(tmp_path):
    """Whatever is left of a graph: a network, or one line."""
    whole = model([CONV, node("MaxPool", "y", out="p", kernel_shape=[2, 2], pads=[0, 0, 1, 1], ceil_mode=1),
                   node("Shape", "p", out="s"), node("Gather", "s", "zero", out="n"),
                   node("Unsqueeze", "n", "zero1", out="b"), node("Concat", "b", "rest", out="to", axis=0),
                   node("Reshape", "p", "to", out="f"), node("Gemm", "f", "v", out="z", alpha=0.5)],
                  [WEIGHT, ("v", np.ones((144, 2), np.float32)), ("zero", np.array(0)), ("zero1", np.array([0])),
                   ("rest", np.array([-1]))], outputs=("z",)).SerializeToString()
    path, rng, opened = tmp_path / "m.onnx", np.random.default_rng(0), 0
    for _ in range(400):
        content = bytearray(whole)
        for _ in range(rng.integers(1, 4)):
            content[rng.integers(len(content))] = rng.integers(256)
        path.write_bytes(content)
        try:
            exchange.load(path)
            opened += 1
        except ModelFileError as e:
            assert "\n" not in str(e)
    assert 0 < opened < 400


def test_names_that_are_hostile_stay_harmless(tmp_path):
    given = model([CONV], [WEIGHT])
    given.graph.node[0].name = "../../etc/passwd\n" + "x" * 10_000
    (tmp_path / "m.onnx").write_bytes(given.SerializeToString())
    (name,) = (n.name for n in exchange.load(tmp_path / "m.onnx").network.nodes)
    assert len(name) <= 200 and name.isidentifier()


def test_metadata_that_were_changed_are_refused(tmp_path):
    from pellucid import Model, zoo
    from pellucid.exchange import onnx as files

    files.export(Model(zoo.build("lenet", input_shape=(12, 12, 1), classes=3)), tmp_path / "m.onnx")
    whole = onnx.load(tmp_path / "m.onnx")
    for old, new, message in (
        ('"nodes": "crc32', '"nodes": "crc', "was changed after"), ('"record": {}', '"record": 7', "record an object"),
        ('"input_shape": [12', '"input_shape": [99', "has shape"), ('"tta": "none"', '"tta": 1', "tta must be one of"),
        ('"filters": 32', '"filters": 1000000000', "elements|has shape"), ("{", "{{", "not valid JSON"),
        ('"units": 3', '"units": 4', "expected float32"), ('"name": "conv1"', '"name": "conv9"', "does not exist"),
    ):
        changed = onnx.ModelProto()
        changed.CopyFrom(whole)
        prop = next(p for p in changed.metadata_props if p.key == "pellucid")
        assert old in prop.value
        prop.value = prop.value.replace(old, new, 1)
        (tmp_path / "c.onnx").write_bytes(changed.SerializeToString())
        tracemalloc.start()
        with pytest.raises(ModelFileError, match=message) as refused:
            exchange.load(tmp_path / "c.onnx")
        assert "\n" not in str(refused.value) and tracemalloc.get_traced_memory()[1] < 30e6
        tracemalloc.stop()


def test_graphs_that_were_changed_after_export_are_refused(tmp_path):
    from pellucid import Model, zoo
    from pellucid.exchange import onnx as files

    files.export(Model(zoo.build("lenet", input_shape=(12, 12, 1), classes=3)), tmp_path / "m.onnx")
    for change, message in (
        (lambda g: g.node.remove(next(n for n in g.node if n.op_type == "Relu")), "was changed after Pellucid"),
        (lambda g: next(n for n in g.node if n.op_type == "Conv").attribute[0].ints.append(1), "was changed after"),
        (lambda g: next(t for t in g.initializer if t.name == "conv1.bias").dims.insert(0, 1), None),
        (lambda g: setattr(g.initializer[0], "name", "other"), "is missing"),
        (lambda g: g.initializer[0].CopyFrom(tensor(g.initializer[0].name, [1], bytes(4))), "has shape (1,)"),
        (lambda g: next(t for t in g.initializer if t.name == "conv1.bias").MergeFrom(tensor("conv1.bias", [], bytes(
            [255]) * 128)), "not finite"),
    ):
        changed = onnx.load(tmp_path / "m.onnx")
        change(changed.graph)
        (tmp_path / "c.onnx").write_bytes(changed.SerializeToString())
        if message is None:
            assert exchange.load(tmp_path / "c.onnx").classes == ["0", "1", "2"]
            continue
        with pytest.raises(ModelFileError) as refused:
            exchange.load(tmp_path / "c.onnx")
        assert message in str(refused.value) and "\n" not in str(refused.value)
    with pytest.raises(ModelFileError, match=r"for inputs of \(12, 12, 1\), asked for was \(16, 16, 1\); leave"):
        files.load(tmp_path / "m.onnx", input_shape=(16, 16, 1))
    assert files.load(tmp_path / "m.onnx", input_shape=(12, 12, 1)).network.input_shape == (12, 12, 1)


def test_nodes_in_any_order_are_put_in_order():
    from pellucid.exchange.onnx.importer import Importer

    given = model([node("Relu", "a"), node("Tanh", "x", out="a")])
    assert [type(n.layer).__name__ for n in Importer(checked(given)).network.nodes] == ["Tanh", "ReLU"]


# What is rewritten along the way.


def run(given, x):
    from pellucid import Model
    from pellucid.exchange.onnx.importer import Importer

    read = Importer(checked(given))
    made = Model(read.network, None)
    made.load_parameters(read.parameters)
    return made.logits(x)


@pytest.mark.parametrize("channels_last", [False, True])
def test_features_in_either_order_meet_their_weights(channels_last):
    """Flattened with channels first, or, as TensorFlow's exporters do, last; nothing else reads the order."""
    from onnx.reference import ReferenceEvaluator

    rng = np.random.default_rng(0)
    weights = [("w", rng.standard_normal((4, 3, 3, 3), np.float32)), ("v", rng.standard_normal((144, 5), np.float32)),
               ("s", rng.standard_normal(144).astype(np.float32)), ("to", np.array([-1, 144]))]
    turned = [node("Transpose", "c", perm=[0, 2, 3, 1], out="t")] if channels_last else [node("Identity", "c", out="t")]
    first = [node("Transpose", "x", perm=[0, 3, 1, 2], out="i")] if channels_last else [node("Identity", "x", out="i")]
    given = model([*first, node("Conv", "i", "w", out="c"), *turned, node("Reshape", "t", "to", out="f"),
                   node("Mul", "f", "s", out="m"), node("MatMul", "m", "v")], weights,
                  shape=("N", 8, 8, 3) if channels_last else ("N", 3, 8, 8))
    x = rng.standard_normal((2, 8, 8, 3), np.float32)
    fed = x if channels_last else np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    expected = ReferenceEvaluator(given).run(None, {"x": fed})[0]
    np.testing.assert_allclose(run(given, x), expected, rtol=1e-4, atol=1e-4)


def test_a_bias_is_taken_along_only_where_nobody_else_reads_before_it():
    from onnx.reference import ReferenceEvaluator

    rng = np.random.default_rng(1)
    weights = [("w", rng.standard_normal((3, 3, 1, 1), np.float32)), ("b", rng.standard_normal((3, 1, 1), np.float32))]
    x = rng.standard_normal((2, 8, 8, 3), np.float32)
    for shared in (False, True):
        other = "i" if shared else "a"
        given = model([node("Conv", "x", "w", out="c"), node("Identity", "c", out="i"), node("Add", "i", "b", out="a"),
                       node("Add", "a", "c" if shared else other)], weights)
        expected = ReferenceEvaluator(given).run(None, {"x": np.ascontiguousarray(x.transpose(0, 3, 1, 2))})[0]
        np.testing.assert_allclose(run(given, x), expected.transpose(0, 2, 3, 1), rtol=1e-4, atol=1e-4)
