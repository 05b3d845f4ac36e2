"""What to mend first: each rule finds what was planted, says how many images it concerns, and is silent otherwise."""

import numpy as np
import pytest

from pellucid import data, evaluation
from pellucid.calibration import Calibration
from pellucid.data import check
from pellucid.evaluation import score
from pellucid.evaluation.advice import advise, surely_disputed
from pellucid.evaluation.answers import Answers
from pellucid.evaluation.scores import from_answers

CLASSES = ["cat", "dog", "hen", "owl"]
COUNTS = [100, 100, 100, 100]


def judged(mistakes=(), each=60, confidence=0.97, of_mistakes=0.6, **about):
    """An evaluation with `each` images a class, all right but for (true, predicted, how many) mistakes. Answers are
    given with a probability, the mistakes' with another; what is left goes to the true class, or all others evenly."""
    labels = np.repeat(np.arange(4), each)
    predicted, sure = labels.copy(), np.full(len(labels), confidence)
    for true, wrong, count in mistakes:
        free = np.flatnonzero((labels == true) & (predicted == labels))[:count]
        predicted[free], sure[free] = wrong, of_mistakes
    rows, right = np.arange(len(labels)), predicted == labels
    p = np.repeat((1 - sure)[:, None], 4, axis=1) / np.where(right, 3, 1e6)[:, None]
    p[rows, predicted] = sure
    p[rows[~right], labels[~right]] = 1 - sure[~right]
    return from_answers(Answers.of(np.log(p), labels), CLASSES, (1,), **about)


def rules(points):
    return [point.rule for point in points]


def one(points, rule):
    (found,) = [point for point in points if point.rule == rule]
    return found


def test_nothing_is_said_where_nothing_stands_out():
    assert advise(judged(), seen=judged(), counts=COUNTS) == []
    scattered = judged([(0, 1, 1), (1, 2, 1), (2, 3, 1), (3, 0, 1)])
    assert advise(scattered, seen=scattered, counts=COUNTS) == []


def test_no_better_than_naming_the_commonest_class():
    wrong = [(i, (i + 1) % 4, 44) for i in range(4)]
    found = one(advise(judged(wrong)), "guessing")
    assert found.images == 176 and "“cat”, which would be right for 25.0%" in found.found
    assert "guessing" not in rules(advise(judged([(i, (i + 1) % 4, 36) for i in range(4)])))
    one_class = score(np.array([[1.0, 0.0]] * 9), np.zeros(9, int), ["a", "b"])
    assert "guessing" not in rules(advise(one_class))
    few = np.array([0, 0, 1])  # so few that guessing may be as good, but all are right
    assert rules(advise(score(np.eye(2)[few] * 9, few, ["a", "b"]))) == ["rough"]
    assert "guessing" in rules(advise(score(np.eye(2)[few[::-1]] * 9, few, ["a", "b"])))


def test_the_pair_that_is_mixed_up_most_counts_both_directions():
    found = one(advise(judged([(0, 1, 4), (2, 1, 5), (1, 0, 3)])), "pair")
    assert (found.images, found.cell) == (7, (0, 1))
    assert "“cat” is taken for “dog” 4 times, and “dog” for “cat” 3 times" in found.found
    only = one(advise(judged([(2, 3, 3)])), "pair")
    assert (only.images, only.cell) == (3, (2, 3)) and "“owl” for" not in only.found
    assert "pair" not in rules(advise(judged([(2, 3, 2)])))
    # Where mistakes are many, three are no more than others are.
    for more, stands_out in ((1, False), (5, True)):
        confusion = np.ones((10, 10), int) + 29 * np.eye(10, dtype=int)
        confusion[0, 1] += more
        true, answered = (np.repeat(axis.ravel(), confusion.ravel()) for axis in np.indices((10, 10)))
        points = advise(score(9 * np.eye(10)[answered], true, list("abcdefghij")))
        assert ("pair" in rules(points)) == stands_out


