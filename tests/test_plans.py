"""Whole networks, computed three ways: what layers do to one another when they share values, memory and passes.

Each network shows one way in which a plan could go wrong. All are checked on integers, exactly, where their layers
are exact there, and on normal data; and after a run on NaN, of which nothing may be left.
"""

import numpy as np
import pytest
import torch
from three_ways import agree, by_definition, by_engine, compare, exactly, integers, nodes, normals, parameters, within

import pellucid
from pellucid.engine import builder
from pellucid.engine.parameters import ParameterBuffer
from pellucid.engine.plan import Plan
from pellucid.layers import (
    GELU,
    Add,
    AvgPool,
    BatchNorm,
    Concat,
    Conv,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool,
    GlobalMaxPool,
    LeakyReLU,
    MaxPool,
    ReLU,
    Sigmoid,
    Softmax,
    Tanh,
)
from pellucid.layers.loss import CrossEntropy
from pellucid.network import Concat as Branches
from pellucid.network import Network, Residual, Sequential


def chain(shape, *layers):
    return Network.build(shape, Sequential(*layers))


EXACT = {
    "a convolution reads no image but a map": chain((6, 5, 20), Conv(7, 3, padding=1), Conv(5, 2, stride=2)),
    "a convolution reads an image of 15 channels": chain((6, 5, 15), Conv(7, 3, padding=1)),
    "a grouped convolution reads the image": chain((6, 5, 4), Conv(6, 3, padding=1, groups=2)),
    "a dilated convolution reads the image": chain((7, 9, 3), Conv(6, 3, padding=2, dilation=2)),
    "two convolutions read the image": nodes(
        (6, 5, 3), ("a", Conv(4, 3, padding=1), "input"), ("b", Conv(4, 5, padding=2), "input"),
        ("sum", Add(), "a", "b")),
    "a convolution and a pool read the image": nodes(
        (6, 6, 3), ("a", Conv(3, 3, padding=1), "input"), ("b", MaxPool(3, 1, 1), "input"), ("c", Concat(), "a", "b")),
    "dense first": chain((19,), Dense(33), ReLU(), Dense(17), ReLU(), Dense(3)),
    "flatten first": chain((5, 4, 3), Flatten(), Dense(18), ReLU(), Dense(3)),
    "a signal": chain((12, 2), Conv(17, 3, padding=1), ReLU(), MaxPool(2), Conv(5, 3), Flatten(), Dense(4)),
    "relu after convolution and dense": chain(
        (6, 6, 3), Conv(18, 3, padding=1), ReLU(), Conv(5, 3, stride=2), ReLU(), Flatten(), Dense(9), ReLU(), Dense(2)),
    "relu last": chain((5, 5, 3), Conv(4, 3), ReLU()),
    "a convolution read by relu and by another": nodes(
        (5, 5, 3), ("conv", Conv(4, 3, padding=1), "input"), ("relu", ReLU(), "conv"), ("sum", Add(), "conv", "relu")),
    "one value read three times": nodes(
        (5, 5, 3), ("conv", Conv(4, 3, padding=1), "input"), ("relu", ReLU(), "conv"),
        ("left", Conv(4, 3, padding=1), "relu"), ("right", Conv(4, 5, padding=2), "relu"),
        ("sum", Add(), "left", "relu", "right")),
    "a value added to itself": nodes((5, 5, 3), ("conv", Conv(4, 3), "input"), ("twice", Add(), "conv", "conv")),
    "a value beside itself": nodes((5, 5, 3), ("conv", Conv(17, 3), "input"), ("twice", Concat(), "conv", "conv")),
    "the image added to itself": nodes((4, 4, 3), ("twice", Add(), "input", "input"), ("conv", Conv(2, 3), "twice")),
    "sums of sums": nodes(
        (4, 4, 3), ("a", Conv(3, 3, padding=1), "input"), ("b", Add(), "input", "a"), ("c", Add(), "a", "b"),
        ("d", Add(), "b", "c"), ("e", Conv(2, 1), "d")),
    "concat of 1, 17, 16 and 5 channels": nodes(
        (4, 5, 3), ("a", Conv(1, 1), "input"), ("b", Conv(17, 3, padding=1), "input"),
        ("c", Conv(16, 1), "input"), ("d", Conv(5, 3, padding=1), "a"), ("all", Concat(), "a", "b", "c", "d"),
        ("relu", ReLU(), "all"), ("end", Conv(3, 3), "relu")),
    "flatten read by dense twice": nodes(
        (3, 4, 5), ("conv", Conv(6, 3), "input"), ("flat", Flatten(), "conv"), ("a", Dense(3), "flat"),
        ("b", Dense(3), "flat"), ("sum", Add(), "a", "b")),
    "flatten read by dense and another": nodes(
        (3, 4, 5), ("conv", Conv(17, 2), "input"), ("flat", Flatten(), "conv"), ("relu", ReLU(), "flat"),
        ("both", Concat(), "flat", "relu"), ("dense", Dense(4), "both")),
    "flatten read by nobody": chain((3, 4, 5), Conv(17, 2), ReLU(), Flatten()),
    "flatten of a vector": chain((7,), Dense(18), Flatten(), Dense(3), Flatten()),
    "a padded convolution of one pixel, then dense": chain(
        (1, 1, 5), Conv(18, 3, padding=1), ReLU(), Conv(20, 3, padding=1), Flatten(), Dense(3)),
    "one pixel read by a padded convolution and by dense": nodes(
        (4, 4, 5), ("pixel", Conv(18, 4), "input"), ("conv", Conv(18, 3, padding=1), "pixel"),
        ("sum", Add(), "pixel", "conv"), ("flat", Flatten(), "pixel"), ("a", Dense(4), "flat"),
        ("flat2", Flatten(), "sum"), ("b", Dense(4), "flat2"), ("end", Add(), "a", "b")),
    "one pixel of a long filter": chain((1, 1, 3), Conv(4, 7, padding=3), Conv(17, 5, padding=2), Flatten(), Dense(2)),
    "global pools to dense": nodes(
        (4, 4, 3), ("conv", Conv(17, 3, padding=1), "input"), ("max", GlobalMaxPool(), "conv"),
        ("mean", GlobalAvgPool(), "conv"), ("both", Concat(), "max", "mean"), ("end", Dense(3), "both")),
    "overlapping pools": chain((7, 7, 3), MaxPool(3, 1, 1), AvgPool(2, 1), MaxPool(3, 2)),
    "a pool that skips inputs": chain((9, 9, 3), Conv(4, 1, stride=3), MaxPool(1, 2)),
    "inputs no window touches, in memory used before": chain(
        (9, 9, 3), Conv(17, 1), LeakyReLU(0.5), Conv(17, 1, stride=3), Conv(17, 1, padding=4), LeakyReLU(0.5),
        Conv(3, 2)),
    "leaky branches": nodes(
        (4, 4, 3), ("a", LeakyReLU(0.5), "input"), ("b", LeakyReLU(2.0), "a"), ("c", Add(), "a", "b"),
        ("d", Conv(2, 3), "c")),
    "padding of different widths on one value": nodes(
        (6, 6, 3), ("x", Conv(4, 1), "input"), ("a", Conv(3, 3, padding=((0, 2), (2, 0))), "x"),
        ("b", Conv(3, 5, padding=2), "x"), ("c", Conv(3, 1), "x"), ("sum", Add(), "a", "b", "c")),
    "an output in the middle": nodes((4, 4, 3), ("a", Conv(4, 3), "input"), ("b", ReLU(), "a"), output="b"),
    "windows that overlap after a ReLU": chain((7, 7, 20), Conv(5, 3), ReLU(), MaxPool(3, 2)),
    "one maximum after a ReLU": chain((5, 6, 20), Conv(5, 3), ReLU(), GlobalMaxPool()),
    "a pool after a pool": chain((9, 8, 20), Conv(5, 1), ReLU(), MaxPool(2), MaxPool(2)),
    "a pool and a convolution read a ReLU": nodes(
        (6, 6, 20), ("a", Conv(5, 1), "input"), ("r", ReLU(), "a"), ("p", MaxPool(2), "r"),
        ("c", Conv(5, 2, stride=2), "r"), ("sum", Add(), "p", "c")),
    "no bias anywhere": chain((5, 5, 3), Conv(4, 3, bias=False), ReLU(), Flatten(), Dense(3, bias=False)),
}


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("n", [1, 3])
def test_networks_exactly(name, n):
    agree(EXACT[name], n, n, exact=True)


