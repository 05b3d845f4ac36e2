"""`ImageClassifier` keeps scikit-learn's contract, on rows and on images, and what it says of itself."""

import copy
import math
import os
import pickle
import signal
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shapes_data import pictures
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import pellucid
from pellucid import ImageClassifier, estimator
from pellucid.layers import BatchNorm, Conv, Dense, Flatten, GlobalAvgPool, MaxPool, ReLU
from pellucid.network import Network, Sequential
from pellucid.optim import SGD
from pellucid.schedules import OneCycle
from pellucid.training.step import Diverged

IMAGES, LABELS = pictures(60)
ROWS = IMAGES.reshape(60, 64)
NAMES = np.array(["bar", "disc", "ring"])[LABELS]
SHORT = dict(epochs=3, batch_size=16, random_state=0)


def quick(**settings):
    return ImageClassifier(**{**SHORT, **settings})


def tiny(input_shape=(8, 8, 1), classes=3):
    return Network.build(input_shape, Sequential(Conv(4, 3), ReLU(), GlobalAvgPool(), Dense(classes)))


@parametrize_with_checks([ImageClassifier()])
def test_scikit_learn_checks(estimator, check):
    """All of them: none is expected to fail."""
    check(estimator)


# Learning.


def test_learns_digits_from_rows():
    X, y = load_digits(return_X_y=True)
    fitted = ImageClassifier(epochs=6, random_state=0).fit(X[:1200], y[:1200])
    assert fitted.input_shape_ == (8, 8, 1)
    assert fitted.score(X[1200:], y[1200:]) > 0.94


def test_learns_from_features_of_very_different_ranges():
    """Some of these reach to 4000 and others to 0.03: only standardised features are learned so fast."""
    X, y = load_breast_cancer(return_X_y=True)
    scores = cross_val_score(ImageClassifier(epochs=20, random_state=0), X, y, cv=3)
    assert scores.mean() > 0.95


def test_learns_a_single_image_of_each_class():
    fitted = ImageClassifier(epochs=60, random_state=0).fit(IMAGES[:3], NAMES[:3])
    assert fitted.predict(IMAGES[:3]).tolist() == ["bar", "disc", "ring"]


def test_what_a_fitted_estimator_has():
    fitted = quick().fit(IMAGES, NAMES)
    assert fitted.classes_.tolist() == ["bar", "disc", "ring"] == fitted.model_.classes
    assert fitted.n_features_in_ == 64 and fitted.input_shape_ == (8, 8, 1)
    assert fitted.model_.network == pellucid.zoo.build("lenet", input_shape=(8, 8, 1), classes=3)
    assert fitted.n_iter_ == 3 == len(fitted.history_)
    assert [row["step"] for row in fitted.history_] == [3, 6, 9]
    assert all(math.isfinite(row["train_loss"]) for row in fitted.history_)
    assert fitted.scaler_.mean_ == pytest.approx([IMAGES.mean()]) and fitted.scaler_.scale_ == pytest.approx(
        [IMAGES.std()])


# One result, whatever form and type the data come in.


def outcome(X, y=LABELS, ask=None, **settings):
    return quick(**settings).fit(X, y).predict_proba(X if ask is None else ask).tobytes()


@pytest.mark.parametrize("other", [
    ROWS, IMAGES[..., 0], IMAGES.astype(np.int64), ROWS.astype(np.float32), ROWS.astype(np.float64),
    np.asfortranarray(ROWS.astype(np.float64)), np.repeat(ROWS, 2, axis=0)[::2], ROWS.astype(object), ROWS.tolist(),
    IMAGES.tolist(),
], ids=["rows", "HW", "int64", "float32", "float64", "fortran", "strided", "object", "list", "nested list"])
def test_form_and_type_of_x_change_nothing(other):
    assert outcome(other) == outcome(IMAGES)
    assert outcome(IMAGES, ask=other) == outcome(IMAGES)


def test_any_unit_will_do():
    """Brightness in other units is the same brightness: powers of two change no rounding."""
    assert outcome(ROWS * 2.0**-8) == outcome(ROWS * 2.0**9) == outcome(ROWS)
    centred, raw = (quick(shift=0).fit(X, LABELS).predict_proba(X) for X in ((ROWS - 100.0) / 7, ROWS))
    assert centred == pytest.approx(raw, abs=1e-3)


