"""Neighbours, the smallest change, deletion and insertion: each against a search by hand."""

import re
import sys
from dataclasses import replace
from html import escape

import numpy as np
import pytest
from explain_data import network, planted, trained
from scipy.ndimage import gaussian_filter
from three_ways import by_definition, nodes, normals, parameters

import pellucid
from pellucid import explain
from pellucid.explain.scores import CONTROLS, compared
from pellucid.layers import Conv, Dense, GlobalAvgPool
from pellucid.network import Node
from pellucid.texts import printable

IMAGES, LABELS, PLACES = planted(300, seed=21)


def test_the_map_of_the_patch_beats_chance_and_its_opposite():
    model = trained()
    for image, (y, x) in zip(IMAGES[:6], PLACES, strict=False):
        found = explain.occlusion(model, image)
        right = np.zeros((16, 16), np.float32)
        right[y:y + 4, x:x + 4] = 1
        for score, sign in ((explain.deletion, -1), (explain.insertion, 1)):
            best, worst = (score(model, replace(found, values=v * right)) for v in (1, -1))
            assert sign * best.area > sign * best.control_area > sign * worst.area
            assert best.gain == pytest.approx(sign * (best.area - best.control_area)) and best.gain > 0 > worst.gain
            assert best.control_area == worst.control_area and 0 < best.control_spread < 0.2


@pytest.mark.parametrize("method", [n for n in explain.METHODS if n != "gradient"])
def test_methods_beat_chance(method):
    """All but the gradient, which says what would move the score and not what made it. Here the last layer reads
    maxima: where one is taken away the next is read, which the contributions of this image do not tell."""
    gains = []
    for image in IMAGES[:8]:
        found = explain.METHODS[method](trained(), image)
        gains.append([explain.deletion(trained(), found).gain, explain.insertion(trained(), found).gain])
    gains = np.mean(gains, axis=0)[method == "contributions":]
    assert gains.min() > 0.05


def test_a_curve_is_what_the_model_says_of_the_changed_images():
    model, found = trained(), explain.occlusion(trained(), IMAGES[0], 1)
    found = replace(found, values=found.values - np.linspace(0, 1e-3, 256, dtype=np.float32).reshape(16, 16))
    order = np.argsort(-found.values.ravel())  # no ties
    read = model.preprocessing.apply(IMAGES[0][None])[0]
    blurred = gaussian_filter(read, (2, 2, 0), mode="nearest")
    for curve, start, end in ((explain.deletion(model, found, steps=8), read, np.zeros_like(read)),
                              (explain.insertion(model, found, steps=8), blurred, read)):
        for fraction, probability in zip(curve.fractions, curve.probabilities, strict=True):
            changed = start.copy().reshape(256, 1)
            taken = order[:round(fraction * 256)]
            changed[taken] = end.reshape(256, 1)[taken]
            logs = model.log_probabilities(changed.reshape(1, 16, 16, 1))[0, 1]
            assert probability == pytest.approx(np.exp(logs), abs=1e-5)
        steps = (curve.probabilities[1:] + curve.probabilities[:-1]) / 2
        assert curve.area == pytest.approx(steps.mean(), abs=1e-9)  # of equal parts
        assert curve.fractions.tolist() == [i / 8 for i in range(9)] and curve.method == "occlusion"
        again = getattr(explain, curve.kind)(model, found, steps=8)
        assert np.array_equal(again.control, curve.control)
    same = explain.deletion(model, found, baseline=IMAGES[0], steps=8)  # pixels are replaced by themselves
    assert np.ptp(same.probabilities) == 0 == same.gain and same.area == pytest.approx(same.probabilities[0])


def test_a_map_without_any_order_is_chance():
    """Pixels of equal value are taken in a random order, not row by row."""
    model = trained()
    flat = replace(explain.gradient(model, IMAGES[0]), values=np.zeros((16, 16), np.float32))
    curve = explain.deletion(model, flat)
    assert abs(curve.gain) < 4 * curve.control_spread


def test_maps_that_do_not_fit_are_refused():
    model, found = trained(), explain.gradient(trained(), IMAGES[0])
    wrong = {"a map of finite numbers": replace(found, values=found.values[:8]),
             "finite numbers": replace(found, values=np.full((16, 16), np.nan, np.float32)),
             "from 0 to 2, got 9": replace(found, target=9),
             "one image of shape": replace(found, image=found.image[:4])}
    for message, map in wrong.items():
        for score in (explain.deletion, explain.insertion):
            with pytest.raises(ValueError, match=message):
                score(model, map)
    for steps in (0, 257, True, 2.0):
        with pytest.raises(ValueError, match="steps must be an integer from 1 to 256"):
            explain.deletion(model, found, steps=steps)


