"""Figures of merit against scikit-learn, against their definitions written out, and against chance."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from pellucid.cli_evaluation import evaluation as text
from pellucid.evaluation import score
from pellucid.evaluation.bootstrap import intervals
from pellucid.evaluation.reliability import calibration_error, equal_mass, equal_width


def outcome(count=400, classes=6, seed=0, skill=1.5):
    """Logits that know something of the labels, and the labels; the last class has no image."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes - 1, count)
    outputs = rng.normal(size=(count, classes)) + skill * (labels[:, None] == np.arange(classes))
    return outputs.astype(np.float32), labels


def names(classes):
    return [f"class {i}" for i in range(classes)]


@settings(max_examples=25, deadline=None)
@given(count=st.integers(1, 60), classes=st.integers(2, 8), seed=st.integers(0, 99), skill=st.sampled_from([0, 1, 9]))
def test_as_scikit_learn_has_it(count, classes, seed, skill):
    outputs, labels = outcome(count, classes, seed, skill)
    result = score(outputs, labels, names(classes))
    predicted, every = outputs.argmax(axis=1), np.arange(classes)
    np.testing.assert_array_equal(result.confusion, metrics.confusion_matrix(labels, predicted, labels=every))
    each = metrics.precision_recall_fscore_support(labels, predicted, labels=every, zero_division=0)
    found = [[c.precision or 0, c.accuracy or 0, c.f1 or 0, c.count] for c in result.classes]
    np.testing.assert_allclose(np.transpose(found), each, atol=1e-12)
    for kind in ("macro", "weighted"):
        expected = metrics.precision_recall_fscore_support(
            labels, predicted, labels=np.unique(labels), average=kind, zero_division=0)[:3]
        assert list(result.averages[kind].values()) == pytest.approx(expected, abs=1e-12)
    probabilities = np.exp(outputs.astype(float))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    assert result.log_loss == pytest.approx(metrics.log_loss(labels, probabilities, labels=every), rel=1e-9)
    truth = (labels[:, None] == every).astype(float)
    assert result.brier_score == pytest.approx(((probabilities - truth) ** 2).sum(axis=1).mean(), rel=1e-9)


def test_calibration_error_by_hand():
    confidence = np.array([0.05, 0.2, 1 / 3, 0.35, 0.9, 1.0])  # bins of a third; each holds its upper edge
    correct = np.array([0, 1, 0, 1, 1, 0], bool)
    bins = equal_width(confidence, correct, 3)
    assert [b.count for b in bins] == [3, 1, 2]
    assert bins[0].accuracy == pytest.approx(1 / 3) and bins[2].confidence == pytest.approx(0.95)
    gaps = 3 * abs((0.25 + 1 / 3) / 3 - 1 / 3) + 0.65 + 2 * abs(0.95 - 0.5)
    assert calibration_error(bins) == pytest.approx(gaps / 6)
    masses = equal_mass(confidence, correct, 3)
    assert [(b.count, b.high) for b in masses] == [(2, 0.2), (2, 0.35), (2, 1.0)]
    gaps = 2 * abs(0.125 - 0.5) + 2 * abs((1 / 3 + 0.35) / 2 - 0.5) + 2 * abs(0.95 - 0.5)
    assert calibration_error(masses) == pytest.approx(gaps / 6)
    empty = equal_width(np.array([0.99]), np.array([True]), 2)[0]
    assert (empty.count, empty.confidence, empty.accuracy) == (0, None, None)
    assert len(equal_mass(confidence[:2], correct[:2], 15)) == 2


def test_labels_drawn_from_the_probabilities_are_calibrated_and_sharper_ones_are_not():
    rng = np.random.default_rng(0)
    outputs = 2 * rng.normal(size=(20_000, 4))
    labels = (outputs + rng.gumbel(size=outputs.shape)).argmax(axis=1)
    assert score(outputs, labels, names(4)).calibration_error < 0.01
    assert score(3 * outputs, labels, names(4)).calibration_error > 0.1
    assert score(3 * outputs, labels, names(4)).calibration_error_equal_mass > 0.1


def test_intervals_cover_the_true_value_about_as_often_as_they_say():
    rng = np.random.default_rng(1)
    covered = 0
    for trial in range(150):
        right = rng.random(150) < 0.8
        outputs = np.where(right[:, None], [1.0, 0.0], [0.0, 1.0])
        low, high = intervals(score(outputs, np.zeros(150, int), names(2)).answers, 2, resamples=200, seed=trial)[
            "accuracy"]
        covered += low <= 0.8 <= high
    assert 0.88 <= covered / 150 <= 0.99


def test_intervals_hold_the_figures_and_shrink_with_more_images():
    wide, narrow = (score(*outcome(n), names(6)) for n in (100, 10_000))
    for result in (wide, narrow):
        figures = {"accuracy": result.accuracy, "macro_f1": result.averages["macro"]["f1"],
                   "log_loss": result.log_loss, "calibration_error": result.calibration_error}
        assert set(figures) == set(result.intervals)
        for name, value in figures.items():
            low, high = result.intervals[name]
            assert low < value < high, name
    for name in wide.intervals:
        assert np.ptp(narrow.intervals[name]) < 0.2 * np.ptp(wide.intervals[name]), name
    again = score(*outcome(100), names(6))
    assert again.intervals == wide.intervals
    assert intervals(again.answers, 6, seed=1) != wide.intervals


