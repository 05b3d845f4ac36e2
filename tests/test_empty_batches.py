"""No images in, no answers out: for every kind of layer, of the right shape and type."""

import numpy as np
import pytest
from test_layers import REGISTERED
from three_ways import nodes, normals

from pellucid import Model, Preprocessing
from pellucid import layers as L
from pellucid.layers.base import LAYERS
from pellucid.network import Network, Residual, Sequential
from pellucid.views import KINDS

SHAPE, CLASSES = (6, 5, 3), 4
GREY = (6, 5, 1)
HEAD = (L.Flatten(), L.Dense(CLASSES))


def network(*body, shape=SHAPE):
    return Network.build(shape, Sequential(*body))


def merged(layer):
    return nodes(SHAPE, ("a", L.Conv(7, 3), "input"), ("b", L.Conv(7, 3), "input"), ("both", layer, "a", "b"),
                 ("flat", L.Flatten(), "both"), ("end", L.Dense(CLASSES), "flat"))


NETWORKS = {
    **{kind: network(L.Conv(7, 3, padding=1), LAYERS[kind](), *HEAD)
       for kind in ("Affine", "BatchNorm", "GELU", "LRN", "LeakyReLU", "ReLU", "ScaledTanh", "SiLU",
                    "Sigmoid", "Softmax", "Tanh")},
    **{kind: network(LAYERS[kind](2), *HEAD) for kind in ("MaxPool", "AvgPool")},
    **{kind: network(L.Conv(7, 3), LAYERS[kind](), L.Dense(CLASSES)) for kind in ("GlobalAvgPool", "GlobalMaxPool")},
    **{kind: merged(LAYERS[kind]()) for kind in ("Add", "Concat")},
    "ChannelShuffle": network(L.Conv(6, 3), L.ChannelShuffle(2), *HEAD),
    "Clip": network(L.Clip(0, 6), *HEAD),
    "AdaptiveAvgPool": network(L.Conv(7, 3), L.AdaptiveAvgPool((3, 2)), *HEAD),
    "PadChannels": network(L.Conv(7, 3), L.PadChannels(9), *HEAD),
    "TakeChannels": network(L.Conv(7, 3), L.TakeChannels((6, 0, 0)), *HEAD),
    "Conv": network(L.Conv(6, 3, stride=2, groups=3), L.Conv(CLASSES, (2, 1)), L.GlobalAvgPool()),
    "Dense": network(L.Flatten(), L.Dense(17, bias=False), L.Dense(CLASSES)),
    "Dropout": network(L.Flatten(), L.Dropout(0.5), L.Dense(CLASSES)),
    "Flatten": network(*HEAD, L.Flatten()),
    "Pad": network(L.Pad(1), *HEAD),
    "softmax last": network(*HEAD, L.Softmax()),
    "residual": network(Residual(L.Conv(3, 3, padding=1)), *HEAD),
    "grey": network(L.Conv(3, 3), *HEAD, shape=GREY),
}
OTHERS = {
    "features": network(L.Dense(9), L.ReLU(), L.Dense(CLASSES), shape=(5,)),
    "a signal": network(L.Conv(9, 3), L.MaxPool(2), *HEAD, shape=(12, 2)),
}


def test_every_kind_of_layer_is_here():
    for kind in REGISTERED:
        assert kind in [type(n.layer).__name__ for n in NETWORKS[kind].nodes]


@pytest.mark.parametrize("name", [*NETWORKS, *OTHERS])
def test_logits(name):
    model = Model((NETWORKS | OTHERS)[name], 0)
    x = normals(np.random.default_rng(0), 3, *model.network.input_shape)
    before = model.logits(x)
    assert before.shape == (3, CLASSES)
    for _ in range(2):
        none = model.logits(x[:0])
        assert none.shape == (0, CLASSES) and none.dtype == np.float32
    np.testing.assert_array_equal(model.logits(x), before)
    assert Model(model.network, 0).logits(x[:0]).shape == (0, CLASSES)  # asked first


@pytest.mark.parametrize("name", NETWORKS)
def test_predict(name):
    shape = NETWORKS[name].input_shape
    channels = shape[-1]
    model = Model(NETWORKS[name], 0, preprocessing=Preprocessing(shape, (0.5,) * channels, (0.2,) * channels))
    x = np.random.default_rng(0).integers(0, 256, (2, *shape), np.uint8)
    for images in (x[:0], x[:0, ..., 0]) if channels == 1 else (x[:0],):
        none = model.predict(images)
        assert none.shape == (0, CLASSES) and none.dtype == np.float32
    some = model.predict(x)
    assert some.shape == (2, CLASSES)
    np.testing.assert_allclose(some.sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("shape", [(0,), (0, 6, 5), (0, 6, 5, 4), (0, 5, 6, 3), (0, 6, 5, 3, 1)])
def test_no_images_of_another_shape_are_refused_all_the_same(shape):
    model = Model(NETWORKS["Conv"], 0)
    with pytest.raises(ValueError, match=r"expected images of shape \(N, 6, 5, 3\)"):
        model.logits(np.zeros(shape, np.float32))
    for kind in KINDS:
        with pytest.raises(ValueError, match=r"expected images of shape \(N, 6, 5, 3\)"):
            model.log_probabilities(np.zeros(shape, np.float32), tta=kind)
