"""Layers that are computed along with the one before them: which are, and that it changes nothing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_winograd import algorithm
from three_ways import by_engine, by_torch, integers, normals, parameters, within

from pellucid import zoo
from pellucid.engine.parameters import ParameterBuffer
from pellucid.engine.plan import Plan
from pellucid.layers import Add, BatchNorm, Conv, Dense, Flatten, GlobalAvgPool, MaxPool, ReLU
from pellucid.network import Network, Node, Residual, Sequential

IMAGE = Sequential(Conv(20, 3, padding=1), ReLU(), MaxPool(2), Flatten(), Dense(3))


def results(network, x, dy, values, *, training=False, taps=(), input_gradient=False):
    """(names of the calls, output, every parameter's gradient) of a plan that has run before, on other numbers."""
    buffer, gradient = (ParameterBuffer(network.parameters()) for _ in range(2))
    plan = Plan(network, buffer, len(x), gradient=gradient, training=training, taps=taps, input_gradient=input_gradient)
    for images, cotangent in ((x + 1, dy - 1), (x, dy)):
        for name, value in values.items():
            buffer.arrays[name][...] = value
        plan.prepare()
        plan.forward(images)
        plan.backward(cotangent)
    return [c.name for c in plan._calls], plan.value().copy(), {n: a.copy() for n, a in gradient.arrays.items()}


def alike(network, n=3, seed=0, *, training=False, exact=True):
    """Check that nothing depends on whether layers are computed along; returns the names of the calls where they are.

    Tapping every node keeps every value, so that each layer is computed by itself.
    """
    rng, data = np.random.default_rng(seed), integers if exact else normals
    values = parameters(network, rng, data)
    x, dy = data(rng, n, *network.input_shape), data(rng, n, *network.output_shape)
    names, y, gradients = results(network, x, dy, values, training=training)
    alone, expected, others = results(network, x, dy, values, training=training,
                                      taps=[node.name for node in network.nodes])
    assert len(names) < len(alone)
    same = np.testing.assert_array_equal if exact else within(1e-4)
    same(y, expected) if exact else same("output", y, expected)
    for name in gradients:
        same(gradients[name], others[name], name) if exact else same(name, gradients[name], others[name])
    return names


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 3), st.integers(2, 11), st.integers(2, 11), st.integers(1, 15), st.integers(1, 40),
       st.sampled_from([1, 2, 3, 5]), st.sampled_from([1, 2]), st.booleans(), st.integers(0, 2**32 - 1))
