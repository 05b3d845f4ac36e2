"""Training as a whole: what `fit` learns, keeps, resumes and refuses."""

import csv
import itertools
import json
import math
import os
import signal

import numpy as np
import pytest
from shapes_data import CLASSES, pictures

from pellucid import data as datasets
from pellucid import evaluation, optim, schedules
from pellucid.layers import BatchNorm, Conv, Dense, Dropout, Flatten, MaxPool, ReLU
from pellucid.model import load
from pellucid.modelfile import read
from pellucid.network import Network, Sequential
from pellucid.training import augment, plan
from pellucid.training.fit import fit
from pellucid.training.run import COLUMNS, RunFolder
from pellucid.training.step import Diverged
from pellucid.training.timekeeper import Timekeeper


@pytest.fixture(scope="module")
def data():
    return datasets.to_dataset("shapes", *pictures(), classes=CLASSES)


def small(regularised=False):
    extra = (BatchNorm(),) if regularised else ()
    dropout = (Dropout(0.2),) if regularised else ()
    return Network.build((8, 8, 1), Sequential(
        Conv(8, 3, padding=1), *extra, ReLU(), MaxPool(2), Flatten(), *dropout, Dense(3)
    ))


def tensors(path):
    return read(path)[0]


def assert_same_tensors(a, b):
    a, b = tensors(a), tensors(b)
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].tobytes() == b[name].tobytes(), name


def timeless(folder):
    """metrics.csv without the columns that a clock fills."""
    with open(folder / "metrics.csv", newline="") as file:
        return [{k: v for k, v in row.items() if k not in ("seconds", "images_per_second")}
                for row in csv.DictReader(file)]


def interrupt_at(step):
    def progress(p):
        if p.step == step:
            os.kill(os.getpid(), signal.SIGINT)
    return progress


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    return fit(small(), data, epochs=12, seed=3, out=tmp_path_factory.mktemp("run") / "a")