def test_classes_of_few_training_images_with_mistakes():
    result = judged([(0, 1, 2), (3, 1, 1)])
    found = one(advise(result, counts=[19, 19, 100, 5]), "few")
    assert found.images == 3 and "“cat” (19), “owl” (5)" in found.found
    assert "few" not in rules(advise(result, counts=[20, 19, 100, 20]))
    every = one(advise(judged([(i, (i + 1) % 4, 4 - i) for i in range(4)]), counts=[1, 2, 3, 4]), "few")
    assert "“cat” (1), “dog” (2), “hen” (3) and 1 more" in every.found and every.images == 10


def test_a_class_that_is_weak_though_it_has_images():
    result = judged([(0, 1, 6), (0, 2, 6)])
    found = one(advise(result, counts=COUNTS), "weak")
    assert found.images == 12 and "“cat” only 48 of 60 images" in found.found
    assert "weak" not in rules(advise(result, counts=[10, 100, 100, 100]))  # it is for want of images
    assert "weak" not in rules(advise(judged([(0, 1, 6)]), counts=COUNTS))  # 95% against 97.5%
    for count in (2, 3):  # of 10 images
        assert ("weak" in rules(advise(judged([(0, 1, count)], each=10), counts=COUNTS))) == (count == 3)


def test_labels_that_the_model_is_sure_against():
    sure = judged([(0, 1, 2)], of_mistakes=0.99), judged([(2, 3, 4)], of_mistakes=0.99)
    assert one(advise(sure[0], seen=sure[1]), "labels").images == 6
    assert sorted(surely_disputed(sure[0])) == sure[0].wrong.tolist()
    assert "labels" not in rules(advise(sure[0]))  # two are too few
    weak = judged([(0, 1, 50), (1, 2, 8)], of_mistakes=0.99)
    assert len(surely_disputed(weak)) == 58 and "labels" not in rules(advise(weak))  # it is no judge
    unsure = judged([(2, 3, 4)], of_mistakes=0.9)
    assert surely_disputed(unsure) == []  # 10% for the label is no less than guessing gives by far


def test_learned_by_heart_or_not_learned():
    bad = judged([(i, (i + 1) % 4, 9) for i in range(4)], confidence=0.85)  # 85% are right
    found = one(advise(bad, seen=judged()), "overfitting")
    assert found.images == round(0.15 * 240) and "100.0%" in found.found and "85.0%" in found.found
    under = advise(bad, seen=bad)
    assert one(under, "underfitting").images == round(0.15 * 240) and "overfitting" not in rules(under)
    assert not {"overfitting", "underfitting"} & set(rules(advise(bad)))  # nothing is known of training
    close = judged([(0, 1, 1), (1, 0, 1)])
    assert "overfitting" not in rules(advise(close, seen=judged()))


def test_probabilities_that_do_not_mean_what_they_say():
    mistakes = [(i, (i + 1) % 4, 9) for i in range(4)]
    too_sure = one(advise(judged(mistakes, confidence=0.99, of_mistakes=0.99)), "calibration")
    assert "too sure" in too_sure.found and too_sure.images == round(0.14 * 240)
    assert "pellucid.calibration.fit" in too_sure.mend
    calibrated = judged(mistakes, confidence=0.99, of_mistakes=0.99, calibration=Calibration(1.0, 200, 0.7, 0.05))
    assert "more of them help" in one(advise(calibrated), "calibration").mend
    not_sure = one(advise(judged(confidence=0.6)), "calibration")
    assert "not sure enough" in not_sure.found
    assert "calibration" not in rules(advise(judged(mistakes, confidence=0.85, of_mistakes=0.85)))


def test_more_images_than_expected_are_none_of_the_classes():
    calibration = Calibration(1.0, 200, 0.7, 0.05)
    mistakes = [(i, (i + 1) % 4, 12) for i in range(4)]
    found = one(advise(judged(mistakes, calibration=calibration)), "refused")
    assert found.images == 48 and "20.0% of the images" in found.found and "5.0% are expected" in found.found
    assert "refused" not in rules(advise(judged(mistakes[:1], calibration=calibration)))
    assert "refused" not in rules(advise(judged([(0, 1, 29)], calibration=calibration)))  # 12%: not three times as many
    unknown = Calibration(1.0, 60, 0.7, 1 / 60)
    assert "refused" not in rules(advise(judged([(0, 1, 13)], calibration=unknown)))  # 5.4%; up to 6.0% are possible
    assert "refused" in rules(advise(judged([(0, 1, 24)], calibration=unknown)))
    assert "refused" not in rules(advise(judged(mistakes)))


