"""The lecture's claims, measured: against truths that are known without the studies."""

import json
from importlib import import_module

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from three_ways import by_definition, integers, nodes, normals, parameters

import pellucid
from pellucid import ops, studies, zoo
from pellucid.draw import Picture
from pellucid.explain import taps
from pellucid.layers import (
    Add,
    AvgPool,
    BatchNorm,
    Conv,
    Dense,
    Flatten,
    GlobalAvgPool,
    GlobalMaxPool,
    MaxPool,
    ReLU,
    Softmax,
)
from pellucid.network import Network, Residual, Sequential
from pellucid.studies import matches
from pellucid.studies.hierarchy import limits_of, unit_of
from pellucid.studies.maximise import maximise
from pellucid.studies.templates import window_at

RNG = np.random.default_rng
SHARING = import_module("pellucid.studies.sharing")


def made(shape, *layers, seed=0, data=normals, **weights):
    """A model of layers in a row, with drawn parameters, or those given by name ("conv1_weight")."""
    network = Network.build(shape, Sequential(*layers))
    model = pellucid.Model(network, seed=0)
    values = parameters(network, RNG(seed), data)
    values.update({name.replace("_", ".", 1): np.asarray(value, np.float32) for name, value in weights.items()})
    model.load_parameters(values)
    return model


# Template matching.

PATTERNS = np.array([[[[0, 1, 0], [1, 1, 1], [0, 1, 0]]], [[[1, -1, 0], [1, -1, 0], [1, -1, 0]]]])  # a cross, an edge


