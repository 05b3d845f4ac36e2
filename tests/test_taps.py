"""Values and gradients at taps against the layers' definitions, for networks that fuse, share and hand on."""

import numpy as np
import pytest
from three_ways import by_definition, nodes, normals, parameters

import pellucid
from pellucid import zoo
from pellucid.explain import taps
from pellucid.layers import GELU, Add, BatchNorm, Conv, Dense, Dropout, Flatten, GlobalAvgPool, MaxPool, ReLU


def branching():
    """Everything that plans fuse, and a value with two readers."""
    return nodes(
        (9, 8, 3), ("c1", Conv(5, 3, padding=1), "input"), ("n1", BatchNorm(), "c1"), ("r1", ReLU(), "n1"),
        ("p1", MaxPool(2), "r1"), ("c2", Conv(5, 3, padding=1, bias=False), "p1"), ("n2", BatchNorm(), "c2"),
        ("sum", Add(), "n2", "p1"), ("r2", ReLU(), "sum"), ("d", Dropout(0.5), "r2"), ("flat", Flatten(), "d"),
        ("fc", Dense(4), "flat"))


def definition(model, images, cotangent):
    """The values of all nodes and the gradient to each, in float64."""
    network = model.network
    values = by_definition(network, model.parameters, images, cotangent).values
    received = {name: np.zeros_like(value) for name, value in values.items()}
    received[network.output] = np.asarray(np.broadcast_to(cotangent, values[network.output].shape), np.float64)
    for node in reversed(network.nodes):
        own = {n.removeprefix(node.name + "."): np.asarray(p, np.float64) for n, p in model.parameters.items()
               if n.rpartition(".")[0] == node.name}
        _, backward = node.layer.define(own, *(values[i] for i in node.inputs))
        for source, dx in zip(node.inputs, backward(received[node.name])[0], strict=True):
            received[source] = received[source] + dx
    return values, received


def made(network, seed=0):
    model = pellucid.Model(network, seed=seed)
    model.load_parameters(parameters(network, np.random.default_rng(seed)))
    return model


@pytest.mark.parametrize("network", [
    pytest.param(branching(), id="branching"),
    pytest.param(zoo.build("resnet20", input_shape=(16, 16, 3), classes=5), id="resnet"),
    pytest.param(zoo.build("convnet", input_shape=(16, 16, 3), classes=5, width=16), id="convnet"),
    pytest.param(nodes((6, 2), ("c", Conv(3, 3), "input"), ("g", GlobalAvgPool(), "c"), ("fc", Dense(2), "g")),
                 id="1-D"),
])
def test_taps_equal_the_definition(network):
    model, rng = made(network), np.random.default_rng(1)
    images = normals(rng, 5, *network.input_shape)  # more than one chunk
    cotangent = normals(rng, 5, *network.output_shape)
    names = ["input", *(n.name for n in network.nodes)]
    values, expected = definition(model, images, cotangent)
    asked = [n for n in names if n != "d"]
    # Values reach thousands here, so that rounding alone moves a slope of GELU, near 0, by some 1e-3.
    smooth = any(isinstance(node.layer, GELU) for node in network.nodes)
    for found, wanted, atol in ((taps.values(model, images, names), values, 2e-4),
                                (taps.gradients(model, images, cotangent, asked), expected, 1e-3 if smooth else 2e-4)):
        for name, value in found.items():
            scale = np.abs(wanted[name]).max() or 1.0
            np.testing.assert_allclose(value / scale, wanted[name] / scale, atol=atol, err_msg=name)


def test_one_tap_alone_gives_the_same_as_all_together():
    model, rng = made(branching()), np.random.default_rng(2)
    images, cotangent = normals(rng, 2, 9, 8, 3), normals(rng, 4)
    together = taps.gradients(model, images, cotangent, ["r1", "p1", "sum", "d", "input"])
    for name, value in together.items():
        np.testing.assert_allclose(taps.gradients(model, images, cotangent, [name])[name], value, rtol=1e-4, atol=1e-5)


def test_parameter_gradients_are_sums_over_images():
    model, rng = made(branching()), np.random.default_rng(3)
    images, cotangent = normals(rng, 3, 9, 8, 3), normals(rng, 3, 4)
    expected = by_definition(model.network, model.parameters, images, cotangent).gradients
    for name, value in taps.parameter_gradients(model, images, cotangent).items():
        scale = np.abs(expected[name]).max()
        np.testing.assert_allclose(value / scale, expected[name] / scale, atol=2e-4, err_msg=name)


def test_taps_follow_the_parameters_and_read_bytes():
    pre = pellucid.Preprocessing.from_images(np.random.default_rng(0).integers(0, 256, (4, 9, 8, 3), np.uint8))
    model = pellucid.Model(branching(), seed=0, preprocessing=pre)
    images = np.random.default_rng(4).integers(0, 256, (2, 9, 8, 3), np.uint8)
    read = taps.values(model, images, ["input", "fc"])
    np.testing.assert_allclose(read["input"], images * pre.scale + pre.shift, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(taps.values(model, read["input"], ["fc"])["fc"], read["fc"])
    model.load_parameters({name: 2 * value for name, value in model.parameters.items()})
    assert not np.allclose(taps.values(model, images, ["fc"])["fc"], read["fc"])
    np.testing.assert_allclose(taps.values(model, images, ["fc"])["fc"], model.logits(read["input"]), rtol=1e-4)


def test_what_cannot_be_told_is_refused():
    model, x = made(branching()), np.zeros((1, 9, 8, 3), np.float32)
    shared = made(nodes((4, 4, 1), ("d", Dropout(0.5), "input"), ("sum", Add(), "d", "input"),
                        ("g", GlobalAvgPool(), "sum"), ("fc", Dense(2), "g")))
    with pytest.raises(ValueError, match="no node is called 'nothing'|nothing"):
        taps.values(model, x, ["nothing"])
    with pytest.raises(ValueError, match="hands on 'input'"):
        taps.gradients(shared, np.zeros((1, 4, 4, 1), np.float32), np.ones(2), ["d"])
    with pytest.raises(ValueError, match="the cotangent must have shape"):
        taps.gradients(model, x, np.ones(3), ["fc"])
    with pytest.raises(ValueError, match="the cotangent must have shape"):
        taps.parameter_gradients(model, np.zeros((3, 9, 8, 3), np.float32), np.ones((1, 4)))
    with pytest.raises(ValueError, match="expected images of shape"):
        taps.values(model, np.zeros((1, 8, 8, 3), np.float32), ["fc"])
    with pytest.raises(ValueError, match="no preprocessing"):
        taps.values(model, np.zeros((1, 9, 8, 3), np.uint8), ["fc"])


def test_few_plans_are_kept(monkeypatch):
    model, x = made(branching()), np.zeros((5, 9, 8, 3), np.float32)
    monkeypatch.setattr(taps, "KEPT", 3)
    for name in ("c1", "p1", "sum", "r2"):
        taps.values(model, x[:1], [name])
    assert [names for _, names, _ in taps._plans[model]] == [frozenset([n]) for n in ("p1", "sum", "r2")]
    monkeypatch.setattr(taps, "KEPT_MEMORY", 0)
    taps.gradients(model, x[:1], np.ones(4), ["r1"])
    (kept,) = taps._plans[model].values()
    assert kept.memory == kept.plan.memory + kept.gradient.flat.nbytes + 4 * 9 * 8 * 5  # what r1's gradient is put in
