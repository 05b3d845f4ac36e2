"""A step of training: PyTorch's optimisers step by step, memory that stays where it is, and steps that fail."""

import tracemalloc

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from three_ways import normals

from pellucid import Diverged, Model, Network, Preprocessing, TrainStep, optim, schedules
from pellucid.engine.library import library
from pellucid.geometry import UPDATE
from pellucid.layers import BatchNorm, Conv, Dense, Dropout, Flatten, GlobalAvgPool, MaxPool, ReLU, Softmax, Tanh
from pellucid.network import Sequential

SMOOTH = Sequential(Conv(18, 3, padding=1), Tanh(), Flatten(), Dense(4))
FULL = Sequential(Conv(8, 3, padding=1), BatchNorm(), ReLU(), MaxPool(2), Dropout(0.2), Flatten(), Dense(4))


def model(body=FULL, seed=1):
    return Model(Network.build((6, 6, 3), body), seed)


def batch(n=8, seed=0):
    rng = np.random.default_rng(seed)
    return normals(rng, n, 6, 6, 3), rng.integers(0, 4, n)


def snapshot(m):
    return {name: p.copy() for name, p in m.parameters.items()}


def unchanged(m, before):
    for name, value in before.items():
        np.testing.assert_array_equal(m.parameters[name], value, name)


# Optimisers.

OPTIMISERS = {
    "sgd": (optim.SGD(0.1), lambda p: torch.optim.SGD(p, 0.1)),
    "sgd with decay": (optim.SGD(0.1, weight_decay=0.1), lambda p: torch.optim.SGD(p, 0.1, weight_decay=0.1)),
    "momentum": (optim.SGD(0.05, momentum=0.9, weight_decay=0.01),
                 lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, weight_decay=0.01)),
    "nesterov": (optim.SGD(0.05, momentum=0.9, nesterov=True, weight_decay=0.01),
                 lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, nesterov=True, weight_decay=0.01)),
    "adam": (optim.Adam(0.01), lambda p: torch.optim.Adam(p, 0.01)),
    "adam with decay": (optim.Adam(0.01, (0.8, 0.99), 1e-4, 0.1),
                        lambda p: torch.optim.Adam(p, 0.01, (0.8, 0.99), 1e-4, 0.1)),
    "adamw": (optim.AdamW(0.01, weight_decay=0.1), lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.1)),
}


@pytest.mark.parametrize("name", OPTIMISERS)
def test_ten_steps_are_pytorchs(name):
    mine, theirs = OPTIMISERS[name]
    m = model(SMOOTH)
    tensors = {n: torch.tensor(p, dtype=torch.float64, requires_grad=True) for n, p in m.parameters.items()}
    optimiser, step = theirs(list(tensors.values())), TrainStep(m, 8, mine, label_smoothing=0.1)
    for i in range(10):
        x, labels = batch(seed=i)
        t = torch.tensor(x, dtype=torch.float64).permute(0, 3, 1, 2)
        h = torch.tanh(F.conv2d(t, tensors["conv1.weight"], tensors["conv1.bias"], padding=1)).flatten(1)
        loss = F.cross_entropy(F.linear(h, tensors["dense1.weight"], tensors["dense1.bias"]), torch.tensor(labels),
                               label_smoothing=0.1)
        optimiser.zero_grad()
        loss.backward()
        assert abs(step(x, labels) - loss.item()) < 2e-5
        for n, g in step.gradients().items():
            np.testing.assert_allclose(g, tensors[n].grad.numpy(), atol=1e-5, err_msg=n)
        optimiser.step()
    for n, t in tensors.items():
        np.testing.assert_allclose(m.parameters[n], t.detach().numpy(), atol=5e-5, err_msg=n)
    assert step.steps == 10


def test_a_schedule_sets_the_rate_of_every_step():
    m = model(SMOOTH)
    step = TrainStep(m, 8, optim.SGD(schedules.Cosine(0.1, steps=4)))
    for i in range(4):
        before = snapshot(m)
        step(*batch())
        assert step.lr == schedules.Cosine(0.1, steps=4)(i)
        for n, g in step.gradients().items():
            np.testing.assert_allclose(m.parameters[n], before[n] - np.float32(step.lr) * g, atol=1e-6)