def planted():
    """A model of two filters and images that are empty but for one pattern each, of known strengths and places."""
    model = made((9, 8, 1), Conv(2, 3, bias=False), ReLU(), GlobalMaxPool(), Dense(2), conv1_weight=PATTERNS)
    images = np.zeros((12, 9, 8, 1), np.float32)
    places = [(i % 6, (2 * i) % 6) for i in range(12)]
    for i, (y, x) in enumerate(places):
        images[i, y:y + 3, x:x + 3, 0] = (1 + i // 2) * PATTERNS[i % 2, 0]
    return model, images, places


def test_a_filter_finds_the_patches_that_were_planted_for_it():
    model, images, places = planted()
    found = studies.templates(model, images, count=3)
    for number, strongest in ((0, (10, 8, 6)), (1, (11, 9, 7))):
        f = found.filters[number]
        assert tuple(m.image for m in f.matches) == strongest
        assert f.cosine == pytest.approx(1) and f.elsewhere < 0.9
        for m, patch in zip(f.matches, found.patches[number], strict=True):
            (y, x), strength = places[m.image], 1 + m.image // 2
            assert m.place == (y, x) and m.window == ((y, y + 3), (x, x + 3))
            assert m.value == strength * np.square(PATTERNS[number]).sum()
            assert patch.shape == (3, 3, 1) and patch.argmax() == PATTERNS[number].argmax()
    assert found.cosine == pytest.approx(1)


@pytest.mark.parametrize("memory", [1, 2**9, 2**26])
def test_matches_are_the_same_however_few_images_are_looked_at_together(memory, monkeypatch):
    model, rng = made((7, 6, 2), Conv(3, 3, padding=1), ReLU(), GlobalAvgPool(), Dense(2)), RNG(1)
    images = integers(rng, 90, 7, 6, 2)  # many equal answers
    monkeypatch.setattr(matches, "MEMORY", memory)
    sizes, values = [], taps.values
    monkeypatch.setattr(taps, "values", lambda m, x, names: sizes.append(len(x)) or values(m, x, names))
    found = matches.strongest(model, images, ["conv1"], 7)["conv1"]
    assert max(sizes) * 7 * 6 * 3 * 4 <= max(memory, 7 * 6 * 3 * 4)
    value = values(model, images, ["conv1"])["conv1"].reshape(90, -1, 3)
    for channel, own in enumerate(found):
        order = np.argsort(-value[..., channel].max(axis=1), kind="stable")[:7]
        assert [m.image for m in own] == order.tolist()
        assert [m.place for m in own] == [tuple(np.unravel_index(value[i, :, channel].argmax(), (7, 6))) for i in order]


@pytest.mark.parametrize("options", [{"padding": 2}, {"stride": 2, "padding": 1}, {"dilation": 2}, {"groups": 2}])
def test_a_match_is_the_product_of_the_filter_and_its_window(options):
    model, rng = made((9, 8, 4), Conv(6, 3, bias=False, **options), GlobalAvgPool(), Dense(2)), RNG(2)
    images, conv = normals(rng, 5, 9, 8, 4), model.network.node("conv1").layer
    found, weight = studies.templates(model, images, count=2), model.parameters["conv1.weight"]
    for f in found.filters:
        group = slice(f.number // 3 * 2, f.number // 3 * 2 + 2) if "groups" in options else slice(4)
        for m in f.matches:
            window = window_at(images[m.image][..., group], conv.windows((9, 8, 4)), m.place)
            assert np.vdot(weight[f.number], window) == pytest.approx(m.value, rel=1e-4, abs=1e-4)
        assert -1 <= f.elsewhere < f.cosine <= 1 + 1e-6


def test_patches_show_padding_in_the_colour_that_zeros_stand_for():
    pre = pellucid.Preprocessing((6, 5, 3), (0.2, 0.4, 0.6), (0.1, 0.2, 0.3))
    model = pellucid.Model(zoo.build("mlp", input_shape=(6, 5, 3), classes=2), preprocessing=pre)
    image = RNG(3).integers(0, 256, (6, 5, 3), np.uint8)
    colour = np.array([51, 102, 153])
    patch = matches.cut(model, image, ((-1, 2), (3, 7)))
    assert patch.shape == (3, 4, 3)
    np.testing.assert_array_equal(patch[1:, :2], image[:2, 3:])
    assert (patch[0] == colour).all() and (patch[:, 2:] == colour).all()
    assert (matches.cut(model, image, ((6, 8), (0, 2))) == colour).all()
    assert (matches.cut(model, image, ((-3, -1), (0, 2))) == colour).all()
    np.testing.assert_array_equal(matches.cut(model, image, ((-5, 9), (-9, 9))), image)
    read = pre.apply(image[None])[0]
    np.testing.assert_array_equal(matches.cut(model, read, ((-1, 2), (3, 7))), patch)


def test_large_patches_are_made_smaller():
    model = pellucid.Model(zoo.build("mlp", input_shape=(300, 200, 1), classes=2))
    patch = matches.cut(model, np.zeros((300, 200, 1), np.uint8), ((0, 300), (0, 200)))
    assert max(patch.shape) <= matches.MOST_PIXELS and patch.shape[0] / patch.shape[1] == pytest.approx(1.5, 0.05)


# Parameter sharing.


@st.composite
def convolution(draw):
    groups, dimensions = draw(st.sampled_from((1, 1, 2))), draw(st.sampled_from((1, 2)))
    size = [draw(st.integers(1, 3)) for _ in range(dimensions)]
    shape = [draw(st.integers(5, 8)) for _ in range(dimensions)]
    layer = Conv(groups * draw(st.integers(1, 3)), size, draw(st.integers(1, 3)),
                 draw(st.one_of(st.integers(0, 2), st.just("same"))), draw(st.integers(1, 2)), groups,
                 draw(st.booleans()))
    return layer, (*shape, groups * draw(st.integers(1, 2)))


@settings(max_examples=25, deadline=None)
@given(convolution(), st.sampled_from((1, 200, 10**6)))
def test_counts_are_those_of_the_matrix(drawn, most):
    layer, shape = drawn
    model = made(shape, layer)
    weight = np.arange(1.0, 1 + model.parameters["conv1.weight"].size).reshape(model.parameters["conv1.weight"].shape)
    options = {"stride": layer.stride, "padding": layer.padding, "dilation": layer.dilation, "groups": layer.groups}
    matrix = ops.conv_matrix(weight, shape[:-1], **options)
    times = np.bincount(matrix[matrix > 0].astype(int), minlength=weight.size + 1)[1:]
    images = normals(RNG(4), 2, *shape)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SHARING, "MOST_CHECKED", most)
        found = studies.sharing(model, images)
    assert (found.rows, found.columns, found.weights) == (*matrix.shape, weight.size)
    assert found.nonzero == np.count_nonzero(matrix) and found.uses == (times.min(), times.max())
    assert found.dense == matrix.size and found.biases == layer.bias * len(weight)
    assert found.difference < 1e-5
    # One position reads its window, and stands for all of an axis that has no other.
    least = weight.shape[1] * np.prod([n if w.output_size(n) == 1 else w.reach
                                       for w, n in zip(layer.windows(shape), shape[:-1], strict=True)])
    assert found.checked.rows * found.checked.columns <= max(most, least)
    if most == 10**6 and layer.groups == 1:
        assert (found.checked.rows, found.checked.columns) == matrix.shape
    # The drawn part stands in the matrix: those rows and columns of it.
    tall, wide = np.ogrid[tuple(map(slice, found.drawn.positions))], np.ogrid[tuple(map(slice, found.drawn.inputs))]
    output = model.network.output_shape
    rows = (np.ravel_multi_index(tuple(tall), output[:-1]) * output[-1]).ravel()
    columns = (np.ravel_multi_index(tuple(wide), shape[:-1]) * shape[-1]).ravel()
    np.testing.assert_array_equal(found.owner, matrix[np.ix_(rows, columns)] - 1)
    assert max(found.matrix.shape) <= 48


def test_a_wrong_layer_does_not_pass_for_its_matrix(monkeypatch):
    """The check would notice: with other weights in the model the product is another."""
    model = made((6, 6, 1), Conv(2, 3, padding=1), Flatten(), Dense(2))
    images, values = normals(RNG(5), 1, 6, 6, 1), taps.values
    monkeypatch.setattr(taps, "values", lambda m, x, names: {n: v + (n == "conv1") for n, v in
                                                             values(m, x, names).items()})
    assert studies.sharing(model, images).difference > 0.05


# Looking locally.


def test_the_effective_field_of_box_filters_is_their_convolution():
    model = made((15, 13, 2), Conv(3, 3, bias=False), AvgPool(2, 1), Conv(2, (1, 3), bias=False),
                 conv1_weight=np.ones((3, 2, 3, 3)), conv2_weight=np.ones((2, 3, 1, 3)))
    found = {f.layer: f for f in studies.fields(model, normals(RNG(6), 4, 15, 13, 2)).layers}
    tall = np.convolve([1, 1, 1], [1, 1])
    wide = np.convolve(np.convolve([1, 1, 1], [1, 1]), [1, 1, 1])
    expected = np.outer(tall, wide) / np.outer(tall, wide).max()
    last = found["conv2"]
    y, x = (n // 2 for n in model.network.output_shape[:-1])
    np.testing.assert_allclose(last.map[y:y + 4, x:x + 6], expected, rtol=1e-6)
    assert last.map.sum() == pytest.approx(expected.sum())  # nothing elsewhere
    assert last.field == last.seen == (4, 6) and last.looked_at == 24 and last.side == pytest.approx(24**0.5)
    ranked = np.sort(expected.ravel())[::-1].cumsum()
    assert ranked[last.half - 1] >= ranked[-1] / 2 > ranked[last.half - 2]
    assert found["conv1"].looked_at == 9 and found["pool1"].field == (4, 4)


def test_fields_end_where_the_image_does_and_may_be_dead():
    model = made((5, 6, 1), Conv(2, 5, padding=2), ReLU(), Conv(2, 5, padding=2), data=lambda rng, *shape: -np.ones(
        shape, np.float32))
    first, last = studies.fields(model, np.ones((3, 5, 6, 1), np.float32)).layers
    assert first.field == (5, 5) and first.seen == (5, 5) and first.looked_at == 25
    assert last.field == (9, 9) and last.seen == (5, 6)
    assert last.looked_at == last.half == 0 and "no gradient" in studies.fields(
        model, np.ones((3, 5, 6, 1), np.float32)).sentence


def test_the_effective_field_is_the_mean_absolute_gradient():
    """Of one channel an image, in the order that the seed draws, against the layers' definitions."""
    model = made((7, 6, 2), Conv(3, 3, padding=1), ReLU(), Conv(2, 3))
    images, channels, total = normals(RNG(10), 5, 7, 6, 2), RNG(3).permutation(2), 0
    for i, image in enumerate(images):
        dy = np.zeros((1, 5, 4, 2))
        dy[0, 2, 2, channels[i % 2]] = 1
        total = total + np.abs(by_definition(model.network, model.parameters, image[None], dy).dx[0]).sum(axis=-1)
    found = studies.fields(model, images, seed=3).layers[-1]
    np.testing.assert_allclose(found.map, total / total.max(), rtol=1e-4, atol=1e-6)


# Pooling and depth.


def test_depth_is_what_the_graph_says():
    model = pellucid.Model(zoo.build("lenet", input_shape=(28, 28, 1)), seed=0)
    levels = {v.layer: v for v in studies.depth(model).levels}
    assert [(v.layer, v.field, v.stride, v.size, v.channels) for v in levels.values()] == [
        ("conv1", (3, 3), (1, 1), (28, 28), 32), ("pool1", (4, 4), (2, 2), (14, 14), 32),
        ("conv2", (8, 8), (2, 2), (14, 14), 64), ("pool2", (10, 10), (4, 4), (7, 7), 64)]
    assert "28x28 positions to 7x7 and the channels from 1 to 64" in studies.depth(model).sentence


# Activation maximisation.


def test_made_images_raise_their_unit_within_limits_and_repeat():
    model = made((12, 10, 3), Conv(6, 3, padding=1), ReLU(), Conv(5, 3, stride=2), BatchNorm(), GlobalAvgPool(),
                 Dense(3))
    images = normals(RNG(7), 20, 12, 10, 3)
    limits = limits_of(model, images)
    for layer, channels in (("conv1", (0, 3)), ("bn1", (4, 1, 2)), ("dense1", (2,))):
        first, again = (maximise(model, layer, channels, limits, steps=24, seed=3) for _ in range(2))
        other = maximise(model, layer, channels, limits, steps=24, seed=4)
        for a, b, c, channel in zip(first, again, other, channels, strict=True):
            np.testing.assert_array_equal(a.image, b.image)
            assert (a.image != c.image).any() and a.channel == channel
            assert (limits.low <= a.image).all() and (a.image <= limits.high).all()
            assert a.value > a.start + 0.1
            value = taps.values(model, a.image[None], [layer])[layer][0]
            place = tuple(n // 2 for n in value.shape[:-1])
            assert value[(*place, channel)] == pytest.approx(a.value, rel=1e-4, abs=1e-4)
    with pytest.raises(ValueError, match="a channel must be a whole number from 0 to 4"):
        maximise(model, "bn1", (5,), limits)


def test_a_gradient_is_moved_back_to_where_it_belongs(monkeypatch):
    model = made((32, 32, 1), Conv(1, 1, bias=False), Flatten(), Dense(1), conv1_weight=[[[[1]]]],
                 dense1_weight=np.outer(np.hanning(32), np.hanning(32) * np.arange(32)).reshape(1, -1))
    seen, gradients = [], taps.gradients
    monkeypatch.setattr(taps, "gradients", lambda *given: seen.append((given[1], gradients(*given))) or seen[-1][1])
    limits = limits_of(model, normals(RNG(11), 9, 32, 32, 1))
    (step,) = maximise(model, "dense1", (0,), limits, steps=1, seed=2)
    start = seen[0][0]  # already moved
    changed, gradient = step.image - limits.mean, seen[0][1]["input"][0]
    moves = [(y, x) for y in range(-2, 3) for x in range(-2, 3)]
    # The image is the start and the step: moved like the start, the step lies on the gradient.
    fits = {m: np.corrcoef(np.roll(changed, m, (0, 1)).ravel(), start[0].ravel())[0, 1] for m in moves}
    move = max(fits, key=fits.get)
    alike = {m: np.corrcoef(np.roll(changed, m, (0, 1)).ravel(), gradient.ravel())[0, 1] for m in moves}
    assert move != (0, 0) and max(alike, key=alike.get) == move


# Visual hierarchy.


def test_units_that_answer_one_class_are_told_from_those_that_answer_all():
    """Two filters, brightness and nothing but colour; the classes are the colours."""
    weight = np.zeros((3, 3, 1, 1))
    weight[0] = 1
    weight[1, 0] = weight[2, 1] = 9
    model = made((4, 4, 3), Conv(3, 1, bias=False), GlobalAvgPool(), Dense(2, bias=False),
                 conv1_weight=weight, dense1_weight=[[0, 1, 0], [0, 0, 1]])
    images = np.zeros((40, 4, 4, 3), np.float32)
    images[::2, ..., 0] = images[1::2, ..., 1] = RNG(8).uniform(1, 2, (20, 4, 4))
    images[..., 2] = np.arange(40)[:, None, None] // 2  # brightness says nothing of the class
    found = studies.hierarchy(model, images, count=4, steps=0)
    level, last = found.levels
    assert (level.layer, level.field, last.layer, last.field) == ("conv1", (1, 1), "dense1", None)
    assert level.one_class == pytest.approx((0.5 + 1 + 1) / 3) and last.one_class == 1
    assert 0.5 <= found.one_class_by_chance < 0.8
    assert level.gain is None and not level.made


def test_units_are_read_after_their_normalisation():
    network = nodes((8, 8, 1), ("c", Conv(2, 3), "input"), ("p", MaxPool(2), "c"), ("n", BatchNorm(), "p"),
                    ("r", ReLU(), "n"), ("d", Conv(2, 3, padding=1), "r"), ("s", Add(), "d", "r"),
                    ("m", BatchNorm(), "s"), ("g", GlobalAvgPool(), "m"), ("f", Dense(2), "g"))
    assert unit_of(network, "c") == "n" and unit_of(network, "d") == "d"


# All of them, on all kinds of networks.

NETWORKS = {
    "grey": lambda: zoo.build("lenet", input_shape=(12, 10, 1), classes=3),
    "residual": lambda: Network.build((12, 11, 3), Sequential(
        Conv(6, 3, padding=1), BatchNorm(), ReLU(),
        Residual(Sequential(Conv(6, 3, padding=1), BatchNorm(), ReLU(), Conv(6, 3, padding=1), BatchNorm())), ReLU(),
        MaxPool(3, 2, 1), Conv(8, 3, stride=2), ReLU(), GlobalAvgPool(), Dense(3))),
    "signals": lambda: Network.build((40, 2), Sequential(
        Conv(4, 5, padding=2), ReLU(), MaxPool(2), Conv(6, 3), ReLU(), GlobalAvgPool(), Dense(3), Softmax())),
    "a map": lambda: Network.build((9, 9, 5), Sequential(Conv(4, 3, stride=2), ReLU(), MaxPool(2), Conv(2, 1))),
}


@pytest.mark.parametrize("name, network", [(name, network) for name in studies.MODEL_STUDIES for network in NETWORKS
                                           if name != "identity" or network == "residual"])
def test_every_study_works_on_every_kind_of_network(name, network):
    network = NETWORKS[network]()
    kind = np.uint8 if len(network.input_shape) == 3 and network.input_shape[-1] < 4 else np.float32
    images = RNG(9).integers(0, 256, (6, *network.input_shape)).astype(kind)
    pre = pellucid.Preprocessing.from_images(images) if kind is np.uint8 else None
    model = pellucid.Model(network, seed=0, preprocessing=pre)
    options = {"steps": 2, "layers": 2, "units": 2} if name == "hierarchy" else {}
    found = studies.MODEL_STUDIES[name](model, images, **options)
    assert isinstance(found, studies.Study) and found.name == name
    text = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert text["sentence"] == found.sentence and "\n" not in found.sentence and found.sentence.endswith(".")
    assert "nan" not in found.sentence and "None" not in found.sentence
    figures = found.figures()
    assert figures and all(isinstance(f, Picture) for f in figures)
    assert found.claim in str(found) and figures[0].svg in found._repr_html_()
    before = {n: v.copy() for n, v in model.parameters.items()}
    again = studies.MODEL_STUDIES[name](model, images, **options)
    assert again.to_json() == found.to_json()
    assert all((model.parameters[n] == v).all() for n, v in before.items())


@pytest.mark.parametrize("name", studies.MODEL_STUDIES)
def test_where_there_is_no_convolution_one_line_says_so(name):
    model = pellucid.Model(zoo.build("mlp", input_shape=(6, 5, 1), classes=3))
    with pytest.raises(studies.DoesNotApply, match=r"(?-s:^(this|no layer of this) network .+$)") as e:
        studies.MODEL_STUDIES[name](model, np.zeros((3, 6, 5, 1), np.float32))
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("name", [name for name in studies.MODEL_STUDIES if name != "depth"])
def test_what_cannot_be_studied_is_refused(name):
    model, study = made((6, 5, 1), Conv(2, 3), MaxPool(2), Flatten(), Dense(2)), studies.MODEL_STUDIES[name]
    with pytest.raises(ValueError, match="needs at least 1 image, got 0"):
        study(model, np.zeros((0, 6, 5, 1), np.float32))
    with pytest.raises(ValueError, match="expected images of shape"):
        study(model, np.zeros((3, 5, 6, 1), np.float32))
    with pytest.raises(ValueError, match="no preprocessing"):
        study(model, np.zeros((3, 6, 5, 1), np.uint8))
    with pytest.raises(ValueError, match="a study needs a pellucid.Model, got Network"):
        study(model.network, np.zeros((3, 6, 5, 1), np.float32))
    with pytest.raises(ValueError, match="not finite"):
        study(model, np.full((3, 6, 5, 1), np.nan, np.float32))


@pytest.mark.parametrize("name", [name for name in studies.MODEL_STUDIES if name not in ("depth", "identity")])
def test_weights_that_are_no_numbers_are_refused(name):
    model = made((6, 5, 1), Conv(2, 3, padding=1), MaxPool(2), Flatten(), Dense(2), conv1_weight=np.full((2, 1, 3, 3),
                                                                                                         np.nan))
    with pytest.raises(ValueError, match="not finite"):
        studies.MODEL_STUDIES[name](model, normals(RNG(12), 3, 6, 5, 1))


def test_sentences_count_what_there_is():
    model = made((6, 5, 1), Conv(2, 3, stride=2), GlobalAvgPool(), Dense(2))
    assert studies.depth(model).sentence.startswith("In 1 layer that looks at neighbours, from the input to conv1")
    assert "A position of conv1 sees 3x3 positions of the input, neighbours 2x2 apart: 30% of it." in studies.depth(
        model).sentence
    image = normals(RNG(13), 1, 6, 5, 1)
    assert "Of the 1 of 1 images" in studies.hierarchy(model, image, steps=0).sentence
    with pytest.raises(studies.DoesNotApply, match="one image only"):
        studies.invariance(made((6, 5, 1), MaxPool(2), Flatten(), Dense(2)), image)
    tiny = made((1, 1, 1), Conv(4, 3, padding=1), Flatten(), Dense(2))
    sentence = studies.sharing(tiny, image[:, :1, :1]).sentence
    assert "stands 0 to 1 times" in sentence and "4 weights, 0.11 times as many" in sentence
    with pytest.raises(studies.DoesNotApply, match="no layer of this network makes a map of several positions"):
        studies.equivariance(tiny, image[:, :1, :1])


def test_layers_that_are_not_there_are_refused():
    model, images = made((6, 5, 1), Conv(2, 3), MaxPool(2), Flatten(), Dense(2)), np.ones((2, 6, 5, 1), np.float32)
    for study in (studies.templates, studies.sharing):
        with pytest.raises(ValueError, match="'pool1' is a MaxPool; convolutions are conv1"):
            study(model, images, "pool1")
        with pytest.raises(ValueError, match="no layer is called 'conv9'"):
            study(model, images, "conv9")
    for study, option in ((studies.templates, "count"), (studies.hierarchy, "units"), (studies.fields, "layers"),
                          (studies.equivariance, "shifts"), (studies.invariance, "shifts")):
        with pytest.raises(ValueError, match=f"{option} must be a whole number of at least 1, got 0"):
            study(model, images, **{option: 0})
