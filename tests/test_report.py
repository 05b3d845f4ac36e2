"""The report of a classifier: what it says is what the evaluation says, it is one sound page, and it stays small."""

import dataclasses
import re

import numpy as np
import pytest
from pages import Page
from shapes_data import CLASSES, pictures

import pellucid
from pellucid import data, evaluation, report
from pellucid.explain.agreement import overlap
from pellucid.layers import AvgPool, Dense, Flatten
from pellucid.network import Network, Sequential
from pellucid.report import classifier, labels, network, shell, why
from pellucid.report import confusion as matrix
from pellucid.report import pictures as albums
from pellucid.torch_engine import OnDevice, device_of

HOSTILE = '<script>alert("1")</script>&#x0;\x07\n\u202e</style>' + "x" * 300


@pytest.fixture(scope="module")
def run():
    """Shapes of which some test images carry a wrong label, so that there are mistakes."""
    images, labels = pictures(240)
    labels[::23] = (labels[::23] + 1) % 3
    return pellucid.fit("lenet", data.Dataset("shapes", images, labels, CLASSES), epochs=4, seed=0, out=False,
                        command=["pellucid", "train", "my shapes.npz"])


@pytest.fixture(scope="module")
def page(run):
    return Page(report.of_run(run))


def test_the_first_screen_says_the_figures_of_the_evaluation(run, page):
    result = run.evaluation
    low, high = result.intervals["accuracy"]
    assert run.test == result.summary() and 0 < result.correct < result.count
    assert (f"It recognises {result.accuracy:.2%} of the images that it has never seen ({result.correct} of "
            f"{result.count})") in page.text
    assert f"expect between {low:.1%} and {high:.1%}" in page.text
    for share in (result.averages["macro"]["f1"], result.calibration_error):
        assert f"{share:.2%}" in page.text
    assert f"{result.log_loss:.4f} nats" in page.text and f"{run.setup.network.parameter_count:,}" in page.text
    assert page.headings[:3] == [("h1", "lenet, trained on shapes"), ("h2", "What to fix first"), ("h2", "In figures")]


def test_what_to_fix_first_is_the_advice_in_its_order(run, page):
    seen = evaluation.evaluate_part(run.model, run.parts, "train")
    points = evaluation.advice.advise(
        run.evaluation, seen=seen, counts=np.bincount(run.parts.train.labels), in_two_classes=0)
    assert points
    shown = [item for item in page.items if "(concerns" in item]
    assert [item.split(". ")[0] for item in shown] == [p.found.split(". ")[0] for p in points[:5]]
    assert all(p.mend in item for p, item in zip(points, shown, strict=False))


def test_a_cell_of_the_matrix_opens_its_images(run, page):
    confusion = run.evaluation.confusion
    cells = {f"cell-{i}-{j}" for i, j in zip(*np.nonzero(confusion), strict=True)}
    assert cells == {name for name in page.ids if name.startswith("cell-")}
    assert {f"#{cell}" for cell in cells} <= set(page.links)
    for i, j in zip(*np.nonzero(confusion - np.diag(np.diag(confusion))), strict=True):
        assert ("h3", f"{CLASSES[i]} taken for {CLASSES[j]}") in page.headings


def test_classes_mistakes_and_layers_are_in_tables_and_texts(run, page):
    by_class = next(t for t in page.tables if t[0][0] == "class" and "recall" in t[0])
    assert len(by_class) == 4
    for row in by_class[1:]:
        c = run.evaluation.classes[CLASSES.index(row[0])]
        assert row[1:6] == [str(c.count), str(c.correct), f"{c.precision:.1%}", f"{c.accuracy:.1%}", f"{c.f1:.1%}"]
    layers = next(t for t in page.tables if t[0][0] == "layer")
    assert [row[0] for row in layers[1:]] == ["input", *(n.name for n in run.setup.network.nodes), "total"]
    counts = next(t for t in page.tables if t[0] == ["class", "train", "validation", "test"])
    assert sum(int(row[1]) for row in counts[1:]) == run.setup.split["train"]
    for m in run.evaluation.mistakes[:why.MOST]:
        assert (f"image {m['index']}: {m['predicted']} at {m['probability']:.1%}, the truth at "
                f"{m['probability_of_true']:.1%}") in page.text
    assert len([name for name in page.ids if name.startswith("mistake-")]) == min(len(run.evaluation.wrong), why.MOST)
    assert "pellucid train 'my shapes.npz'" in page.text and pellucid.__version__ in page.text


