"""Gradients with the identity path and without: the network without it is the plain one, and norms are the loss's."""

from importlib import import_module

import numpy as np
import pytest
from shapes_data import CLASSES, pictures

from pellucid import Model, Preprocessing, studies, zoo
from pellucid.layers import Add, Conv, Dense, Flatten, GlobalAvgPool, ReLU, Softmax
from pellucid.network import Network, Node, Residual, Sequential
from pellucid.studies.identity import FRESH, MODEL, PLAIN, without_identity
from pellucid.training import gradients
from pellucid.training.step import Diverged, TrainStep


def signature(network):
    return [(type(n.layer).__name__, network.shapes[n.name]) for n in network.nodes]


def of(network, count=64):
    """A model of a network, images and labels."""
    images, labels = pictures(count=count)
    return Model(network, 0, classes=CLASSES, preprocessing=Preprocessing.from_images(images)), images, labels


def deep(*end):
    """Twelve sums in a row, without normalisation."""
    blocks = [Residual(Sequential(ReLU(), Conv(4, 3, padding=1))) for _ in range(12)]
    return Network.build((8, 8, 1), Sequential(Conv(4, 3, padding=1), *blocks, GlobalAvgPool(), Dense(3), *end))


@pytest.mark.parametrize("residual, plain", [("resnet20", "plain20"), ("resnet56", "plain56")])
def test_without_the_identity_a_residual_network_is_its_plain_twin(residual, plain):
    bare, sums = without_identity(zoo.build(residual))
    twin = zoo.build(plain)
    assert sums == {"resnet20": 9, "resnet56": 27}[residual]
    assert signature(bare) == signature(twin) and bare.parameter_count == twin.parameter_count


def test_shortcuts_with_weights_go_with_them():
    network = zoo.build("resnet18")
    bare, sums = without_identity(network)
    gone = {n.name for n in network.nodes} - {n.name for n in bare.nodes}
    assert sums == 8 and all(".downsample." in name or isinstance(network.node(name).layer, Add) for name in gone)
    assert sum("downsample.0" in name for name in gone) == 3


def test_sums_of_equally_deep_branches_stay():
    branches = Network((8, 8, 1), (
        Node("a", Conv(2, 3, padding=1)), Node("b", Conv(2, 1)), Node("sum", Add(), ("a", "b")),
        Node("flatten", Flatten(), ("sum",)), Node("fc", Dense(3), ("flatten",))))
    assert without_identity(branches) == (branches, 0)
    last = Network.build((4, 4, 2), Residual(Sequential(Conv(2, 3, padding=1))))  # a sum at the end
    bare, sums = without_identity(last)
    assert sums == 1 and [type(n.layer) for n in bare.nodes] == [Conv] and bare.output == bare.nodes[-1].name


def test_norms_are_those_of_the_loss():
    model, images, labels = of(Network.build((8, 8, 1), Sequential(Flatten(), Dense(3))))
    weight, bias = (model.parameters[f"dense1.{name}"].astype(float) for name in ("weight", "bias"))
    norm, = gradients.norms(TrainStep(model, 16, gradients.STILL), model.network, images, labels, 16)
    x = ((images.reshape(64, -1) / 255.0 - model.preprocessing.mean[0]) / model.preprocessing.std[0])
    logits = x @ weight.T + bias
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    d = p / p.sum(axis=1, keepdims=True) - np.eye(3)[labels]
    norms = []
    for i in range(0, 64, 16):
        w, b = d[i:i + 16].T @ x[i:i + 16] / 16, d[i:i + 16].mean(axis=0)
        norms.append(np.sqrt(np.square(w).sum() + np.square(b).sum()))
    assert norm.norm == pytest.approx(np.mean(norms), rel=1e-4)
    assert (norm.layer, norm.kind, norm.depth, norm.parameters) == ("dense1", "Dense", 1, 195)


