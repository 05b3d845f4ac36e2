"""The numbers of the lecture (MIT 6.390, "Convolutional neural networks"), exactly: by kernels and by definition."""

import numpy as np
import pytest

from pellucid import Network, layers, ops, reference
from pellucid.network import Sequential

both = pytest.mark.parametrize("how", [ops, reference], ids=["ops", "reference"])

IMAGE = np.array([[3, 3, 2, 1, 0], [0, 0, 1, 3, 1], [3, 1, 2, 2, 3], [2, 0, 0, 2, 2], [2, 0, 0, 0, 1]])
FILTER = np.array([[0, 1, 2], [2, 2, 0], [0, 1, 2]])


def signal(*values):
    return np.array(values).reshape(1, -1, 1)


def taps(*values):
    return np.array(values).reshape(1, 1, -1)


@both
@pytest.mark.parametrize("x, y", [((0, 1, 0, 1, 1), (1, -1, 1, 0)), ((0, 1, -1, 1, 1), (1, -2, 2, 0))])
def test_one_dimensional_convolution(how, x, y):
    np.testing.assert_array_equal(how.conv(signal(*x), taps(-1, 1)), signal(*y))


@both
def test_convolution_is_a_product_with_a_sparse_matrix(how):
    a = how.conv_matrix(taps(-1, 1), 5)
    # The lecture draws the transpose: a column for each output, holding -1 and 1.
    np.testing.assert_array_equal(
        a.T, [[-1, 0, 0, 0], [1, -1, 0, 0], [0, 1, -1, 0], [0, 0, 1, -1], [0, 0, 0, 1]])
    np.testing.assert_array_equal(a @ [0, 1, -1, 1, 1], [1, -2, 2, 0])
    np.testing.assert_array_equal(a @ [0, 1, 0, 1, 1], how.conv(signal(0, 1, 0, 1, 1), taps(-1, 1)).ravel())


@both
def test_the_filter_1_is_the_identity(how):
    np.testing.assert_array_equal(how.conv_matrix(taps(1), 5), np.eye(5))
    np.testing.assert_array_equal(how.conv(signal(0, 1, 0, 1, 1), taps(1)), signal(0, 1, 0, 1, 1))


@both
@pytest.mark.parametrize("stride, padding, y", [
    (1, 0, [[12, 12, 17], [10, 17, 19], [9, 6, 14]]),
    (2, 0, [[12, 17], [9, 14]]),
    (2, 1, [[6, 17, 3], [8, 17, 13], [6, 4, 4]]),
])
def test_two_dimensional_convolution(how, stride, padding, y):
    got = how.conv(IMAGE[None, :, :, None], FILTER[None, None], stride=stride, padding=padding)
    np.testing.assert_array_equal(got[0, :, :, 0], y)


@both
@pytest.mark.parametrize("stride, y", [
    (1, [[3, 3, 3], [3, 3, 3], [3, 2, 3]]),  # the window in the middle of the last row sees 1 2 2 / 0 0 2 / 0 0 0
    (2, [[3, 3], [3, 3]]),
])
def test_max_pooling(how, stride, y):
    """The lecture pools this image with stride 2."""
    got = how.max_pool(IMAGE[None, :, :, None], 3, stride=stride)
    np.testing.assert_array_equal(got[0, :, :, 0], y)


@both
def test_a_filter_as_deep_as_the_input_gives_one_plane_and_k_filters_give_k(how):
    """Channels are summed over: the colour planes' own convolutions, added up."""
    rng = np.random.default_rng(0)
    x, w = rng.integers(-3, 4, (1, 5, 5, 3)), rng.integers(-3, 4, (4, 3, 3, 3))
    one = how.conv(x, w[:1])
    assert one.shape == (1, 3, 3, 1)
    planes = sum(how.conv(x[..., c : c + 1], w[:1, c : c + 1]) for c in range(3))
    np.testing.assert_array_equal(one, planes)
    assert how.conv(x, w).shape == (1, 3, 3, 4)
    np.testing.assert_array_equal(how.conv(x, w)[..., :1], one)


@both
def test_pooling_leaves_channels_alone_and_forgives_small_shifts(how):
    x = np.zeros((1, 6, 6, 2))
    x[0, 1, 1] = 5, 7
    for shift in ((0, 0), (1, 0), (0, 1), (1, 1)):
        moved = np.roll(x, shift, (1, 2))
        np.testing.assert_array_equal(how.max_pool(moved, 3)[0, 0, 0], (5, 7))
    assert not layers.MaxPool(3).parameters((6, 6, 2))


def test_parameters_of_fully_connected_networks():
    """784 x 16 weights and 16 biases; and the "about 3M" of a 426 x 426 grey image."""
    assert Network.build((784,), layers.Dense(16)).parameter_count == 784 * 16 + 16 == 12_560
    large = Network.build((426, 426, 1), Sequential(
        layers.Flatten(), layers.Dense(16), layers.ReLU(), layers.Dense(16), layers.ReLU(), layers.Dense(10)))
    assert large.parameter_count == 2_904_074
    assert "2,904,074" in large.summary()
    assert "12,560" in Network.build((784,), layers.Dense(16)).summary()
