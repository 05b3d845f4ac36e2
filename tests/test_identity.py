"""Gradients with the identity path and without: the network without it is the plain one, and norms are the loss's."""

import numpy as np
import pytest
from shapes_data import CLASSES, pictures

from pellucid import Model, Preprocessing, zoo
from pellucid.layers import Add, Conv, Dense, Flatten, GlobalAvgPool, ReLU
from pellucid.network import Network, Node, Residual, Sequential
from pellucid.studies import identity
from pellucid.training import gradients


def signature(network):
    return [(type(n.layer).__name__, network.shapes[n.name]) for n in network.nodes]


@pytest.mark.parametrize("residual, plain", [("resnet20", "plain20"), ("resnet56", "plain56")])
def test_without_the_identity_a_residual_network_is_its_plain_twin(residual, plain):
    bare, sums = identity.without_identity(zoo.build(residual))
    twin = zoo.build(plain)
    assert sums == {"resnet20": 9, "resnet56": 27}[residual]
    assert signature(bare) == signature(twin) and bare.parameter_count == twin.parameter_count


def test_shortcuts_with_weights_go_with_them():
    network = zoo.build("resnet18")
    bare, sums = identity.without_identity(network)
    gone = {n.name for n in network.nodes} - {n.name for n in bare.nodes}
    assert sums == 8 and all(".downsample." in name or isinstance(network.node(name).layer, Add) for name in gone)
    assert sum("downsample.0" in name for name in gone) == 3


def test_sums_of_equally_deep_branches_stay():
    branches = Network((8, 8, 1), (
        Node("a", Conv(2, 3, padding=1)), Node("b", Conv(2, 1)), Node("sum", Add(), ("a", "b")),
        Node("flatten", Flatten(), ("sum",)), Node("fc", Dense(3), ("flatten",))))
    assert identity.without_identity(branches) == (branches, 0)
    last = Network.build((4, 4, 2), Residual(Sequential(Conv(2, 3, padding=1))))  # a sum at the end
    bare, sums = identity.without_identity(last)
    assert sums == 1 and [type(n.layer) for n in bare.nodes] == [Conv] and bare.output == bare.nodes[-1].name


def test_norms_are_those_of_the_loss():
    images, labels = pictures(count=64)
    network = Network.build((8, 8, 1), Sequential(Flatten(), Dense(3)))
    model = Model(network, 0, classes=CLASSES, preprocessing=Preprocessing.from_images(images))
    before = {name: values.copy() for name, values in model.parameters.items()}
    found = identity.study(model, images, labels, batch_size=16)
    x = ((images.reshape(64, -1) / 255.0 - model.preprocessing.mean[0]) / model.preprocessing.std[0])
    logits = x @ before["dense1.weight"].T.astype(float) + before["dense1.bias"]
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    d = p / p.sum(axis=1, keepdims=True) - np.eye(3)[labels]
    norms = []
    for i in range(0, 64, 16):
        w, b = d[i:i + 16].T @ x[i:i + 16] / 16, d[i:i + 16].mean(axis=0)
        norms.append(np.sqrt(np.square(w).sum() + np.square(b).sum()))
    norm, = found.norms[identity.MODEL]
    assert norm.norm == pytest.approx(np.mean(norms), rel=1e-4)
    assert (norm.layer, norm.kind, norm.depth, norm.parameters) == ("dense1", "Dense", 1, 195)
    assert found.images == 64 and not found.shortcuts and "no identity path" in found.words()[-1]
    for name, values in model.parameters.items():
        assert (values == before[name]).all()


def test_a_deep_plain_network_loses_what_the_identity_hands_on():
    """Without normalisation, layers with too small weights shrink the gradient each time; sums keep it."""
    blocks = [Residual(Sequential(ReLU(), Conv(4, 3, padding=1))) for _ in range(12)]
    network = Network.build((8, 8, 1), Sequential(Conv(4, 3, padding=1), *blocks, GlobalAvgPool(), Dense(3)))
    images, labels = pictures(count=32)
    model = Model(network, 0, classes=CLASSES, preprocessing=Preprocessing.from_images(images))
    model.load_parameters({k: 0.3 * v if k.endswith("weight") else v for k, v in model.parameters.items()})
    statistics = {name: v.copy() for name, v in model.parameters.items()}
    found = identity.study(model, images, labels)
    assert found.shortcuts == 12 and list(found.norms) == [identity.MODEL, identity.FRESH, identity.PLAIN]
    bare = Model(identity.without_identity(network)[0], 0, classes=CLASSES, preprocessing=model.preprocessing)
    bare.load_parameters({k: v for k, v in statistics.items()})
    plain = identity.study(bare, images, labels)
    assert plain.shortcuts == 0 and identity.PLAIN not in plain.norms
    assert 0.1 < found.ratios()[identity.MODEL] < 10
    first, last = plain.norms[identity.MODEL][0].norm, plain.norms[identity.MODEL][-2].norm
    assert first < 1e-2 * last  # the same weights, without the sums
    svg = found.picture().svg
    assert all(name in svg for name in found.norms) and "power of 10" in svg
    assert found.to_json()["ratios"] == found.ratios()


def test_norms_of_zero_leave_a_gap():
    svg = gradients.picture([("dead", [1.0, 0.0, 1.0])]).svg
    assert "nan" not in svg.lower() and "inf" not in svg.lower()


@pytest.mark.parametrize("count, labels, text", [(10, 10, "at least 32"), (40, 39, "as many labels")])
def test_images_that_are_too_few(count, labels, text):
    images, known = pictures(count=40)
    model = Model(zoo.build("mlp", input_shape=(8, 8, 1), classes=3), 0,
                  preprocessing=Preprocessing.from_images(images))
    with pytest.raises(ValueError, match=text):
        identity.study(model, images[:count], known[:labels])
