"""Muon: orthogonal directions by matrix products, against the singular value decomposition, and whole steps."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid import Model, Network, TrainStep, optim, processors, schedules
from pellucid.layers import BatchNorm, Conv, Dense, GlobalAvgPool, ReLU
from pellucid.muon import CUBIC, orthogonalise
from pellucid.network import Sequential

BODY = Sequential(Conv(6, 3, padding=1, bias=False), BatchNorm(), ReLU(), Conv(20, 3, bias=False), BatchNorm(), ReLU(),
                  Conv(5, 1, bias=False), BatchNorm(), GlobalAvgPool(), Dense(4))


def by_decomposition(x: np.ndarray, iterations: int) -> np.ndarray:
    """U p(p(...p(S / |S|))) V', with the singular values S of x and the polynomial p of the iteration."""
    u, s, v = np.linalg.svd(x.astype(np.float64), full_matrices=False)
    s /= np.sqrt((s * s).sum())
    a, b, c = CUBIC
    for _ in range(iterations):
        s = a * s + b * s**3 + c * s**5
    return u * s @ v


def orthogonalised(x: np.ndarray, iterations: int) -> np.ndarray:
    x, side = x.copy(), min(x.shape)
    orthogonalise(x, iterations, np.empty_like(x), np.empty((5, side, side), np.float32))
    return x


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(1, 40), columns=st.integers(1, 40), iterations=st.integers(1, 6), seed=st.integers(0, 999))
def test_singular_values_move_and_directions_stay(rows, columns, iterations, seed):
    x = np.random.default_rng(seed).standard_normal((rows, columns), np.float32)
    np.testing.assert_allclose(orthogonalised(x, iterations), by_decomposition(x, iterations), atol=2e-4)


def test_five_steps_bring_a_matrix_near_an_orthogonal_one():
    x = np.random.default_rng(0).standard_normal((30, 200), np.float32)
    values = np.linalg.svd(orthogonalised(x, 5), compute_uv=False)
    assert 0.6 < values.min() and values.max() < 1.3


@pytest.mark.parametrize("rows, columns", [(64, 576), (200, 64), (96, 96)])
@pytest.mark.parametrize("iterations", [3, 5, 20])
def test_of_large_matrices(rows, columns, iterations):
    """Whose small singular values rounding would move."""
    rng = np.random.default_rng(rows)
    x = (rng.standard_normal((rows, columns)) * 10 ** rng.uniform(-4, 0, columns)).astype(np.float32)
    np.testing.assert_allclose(orthogonalised(x, iterations), by_decomposition(x, iterations), atol=2e-3)


def test_a_matrix_of_zeros_stays():
    assert not orthogonalised(np.zeros((3, 4), np.float32), 3).any()


def batch(seed):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((8, 6, 6, 3), np.float32), rng.integers(0, 4, 8)


def trained(threads=None, steps=4, **fields):
    model = Model(Network.build((6, 6, 3), BODY), 1)
    step = TrainStep(model, 8, optim.Muon(schedules.Cosine(0.1, 10), **fields), factors={"conv2.weight": 0.5})
    for i in range(steps):
        step(*batch(i))
    return model, step


def test_steps_are_those_of_the_formula():
    model = Model(Network.build((6, 6, 3), BODY), 1)
    optimizer = optim.Muon(schedules.Cosine(0.1, 10), momentum=0.7, iterations=4, others=0.3, other_momentum=0.9)
    factors = {"conv2.weight": 0.5, "dense1.weight": 2.0}
    step = TrainStep(model, 8, optimizer, factors=factors)
    expected = {n: p.astype(np.float64) for n, p in model.parameters.items()}
    momenta = {n: 0.0 for n in expected}
    for i in range(5):
        step(*batch(i))
        rate = schedules.Cosine(0.1, 10)(i)
        for n, g in step.gradients().items():
            g, w, factor = g.astype(np.float64), expected[n], factors.get(n, 1.0)
            if n.startswith("conv"):
                momenta[n] = 0.7 * momenta[n] + g
                direction = by_decomposition((g + 0.7 * momenta[n]).reshape(len(w), -1), 4).reshape(w.shape)
                expected[n] = np.sqrt(len(w)) * w / np.linalg.norm(w) - rate * factor * direction
            else:
                momenta[n] = 0.9 * momenta[n] + g
                expected[n] = w - 0.3 * rate * factor * (g + 0.9 * momenta[n])
            np.testing.assert_allclose(model.parameters[n], expected[n], atol=3e-4, err_msg=f"{n}, step {i}")


def test_threads_change_no_bit(monkeypatch):
    one = {}
    for threads in (1, 3):
        monkeypatch.setattr(processors, "threads", lambda count=threads: count)
        model, _ = trained()
        for name, values in model.parameters.items():
            np.testing.assert_array_equal(values, one.setdefault(name, values.copy()), name)


def test_resuming_is_not_having_stopped():
    whole, _ = trained(steps=6)
    half, step = trained(steps=3)
    other = Model(Network.build((6, 6, 3), BODY), 9)
    other.load_parameters({n: p.copy() for n, p in half.parameters.items()})
    again = TrainStep(other, 8, step.optimizer, factors={"conv2.weight": 0.5})
    again.load_state({n: s.copy() for n, s in step.state().items()}, 3)
    for i in range(3, 6):
        again(*batch(i))
    for name, values in whole.parameters.items():
        np.testing.assert_array_equal(other.parameters[name], values, name)


def test_what_is_not_to_move_stays():
    model = Model(Network.build((6, 6, 3), BODY), 1)
    before = {n: p.copy() for n, p in model.parameters.items()}
    step = TrainStep(model, 8, optim.Muon(0.1), factors={"conv2.weight": 0.0})
    step(*batch(0))
    np.testing.assert_array_equal(model.parameters["conv2.weight"], before["conv2.weight"])
    assert not np.array_equal(model.parameters["conv1.weight"], before["conv1.weight"])


def test_it_is_data():
    optimizer = optim.Muon(schedules.Cosine(0.1, 10), momentum=0.7, iterations=4)
    assert optim.from_json(optimizer.to_json()) == optimizer


@pytest.mark.parametrize("wrong", [{"lr": -1}, {"momentum": 1}, {"iterations": 0}, {"iterations": True},
                                   {"others": -0.1}, {"other_momentum": 1.0}, {"other_momentum": 0}])
def test_what_cannot_be_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        optim.Muon(**wrong)
