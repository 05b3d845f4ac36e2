"""Calibration: the best temperature, the threshold and its false alarms, and what a model's file may say of them."""

import copy
import json

import numpy as np
import pytest

import pellucid
from pellucid import calibration, modelfile
from pellucid.calibration import Calibration
from pellucid.evaluation import evaluate
from pellucid.layers import Dense, Flatten, Softmax
from pellucid.model import Model
from pellucid.modelfile import ModelFileError
from pellucid.network import Network, Sequential
from pellucid.preprocessing import Preprocessing

CLASSES = 5


def model(*after):
    """Its outputs are its inputs: float32 images (N, 1, 1, CLASSES)."""
    m = Model(Network.build((1, 1, CLASSES), Sequential(Flatten(), Dense(CLASSES), *after)),
              preprocessing=Preprocessing((1, 1, CLASSES), (0,) * CLASSES, (1,) * CLASSES))
    m.load_parameters({n: np.eye(CLASSES) if p.ndim == 2 else np.zeros(CLASSES) for n, p in m.parameters.items()})
    return m


def drawn(count, temperature, seed=0):
    """Logits, and labels with the probabilities softmax(logits / temperature)."""
    rng = np.random.default_rng(seed)
    logits = 3 * rng.normal(size=(count, CLASSES)).astype(np.float32)
    labels = (logits / temperature + rng.gumbel(size=logits.shape)).argmax(axis=1)
    return logits.reshape(count, 1, 1, CLASSES), labels


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_the_temperature_is_found_again(temperature):
    m, (images, labels) = model(), drawn(20_000, temperature)
    found = calibration.fit(m, images, labels)
    assert found.temperature == pytest.approx(temperature, rel=0.03) and found.images == 20_000

    def loss(t):
        m.calibration = Calibration(t, 1)
        return evaluate(m, images, labels).log_loss

    best = loss(found.temperature)
    assert best < min(loss(0.98 * found.temperature), loss(1.02 * found.temperature))
    assert calibration.fit(m, images, labels) == found  # whatever calibration the model has at the time


def test_it_makes_probabilities_true_and_changes_no_answer():
    m, (images, labels) = model(), drawn(5000, 3.0)
    plain, logits = evaluate(m, images, labels), m.logits(images)
    m.calibration = calibration.fit(m, *drawn(5000, 3.0, seed=1))
    fitted = evaluate(m, images, labels)
    assert plain.calibration_error > 0.15 and fitted.calibration_error < 0.03
    assert fitted.log_loss < plain.log_loss and fitted.accuracy == plain.accuracy
    np.testing.assert_array_equal(fitted.confusion, plain.confusion)
    np.testing.assert_array_equal(m.logits(images), logits)
    z = logits[:9].astype(float) / m.calibration.temperature
    np.testing.assert_allclose(np.exp(m.log_probabilities(images[:9])), np.exp(z) / np.exp(z).sum(1, keepdims=True))
    uncalibrated = np.exp(m.log_probabilities(images[:9], calibrated=False))
    np.testing.assert_allclose(uncalibrated, np.exp(logits[:9]) / np.exp(logits[:9]).sum(1, keepdims=True), rtol=1e-4)


def test_predict_is_calibrated_too():
    m, images = model(), np.random.default_rng(0).integers(0, 256, (7, 1, 1, CLASSES), np.uint8)
    before = m.predict(images)
    m.calibration = Calibration(0.25, 100)
    np.testing.assert_allclose(m.predict(images), before ** 4 / (before ** 4).sum(1, keepdims=True), rtol=1e-4)


def test_a_network_that_ends_in_softmax_is_calibrated_alike():
    images, labels = drawn(3000, 2.0)
    bare, ended = model(), model(Softmax())
    found = [calibration.fit(m, images, labels) for m in (bare, ended)]
    assert found[1].temperature == pytest.approx(found[0].temperature, rel=1e-3)
    for m, c in zip((bare, ended), found, strict=True):
        m.calibration = c
    np.testing.assert_allclose(ended.log_probabilities(images), bare.log_probabilities(images), atol=1e-3)
    sure = np.zeros((4, 1, 1, CLASSES), np.float32)
    sure[..., 0] = 1000  # the others' probabilities are rounded to zero
    assert np.isfinite(calibration.fit(ended, sure, np.array([0, 0, 0, 1])).temperature)


@pytest.mark.parametrize("count", [3, 40, 1000])
def test_where_all_are_right_confidence_is_what_so_many_successes_tell(count):
    m = model()
    images, _ = drawn(count, 1.0)
    labels = images[:, 0, 0].argmax(axis=1)
    images[np.arange(count), 0, 0, labels] += 0.5  # none is right by a hair
    m.calibration = calibration.fit(m, images, labels)
    assert evaluate(m, images, labels).answers.confidence.mean() == pytest.approx((count + 1) / (count + 2), abs=1e-6)


def test_a_model_that_knows_nothing_becomes_unsure():
    images, labels = drawn(500, 1e9)
    assert calibration.fit(model(), images, labels).temperature > 10
    wrong = (images[:, 0, 0].argmax(axis=1) + 1) % CLASSES
    assert calibration.fit(model(), 10 * images, wrong).temperature == pytest.approx(100)