def test_resuming_is_not_having_stopped():
    whole, first = model(), model()
    a = TrainStep(whole, 8, optim.Adam(0.01), seed=3)
    b = TrainStep(first, 8, optim.Adam(0.01), seed=3)
    for i in range(6):
        a(*batch(seed=i))
    for i in range(3):
        b(*batch(seed=i))
    state, values = {n: s.copy() for n, s in b.state().items()}, snapshot(first)
    second = model(seed=9)
    second.load_parameters(values)
    c = TrainStep(second, 8, optim.Adam(0.01), seed=3)
    c.load_state(state, b.steps)
    for i in range(3, 6):
        c(*batch(seed=i))
    assert c.steps == 6
    unchanged(second, snapshot(whole))


@pytest.mark.parametrize("change", [lambda s: s.pop("m.conv1.bias"), lambda s: s.update(other=np.zeros(2)),
                                    lambda s: s.update({"m.conv1.bias": np.zeros(2)})])
def test_a_state_that_does_not_fit_changes_nothing(change):
    step = TrainStep(model(), 8, optim.Adam(0.01))
    step(*batch())
    before = {n: s.copy() for n, s in step.state().items()}
    state = {n: s + 1 for n, s in before.items()}
    change(state)
    with pytest.raises(ValueError, match="must have"):
        step.load_state(state, 5)
    assert step.steps == 1
    for n, s in before.items():
        np.testing.assert_array_equal(step.state()[n], s)


# Memory.


def test_nothing_grows_and_nothing_moves():
    """After the first step: no activation is allocated, and the arena stays where it is."""
    m = Model(Network.build((32, 32, 3), Sequential(
        Conv(8, 3, padding=1), BatchNorm(), ReLU(), MaxPool(2), Conv(8, 3), ReLU(), MaxPool(2), Flatten(), Dense(4))))
    rng = np.random.default_rng(0)
    x, labels = normals(rng, 16, 32, 32, 3), rng.integers(0, 4, 16)
    step = TrainStep(m, 16, optim.SGD(0.01, momentum=0.9))
    step(x, labels)
    addresses = step._plan._arena.ctypes.data, m.buffer.flat.ctypes.data
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(20):
            step(x, labels)
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert addresses == (step._plan._arena.ctypes.data, m.buffer.flat.ctypes.data)
    assert peak - before < 32_000 < step.memory() / 50
    assert after - before < 8_000


# Steps that fail.


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_pixels_that_are_no_numbers_stop_training_before_anything_changes(value):
    m, twin = model(), model()
    step, other = (TrainStep(one, 8, optim.SGD(0.1, momentum=0.9)) for one in (m, twin))
    x, labels = batch()
    assert step(x, labels) == other(x, labels)
    before, state = snapshot(m), {n: s.copy() for n, s in step.state().items()}
    bad = x.copy()
    bad[3, 2, 2, 1] = value
    with pytest.raises(Diverged, match="step 2.*learning rate") as e:
        step(bad, labels)
    assert e.value.step == 2 and isinstance(e.value, ValueError) and step.steps == 1
    unchanged(m, before)
    for n, s in state.items():
        np.testing.assert_array_equal(step.state()[n], s)
    assert np.isfinite(m.logits(x)).all()
    assert step(x, labels) == other(x, labels)  # and training goes on as if it had not happened
    unchanged(m, snapshot(twin))


def test_a_loss_that_is_finite_with_a_gradient_that_is_not():
    m = Model(Network.build((2,), Sequential(Dense(2), Dense(2))))
    m.load_parameters({"dense1.weight": np.array([[1, -1], [1, -1]]), "dense1.bias": np.zeros(2),
                       "dense2.weight": np.array([[10, 0], [0, 0]]), "dense2.bias": np.zeros(2)})
    before = snapshot(m)
    with pytest.raises(Diverged, match="the gradient is not a finite number"):
        TrainStep(m, 3, optim.SGD(0.1))(np.full((3, 2), 3e38, np.float32), np.array([1, 1, 1]))
    unchanged(m, before)