def everything():
    """conv, bn, relu, pool, residual, concat, flatten, dense: what image classifiers are made of."""
    block = Sequential(Conv(20, 3, padding=1, bias=False), BatchNorm(), ReLU(), Conv(20, 3, padding=1), BatchNorm())
    return Network.build((9, 8, 3), Sequential(
        Conv(20, 3, padding=1), BatchNorm(), ReLU(), MaxPool(2),
        Residual(block), ReLU(), Dropout(0.25),
        Residual(Conv(24, 3, stride=2, padding=1), Conv(24, 1, stride=2)), GELU(),
        Branches(Conv(5, 1), Sequential(Conv(6, 3, padding=1), ReLU()), AvgPool(3, 1, 1)), Tanh(),
        Flatten(), Dense(33), Sigmoid(), Dense(10)))


@pytest.mark.parametrize("training", [False, True])
def test_the_whole_network(training):
    for seed in range(3):
        agree(everything(), 5, seed, exact=False, training=training, tolerance=5e-4)


def test_logits_and_gradients_of_the_loss():
    """Through the cross entropy, as a step of training computes it."""
    network, rng = everything(), np.random.default_rng(0)
    values = parameters(network, rng)
    x, labels = normals(rng, 6, 9, 8, 3), rng.integers(0, 10, 6)
    buffer, gradient = (ParameterBuffer(network.parameters()) for _ in range(2))
    plan = Plan(network, buffer, 6, gradient=gradient, training=True, loss=CrossEntropy(0.1))
    for name, value in values.items():
        buffer.arrays[name][...] = value
    plan.labels[:] = labels
    plan.forward(x)
    logits = plan.value().copy()
    plan.backward()
    t = torch.tensor(logits, dtype=torch.float64, requires_grad=True)
    loss = torch.nn.functional.cross_entropy(t, torch.tensor(labels), label_smoothing=0.1)
    assert abs(plan.losses.mean() - loss.item()) < 1e-5
    (dy,) = torch.autograd.grad(loss, t)
    expected = by_definition(network, values, x, dy.numpy(), training=True, step=0)
    within(1e-4)("logits", logits, expected.values[network.output])
    for name, g in expected.gradients.items():
        within(1e-4)(name, gradient.arrays[name], g)


