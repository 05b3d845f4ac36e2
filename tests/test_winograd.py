"""Winograd's kernels: their error against float64 stays within a stated bound, and bits stay the same."""

from contextlib import contextmanager
from unittest import mock

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from three_ways import agree, normals

import pellucid
from pellucid import processors
from pellucid.engine import algorithms
from pellucid.engine.plan import Plan
from pellucid.layers import BatchNorm, Conv, MaxPool, ReLU
from pellucid.model import Model
from pellucid.network import Network, Residual, Sequential

# Of the largest value, for normal data: docs/engine.md states it. benchmarks/accuracy.py measures what it is.
BOUND = 2e-5


@contextmanager
def algorithm(kind):
    """Compute every convolution that Winograd's kernels can compute by one kind of kernel."""
    with mock.patch.object(algorithms, "choose", lambda *shape: kind):
        yield


def kernels_of(network, n, gradients=True):
    model = Model(network)
    plan = Plan(network, model.buffer, n, gradient=type(model.buffer)(network.parameters()) if gradients else None,
                input_gradient=gradients)
    return [call.name for call in plan._calls]


any_map = given(st.integers(1, 3), st.integers(1, 14), st.integers(1, 14), st.integers(16, 40), st.integers(1, 40),
                st.sampled_from([0, 1, 2, "same", 3, ((0, 1), (2, 0))]), st.integers(0, 2**32 - 1))


def agree_on_a_map(n, height, width, channels, filters, padding, seed, **options):
    """What `any_map` gives, three ways."""
    layer = Conv(filters, 3, padding=padding)
    if min(layer.output_shape((height, width, channels))) < 1:
        return
    with algorithm("winograd"):
        agree(Network.build((height, width, channels), layer), n, seed, exact=False, **options)


@settings(deadline=None, max_examples=60)
@example(2, 29, 37, 32, 32, 1, 0)  # more tiles than are transformed at a time, in both kinds of passes
@any_map
def test_three_ways_on_any_map(n, height, width, channels, filters, padding, seed):
    agree_on_a_map(n, height, width, channels, filters, padding, seed, tolerance=BOUND)


def test_it_is_winograds_kernels_that_run():
    network = Network.build((9, 9, 32), Conv(32, 3, padding=1))
    with algorithm("winograd"):
        names = kernels_of(network, 2)
    assert names.count("winograd") == 2 and names.count("winograd_grad_weight") == 1
    with algorithm("direct"):
        assert not any(name.startswith("winograd") for name in kernels_of(network, 2))


@pytest.mark.parametrize("channels", [64, 256])
def test_the_bound_holds_for_many_channels(channels):
    network = Network.build((8, 8, channels), Conv(channels, 3, padding=1))
    with algorithm("winograd"):
        agree(network, 2, channels, exact=False, tolerance=BOUND)


@pytest.mark.parametrize("training", [False, True])
def test_what_follows_is_computed_along(training):
    body = Sequential(Conv(32, 3, padding=1, bias=False), BatchNorm(), ReLU(), Conv(32, 3, padding=1), BatchNorm())
    network = Network.build((7, 6, 32), Sequential(Residual(body), ReLU()))
    with algorithm("winograd"):
        agree(network, 3, 5, exact=False, training=training, tolerance=2 * BOUND)
        names = kernels_of(network, 3, gradients=False)
    assert names == ["winograd", "winograd"]


@pytest.mark.parametrize("between", [(ReLU(),), (ReLU(), MaxPool(2))])
def test_neither_threads_nor_the_batch_change_a_bit(monkeypatch, between):
    monkeypatch.setattr(processors, "_chosen", None)
    network = Network.build((9, 10, 32), Sequential(Conv(48, 3, padding=1), *between, Conv(33, 3)))
    x = normals(np.random.default_rng(3), 70, 9, 10, 32)
    dy = normals(np.random.default_rng(4), 70, *network.output_shape)
    seen = []
    with algorithm("winograd"):
        for count in (1, 2, 3, 12):  # with so many, few blocks are a task
            pellucid.set_threads(count)
            model = Model(network, seed=1)
            whole = model.logits(x)
            np.testing.assert_array_equal(whole, np.concatenate([model.logits(x[i : i + 1]) for i in range(70)]))
            gradient = type(model.buffer)(network.parameters())
            plan = Plan(network, model.buffer, 70, gradient=gradient, input_gradient=True)
            plan.prepare()
            plan.forward(x)
            plan.backward(dy)
            seen.append((whole, gradient.flat.copy(), plan.input_gradient.copy()))
    for one in seen[1:]:
        for got, expected in zip(one, seen[0], strict=True):
            np.testing.assert_array_equal(got, expected)


def test_not_a_number_reaches_its_tiles_and_no_other_image():
    network = Network.build((8, 8, 32), Conv(32, 3, padding=1))
    x = normals(np.random.default_rng(0), 2, 8, 8, 32)
    x[0, 0, 0, 0] = np.nan
    with algorithm("winograd"):
        y = Model(network).logits(x)
    assert np.isnan(y[0, :2, :2]).all() and np.isfinite(y[1]).all()