class TestRun:
    def test_learns_and_tests_once_on_images_held_out(self, run, data):
        parts = datasets.split(data, 3)
        assert run.test["count"] == len(parts.test) == 30
        assert run.test_accuracy >= 0.9
        assert run.test_accuracy == evaluation.evaluate(run.model, parts.test.images, parts.test.labels).accuracy

    def test_keeps_an_epoch_that_validation_does_not_tell_from_the_highest(self, run):
        highest = max(row["validation_accuracy"] for row in run.history)
        assert len(run.history) == run.epochs == 12
        assert run.best in run.history and run.best["validation_accuracy"] >= highest - 2 / 9
        model = load(run.folder / "best.safetensors")
        assert model.record["best"]["epoch"] == run.best["epoch"]
        assert model.record["test"] == run.test
        assert model.classes == CLASSES
        for name, value in run.model.parameters.items():
            assert np.array_equal(value, model.parameters[name])

    def test_metrics_and_configuration(self, run):
        with open(run.folder / "metrics.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        assert tuple(rows[0]) == COLUMNS
        assert [int(r["epoch"]) for r in rows] == list(range(1, 13))
        assert [float(r["validation_loss"]) for r in rows] == [r["validation_loss"] for r in run.history]
        assert float(rows[-1]["train_loss"]) < float(rows[0]["train_loss"])
        config = json.loads((run.folder / "config.json").read_text())
        assert config["seed"] == 3
        assert config["split"] == {"train": 81, "validation": 9, "test": 30}
        assert Network.from_json(config["network"]) == small()
        assert config["result"]["test"] == run.test
        assert sorted(p.name for p in run.folder.iterdir()) == [
            "best.safetensors", "config.json", "last.safetensors", "metrics.csv", "seen.safetensors"]

    def test_rates_follow_the_schedule(self, run):
        lr = run.setup.optimizer.lr
        assert lr.steps == run.steps
        assert [row["lr"] for row in run.history] == pytest.approx([lr(row["step"] - 1) for row in run.history])

    def test_same_seed_same_weights_other_seed_others(self, run, data):
        again = fit(small(), data, epochs=12, seed=3, out=False)
        other = fit(small(), data, epochs=12, seed=4, out=False)
        assert again.folder is None
        same = [np.array_equal(v, again.model.parameters[k]) for k, v in run.model.parameters.items()]
        assert all(same)
        assert not all(np.array_equal(v, other.model.parameters[k]) for k, v in run.model.parameters.items())


@pytest.mark.parametrize("optimizer", [
    None,
    optim.AdamW(schedules.Cosine(3e-3, steps=30, warmup=3)),
], ids=["default", "adamw"])
@pytest.mark.parametrize("stops", [(1,), (7,), (10, 11), (29,)])
def test_resuming_equals_not_having_stopped(data, tmp_path, optimizer, stops):
    settings = dict(epochs=6, batch_size=16, seed=1, optimizer=optimizer)
    whole = fit(small(True), data, out=tmp_path / "whole", **settings)
    assert whole.steps == 30
    part = fit(small(True), data, out=tmp_path / "part", progress=interrupt_at(stops[0]), **settings)
    for stop in stops[1:]:
        assert part.interrupted
        part = fit(data=data, out=tmp_path / "part", resume=True, progress=interrupt_at(stop))
    assert part.interrupted and part.test is None and part.steps == stops[-1]
    assert np.isfinite(part.model.logits(np.zeros((1, 8, 8, 1), np.float32))).all()
    done = fit(data=data, out=tmp_path / "part", resume=True)
    assert not done.interrupted and done.test == whole.test and done.best.items() >= {
        "epoch": whole.best["epoch"], "validation_loss": whole.best["validation_loss"]}.items()
    assert_same_tensors(tmp_path / "whole" / "last.safetensors", tmp_path / "part" / "last.safetensors")
    assert_same_tensors(tmp_path / "whole" / "best.safetensors", tmp_path / "part" / "best.safetensors")
    assert done.model.record["best"] == whole.model.record["best"]
    assert timeless(tmp_path / "whole") == timeless(tmp_path / "part")


def test_a_killed_run_resumes_from_its_last_save(data, tmp_path):
    """What lies in the folder between two saves: rows and a best file that are ahead of last.safetensors."""
    whole = fit(small(), data, epochs=5, out=tmp_path / "whole")
    fit(small(), data, epochs=5, out=tmp_path / "part", progress=interrupt_at(2 * whole.setup.plan.epoch_steps))
    for name in ("best.safetensors", "metrics.csv"):
        (tmp_path / "part" / name).write_bytes((tmp_path / "whole" / name).read_bytes())
    fit(data=data, out=tmp_path / "part", resume=True)
    assert_same_tensors(tmp_path / "whole" / "last.safetensors", tmp_path / "part" / "last.safetensors")
    assert timeless(tmp_path / "whole") == timeless(tmp_path / "part")


def test_a_finished_run_is_not_trained_again(data, tmp_path):
    run = fit(small(), data, epochs=2, out=tmp_path / "a")
    before = {p.name: p.read_bytes() for p in run.folder.iterdir()}
    again = fit(data=data, out=tmp_path / "a", resume=True, progress=lambda p: pytest.fail("trained"))
    assert (again.test, again.steps, again.interrupted) == (run.test, run.steps, False)
    assert {p.name: p.read_bytes() for p in run.folder.iterdir()} == before


def test_second_interrupt_leaves_at_once_and_the_handler_is_restored(data):
    handler = signal.getsignal(signal.SIGINT)
    steps = []

    def progress(p):
        steps.append(p.step)
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        fit(small(), data, epochs=3, out=False, progress=progress)
    assert steps == [1]
    assert signal.getsignal(signal.SIGINT) is handler


class TestDivergence:
    @pytest.mark.parametrize("regularised", [False, True])
    def test_keeps_the_weights_before_it(self, data, tmp_path, regularised):
        # Good for three epochs, then absurd.
        class Cliff(schedules.Schedule):
            def __call__(self, step):
                return 0.05 if step < 18 else 1e30

            def to_json(self):
                return {"kind": "Cliff"}

        try:
            with pytest.raises(Diverged) as error:
                fit(small(regularised), data, epochs=50, batch_size=16, out=tmp_path / "a",
                    optimizer=optim.SGD(Cliff(), momentum=0.9, nesterov=True))
        finally:
            schedules.SCHEDULES.pop("Cliff")
        message = str(error.value)
        assert "step" in message and "learning rate" in message and str(tmp_path / "a" / "best.safetensors") in message
        assert "\n" not in message
        assert all(np.isfinite(v).all() for v in tensors(tmp_path / "a" / "last.safetensors").values())
        best = load(tmp_path / "a" / "best.safetensors")
        assert best.record["best"]["epoch"] <= 3
        parts = datasets.split(data, 0)
        kept = evaluation.evaluate(best, parts.validation.images, parts.validation.labels)
        assert kept.accuracy == best.record["best"]["validation_accuracy"]

    def test_within_the_first_epoch_something_finite_is_left(self, data, tmp_path):
        with pytest.raises(Diverged):
            fit(small(), data, epochs=50, out=tmp_path / "a", optimizer=optim.SGD(1e30))
        assert all(np.isfinite(v).all() for v in tensors(tmp_path / "a" / "last.safetensors").values())


class TestTime:
    def test_planned_run_equals_one_of_as_many_epochs(self, data, monkeypatch):
        """Measuring trains a model of its own: nothing of it shows in the result of a plan that is kept."""
        monkeypatch.setattr(Timekeeper, "revised", lambda self, plan, step: plan)
        timed = fit(small(), data, time=1.5, seed=2, patience=0, out=False)
        assert timed.setup.optimizer.lr.steps == timed.steps == timed.setup.plan.steps
        if timed.steps % timed.setup.plan.epoch_steps:
            pytest.fail(f"a whole epoch of {timed.setup.plan.epoch_steps} steps should fit, got {timed.steps} steps")
        same = fit(small(), data, epochs=timed.epochs, seed=2, patience=0, out=False)
        for name, value in timed.model.parameters.items():
            assert np.array_equal(value, same.model.parameters[name])

    def test_a_run_shorter_than_an_epoch_ends_with_its_schedule(self, data, monkeypatch):
        monkeypatch.setattr(plan, "plan_for_time", lambda draft, *_: plan.Plan(draft.batch_size, draft.epoch_steps, 2))
        run = fit(small(), data, time=1, out=False)
        assert (run.steps, run.epochs, run.history[0]["step"], run.interrupted) == (2, 1, 2, False)
        assert run.test is not None


class TestRefusals:
    def test_folder_that_is_not_empty(self, data, tmp_path):
        (tmp_path / "kept.txt").write_text("mine")
        with pytest.raises(ValueError, match="not empty; choose another"):
            fit(small(), data, epochs=1, out=tmp_path)
        assert [p.name for p in tmp_path.iterdir()] == ["kept.txt"]

    def test_folder_of_an_earlier_run_says_how_to_resume(self, data, tmp_path):
        fit(small(), data, epochs=1, out=tmp_path / "a")
        with pytest.raises(ValueError, match="--resume"):
            fit(small(), data, epochs=1, out=tmp_path / "a")

    def test_unwritable_folder_before_training(self, data, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(OSError, match="cannot write into the folder"):
            fit(small(), data, epochs=1, out=tmp_path / "file" / "run", progress=lambda p: pytest.fail("trained"))

    @pytest.mark.parametrize("settings, message", [
        (dict(epochs=0), "epochs must be"),
        (dict(epochs=1, time=3), "not both"),
        (dict(time="soon"), "cannot read the time 'soon'"),
        (dict(seed=-1), "seed must be"),
        (dict(lr=0.0), "lr must be"),
        (dict(lr=math.nan), "lr must be"),
        (dict(lr=0.1, optimizer=optim.SGD(0.1)), "lr alone"),
        (dict(batch_size=1000), "a batch of 1000 needs as many"),
        (dict(label_smoothing=1.0), "label_smoothing must be"),
        (dict(shift=8), "shift must be"),
        (dict(resume=True), "resume needs the folder"),
    ])
    def test_settings(self, data, settings, message):
        network = None if "resume" in settings else small()
        with pytest.raises(ValueError, match=message):
            fit(network, data, **{"out": None if "resume" in settings else False, **settings})

    def test_network_for_other_images(self, data):
        wrong = Network.build((8, 8, 1), Sequential(Flatten(), Dense(4)))
        with pytest.raises(ValueError, match="in 3 classes; build it with"):
            fit(wrong, data, out=False)

    def test_pixels_that_are_not_numbers_and_labels_out_of_range(self):
        images, labels = pictures(30)
        bad = (images / 255).astype(np.float32)
        bad[7, 2, 3, 0] = np.nan
        with pytest.raises(ValueError, match="NaN"):
            fit(small(), (bad, labels), out=False)
        with pytest.raises(ValueError, match="label"):
            fit(small(), (images, labels * 5), out=False)

    def test_resuming_with_other_data_or_settings(self, data, tmp_path):
        fit(small(), data, epochs=3, out=tmp_path / "a", progress=interrupt_at(2))
        other = datasets.to_dataset("shapes", *pictures(seed=6), classes=CLASSES)
        with pytest.raises(ValueError, match="are not those the run was started with"):
            fit(data=other, out=tmp_path / "a", resume=True)
        with pytest.raises(ValueError, match="keeps its epochs"):
            fit(data=data, out=tmp_path / "a", resume=True, epochs=5)
        with pytest.raises(ValueError, match="give them again as data"):
            fit(out=tmp_path / "a", resume=True)
        with pytest.raises(ValueError, match="has no config.json"):
            fit(data=data, out=tmp_path, resume=True)

    @pytest.mark.parametrize("name, damage", [
        ("config.json", b"{"), ("config.json", b"{}"), ("config.json", b"[1]"), ("metrics.csv", b"epoch\nx\n"),
        ("last.safetensors", b"short"),
    ])
    def test_resuming_from_damaged_files(self, data, tmp_path, name, damage):
        fit(small(), data, epochs=3, out=tmp_path / "a", progress=interrupt_at(2))
        (tmp_path / "a" / name).write_bytes(damage)
        with pytest.raises(ValueError, match=name):
            fit(data=data, out=tmp_path / "a", resume=True)


def test_folders_are_numbered(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = [fit("mlp", data, epochs=1).folder.as_posix() for _ in range(2)]
    assert names == ["runs/shapes-mlp-1", "runs/shapes-mlp-2"]


def test_writes_in_between_are_limited_but_the_end_is_complete(data, tmp_path, monkeypatch):
    writes = []
    write = RunFolder.write_last
    monkeypatch.setattr(RunFolder, "write_last", lambda self, *a: (writes.append(a[2].step), write(self, *a))[1])
    run = fit(small(), data, epochs=4, out=tmp_path / "a")
    # It can be resumed from the beginning, and the first epoch is safe as soon as it ends.
    assert writes[:2] == [0, run.setup.plan.epoch_steps]
    assert writes[-1] == run.steps and len(writes) < 5


class TestAugmentation:
    def test_shift_moves_and_fills_with_zeros(self):
        rng = np.random.default_rng(0)
        images = rng.integers(1, 256, (50, 5, 7, 3), dtype=np.uint8)
        moves = np.array(list(itertools.product(range(-2, 3), range(-4, 6)))[:50])
        moved = augment.shift(images, moves)
        assert moved.dtype == np.uint8 and moved.flags.c_contiguous
        for image, result, (down, right) in zip(images, moved, moves, strict=True):
            expected = np.zeros_like(image)
            for y, x in itertools.product(range(5), range(7)):
                if 0 <= y - down < 5 and 0 <= x - right < 7:
                    expected[y, x] = image[y - down, x - right]
            assert np.array_equal(result, expected)

    def test_nothing_to_move_gives_a_copy(self):
        images = np.ones((2, 4, 4, 1), np.uint8)
        same = augment.shift(images, np.zeros((2, 2), int))
        assert np.array_equal(same, images) and not np.shares_memory(same, images)
        assert augment.shift(images[:0], np.zeros((0, 2), int)).shape == (0, 4, 4, 1)

    def test_chance_depends_on_seed_epoch_and_purpose(self):
        assert sorted(augment.order(1, 1, 50)) == list(range(50))
        draws = [tuple(augment.order(s, e, 50)) for s in (0, 1, 2**80) for e in (1, 2)]
        assert len(set(draws)) == len(draws)
        lone = np.zeros((4000, 5, 5, 1), np.uint8)
        lone[:, 2, 2] = 1
        moved = [augment.Augmentation(2).of_epoch(0, epoch, 4000)(lone, np.arange(4000)) for epoch in (1, 2)]
        assert set(map(int, moved[0].reshape(4000, 25).argmax(axis=1))) == set(range(25))
        assert not np.array_equal(*moved)

    @pytest.mark.parametrize("shape, pixels", [((8, 8, 1), 1), ((28, 28, 1), 2), ((32, 32, 3), 2), ((5, 9, 1), 0),
                                               ((64,), 0)])
    def test_default_shift(self, shape, pixels):
        assert augment.default_shift(shape) == pixels


class TestPlan:
    @pytest.mark.parametrize("text, seconds", [
        ("90s", 90), ("2m", 120), ("2 min", 120), ("1h30m", 5400), ("1h 1m 1s", 3661), ("45", 45), ("0.5m", 30),
        (12, 12),
    ])
    def test_durations(self, text, seconds):
        assert plan.duration(text) == seconds

    @pytest.mark.parametrize("text", ["", "m", "2x", "-3s", "0", 0, -1, math.inf, math.nan, "1e3", "3m2h"])
    def test_no_durations(self, text):
        with pytest.raises(ValueError, match="time"):
            plan.duration(text)

    @pytest.mark.parametrize("count", [1, 7, 15, 16, 100, 511, 1212, 5000, 10**6])
    def test_every_image_count_has_a_plan(self, count):
        made = plan.plan(count)
        assert 1 <= made.batch_size <= min(count, 512)
        assert made.epoch_steps * made.batch_size <= count
        assert made.epochs >= plan.DEFAULT_EPOCHS
        assert made.steps * made.batch_size >= plan.DEFAULT_STEPS * 0.7 * min(made.batch_size, 128)

    @pytest.mark.parametrize("count, size", [(511, 16), (5000, 128), (20_479, 128), (20_480, 256), (48_000, 512)])
    def test_large_batches_are_for_many_images(self, count, size):
        assert plan.batch_size(count) == size

    def test_little_time_makes_smaller_batches(self):
        """As far as more of them fit: where each step takes a time of its own, fewer images do."""
        def made(seconds, fixed):
            pace = plan.Pace(1.0, 0.0, 0.0, batch=512, fixed=fixed)
            found = plan.plan_with_enough_steps(plan.Plan(512, 100, 9), 51_300, seconds, pace)
            assert found.steps * pace.at(found.batch_size).step <= seconds
            return found.batch_size, found.steps

        assert made(300, 0.0) == (512, 276)
        assert made(65.3, 0.0) == (128, 240)
        assert made(65.3, 0.9) == (512, 60)
        assert made(1.1, 0.0) == (16, 32)

    def test_last_epoch_may_be_short(self):
        made = plan.Plan(batch_size=4, epoch_steps=10, steps=23)
        assert (made.epochs, [made.length(e) for e in (1, 2, 3)]) == (3, [10, 10, 3])

    @pytest.mark.parametrize("seconds, steps", [
        (400, 330), (200, 165), (100, 81), (15, 10), (12, 8), (6.6, 3), (0.01, 1)])
    def test_time_is_filled_and_not_exceeded(self, seconds, steps):
        draft, pace = plan.Plan(4, 10, 1000), plan.Pace(step=1.0, epoch=1.0, end=2.0)
        made = plan.plan_for_time(draft, seconds, pace)
        assert made.steps == steps
        if seconds >= 1:
            assert made.steps * pace.step + made.epochs * pace.epoch + pace.end <= seconds

    @pytest.mark.parametrize("seconds, text", [
        (4.24, "4.2 s"), (9.96, "10 s"), (59.7, "1 min 00 s"), (185, "3 min 05 s"), (4800, "1 h 20 min"),
    ])
    def test_spoken(self, seconds, text):
        assert plan.spoken(seconds) == text
