"""Figures of merit against counting by hand."""

import numpy as np
import pytest
from shapes_data import CLASSES, pictures

from pellucid import data as datasets
from pellucid import evaluation
from pellucid.layers import Dense, Flatten
from pellucid.model import Model
from pellucid.network import Network, Sequential
from pellucid.preprocessing import Preprocessing

OUTPUTS = np.array([[2, 1, 0, -1], [0, 3, 3, 1], [1, 2, 0, 4], [5, 1, 2, 3]], np.float32)
NAMES = ["a", "b", "c", "d"]


def test_counts_by_hand():
    # Ranks of the labels: 0, 1 (a tie that the lower class wins), 3, 0.
    result = evaluation.score(OUTPUTS, np.array([0, 2, 2, 0]), NAMES, top=(1, 2, 3, 4, 9))
    assert result.accuracy == 0.5 and result.correct == 2 and result.count == 4
    assert result.top == {1: 0.5, 2: 0.75, 3: 0.75}  # of 4 classes the first 4 are all
    assert result.confusion.tolist() == [[2, 0, 0, 0], [0, 0, 0, 0], [0, 1, 0, 1], [0, 0, 0, 0]]
    a, b, c, d = result.classes
    assert (a.name, a.count, a.correct, a.predicted, a.accuracy) == ("a", 2, 2, 2, 1.0)
    assert (b.count, b.predicted, b.accuracy, b.log_loss) == (0, 1, None, None)
    assert (c.count, c.correct, c.predicted, c.accuracy) == (2, 0, 0, 0.0)
    assert d.predicted == 1
    exponentials = np.exp(OUTPUTS.astype(float))
    by_hand = -np.log(exponentials[range(4), [0, 2, 2, 0]] / exponentials.sum(axis=1))
    assert result.log_loss == pytest.approx(by_hand.mean(), rel=1e-12)
    assert c.log_loss == pytest.approx(by_hand[1:3].mean(), rel=1e-12)


def test_log_loss_of_large_logits_is_exact():
    result = evaluation.score(np.array([[1e4, 0], [-1e4, 0]], np.float32), np.array([0, 0]), ["a", "b"])
    assert result.answers.losses.tolist() == [0, 1e4] and result.log_loss == 5e3
    infinite = evaluation.score(np.array([[np.inf, 0]], np.float32), np.array([0]), ["a", "b"])
    assert np.isnan(infinite.log_loss)
    assert np.isnan(infinite.calibration_error) and infinite.intervals["log_loss"] is None


@pytest.mark.parametrize("labels, names, message", [
    ([0, 1, 2], NAMES, "expected 4 labels"), ([0, 1, 2, 4], NAMES, r"must be in 0..3, got 0..4"),
    ([0, 1, 2, -1], NAMES, "got -1"), ([0, 1, 2, 3], NAMES[:3], "tells 4 classes apart, but 3 names"),
])
def test_what_does_not_fit(labels, names, message):
    with pytest.raises(ValueError, match=message):
        evaluation.score(OUTPUTS, np.array(labels), names)


@pytest.fixture
def model():
    net = Network.build((8, 8, 1), Sequential(Flatten(), Dense(3)))
    return Model(net, seed=1, preprocessing=Preprocessing((8, 8, 1), (0.4,), (0.3,)), classes=CLASSES)


def test_uint8_and_preprocessed_images_agree(model):
    images, labels = pictures(300)  # more than one batch
    a = evaluation.evaluate(model, images, labels)
    b = evaluation.evaluate(model, model.preprocessing.apply(images), labels)
    np.testing.assert_array_equal(a.confusion, b.confusion)
    assert abs(a.log_loss - b.log_loss) < 1e-6  # the kernel scales with one rounding, numpy with two
    assert a.correct == int((model.predict(images).argmax(axis=1) == labels).sum())
    with pytest.raises(ValueError, match="no images"):
        evaluation.evaluate(model, images[:0], labels[:0])


