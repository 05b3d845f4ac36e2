"""The layer contract: every registered layer is computed three ways, and all must agree.

Definition, compiled kernels and PyTorch; forward, gradient to the input, gradient to every parameter, running
statistics; for random cotangents. A new layer fails here until it has a line in `CASES`, a strategy that draws it, and
one in `three_ways.TORCH`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import CONVS, POOLS, parse, problems
from three_ways import TORCH, agree, by_engine, integers, nodes, normals, parameters

from pellucid import layers as L
from pellucid import reference
from pellucid.engine.builder import Builder
from pellucid.engine.library import library
from pellucid.engine.parameters import ParameterBuffer
from pellucid.geometry import Window
from pellucid.layers.base import LAYERS, Layer, from_json
from pellucid.layers.dropout import keep, mix
from pellucid.layers.loss import CrossEntropy
from pellucid.network import Network, Sequential

REGISTERED = sorted(name for name, kind in LAYERS.items() if kind.__module__.startswith("pellucid."))
CHANNELS = st.sampled_from((1, 2, 3, 15, 16, 17, 33))  # one, and around the blocks of 16
seeds = st.integers(0, 2**32 - 1)


@dataclass(frozen=True)
class Case:
    """A network that shows a layer, for `n` images."""

    network: Network
    n: int
    exact: bool = False  # on integers, float32 holds every intermediate result
    trains: bool = False  # behaves differently while training

    def __repr__(self):
        return f"{self.n} images, {json.dumps(self.network.to_json())}"


@st.composite
def shapes(draw, axes=(0, 1, 2), side=6):
    """Feature vectors, signals, images."""
    return *(draw(st.integers(1, side)) for _ in range(draw(st.sampled_from(axes)))), draw(CHANNELS)


def anywhere(layers, *, exact=False, trains=False, least=1, axes=(0, 1, 2)):
    """A layer that takes any shape."""

    def case(shape, layer, n):
        return Case(Network.build(shape, layer), n, exact, trains)

    return st.builds(case, shapes(axes), layers, st.integers(least, 4))


def of_problem(strategy, layer, exact=True):
    return strategy.map(lambda p: Case(Network.build(p.shape, layer(p)), p.n, exact))


@st.composite
def merging(draw, layer, same_channels):
    """Two or three branches that differ: the input times -1, 2, or itself; of different widths where allowed."""
    shape = draw(shapes())
    described, inputs = [], []
    for i in range(draw(st.integers(2, 3))):
        described.append((f"branch{i}", L.LeakyReLU((-1, 2, 1)[i]), "input"))
        inputs.append(f"branch{i}")
        if not same_channels and len(shape) > 1 and draw(st.booleans()):
            described.append((f"wide{i}", L.Conv(draw(CHANNELS), (1,) * (len(shape) - 1)), f"branch{i}"))
            inputs[-1] = f"wide{i}"
    return Case(nodes(shape, *described, ("merge", layer, *inputs)), draw(st.integers(1, 3)), exact=True)


@st.composite
def flattenings(draw):
    """Flatten alone, before a Dense layer (which then reads the map itself), and before something else."""
    rest = draw(st.sampled_from([(), (L.Dense(5),), (L.ReLU(), L.Dense(17))]))
    body = L.Flatten() if not rest else Sequential(L.Flatten(), *rest)
    return Case(Network.build(draw(shapes()), body), draw(st.integers(1, 4)), exact=True)


@st.composite
def global_means(draw):
    """Maps of 1, 2, 4, 8 or 16 positions: exact means."""
    size = draw(st.sampled_from([(1,), (2,), (8,), (1, 1), (2, 1), (2, 4), (4, 4)]))
    return Case(Network.build((*size, draw(CHANNELS)), L.GlobalAvgPool()), draw(st.integers(1, 3)), exact=True)


@st.composite
def adaptive_pools(draw):
    """Maps smaller and larger than what they become, and the same."""
    shape = draw(shapes(axes=(1, 2), side=9))
    size = draw(st.one_of(st.integers(1, 7), st.tuples(*(st.integers(1, 7) for _ in shape[:-1])), st.just(shape[:-1])))
    return Case(Network.build(shape, L.AdaptiveAvgPool(size)), draw(st.integers(1, 3)))


@st.composite
def takings(draw):
    """A row of channels or a table of two, where most are missing and some come more than once."""
    shape = draw(shapes())
    row = st.lists(st.integers(0, shape[-1] - 1), min_size=1, max_size=20)
    layer = L.TakeChannels(draw(st.one_of(row, st.tuples(row, row))))
    return Case(Network.build(shape, layer), draw(st.integers(1, 3)), exact=True)


@st.composite
def paddings(draw):
    shape = draw(shapes())
    return Case(Network.build(shape, L.PadChannels(shape[-1] + draw(st.sampled_from((0, 1, 15, 16, 40))))),
                draw(st.integers(1, 3)), exact=True)


@st.composite
def shufflings(draw):
    """Groups that end inside blocks of 16, and with them."""
    groups, each = draw(st.sampled_from([(1, 5), (3, 1), (2, 8), (3, 16), (16, 2), (4, 10), (33, 1)]))
    shape = *draw(shapes())[:-1], groups * each
    return Case(Network.build(shape, L.ChannelShuffle(groups)), draw(st.integers(1, 3)), exact=True)


conv_problems = st.one_of(st.sampled_from([p for p in map(parse, CONVS) if p.n]), problems(least=1))
max_pools = st.one_of(st.sampled_from([p for p in map(parse, POOLS) if p.n]), problems(pooling=True, least=1))
rates = st.sampled_from((0.0, 0.5, 0.75))

CASES = {
    "AdaptiveAvgPool": adaptive_pools(),
    "Affine": anywhere(st.just(L.Affine()), exact=True),
    "Add": merging(L.Add(), True),
    "AvgPool": st.one_of(
        of_problem(problems(pooling=True, exact_mean=True, least=1), lambda p: p.pool(L.AvgPool)),
        of_problem(max_pools, lambda p: p.pool(L.AvgPool), exact=False),
        of_problem(max_pools, lambda p: replace(p.pool(L.AvgPool), count_include_pad=False), exact=False)),
    "BatchNorm": anywhere(st.builds(L.BatchNorm, st.sampled_from((1e-5, 0.1)), st.sampled_from((0.0, 0.1, 1.0))),
                          trains=True, least=3),
    "ChannelShuffle": shufflings(),
    "Clip": anywhere(st.sampled_from((L.Clip(-1, 2), L.Clip(low=0.5), L.Clip(high=-1.0))), exact=True),
    "Concat": merging(L.Concat(), False),
    "Conv": st.builds(
        lambda p, bias, trainable: Case(Network.build(p.shape, replace(p.conv(bias), trainable=trainable)), p.n, True),
        conv_problems, st.booleans(), st.sampled_from((True, True, False))),
    "Dense": anywhere(st.builds(L.Dense, st.sampled_from((1, 2, 16, 17, 40)), st.booleans()), exact=True, axes=(0,)),
    "Dropout": anywhere(st.builds(L.Dropout, rates), exact=True, trains=True),
    "Flatten": flattenings(),
    "GELU": anywhere(st.just(L.GELU())),
    "GlobalAvgPool": st.one_of(global_means(), anywhere(st.just(L.GlobalAvgPool()), axes=(1, 2))),
    "GlobalMaxPool": anywhere(st.just(L.GlobalMaxPool()), exact=True, axes=(1, 2)),
    "LRN": anywhere(st.builds(L.LRN, st.sampled_from((1, 3, 5, 35)), st.sampled_from((1e-4, 1.0)),
                              st.sampled_from((0.75, 0.5, 1.5)), st.sampled_from((1.0, 2)))),
    "LeakyReLU": anywhere(st.builds(L.LeakyReLU, st.sampled_from((0.5, 0.25, 0.0, -2.0, 1))), exact=True),
    "MaxPool": of_problem(max_pools, lambda p: p.pool(L.MaxPool)),
    "PadChannels": paddings(),
    "Pad": st.builds(lambda shape, pad, n: Case(Network.build(shape, L.Pad(pad[:len(shape) - 1])), n, True),
                     shapes((1, 2)), st.sampled_from((((1, 1), (2, 2)), ((0, 3), (1, 0)), ((0, 0), (0, 0)))),
                     st.integers(1, 3)),
    "ReLU": anywhere(st.just(L.ReLU()), exact=True),
    "ScaledTanh": anywhere(st.builds(L.ScaledTanh, st.sampled_from((1.7159, 1.0, -0.5)), st.sampled_from((2 / 3, 3)))),
    "SiLU": anywhere(st.just(L.SiLU())),
    "Sigmoid": anywhere(st.just(L.Sigmoid())),
    "Softmax": anywhere(st.just(L.Softmax())),
    "TakeChannels": takings(),
    "Tanh": anywhere(st.just(L.Tanh())),
}
EXEMPT: dict[str, str] = {}  # name: why it needs no case


def untested(registered) -> set[str]:
    return set(registered) - set(CASES) - {name for name, reason in EXEMPT.items() if reason.strip()}


def test_every_registered_layer_is_in_the_battery():
    assert untested(REGISTERED) == set()
    assert set(CASES) <= set(REGISTERED) and set(CASES) <= set(TORCH)
    assert not set(EXEMPT) & set(CASES)
    assert untested([*REGISTERED, "Unheard"]) == {"Unheard"}


@pytest.mark.parametrize("kind", [k for k in REGISTERED if k in CASES])
@settings(max_examples=30, deadline=None)
@given(data=st.data(), seed=seeds)
def test_three_ways_agree(kind, data, seed):
    case = data.draw(CASES[kind])
    assert kind in [type(n.layer).__name__ for n in case.network.nodes]
    for training in (False, True) if case.trains else (False,):
        if case.exact:
            agree(case.network, case.n, seed, exact=True, training=training)
        agree(case.network, case.n, seed, exact=False, training=training)


@pytest.mark.parametrize("line", [p for p in CONVS if not p.startswith("n0")])
def test_convolutions_at_the_corners(line):
    p = parse(line)
    agree(Network.build(p.shape, p.conv()), p.n, 1, exact=True)


@pytest.mark.parametrize("kind", [L.MaxPool, L.AvgPool])
@pytest.mark.parametrize("line", [p for p in POOLS if not p.startswith("n0")])
def test_poolings_at_the_corners(kind, line):
    p = parse(line)
    agree(Network.build(p.shape, p.pool(kind)), p.n, 1, exact=kind is L.MaxPool)


def test_ties_go_to_the_first_maximum():
    """Values from {0, 1} tie everywhere."""
    network = Network.build((9, 7, 17), L.MaxPool(3, 2, 1))
    rng = np.random.default_rng(0)
    x, dy = rng.integers(0, 2, (2, 9, 7, 17)).astype(np.float32), integers(rng, 2, *network.output_shape)
    expected = F.max_pool2d(t := torch.tensor(x).permute(0, 3, 1, 2).requires_grad_(), 3, 2, 1)
    (dx,) = torch.autograd.grad(expected, t, torch.tensor(dy).permute(0, 3, 1, 2))
    np.testing.assert_array_equal(by_engine(network, {}, x, dy).dx, dx.permute(0, 2, 3, 1).numpy())


@pytest.mark.parametrize("channels", [1, 15, 16, 17, 33])
@pytest.mark.parametrize("layer", [L.Sigmoid(), L.Softmax(), L.BatchNorm(), L.Dropout(0.5), L.GELU(), L.Affine(),
                                   L.Clip(0.5, 2), L.LRN(5, 1.0), L.ChannelShuffle(1)], ids=repr)
def test_spare_lanes_reach_nobody(layer, channels):
    """After layers that turn 0 into something else, sums and convolutions still see the real channels only."""
    network = Network.build((4, 3, channels), Sequential(layer, L.Conv(18, 3, padding=1), layer, L.Conv(3, 1),
                                                         L.GlobalAvgPool(), layer, L.Dense(5)))
    agree(network, 3, channels, exact=False, training=True, tolerance=1e-4)


def test_gelu_far_out():
    """Digits are kept in the tail, infinity and NaN are what they are by the definition."""
    near = np.linspace(-12.8, 12.8, 1001, dtype=np.float32)[None]
    far = np.array([[-1e30, -20, 20, 1e30, np.inf, np.nan]], np.float32)
    (y, _), (y_far, dx_far) = (
        (found.values["gelu1"], found.dx) for found in (
            by_engine(Network.build(x.shape[1:], L.GELU()), {}, x, np.ones_like(x)) for x in (near, far)))
    np.testing.assert_allclose(y, reference.gelu(near.astype(np.float64)), rtol=1e-5)
    np.testing.assert_array_equal(y_far, [[0, 0, 20, np.float32(1e30), np.inf, np.nan]])
    np.testing.assert_array_equal(dx_far[0, :4], [0, 0, 1, 1])
    assert np.isnan(dx_far[0, 5])


@pytest.mark.parametrize(("make", "message"), [
    (lambda: L.Clip(), "needs a bound"),
    (lambda: L.Clip(2, 1), "low must be below high"),
    (lambda: L.Clip(float("nan")), "finite number"),
    (lambda: L.LRN(4), "odd number"),
    (lambda: L.LRN(3, k=0), "k must be a number above 0"),
    (lambda: L.LRN(3, alpha=-1.0), "alpha must be"),
    (lambda: L.ChannelShuffle(0), "groups must be"),
    (lambda: Network.build((4, 4, 5), L.ChannelShuffle(2)), "must divide"),
    (lambda: L.Pad("same"), "depends on a window"),
    (lambda: Network.build((4, 4, 5), L.Pad(((-1, 0), (0, 0)))), "padding must be"),
    (lambda: Network.build((5,), L.Pad(1)), "needs an input of shape"),
    (lambda: L.AvgPool(2, count_include_pad=1), "true or false"),
    (lambda: Network.build((3, 3, 1), L.MaxPool(2, 1, 1, dilation=4)), "nothing but padding"),
])
def test_settings_that_no_layer_has_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# Dropout.


def test_dropout_keeps_what_numpy_says_in_every_layer_and_step():
    network = nodes((5, 6, 17), ("a", L.Dropout(0.3), "input"), ("b", L.Dropout(0.3), "a"))
    x = np.ones((3, 5, 6, 17), np.float32)
    masks = {}
    for step in (0, 1, 2**32 - 1):
        y = by_engine(network, {}, x, x, training=True, step=step).values["b"]
        masks[step] = y > 0
        expected = [keep(mix(step, key), x.shape, 0.3) for key in (0xE8B7BE43, 0x71BEEFF9)]  # crc32 of a and of b
        np.testing.assert_array_equal(masks[step], expected[0] & expected[1])
        assert abs(masks[step].mean() - 0.49) < 0.05
    assert not np.array_equal(masks[0], masks[1])
    assert not np.array_equal(keep(mix(0, 1), x.shape, 0.3), keep(mix(0, 2), x.shape, 0.3))


def test_dropout_changes_nothing_at_inference():
    network = Network.build((4, 4, 3), L.Dropout(0.5))
    x = normals(np.random.default_rng(0), 2, 4, 4, 3)
    result = by_engine(network, {}, x, 2 * x)
    np.testing.assert_array_equal(result.values["dropout1"], x)
    np.testing.assert_array_equal(result.dx, 2 * x)


# Batch normalisation.


def test_batch_norm_is_sound_where_the_mean_is_large_or_nothing_varies():
    network = Network.build((4, 4, 2), L.BatchNorm())
    x = normals(np.random.default_rng(0), 8, 4, 4, 2) * np.float32(0.1) + np.float32(300)
    x[..., 1] = 7
    y = by_engine(network, parameters(network, np.random.default_rng(1), lambda r, *s: np.ones(s, np.float32)), x, x,
                  training=True).values["bn1"]
    exact = (x[..., 0].astype(np.float64) - x[..., 0].mean(dtype=np.float64))
    exact /= np.sqrt(exact.var() + 1e-5)
    np.testing.assert_allclose(y[..., 0], exact + 1, atol=1e-3)
    np.testing.assert_array_equal(y[..., 1], 1)


def test_batch_norm_refuses_to_train_on_one_value():
    network = Network.build((1, 1, 4), L.BatchNorm())
    ones = np.ones((1, 1, 1, 4), np.float32)
    with pytest.raises(ValueError, match="two or more values a channel"):
        by_engine(network, parameters(network, np.random.default_rng(0)), ones, ones, training=True)


# Channels and parts.


@pytest.mark.parametrize(("make", "message"), [
    (lambda: L.TakeChannels(()), "channels must be a list"), (lambda: L.TakeChannels(3), "channels must be a list"),
    (lambda: L.TakeChannels((0, -1)), "channels must be a list"), (lambda: L.TakeChannels(((0,), ())), "of 1 to 64"),
    (lambda: L.TakeChannels((0, (1,))), "channels must be a list"), (lambda: L.TakeChannels([0] * 65), "of 1 to 64"),
    (lambda: L.TakeChannels((0, True)), "channels must be a list"),
    (lambda: Network.build((2, 2, 3), L.TakeChannels((0, 3))), "channel 3 is to be taken of 3"),
    (lambda: L.PadChannels(0), "integer of at least 1, got 0"), (lambda: L.PadChannels((1,)), "at least 1"),
    (lambda: Network.build((2, 2, 3), L.PadChannels(2)), "3 channels cannot be padded to 2"),
    (lambda: L.AdaptiveAvgPool(0), "size must be an integer"), (lambda: L.AdaptiveAvgPool((1, 4097)), "to 4,096"),
    (lambda: L.AdaptiveAvgPool("2"), "size must be"),
    (lambda: Network.build((2, 2, 3), L.AdaptiveAvgPool((1, 2, 3))), "2 integers"),
    (lambda: Network.build((3,), L.AdaptiveAvgPool(1)), "needs an input of shape"),
    (lambda: L.ScaledTanh(slope=float("inf")), "slope must be a finite number"),
    (lambda: L.ScaledTanh(amplitude=True), "amplitude must be a finite number"),
])
def test_bad_fields_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# The loss.


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 40), classes=st.sampled_from((1, 2, 10, 16, 17, 40)),
       smoothing=st.sampled_from((0.0, 0.1, 1.0)), scale=st.sampled_from((1.0, 1e-3, 60.0)), weighted=st.booleans(),
       seed=seeds)
def test_cross_entropy_three_ways(n, classes, smoothing, scale, weighted, seed):
    rng = np.random.default_rng(seed)
    logits, labels = normals(rng, n, classes) * np.float32(scale), rng.integers(0, classes, n)
    weights = tuple(rng.uniform(0, 3, classes)) if weighted else None
    loss, gradient = CrossEntropy(smoothing, weights).define(logits, labels)
    t = torch.tensor(logits, dtype=torch.float64, requires_grad=True)
    theirs = F.cross_entropy(t, torch.tensor(labels), label_smoothing=smoothing, reduction="none")
    theirs = (theirs * torch.tensor(np.ones(classes) if weights is None else weights)[labels]).mean()
    assert abs(loss - theirs.item()) <= 1e-10 * max(1, loss)
    np.testing.assert_allclose(gradient, torch.autograd.grad(theirs, t)[0].numpy(), atol=1e-12)

    losses, got = loss_of_engine(logits, labels, smoothing, weights)
    assert abs(losses.mean(dtype=np.float64) - loss) <= 2e-6 * max(1, loss)
    np.testing.assert_allclose(got, gradient, rtol=0, atol=(3e-6 if weighted else 1e-6) / n)


def loss_of_engine(logits, labels, smoothing, weights=None):
    """The losses, and their mean's gradient, by the kernel alone: on the bare logits."""
    n, classes = logits.shape
    b = Builder(library(), n, ParameterBuffer({}), None)
    x = b.tensor((classes,))
    out = np.zeros((n, 1, 1, classes), np.float32)
    source = np.ascontiguousarray(logits.reshape(n, 1, 1, classes))
    b.call("input_f32", image=source, scale=np.ones(classes, np.float32), shift=np.zeros(classes, np.float32),
           inner=16, y=x)
    losses, gradient = CrossEntropy(smoothing, weights).lower(b, x)
    b.call("store_f32", x=gradient, out=out)
    b.labels[:] = labels
    _, calls, arena = b.bind()
    b.library.run(calls)
    assert arena.size
    return losses, out.reshape(n, classes)


