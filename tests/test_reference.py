"""The definitions against PyTorch in float64: forward and every gradient, over drawn shapes.

Integer-valued data must agree exactly: then no order of summation changes a bit. The gradients PyTorch gives come
from its autograd, for random cotangents `dy`.
"""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid import reference
from pellucid.geometry import windows

seeds = st.integers(0, 2**32 - 1)


def integers(rng, *shape):
    return rng.integers(-4, 5, shape).astype(np.float64)


def normals(rng, *shape):
    return rng.standard_normal(shape)


def equal(a, b):
    np.testing.assert_array_equal(a, b, strict=True)


def close(a, b):
    np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11, strict=True)


def channels_first(x):
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 1)))


def channels_last(t):
    return np.moveaxis(t.detach().numpy(), 1, -1)


def autograd(f, dy, *arguments):
    """(y, gradients to all arguments), all tensors."""
    arguments = [a.clone().requires_grad_() for a in arguments]
    y = f(*arguments)
    return y, torch.autograd.grad(y, arguments, dy)


@dataclass(frozen=True)
class Sliding:
    """A shape for convolution or pooling; `pads` are (before, after) an axis."""

    n: int
    size: tuple
    kernel: tuple
    stride: tuple
    pads: tuple
    dilation: tuple = (1, 1)
    groups: int = 1
    ins: int = 1  # channels and filters in each group
    outs: int = 1

    def options(self):
        return {"stride": self.stride, "padding": self.pads}

    def output(self):
        axes = windows(self.size, self.kernel, self.stride, self.pads, self.dilation)
        return tuple(w.output_size(n) for w, n in zip(axes, self.size, strict=True))

    def torch_pads(self):
        return [side for pair in reversed(self.pads) for side in pair]


@st.composite
def slidings(draw, pooling=False):
    """One or two axes; odd sizes, single pixels, strides past the window, padding past the image."""
    axes = draw(st.integers(1, 2))

    def per_axis(least, most):
        return tuple(draw(st.integers(least, most)) for _ in range(axes))

    size, kernel, stride = per_axis(1, 8), per_axis(1, 4), per_axis(1, 6)
    dilation = (1,) * axes if pooling else per_axis(1, 3)
    pads = []
    for n, k, d in zip(size, kernel, dilation, strict=True):
        most = k - 1 if pooling else 9
        before, after = draw(st.integers(0, most)), draw(st.integers(0, most))
        pads.append((before, after if pooling else max(after, d * (k - 1) + 1 - n - before)))
    if pooling:  # PyTorch has no empty outputs: the window must fit
        size = tuple(max(n, k - a - b) for n, k, (a, b) in zip(size, kernel, pads, strict=True))
    groups, ins, outs = draw(st.sampled_from(
        [(1, 1, 1), (1, 1, 3), (1, 3, 1), (1, 17, 2), (1, 2, 17), (2, 2, 3), (3, 1, 2), (5, 1, 1), (17, 1, 1)]
    ))
    return Sliding(draw(st.integers(0, 3)), size, kernel, stride, tuple(pads), dilation, groups, ins, outs)


CORNERS = {
    "one pixel": Sliding(2, (1, 1), (1, 1), (1, 1), ((0, 0), (0, 0)), ins=3, outs=2),
    "one pixel in padding": Sliding(2, (1, 1), (3, 3), (1, 1), ((1, 1), (1, 1))),
    "seventeen channels": Sliding(1, (5, 7), (3, 2), (1, 1), ((1, 0), (0, 1)), ins=17, outs=17),
    "depthwise": Sliding(2, (7, 6), (3, 3), (2, 2), ((1, 1), (1, 1)), groups=17),
    "depthwise with a multiplier": Sliding(2, (5, 6), (2, 3), (1, 2), ((1, 1), (0, 1)), groups=5, outs=3),
    "stride past the filter": Sliding(2, (9, 8), (2, 1), (5, 4), ((0, 0), (0, 0)), ins=2, outs=3),
    "padding past the image": Sliding(2, (2, 3), (3, 2), (1, 2), ((5, 7), (6, 4)), ins=2, outs=3),
    "dilated": Sliding(1, (9, 11), (3, 2), (1, 2), ((2, 0), (0, 3)), (3, 4), groups=2, ins=2, outs=2),
    "a signal": Sliding(3, (11,), (4,), (3,), ((2, 1),), (2,), ins=3, outs=4),
    "no images": Sliding(0, (4, 4), (3, 3), (1, 1), ((1, 1), (1, 1)), ins=2, outs=2),
}