def test_intervals_are_those_of_drawing_images_again():
    """The same draws, each scored as a set of images of its own."""
    outputs, labels = outcome(40, 7, seed=3)
    whole = score(outputs, labels, names(7))
    order = np.lexsort((whole.answers.predicted, whole.answers.labels))  # in which the bootstrap counts images

    def figures(result):
        return [result.accuracy, result.averages["macro"]["f1"], result.log_loss, result.calibration_error]

    draws = np.random.default_rng(11).integers(0, 40, (60, 40))
    table = np.array([figures(score(outputs[order[d]], labels[order[d]], names(7))) for d in draws])
    bounds = np.quantile(table, [0.025, 0.975], axis=0) - table.mean(axis=0) + figures(whole)
    found = list(intervals(whole.answers, 7, resamples=60, seed=11).values())
    np.testing.assert_allclose(found, np.clip(bounds, 0, [1, 1, np.inf, 1]).T, rtol=1e-9)


def test_where_all_are_right_the_interval_is_not_a_point():
    result = score(np.eye(3)[np.arange(30) % 3], np.arange(30) % 3, names(3))
    low, high = result.intervals["accuracy"]
    assert high == 1 and low == pytest.approx(0.025 ** (1 / 30)) and result.intervals["macro_f1"] is None
    wrong = score(np.eye(3)[np.arange(30) % 3], (np.arange(30) + 1) % 3, names(3))
    assert wrong.intervals["accuracy"] == pytest.approx((0, 1 - 0.025 ** (1 / 30)))
    assert "100.00%" in text("x", result) and "taken for" not in text("x", result).split("recall")[0]


def test_confused_pairs_and_worst_mistakes():
    outputs = np.log([[.6, .3, .1], [.2, .7, .1], [.1, .8, .1], [.5, .3, .2], [.1, .1, .8], [.3, .4, .3]])
    result = score(outputs, np.array([0, 0, 0, 2, 2, 1]), ["a", "b", "c"])
    assert result.confused == [
        {"true": "a", "predicted": "b", "count": 2, "share": pytest.approx(2 / 3)},
        {"true": "c", "predicted": "a", "count": 1, "share": 0.5},
    ]
    assert [(m["index"], m["true"], m["predicted"], m["file"]) for m in result.mistakes] == [
        (2, "a", "b", None), (1, "a", "b", None), (3, "c", "a", None)]
    assert result.mistakes[0]["probability"] == pytest.approx(0.8)
    assert result.mistakes[0]["probability_of_true"] == pytest.approx(0.1)


def test_rows_have_a_place_for_each_column_however_few_the_classes():
    from pellucid.evaluation.scores import COLUMNS

    for classes in (2, 5, 9):
        outputs, labels = outcome(20, classes)
        rows = list(score(outputs, labels, names(classes)).rows())
        assert len(rows) == 20 and {len(row) for row in rows} == {len(COLUMNS)}
        best = np.sort(outputs[0])[::-1]
        assert rows[0][:3] == [0, f"class {labels[0]}", f"class {outputs[0].argmax()}"]
        p = np.exp(best.astype(float)) / np.exp(outputs[0].astype(float)).sum()
        shown = [v for v in (rows[0][3], *rows[0][6::2]) if v != ""]
        assert shown == pytest.approx(p[:5].tolist())
        assert rows[0][4] == pytest.approx(float(np.exp(outputs[0, labels[0]]) / np.exp(outputs[0]).sum()), rel=1e-5)


@pytest.mark.parametrize("classes", [2, 1000])
def test_the_report_fits_80_columns(classes):
    outputs, labels = outcome(3000, classes, skill=4)
    long = [f"{'a class with a very long name indeed':s} {i}" for i in range(classes)]
    shown = text("a data set, all images", score(outputs, labels, long))
    assert max(map(len, shown.splitlines())) <= 80
    table = shown[shown.index("\nclass "):].splitlines()[2:]
    table = table[:next((i for i, line in enumerate(table) if not line or line.startswith("No image")), None)]
    assert len(table) == min(classes, 20)
    assert ("20 classes of the lowest F1, of 1,000" in shown) == (classes == 1000)


def test_everything_is_json():
    result = score(*outcome(50), names(6)).to_json()
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert result["classes"][5]["f1"] is None and result["classes"][0]["recall"] == result["classes"][0]["accuracy"]
    assert sum(b["count"] for b in result["reliability"]) == 50 and len(result["reliability"]) == 15
    assert result["calibration"] is None and result["refused"] is None
    few = score(*outcome(50), names(6)).summary()
    assert list(few) == ["count", "correct", "accuracy", "top", "log_loss"] and few.items() <= result.items()