@pytest.mark.parametrize("x, labels, text", [
    (batch()[0], np.array([0, 1, 2, 3, 0, 1, 2, 4]), "from 0 to 3, got 0 to 4"),
    (batch()[0], np.array([0, 1, 2, 3, 0, 1, 2, -1]), "from 0 to 3, got -1 to 3"),
    (batch()[0], np.zeros(7, int), "8 integer labels"),
    (batch()[0], np.zeros((8, 1), int), "8 integer labels"),
    (batch()[0], np.zeros(8), "integer labels, got float64"),
    (batch()[0][:7], np.zeros(7, int), r"\(8, 6, 6, 3\)"),
    (batch()[0][:, :5], np.zeros(8, int), r"\(8, 6, 6, 3\)"),
    (batch()[0].astype(np.float64), np.zeros(8, int), "float32"),
    (np.zeros((8, 6, 6, 3), np.uint8), np.zeros(8, int), "preprocessing"),
])
def test_what_does_not_fit_is_refused_and_changes_nothing(x, labels, text):
    m = model()
    before, step = snapshot(m), TrainStep(m, 8, optim.SGD(0.1))
    with pytest.raises(ValueError, match=text) as e:
        step(x, labels)
    assert not isinstance(e.value, Diverged) and step.steps == 0
    unchanged(m, before)


@pytest.mark.parametrize("size", [0, -1, 1.5, True, "8"])
def test_a_batch_size_is_a_positive_integer(size):
    with pytest.raises(ValueError, match="batch_size"):
        TrainStep(model(), size, optim.SGD(0.1))


def test_a_network_without_scores_cannot_be_trained():
    with pytest.raises(ValueError, match="ends in scores"):
        TrainStep(model(Conv(4, 3)), 8, optim.SGD(0.1))


def test_a_network_that_ends_in_softmax_is_refused():
    with pytest.raises(ValueError, match="without its last layer"):
        TrainStep(model(Sequential(Flatten(), Dense(4), Softmax())), 8, optim.SGD(0.1))


def test_a_network_without_parameters_is_refused():
    with pytest.raises(ValueError, match="no parameters"):
        TrainStep(model(GlobalAvgPool()), 8, optim.SGD(0.1))


def test_uint8_images_are_preprocessed_on_the_way_in():
    pre = Preprocessing((6, 6, 3), (0.5, 0.4, 0.3), (0.25, 0.5, 0.2))
    images = np.random.default_rng(0).integers(0, 256, (8, 6, 6, 3), np.uint8)
    network, labels = Network.build((6, 6, 3), SMOOTH), np.arange(8) % 4
    losses = [TrainStep(Model(network, preprocessing=pre), 8, optim.SGD(0.1))(x, labels)
              for x in (images, pre.apply(images))]
    assert abs(losses[0] - losses[1]) < 1e-6


def test_the_seed_decides_what_dropout_drops():
    def losses(seed):
        step = TrainStep(model(), 8, optim.SGD(0.0), seed=seed)
        return [step(*batch()) for _ in range(3)]

    assert losses(1) == losses(1) != losses(2)
    assert len(set(losses(1))) == 3  # another mask every step


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("size", [16, UPDATE, UPDATE + 48, 3 * UPDATE - 16])
def test_a_number_that_is_not_finite_shows_in_its_chunks_sum(size, bad):
    numbers = np.random.default_rng(0).integers(-9, 10, size).astype(np.float32)
    sums = np.zeros(-(-size // UPDATE), np.float32)
    call = library().kernel("chunk_sums").bind(g=numbers, sums=sums)
    call()
    np.testing.assert_array_equal(sums, [numbers[i : i + UPDATE].sum() for i in range(0, size, UPDATE)])
    for place in {0, size // 2, size - 1}:
        kept, numbers[place] = numbers[place], bad
        call()
        assert [not np.isfinite(s) for s in sums] == [i == place // UPDATE for i in range(len(sums))]
        numbers[place] = kept