def test_a_deep_plain_network_loses_what_the_identity_hands_on():
    """Without normalisation, layers with too small weights shrink the gradient each time; sums keep it."""
    model, images, labels = of(deep(), 32)
    model.load_parameters({k: 0.3 * v if k.endswith("weight") else v for k, v in model.parameters.items()})
    before = {name: v.copy() for name, v in model.parameters.items()}
    found = studies.identity(model, images, labels)
    assert all((model.parameters[name] == v).all() for name, v in before.items())
    assert found.shortcuts == 12 and found.images == 32 and list(found.norms) == [MODEL, FRESH, PLAIN]
    assert [len(norms) for norms in found.norms.values()] == [14, 14, 14]
    bare = Model(without_identity(model.network)[0], 0, preprocessing=model.preprocessing)
    bare.load_parameters(before)  # the same weights, without the sums
    first, *_, last, _ = gradients.norms(TrainStep(bare, 32, gradients.STILL), bare.network, images, labels, 32)
    assert first.norm < 1e-2 * last.norm
    assert 0.1 < found.ratios[MODEL] < 10 and f"{found.ratios[MODEL]:.2g} (the model as it is)" in found.sentence
    values = [norm.norm for norm in found.norms[PLAIN]]
    assert found.ratios[PLAIN] == pytest.approx(np.exp(np.log(values[:3]).mean() - np.log(values[-3:]).mean()))
    svg = found.figures()[0].svg
    assert all(name in svg for name in found.norms) and "power of 10" in svg
    assert found.to_json()["ratios"] == found.ratios


def test_labels_are_the_models_answers_unless_given():
    model, images, labels = of(deep(), 64)
    answers = model.log_probabilities(images, calibrated=False).argmax(axis=1)
    own = studies.identity(model, images)
    assert not own.labelled and "the model's own answers" in own.sentence
    assert studies.identity(model, images, answers).norms == own.norms
    given = studies.identity(model, images, (answers + 1) % 3)
    assert given.labelled and "with their labels" in given.sentence and given.norms[MODEL] != own.norms[MODEL]


def test_scores_are_those_before_a_softmax():
    model, images, _ = of(deep(Softmax()), 40)
    bare, *_ = of(deep(), 40)
    bare.load_parameters(model.parameters)
    assert studies.identity(model, images).norms == studies.identity(bare, images).norms


def test_large_networks_are_asked_about_fewer_images(monkeypatch):
    model, images, _ = of(deep(), 64)
    assert studies.identity(model, images, batch_size=24).images == 48
    assert studies.identity(model, images[:5]).images == 5
    module, network = import_module("pellucid.studies.identity"), model.network
    monkeypatch.setattr(module, "MEMORY", 3 * 10.5 * sum(network.activation_bytes.values()))
    assert studies.identity(model, images).images == 40  # four times ten
    monkeypatch.setattr(module, "WORK", 9 * 11 * sum(network.macs.values()))
    assert studies.identity(model, images).images == 10
    monkeypatch.setattr(module, "WORK", 1)
    assert studies.identity(model, images).images == 8


def test_a_layer_that_gets_no_gradient():
    model, images, labels = of(deep(), 32)
    model.load_parameters({k: 0 * v for k, v in model.parameters.items()})
    found = studies.identity(model, images, labels)
    assert found.ratios[MODEL] is None and "not known (the model as it is)" in found.sentence
    assert all("nan" not in figure.svg.lower() for figure in found.figures())


def test_norms_of_zero_leave_a_gap():
    svg = gradients.picture([("dead", [1.0, 0.0, 1.0])]).svg
    assert "nan" not in svg.lower() and "inf" not in svg.lower()


def test_what_cannot_be_measured():
    model, images, labels = of(deep(), 40)
    with pytest.raises(ValueError, match="a label for each of 40 images"):
        studies.identity(model, images, labels[:39])
    with pytest.raises(ValueError, match="labels must be from 0 to 2, got 3 to 5"):
        studies.identity(model, images, labels + 3)
    with pytest.raises(studies.DoesNotApply, match="ends in a map"):
        studies.identity(of(Network.build((8, 8, 1), Sequential(
            Conv(3, 1), Residual(Sequential(Conv(3, 3, padding=1))))))[0], images)
    broken = {k: v * np.nan if k == "residual5.conv1.weight" else v for k, v in model.parameters.items()}
    model.load_parameters(broken)
    with pytest.raises(ValueError, match="not finite"):
        studies.identity(model, images, labels)


def test_a_loss_that_is_no_number_is_no_advice_on_training(monkeypatch):
    def norms(*_):
        raise Diverged(1, "loss", 0.0)

    model, images, labels = of(deep(), 32)
    monkeypatch.setattr(gradients, "norms", norms)
    with pytest.raises(ValueError, match="^the model as it is: the loss or its gradient is not a finite number; [^:]+"):
        studies.identity(model, images, labels)
