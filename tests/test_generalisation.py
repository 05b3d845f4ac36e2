"""Networks of growing width and growing data: what is said follows from numbers, and the numbers from runs that `fit`
makes, too."""

import json
import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file
from shapes_data import CLASSES, saved
from typer.testing import CliRunner

from pellucid import Model, data, evaluation, zoo
from pellucid.cli import app
from pellucid.report import generalisation as page
from pellucid.studies import capacity, generalisation, learning_curve, polynomials, power_law, trials
from pellucid.studies.capacity import Capacity
from pellucid.studies.fitting import BEST, OVER, UNDER, UNTOLD
from pellucid.studies.learning_curve import LearningCurve
from pellucid.studies.trials import nested
from pellucid.training.fit import fit
from pellucid.training.plan import Pace, Plan, plan

SMALL = {"dense": (2, 16), "convolutional": (1,)}


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("data"), count=240)


# Nested parts.


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=2, max_size=5), st.integers(0, 9), st.data())
def test_first_images_of_the_order_have_the_classes_in_their_shares(counts, seed, draw):
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    order = nested(labels, np.arange(len(labels)), seed)
    assert sorted(order) == list(range(len(labels)))
    assert set(labels[order[:len(counts)]]) == set(range(len(counts)))
    n = draw.draw(st.integers(1, len(labels)))
    got = np.bincount(labels[order[:n]], minlength=len(counts))
    assert (np.abs(got - n * np.array(counts) / len(labels)) <= len(counts)).all()
    assert (nested(labels, np.arange(len(labels)), seed) == order).all()


# The answer.


def curve(shares, available=1600, chance=0.9, count=20_000, seeds=4, scatter=0.02):
    """A learning curve with these shares of mistakes at the halves of `available`."""
    sizes = [available >> i for i in reversed(range(len(shares)))]
    rng, runs = np.random.default_rng(0), []
    for seed in range(seeds):
        for size, share in zip(sizes, shares, strict=True):
            wrong = round(count * share * float(np.exp(rng.normal(0, scatter))))
            runs.append(learning_curve.Trial(size, seed, count, wrong, share, 0.5, 1, 1.0))
    return LearningCurve("mlp", 10, available, chance, sizes, 100, 16, runs)


def test_the_answer():
    falling = curve([0.32, 0.16, 0.08, 0.04])
    answer = falling.answer()
    assert answer.word == "yes" and answer.images == 3200
    assert answer.mistakes[0] == pytest.approx(0.5, abs=0.1) and answer.accuracy[0] == pytest.approx(0.98, abs=0.005)
    assert "Yes" in answer.why and "3,200" in answer.why
    assert f"measured: {falling.table()[-1].accuracy:.2%}" in answer.why
    flat = curve([0.0402, 0.04, 0.04, 0.0401]).answer()
    assert flat.word == "hardly" and flat.mistakes[2] < 0.1
    noisy = curve([0.08, 0.05, 0.05, 0.04], count=40, seeds=2, scatter=0.5).answer()
    assert noisy.word == "cannot tell" and noisy.mistakes[1] < 0.1 < noisy.mistakes[2]
    guessing = curve([0.89, 0.9, 0.91, 0.9]).answer()
    assert guessing.word == "cannot tell" and "commonest class" in guessing.why and guessing.mistakes is None
    assert curve([0.2, 0.1]).answer().word == "cannot tell"
    perfect = curve([0.1, 0.0, 0.0, 0.0], count=30).answer()
    assert perfect.word == "cannot tell" and np.isfinite(perfect.mistakes).all()
    json.dumps(falling.to_json(), allow_nan=False)


def test_more_images_than_there_was_time_for():
    some = curve([0.32, 0.16, 0.08, 0.04])
    some.available = 6400
    answer = some.answer()
    assert answer.images == 12_800 and "up to 1,600 images only" in answer.why
    assert answer.now[0] == pytest.approx(0.99, abs=0.004)


@pytest.mark.parametrize("what", ["accuracy", "log_loss"])
def test_the_band_is_the_interval(what, monkeypatch):
    c = curve([0.4, 0.3, 0.1, 0.04], count=50, seeds=2, scatter=0.3)
    monkeypatch.setattr(page, "curves", lambda series, **_: series)
    _, (_, _, middle, spreads) = page.learning_picture(c, what)
    below, above = spreads.T
    estimates = np.array([p[what] for p in c.curve(page.POINTS)])
    np.testing.assert_allclose(np.transpose([middle, middle - below, middle + above]), estimates)
    assert (spreads >= 0).all() and not np.allclose(below, above)


