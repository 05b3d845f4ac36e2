"""How weights start: what the three schemes promise, read from a model's parameters.

Fan-in and fan-out are counted here by hand: the inputs that one output sums, the outputs that one input reaches.
"""

import numpy as np
import pytest
import torch

from pellucid import Model, Network
from pellucid.layers import Conv, Dense
from pellucid.layers.initialisation import weight

# name: (layer for a scheme, input shape, PyTorch's layer, fan-in, fan-out); each has some tens of thousands of weights
LAYERS = {
    "conv": (lambda init: Conv(64, 3, init=init), (8, 8, 48), lambda: torch.nn.Conv2d(48, 64, 3), 48 * 9, 64 * 9),
    "not square": (lambda init: Conv(64, (1, 7), init=init), (8, 8, 48), lambda: torch.nn.Conv2d(48, 64, (1, 7)),
                   48 * 7, 64 * 7),
    "grouped": (lambda init: Conv(128, (3, 5), groups=4, init=init), (8, 8, 64),
                lambda: torch.nn.Conv2d(64, 128, (3, 5), groups=4), 16 * 15, 32 * 15),
    "depthwise": (lambda init: Conv(1024, 5, groups=512, init=init), (8, 8, 512),
                  lambda: torch.nn.Conv2d(512, 1024, 5, groups=512), 25, 2 * 25),
    "1-D": (lambda init: Conv(96, 5, init=init), (12, 64), lambda: torch.nn.Conv1d(64, 96, 5), 64 * 5, 96 * 5),
    "1-D grouped": (lambda init: Conv(192, 5, groups=2, init=init), (12, 64),
                    lambda: torch.nn.Conv1d(64, 192, 5, groups=2), 32 * 5, 96 * 5),
    "strided and dilated": (lambda init: Conv(64, 3, stride=2, dilation=2, init=init), (9, 9, 48),
                            lambda: torch.nn.Conv2d(48, 64, 3, 2, dilation=2), 48 * 9, 64 * 9),
    "dense": (lambda init: Dense(100, init=init), (300,), lambda: torch.nn.Linear(300, 100), 300, 100),
}


def drawn(layer, shape, seed=0):
    """The weight and the bias, as float64."""
    parameters = Model(Network.build(shape, layer), seed).parameters
    (w,), (b,) = ([p for name, p in parameters.items() if name.endswith(kind)] for kind in (".weight", ".bias"))
    assert w.dtype == b.dtype == np.float32
    return w.astype(np.float64), b.astype(np.float64)


def check_moments(w, variance, fourth):
    """Mean 0, that variance, and that ratio of the fourth moment to its square: within five standard errors."""
    assert abs(w.mean()) < 5 * np.sqrt(variance / w.size)
    assert abs((w**2).mean() / variance - 1) < 5 * np.sqrt((fourth - 1) / w.size)
    assert abs((w**4).mean() / variance**2 / fourth - 1) < 0.1


def check_uniform(w, bound):
    """Never beyond the bound, but for rounding to float32, and up to it; as much in any tenth as in another."""
    assert 0.999 * bound < abs(w).max() <= bound * (1 + 2**-23)
    check_moments(w, bound**2 / 3, 9 / 5)
    counts, _ = np.histogram(w, 10, (-bound * 1.0001, bound * 1.0001))
    assert abs(counts * 10 / w.size - 1).max() < 5 * np.sqrt(10 / w.size)


@pytest.mark.parametrize("name", LAYERS)
def test_shapes_are_pytorchs(name):
    make, shape, torchs, _, _ = LAYERS[name]
    w, b = drawn(make("he"), shape)
    assert w.shape == tuple(torchs().weight.shape) and b.shape == tuple(torchs().bias.shape)


@pytest.mark.parametrize("name", LAYERS)
def test_he_is_normal_with_variance_two_over_fan_in(name):
    make, shape, _, fan_in, _ = LAYERS[name]
    w, b = drawn(make("he"), shape)
    check_moments(w, 2 / fan_in, 3)
    within = [(abs(w) < k * np.sqrt(2 / fan_in)).mean() for k in (1, 2, 3)]
    np.testing.assert_allclose(within, [0.6827, 0.9545, 0.9973], atol=0.015)
    assert not b.any()


@pytest.mark.parametrize("name", LAYERS)
def test_glorot_is_uniform_with_variance_two_over_both_fans(name):
    make, shape, _, fan_in, fan_out = LAYERS[name]
    w, b = drawn(make("glorot"), shape)
    check_uniform(w, np.sqrt(3 * 2 / (fan_in + fan_out)))
    assert not b.any()


@pytest.mark.parametrize("name", LAYERS)
def test_pytorchs_default(name):
    """Its bound is read off its own samples, not its formula; biases have the same."""
    make, shape, torchs, fan_in, _ = LAYERS[name]
    w, b = drawn(make("pytorch"), shape)
    torch.manual_seed(0)
    theirs = torchs().weight.detach().numpy().astype(np.float64)
    bound = abs(theirs).max()
    assert abs(abs(w).max() / bound - 1) < 2e-3
    assert abs(w.var() / theirs.var() - 1) < 0.05
    check_uniform(w, 1 / np.sqrt(fan_in))
    biases = np.concatenate([drawn(make("pytorch"), shape, seed)[1] for seed in range(20)])
    their_biases = np.concatenate([torchs().bias.detach().numpy() for _ in range(20)])
    for values in (biases, their_biases):
        assert 0.98 * bound < abs(values).max() < 1.001 * bound
        assert abs((values.astype(np.float64)**2).mean() / (bound**2 / 3) - 1) < 0.1


def test_he_is_the_default():
    np.testing.assert_array_equal(drawn(Conv(8, 3), (5, 5, 3))[0], drawn(Conv(8, 3, init="he"), (5, 5, 3))[0])
    np.testing.assert_array_equal(drawn(Dense(8), (9,))[0], drawn(Dense(8, init="he"), (9,))[0])


@pytest.mark.parametrize("scheme", ["he", "glorot", "pytorch"])
def test_the_seed_and_the_name_decide(scheme):
    again, other = (drawn(Dense(10, init=scheme), (20,), seed)[0] for seed in (3, 4))
    np.testing.assert_array_equal(drawn(Dense(10, init=scheme), (20,), 3)[0], again)
    assert not (again == other).any()


@pytest.mark.parametrize("scheme", ["He", "xavier", "", None, 1])
def test_another_scheme_is_refused(scheme):
    for make in (lambda: Conv(4, 3, init=scheme), lambda: Dense(4, init=scheme), lambda: weight(scheme, (4, 3))):
        with pytest.raises(ValueError, match='"he", "glorot", "pytorch" or "whitening", got '):
            make()
