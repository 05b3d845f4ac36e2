"""The pages of `explain` and `study`, and what they alone show: paths, parts of an image, layers, sentences."""

from dataclasses import replace

import numpy as np
import pytest
from pages import Page
from shapes_data import CLASSES, pictures

from pellucid.calibration import Calibration
from pellucid.data import Part
from pellucid.explain.explanation import explain_image
from pellucid.explain.layer_maps import ends, layer_maps
from pellucid.explain.path import MOST, strongest_path
from pellucid.explain.region import checked_box, place, region, strongest
from pellucid.layers import Conv, Dense, Flatten, MaxPool, ReLU, Softmax
from pellucid.model import Model
from pellucid.network import Network, Residual, Sequential
from pellucid.preprocessing import Preprocessing
from pellucid.report.answer import agreement, said
from pellucid.report.explained import explanation_page
from pellucid.report.writing import default_folder
from pellucid.studies import MODEL_STUDIES
from pellucid.texts import listed

IMAGES, LABELS = pictures(30)
DATA = Part(IMAGES, LABELS, np.arange(30))


class ExplainedPage(Page):
    """A page in which small pictures are shown again by their id."""

    def handle_starttag(self, tag, attributes):
        if tag == "use":
            link = dict(attributes)["href"]
            assert link.startswith("#")
            self.links.append(link)
            attributes = []
        super().handle_starttag(tag, attributes)


def model_of(body, shape=(8, 8, 1), classes=CLASSES, seed=3):
    channels = shape[-1]
    return Model(Network.build(shape, body), seed=seed, classes=classes,
                 preprocessing=Preprocessing(shape, (0.4,) * channels, (0.3,) * channels))


CONV = Sequential(Conv(6, 3, padding=1), ReLU(), MaxPool(2), Conv(8, 3, padding=1), ReLU(), Flatten(), Dense(3))


@pytest.fixture(scope="module")
def model():
    return model_of(CONV)


@pytest.fixture(scope="module")
def explanation(model):
    return explain_image(model, IMAGES[4], data=DATA)


# The path.


@pytest.mark.parametrize("body", [
    CONV, Sequential(CONV, Softmax()), Sequential(Flatten(), Dense(4), ReLU(), Dense(3)),
    Sequential(Conv(4, 3, padding=1), Residual(Sequential(Conv(4, 3, padding=1), ReLU())), ReLU(), Flatten(), Dense(3)),
])
def test_the_path_goes_from_the_logit_to_a_pixel(body):
    """Each step is the number that the engine computed, was made from the one after, and the first is the logit."""
    model = model_of(body)
    trace = model.trace(IMAGES[4])
    path = strongest_path(model, IMAGES[4], 1)
    assert (path.steps[0].terms.name, path.steps[0].terms.index) == (trace.logits, (1,))
    assert path.steps[-1].is_read and path.ends == "" and len(path.taken) == len(path.steps) - 1
    sign = 1.0
    for step, i, below in zip(path.steps, path.taken, path.steps[1:], strict=False):
        made = step.terms.arithmetic
        assert step.terms.value == trace[step.terms.name].value[step.terms.index]
        assert tuple(step.terms[i][:2]) == below.key and made.x[i] == pytest.approx(below.terms.value, rel=1e-6)
        pushes = sign * made.x * made.derivative
        assert pushes[i] == pushes.max() > 0 or abs(pushes[i]) == np.abs(pushes).max() and pushes.max() <= 0
        sign *= np.sign(made.derivative[i])


def test_numbers_beside_the_path_are_its_strongest_terms_and_opened_once(model):
    path = strongest_path(model, IMAGES[4], width=2, depth=3)
    everything = [opened for step in path.steps for opened in step.everything()]
    assert len({opened.key for opened in everything}) == len(everything) > 2 * len(path.steps)
    first = path.steps[0]
    others = [i for i in first.order if i != path.taken[0]][:2]
    assert list(first.below) == others
    assert [tuple(first.terms[i][:2]) for i in others] == [below.key for below in first.below.values()]
    assert all(not opened.below for opened in strongest_path(model, IMAGES[4], depth=0).steps)


