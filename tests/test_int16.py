"""Winograd's kernels on integers of 16 bits: how far they err, that no sum overflows, and that bits stay the same."""

from unittest import mock

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_winograd import agree_on_a_map, algorithm, any_map
from three_ways import agree, by_definition, by_engine, compare, normals, parameters, within

import pellucid
from pellucid import processors
from pellucid.engine.library import library
from pellucid.engine.plan import Plan
from pellucid.layers import BatchNorm, Conv, Dense, GlobalAvgPool, MaxPool, ReLU, conv
from pellucid.layers.winograd import MOST_INTEGER, limits
from pellucid.model import Model
from pellucid.network import Network, Sequential
from pellucid.optim import SGD
from pellucid.training.step import Diverged, TrainStep

pytestmark = pytest.mark.skipif("int16" not in library().precisions,
                                reason="this processor gains nothing by integers, and has no such kernels")

BOUND = 0.025  # of the largest value, for normal data and up to 256 channels: docs/engine.md states it


def plan_of(network, n, **options):
    model = Model(network, seed=1)
    return model, Plan(network, model.buffer, n, gradient=type(model.buffer)(network.parameters()), training=True,
                       input_gradient=True, precision="int16", **options)


@settings(deadline=None, max_examples=40)
@example(2, 29, 37, 32, 32, 1, 0)
@any_map
def test_three_ways_on_any_map(n, height, width, channels, filters, padding, seed):
    agree_on_a_map(n, height, width, channels, filters, padding, seed, tolerance=BOUND, precision="int16")


@pytest.mark.parametrize("channels", [64, 256])
def test_the_bound_holds_for_many_channels(channels):
    network = Network.build((8, 8, channels), Conv(channels, 3, padding=1))
    with algorithm("winograd"):
        agree(network, 2, channels, exact=False, tolerance=BOUND, precision="int16")


def test_the_kernels_are_those_of_integers_where_it_is_asked_for():
    network = Network.build((8, 8, 96), Sequential(
        Conv(96, 3, padding=1), MaxPool(2), BatchNorm(), ReLU(), Conv(96, 3, padding=1)))
    with algorithm("winograd"):
        names = [call.name for call in plan_of(network, 2)[1]._calls]
    assert [n for n in names if n.startswith("winograd") and "filter" not in n] == [
        "winograd_pool_int16", "winograd_int16", "winograd_grad_weight_int16", "winograd_int16",
        "winograd_unpool_grad_weight_int16", "winograd_unpool_int16"]
    # Of the two inputs, and of the two gradients.
    assert names.count("largest") == 4 and names.count("largest_filter") == 2


@given(st.integers(1, 10**6), st.integers(1, 8))
def test_limits_leave_no_sum_above_32_bits(terms, ratio):
    first, second = limits(terms, ratio)
    assert 1 <= second <= first <= MOST_INTEGER
    assert terms * first * second < 2**31


def worst(transform):
    """For each of a tile's 36 points the values of at most 1 that its transform enlarges most, (36, n, n)."""
    signs = np.sign(transform)
    return (signs[:, None, :, None] * signs[None, :, None, :]).reshape(36, transform.shape[1], -1)


P, Q = 2 / 3, 3 / 2  # the points of kernels/winograd.py; transforms by Lavin and Gray's definition
INPUT = np.linalg.inv(np.array([[t**j for j in range(6)] for t in (0, P, -P, Q, -Q)] + [[0] * 5 + [1]])).T
FILTER = np.array([[t**j for j in range(3)] for t in (0, P, -P, Q, -Q)] + [[0, 0, 1]])
GRADIENT = np.array([[t**j for j in range(4)] for t in (0, P, -P, Q, -Q)] + [[0, 0, 0, 1]])


@pytest.mark.parametrize("channels", [32, 256])
def test_the_largest_sums_there_can_be_do_not_overflow(channels):
    """Every channel of x and w has, at one point of the tile, the largest value there is."""
    network = Network.build((6, 6, channels), Conv(36, 3, bias=False))
    x = np.repeat(worst(INPUT)[..., None], channels, 3).astype(np.float32)
    w = np.repeat(worst(FILTER)[:, None], channels, 1).astype(np.float32)
    dy = normals(np.random.default_rng(0), 36, 4, 4, 36)
    with algorithm("winograd"):
        got = by_engine(network, {"conv1.weight": w}, x, dy, precision="int16")
    expected = by_definition(network, {"conv1.weight": w}, x, dy)
    compare(got, expected, within(BOUND))


def test_the_largest_gradients_there_can_be_do_not_overflow():
    """Every tile of x and dy has, at one point, the largest value there is, in all of several chunks."""
    network = Network.build((6, 6, 36), Conv(36, 3, bias=False))
    x = np.repeat(np.moveaxis(worst(INPUT), 0, -1)[None], 400, 0).astype(np.float32)
    dy = np.repeat(np.moveaxis(worst(GRADIENT), 0, -1)[None], 400, 0).astype(np.float32)
    w = {"conv1.weight": normals(np.random.default_rng(0), 36, 36, 3, 3)}
    with algorithm("winograd"):
        got = by_engine(network, w, x, dy, precision="int16")
    # Rounding errors are the same in all images, and add up; a sum that overflows would be off by more than itself.
    compare(got, by_definition(network, w, x, dy), within(4 * BOUND))