def check_conv(p, seed, data, same):
    rng = np.random.default_rng(seed)
    x = data(rng, p.n, *p.size, p.ins * p.groups)
    w, bias = data(rng, p.outs * p.groups, p.ins, *p.kernel), data(rng, p.outs * p.groups)
    dy = data(rng, p.n, *p.output(), len(w))
    dilation = p.dilation[: len(p.size)]
    options = {**p.options(), "dilation": dilation, "groups": p.groups}

    def f(x, w, bias):
        convolve = (F.conv1d, F.conv2d)[len(p.size) - 1]
        return convolve(F.pad(x, p.torch_pads()), w, bias, stride=p.stride, dilation=dilation, groups=p.groups)

    y, (dx, dw, db) = autograd(f, channels_first(dy), channels_first(x), torch.from_numpy(w), torch.from_numpy(bias))
    same(reference.conv(x, w, bias, **options), channels_last(y))
    same(reference.conv_grad_input(dy, w, p.size, **options), channels_last(dx))
    same(reference.conv_grad_weight(x, dy, p.kernel, **options), dw.numpy())
    same(reference.conv_grad_bias(dy), db.numpy())

    # The matrix does the same forward, and transposed the same backward.
    a = reference.conv_matrix(w, p.size, **options)
    for n in range(p.n):
        same(a @ x[n].ravel(), reference.conv(x[n : n + 1], w, **options).ravel())
        same(a.T @ dy[n].ravel(), reference.conv_grad_input(dy[n : n + 1], w, p.size, **options).ravel())


@pytest.mark.parametrize("p", CORNERS.values(), ids=CORNERS)
def test_conv_at_the_corners(p):
    check_conv(p, 0, integers, equal)
    check_conv(p, 0, normals, close)


@settings(max_examples=150, deadline=None)
@given(slidings(), seeds)
def test_conv_is_pytorchs_exactly_on_integers(p, seed):
    check_conv(p, seed, integers, equal)


@settings(max_examples=40, deadline=None)
@given(slidings(), seeds)
def test_conv_is_pytorchs_on_normal_data(p, seed):
    check_conv(p, seed, normals, close)


def check_pool(p, seed, data, same):
    rng = np.random.default_rng(seed)
    x = data(rng, p.n, *p.size, p.ins * p.groups)
    dy = data(rng, p.n, *p.output(), x.shape[-1])
    axis = len(p.size) - 1
    for name, pool, fill in (("max", F.max_pool1d, -torch.inf), ("avg", F.avg_pool1d, 0.0)):
        pool = (pool, getattr(F, f"{name}_pool2d"))[axis]

        def f(x, pool=pool, fill=fill):
            return pool(F.pad(x, p.torch_pads(), value=fill), p.kernel, p.stride)

        y, (dx,) = autograd(f, channels_first(dy), channels_first(x))
        if name == "max":
            equal(reference.max_pool(x, p.kernel, **p.options()), channels_last(y))
            same(reference.max_pool_grad(x, dy, p.kernel, **p.options()), channels_last(dx))
        else:
            close(reference.avg_pool(x, p.kernel, **p.options()), channels_last(y))
            close(reference.avg_pool_grad(dy, p.size, p.kernel, **p.options()), channels_last(dx))


@settings(max_examples=150, deadline=None)
@given(slidings(pooling=True), seeds)
def test_pooling_is_pytorchs_ties_included(p, seed):
    check_pool(p, seed, integers, equal)


@settings(max_examples=40, deadline=None)
@given(slidings(pooling=True), seeds)
def test_pooling_is_pytorchs_on_normal_data(p, seed):
    check_pool(p, seed, normals, close)


def test_average_of_integers_is_exact_when_the_window_is_a_power_of_two():
    rng = np.random.default_rng(1)
    x, dy = integers(rng, 2, 7, 6, 3), integers(rng, 2, 4, 3, 3)
    y, (dx,) = autograd(lambda x: F.avg_pool2d(x, (2, 4), 2, (1, 1)), channels_first(dy), channels_first(x))
    options = {"stride": 2, "padding": 1}
    equal(reference.avg_pool(x, (2, 4), **options), channels_last(y))
    equal(reference.avg_pool_grad(dy, (7, 6), (2, 4), **options), channels_last(dx))


def test_windows_do_not_overlap_by_default():
    x = integers(np.random.default_rng(2), 2, 7, 6, 3)
    for pool in (reference.max_pool, reference.avg_pool):
        equal(pool(x, (3, 2)), pool(x, (3, 2), stride=(3, 2)))
    y = reference.max_pool(x, (3, 2))
    equal(reference.max_pool_grad(x, 2 * y, (3, 2)), reference.max_pool_grad(x, 2 * y, (3, 2), stride=(3, 2)))
    equal(reference.avg_pool_grad(y, (7, 6), (3, 2)), reference.avg_pool_grad(y, (7, 6), (3, 2), stride=(3, 2)))