def test_random_state_decides_to_the_bit():
    assert outcome(ROWS) == outcome(ROWS)
    assert outcome(ROWS) != outcome(ROWS, random_state=1)
    assert outcome(ROWS, random_state=np.random.RandomState(0)) == outcome(ROWS)
    assert outcome(ROWS, random_state=None) != outcome(ROWS, random_state=None)


def test_threads_change_nothing():
    before = pellucid.threads()
    try:
        pellucid.set_threads(1)
        alone = outcome(ROWS)
    finally:
        pellucid.set_threads(before)
    assert alone == outcome(ROWS)


def test_fitting_again_begins_anew():
    fitted = quick().fit(ROWS[:, :10], LABELS % 2).fit(ROWS, NAMES)
    assert fitted.predict_proba(ROWS).tobytes() == outcome(ROWS)
    assert fitted.n_features_in_ == 64


# In scikit-learn's company.


def test_clone_and_copy_and_pickle():
    network = tiny()
    fitted = quick(network=network).fit(ROWS, NAMES)
    again = clone(fitted)
    assert again.get_params() == fitted.get_params() and not hasattr(again, "model_")
    for same in (pickle.loads(pickle.dumps(fitted)), copy.deepcopy(fitted)):
        assert same.predict_proba(ROWS).tobytes() == fitted.predict_proba(ROWS).tobytes()
        assert same.predict(ROWS).tolist() == fitted.predict(ROWS).tolist()
    assert again.fit(ROWS, NAMES).predict_proba(ROWS).tobytes() == fitted.predict_proba(ROWS).tobytes()


def test_grid_search_over_a_pipeline():
    """The rate that learns nothing must lose."""
    pipeline = make_pipeline(StandardScaler(), quick(epochs=10))
    grid = {"imageclassifier__lr": [1e-9, 0.05], "imageclassifier__network": ["lenet", tiny()]}
    search = GridSearchCV(pipeline, grid, cv=2, error_score="raise")
    search.fit(ROWS, NAMES)
    assert search.best_params_["imageclassifier__lr"] == 0.05 and search.best_score_ > 0.8
    assert len(search.cv_results_["mean_test_score"]) == 4
    assert set(search.predict(ROWS)) <= set(NAMES)


def test_cross_validation_of_images_by_another_score():
    scores = cross_val_score(quick(), IMAGES, LABELS % 2, cv=2, scoring="roc_auc", error_score="raise")
    assert (scores > 0.6).all()


def test_decision_function_orders_as_the_probabilities():
    two = quick().fit(ROWS, LABELS % 2)
    scores, p = two.decision_function(ROWS), two.predict_proba(ROWS)
    assert scores.shape == (60,)
    assert 1 / (1 + np.exp(-scores)) == pytest.approx(p[:, 1], abs=1e-6)
    three = quick().fit(ROWS, LABELS)
    scores, p = three.decision_function(ROWS), three.predict_proba(ROWS)
    assert scores.shape == (60, 3)
    assert p == pytest.approx(np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True), abs=1e-6)
    assert np.array_equal(np.exp(three.predict_log_proba(ROWS)), p)


# What the parameters do.


@pytest.mark.parametrize(("features", "shape", "image_shape"), [
    (1, (1,), None), (2, (2,), None), (16, (16,), None), (49, (49,), None), (63, (63,), None), (65, (65,), None),
    (64, (8, 8, 1), None), (100, (10, 10, 1), None), (64, (64,), (64,)), (64, (4, 16, 1), [4, 16]),
    (192, (8, 8, 3), (8, 8, 3)), (16, (4, 4, 1), (np.int64(4), 4)), (90, (3, 3, 10), (3, 3, 10)),
])
def test_shape_of_rows(features, shape, image_shape):
    X = np.random.default_rng(0).normal(size=(6, features))
    fitted = quick(epochs=1, batch_size=2, image_shape=image_shape).fit(X, [0, 1, 0, 1, 0, 1])
    assert fitted.input_shape_ == shape == fitted.model_.network.input_shape
    assert fitted.scaler_.mean_.shape == shape[-1:]
    assert np.isfinite(fitted.predict_proba(X)).all()


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 4), st.integers(2, 5))
@settings(max_examples=15, deadline=None)
def test_any_size_of_images(height, width, channels, classes):
    X = np.random.default_rng(1).normal(size=(2 * classes, height, width, channels))
    y = np.arange(2 * classes) % classes
    fitted = quick(epochs=2, batch_size=2).fit(X, y)
    p = fitted.predict_proba(X)
    assert p.shape == (len(X), classes) and p.sum(axis=1) == pytest.approx(np.ones(len(X)))
    assert np.array_equal(fitted.predict_proba(X.reshape(len(X), -1)), p)


