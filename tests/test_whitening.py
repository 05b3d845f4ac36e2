"""A first layer that whitens: its answers are uncorrelated, it is set from training images, and training leaves it."""

from dataclasses import replace

import numpy as np
import pytest

from pellucid import ImageClassifier, Model, Network, Preprocessing, fit, zoo
from pellucid import data as datasets
from pellucid.layers import BatchNorm, Conv, Dense, GlobalAvgPool, ReLU
from pellucid.network import Sequential
from pellucid.training.whitening import filters, whiten

FIRST = Conv(12, 3, padding=1, bias=False, init="whitening", trainable=False)


def images(count=300, seed=0):
    """Smooth ones, so that neighbours are alike."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, 4, 4, 2)).astype(np.float32)
    fine = np.kron(coarse, np.ones((1, 3, 3, 1))) + rng.normal(0, 20, (count, 12, 12, 2))
    return fine.clip(0, 255).astype(np.uint8)


def network(first=FIRST):
    if first == "convnet":
        return zoo.build("convnet", input_shape=(12, 12, 2), classes=3, width=4)
    return Network.build((12, 12, 2), Sequential(first, ReLU(), Conv(8, 3, bias=False), BatchNorm(), ReLU(),
                                                 GlobalAvgPool(), Dense(3)))


def test_answers_are_uncorrelated_and_of_variance_one():
    x = images()
    prepared = Preprocessing.from_images(x).apply(x)
    weight = filters([prepared[:100], prepared[100:]], (12, 2, 3, 3))
    patches = np.lib.stride_tricks.sliding_window_view(prepared, (3, 3), axis=(1, 2)).reshape(-1, 18)
    answers = patches.astype(np.float64) @ weight[:6].reshape(6, -1).T
    np.testing.assert_allclose(answers.T @ answers / len(answers), np.eye(6), atol=0.05)
    np.testing.assert_array_equal(weight[6:], -weight[:6])
    norms = np.linalg.norm(weight[:6].reshape(6, -1), axis=1)
    assert (np.diff(norms) > 0).all()  # the most common component needs the smallest filter


@pytest.mark.parametrize("count, components", [(36, 18), (44, 18), (5, 2)])
def test_more_filters_than_components_and_odd_ones(count, components):
    weight = filters([Preprocessing.from_images(images()).apply(images())], (count, 2, 3, 3))
    used = np.abs(weight).sum(axis=(1, 2, 3)) > 0
    assert used.sum() == 2 * components and np.isfinite(weight).all()


def test_an_image_of_one_colour_gives_no_infinity():
    x = np.full((20, 12, 12, 2), 7, np.uint8)
    assert np.isfinite(filters([Preprocessing.from_images(x).apply(x)], (12, 2, 3, 3))).all()


def test_only_a_first_layer_that_asks_for_it_is_set():
    for first, changes in ((FIRST, True), (Conv(12, 3, padding=1, bias=False), False)):
        model = Model(network(first), 0, preprocessing=Preprocessing.from_images(images()))
        before = {name: values.copy() for name, values in model.parameters.items()}
        whiten(model, images())
        changed = [name for name, values in model.parameters.items() if not np.array_equal(values, before[name])]
        assert changed == ["conv1.weight"] * changes


def test_a_scikit_learn_classifier_sets_it_too():
    x = images(120)
    trained = ImageClassifier(network("convnet"), epochs=1, random_state=0).fit(x, np.arange(120) % 3)
    weight = trained.model_.parameters["conv1.weight"]
    np.testing.assert_array_equal(weight[len(weight) // 2:], -weight[:len(weight) // 2])


def test_what_whitens_some_of_the_patches_whitens_all_of_them_nearly(monkeypatch):
    monkeypatch.setattr("pellucid.training.whitening.MOST_PATCHES", 2**14)  # every other row and column
    x = images(300)
    model = Model(network(), 0, preprocessing=Preprocessing.from_images(x))
    whiten(model, x)
    found, every = model.parameters["conv1.weight"][:3], filters([model.preprocessing.apply(x)], (6, 2, 3, 3))[:3]
    assert not np.array_equal(found, every)
    for component, wanted in zip(found, every, strict=True):
        cosine = (component * wanted).sum() / np.linalg.norm(component) / np.linalg.norm(wanted)
        assert abs(cosine) > 0.95 and np.linalg.norm(component) == pytest.approx(np.linalg.norm(wanted), rel=0.1)


@pytest.mark.parametrize("fields", [{"groups": 2}, {"dilation": 2}, {"filters": 1}])
def test_layers_that_cannot_whiten(fields):
    with pytest.raises(ValueError, match="whiten"):
        replace(FIRST, **fields)
    with pytest.raises(ValueError, match="whitening"):
        Dense(3, init="whitening")


def test_layers_that_see_no_image_and_images_that_are_too_small():
    pre = Preprocessing.from_images(images())
    second = Sequential(Conv(4, 1), FIRST, GlobalAvgPool(), Dense(3))
    with pytest.raises(ValueError, match="'conv2' has init \"whitening\""):
        whiten(Model(Network.build((12, 12, 2), second), preprocessing=pre), images())
    small = Network.build((2, 2, 2), Sequential(FIRST, GlobalAvgPool(), Dense(3)))
    with pytest.raises(ValueError, match="smaller than its filters"):
        whiten(Model(small), np.zeros((5, 2, 2, 2), np.float32))


def test_training_sets_it_from_training_images_and_leaves_it():
    x = images(240)
    data = datasets.to_dataset("smooth", x, np.arange(240) % 3, classes=list("abc"))
    run = fit(network(), data, epochs=2, out=False, mirror=False)
    parts = datasets.split(data, 0)
    expected = filters([run.model.preprocessing.apply(parts.train.images)], (12, 2, 3, 3))
    np.testing.assert_allclose(run.model.parameters["conv1.weight"], expected, atol=1e-5)
    assert "conv1.weight" not in [n for n, p in run.model.network.parameters().items() if p.trainable]