def test_a_first_layer_and_its_pooling(n, height, width, channels, filters, size, stride, relu, seed):
    conv = Conv(filters, size, stride=stride, padding=size // 2)
    if min(conv.output_shape((height, width, channels))[:2]) < 2:
        return
    network = Network.build((height, width, channels), Sequential(conv, *([ReLU()] if relu else []), MaxPool(2)))
    names = alike(network, n, seed)
    assert "conv_image_pool" in names and "conv_image_pool_grad_weight" in names
    assert not any(name.startswith("max_pool") for name in names)


def test_a_first_layer_whose_images_gradient_is_wanted_keeps_its_map():
    network = Network.build((8, 8, 3), IMAGE)
    rng = np.random.default_rng(0)
    values = parameters(network, rng, integers)
    x, dy = integers(rng, 2, 8, 8, 3), integers(rng, 2, 3)
    _, y, gradients = results(network, x, dy, values)
    names, same, others = results(network, x, dy, values, input_gradient=True)
    assert "max_pool" in names
    np.testing.assert_array_equal(y, same)
    for name in gradients:
        np.testing.assert_array_equal(gradients[name], others[name], name)


@pytest.mark.parametrize("size", [(8, 8), (7, 10), (5, 6), (3, 2)])
def test_winograd_and_pooling(size):
    network = Network.build((*size, 32), Sequential(Conv(40, 3, padding=1), ReLU(), MaxPool(2), Conv(3, 1)))
    with algorithm("winograd"):
        names = alike(network, exact=False)
    assert "winograd_pool" in names and "max_pool" not in names


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("size", [(6, 8), (7, 9), (2, 3)])
def test_batch_norm_and_what_follows(training, size):
    block = Residual(Sequential(Conv(20, 1), BatchNorm()))
    network = Network.build((*size, 20), Sequential(
        Conv(20, 1), BatchNorm(), ReLU(), block, ReLU(), Conv(20, 1), BatchNorm(), ReLU(), MaxPool(2), Conv(3, 1)))
    if training:
        names = alike(network, training=True, exact=False)
        assert {"batch_norm_pool", "batch_norm_pool_grad", "batch_norm_relu_grad"} <= set(names)
        assert "max_pool" not in names and "relu" not in names
        assert "add" not in names  # backward, the block's convolution adds what came along the identity
    else:
        values = parameters(network, np.random.default_rng(1), normals)
        buffer = ParameterBuffer(network.parameters())
        for name, value in values.items():
            buffer.arrays[name][...] = value
        plan = Plan(network, buffer, 3)
        names = {c.name for c in plan._calls}
        assert "batch_norm" not in names and "add" not in names and "relu" not in names  # folded into convolutions
        plan.prepare()
        x = normals(np.random.default_rng(2), 3, *network.input_shape)
        dy = np.zeros((3, *network.output_shape), np.float32)
        within(1e-4)("output", plan.outputs(x), by_torch(network, values, x, dy).values[network.output])


def test_a_sum_is_computed_with_the_part_that_comes_last():
    nodes = [Node("a", Conv(4, 1)), Node("n", BatchNorm(), ("a",)), Node("b", Conv(4, 1)),
             Node("m", BatchNorm(), ("b",)), Node("sum", Add(), ("n", "m")), Node("r", ReLU(), ("sum",)),
             Node("p", GlobalAvgPool(), ("r",))]
    names = alike(Network((4, 4, 3), nodes, "p"), training=True, exact=False)
    assert "add" not in names and names.count("batch_norm") == 2  # the sum and its ReLU go with the later part


@pytest.mark.parametrize("name, shape", [("cifar_vgg", (16, 16, 3)), ("cifar_resnet18", (16, 16, 3))])
@pytest.mark.parametrize("training", [False, True])
def test_zoo_networks_are_pytorchs(name, shape, training):
    network = zoo.build(name, input_shape=shape)
    rng = np.random.default_rng(0)
    drawn = {n: p.init(rng, p.shape).astype(np.float32) for n, p in network.parameters().items()}
    x, dy = normals(rng, 4, *shape), normals(rng, 4, 10)
    got, expected = (by(network, drawn, x, dy, training=training) for by in (by_engine, by_torch))
    within(1e-4)("output", got.values[network.output], expected.values[network.output])
    for name, statistic in expected.statistics.items():
        within(1e-4)(name, got.statistics[name], statistic)
    # Where a value before a ReLU is nearly 0, float32 may let it pass and float64 not: gradients agree as a whole.
    for mine, theirs in [(got.dx, expected.dx), *((got.gradients[n], g) for n, g in expected.gradients.items())]:
        assert np.linalg.norm(mine - theirs) < 0.05 * np.linalg.norm(theirs)


@pytest.mark.parametrize("n, size", [(1, (12, 5)), (3, (7, 6)), (2, (1, 1))])
def test_rows_without_a_halo_are_computed_as_one(n, size):
    """1x1 convolutions of few channels: to a map with a halo, from one, between two without, and with a residual."""
    block = Residual(Sequential(Conv(20, 3, padding=1), ReLU(), Conv(40, 1)))
    network = Network.build((*size, 40), Sequential(Conv(40, 1), block, ReLU(), Conv(300, 1), ReLU(), Conv(5, 1)))
    rng = np.random.default_rng(0)
    values, x = parameters(network, rng, integers), integers(rng, n, *network.input_shape)
    dy = np.zeros((n, *network.output_shape), np.float32)
    names, y, _ = results(network, x, dy, values)
    forward = [name for name in names if name.startswith("conv_") and "grad" not in name][:5]
    kinds = ["conv_matrix" if name.startswith("conv_matrix") else "conv" for name in forward]
    # The first writes a map that a 3x3 reads, with a halo; the last reads 300 channels.
    assert kinds == ["conv_matrix", "conv", "conv", "conv", "conv_matrix"]
    np.testing.assert_array_equal(y, by_engine(network, values, x, dy).values[network.output])
    np.testing.assert_array_equal(y, by_torch(network, values, x, dy).values[network.output])
