"""What the definitions must satisfy by themselves: finite differences, forms of arguments, errors, symmetries."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid import reference as r

RNG = np.random.default_rng(7)


def normals(*shape):
    return RNG.standard_normal(shape)


def spread(*shape):
    """Distinct values far apart and away from 0: a small step crosses no kink and changes no maximum."""
    count = int(np.prod(shape))
    return (RNG.permutation(count) - count / 2 + 0.25).reshape(shape) / 4


IMAGE, SIGNAL = spread(2, 4, 5, 4), spread(2, 7, 4)
FILTERS, TAPS = normals(6, 2, 3, 2), normals(6, 2, 3)
HOW = {"stride": (2, 1), "padding": ((1, 0), (2, 1)), "dilation": (1, 2), "groups": 2}
HOW1 = {"stride": 2, "padding": 2, "dilation": 2, "groups": 2}
WEIGHT, BIAS, MEAN, VAR = normals(4), normals(4), normals(4), RNG.random(4) + 0.5
POOL = {"stride": (1, 3), "padding": (1, (0, 2))}
LABELS, MASK = np.array([2, 0, 4]), RNG.random((2, 4, 5, 4)) < 0.6
LOGITS, FEATURES, UNITS = normals(3, 5), normals(3, 6), normals(4, 6)

# name of the gradient -> (function of the arguments it differentiates, those arguments, gradients for a given dy)
GRADIENTS = {
    "conv_grad_input": (lambda x: r.conv(x, FILTERS, **HOW), [IMAGE],
                        lambda dy: [r.conv_grad_input(dy, FILTERS, (4, 5), **HOW)]),
    "conv_grad_input of a signal": (lambda x: r.conv(x, TAPS, **HOW1), [SIGNAL],
                                    lambda dy: [r.conv_grad_input(dy, TAPS, (7,), **HOW1)]),
    "conv_grad_weight": (lambda w: r.conv(IMAGE, w, **HOW), [FILTERS],
                         lambda dy: [r.conv_grad_weight(IMAGE, dy, (3, 2), **HOW)]),
    "conv_grad_weight of a signal": (lambda w: r.conv(SIGNAL, w, **HOW1), [TAPS],
                                     lambda dy: [r.conv_grad_weight(SIGNAL, dy, 3, **HOW1)]),
    "conv_grad_bias": (lambda b: r.conv(IMAGE, FILTERS, b, **HOW), [normals(6)], lambda dy: [r.conv_grad_bias(dy)]),
    "max_pool_grad": (lambda x: r.max_pool(x, 3, **POOL), [IMAGE], lambda dy: [r.max_pool_grad(IMAGE, dy, 3, **POOL)]),
    "avg_pool_grad": (lambda x: r.avg_pool(x, 3, **POOL), [IMAGE],
                      lambda dy: [r.avg_pool_grad(dy, (4, 5), 3, **POOL)]),
    "global_max_pool_grad": (r.global_max_pool, [IMAGE], lambda dy: [r.global_max_pool_grad(IMAGE, dy)]),
    "global_avg_pool_grad": (r.global_avg_pool, [SIGNAL], lambda dy: [r.global_avg_pool_grad(dy, (7,))]),
    "dense_grad": (r.dense, [FEATURES, UNITS, BIAS], lambda dy: r.dense_grad(FEATURES, UNITS, dy)),
    "relu_grad": (r.relu, [IMAGE], lambda dy: [r.relu_grad(IMAGE, dy)]),
    "leaky_relu_grad": (lambda x: r.leaky_relu(x, 0.2), [IMAGE], lambda dy: [r.leaky_relu_grad(IMAGE, dy, 0.2)]),
    "sigmoid_grad": (r.sigmoid, [SIGNAL], lambda dy: [r.sigmoid_grad(SIGNAL, dy)]),
    "tanh_grad": (r.tanh, [SIGNAL], lambda dy: [r.tanh_grad(SIGNAL, dy)]),
    "silu_grad": (r.silu, [SIGNAL], lambda dy: [r.silu_grad(SIGNAL, dy)]),
    "gelu_grad": (r.gelu, [SIGNAL], lambda dy: [r.gelu_grad(SIGNAL, dy)]),
    "softmax_grad": (r.softmax, [LOGITS], lambda dy: [r.softmax_grad(r.softmax(LOGITS), dy)]),
    "batch_norm_grad": (lambda x, w, b: r.batch_norm(x, w, b, *r.batch_moments(x), 0.1), [IMAGE, WEIGHT, BIAS],
                        lambda dy: r.batch_norm_grad(IMAGE, WEIGHT, dy, 0.1)),
    "batch_norm_inference_grad": (lambda x, w, b: r.batch_norm(x, w, b, MEAN, VAR, 0.1), [IMAGE, WEIGHT, BIAS],
                                  lambda dy: r.batch_norm_inference_grad(IMAGE, WEIGHT, MEAN, VAR, 0.1, dy)),
    "dropout_grad": (lambda x: r.dropout(x, MASK, 0.4), [IMAGE], lambda dy: [r.dropout_grad(dy, MASK, 0.4)]),
    "cross_entropy_grad": (lambda z: r.cross_entropy(z, LABELS, 0.1), [LOGITS],
                           lambda dy: [dy * r.cross_entropy_grad(LOGITS, LABELS, 0.1)]),
    "adaptive_avg_pool_grad": (lambda x: r.adaptive_avg_pool(x, (3, 2)), [IMAGE],
                               lambda dy: [r.adaptive_avg_pool_grad(dy, (4, 5), (3, 2))]),
    "clip_grad": (lambda x: r.clip(x, -2.0, 3.1), [IMAGE], lambda dy: [r.clip_grad(IMAGE, dy, -2.0, 3.1)]),
    "lrn_grad": (lambda x: r.lrn(x, 3, alpha=0.5, beta=0.6, k=1.5), [SIGNAL],
                 lambda dy: [r.lrn_grad(SIGNAL, dy, 3, alpha=0.5, beta=0.6, k=1.5)]),
    "pad_grad": (lambda x: r.pad(x, [(1, 0), (2, 1)]), [IMAGE], lambda dy: [r.pad_grad(dy, [(1, 0), (2, 1)])]),
    "scaled_tanh_grad": (lambda x: r.scaled_tanh(x, 1.7, 0.6), [SIGNAL],
                         lambda dy: [r.scaled_tanh_grad(SIGNAL, dy, 1.7, 0.6)]),
    "take_channels_grad": (lambda x: r.take_channels(x, (3, 0, 3)), [IMAGE],
                           lambda dy: [r.take_channels_grad(dy, (3, 0, 3), 4)]),
    "unflatten": (r.flatten, [IMAGE], lambda dy: [r.unflatten(dy, (4, 5, 4))]),
    "split": (r.concat, [LOGITS, FEATURES], lambda dy: r.split(dy, (5, 6))),
}


def test_every_gradient_has_a_check():
    assert {name for name in r.__all__ if "_grad" in name} <= {name.split(" of ")[0] for name in GRADIENTS}


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients_are_the_slopes_of_the_function(name):
    """Central differences in every coordinate; the step 1e-5 leaves an error near 1e-10."""
    f, arguments, gradients = GRADIENTS[name]
    dy = normals(*np.shape(f(*arguments)))
    computed = gradients(dy)
    assert len(computed) == len(arguments)
    for i, gradient in enumerate(computed):
        slopes = np.zeros_like(arguments[i])
        for place in np.ndindex(slopes.shape):
            ends = []
            for step in (1e-5, -1e-5):
                moved = [a.copy() for a in arguments]
                moved[i][place] += step
                ends.append((f(*moved) * dy).sum())
            slopes[place] = (ends[0] - ends[1]) / 2e-5
        assert np.abs(slopes).max() > 0.01
        np.testing.assert_allclose(gradient, slopes, rtol=1e-6, atol=1e-7)


def test_conv_by_hand():
    """Every multiply-add written out, for one image with two channels and two filters."""
    x, w = np.arange(24.0).reshape(1, 3, 4, 2) ** 2, np.arange(16.0).reshape(2, 2, 2, 2) - 5
    y = r.conv(x, w, [10, 20], stride=(1, 2), padding=(0, 1))
    assert y.shape == (1, 2, 3, 2)
    for i in range(2):
        for j in range(3):
            for o in range(2):
                total = [10, 20][o]
                for a in range(2):
                    for b in range(2):
                        for c in range(2):
                            row, column = i + a, 2 * j + b - 1
                            if 0 <= row < 3 and 0 <= column < 4:
                                total += w[o, c, a, b] * x[0, row, column, c]
                assert y[0, i, j, o] == total


def test_conv_does_not_flip_the_filter():
    x = np.array([0.0, 0, 1, 0, 0]).reshape(1, 5, 1)
    np.testing.assert_array_equal(r.conv(x, [[[1, 2, 3]]]).ravel(), [3, 2, 1])


@pytest.mark.parametrize(("padding", "sides"), [
    (1, ((1, 1), (1, 1))),
    ((1, 0), ((1, 1), (0, 0))),
    ("same", ((0, 1), (1, 1))),  # input 4x5, filter 3x2 with dilation (1, 2), stride 2 and 1
])
def test_all_forms_of_padding_mean_the_same_everywhere(padding, sides):
    a, b = ({**HOW, "padding": p} for p in (padding, sides))
    y = r.conv(IMAGE, FILTERS, **b)
    dy = normals(*y.shape)
    np.testing.assert_array_equal(r.conv(IMAGE, FILTERS, **a), y)
    np.testing.assert_array_equal(
        r.conv_grad_input(dy, FILTERS, (4, 5), **a), r.conv_grad_input(dy, FILTERS, (4, 5), **b)
    )
    np.testing.assert_array_equal(
        r.conv_grad_weight(IMAGE, dy, (3, 2), **a), r.conv_grad_weight(IMAGE, dy, (3, 2), **b)
    )
    np.testing.assert_array_equal(r.conv_matrix(FILTERS, (4, 5), **a), r.conv_matrix(FILTERS, (4, 5), **b))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3), st.integers(0, 3), st.integers(0, 2**32 - 1))
def test_shifting_the_input_shifts_the_output(stride, shift, seed):
    rng = np.random.default_rng(seed)
    x, w = rng.integers(-4, 5, (1, 6, 7, 2)), rng.integers(-4, 5, (3, 2, 3, 2))
    shifted = np.pad(x, ((0, 0), (0, 0), (shift * stride, 0), (0, 0)))
    for f in (lambda x: r.conv(x, w, stride=stride), lambda x: r.max_pool(x, (3, 2), stride=stride)):
        np.testing.assert_array_equal(f(shifted)[:, :, shift:], f(x))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 2), st.integers(0, 2**32 - 1))
def test_convolution_is_linear(groups, seed):
    rng = np.random.default_rng(seed)
    x1, x2, w1, w2 = (rng.integers(-4, 5, s) for s in 2 * [(2, 5, 4, 4)] + 2 * [(6, 4 // groups, 2, 3)])

    def conv(x, w):
        return r.conv(x, w, stride=(1, 2), padding=1, groups=groups)

    np.testing.assert_array_equal(conv(3 * x1 - 2 * x2, w1), 3 * conv(x1, w1) - 2 * conv(x2, w1))
    np.testing.assert_array_equal(conv(x1, 3 * w1 - 2 * w2), 3 * conv(x1, w1) - 2 * conv(x1, w2))


def test_a_window_that_does_not_fit_gives_an_empty_output():
    assert r.conv(normals(2, 2, 3, 4), normals(6, 4, 3, 3)).shape == (2, 0, 1, 6)
    assert r.max_pool(normals(2, 2, 3, 4), 3).shape == (2, 0, 1, 4)
    assert r.conv_matrix(normals(6, 4, 3, 3), (2, 3)).shape == (0, 24)


def test_results_are_float64_and_arguments_stay_as_they_are():
    x, w = IMAGE.astype(np.float32), FILTERS.astype(np.float32)
    for array in (x, w):
        array.flags.writeable = False
    y = r.conv(x, w, **HOW)
    results = [
        y, r.conv_grad_input(y, w, (4, 5), **HOW), r.conv_grad_weight(x, y, (3, 2), **HOW), r.max_pool(x, 2),
        r.avg_pool(x, 2), r.relu(x), r.gelu(x), r.softmax(x), r.batch_norm(x, WEIGHT, BIAS, MEAN, VAR, 1e-5),
        r.add(x, x), r.concat(x, x), r.flatten(x), r.max_pool(x.astype(np.uint8), 2), r.relu(np.uint8([0, 1, 2])),
    ]
    assert {a.dtype for a in results} == {np.dtype(np.float64)}


@pytest.mark.parametrize(("call", "message"), [
    (lambda: r.conv(normals(1, 5, 5, 3), normals(2, 4, 3, 3)), r"3 channels.*\(2, 4, 3, 3\).*read 4"),
    (lambda: r.conv(normals(1, 5, 5, 4), normals(2, 4, 3, 3), groups=2), "4 channels.*2 group.*read 8"),
    (lambda: r.conv(normals(1, 5, 5, 4), normals(3, 2, 3, 3), groups=2), "divide.*3 filters.*got 2"),
    (lambda: r.conv(normals(1, 5, 5, 3), normals(2, 1, 3, 3), groups=2), "divide the 3 channels.*got 2"),
    (lambda: r.conv(normals(1, 5, 5, 4), normals(2, 4, 3, 3), groups=0), "got 0"),
    (lambda: r.conv_grad_weight(normals(1, 5, 5, 4), normals(1, 3, 3, 2), 3, groups=0), "got 0"),
    (lambda: r.conv(normals(1, 5, 5, 3), normals(2, 3, 3)), r"\(2, 3, 3\).*2 spatial axes.*\(O, I / groups, kh, kw\)"),
    (lambda: r.conv(normals(1, 5, 3), normals(2, 3)), "filters"),
    (lambda: r.conv(normals(1, 5, 5, 3), normals(2, 3, 3, 3), normals(3)), r"bias.*\(3,\).*\(2,\)"),
    (lambda: r.conv(normals(1, 5, 5, 3), normals(2, 3, 3, 3), stride=0), "stride"),
    (lambda: r.conv(normals(1, 5, 5, 3), normals(2, 3, 3, 3), padding="valid"), "padding"),
    (lambda: r.conv_grad_input(normals(1, 5, 5, 2), normals(2, 3, 3, 3), (5, 5)), r"\(1, 5, 5, 2\).*\(1, 3, 3, 2\)"),
    (lambda: r.conv_grad_input(normals(1, 3, 3, 2), normals(2, 3, 3, 3), (5, 5, 5)), "input_size"),
    (lambda: r.conv_grad_weight(normals(1, 5, 5, 3), normals(2, 3, 3, 2), 3), r"dy.*\(2, 3, 3, 2\).*\(1, 3, 3, 2\)"),
    (lambda: r.conv_grad_weight(normals(1, 5, 5, 3), normals(1, 3, 3, 2), (3,)), "kernel_size"),
    (lambda: r.max_pool(normals(1, 5, 5, 3), 2, padding=2), "smaller than the window.*2"),
    (lambda: r.avg_pool(normals(1, 5, 5, 3), (3, 2), padding=((0, 0), (0, 2))), r"\(0, 2\) for a window of 2"),
    (lambda: r.max_pool_grad(normals(1, 4, 4, 3), normals(1, 2, 1, 3), 2), r"dy.*\(1, 2, 1, 3\).*\(1, 2, 2, 3\)"),
    (lambda: r.avg_pool_grad(normals(1, 2, 1, 3), (4, 4), 2), r"dy.*\(1, 2, 1, 3\).*\(1, 2, 2, 3\)"),
    (lambda: r.dense(normals(2, 3), normals(4, 5)), r"\(2, 3\) and \(4, 5\)"),
    (lambda: r.dense(normals(2, 3), normals(4, 3), normals(3)), "bias"),
    (lambda: r.dense_grad(normals(2, 3), normals(4, 3), normals(2, 3)), "dy"),
    (lambda: r.unflatten(normals(2, 7), (2, 2, 2)), r"dy.*\(2, 7\).*\(2, 8\)"),
    (lambda: r.batch_moments(np.zeros((0, 3))), "empty batch"),
    (lambda: r.dropout(normals(2), np.ones(2, bool), 1.0), "rate.*1.0"),
    (lambda: r.dropout(normals(2), np.ones(2, bool), -0.1), "rate.*-0.1"),
    (lambda: r.cross_entropy(LOGITS, [0, 1, 5]), "0 to 4"),
    (lambda: r.cross_entropy(LOGITS, [0, -1, 2]), "0 to 4"),
    (lambda: r.cross_entropy_grad(LOGITS, [0.0, 1.0, 2.0]), "integers"),
    (lambda: r.cross_entropy(LOGITS, [0, 1]), r"labels.*\(2,\).*\(3,\)"),
    (lambda: r.cross_entropy(np.zeros((0, 5)), np.zeros(0, int)), "logits"),
    (lambda: r.cross_entropy(LOGITS, LABELS, 1.5), "smoothing.*1.5"),
    (lambda: r.add(normals(2, 3), normals(3)), r"add.*\(3,\).*\(2, 3\)"),
    (lambda: r.split(normals(2, 5), (2, 2)), "sum to 4.*5"),
])
def test_what_does_not_fit_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