def test_maps_compared_together_have_the_curves_that_each_has_alone(monkeypatch):
    """And the model is asked about random orders once, not once a map."""
    model = trained()
    maps = [explain.gradient(model, IMAGES[0], 1), explain.occlusion(model, IMAGES[0], 1)]
    alone = [(explain.deletion(model, map, steps=5), explain.insertion(model, map, steps=5)) for map in maps]
    asked, ask = [], model.log_probabilities
    monkeypatch.setattr(model, "log_probabilities", lambda images: asked.append(len(images)) or ask(images))
    together = compared(model, maps, steps=5)
    assert sum(asked) == 2 * (2 + (len(maps) + CONTROLS) * 4)
    for one, other in zip(sum(alone, ()), sum(together, ()), strict=True):
        assert (one.kind, one.method) == (other.kind, other.method)
        for name in ("fractions", "probabilities", "area", "control", "control_area", "control_spread"):
            assert getattr(one, name) == pytest.approx(getattr(other, name), abs=1e-6)
    assert compared(model, []) == []
    for other in (replace(maps[1], target=2), explain.gradient(model, IMAGES[1], 1)):
        with pytest.raises(ValueError, match="one image and one target"):
            compared(model, [maps[0], other])


# Neighbours.


def made(net, **more):
    model = pellucid.Model(net, **more)
    model.load_parameters(parameters(net, np.random.default_rng(3)))
    return model


@pytest.mark.parametrize("soft", [False, True])
def test_neighbours_are_those_of_brute_force(soft, monkeypatch):
    net = network((12, 10, 2), 4)
    if soft:
        net = pellucid.Network(net.input_shape, (*net.nodes, Node("s", pellucid.layers.Softmax(), (net.output,))))
    model, rng = made(net), np.random.default_rng(5)
    images, labels = normals(rng, 40, 12, 10, 2), rng.integers(0, 4, 40)
    images[[7, 31]] = images[12]  # equal distances
    (layer,) = net.node("dense1").inputs
    values = by_definition(net, model.parameters, images, np.zeros((40, 4))).values[layer]
    for query in (0, 12):
        distances = np.sqrt(((values - values[query]) ** 2).sum(axis=1))
        expected = sorted(range(40), key=lambda i: (round(distances[i], 6), i))[:9]
        found = explain.neighbours(model, images[query], images, count=9, labels=labels)
        assert found.indices.tolist() == expected
        np.testing.assert_allclose(found.distances, distances[expected], atol=1e-4)
        np.testing.assert_array_equal(found.images, images[expected])
        assert found.labels.tolist() == labels[expected].tolist() == [int(n) for n in found.names]
        assert found.searched == 40 and found.typical == pytest.approx(np.median(distances), rel=1e-4)
        assert found.layer == layer
    assert found.indices[:3].tolist() == [7, 12, 31] and found.distances[:3].tolist() == [0, 0, 0]
    monkeypatch.setattr(sys.modules["pellucid.explain.neighbours"], "READ", 7)
    few = explain.neighbours(model, images[12], images, count=9, labels=labels)
    assert few.indices.tolist() == found.indices.tolist() and few.distances.tolist() == found.distances.tolist()


def test_neighbours_in_a_data_set_and_its_parts():
    images, labels, _ = planted(200, seed=2)
    data = pellucid.data.Dataset("planted", images, labels, ["a", "b", "c"])
    train = pellucid.data.split(data, seed=0).train
    whole = explain.neighbours(trained(), images[0], data)
    assert whole.indices[0] == 0 and whole.distances[0] == 0 and set(whole.names) <= {"a", "b", "c"}
    assert (whole.labels == labels[whole.indices]).all()
    part = explain.neighbours(trained(), images[0], train, count=500)
    assert len(part.indices) == len(train) and (np.diff(part.distances) >= 0).all()
    assert set(part.names) <= {"rows", "columns", "checks"}
    # What the network has learned: among the nearest of another image most have its class.
    same = [np.mean(explain.neighbours(trained(), image, train).labels == label)
            for image, label in zip(IMAGES[:4], LABELS, strict=False)]
    assert np.mean(same) > 0.9


def test_features_of_another_layer():
    model = made(network((6, 6, 1), 3))
    images = normals(np.random.default_rng(6), 20, 6, 6, 1)
    found = explain.neighbours(model, images[3], images, layer="input")
    distances = np.sqrt(((images - images[3]) ** 2).sum(axis=(1, 2, 3)))
    assert found.indices.tolist() == np.argsort(distances)[:8].tolist() and found.labels is None is found.names


