"""What holds for every method that gives a map: discovered from `explain.METHODS`, so that a new one is tested too."""

import sys
from html import escape

import numpy as np
import pytest
from explain_data import network, planted, trained
from scipy.stats import spearmanr
from three_ways import nodes, normals, parameters

import pellucid
from pellucid import explain, zoo
from pellucid.explain import taps
from pellucid.explain.maps import shown
from pellucid.layers import Conv, Dense, GlobalAvgPool, MaxPool, ReLU, Softmax

METHODS = pytest.mark.parametrize("method", explain.METHODS.values(), ids=explain.METHODS)
IMAGES, LABELS, PLACES = planted(60, seed=9)


def made(net, seed=0, **more):
    """A model with random parameters, biases and running statistics included."""
    model = pellucid.Model(net, seed=seed, **more)
    model.load_parameters(parameters(net, np.random.default_rng(seed)))
    return model


def signal_network():
    return nodes((40, 2), ("c", Conv(6, 5, padding=2), "input"), ("r", ReLU(), "c"), ("p", MaxPool(2), "r"),
                 ("c2", Conv(6, 3), "p"), ("r2", ReLU(), "c2"), ("g", GlobalAvgPool(), "r2"), ("fc", Dense(3), "g"))


def rank_correlation(a, b):
    """Spearman's; a constant map correlates with nothing."""
    return 0.0 if np.ptp(a) == 0 or np.ptp(b) == 0 else spearmanr(a.ravel(), b.ravel()).statistic


def test_the_network_that_is_asked_has_learned():
    assert (trained().predict(IMAGES).argmax(axis=1) == LABELS).mean() > 0.95


@METHODS
def test_the_evidence_is_found(method):
    """Nothing but the patch decides; in it and two pixels around it, a fifth of the image, lies most of the map."""
    shares = []
    for image, label, (y, x) in zip(IMAGES[:12], LABELS, PLACES, strict=False):
        values = np.abs(method(trained(), image, int(label)).values)
        shares.append(values[max(y - 2, 0):y + 6, max(x - 2, 0):x + 6].sum() / values.sum())
    assert np.mean(shares) > 0.5


@METHODS
def test_random_weights_change_the_map(method):
    """Adebayo et al., "Sanity checks for saliency maps", 2018: a map that stays explains the image, not the model."""
    model, rng = trained(), np.random.default_rng(0)
    random, near = (pellucid.Model(model.network, seed=5, preprocessing=model.preprocessing, classes=model.classes)
                    for _ in range(2))
    near.load_parameters({name: value * (1 + 0.01 * normals(rng, *value.shape))
                          for name, value in model.parameters.items()})
    found = [[rank_correlation(method(model, image, 1).values, method(other, image, 1).values)
              for image in IMAGES[:12]] for other in (random, near)]
    assert np.abs(found[0]).mean() < 0.4
    assert np.mean(found[1]) > 0.8  # the measure tells a model from a random one, not every model from every other


@METHODS
def test_a_map_says_what_it_explains(method):
    model, image = trained(), IMAGES[0]
    found = method(model, image)
    logits = model.logits(model.preprocessing.apply(image[None]))[0]
    assert found.method == method.__name__ and found.note
    assert found.target == logits.argmax() and found.target_name == model.classes[found.target]
    assert found.score == pytest.approx(float(logits[found.target]), rel=1e-5)
    assert found.values.dtype == np.float32 and found.values.shape == (16, 16) and np.isfinite(found.values).all()
    np.testing.assert_array_equal(found.image, image)
    for target in (2, np.int64(2), "checks"):
        named = method(model, image, target)
        assert named.target == 2 and named.score == pytest.approx(float(logits[2]), rel=1e-5)
    assert rank_correlation(found.values, method(model, image, (found.target + 1) % 3).values) < 0.99


@METHODS
def test_images_may_come_as_bytes_or_as_the_network_reads_them(method):
    model = trained()
    found = method(model, IMAGES[3])
    read = method(model, model.preprocessing.apply(IMAGES[3][None])[0])
    np.testing.assert_array_equal(found.values, read.values)
    np.testing.assert_array_equal(found.values, method(model, IMAGES[3][..., 0]).values)  # grey, without its channel
    assert read.image.dtype == np.float32 and found.image.dtype == np.uint8