def test_neither_threads_nor_the_batch_change_a_bit(monkeypatch):
    monkeypatch.setattr(processors, "_chosen", None)
    network = Network.build((9, 10, 32), Sequential(Conv(48, 3, padding=1), ReLU(), MaxPool(2), Conv(33, 3)))
    x = normals(np.random.default_rng(3), 70, 9, 10, 32)
    x *= np.exp(normals(np.random.default_rng(5), 70, 1, 1, 1))
    dy = normals(np.random.default_rng(4), 70, *network.output_shape)
    drawn = {n: a.copy() for n, a in Model(network, seed=1).buffer.arrays.items()}
    seen = []
    with algorithm("winograd"):
        for count in (1, 2, 3, 12):
            pellucid.set_threads(count)
            seen.append(by_engine(network, drawn, x, dy, precision="int16"))
        one = by_engine(network, drawn, x[7:8], dy[7:8], precision="int16")
    for other in seen[1:]:
        compare(other, seen[0], lambda what, got, expected: np.testing.assert_array_equal(got, expected, what))
    np.testing.assert_array_equal(one.values[network.output], seen[0].values[network.output][7:8])
    np.testing.assert_array_equal(one.dx, seen[0].dx[7:8])


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, 3e38])
def test_what_is_not_finite_spoils_its_image_and_no_other(wrong):
    network = Network.build((8, 8, 32), Conv(32, 3, padding=1))
    x = normals(np.random.default_rng(0), 3, 8, 8, 32)
    x[0, 0, 0, 0] = wrong
    x[1] = 0
    with algorithm("winograd"):
        model, plan = plan_of(network, 3)
        plan.prepare()
        plan.forward(x)
        y = plan.value(network.output)
        plan.backward(normals(np.random.default_rng(1), 3, 8, 8, 32))
    assert not np.isfinite(y[0]).any() and np.isfinite(y[2]).all()
    assert not np.isfinite(plan._builder._gradient.arrays["conv1.weight"]).any()
    np.testing.assert_array_equal(y[1], np.broadcast_to(model.buffer.arrays["conv1.bias"], (8, 8, 32)))


def trained(precision, steps=30):
    network = Network.build((8, 8, 32), Sequential(Conv(48, 3, padding=1, bias=False), BatchNorm(), ReLU(),
                                                   Conv(48, 3, padding=1), ReLU(), GlobalAvgPool(), Dense(4)))
    model, rng = Model(network, seed=2), np.random.default_rng(1)
    with algorithm("winograd"):
        step = TrainStep(model, 32, SGD(0.1), precision=precision)
    patterns = normals(rng, 4, 8, 8, 32)
    losses = []
    for _ in range(steps):
        labels = rng.integers(0, 4, 32)
        losses.append(step(patterns[labels] + normals(rng, 32, 8, 8, 32), labels))
    return model, step, losses


def test_training_follows_that_in_float32():
    (_, exact, expected), (model, step, losses) = (trained(p) for p in ("float32", "int16"))
    np.testing.assert_allclose(losses, expected, rtol=0.02)
    assert losses[-1] < losses[0] / 2 and losses != expected
    np.testing.assert_array_equal(trained("int16")[0].buffer.flat, model.buffer.flat)


def test_weights_that_are_not_finite_are_found():
    model, step, _ = trained("int16", 1)
    model.buffer.arrays["conv2.weight"][3, 5, 1, 1] = np.nan
    rng = np.random.default_rng(0)
    with pytest.raises(Diverged):
        step(normals(rng, 32, 8, 8, 32), rng.integers(0, 4, 32))


def test_an_unknown_precision():
    network = Network.build((32,), Dense(4))
    with pytest.raises(ValueError, match="int16 or float32 on this processor, got 'int8'"):
        TrainStep(Model(network), 2, SGD(0.1), precision="int8")


@settings(deadline=None, max_examples=25)
@example(1, 7, 9, 33, 70, 0)
@given(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9), st.integers(16, 80), st.integers(65, 96),
       st.integers(0, 2**32 - 1))
def test_gradients_through_a_maximum_are_those_of_the_map_between(n, height, width, channels, filters, seed):
    """Of the same sums, rounded to the same integers but where compilers contract what is before differently."""
    network = Network.build((2 * height, 2 * width, channels), Sequential(Conv(filters, 3, padding=1), MaxPool(2)))
    rng = np.random.default_rng(seed)
    drawn = parameters(network, rng)
    x, dy = normals(rng, n, *network.input_shape), normals(rng, n, *network.output_shape)
    seen = []
    for there in (True, False):
        with algorithm("winograd"), mock.patch.object(conv, "unpools", lambda b, s, there=there: there):
            assert ("winograd_unpool_int16" in [c.name for c in plan_of(network, n)[1]._calls]) == there
            seen.append(by_engine(network, drawn, x, dy, precision="int16"))
    compare(*seen, within(BOUND / 10))


@pytest.mark.parametrize("shape, padding", [
    ((16, 16, 32), 1), ((18, 14, 32), 1), ((9, 9, 32), ((1, 0), (1, 0))), ((9, 9, 32), ((1, 2), (1, 2))),
    ((8, 9, 32), ((1, 1), (1, 0))), ((16, 16, 32), 0), ((17, 17, 32), 1)])
def test_whatever_kernels_are_chosen(shape, padding):
    """By the table itself, gradients that may go through the maximum are those that do not."""
    network = Network.build(shape, Sequential(Conv(80, 3, padding=padding), MaxPool(2)))
    rng = np.random.default_rng(3)
    drawn, x, dy = parameters(network, rng), normals(rng, 2, *shape), normals(rng, 2, *network.output_shape)
    got = by_engine(network, drawn, x, dy, precision="int16")
    with mock.patch.object(conv, "unpools", lambda b, s: False):
        compare(got, by_engine(network, drawn, x, dy, precision="int16"), within(BOUND / 10))