def test_what_cannot_be_searched_is_refused():
    model = trained()
    for arguments, message in (
            ({"data": IMAGES[:0]}, "no images to search"), ({"data": IMAGES[:, :8]}, "expected images of shape"),
            ({"data": IMAGES, "labels": [1, 2]}, "300 images need as many labels"),
            ({"data": IMAGES, "count": 0}, "count must be an integer of at least 1, got 0"),
            ({"data": IMAGES, "layer": "nothing"}, "no layer is called 'nothing'")):
        with pytest.raises(ValueError, match=message):
            explain.neighbours(model, IMAGES[0], **arguments)
    without = made(nodes((4, 4, 1), ("c", Conv(3, 3), "input"), ("g", GlobalAvgPool(), "c")))
    x = np.zeros((4, 4, 1), np.float32)
    with pytest.raises(ValueError, match="no dense layer"):
        explain.neighbours(without, x, x[None])


# The smallest change.


def shifted(image, dy, dx):
    padded = np.pad(image, ((4, 4), (4, 4), (0, 0)), mode="edge")
    return padded[4 - dy:20 - dy, 4 - dx:20 - dx]


def by_hand(model, image, answers):
    """The first change of each kind on the default grid of 16x16 images whose answer is among `answers`."""
    mean = round(model.preprocessing.mean[0] * 255)
    shifts = sorted(((dy, dx) for dy in range(-4, 5) for dx in range(-4, 5) if dy or dx),
                    key=lambda s: (s[0] ** 2 + s[1] ** 2, s))
    tried = {"shift": [((dy**2 + dx**2) ** 0.5, shifted(image, dy, dx)) for dy, dx in shifts], "occlusion": [],
             "blur": [(s, np.rint(gaussian_filter(image.astype(np.float32), (s, s, 0), mode="nearest"))
                       .astype(np.uint8)) for s in (0.5, 1.0, 1.5, 2.0)]}
    for side in range(1, 9):
        for top in range(17 - side):
            for left in range(17 - side):
                covered = image.copy()
                covered[top:top + side, left:left + side] = mean
                tried["occlusion"].append((side, covered))
    found = {}
    for kind, changes in tried.items():
        given = model.predict(np.stack([c for _, c in changes])).argmax(axis=1)
        hits = np.flatnonzero(np.isin(given, answers))
        found[kind] = (changes[hits[0]][0], changes[hits[0]][1], given[hits[0]]) if len(hits) else None
    return found


@pytest.mark.parametrize("target", [None, 2])
def test_the_smallest_change_is_that_of_brute_force(target):
    model, kinds = trained(), []
    for image, label in zip(IMAGES[:8], LABELS, strict=False):
        answer = int(model.predict(image[None])[0].argmax())
        if answer == target:
            with pytest.raises(ValueError, match="the answer is 'checks' already"):
                explain.smallest_change(model, image, target)
            continue
        found = explain.smallest_change(model, image, target)
        assert found.answer == answer == label and list(found.changes) == ["shift", "occlusion", "blur"]
        expected = by_hand(model, image, [c for c in range(3) if c != answer] if target is None else [target])
        for kind, change in found.changes.items():
            if expected[kind] is None:
                assert change is None and f"{kind}: none of " in str(found)
                continue
            amount, changed, given = expected[kind]
            np.testing.assert_array_equal(change.image, changed)
            assert change.amount == pytest.approx(amount) and change.answer == given
            probabilities = model.predict(change.image[None])[0]
            assert probabilities.argmax() == given and change.probability == pytest.approx(probabilities[given])
            assert change.answer_name == model.classes[given] and f"{kind}: {change.text} makes it" in str(found)
            kinds.append(kind)
    assert {"occlusion", "shift"} <= set(kinds)


def test_the_answer_of_two_views_is_what_changes():
    one = trained()
    model = pellucid.Model(one.network, preprocessing=one.preprocessing, classes=one.classes, tta="mirror")
    model.load_parameters(one.parameters)
    differ = 0
    for image in IMAGES[:6]:
        for change in filter(None, explain.smallest_change(model, image).changes.values()):
            probabilities = model.predict(change.image[None])[0]
            assert probabilities.argmax() == change.answer
            assert change.probability == pytest.approx(probabilities[change.answer])
            differ += abs(one.predict(change.image[None])[0, change.answer] - change.probability) > 0.01
    assert differ