def test_a_network_of_signals():
    network = Network.build((32, 2), Sequential(Conv(4, 3), ReLU(), Flatten(), Dense(3)))
    for X in (ROWS, ROWS.reshape(60, 32, 2)):
        fitted = quick(network=network).fit(X, LABELS)
        assert fitted.input_shape_ == (32, 2)
        assert fitted.predict(X).shape == (60,)
    assert quick(network=network, image_shape=(32, 2)).fit(ROWS, LABELS).input_shape_ == (32, 2)


@pytest.fixture
def seen(monkeypatch):
    """The batches that are trained on."""
    batches = []

    class Step(pellucid.TrainStep):
        def __call__(self, images, labels):
            batches.append(images)
            return super().__call__(images, labels)

    monkeypatch.setattr(estimator, "TrainStep", Step)
    return batches


def test_training_images_are_mirrored_every_other_epoch(seen):
    quick(epochs=2, batch_size=60, shift=0, mirror=True).fit(ROWS, LABELS)
    batches = [{image.tobytes(): image for image in np.round(batch, 3)} for batch in seen]
    flipped = [np.ascontiguousarray(image[:, ::-1]).tobytes() in batches[1] for image in batches[0].values()]
    assert len(flipped) == 60 and all(flipped)


def test_training_images_move_and_others_do_not(seen):
    X = ROWS + 40.0  # nothing as dark as 0, so that 40 is background
    quick(epochs=1, batch_size=60).fit(X, LABELS)
    quick(epochs=1, batch_size=60, shift=0).fit(X, LABELS)
    moved, still = seen
    assert not np.array_equal(moved, still)
    background = np.float32((X.min() - X.mean()) / X.std())
    for here, there in zip(moved, still, strict=True):
        matches = [
            (dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)
            if np.allclose(there[max(0, -dy):8 - max(0, dy), max(0, -dx):8 - max(0, dx)],
                           here[max(0, dy):8 + min(0, dy), max(0, dx):8 + min(0, dx)], atol=1e-5)]
        assert matches
        dy, dx = matches[0]
        for row in here[:dy] if dy > 0 else here[8 + dy:] if dy < 0 else ():
            assert np.allclose(row, background, atol=1e-5)
    assert np.allclose(np.sort(still.ravel()), np.sort(((X - X.mean()) / X.std()).ravel()), atol=1e-5)


@pytest.mark.parametrize("shape, share", [((8, 8), 0.1), ((4, 8, 2), 0.2), ((64,), 0.1)])
def test_labels_are_smoothed_as_in_fit(shape, share):
    assert outcome(ROWS, image_shape=shape) == outcome(ROWS, image_shape=shape, label_smoothing=share)


def test_lr_and_label_smoothing_are_used():
    plain = outcome(ROWS)
    assert plain != outcome(ROWS, lr=0.01) != outcome(ROWS, label_smoothing=0.0) != plain
    sharp, flat = (quick(epochs=20, label_smoothing=s).fit(ROWS, LABELS).predict_proba(ROWS).max() for s in (0.0, 0.5))
    assert flat < 0.8 < sharp


def test_time_bounds_training():
    """Without one, it is 1,200 steps of about two milliseconds."""
    X, y = np.repeat(ROWS, 100, axis=0), np.repeat(LABELS, 100)
    short, long = (ImageClassifier(time=time, random_state=0).fit(X, y).history_ for time in (0.4, "1.6s"))
    assert 1 <= short[-1]["step"] < long[-1]["step"] < 1100
    assert sum(row["seconds"] for row in short) < 1


