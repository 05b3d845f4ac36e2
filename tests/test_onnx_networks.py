"""The light networks of the `onnx` package, with weights that tell pictures apart, against ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from pellucid import exchange
from pellucid.exchange.onnx import session
from pellucid.layers import Softmax

# Name, and layers that the network has here.
NETWORKS = {"bvlc_alexnet": 23, "densenet121": 547, "inception_v1": 142, "inception_v2": 302, "resnet50": 176,
            "shufflenet": 171, "squeezenet": 65, "vgg19": 44, "zfnet512": 22}
HIDDEN = 64  # units of hidden layers in place of 4096: what is compared is the graph, and weights take time
TOLERANCE = 1e-4  # of the largest output


def folder() -> Path:
    import onnx.backend.test.data

    return Path(next(iter(onnx.backend.test.data.__path__))) / "light"


def furnished(name: str, path: Path):
    """The network with random weights of a sensible scale in place of its constant ones, its softmax left out."""
    model = onnx.load(folder() / f"light_{name}.onnx")
    graph, rng = model.graph, np.random.default_rng(0)
    shapes = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    variances = {n.input[4] for n in graph.node if n.op_type == "BatchNormalization"}
    kept = []
    for node in graph.node:
        if node.op_type == "ConstantOfShape":
            shape = [HIDDEN if n == 4096 else int(n) for n in shapes[node.input[0]]]
            fan_in = int(np.prod(shape[1:])) if len(shape) > 1 else 1
            values = (rng.standard_normal(shape, np.float32) * np.float32((2 / fan_in) ** 0.5) if len(shape) > 1
                      else rng.uniform(0.5, 1.5, shape).astype(np.float32) if node.output[0] in variances
                      else rng.normal(0.5, 0.2, shape).astype(np.float32))
            graph.initializer.append(onnx.numpy_helper.from_array(values, node.output[0]))
        elif node.op_type != "Softmax":
            kept.append(node)
    ends = [n.input[0] for n in graph.node if n.op_type == "Softmax"]
    del graph.node[:]
    graph.node.extend(kept)
    if ends:
        graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info(ends[0], 1, None))
    model.ir_version = 8  # from 4 on initialisers are no inputs
    known = {t.name for t in graph.initializer}
    images = [i for i in graph.input if i.name not in known]
    del graph.input[:]
    graph.input.extend(images)
    onnx.save(model, path)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_light_networks_are_those_of_onnx_runtime(name, tmp_path):
    furnished(name, tmp_path / "net.onnx")
    model = exchange.load(tmp_path / "net.onnx")
    x = np.random.default_rng(1).standard_normal((1, *model.network.input_shape), np.float32)
    expected = session(tmp_path / "net.onnx")(np.ascontiguousarray(x.transpose(0, 3, 1, 2))).reshape(1, -1)
    assert np.ptp(expected) > 0.01 * np.abs(expected).max()  # it says something
    np.testing.assert_allclose(model.logits(x), expected, rtol=0, atol=TOLERANCE * np.abs(expected).max())


@pytest.mark.parametrize("name", NETWORKS)
def test_the_light_networks_open_as_they_are(name):
    """With the weights they come with: one number at every place, which is not stored before it is used."""
    if name in ("bvlc_alexnet", "vgg19", "zfnet512"):
        pytest.skip("its 4096 hidden units take half a gigabyte")
    network = exchange.load(folder() / f"light_{name}.onnx").network
    assert len(network.nodes) == NETWORKS[name] and network.output_shape == (1000,)
    assert isinstance(network.node(network.output).layer, Softmax) == (name != "densenet121")