def test_padding_never_wins_a_maximum():
    x = np.full((1, 2, 2, 1), -5.0)
    equal(reference.max_pool(x, 3, stride=1, padding=2), np.full((1, 4, 4, 1), -5.0))
    # Of equal inputs the first in scan order wins: the top left one wherever it is seen.
    dy = np.arange(1.0, 17).reshape(1, 4, 4, 1) ** 2
    dx = reference.max_pool_grad(x, dy, 3, stride=1, padding=2)
    equal(dx[0, :, :, 0], np.array([[dy[0, :3, :3].sum(), dy[0, :3, 3].sum()], [dy[0, 3, :3].sum(), dy[0, 3, 3, 0]]]))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3), st.lists(st.integers(1, 5), min_size=1, max_size=2), st.sampled_from([1, 3, 17]), seeds)
def test_global_pooling_is_pytorchs(n, size, channels, seed):
    rng = np.random.default_rng(seed)
    x, dy = integers(rng, n, *size, channels), integers(rng, n, channels)
    name = f"pool{len(size)}d"

    def pooled(kind):
        return lambda x: getattr(F, f"adaptive_{kind}_{name}")(x, 1).flatten(1)

    y, (dx,) = autograd(pooled("max"), torch.from_numpy(dy), channels_first(x))
    equal(reference.global_max_pool(x), y.detach().numpy())
    equal(reference.global_max_pool_grad(x, dy), channels_last(dx))
    y, (dx,) = autograd(pooled("avg"), torch.from_numpy(dy), channels_first(x))
    close(reference.global_avg_pool(x), y.detach().numpy())
    close(reference.global_avg_pool_grad(dy, size), channels_last(dx))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 5), st.integers(1, 17), st.integers(1, 17), seeds)
def test_dense_is_pytorchs(n, ins, outs, seed):
    rng = np.random.default_rng(seed)
    for data, same in ((integers, equal), (normals, close)):
        x, w, bias, dy = data(rng, n, ins), data(rng, outs, ins), data(rng, outs), data(rng, n, outs)
        y, gradients = autograd(F.linear, torch.from_numpy(dy), *map(torch.from_numpy, (x, w, bias)))
        same(reference.dense(x, w, bias), y.detach().numpy())
        same(reference.dense(x, w), F.linear(*map(torch.from_numpy, (x, w))).numpy())
        for ours, theirs in zip(reference.dense_grad(x, w, dy), gradients, strict=True):
            same(ours, theirs.numpy())


ACTIVATIONS = [
    (reference.relu, reference.relu_grad, F.relu),
    (reference.leaky_relu, reference.leaky_relu_grad, F.leaky_relu),
    (reference.sigmoid, reference.sigmoid_grad, torch.sigmoid),
    (reference.tanh, reference.tanh_grad, torch.tanh),
    (reference.silu, reference.silu_grad, F.silu),
    (reference.gelu, reference.gelu_grad, F.gelu),
]


@pytest.mark.parametrize(("f", "grad", "torch_f"), ACTIVATIONS, ids=lambda v: v.__name__)
@settings(max_examples=25, deadline=None)
@given(shape=st.lists(st.integers(0, 5), min_size=1, max_size=4), seed=seeds)
def test_activations_are_pytorchs(f, grad, torch_f, shape, seed):
    rng = np.random.default_rng(seed)
    x = rng.choice([0.0, -0.0, 1000, -1000, 40, -40, *rng.standard_normal(6)], shape)  # kinks and saturation too
    dy = normals(rng, *shape)
    y, (dx,) = autograd(torch_f, torch.from_numpy(dy), torch.from_numpy(x))
    close(f(x), y.detach().numpy())
    close(grad(x, dy), dx.numpy())


def test_slope_of_leaky_relu():
    x, dy = np.array([-2.0, 0, 3]), np.array([5.0, 7, 11])
    equal(reference.leaky_relu(x, 0.5), np.array([-1.0, 0, 3]))
    equal(reference.leaky_relu_grad(x, dy, 0.5), np.array([2.5, 3.5, 11]))