def test_a_path_from_any_number_goes_to_its_own_side(model):
    value = model.trace(IMAGES[4])["conv1"].value
    low = tuple(map(int, np.unravel_index(value.argmin(), value.shape)))
    path = strongest_path(model, IMAGES[4], at=f"conv1[{','.join(map(str, low))}]")
    assert path.steps[0].terms.value == value.min() < 0 and not path.rises
    strength = path.steps[0].terms.arithmetic.terms
    assert strength[path.taken[0]] == strength.min()


def test_a_path_that_ends_before_the_image_says_why():
    model = model_of(Sequential(Conv(2, 3), ReLU(), Flatten(), Dense(3)))
    parameters = {name: value.copy() for name, value in model.parameters.items()}
    parameters["conv1.bias"][:] = -1e3  # so that every ReLU is off
    model.load_parameters(parameters)
    path = strongest_path(model, IMAGES[4])
    assert not path.steps[-1].is_read and "each term is zero" in path.ends
    html, _ = explanation_page(model, explain_image(model, IMAGES[4], methods=["gradient"]), "x.png")
    assert "The path ends here" in ExplainedPage(html).text


def test_a_deep_network_opens_no_more_than_a_page_can_hold():
    """Sixty layers of eight channels, one after another."""
    body = [layer for _ in range(60) for layer in (Conv(8, 3, padding=1), ReLU())]
    model = model_of(Sequential(*body, Flatten(), Dense(3)))
    path = strongest_path(model, IMAGES[4])
    assert path.steps[-1].is_read and len(path.steps) == 123
    assert 200 < sum(1 for step in path.steps for _ in step.everything()) <= MOST


# Parts of an image.


def test_the_strongest_box_by_hand():
    values = np.zeros((9, 6))
    values[4:7, 2:4] = 1
    values[0, 0] = 3
    assert strongest(values) == (4, 2, 3, 2)
    assert strongest(np.full((8, 8), -1.0)) == (0, 0, 3, 3)
    assert strongest(np.ones((1, 7))) == (0, 0, 1, 2)


def test_places_in_words():
    found = {place((y, x, 2, 2), (8, 8)) for y in (0, 3, 6) for x in (0, 3, 6)}
    assert found == {"upper left", "upper middle", "upper right", "left middle", "middle", "right middle",
                     "lower left", "lower middle", "lower right"}
    assert place((0, 3, 2, 2), (8, 8)) == "upper middle" and place((3, 6, 2, 2), (8, 8)) == "right middle"


def test_boxes_that_are_none():
    for box in ([0, 0, 8], [0, 0, 9, 1], [7, 7, 2, 1], [-1, 0, 2, 2], [0, 0, 0, 1], [0.5, 0, 1, 1], [True, 0, 1, 1]):
        with pytest.raises(ValueError, match="part"):
            checked_box(box, (8, 8))


def test_covering_all_is_the_empty_image_and_covering_nothing_else_leaves_all(model):
    found = region(model, IMAGES[4], (0, 0, 8, 8))
    np.testing.assert_array_equal(found.alone.logits, found.whole.logits)
    np.testing.assert_array_equal(found.covered.logits, model.logits(np.zeros((1, 8, 8, 1), np.float32))[0])


# Layers.


def test_layers_end_runs_of_pointwise_layers_and_channels_are_ranked_by_influence(model):
    assert ends(model.network) == ["relu1", "pool1", "relu2"]
    found = layer_maps(model, IMAGES[4], 2, channels=3)
    trace = model.trace(IMAGES[4])
    for layer in found:
        value = trace[layer.name].value
        np.testing.assert_allclose(layer.maps, value[..., list(layer.channels)], rtol=1e-5, atol=1e-6)
        assert (np.diff(np.abs(layer.influence)) <= 0).all() and len(layer.channels) == 3
    # The logit is linear in the last map, so that influences add up to it but for the bias.
    last = layer_maps(model, IMAGES[4], 2, channels=8)[-1]
    logit = model.logits(model.preprocessing.apply(IMAGES[4:5]))[0, 2]
    assert last.influence.sum() == pytest.approx(logit - model.parameters["dense1.bias"][2], rel=1e-4)
    assert [layer.name for layer in layer_maps(model, IMAGES[4], layers=2)] == ["relu1", "relu2"]