def test_none_is_an_answer():
    net = nodes((8, 6, 1), ("c", Conv(3, 3), "input"), ("g", GlobalAvgPool(), "c"), ("fc", Dense(3), "g"))
    model = pellucid.Model(net, seed=0)
    model.load_parameters({**model.parameters, "fc.weight": np.zeros((3, 3)), "fc.bias": [0, 2, 1]})
    found = explain.smallest_change(model, normals(np.random.default_rng(0), 8, 6, 1), shifts=[1, 2], sides=[3],
                                    sigmas=[1.5])
    assert found.answer == 1 and not any(found.changes.values())
    assert str(found).splitlines() == ["shift: none of 24 shifts by 1, 2 pixels along an axis",
                                       "occlusion: none of 24 squares of 3 pixels, 1 apart",
                                       "blur: none of 1 blurs of 1.5 pixels"]


def test_changes_of_signals_and_of_floats():
    net = nodes((30, 2), ("c", Conv(4, 5), "input"), ("g", GlobalAvgPool(), "c"), ("fc", Dense(3, bias=False), "g"))
    model = made(net)
    image = normals(np.random.default_rng(1), 30, 2)
    found = explain.smallest_change(model, image)
    change = found.changes["occlusion"]
    assert change is not None and change.image.dtype == np.float32 and change.image.shape == (30, 2)
    left, side = change.where["left"], change.where["side"]
    assert not change.image[left:left + side].any()
    same = np.ones(30, bool)
    same[left:left + side] = False
    np.testing.assert_array_equal(change.image[same], image[same])
    assert model.logits(change.image[None]).argmax() == change.answer != found.answer
    assert f"a stretch of {side} pixels at {left} makes it" in str(found)
    assert all(c is None or c.where.get("dy", 0) == 0 for c in found.changes.values())


def test_grids_that_are_none_are_refused():
    model, image = trained(), IMAGES[0]
    for options, message in (({"shifts": []}, "shifts must be positive integers, at least one"),
                             ({"shifts": [0.5]}, "shifts must be positive integers"),
                             ({"sides": [0]}, "sides must be positive integers"),
                             ({"sigmas": [float("nan")]}, "sigmas must be positive numbers"),
                             ({"sigmas": "wide"}, "sigmas must be positive numbers"),
                             ({"baseline": np.zeros((16, 16, 1), np.float32)}, "must be uint8 as the image is")):
        with pytest.raises(ValueError, match=message):
            explain.smallest_change(model, image, **options)


def test_answers_show_themselves():
    """In notebooks, as a picture with its words."""
    model, image = trained(), IMAGES[1]
    found = explain.neighbours(model, image, IMAGES[:30], labels=LABELS[:30], count=3)
    assert found.picture.svg in found._repr_html_() and found.picture.svg.count("<image") == 4
    assert all(f"{d:.3g}" in found.picture.svg for d in found.distances) and "of 30 images" in found._repr_html_()
    change = explain.smallest_change(model, image)
    assert change.picture.svg in change._repr_html_()
    assert change.picture.svg.count("<image") == 1 + sum(c is not None for c in change.changes.values())
    assert all(escape(line) in change._repr_html_() for line in str(change).splitlines())
    grey = explain.neighbours(model, image[..., 0], IMAGES[:30, ..., 0], count=3)  # without their channel
    assert grey.images.shape == (3, 16, 16, 1)
    assert re.findall('href="data:[^"]+"', grey.picture.svg) == re.findall('href="data:[^"]+"', found.picture.svg)
    for score in (explain.deletion, explain.insertion):
        curve = score(model, explain.gradient(model, image))
        assert curve._repr_html_() == curve.picture.svg and "random order" in curve.picture.svg


def test_signals_are_shown_as_curves():
    model = made(nodes((30, 2), ("c", Conv(4, 5), "input"), ("g", GlobalAvgPool(), "c"),
                       ("fc", Dense(3, bias=False), "g")), classes=["low", "high", "a\nb"])
    signals = normals(np.random.default_rng(1), 5, 30, 2)
    near = explain.neighbours(model, signals[0], signals, labels=[0, 1, 2, 1, 0], count=4)
    change = explain.smallest_change(model, signals[0])
    for picture, names in ((near.picture, ["this image", *(f"{printable(n)}, {d:.3g}" for n, d in zip(
            near.names, near.distances, strict=True))]), (change.picture, [printable(change.answer_name)])):
        assert "<image" not in picture.svg and "mean of 2 channels" in picture.svg
        assert all(f">{name}</text>" in picture.svg for name in names)


def test_names_stay_on_their_line():
    one = trained()
    model = pellucid.Model(one.network, preprocessing=one.preprocessing, classes=["a\nb", "c\x1b[2J", "d\u202e"])
    model.load_parameters(one.parameters)
    found = explain.smallest_change(model, IMAGES[0])
    assert len(str(found).splitlines()) == 3 and all(line.isprintable() for line in str(found).splitlines())
    assert any(found.changes.values())