def test_digits_survive_in_the_tails():
    x = np.array([-5.0, -20, -30])
    np.testing.assert_allclose(
        reference.gelu(x), x * torch.special.log_ndtr(torch.from_numpy(x)).exp().numpy(), rtol=1e-12
    )
    np.testing.assert_allclose(reference.sigmoid(x), np.exp(x) / (1 + np.exp(x)), rtol=1e-14)
    dy = np.array([3.0, -2, 5])
    np.testing.assert_allclose(reference.sigmoid_grad(-x, dy), reference.sigmoid_grad(x, dy), rtol=1e-14)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 4), st.integers(1, 17), st.sampled_from([1.0, 30.0, 1e4]), st.sampled_from([0.0, 0.1, 1.0]), seeds
)
def test_softmax_and_cross_entropy_are_pytorchs(n, classes, scale, smoothing, seed):
    rng = np.random.default_rng(seed)
    x, dy, labels = scale * normals(rng, n, classes), normals(rng, n, classes), rng.integers(0, classes, n)
    y, (dx,) = autograd(lambda x: torch.softmax(x, -1), torch.from_numpy(dy), torch.from_numpy(x))
    close(reference.softmax(x), y.detach().numpy())
    close(reference.softmax_grad(y.detach().numpy(), dy), dx.numpy())

    def f(x):
        return F.cross_entropy(x, torch.from_numpy(labels), label_smoothing=smoothing)

    loss, (dx,) = autograd(f, torch.tensor(1.0, dtype=torch.float64), torch.from_numpy(x))
    assert isinstance(reference.cross_entropy(x, labels, smoothing), float)
    assert reference.cross_entropy(x, labels, smoothing) == pytest.approx(loss.item(), rel=1e-11, abs=1e-11)
    close(reference.cross_entropy_grad(x, labels, smoothing), dx.numpy())


@settings(max_examples=40, deadline=None)
@given(
    st.integers(2, 4), st.lists(st.integers(1, 4), max_size=2), st.sampled_from([1, 3, 17]),
    st.sampled_from([1e-5, 1e-3, 1.0]), seeds,
)
def test_batch_norm_is_pytorchs(n, size, channels, eps, seed):
    rng = np.random.default_rng(seed)
    x, dy = normals(rng, n, *size, channels) * 3 + 2, normals(rng, n, *size, channels)
    weight, bias, mean, var = (f(rng, channels) for f in (normals, normals, normals, lambda r, c: r.random(c) + 0.1))
    arguments = channels_first(dy), channels_first(x), torch.from_numpy(weight), torch.from_numpy(bias)

    running = torch.zeros(channels, dtype=torch.float64), torch.zeros(channels, dtype=torch.float64)
    y, gradients = autograd(
        lambda x, w, b: F.batch_norm(x, *running, w, b, training=True, momentum=1.0, eps=eps), *arguments
    )
    moments = reference.batch_moments(x)
    count = x.size // channels
    close(moments[0], running[0].numpy())
    close(moments[1] * count / (count - 1), running[1].numpy())  # PyTorch keeps the unbiased variance
    close(reference.batch_norm(x, weight, bias, *moments, eps), channels_last(y))
    _compare(reference.batch_norm_grad(x, weight, dy, eps), gradients)

    fixed = torch.from_numpy(mean), torch.from_numpy(var)
    y, gradients = autograd(lambda x, w, b: F.batch_norm(x, *fixed, w, b, eps=eps), *arguments)
    close(reference.batch_norm(x, weight, bias, mean, var, eps), channels_last(y))
    _compare(reference.batch_norm_inference_grad(x, weight, mean, var, eps, dy), gradients)


def _compare(ours, theirs):
    close(ours[0], channels_last(theirs[0]))
    close(ours[1], theirs[1].numpy())
    close(ours[2], theirs[2].numpy())


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=2, max_size=4), seeds)
def test_flatten_is_pytorchs_and_unflatten_undoes_it(shape, seed):
    x = integers(np.random.default_rng(seed), *shape)
    rows = reference.flatten(x)
    equal(rows, channels_first(x).flatten(1).numpy())
    equal(reference.unflatten(rows, x.shape[1:]), x)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=3), st.lists(st.integers(1, 17), min_size=1, max_size=4), seeds)
def test_add_concat_and_split(shape, channels, seed):
    rng = np.random.default_rng(seed)
    xs = [integers(rng, *shape, c) for c in channels]
    whole = torch.cat(list(map(torch.from_numpy, xs)), -1)
    equal(reference.concat(*xs), whole.numpy())
    for part, theirs in zip(reference.split(whole.numpy(), channels), whole.split(channels, -1), strict=True):
        equal(part, theirs.numpy())
    terms = [integers(rng, *shape, channels[0]) for _ in channels]
    equal(reference.add(*terms), torch.stack(list(map(torch.from_numpy, terms))).sum(0).numpy())


def test_dropout_scales_what_it_keeps():
    x, mask = np.array([[1.0, -2], [3, 4]]), np.array([[True, False], [False, True]])
    equal(reference.dropout(x, mask, 0.75), np.array([[4.0, 0], [0, 16]]))
    equal(reference.dropout_grad(x, mask, 0.75), np.array([[4.0, 0], [0, 16]]))
    equal(reference.dropout(x, np.ones((2, 2), bool), 0), x)