def test_which_images_of_a_data_set_count(model, tmp_path):
    images, labels = pictures(60)
    np.savez(tmp_path / "plain.npz", images=images, labels=labels, classes=np.array(CLASSES))
    np.savez(tmp_path / "own.npz", x_train=images[9:], y_train=labels[9:], x_test=images[:9], y_test=labels[:9],
             classes=np.array(CLASSES))
    part, result = evaluation.evaluate_on(model, tmp_path / "plain.npz")
    assert part.endswith("all images") and result.count == 60
    part, result = evaluation.evaluate_on(model, tmp_path / "own.npz")
    assert part.endswith("its test images") and result.count == 9
    # Trained on the first: only what was held out under the recorded seed.
    from pellucid.training.setup import digest, split_digest

    dataset = datasets.load(tmp_path / "plain.npz")
    parts = datasets.split(dataset, 4)
    model.record = {"data_digest": digest(dataset), "seed": 4, "split_digest": split_digest(parts)}
    part, result = evaluation.evaluate_on(model, tmp_path / "plain.npz")
    assert part.endswith("test images")
    expected = evaluation.evaluate(model, parts.test.images, parts.test.labels, indices=parts.test.indices)
    assert result.to_json() == expected.to_json()
    wrong = parts.test.indices[~expected.answers.correct]
    assert result.mistakes and {m["index"] for m in result.mistakes} <= set(wrong.tolist())
    model.record["split_digest"] = "another"
    with pytest.raises(ValueError, match="split differently"):
        evaluation.evaluate_on(model, tmp_path / "plain.npz")


def test_images_seen_in_training_are_left_out(tmp_path):
    """Of other data than those trained on: the run remembers its images by their digests."""
    from pellucid.training.fit import fit
    from pellucid.training.run import RunFolder

    def save(name, images, labels, **more):
        np.savez(tmp_path / name, x_train=images, y_train=labels, classes=np.array(CLASSES), **more)
        return tmp_path / name

    network = Network.build((8, 8, 1), Sequential(Flatten(), Dense(3)))
    images, labels = pictures(120)
    new, new_labels = pictures(150)
    new, new_labels = new[120:], new_labels[120:]
    first = save("first.npz", images, labels)
    run = fit(network, first, epochs=2, out=tmp_path / "run")
    parts = datasets.split(datasets.load(first), 0)
    seen = RunFolder(run.folder).read_seen(run.model.record)
    assert len(seen) == len(parts.train) + len(parts.validation)
    more = save("more.npz", np.concatenate([new, images]), np.concatenate([new_labels, labels]))
    part, result = evaluation.evaluate_on(run.model, more, seen=seen)
    assert part.endswith("all images but 90 that the model has seen in training") and result.unseen
    expected = np.concatenate([np.arange(30), 30 + parts.test.indices])
    assert result.indices.tolist() == expected.tolist() and result.count == 60
    assert result.answers.labels.tolist() == np.concatenate([new_labels, labels])[expected].tolist()
    own = save("own.npz", new, new_labels, x_test=np.concatenate([new, parts.train.images[:4]]),
               y_test=np.concatenate([new_labels, parts.train.labels[:4]]))
    part, result = evaluation.evaluate_on(run.model, own, seen=seen)
    assert part.endswith("its test images but 4 that the model has seen in training") and result.count == 30
    old = save("old.npz", parts.train.images, parts.train.labels)
    with pytest.raises(ValueError, match="has seen each of them in training"):
        evaluation.evaluate_on(run.model, old, seen=seen)
    part, result = evaluation.evaluate_on(run.model, more)
    assert "not told" in part and not result.unseen
    # On its own data the split alone decides; of another run's model the folder knows nothing.
    assert evaluation.evaluate_on(run.model, first, seen=seen)[1].count == 30
    assert RunFolder(run.folder).read_seen({**run.model.record, "split_digest": "another"}) is None
    # A model that begins from this one has seen its images, too.
    after = fit(data=save("new.npz", new, new_labels), init=run.folder / "best.safetensors", epochs=1,
                out=tmp_path / "after")
    assert set(seen) < set(RunFolder(after.folder).read_seen(after.model.record))
    (run.folder / "seen.safetensors").write_bytes(b"damaged")
    with pytest.raises(ValueError, match="seen.safetensors"):
        RunFolder(run.folder).read_seen(run.model.record)


def test_classes_are_matched_by_name():
    labels = np.array([0, 1, 1])
    assert evaluation.matched(labels, ["ring", "bar"], CLASSES).tolist() == [2, 0, 0]
    with pytest.raises(ValueError, match="does not know the class 'star'"):
        evaluation.matched(labels, ["ring", "star"], CLASSES)