def test_training_is_counted_in_the_steps_that_were_made(run, page):
    plan, count = run.setup.plan, run.steps
    assert f"{count} steps of {plan.batch_size} images, which is {count // plan.epoch_steps} epochs, in" in page.text
    part = dataclasses.replace(run, steps=plan.epoch_steps // 4, epochs=1, stopped=True, history=run.history[:1])
    whole, text = (classifier._training(some, None).body for some in (run, part))
    assert 'aria-label="Loss' in whole and "svg" not in text  # one point is no curve
    assert f"of {plan.batch_size} images, which is {part.steps / plan.epoch_steps:.3g} epochs, in" in text
    assert "It ended there" in text and "It ended there" not in whole


def test_a_page_says_what_computed_and_what_its_command_gives_again(run, page):
    assert "computed by compiled kernels" in page.text and "the same weights to the bit" in page.text
    model, result = wide(20, 3, 8)
    assert "gives the same figures" in (text := Page(report.of_evaluation(model, result)).text)
    assert "same weights" not in text and "computed by compiled kernels" in text
    model.use(OnDevice(model, device_of("cpu")))
    assert "computed by PyTorch on cpu in float32" in Page(report.of_evaluation(model, result)).text


def test_two_explanations_are_compared(run, page):
    found, _ = why.explained(run.model, run.evaluation)
    assert all([name for name, _ in mistake.maps] == ["Grad-CAM", "occlusion"] for mistake in found)
    assert sum(page.text.count(words) for words in ("The two agree", "The two disagree", "cannot be compared")) == len(
        found)
    top, corner = np.zeros((4, 4)), np.zeros((4, 4))
    top[0], corner[:2, :2] = 1, 1
    assert overlap(top, top) == 1 and overlap(top, corner) == 0.5
    assert overlap(top, -top) is None and overlap(top, np.zeros((4, 4))) is None
    assert overlap(top, np.eye(4)[::-1]) == 0.25
    with pytest.raises(ValueError, match="one size"):
        overlap(top, top[:2])


def test_disputed_labels_are_those_of_the_model_itself(run, page):
    assert "pellucid data labels DATA" in page.text
    disputed = run.evaluation.disputed
    assert ("h3", f"The images of this evaluation: {len(disputed)} of {run.evaluation.count}") in page.headings
    surely = evaluation.advice.surely_disputed(run.evaluation)
    seen = evaluation.advice.surely_disputed(evaluation.evaluate_part(run.model, run.parts, "train"))
    assert 0 < len(surely) < len(disputed) and page.text.count("%) *") == sum(
        min(len(part), labels.MOST) for part in (surely, seen))
    assert f"{len(surely)} are disputed surely" in page.text or len(surely) == 1
    told = run.evaluation.answer(surely[0])
    assert f"labelled {told['true']} ({told['probability_of_true']:.1%}), looks like {told['predicted']}" in page.text


def test_an_interrupted_run_is_reported_by_its_validation_images(tmp_path):
    images, labels = pictures()

    def stop(p):
        if p.step == 3:
            import signal

            signal.raise_signal(signal.SIGINT)

    run = pellucid.fit("lenet", (images, labels), epochs=9, seed=0, out=tmp_path / "run", progress=stop)
    assert run.interrupted and run.evaluation is None
    page = Page(report.of_run(run))
    assert "validation images" in page.text and "never seen" not in page.text
    assert page.items[0].startswith(f"Training was stopped after step 3 of {run.setup.plan.steps}")
    again = pellucid.fit(data=(images, labels), out=tmp_path / "run", resume=True, command=["pellucid", "again"])
    text = Page(report.of_run(again)).text
    assert "never seen" in text and "pellucid again" in text
    assert evaluation.evaluate_part(again.model, again.parts, "train", 7).count == 7
    # Of a run that was complete already, the test is computed again.
    once_more = pellucid.fit(data=(images, labels), out=tmp_path / "run", resume=True)
    assert once_more.evaluation is None and f"{again.test_accuracy:.2%}" in Page(report.of_run(once_more)).text


def wide(count, classes, side, names=None, seed=0):
    """A model that guesses, and its evaluation on large noisy pictures, which compress badly."""
    rng = np.random.default_rng(seed)
    shape = (side, side, 3)
    net = Network.build(shape, Sequential(AvgPool(side // 4), Flatten(), Dense(classes)))
    names = names or [f"class {i} of many" for i in range(classes)]
    model = pellucid.Model(net, seed=0, preprocessing=pellucid.Preprocessing(shape, (0.5,) * 3, (0.3,) * 3),
                           classes=names)
    images = rng.integers(0, 256, (count, *shape), dtype=np.uint8)
    files = [f"folder/{names[0][:7]}/{i}.jpg" for i in range(count)]
    return model, evaluation.evaluate(model, images, rng.integers(0, classes, count), files=files)


def test_a_page_of_many_classes_and_large_photographs_stays_below_ten_megabytes():
    model, result = wide(800, 100, 128, [f"class {i} " + 1000 * "x" for i in range(100)])
    html = report.of_evaluation(model, result, "noise, all images", command=["pellucid", "evaluate", "m", "d"])
    page = Page(html)
    assert 1e6 < len(html.encode()) < 10e6
    assert len(page.images) < albums.MOST + 200
    assert "Of 100 classes the 40 with most mistakes are shown" in page.text


def test_shares_in_a_part_of_a_matrix_are_of_all_images_of_a_class(monkeypatch):
    monkeypatch.setattr(matrix, "CLASSES", 2)
    labels = np.repeat([0, 1, 2], [10, 10, 4])
    answers = np.array([0] * 4 + [1] * 4 + [2] * 2 + [1] * 10 + [1, 2, 2, 2])
    result = evaluation.score(np.eye(3)[answers], labels, ["a", "b", "c"])
    monkeypatch.setattr(matrix, "CONFUSED_PAIRS", 1)
    found = matrix.confusion(result, albums.Album())
    assert "a, taken for b: 4 (40.0%)" in found.picture.svg and "b, right: 10 (100%)" in found.picture.svg
    assert ">66.7%</text>" in found.picture.svg  # precision of b, among all answers
    assert "4 of the 7 mistakes lie among them" in found.note


def test_hostile_names_are_shown_and_nothing_else():
    model, result = wide(60, 3, 8, names=[HOSTILE, "</title><img src=x onerror=y>", "{{ 7 * 7 }}"])
    page = Page(report.of_evaluation(model, result, f"{HOSTILE}, all images", name=HOSTILE, notes=[HOSTILE],
                                     command=["pellucid", "evaluate", HOSTILE]))
    assert "<script>alert(" in page.text and "\\x07\\n\\u202e" in page.text and "{{ 7 * 7 }}" in page.text
    assert "49" not in [text for _, text in page.headings]


def test_settings_of_a_hostile_record_are_bounded():
    model, result = wide(20, 3, 8)
    model.record.update(seed="x" * 10**6, data={"a": [[[1]]] * 10**5}, optimizer={"<b>": ["y"] * 10**5}, epochs=10**400)
    html = report.of_evaluation(model, result)
    Page(html)
    assert len(html) < 1e6


def test_what_cannot_be_shown_is_said():
    images, labels = pictures(60)
    net = Network.build((8, 8, 1), Sequential(Flatten(), Dense(3)))
    model = pellucid.Model(net, seed=1, classes=CLASSES)  # it takes no pictures
    page = Page(report.of_evaluation(model, evaluation.evaluate(model, (images / 255).astype(np.float32), labels)))
    assert not [i for i in page.ids if i.startswith(("cell-", "mistake-"))] and "cannot be shown" in page.text
    mixed = evaluation.score(np.roll(np.eye(3), 1, axis=1)[labels] * 9, labels, CLASSES)
    page = Page(report.of_evaluation(model, mixed, "some/where/shapes.npz, all images"))
    assert any("use larger pictures (--size)" in item for item in page.items)
    assert page.headings[0] == ("h1", "model on shapes.npz")
    perfect = evaluation.score(np.eye(3)[labels] * 9, labels, CLASSES)
    page = Page(report.of_evaluation(model, perfect))
    assert "Nothing: all 60 are right" in page.text and "No label is disputed" in page.text


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_model_whose_outputs_are_no_numbers_is_refused_in_a_line(value):
    model, _ = wide(20, 3, 8)
    result = evaluation.score(np.full((6, 3), value), np.arange(6) % 3, CLASSES)
    with pytest.raises(ValueError, match="nothing to report"):
        report.of_evaluation(model, result)


def test_a_network_that_cannot_be_explained_costs_the_explanations_only(run, monkeypatch):
    def refuses(*arguments):
        raise ValueError("no such thing")

    monkeypatch.setattr(why.explain, "METHODS", dict.fromkeys(why.METHODS, refuses))
    page = Page(report.of_run(run))
    assert "They cannot be explained here: no such thing." in page.text and "Beside each" not in page.text
    assert sum(name.startswith("mistake-") for name in page.ids) == min(len(run.evaluation.wrong), why.MOST)
    assert ("h2", "Disputed labels") in page.headings


def test_a_large_network_explains_fewer_mistakes_and_its_layers_fit_a_page(run, monkeypatch):
    monkeypatch.setattr(why, "BUDGET", 1)
    found, left_out = why.explained(run.model, run.evaluation)
    assert len(found) == why.LEAST and "only 3" in left_out
    deep = pellucid.zoo.build("resnet152")
    assert f"{deep.parameter_count:,} parameters" in (body := network.network(deep).body) and len(body) < 1e6


# The parts.


def test_an_album_is_full_at_some_point(run, monkeypatch):
    monkeypatch.setattr(albums, "MOST", 5)
    album = albums.Album()
    assert len(album.take(run.evaluation, range(4), ["a"] * 4)) == 4
    assert len(album.take(run.evaluation, range(4), ["a"] * 4)) == 1
    monkeypatch.setattr(albums, "MOST_BYTES", 10)
    assert len(albums.Album().take(run.evaluation, range(4), ["a"] * 4)) == 1


@pytest.mark.parametrize("shape", [(8, 8, 1), (300, 20, 3), (5, 400, 4), (64, 64, 2)])
def test_thumbnails_keep_proportions(shape):
    image = np.full(shape, 200, np.uint8)
    small = albums.thumbnail(image)
    assert max(small.shape[:2]) == min(max(shape[:2]), albums.SIDE) and small.dtype == np.uint8
    assert abs(small.shape[0] / small.shape[1] - shape[0] / shape[1]) < 0.35 * shape[0] / shape[1]
    assert (small == 200).all() and (small.ndim == 3) == (shape[2] == 3)


def test_a_map_is_shrunk_by_means():
    values = np.arange(64, dtype=np.float32).reshape(8, 8)
    np.testing.assert_allclose(why.shrunk(values, (4, 4)), values.reshape(4, 2, 4, 2).mean(axis=(1, 3)))
    assert why.shrunk(values, (8, 8)) is values


def test_pages_need_anchors_and_take_texts_as_texts():
    page = shell.page("A & B", [shell.Section("One, two", "<b>"), shell.Section("C", shell.Markup("<p>d</p>"))])
    assert 'id="one-two"' in page and "<p>&lt;b&gt;</p>" in page and "<p>d</p>" in page
    Page(page)
    for titles in (("a", "a"), ("–",)):
        with pytest.raises(ValueError, match="anchor"):
            shell.page("t", [shell.Section(title, "") for title in titles])


def test_a_page_is_readable_in_both_schemes_and_in_print():
    """Text and background differ enough (WCAG 2.1: a contrast of 4.5) in the colours that the style names."""
    style = shell.page("t", [])
    schemes = [dict(re.findall(r"--(\w+): (#[0-9a-f]{3,6})", block)) for block in re.findall(
        r":root \{([^}]*)\}", style)]
    assert len(schemes) == 2 and "@media print" in style

    def light(colour):
        digits = colour[1:] if len(colour) == 7 else "".join(2 * c for c in colour[1:])
        parts = np.array([int(digits[i:i + 2], 16) for i in (0, 2, 4)]) / 255
        return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]

    for scheme in schemes:
        for ground in ("paper", "panel"):
            for ink in ("ink", "faint", "link", "good", "bad"):
                dark, bright = sorted((light(scheme[ground]), light(scheme[ink])))
                assert (bright + 0.05) / (dark + 0.05) >= 4.5, (ink, ground)