@METHODS
def test_models_without_preprocessing_read_floats(method):
    model = made(network((12, 10, 3)))
    image = normals(np.random.default_rng(1), 12, 10, 3)
    assert method(model, image).values.shape == (12, 10)
    with pytest.raises(ValueError, match="no preprocessing"):
        method(model, np.zeros((12, 10, 3), np.uint8))


@METHODS
def test_signals_have_maps_of_one_row(method):
    model = made(signal_network())
    found = method(model, normals(np.random.default_rng(2), 40, 2))
    assert found.values.shape == (1, 40) and np.ptp(found.values) > 0


@METHODS
def test_the_logit_before_a_softmax_is_explained(method):
    plain = network((12, 12, 1))
    soft = pellucid.Network(plain.input_shape, (*plain.nodes, pellucid.network.Node("s", Softmax(), ("dense1",))))
    image = normals(np.random.default_rng(3), 12, 12, 1)
    model = made(plain)
    asked = pellucid.Model(soft, seed=None)
    for factor in (1, 2):  # the second time with other parameters
        model.load_parameters({name: value * factor for name, value in model.parameters.items()})
        asked.load_parameters(model.parameters)
        one, other = method(model, image), method(asked, image)
        np.testing.assert_array_equal(one.values, other.values)
        assert (one.target, one.score) == (other.target, other.score)


@METHODS
def test_one_view_is_explained_where_the_answer_is_of_two(method):
    """With test-time augmentation the target is the answer of both views, the score that of the image as it is."""
    model, both = (made(network((12, 12, 1), classes=10, bias=False), tta=tta) for tta in ("none", "mirror"))
    images = normals(np.random.default_rng(6), 50, 12, 12, 1)
    answers = both.log_probabilities(images).argmax(axis=1)
    at = np.flatnonzero(model.logits(images).argmax(axis=1) != answers)[0]  # an image on which the two disagree
    image = images[at]
    found = method(both, image)
    assert found.target == answers[at]
    np.testing.assert_array_equal(found.values, method(model, image, found.target).values)


@METHODS
def test_few_images_are_held_at_a_time(method, monkeypatch):
    model, image, most = trained(), IMAGES[0], []
    whole = method(model, image).values
    for name in ("occlusion", "integrated_gradients"):  # whose functions have taken the modules' names
        monkeypatch.setattr(sys.modules[f"pellucid.explain.{name}"], "BATCH", 5)
    for name in ("values", "gradients"):
        real = getattr(taps, name)
        monkeypatch.setattr(taps, name, lambda m, images, *rest, real=real: most.append(len(images)) or real(
            m, images, *rest))
    np.testing.assert_allclose(method(model, image).values, whole, rtol=1e-4, atol=1e-5)
    assert 1 <= max(most) <= 5


def with_maps(name):
    return name not in ("gradient", "gradient_times_input", "integrated_gradients", "occlusion")


@METHODS
def test_networks_without_maps_are_explained_at_the_pixels_or_refused(method):
    model = made(zoo.build("mlp", input_shape=(8, 8, 1), classes=4))
    image = normals(np.random.default_rng(4), 8, 8, 1)
    if with_maps(method.__name__):
        with pytest.raises(ValueError, match="use .*integrated_gradients") as refused:
            method(model, image)
        assert "\n" not in str(refused.value)
    else:
        assert np.ptp(method(model, image).values) > 0


@pytest.mark.parametrize("name", ["resnet20", "convnet", "lenet", "cifar_vgg"])
@METHODS
def test_networks_of_the_zoo(method, name):
    shape = (16, 16, 3)
    model = pellucid.Model(zoo.build(name, input_shape=shape, classes=5), seed=3)
    image = normals(np.random.default_rng(5), *shape)
    if method is explain.contributions and name in ("lenet",):
        with pytest.raises(ValueError, match="reads .* and not a map"):
            method(model, image)
        return
    values = method(model, image).values
    assert values.shape == (16, 16) and np.isfinite(values).all() and np.ptp(values) > 0