# Taps.


@pytest.mark.parametrize("name", [
    "relu after convolution and dense", "flatten first", "sums of sums", "flatten of a vector",
    "a padded convolution of one pixel, then dense"])
def test_tapping_every_node_changes_nothing_but_what_can_be_read(name):
    """Tapped nodes are not fused with the ReLU after them, nor is their memory used again."""
    network = EXACT[name]
    tapped = agree(network, 3, 0, exact=True, taps=[n.name for n in network.nodes])
    assert set(tapped.values) == {n.name for n in network.nodes}
    compare(agree(network, 3, 0, exact=True), tapped, exactly)


def test_a_tap_on_a_convolution_before_relu_shows_what_stands_before():
    network = chain((5, 5, 3), Conv(4, 3), ReLU(), Conv(2, 1))
    for taps in (["conv1"], ["relu1"], ["conv1", "relu1"]):
        values = agree(network, 2, 0, exact=True, taps=taps).values
        assert set(values) == {*taps, "conv2"}
        if "conv1" in taps:
            assert values["conv1"].min() < 0
        if "relu1" in taps:
            assert values["relu1"].min() == 0


# Memory.


def deep():
    """Twelve blocks: memory of early values is used again many times."""
    blocks = [Residual(Sequential(Conv(8, 3, padding=1), BatchNorm(), ReLU(), Conv(8, 1 + 2 * (i % 3), padding=i % 3)))
              for i in range(12)]
    return Network.build((6, 7, 3), Sequential(
        Conv(8, 3, padding=1), *blocks, MaxPool(2), Flatten(), Dense(4), Softmax()))


def test_reusing_memory_changes_no_bit(monkeypatch):
    network, rng = deep(), np.random.default_rng(0)
    values, x, dy = parameters(network, rng), normals(rng, 4, 6, 7, 3), normals(rng, 4, 4)
    allocate = builder.allocate

    def apart(storages):
        for s in storages:
            s.pinned = True
        return allocate(storages)

    for training in (False, True):
        reused = by_engine(network, values, x, dy, training=training)
        shared = _memory(network, 4, training)
        with monkeypatch.context() as patched:
            patched.setattr(builder, "allocate", apart)
            compare(by_engine(network, values, x, dy, training=training), reused, exactly)
            assert shared < 0.9 * _memory(network, 4, training)


def _memory(network, batch, training):
    buffer, gradient = (ParameterBuffer(network.parameters()) for _ in range(2))
    return Plan(network, buffer, batch, gradient=gradient, training=training).memory


def test_inference_needs_memory_for_few_values():
    network = deep()
    plan = Plan(network, ParameterBuffer(network.parameters()), 4)
    values = plan.memory - plan.prepared.array.nbytes  # what is left are packed filters
    assert values < 0.5 * _memory(network, 4, True)


def test_gradients_do_not_depend_on_whether_the_inputs_is_asked_for():
    network, rng = EXACT["relu after convolution and dense"], np.random.default_rng(0)
    values, x, dy = parameters(network, rng, integers), integers(rng, 3, 6, 6, 3), integers(rng, 3, 2)
    with_input = by_engine(network, values, x, dy)
    buffer, gradient = (ParameterBuffer(network.parameters()) for _ in range(2))
    plan = Plan(network, buffer, 3, gradient=gradient)
    for name, value in values.items():
        buffer.arrays[name][...] = value
    plan.prepare()
    plan.forward(x)
    plan.backward(dy)
    assert plan.input_gradient is None
    for name, g in with_input.gradients.items():
        np.testing.assert_array_equal(gradient.arrays[name], g, name)


def test_uint8_images_are_scaled_and_shifted_on_the_way_in():
    for channels in (1, 3, 20):
        network = chain((5, 6, channels), Conv(4, 3))
        buffer = ParameterBuffer(network.parameters())
        rng = np.random.default_rng(channels)
        for array in buffer.arrays.values():
            array[...] = integers(rng, *array.shape)
        plan = Plan(network, buffer, 2)
        plan.prepare()
        plan.scale[:], plan.shift[:] = 0.5, np.arange(channels)
        images = rng.integers(0, 256, (2, 5, 6, channels), np.uint8)
        plan.forward(images)
        got = plan.value().copy()
        plan.forward(images.astype(np.float32) * plan.scale + plan.shift)
        np.testing.assert_array_equal(got, plan.value())
        expected = pellucid.reference.conv(images * 0.5 + np.arange(channels), *buffer.arrays.values())
        np.testing.assert_array_equal(got, expected)