def test_the_threshold_refuses_the_stated_share():
    m, (images, labels) = model(), drawn(999, 2.0)
    m.calibration = fitted = calibration.fit(m, images, labels)
    assert fitted.false_alarm_rate == pytest.approx(0.05)  # 50 of 1000
    p = np.exp(m.log_probabilities(images))
    assert (p.max(axis=1) < fitted.threshold - 1e-6).sum() == 49 and fitted.rejects(p).sum() == 49
    low, high = fitted.false_alarm_interval
    assert low == pytest.approx(0.0374, abs=5e-4) and high == pytest.approx(0.0643, abs=5e-4)
    fresh, truth = drawn(20_000, 2.0, seed=5)
    result = evaluate(m, fresh, truth)
    assert low < result.refused["share"] < high
    assert result.refused["count"] == int(fitted.rejects(result.answers.probabilities).sum())
    assert result.refused["accuracy_of_others"] > result.accuracy
    assert calibration.fit(m, images, labels, false_alarm_rate=0.2).threshold > fitted.threshold


def test_false_alarms_come_as_often_as_promised_on_average():
    m, (fresh, _) = model(), drawn(4000, 1.0, seed=9)
    plain, shares = m.log_probabilities(fresh), []
    for seed in range(200):
        images, labels = drawn(59, 1.0, seed=100 + seed)
        fitted = calibration.fit(m, images, labels, false_alarm_rate=0.1)
        scaled = np.exp(plain / fitted.temperature)
        shares.append((scaled.max(axis=1) / scaled.sum(axis=1) < fitted.threshold).mean())
    assert fitted.false_alarm_rate == pytest.approx(6 / 60)
    assert np.mean(shares) == pytest.approx(0.1, abs=0.015)


def test_too_few_images_set_no_threshold():
    images, labels = drawn(19, 1.0)
    assert calibration.fit(model(), images, labels).false_alarm_rate == pytest.approx(1 / 20)
    few = calibration.fit(model(), images[:18], labels[:18])
    assert (few.threshold, few.false_alarm_rate, few.false_alarm_interval, few.images) == (None, None, None, 18)
    assert not few.rejects(np.full((3, CLASSES), 1 / CLASSES)).any()


@pytest.mark.parametrize("change, message", [
    (lambda x, y: (x[:0], y[:0]), "got none"), (lambda x, y: (x, y[:-1]), "needs 30 labels"),
    (lambda x, y: (x, y + 1), "from 0 to 4"), (lambda x, y: (x, y - 1), "from 0 to 4"),
    (lambda x, y: (x, y.astype(float)), "float64"), (lambda x, y: (x * np.float32(np.inf), y), "not finite"),
])
@pytest.mark.filterwarnings("ignore:invalid value encountered in multiply:RuntimeWarning")
def test_what_cannot_be_fitted(change, message):
    images, labels = drawn(30, 1.0)
    labels[:2] = 0, CLASSES - 1
    with pytest.raises(ValueError, match=message):
        calibration.fit(model(), *change(images, labels))
    for rate in (-0.1, 2, float("nan"), "much"):
        with pytest.raises(ValueError, match="false_alarm_rate"):
            calibration.fit(model(), images, labels, false_alarm_rate=rate)


# The model's file.


@pytest.mark.parametrize("kept", [None, Calibration(0.7, 18), Calibration(1.7, 812, 0.4375, 40 / 813)])
def test_it_is_kept_in_the_file_and_in_copies(tmp_path, kept):
    m, images = model(), drawn(9, 1.0)[0]
    m.calibration = kept
    m.save(tmp_path / "m.safetensors")
    for other in (pellucid.load(tmp_path / "m.safetensors"), copy.deepcopy(m)):
        assert other.calibration == kept
        np.testing.assert_array_equal(other.log_probabilities(images), m.log_probabilities(images))


def test_files_from_before_there_was_any_still_load(tmp_path):
    m = model()
    modelfile.write(tmp_path / "m.safetensors", m.parameters,
                    {k: v for k, v in m.metadata().items() if k != "calibration"})
    assert pellucid.load(tmp_path / "m.safetensors").calibration is None


GOOD = Calibration(1.5, 100, 0.5, 0.05).to_json()


@pytest.mark.parametrize("text", [
    "", "{", "[]", "3", '"1.5"', "true", "{}", json.dumps({"temperature": 1.5}), json.dumps({**GOOD, "more": 1}),
    *(json.dumps({**GOOD, "temperature": t}) for t in (0, -1, 1e-9, 1e9, 10**400, "1.5", None, True, [1.5], {})),
    *(json.dumps(GOOD).replace("1.5", t) for t in ("NaN", "Infinity", "-Infinity", "1e999")),
    *(json.dumps({**GOOD, "images": n}) for n in (0, -3, 1.5, "100", None, True)),
    *(json.dumps({**GOOD, "threshold": t}) for t in (-0.1, 1.1, "0.5", None, False)),
    *(json.dumps({**GOOD, "false_alarm_rate": r}) for r in (-0.1, 2, "0.05", None, [])),
    json.dumps(GOOD).replace("0.5", "NaN"), '{"temperature": 1, "temperature": 2}',
])
def test_files_that_lie(tmp_path, text):
    path, m = tmp_path / "m.safetensors", model()
    modelfile.write(path, m.parameters, {**m.metadata(), "calibration": text})
    with pytest.raises(ModelFileError, match="calibration") as e:
        pellucid.load(path)
    assert str(e.value).startswith(f"{path}: ") and "\n" not in str(e.value) and len(str(e.value)) < 400
    modelfile.write(path, m.parameters, {**m.metadata(), "calibration": json.dumps(GOOD)})
    assert pellucid.load(path).calibration.to_json() == GOOD
