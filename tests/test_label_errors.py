"""Labels that are probably wrong: the ranking by hand, and labels made wrong on purpose found again."""

import json
import os
import signal
from dataclasses import replace

import numpy as np
import pytest
from shapes_data import CLASSES, pictures

from pellucid import data
from pellucid.cli import main
from pellucid.data import DataError, Dataset, Pictures
from pellucid.evaluation import label_errors
from pellucid.evaluation.labels import disputed

EPOCHS = 10


def flipped(dataset, share=0.03, seed=0):
    """The data set with some labels made wrong, and which."""
    rng, classes = np.random.default_rng(seed), len(dataset.classes)
    wrong = rng.choice(len(dataset.labels), round(share * len(dataset.labels)), replace=False)
    labels = dataset.labels.copy()
    labels[wrong] = (labels[wrong] + rng.integers(1, classes, len(wrong))) % classes
    return replace(dataset, labels=labels), wrong


@pytest.fixture(scope="module")
def shapes():
    images, labels = pictures(180)
    files = tuple(f"{CLASSES[c]}/{i}.png" for i, c in enumerate(labels))
    return Dataset("shapes", images, labels, CLASSES, pictures=Pictures(files, np.full((180, 2), 8), ("L",) * 180))


def test_time_is_shared_by_the_folds(shapes, monkeypatch):
    from pellucid.training import fit as training

    shares, fit, now = [], training.fit, [100.0]

    def short(*arguments, time, **options):
        shares.append(time)
        now[0] += 10
        return fit(*arguments, **{**options, "epochs": 1})

    monkeypatch.setattr(training, "fit", short)
    monkeypatch.setattr("pellucid.evaluation.labels.clock.monotonic", lambda: now[0])
    assert label_errors(shapes, "mlp", time="1m").count == 180
    assert shares == [20, 25, 40]
    shares.clear()
    label_errors(shapes, "mlp", time=15)
    assert shares[:2] == [5, 2.5] and 0 < shares[2] < 1  # late, it still ends


def test_the_ranking_by_hand():
    probabilities = np.array([
        [.9, .1, .0], [.7, .2, .1],  # usual for class 0, with the next: (.9 + .7 + .35 + .1) / 4 = .5125
        [.35, .4, .25],              # disputed, but .4 is below what class 1 usually has
        [.1, .8, .1],                # disputed with confidence
        [.3, .6, .1], [.2, .7, .1],  # usual for class 1: .65
        [.0, .1, .9], [.6, .0, .4],  # usual for class 2: .65; the last disputed with confidence
    ])
    assert disputed(probabilities, np.array([0, 0, 0, 0, 1, 1, 2, 2])) == [(3, 1, True), (2, 1, False), (7, 0, True)]


def test_most_of_the_digits_that_were_mislabelled_are_among_the_most_disputed():
    dataset, wrong = flipped(data.load("digits"))
    result = label_errors(dataset, "lenet", epochs=EPOCHS)
    found = [s.index for s in result.suspects]
    assert np.isin(found[:len(wrong)], wrong).mean() >= 0.8
    assert np.isin(wrong, found).mean() >= 0.9
    confident = [s.index for s in result.suspects if s.confident]
    assert np.isin(confident, wrong).mean() >= 0.8 and len(confident) >= 0.5 * len(wrong)
    truth = data.load("digits").labels
    right = [s.suggested == dataset.classes[truth[s.index]] for s in result.suspects if s.index in wrong]
    assert np.mean(right) >= 0.9


def test_files_are_named_and_every_image_is_judged_once(shapes):
    dataset, wrong = flipped(shapes)
    folds = set()
    result = label_errors(dataset, "mlp", epochs=EPOCHS, folds=4, progress=lambda fold, p: folds.add(fold))
    assert folds == {1, 2, 3, 4} and result.count == 180
    np.testing.assert_allclose(result.probabilities.sum(axis=1), 1)
    assert result.accuracy == (result.probabilities.argmax(axis=1) == dataset.labels).mean()
    for s in result.suspects:
        assert s.file == dataset.pictures.files[s.index] and s.label == CLASSES[dataset.labels[s.index]]
        assert s.probability == result.probabilities[s.index, dataset.labels[s.index]] < s.probability_of_suggested
    assert {s.index for s in result.suspects} >= set(wrong.tolist())
    again = label_errors(dataset, "mlp", epochs=EPOCHS, folds=4)
    np.testing.assert_array_equal(again.probabilities, result.probabilities)


def test_copies_of_an_image_are_judged_together():
    """Each image twice; a wrong label that the copy shares cannot be learnt from it."""
    images, labels = pictures(120)
    images, labels = np.repeat(images, 2, axis=0), np.repeat(labels, 2)
    groups = np.repeat(np.arange(120), 2)
    labels[:8] = (labels[:8] + 1) % 3
    dataset = Dataset("twice", images, labels, CLASSES, groups=groups)
    from pellucid.evaluation.labels import _folds

    for kept, out in _folds(dataset, 3, 0):
        assert not set(groups[kept]) & set(groups[out]) and len(kept) + len(out) == 240
    found = {s.index for s in label_errors(dataset, "mlp", epochs=EPOCHS).suspects}
    assert found >= set(range(8))


@pytest.mark.parametrize("counts, folds, text", [
    ((20, 20, 2), 3, "class 'ring' has 2 images for 3 folds, but 3 are needed"),
    ((20, 3, 20), 2, "class 'disc' has 3 images for 2 folds, but 4 are needed"),
])
def test_classes_too_small_for_the_folds(counts, folds, text):
    labels = np.repeat(np.arange(3, dtype=np.int32), counts)
    dataset = Dataset("few", np.zeros((len(labels), 8, 8, 1), np.uint8), labels, CLASSES)
    with pytest.raises(DataError, match=text):
        label_errors(dataset, "mlp", folds=folds)
    grouped = Dataset("few", np.zeros((43, 8, 8, 1), np.uint8), np.repeat(np.arange(3, dtype=np.int32), (20, 3, 20)),
                      CLASSES, groups=np.repeat(np.arange(3), (20, 3, 20)))
    with pytest.raises(DataError, match="images are one group"):
        label_errors(grouped, "mlp")


@pytest.mark.parametrize("folds", [1, 0, 2.5, True, "3"])
def test_numbers_of_folds(folds):
    with pytest.raises(ValueError, match="folds must be"):
        label_errors("digits", folds=folds)


def test_ctrl_c_ends_it(shapes):
    def stop(fold, progress):
        if fold == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        label_errors(shapes, "mlp", epochs=2, progress=stop)


def test_the_command(shapes, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    dataset, wrong = flipped(shapes)
    np.savez("shapes.npz", images=dataset.images, labels=dataset.labels, classes=np.array(CLASSES))

    def run(*options):
        with pytest.raises(SystemExit) as e:
            main(["data", "labels", "shapes.npz", "--net", "mlp", "--epochs", str(EPOCHS), *options])
        assert not e.value.code
        return capsys.readouterr()

    out, err = run("--json", "--folds", "2")
    result = json.loads(out)
    assert {s["index"] for s in result["suspects"]} >= set(wrong.tolist()) and result["folds"] == 2
    assert err.count("fold 1 of 2\n") == err.count("fold 2 of 2\n") == 1
    text = run("--folds", "2")[0]
    assert f"{len(result['suspects'])} labels disputed" in text and f"image {result['suspects'][0]['index']}\n" in text
    assert max(map(len, text.splitlines())) <= 80
    assert {p.name for p in tmp_path.iterdir()} == {"shapes.npz"}