def test_says_and_writes_nothing_unless_asked(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    quick().fit(ROWS, LABELS).predict(ROWS)
    assert capfd.readouterr() == ("", "")
    quick(verbose=True).fit(ROWS, LABELS)
    printed, errors = capfd.readouterr()
    lines = printed.splitlines()
    assert lines[0].startswith("epoch 1/3  loss ") and lines[-1].startswith("epoch 3/3  loss ") and not errors
    assert not list(tmp_path.iterdir())


# The model inside.


@pytest.mark.parametrize("X", [IMAGES, ROWS.astype(float), ROWS / 255], ids=["uint8", "whole numbers", "fractions"])
def test_the_model_of_pixels_is_a_file_that_reads_pictures(X, tmp_path):
    fitted = quick(epochs=10).fit(X, NAMES)
    fitted.model_.save(tmp_path / "m.safetensors")
    model = pellucid.load(tmp_path / "m.safetensors")
    assert model.classes == ["bar", "disc", "ring"]
    assert model.predict(IMAGES) == pytest.approx(fitted.predict_proba(X), abs=1e-4)


@pytest.mark.parametrize("X", [ROWS - 1.0, ROWS * 2.0, ROWS + 0.5, ROWS[:, :60]],
                         ids=["negative", "above 255", "halves", "no image"])
def test_the_model_of_other_numbers_reads_no_pictures(X):
    fitted = quick(epochs=1).fit(X, NAMES)
    assert fitted.model_.preprocessing is None
    assert fitted.predict(X).shape == (60,)


# Strange numbers.


def test_values_far_away_are_answered():
    X = np.random.default_rng(0).normal(size=(20, 5))
    fitted = quick(batch_size=4).fit(X, X[:, 0] > 0)
    far = np.array([[1e308, -1e308, 0, 1e200, 5], [-1e308] * 5])
    assert np.isfinite(fitted.predict_proba(far)).all() and np.isfinite(fitted.decision_function(far)).all()


def test_constant_and_offset_features():
    y = np.arange(40) % 2
    X = np.column_stack([np.full(40, 7.0), 1e8 + y, np.zeros(40)])
    fitted = quick(epochs=30, batch_size=8).fit(X, y)
    assert fitted.score(X, y) == 1.0


def test_a_range_that_has_no_variance_is_refused():
    with pytest.raises(ValueError, match="X reaches from -1e.308 to 1e.308, too far .*scale it down"):
        quick(batch_size=2).fit([[1e308], [-1e308], [1e308], [0.0]], [0, 1, 0, 1])


# Errors: one line that says what to do, and nothing half done.


@pytest.mark.parametrize(("settings", "X", "text"), [
    (dict(epochs=2, time=3), ROWS, "epochs or time, not both"),
    (dict(epochs=0), ROWS, "epochs must be a whole number of at least 1|epochs must be a whole number from 1"),
    (dict(epochs=None, time="soon"), ROWS, "cannot read the time 'soon'"),
    (dict(batch_size=61), ROWS, "batch of 61 .* there are 60; use a smaller one"),
    (dict(lr=0), ROWS, "lr must be a number above zero, got 0"),
    (dict(label_smoothing=2), ROWS, "label smoothing must be a number from 0 to 1, got 2"),
    (dict(shift=8), ROWS, "shift must be a whole number from 0 to 7, got 8"),
    (dict(shift=1), ROWS[:, :60], "shift must be a whole number from 0 to 0, got 1"),
    (dict(mirror=True), ROWS[:, :60], "mirror must be False for what is no image, got True"),
    (dict(mirror=1), ROWS, "mirror must be True or False, got 1"),
    (dict(random_state="x"), ROWS, "cannot be used to seed"),
    (dict(network=3), ROWS, "network must be a Network or the name of one, got 3"),
    (dict(network="lenat"), ROWS, "no network is called 'lenat'; there are .*lenet"),
    (dict(network="lenet"), ROWS[:, :60], r"lenet|conv.*give image_shape=\(H, W\) or \(H, W, C\)"),
    (dict(network=tiny(classes=4)), ROWS, r"output has shape \(4,\), expected \(3,\): a score for each class"),
    (dict(network=tiny((9, 9, 1))), ROWS, r"X has 64 features, but samples of \(9, 9, 1\) have 81"),
    (dict(network=tiny(), image_shape=(4, 16)), ROWS, r"image_shape says \(4, 16, 1\), .* reads \(8, 8, 1\)"),
    (dict(network=tiny((4, 16, 1))), IMAGES, r"X holds images of shape \(8, 8, 1\), expected \(4, 16, 1\)"),
    (dict(image_shape=(8, 9)), ROWS, r"X has 64 features, but samples of \(8, 9, 1\) have 72"),
    (dict(image_shape=8), ROWS, r"image_shape must be \(H, W\).*got 8"),
    (dict(image_shape=(8.5, 8)), ROWS, r"image_shape must be \(H, W\).*got \(8.5, 8\)"),
    (dict(image_shape=(0, 64)), ROWS, "image_shape must have a shape of positive integers"),
    (dict(), np.zeros((60, 3, 8, 8)), "8 channels, expected 1 to 4; channels come last"),
    (dict(), ROWS.reshape(60, 2, 4, 4, 2), r"X must be rows .* or images .*, got \(60, 2, 4, 4, 2\)"),
    (dict(), ROWS[:, :0], "0 feature"),
    (dict(), IMAGES[:0], "0 sample"),
    (dict(), np.where(ROWS == ROWS[3, 3], np.nan, ROWS), "contains NaN"),
    (dict(), np.full((60, 4), "a"), "could not convert|dtype='numeric'"),
])
def test_what_does_not_fit_is_refused(settings, X, text):
    with pytest.raises(ValueError, match=text) as e:
        quick(**settings).fit(X, LABELS[:len(X)])
    if text not in ("contains NaN",):  # scikit-learn's own
        assert "\n" not in str(e.value)


@pytest.mark.parametrize(("y", "text"), [
    (LABELS[:-1], "inconsistent"), (np.zeros(60), "y holds 1 class, a classifier needs at least 2"),
    (np.linspace(0, 1, 60), "continuous"), (np.eye(3)[LABELS], "y should be a 1d array"), (None, "y"),
])
def test_labels_that_do_not_fit_are_refused(y, text):
    with pytest.raises(ValueError, match=text):
        quick().fit(ROWS, y)


def test_asking_for_another_shape_is_refused():
    with pytest.raises(NotFittedError):
        quick().predict(ROWS)
    fitted = quick().fit(ROWS, LABELS)
    with pytest.raises(ValueError, match=r"X holds images of shape \(4, 16\), expected \(8, 8, 1\)"):
        fitted.predict(IMAGES.reshape(60, 4, 16))
    with pytest.raises(ValueError, match="X has 63 features, but ImageClassifier is expecting 64"):
        fitted.predict_proba(ROWS[:, 1:])


def test_divergence_is_said_and_leaves_what_was_fitted():
    fitted = quick().fit(ROWS, LABELS)
    before = fitted.predict_proba(ROWS)
    with pytest.raises(Diverged, match="training diverged at step .*lower learning rate"):
        fitted.set_params(lr=1e9).fit(ROWS, NAMES)
    assert np.array_equal(fitted.predict_proba(ROWS), before) and fitted.classes_.tolist() == [0, 1, 2]


def test_weights_that_overflow_in_the_last_step_are_divergence(monkeypatch):
    """No later loss tells of it; batch normalisation kept those before finite."""
    network = Network.build((8, 8, 1), Sequential(Conv(4, 3), BatchNorm(), ReLU(), MaxPool(2), Flatten(), Dense(3)))
    monkeypatch.setattr("pellucid.estimator.optimizer", lambda network, plan, lr: SGD(
        OneCycle(lr, plan.steps), momentum=0.9, nesterov=True, weight_decay=5e-4))  # Muon bounds the filters
    with pytest.raises(Diverged, match="at step 3: the parameter .* is not a finite number"):
        quick(network=network, epochs=1, lr=1e18).fit(ROWS, LABELS)


def test_ctrl_c_passes_on():
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        timer.start()
        quick(epochs=10**5).fit(ROWS, LABELS)
    timer.join()
