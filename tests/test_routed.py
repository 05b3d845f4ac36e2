"""Gradients that begin from a pooled map: those of the map between, to the bit, wherever they are used."""

from unittest import mock

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from test_fusion import results
from three_ways import by_torch, integers, normals, parameters, within

from pellucid.engine import algorithms
from pellucid.engine.parameters import ParameterBuffer
from pellucid.engine.plan import Plan
from pellucid.layers import AvgPool, Conv, Dense, Dropout, Flatten, GlobalAvgPool, MaxPool, ReLU, routed
from pellucid.network import Concat, Network, Residual, Sequential

ROUTED = ["conv_pool_grad_weight", "conv_pool_grad_input"]


def names_where_alike(shape, *layers, n=3, seed=0):
    """The calls' names of a plan whose gradients, of integers, are those of direct convolutions to the bit. Both have
    Winograd's forward pass, so that the same places hold the maxima."""
    network, rng = Network.build(shape, Sequential(*layers)), np.random.default_rng(seed)
    values = parameters(network, rng, integers)
    x, dy = integers(rng, n, *network.input_shape), integers(rng, n, *network.output_shape)
    with mock.patch.object(algorithms, "choose", lambda isa, direction, *shape: (
            "winograd" if direction == "forward" else "direct")):
        names, y, gradients = results(network, x, dy, values)
        with mock.patch.object(routed, "fits", lambda sums: False):
            others, same, expected = results(network, x, dy, values)
    assert not set(ROUTED) & set(others)
    np.testing.assert_array_equal(y, same)
    for name in gradients:
        np.testing.assert_array_equal(gradients[name], expected[name], name)
    return names


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 9), st.integers(2, 17), st.integers(2, 17), st.integers(16, 64), st.integers(1, 64),
       st.sampled_from([0, 1, 2, ((0, 1), (2, 0))]), st.booleans(), st.booleans(), st.integers(0, 2**32 - 1))
def test_any_map_gives_the_same_gradients(n, height, width, channels, filters, padding, first, last, seed):
    conv = Conv(filters, 3, padding=padding, bias=False)
    assume(min(height, width) + 2 * (padding if isinstance(padding, int) else 0) >= 4)
    small = conv.output_shape((height, width, channels))[:2]
    assume((small[0] // 2) * (small[1] // 2) <= routed.LARGEST)
    names = names_where_alike((height, width, 3), Conv(channels, 1, bias=False), *[ReLU()] * first, conv,
                              *[ReLU()] * last, MaxPool(2), n=n, seed=seed)
    assert set(ROUTED) <= set(names) and "max_pool_grad" not in names
    assert names.count("relu_grad") == last  # the first ReLU's is computed along


def test_a_map_that_two_layers_read_keeps_its_own_relu():
    names = names_where_alike((8, 8, 3), Conv(32, 1, bias=False), ReLU(), Residual(Sequential(
        Conv(16, 3, padding=1, bias=False), MaxPool(2), Conv(32, 1, bias=False)), Conv(32, 2, stride=2, bias=False)))
    assert set(ROUTED) <= set(names) and "relu_grad" in names


@pytest.mark.parametrize("swapped", [False, True])
def test_a_halo_that_another_reader_asks_for_later(swapped):
    branches = [Sequential(Conv(64, 3, bias=False), GlobalAvgPool()),
                Sequential(Conv(32, 3, padding=1, bias=False), MaxPool(2), GlobalAvgPool())]
    network = Network.build((7, 7, 16), Sequential(Conv(32, 1, bias=False), Concat(*branches[::-1 if swapped else 1])))
    rng = np.random.default_rng(0)
    values, x = parameters(network, rng, normals), normals(rng, 3, 7, 7, 16)
    dy = normals(rng, 3, *network.output_shape)
    with mock.patch.object(algorithms, "choose", lambda isa, direction, *shape: (
            "winograd" if direction == "weight" or shape[-1] == 32 else "direct")):
        names, _, gradients = results(network, x, dy, values)
        assert ROUTED[0] in names and "winograd_grad_weight" in names
        with mock.patch.object(routed, "fits", lambda sums: False):
            _, _, expected = results(network, x, dy, values)
    for name in gradients:
        within(1e-4)(name, gradients[name], expected[name])


@pytest.mark.parametrize("rate, training", [(0.0, True), (0.5, False)])
def test_a_relu_behind_a_layer_that_hands_on_its_input(rate, training):
    """Two pools read what a dropout hands on; the ReLU's derivative is nobody's to take along."""
    network = Network.build((8, 8, 16), Sequential(
        Conv(16, 1, bias=False), ReLU(), Dropout(rate), Concat(MaxPool(2), AvgPool(2)), Conv(4, 1, bias=False)))
    rng = np.random.default_rng(0)
    values, x = parameters(network, rng, integers), integers(rng, 2, 8, 8, 16)
    dy = integers(rng, 2, *network.output_shape)
    _, y, gradients = results(network, x, dy, values, training=training)
    expected = by_torch(network, values, x, dy)
    np.testing.assert_array_equal(y, expected.values[network.output])
    for name in gradients:
        np.testing.assert_array_equal(gradients[name], expected.gradients[name], name)


def test_a_dense_layer_computes_the_relu_before_it_along():
    names = names_where_alike((8, 8, 16), Conv(32, 3, padding=1, bias=False), ReLU(), MaxPool(2), Flatten(),
                              Dense(4, bias=False))
    assert names.count("relu_grad") == 1 and names.count("copy_blocks") == 1


@pytest.mark.parametrize("shape, filters", [((18, 18, 32), 32), ((8, 8, 80), 32), ((8, 8, 32), 80)])
def test_large_maps_and_many_channels_are_not_routed(shape, filters):
    names = names_where_alike(shape, Conv(filters, 3, padding=1, bias=False), MaxPool(2))
    assert "max_pool_grad" in names and not set(ROUTED) & set(names)


def test_gradients_that_are_not_numbers_are_passed_on():
    network = Network.build((4, 4, 32), Sequential(Conv(32, 3, padding=1, bias=False), MaxPool(2)))
    buffer, gradient = ParameterBuffer(network.parameters()), ParameterBuffer(network.parameters())
    for array in buffer.arrays.values():
        array[...] = 1
    plan = Plan(network, buffer, 1, gradient=gradient, input_gradient=True)
    plan.forward(np.ones((1, 4, 4, 32), np.float32))
    dy = np.zeros((1, 2, 2, 32), np.float32)
    dy[0, 0, 0, 3] = np.nan
    plan.backward(dy)
    (weight,) = gradient.arrays.values()
    assert ROUTED[1] in [call.name for call in plan._calls]
    assert np.isnan(plan.input_gradient[0, 0, 0]).all() and not np.isnan(plan.input_gradient[0, 3, 3]).any()
    assert np.isnan(weight[3]).any() and not np.isnan(weight[4]).any()