# Sentences.


def test_sentences_are_made_of_the_numbers(model, explanation):
    p, best = explanation.answer.probabilities, explanation.answer.best
    first, part, maps, change, near = said(explanation, CLASSES[best])
    assert f"{CLASSES[best]}, at {p[best]:.1%}" in first and first.endswith("The data say the same.")
    assert f"to {explanation.region.covered.probabilities[best]:.1%}" in part
    assert "6 maps" in maps and change.startswith(("The least", "No shift")) and "among 30" in near
    other = (best + 1) % 3
    assert f"the data say {CLASSES[other]}" in said(explanation, CLASSES[other])[0]
    assert "none of its classes" in said(replace(explanation, rejected=True))[0]
    asked = explain_image(model, IMAGES[4], other, box=(0, 0, 2, 2), methods=["gradient", "occlusion"])
    assert f"Explained here is {CLASSES[other]}, which it gives {p[other]:.1%}" in said(asked)[0]
    assert "The part asked about, the upper left" in said(asked)[1] and len(said(asked)) == 4


def test_a_part_without_which_nothing_changes_is_not_called_decisive(explanation):
    same = replace(explanation, region=replace(explanation.region, covered=explanation.region.whole))
    assert "No single part is found that decides it" in said(same)[1]


@pytest.mark.parametrize(("shared", "wanted"), [
    ([[1, 1, 0], [1, 1, 0], [0, 0, 1]], "agrees with it, {2} points elsewhere"),
    ([[1, 0, 0], [0, 1, 0], [0, 0, 1]], "no other agrees with it, so believe none alone"),
    ([[1, 1, np.nan], [1, 1, np.nan], [np.nan] * 3], "finds nothing that speaks for it"),
    ([[np.nan] * 3] * 3, "No method finds anything that speaks for"),
])
def test_agreement_in_words(explanation, shared, wanted):
    """The first of the maps is made the best one."""
    maps = [replace(scored, deletion=replace(scored.deletion, area=0.1 * i)) for i, scored in
            enumerate(explanation.maps[1:4])]
    maps = [replace(s, insertion=replace(s.insertion, area=0.5, control_area=0.5),
                    deletion=replace(s.deletion, control_area=1.0)) for s in maps]
    text = agreement(replace(explanation, maps=maps, shared=np.array(shared, float)))
    assert wanted.format(*[m.map.method.replace("grad_cam", "Grad-CAM") for m in maps]) in text


def test_maps_no_better_than_chance_are_not_to_be_believed(explanation):
    maps = [replace(s, deletion=replace(s.deletion, area=0.6, control_area=0.5),
                    insertion=replace(s.insertion, area=0.5, control_area=0.5)) for s in explanation.maps]
    assert "6 maps none finds" in agreement(replace(explanation, maps=maps))


def test_lists_in_words():
    assert [listed(list("abc"[:n])) for n in (1, 2, 3)] == ["a", "a and b", "a, b and c"]


def test_refusal_is_that_of_the_calibration(model):
    changed = Model(model.network, None, classes=CLASSES, preprocessing=model.preprocessing,
                    calibration=Calibration(2.0, 10, 0.999, 0.05))
    changed.load_parameters(model.parameters)
    found = explain_image(changed, IMAGES[4], methods=["gradient"])
    np.testing.assert_allclose(found.answer.probabilities, changed.predict(IMAGES[4:5])[0], rtol=1e-6)
    assert found.rejected and not explain_image(model, IMAGES[4], methods=["gradient"]).rejected