# Runs.


def test_the_largest_part_is_trained_as_fit_does(shapes):
    dataset = data.load(shapes)
    told = []
    found = learning_curve.study(dataset, network="mlp", steps=30, seeds=2, sizes=3,
                                 progress=lambda *now: told.append(now))
    count = len(data.split(dataset, 0).train)
    assert found.sizes == [count // 4, count // 2, count] and found.batch_size == 16 and found.steps == 30
    assert [(t.images, t.seed) for t in found.trials] == [(n, s) for s in (0, 1) for n in found.sizes]
    for trial in found.trials:
        if trial.images == count:
            run = fit("mlp", shapes, batch_size=16, epochs=30 // (count // 16), seed=trial.seed, patience=0, out=False)
            assert run.steps == 30
            assert (trial.count, trial.count - trial.wrong, trial.log_loss) == (
                run.test["count"], run.test["correct"], run.test["log_loss"])
    assert {t.count for t in found.trials} == {len(data.split(dataset, 0).test)}
    assert told[-1][1:] == (30, 30) and "seed 1 (6 of 6)" in told[-1][0]
    row = found.table()[-1]
    assert row.accuracy == pytest.approx(np.mean([t.accuracy for t in found.trials[2::3]])) and row.seeds == 2


def test_a_network_of_growing_width_is_trained_as_fit_does(shapes, tmp_path):
    dataset = data.load(shapes)
    found = capacity.study(dataset, epochs=4, seeds=1, widths=SMALL)
    assert [t.name for t in found.trials] == ["dense 2", "convolutional 1", "dense 16"]
    trial = found.trials[2]
    network = zoo.build("mlp", input_shape=(8, 8, 1), classes=3, hidden=(16, 16))
    run = fit(network, shapes, epochs=4, seed=0, out=tmp_path / "run", label_smoothing=0.0, shift=0, mirror=False,
              balance=False, averaging=False, patience=0)
    assert [r["validation_loss"] for r in trial.history] == [r["validation_loss"] for r in run.history]
    assert trial.validation_accuracy == run.history[-1]["validation_accuracy"]
    last = load_file(run.folder / "last.safetensors")
    model = Model(network, 0, preprocessing=run.setup.preprocessing, classes=CLASSES)
    model.load_parameters({name: last[name] for name in model.parameters})
    train = data.split(dataset, 0).train
    end = evaluation.evaluate(model, train.images, train.labels)
    assert (trial.train_loss, trial.train_accuracy) == (end.log_loss, end.accuracy)


def test_fewer_images_are_a_stratified_part_of_the_training_images(shapes, monkeypatch):
    parts = data.split(data.load(shapes), 3)
    some = trials.reduced(parts, 30, 3)
    assert len(some.train) == 30 and set(some.train.indices) < set(parts.train.indices)
    assert np.bincount(some.train.labels).tolist() == [10, 10, 10]
    assert some.validation is parts.validation and some.test is parts.test  # few as they are
    fewer = trials.reduced(parts, 12, 3)
    assert set(fewer.train.indices) < set(some.train.indices)
    monkeypatch.setattr(trials, "LEAST_VALIDATION", 4)
    less = trials.reduced(parts, 6, 3).validation
    assert len(less) == 6 and set(less.indices) < set(parts.validation.indices) and set(less.labels) == {0, 1, 2}
    assert (data.load(shapes).images[some.train.indices] == some.train.images).all()


def made(losses, seeds=3):
    """A study with these (training, validation) losses a network."""
    chosen, _ = capacity.candidates((8, 8, 1), 3, {"dense": (2, 16, 64), "convolutional": (1, 4)})
    c = Capacity(chosen, 100, 100, 30, Plan(10, 10, 50))
    rng = np.random.default_rng(0)
    for seed in range(seeds):
        for candidate in chosen:
            train, validation = (x * np.exp(rng.normal(0, 0.02)) for x in losses[candidate.name])
            history = ({"epoch": 1, "train_loss": 1.0, "validation_loss": 0.5 * validation, "validation_accuracy": 0.5},
                       {"epoch": 2, "train_loss": 1.0, "validation_loss": validation, "validation_accuracy": 0.5})
            better = candidate.family == "convolutional"
            c.trials.append(capacity.Trial(candidate.name, seed, train, 0.9, validation, 0.8 + 0.1 * better, 1.0,
                                           history))
    return c


LOSSES = {"dense 2": (1.0, 1.2), "dense 16": (0.3, 0.5), "dense 64": (0.01, 0.9), "convolutional 1": (0.5, 0.6),
          "convolutional 4": (0.2, 0.3)}


def test_words_name_what_overfits():
    c = made(LOSSES)
    words = " ".join(c.words())
    assert {r.name: r.verdict.word for r in c.table()} == {
        "dense 2": UNDER, "dense 16": BEST, "dense 64": OVER, "convolutional 1": UNDER, "convolutional 4": BEST}
    assert "Dense 64 overfits: its training loss is lower" in words and "Dense 2 underfits" in words
    assert "No convolutional network is seen to overfit by being larger" in words
    assert "No dense network" not in words
    assert "+10.0 points" in words and "the convolutional network is better" in words
    assert "Dense 16 overfits by being trained longer: its validation loss rises from 0.25" in words
    alone = made(LOSSES, seeds=1)
    assert {r.verdict.word for r in alone.table()} == {BEST, UNTOLD} and "one seed" in " ".join(alone.words())


def test_only_seeds_of_which_all_networks_are_done_count():
    c = made(LOSSES)
    before = [(r.name, r.validation_loss) for r in made(LOSSES, seeds=2).table()]
    c.trials.pop()
    assert c.seeds == [0, 1] and [(r.name, r.validation_loss) for r in c.table()] == before
    c.trials = c.trials[:2]
    assert c.table() == [] and c.words() == []


def test_networks_that_do_not_fit_are_left_out_by_name():
    chosen, left_out = capacity.candidates((2, 2, 3), 3)
    assert {c.family for c in chosen} == {"dense"} and {name.split()[0] for name, _ in left_out} == {"convolutional"}
    chosen, left_out = capacity.candidates((224, 224, 3), 10)
    assert ("dense 256", "38,603,786 parameters, more than 10,000,000") in left_out


def test_time_decides_the_number_of_images_then_of_epochs(shapes, monkeypatch):
    dataset = data.load(shapes)
    count = len(data.split(dataset, 0).train)
    monkeypatch.setattr(capacity.trials, "pace", lambda *_: Pace(0.01, 0.01, 0.01, 16))
    chosen, _ = capacity.candidates((8, 8, 1), 3, SMALL)

    def planned(seconds, seeds=2):
        monkeypatch.setattr(capacity.trials, "left", lambda ends: seconds)
        return capacity._within(0.0, chosen, dataset, data.split(dataset, 0), seeds, None, None,
                                lambda *_: None)

    images, long = planned(1e6)
    assert images == count and long == plan(count)
    images, short = planned(10.0)
    assert 30 <= images < count and short.epochs >= 20
    images, shortest = planned(2.0)
    assert images == 30 and 5 <= shortest.epochs < 20
    with pytest.raises(ValueError, match="time is too short for 3 networks with 2 seeds: they need about"):
        planned(0.2)
    assert planned(2.0, 9) == planned(2.0)  # the fewest seeds, where there is no time for all


# The whole, and its page.


def test_ctrl_c_keeps_what_was_measured(shapes, tmp_path, monkeypatch):
    monkeypatch.setattr(capacity.study, "__kwdefaults__", {**capacity.study.__kwdefaults__, "widths": SMALL})
    from pellucid import cli_check

    def shown(self, stage, done, count):
        if "2 of" in stage and done == 3:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(cli_check.Lines, "__call__", shown)
    out = tmp_path / "measured"
    result = CliRunner().invoke(app, ["capacity", str(shapes), "--time", "10s", "--seeds", "1", "--out", str(out)])
    assert result.exit_code == 1 and "cannot be resumed" in result.output
    kept = json.loads((out / "capacity.json").read_text())
    assert [t["name"] for t in kept["capacity"]["trials"]] == ["dense 2"] and kept["interrupted"]
    assert kept["learning_curve"] is None
    html = (out / "capacity.html").read_text()
    assert "Stopped by Ctrl-C" in html and "Polynomials of growing degree" in html and "Would more" not in html


def test_the_page_says_what_the_numbers_say(shapes):
    dataset = data.load(shapes)
    whole = generalisation.Generalisation("a <b>", 3, (8, 8, 1), 10.0, polynomials.study(), made(LOSSES),
                                          curve([0.32, 0.16, 0.08, 0.04]), 9.0)
    html = page.write(whole, "Made by <me>")
    assert "Measured in 9.0 s. Made by &lt;me&gt;" in html
    for words in (*whole.polynomials.words(), *whole.capacity.words(), whole.curve.answer().why):
        assert words in html
    assert "a &lt;b&gt;" in html and "<b>" not in html and html.count("<svg") == 7
    for name in ("dense, training", "convolutional, validation", "power law, to 3,200", "degree 10"):
        assert name in html
    assert json.loads(json.dumps(whole.to_json(), allow_nan=False))["learning_curve"]["answer"]["word"] == "yes"
    assert dataset.input_shape == (8, 8, 1)


def test_what_the_learning_curve_refuses_does_not_lose_the_rest(shapes, tmp_path, monkeypatch):
    monkeypatch.setattr(capacity.study, "__kwdefaults__", {**capacity.study.__kwdefaults__, "widths": {"dense": (2,)}})
    monkeypatch.setattr(learning_curve, "_planned", lambda *_: power_law.fit([1], [1], [1]))
    out = tmp_path / "measured"
    result = CliRunner().invoke(app, ["capacity", str(shapes), "--time", "5s", "--seeds", "1", "--out", str(out)])
    assert result.exit_code == 1 and "at least 3 different" in result.output.splitlines()[-1]
    kept = json.loads((out / "capacity.json").read_text())
    assert len(kept["capacity"]["trials"]) == 1 and "3 different" in kept["problem"] and not kept["interrupted"]
    assert "There is no learning curve: a power law needs" in (out / "capacity.html").read_text()


def command(*arguments, cwd):
    return subprocess.run([sys.executable, "-m", "pellucid", "capacity", *arguments], cwd=cwd, capture_output=True,
                          text=True, timeout=120, stdin=subprocess.DEVNULL)


def test_the_command(shapes, tmp_path):
    done = command(str(shapes), "--time", "5s", "--seeds", "1", "--threads", "1", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert len(result["capacity"]["trials"]) == 8 and result["learning_curve"]["answer"]["word"] in (
        "yes", "hardly", "cannot tell")
    folder = tmp_path / "runs" / "capacity-shapes-1"
    assert sorted(p.name for p in folder.iterdir()) == ["capacity.html", "capacity.json"]
    assert json.loads((folder / "capacity.json").read_text())["capacity"] == result["capacity"]


@pytest.mark.parametrize("arguments, status, text", [
    (["--time", "soon"], 2, "cannot read the time"), (["--degrees", "1,1"], 2, "each once"),
    (["--degrees", "1,x"], 2, "whole numbers"), (["--degrees", "12"], 2, "below 12"),
    (["--net", "no"], 2, "no network"), (["--seeds", "0"], 2, "seeds"), (["--out", "."], 1, "not empty"),
    (["--net", "vgg16"], 1, "vgg|small|empty"),
    (["--time", "0.01s"], 1, "time is too short"),
])
def test_what_cannot_be_measured(shapes, tmp_path, monkeypatch, arguments, status, text):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.txt").write_text("mine")
    result = CliRunner().invoke(app, ["capacity", str(shapes), *arguments])
    assert result.exit_code == status
    said = " ".join(result.output.replace("│", " ").split())
    assert re.search(text, said), said
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_time_decides_what_the_learning_curve_is_of(shapes, monkeypatch):
    dataset = data.load(shapes)
    parts = data.split(dataset, 0)
    monkeypatch.setattr(trials, "pace", lambda *_: Pace(0.01, 0.01, 0.01, 16))
    monkeypatch.setattr(learning_curve, "MOST_TESTED", 20)
    monkeypatch.setattr(learning_curve.planning, "ENOUGH", 20)  # so that there are fewer steps with fewer images

    def planned(seconds, seeds=1):
        monkeypatch.setattr(trials, "left", lambda ends: seconds)
        return learning_curve._planned(("lenet", "mlp"), dataset, parts, 0.0, None, None, 3, seeds, lambda *_: None)

    network, largest, tested, most = planned(1e6)
    assert (network, largest, tested) == ("lenet", len(parts.train), len(parts.test))
    network, largest, tested, less = planned(10.0)
    assert (network, largest, tested) == ("lenet", len(parts.train), len(parts.test)) and less.steps < most.steps
    network, largest, tested, least = planned(1.7)
    assert network == "mlp" and largest < len(parts.train) and tested == 20
    assert 5 * least.epoch_steps <= least.steps < 6 * least.epoch_steps
    assert planned(2 * 1.7, 50) == planned(2 * 1.7, 2)  # the fewest seeds, where there is no time for all
    with pytest.raises(ValueError, match=r"for a learning curve with 1 seed: it needs about [^;]+; give more time$"):
        planned(0.1)