@METHODS
def test_what_cannot_be_asked_is_refused(method):
    model, image = trained(), IMAGES[0]
    for wrong, message in ((3, "from 0 to 2, got 3"), (-1, "from 0 to 2, got -1"), (True, "from 0 to 2, got True"),
                           (1.5, "from 0 to 2"), ("stripes", "no class is called 'stripes'; there are rows")):
        with pytest.raises(ValueError, match=message):
            method(model, image, wrong)
    for wrong, message in ((image[:8], r"one image of shape \(16, 16, 1\), got \(8, 16, 1\)"),
                           (IMAGES[:2], "got .2, 16, 16, 1."), (image.astype(np.float64), "float64"),
                           (np.full((16, 16, 1), np.nan, np.float32), "not finite"), (7, "int64")):
        with pytest.raises(ValueError, match=message):
            method(model, wrong)
    vectors = made(nodes((6,), ("fc", Dense(3), "input")))
    with pytest.raises(ValueError, match="reads vectors of 6 features"):
        method(vectors, np.zeros(6, np.float32))
    maps = made(nodes((6, 6, 1), ("c", Conv(3, 3), "input")))
    with pytest.raises(ValueError, match="output is a map"):
        method(maps, np.zeros((6, 6, 1), np.float32))
    alone = pellucid.Model(nodes((6,), ("s", Softmax(), "input")))
    with pytest.raises(ValueError, match="vectors|no logits"):
        method(alone, np.zeros(6, np.float32))


@pytest.mark.parametrize("weight", [np.nan, np.float32(3e38)], ids=["no number", "too large"])
@METHODS
def test_a_network_that_gives_no_numbers_is_refused(method, weight):
    model = made(network((8, 8, 1)))
    model.load_parameters({**model.parameters, "conv1.weight": np.full_like(model.parameters["conv1.weight"], weight)})
    image = normals(np.random.default_rng(1), 8, 8, 1)
    for ask in (method, explain.smallest_change, lambda m, i: method(m, i, 0), lambda m, i: explain.neighbours(
            m, i, i[None])):
        with pytest.raises(ValueError, match="too large, or no numbers"):
            ask(model, image)


def test_the_registry_names_its_methods():
    assert all(name == method.__name__ == getattr(explain, name).__name__ for name, method in explain.METHODS.items())
    assert set(explain.__all__) >= set(explain.METHODS)


@METHODS
def test_maps_show_themselves(method):
    """In notebooks: the map over its image, and its note; of signals a curve."""
    found = method(trained(), IMAGES[0])
    html = found._repr_html_()
    assert found.picture.svg in html and escape(found.note) in html and found.target_name in found.picture.svg
    curve = method(made(signal_network()), normals(np.random.default_rng(2), 40, 2)).picture.svg
    assert curve.startswith("<svg") and "position" in curve
    model = trained()
    hostile = pellucid.Model(model.network, preprocessing=model.preprocessing, classes=["<b>", "</svg>", "&"])
    hostile.load_parameters(model.parameters)
    html = method(hostile, IMAGES[0], 1)._repr_html_()
    assert "<b>" not in html and html.count("</svg>") == html.count("<svg")
    for channels in (2, 3, 4):
        model = made(network((8, 9, channels)))
        assert "<image" in method(model, normals(np.random.default_rng(3), 8, 9, channels)).picture.svg


@pytest.mark.parametrize("image", [IMAGES[0], IMAGES[0][..., 0][:, :, None].astype(np.float32) * 3 - 7])
def test_images_are_shown_from_black_to_white(image):
    found = shown(image)
    assert found.dtype == np.uint8 and found.shape == (16, 16)
    if image.dtype == np.float32:
        assert found.min() == 0 and found.max() == 255
        assert rank_correlation(found, image) > 0.999
    assert not shown(np.ones((4, 4, 1), np.float32)).any() and shown(np.ones((5, 2), np.uint8)).shape == (1, 5)