def test_a_large_network_is_asked_less(monkeypatch):
    model, image = model_of(CONV, (32, 32, 1)), np.random.default_rng(2).integers(0, 256, (32, 32, 1)).astype(np.uint8)
    found = [explain_image(model, image)]
    monkeypatch.setattr("pellucid.explain.explanation.LARGE", 0)
    found.append(explain_image(model, image))
    assert [{len(s.deletion.fractions) for s in e.maps} for e in found] == [{33}, {5}]
    fine, coarse = ({s.map.method: s.map.facts for s in e.maps} for e in found)
    assert coarse["integrated_gradients"]["steps"] == 32 <= fine["integrated_gradients"]["steps"] / 2
    assert coarse["occlusion"]["squares"] < fine["occlusion"]["squares"] / 2
    assert "squares of 8, 16 pixels" in found[1].change.searched["occlusion"]


# Pages.


def test_the_page_is_sound_and_says_everything(model, explanation):
    html, shown = explanation_page(model, explanation, "ring.png", "ring", facts=[("model", "m")], nearest="all",
                                   foot="made by me")
    page = ExplainedPage(html)
    assert len(html) < 2**21 and "://" not in html.replace("http://www.w3.org/2000/svg", "")
    for sentence in said(explanation, "ring"):
        assert sentence in page.text
    for scored in explanation.maps:
        assert scored.map.note in page.text and scored.map.method in shown
    assert [text for _, text in page.headings if text.startswith("From the answer")]
    for step in explanation.path.steps:
        assert f"{step.terms.address} = {step.terms.value + 0.0:.6g}" in page.text
    assert "made by me" in page.text and all(layer.name in page.text for layer in explanation.layers)
    assert not [name for name in shown if "/" in name]


HOSTILE = ['<script>alert("1")</script>', "a&b</svg></style>", "n\x00l\u202eline\nbreak"]


def test_hostile_names_are_texts(model):
    other = Model(model.network, None, classes=HOSTILE, preprocessing=model.preprocessing)
    other.load_parameters(model.parameters)
    html, shown = explanation_page(other, explain_image(other, IMAGES[4], data=DATA), HOSTILE[0], HOSTILE[1],
                                   facts=[(HOSTILE[2], HOSTILE[0])], nearest=HOSTILE[0], foot=HOSTILE[1])
    page = ExplainedPage(html)
    assert "<script" not in html and '<script>alert("1")</script>' in page.text


def test_of_many_classes_the_one_explained_is_always_shown():
    model = model_of(Sequential(Flatten(), Dense(12)), classes=[f"class {c}" for c in "abcdefghijkl"])
    for target in range(12):
        found = explain_image(model, IMAGES[4], target, methods=["gradient"])
        _, shown = explanation_page(model, found, "x.png")
        for name in ("answer", "part"):
            assert shown[name].svg.count(">class ") == 10 and f">{model.classes[target]}<" in shown[name].svg


@pytest.mark.parametrize("shape", [(8, 8, 3), (5, 9, 2), (12, 7, 1), (1, 250, 1), (1, 1, 3)])
def test_images_of_other_shapes_and_channels(shape):
    model = model_of(Sequential(Conv(4, 3, padding=1), ReLU(), Flatten(), Dense(3)), shape)
    image = np.random.default_rng(1).integers(0, 256, shape).astype(np.uint8)
    html, _ = explanation_page(model, explain_image(model, image), "x.png")
    assert "From the answer to a pixel" in ExplainedPage(html).text


def test_where_pages_go():
    assert str(default_folder("explained", "a/three.png")) == "explained/three"
    assert str(default_folder("explained", "digits:17")) == "explained/digits-17"
    assert str(default_folder("explained", "a/x.npz:test:17")) == "explained/x-test-17"
    assert str(default_folder("explained", "a/.-.")) == "explained/page"
    assert str(default_folder("studied", "x" * 300)) == "studied/" + "x" * 60


def test_every_study_is_on_offer():
    assert {"depth", "sharing", "templates", "hierarchy"} <= set(MODEL_STUDIES)
