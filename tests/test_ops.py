"""`pellucid.ops` against `pellucid.reference`: the same arguments, the same numbers, the same refusals."""

import inspect
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import CONVS, POOLS, parse, problems
from three_ways import integers, normals

from pellucid import ops, reference

seeds = st.integers(0, 2**32 - 1)


def check_conv(p, seed):
    rng = np.random.default_rng(seed)
    x, w, bias = integers(rng, p.n, *p.shape), integers(rng, *p.weight_shape), integers(rng, p.filters)
    dy = integers(rng, p.n, *p.output, p.filters)
    calls = [("conv", (x, w)), ("conv", (x, w, bias)), ("conv_grad_input", (dy, w, p.size)),
             ("conv_grad_weight", (x, dy, p.kernel))]
    for name, arguments in calls:
        got = getattr(ops, name)(*arguments, **p.options)
        np.testing.assert_array_equal(got, getattr(reference, name)(*arguments, **p.options), name)
        assert got.dtype == np.float32


@pytest.mark.parametrize("line", CONVS)
def test_convolutions_at_the_corners(line):
    check_conv(parse(line), 0)


@settings(max_examples=50, deadline=None)
@given(problems(), seeds)
def test_convolutions(p, seed):
    check_conv(p, seed)


def check_pool(p, seed):
    x = normals(np.random.default_rng(seed), p.n, *p.shape)
    got, expected = (m.max_pool(x, p.kernel, **p.pool_options) for m in (ops, reference))
    np.testing.assert_array_equal(got, expected)
    got, expected = (m.avg_pool(x, p.kernel, **p.pool_options) for m in (ops, reference))
    np.testing.assert_array_equal(got, expected.astype(np.float32))  # summed in float64 and rounded once
    assert got.dtype == np.float32


@pytest.mark.parametrize("line", POOLS)
def test_poolings_at_the_corners(line):
    check_pool(parse(line), 0)


@settings(max_examples=40, deadline=None)
@given(problems(pooling=True), seeds)
def test_poolings(p, seed):
    check_pool(p, seed)


def test_every_argument_form():
    rng = np.random.default_rng(0)
    x, w = integers(rng, 2, 6, 7, 4), integers(rng, 4, 2, 3, 2)
    for options in ({"padding": "same"}, {"padding": "same", "stride": (2, 3)}, {"padding": [1, 2]},
                    {"padding": [[1, 0], [2, 3]], "dilation": [1, 2]}, {"stride": [3, 1]}):
        np.testing.assert_array_equal(ops.conv(x, w, groups=2, **options), reference.conv(x, w, groups=2, **options))
    np.testing.assert_array_equal(ops.max_pool(x, [3, 2], stride=[1, 2], padding=[[1, 1], [0, 1]]),
                                  reference.max_pool(x, [3, 2], stride=[1, 2], padding=[[1, 1], [0, 1]]))
    np.testing.assert_array_equal(ops.max_pool(x, 2), reference.max_pool(x, 2))
    dy, lists = integers(rng, 2, 6, 7, 4), {"padding": [1, np.int64(1)], "stride": np.int64(1), "groups": 2}
    np.testing.assert_array_equal(ops.conv_grad_weight(x, dy, [3, 3], **lists),
                                  reference.conv_grad_weight(x, dy, (3, 3), padding=1, groups=2))


@pytest.mark.parametrize("kind", [np.float64, np.int64, np.uint8, bool, list])
def test_every_type_of_number(kind):
    values = [[[1, 0], [0, 1], [1, 1]]]
    x = values if kind is list else np.array(values).astype(kind)
    w = np.array([[[1, 2], [3, 4]]])
    np.testing.assert_array_equal(ops.conv(x, w), reference.conv(x, w))


def test_views_of_any_strides_are_read_and_nothing_is_written():
    rng = np.random.default_rng(0)
    whole, w = integers(rng, 4, 9, 8, 6), integers(rng, 6, 3, 3, 5)
    x, filters = whole[::2, ::-1, 1:, ::2], w.transpose(0, 1, 3, 2)
    before = whole.copy(), w.copy()
    y = ops.conv(x, filters)
    np.testing.assert_array_equal(y, reference.conv(x, filters))
    np.testing.assert_array_equal(whole, before[0])
    np.testing.assert_array_equal(w, before[1])
    again = y.copy()
    ops.conv(-x, filters)  # the same plan: results are copies of what it holds
    np.testing.assert_array_equal(y, again)