def test_cross_entropy_survives_enormous_logits_and_shows_nan():
    losses, gradient = loss_of_engine(np.array([[1e38, -1e38, 0], [0, np.nan, 1]], np.float32), np.array([0, 0]), 0.0)
    assert losses[0] == 0 and np.isnan(losses[1])
    np.testing.assert_array_equal(gradient[0], 0)


@pytest.mark.parametrize("smoothing", [-0.1, 1.5, "0", True, float("nan")])
def test_cross_entropy_refuses_other_smoothings(smoothing):
    with pytest.raises(ValueError, match="from 0 to 1"):
        CrossEntropy(smoothing)


# As data.


@pytest.mark.parametrize("kind", [k for k in REGISTERED if k in CASES])
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_json_both_ways(kind, data):
    case = data.draw(CASES[kind])
    text = json.dumps(case.network.to_json())
    assert Network.from_json(json.loads(text)) == case.network
    for node in case.network.nodes:
        layer = node.layer
        assert from_json(type(layer).__name__, json.loads(json.dumps(layer.to_json()))) == layer
        assert set(layer.to_json()) <= {f.name for f in fields(layer)}
        assert hash(layer) == hash(from_json(type(layer).__name__, json.loads(json.dumps(layer.to_json()))))


@settings(max_examples=60, deadline=None)
@given(st.one_of(problems(), problems(pooling=True)))
def test_a_problem_reads_back(p):
    assert parse(str(p)) == p


@pytest.mark.parametrize("line", ["n2 h7", "n2 h7 w5 c3 k8 k3x3 q1", "n2 h7 w5 c3 k1 k2 k3", "n1 l5 c1 k1 k3x3"])
def test_what_is_not_a_problem_is_refused(line):
    with pytest.raises((ValueError, KeyError)):
        parse(line)


def test_the_base_layer_says_what_it_lacks():
    with pytest.raises(TypeError, match="no definition"):
        Layer().define({})
    with pytest.raises(TypeError, match="no kernels"):
        Layer().lower(None)
    assert Layer().windows((4, 4, 3)) == (Window(1), Window(1))
