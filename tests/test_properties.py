"""What convolution and training must satisfy by themselves, whatever computes them.

Linearity, shift equivariance and adjointness hold exactly on small integers, in the compiled kernels' float32.
Threads and batches change no bit of a result.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import parse, problems
from three_ways import by_definition, integers, normals, parameters

import pellucid
from pellucid import Model, Network, TrainStep, ops, optim
from pellucid import processors as threads
from pellucid.engine.parameters import ParameterBuffer
from pellucid.engine.plan import Plan
from pellucid.layers import (
    GELU,
    AvgPool,
    BatchNorm,
    Conv,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool,
    LeakyReLU,
    MaxPool,
    ReLU,
    Sigmoid,
    SiLU,
    Softmax,
    Tanh,
)
from pellucid.layers.loss import CrossEntropy
from pellucid.network import Concat, Residual, Sequential

seeds = st.integers(0, 2**32 - 1)


def drawn(p, seed, count=1):
    """Integer images (`count` sets of them), filters and output gradients for a problem."""
    rng = np.random.default_rng(seed)
    xs = [integers(rng, p.n, *p.shape) for _ in range(count)]
    return *xs, integers(rng, *p.weight_shape), integers(rng, p.n, *p.output, p.filters)


@settings(max_examples=40, deadline=None)
@given(problems(), seeds)
def test_convolution_is_linear_in_the_image_and_in_the_filter(p, seed):
    x, z, w, dy = drawn(p, seed, 2)
    v = np.flip(w, 0) + np.float32(1)
    np.testing.assert_array_equal(ops.conv(2 * x - 3 * z, w, **p.options),
                                  2 * ops.conv(x, w, **p.options) - 3 * ops.conv(z, w, **p.options))
    np.testing.assert_array_equal(ops.conv(x, w - 2 * v, **p.options),
                                  ops.conv(x, w, **p.options) - 2 * ops.conv(x, v, **p.options))
    np.testing.assert_array_equal(ops.conv_grad_weight(x - z, dy, p.kernel, **p.options),
                                  ops.conv_grad_weight(x, dy, p.kernel, **p.options)
                                  - ops.conv_grad_weight(z, dy, p.kernel, **p.options))


@settings(max_examples=60, deadline=None)
@given(problems(), seeds)
def test_both_gradients_are_adjoints(p, seed):
    """<conv(x, w), dy> = <x, grad_input(dy)> = <w, grad_weight(dy)>."""
    x, w, dy = drawn(p, seed)

    def inner(a, b):
        return float(np.vdot(a.astype(np.float64), b.astype(np.float64)))

    expected = inner(ops.conv(x, w, **p.options), dy)
    assert inner(x, ops.conv_grad_input(dy, w, p.size, **p.options)) == expected
    assert inner(w, ops.conv_grad_weight(x, dy, p.kernel, **p.options)) == expected


@settings(max_examples=30, deadline=None)
@given(problems(least=1), st.integers(1, 3), seeds)
def test_a_shift_of_the_image_shifts_the_result(p, shift, seed):
    """By a whole number of strides: zeros moved in look like padding."""
    x, w, _ = drawn(p, seed)
    moved = np.pad(x, [(0, 0)] + [(s * shift, 0) for s in p.stride] + [(0, 0)])
    y, z = ops.conv(x, w, **p.options), ops.conv(moved, w, **p.options)
    inside = (slice(None), *(slice(shift, shift + n) for n in y.shape[1:-1]))
    np.testing.assert_array_equal(z[inside], y)


def test_a_circular_shift_commutes_with_convolution_away_from_the_border():
    p = parse("n2 h12 w11 c3 k5 k3x3 p1")
    x, w, _ = drawn(p, 0)
    y, z = ops.conv(x, w, **p.options), ops.conv(np.roll(x, (2, 3), (1, 2)), w, **p.options)
    np.testing.assert_array_equal(z[:, 3:-1, 4:-1], y[:, 1:-3, 1:-4])
    assert not np.array_equal(z, y)


# Gradients.


def test_gradients_are_what_differences_say():
    """The loss of a small network, in float64 by its definition: every parameter moved by a little."""
    network = Network.build((5, 5, 2), Sequential(
        Conv(3, 3, padding=1), BatchNorm(), Tanh(), AvgPool(2, 1), Residual(Sequential(Conv(3, 3, padding=1), GELU())),
        Concat(Conv(2, 1), Sequential(Conv(1, 2, padding=((1, 0), (0, 1))), SiLU())), Flatten(), Dense(4), Sigmoid(),
        Dense(3)))
    rng = np.random.default_rng(0)
    values = {name: v.astype(np.float64) / 2 for name, v in parameters(network, rng).items()}
    x, labels, loss = normals(rng, 4, 5, 5, 2), np.array([0, 2, 1, 2]), CrossEntropy(0.1)

    def defined(values):
        y = by_definition(network, values, x, np.zeros((4, 3)), training=True).values[network.output]
        return loss.define(y, labels)

    buffer, gradient = (ParameterBuffer(network.parameters()) for _ in range(2))
    plan = Plan(network, buffer, 4, gradient=gradient, training=True, loss=loss)
    for name, value in values.items():
        buffer.arrays[name][...] = value
    plan.labels[:] = labels
    plan.forward(x)
    plan.backward()
    assert abs(float(plan.losses.mean()) - defined(values)[0]) < 1e-5
    expected = by_definition(network, values, x, defined(values)[1], training=True).gradients
    for name, g in expected.items():
        direction = rng.standard_normal(g.shape)
        ends = [defined({**values, name: values[name] + step * direction})[0] for step in (1e-5, -1e-5)]
        slope = (ends[0] - ends[1]) / 2e-5
        assert abs(slope - np.vdot(g, direction)) < 1e-8, name
        assert abs(slope - np.vdot(gradient.arrays[name], direction)) < 2e-5, name


# The same bits.

BODIES = {
    "convolutions": Sequential(Conv(20, 3, padding=1), ReLU(), Conv(17, 3, stride=2, padding=1), ReLU(), Flatten(),
                               Dense(10)),
    "all kinds": Sequential(
        Conv(18, 3, padding=1), BatchNorm(), LeakyReLU(0.1), MaxPool(2), Dropout(0.3),
        Residual(Sequential(Conv(18, 3, padding=1, groups=2), BatchNorm(), SiLU())), AvgPool(3, 1, 1),
        Concat(Conv(5, 1), Conv(9, 5, padding=2)), GELU(), Conv(14, 3, padding=1, groups=14), Tanh(), Flatten(),
        Dense(40), Sigmoid(), Dense(10)),
    "global pool": Sequential(Conv(33, 5, stride=2), ReLU(), GlobalAvgPool(), Dense(10), Softmax()),
    "dense": Sequential(Flatten(), Dense(70), ReLU(), Dense(10)),
    "in one pass": Sequential(
        Conv(32, 3, padding=1), ReLU(), MaxPool(2), Conv(32, 3, padding=1), ReLU(), MaxPool(2),
        Conv(40, 1), BatchNorm(), ReLU(), Residual(Sequential(Conv(40, 3, padding=1), BatchNorm())), ReLU(),
        Conv(40, 3, padding=1), BatchNorm(), ReLU(), MaxPool(2), Flatten(), Dense(10)),
}


@pytest.fixture
def thread_count(monkeypatch):
    monkeypatch.setattr(threads, "_chosen", None)
    return pellucid.set_threads


def made(body, shape=(12, 13, 3)):
    return Model(Network.build(shape, body), seed=3)


@pytest.mark.parametrize("name", ["convolutions", "all kinds", "dense", "in one pass"])
@pytest.mark.parametrize("optimizer", [optim.SGD(0.05, momentum=0.9, nesterov=True), optim.AdamW(0.01)],
                         ids=["sgd", "adamw"])
def test_threads_change_no_bit_of_training(name, optimizer, thread_count):
    rng = np.random.default_rng(0)
    x, labels = normals(rng, 21, 12, 13, 3), rng.integers(0, 10, 21)
    runs = []
    for count in (1, 2, 3, 4):
        thread_count(count)
        model = made(BODIES[name])
        step = TrainStep(model, 21, optimizer, seed=5)
        losses = [step(x, labels) for _ in range(4)]
        runs.append((losses, {n: p.copy() for n, p in model.parameters.items()}, model.logits(x)))
        assert pellucid.threads() == count
    assert len(set(runs[0][0])) == 4  # it learns
    for losses, values, logits in runs[1:]:
        assert losses == runs[0][0]
        for parameter, value in values.items():
            np.testing.assert_array_equal(value, runs[0][1][parameter], parameter)
        np.testing.assert_array_equal(logits, runs[0][2])


@pytest.mark.parametrize("name", BODIES)
def test_batches_and_threads_change_no_bit_of_inference(name, thread_count):
    model, rng = made(BODIES[name]), np.random.default_rng(1)
    x = normals(rng, 130, 12, 13, 3)
    thread_count(2)
    expected = np.concatenate([model.logits(x[i : i + 1]) for i in range(len(x))])
    assert len(np.unique(expected, axis=0)) == len(x)
    for count in (1, 2, 3, 4):
        thread_count(count)
        for batch in (2, 5, 64, 65, 130):
            np.testing.assert_array_equal(model.logits(x[:batch]), expected[:batch], f"{batch} images")
    np.testing.assert_array_equal(model.logits(x[::-1]), expected[::-1])
    assert model.logits(x[:0]).shape == (0, 10)


@pytest.mark.parametrize("shape", [(40,), (30, 2)])
def test_batches_change_no_bit_of_other_inputs(shape):
    body = Sequential(*([Conv(17, 3)] if len(shape) == 2 else []), Flatten(), Dense(18), ReLU(), Dense(3))
    model, x = made(body, shape), normals(np.random.default_rng(0), 70, *shape)
    single = np.concatenate([model.logits(x[i : i + 1]) for i in range(70)])
    np.testing.assert_array_equal(model.logits(x), single)


@pytest.mark.parametrize("batch", [1, 2, 5, 7, 14, 65])
def test_plans_of_every_batch_give_the_same_bits(batch):
    """Plans made for the batch, not in chunks: a dense layer's register tile depends on the batch."""
    model, x = made(BODIES["all kinds"]), normals(np.random.default_rng(2), batch, 12, 13, 3)
    plan = Plan(model.network, model.buffer, batch)
    plan.prepare()
    plan.forward(x)
    np.testing.assert_array_equal(plan.value(), np.concatenate([model.logits(x[i : i + 1]) for i in range(batch)]))