def test_few_images_and_absent_classes():
    found = one(advise(judged([(0, 1, 3)], each=8)), "rough")
    low, high = judged([(0, 1, 3)], each=8).intervals["accuracy"]
    assert f"{low:.1%} and {high:.1%}" in found.found
    outputs = np.log(np.full((90, 4), 0.01) + 0.96 * np.eye(4)[np.repeat([0, 1, 3], 30)])
    absent = one(advise(score(outputs, np.repeat([0, 1, 3], 30), CLASSES)), "absent")
    assert absent.images == 0 and "“hen”" in absent.found


def test_those_that_concern_most_images_come_first():
    points = advise(judged([(0, 1, 12), (2, 3, 4)], of_mistakes=0.99), counts=[100, 100, 7, 100], in_two_classes=9)
    assert [(p.rule, p.images) for p in points][:5] == [
        ("labels", 16), ("pair", 12), ("weak", 12), ("copies", 9), ("few", 4)]


# What the rules and the report are made of.


def test_cells_hold_every_image_once_in_the_order_of_how_sure_the_answers_are():
    rng = np.random.default_rng(0)
    outputs, labels = rng.normal(size=(200, 5)), rng.integers(0, 5, 200)
    result = score(outputs, labels, list("abcde"))
    cells = result.cells()
    assert sorted(np.concatenate(list(cells.values()))) == list(range(200))
    for (true, predicted), places in cells.items():
        assert len(places) == result.confusion[true, predicted] > 0
        assert (labels[places] == true).all() and (outputs[places].argmax(axis=1) == predicted).all()
        confidence = result.answers.confidence[places]
        assert (np.diff(confidence) >= 0).all() if true == predicted else (np.diff(confidence) <= 0).all()
    assert [result.answer(i) for i in result.wrong[:20]] == result.mistakes


def test_disputes_are_those_of_label_errors():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, 80)
    outputs = 1.5 * (rng.normal(size=(80, 3)) + np.eye(3)[labels])
    result = score(outputs, labels, list("abc"))
    p = np.exp(outputs) / np.exp(outputs).sum(axis=1, keepdims=True)
    expected = evaluation.labels.disputed(p, labels)
    assert result.disputed == [(i, confident) for i, _, confident in expected]
    assert result.disputed and not all(confident for _, confident in result.disputed)
    # For a class without images nothing is usual.
    absent = score(np.log([[0.1, 0.9], [0.8, 0.2]]), np.array([0, 0]), ["a", "b"])
    assert absent.disputed == [(0, False)]


@pytest.fixture(scope="module")
def named():
    """A data set of 12 named pictures in 2 classes, one of them twice under both labels."""
    images = np.arange(12 * 16, dtype=np.uint8).reshape(12, 4, 4, 1)
    images[7] = images[0]
    labels = np.array([0] * 6 + [1] * 6, np.int32)
    files = tuple(f"{i}.png" for i in range(12))
    pictures = data.Pictures(files, np.full((12, 2), 4, np.int32), ("L",) * 12)
    return data.Dataset("named", images, labels, ["a", "b"], pictures=pictures)


def test_a_split_tells_files_and_copies_in_two_classes(named):
    parts = data.split(named, 0)
    for part in ("train", "validation", "test"):
        assert parts.files(part) == [f"{i}.png" for i in getattr(parts, part).indices]
    assert check.in_two_classes(parts) == [("0.png", "7.png")]
    plain = data.split(data.Dataset("plain", named.images, named.labels, ["a", "b"]), 0)
    assert plain.files("train") is None and check.in_two_classes(plain) == [("image 0", "image 7")]