def test_results_of_threads_do_not_mix():
    """Calls of one shape share a plan."""
    w = np.ones((1, 1, 3, 3), np.float32)

    def one(i):
        x = np.full((1, 40, 40, 1), i, np.float32)
        return all((ops.conv(x, w) == 9 * i).all() and (ops.conv_grad_input(x[:, 1:-1, 1:-1], w, 40).max() == 9 * i)
                   for _ in range(20))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(one, range(1, 9)))


def test_nan_and_infinity_go_where_arithmetic_says():
    x = np.zeros((1, 5, 5, 1), np.float32)
    x[0, 2, 2] = np.nan
    assert np.isnan(ops.conv(x, np.ones((1, 1, 3, 3)))).all()
    expected = np.zeros((5, 5), bool)
    expected[1:4, 1:4] = True
    np.testing.assert_array_equal(np.isnan(ops.conv(x, np.ones((1, 1, 3, 3)), padding=1))[0, :, :, 0], expected)
    np.testing.assert_array_equal(np.isnan(ops.max_pool(x, 3, stride=1, padding=1))[0, :, :, 0], expected)
    np.testing.assert_array_equal(np.isnan(ops.avg_pool(x, 3, stride=1, padding=1))[0, :, :, 0], expected)
    x[0, 2, 2] = np.inf
    assert ops.conv(x, np.ones((1, 1, 3, 3)))[0, 0, 0, 0] == np.inf


X, W = np.zeros((2, 5, 5, 4)), np.zeros((6, 4, 3, 3))


@pytest.mark.parametrize("call, text", [
    (lambda: ops.conv(X, W[:, :3]), "channels"),
    (lambda: ops.conv(X, W, groups=2), "channels"),
    (lambda: ops.conv(X, W[:5, :2], groups=2), "divide"),
    (lambda: ops.conv(X, W[0]), "filters must be"),
    (lambda: ops.conv(X[0, 0], W[0, 0]), "filters must be"),
    (lambda: ops.conv(X, W, np.zeros(5)), "bias must have shape"),
    (lambda: ops.conv(X, W, stride=0), "stride"),
    (lambda: ops.conv(X, W, padding=-1), "padding"),
    (lambda: ops.conv(X, W, padding="valid"), "padding"),
    (lambda: ops.conv(X, W, stride=(1, 1, 1)), "stride"),
    (lambda: ops.conv(X, W, dilation=4), "output"),
    (lambda: ops.conv(X, W, groups=0), "groups"),
    (lambda: ops.conv(X.astype(complex), W), "real numbers"),
    (lambda: ops.conv(X.astype(str), W), "real numbers"),
    (lambda: ops.conv_grad_input(np.zeros((2, 3, 4, 6)), W, (5, 5)), "output's shape"),
    (lambda: ops.conv_grad_input(np.zeros((2, 3, 3, 6)), W, (5, 5, 5)), "input_size"),
    (lambda: ops.conv_grad_weight(X, np.zeros((1, 3, 3, 6)), 3), "output's shape"),
    (lambda: ops.conv_grad_weight(X, np.zeros((2, 3, 3, 6)), (3, 3, 3)), "size"),
    (lambda: ops.max_pool(X, 6), "larger than the input"),
    (lambda: ops.max_pool(X, 2, padding=2), "padding must be smaller"),
    (lambda: ops.avg_pool(X[0, 0], 2), "N, H, W, C"),
    (lambda: ops.max_pool(X, 0), "size"),
])
def test_what_does_not_fit_is_refused(call, text):
    with pytest.raises(ValueError, match=text):
        call()


@pytest.mark.parametrize("name", ops.__all__)
def test_signatures_are_those_of_the_reference(name):
    mine, theirs = inspect.signature(getattr(ops, name)), inspect.signature(getattr(reference, name))
    assert [(p.name, p.kind, p.default) for p in mine.parameters.values()] == \
           [(p.name, p.kind, p.default) for p in theirs.parameters.values()]
