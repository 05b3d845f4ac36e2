"""What training survives or refuses in one line: odd settings, damaged files, errors and broken streams."""

import io
import json
import os

import numpy as np
import pytest
from shapes_data import CLASSES, pictures

from pellucid import data as datasets
from pellucid.layers import Conv, Dense, Flatten, MaxPool, ReLU
from pellucid.modelfile import read
from pellucid.network import Network, Sequential
from pellucid.training import plan, progress
from pellucid.training.fit import fit
from pellucid.training.timekeeper import steps_in_time


@pytest.fixture(scope="module")
def data():
    return datasets.to_dataset("shapes", *pictures(), classes=CLASSES)


def small():
    return Network.build((8, 8, 1), Sequential(Conv(8, 3, padding=1), ReLU(), MaxPool(2), Flatten(), Dense(3)))


class Broken(io.StringIO):
    """A terminal that breaks after so many writes."""

    def __init__(self, writes, error):
        super().__init__()
        self.left, self.error = writes, error

    def write(self, text):
        self.left -= 1
        if self.left < 0:
            raise self.error
        return super().write(text)

    def isatty(self):
        return True


class TestDisplay:
    @pytest.mark.parametrize("error", [BrokenPipeError(), OSError(28, "full"), ValueError("closed")])
    @pytest.mark.parametrize("term, columns", [("xterm", "120"), ("dumb", "120"), ("xterm", "60")])
    def test_a_broken_stream_does_not_stop_training(self, data, monkeypatch, error, term, columns):
        monkeypatch.setenv("TERM", term)
        monkeypatch.setenv("COLUMNS", columns)
        for writes in (0, 3):
            with progress.display(Broken(writes, error)) as shown:
                assert isinstance(shown, progress.Live) == (term == "xterm" and columns == "120")
                assert fit(small(), data, epochs=3, out=False, progress=shown).test is not None

    def test_without_standard_error(self, data, monkeypatch):
        monkeypatch.setattr("sys.stderr", None)
        with progress.display() as shown:
            assert fit(small(), data, epochs=1, out=False, progress=shown).test is not None


class TestErrors:
    @pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
    def test_one_in_progress_is_raised_after_saving(self, data, tmp_path, error):
        def stop(p):
            if p.step == 17:
                raise error("mine")

        whole = fit(small(), data, epochs=6, batch_size=16, out=tmp_path / "whole")
        with pytest.raises(error, match="mine"):
            fit(small(), data, epochs=6, batch_size=16, out=tmp_path / "a", progress=stop)
        assert (tmp_path / "a" / "best.safetensors").exists()
        done = fit(data=data, out=tmp_path / "a", resume=True)
        assert done.test == whole.test
        a, b = (read(tmp_path / name / "last.safetensors")[0] for name in ("a", "whole"))
        assert all(np.array_equal(a[name], b[name]) for name in b)

    def test_one_before_the_first_epoch_has_ended_leaves_both_files(self, data, tmp_path):
        with pytest.raises(ZeroDivisionError):
            fit(small(), data, epochs=3, out=tmp_path / "a", progress=lambda p: 1 / 0)
        assert {"best.safetensors", "last.safetensors"} <= set(os.listdir(tmp_path / "a"))

    @pytest.mark.parametrize("place", ["step", "_validate"])
    def test_one_within_a_step_leaves_the_last_sound_state(self, data, tmp_path, monkeypatch, place):
        from pellucid.training.step import TrainStep
        from pellucid.training.trainer import Trainer

        owner, name = (TrainStep, "__call__") if place == "step" else (Trainer, place)
        real, calls = getattr(owner, name), []

        def failing(self, *arguments):
            calls.append(1)
            result = real(self, *arguments)
            if len(calls) == (8 if place == "step" else 2):
                raise MemoryError("none left")
            return result

        whole = fit(small(), data, epochs=4, batch_size=16, out=False)
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, failing)
            with pytest.raises(MemoryError):
                fit(small(), data, epochs=4, batch_size=16, out=tmp_path / "a")
        done = fit(data=data, out=tmp_path / "a", resume=True)
        assert all(np.array_equal(v, done.model.parameters[k]) for k, v in whole.model.parameters.items())


class TestSettings:
    def test_integers_and_rates_of_numpy(self, data, tmp_path):
        run = fit(small(), data, seed=np.int64(3), epochs=np.int32(2), batch_size=np.uint8(16), shift=np.int64(1),
                  lr=np.float32(0.125), out=tmp_path / "a")
        same = fit(small(), data, seed=3, epochs=2, batch_size=16, shift=1, lr=0.125, out=False)
        assert all(np.array_equal(v, same.model.parameters[k]) for k, v in run.model.parameters.items())

    @pytest.mark.parametrize("settings, message", [
        (dict(optimizer=0.1), "optimizer must be"), (dict(optimizer=0), "optimizer must be"),
        (dict(network=5), "network must be"), (dict(lr="0.1"), "lr must be"), (dict(lr=True), "lr must be"),
        (dict(seed="1"), "seed must be"), (dict(seed=1.0), "seed must be"), (dict(epochs=True), "epochs must be"),
        (dict(epochs=10**6 + 1), "from 1 to 1,000,000"), (dict(batch_size="8"), "batch size must be"),
        (dict(shift=0.5), "shift must be"), (dict(label_smoothing="x"), "label_smoothing must be"),
        (dict(time=[1]), "cannot read the time"),
    ])
    def test_refusals_are_one_line(self, data, settings, message):
        with pytest.raises(ValueError, match=message) as error:
            fit(**{"network": small(), "data": data, "out": False, **settings})
        assert "\n" not in str(error.value)

    def test_planned_epochs_are_limited(self):
        for epoch_steps, most in ((10, 10**7), (5000, 10**9)):
            draft, pace = plan.Plan(4, epoch_steps, 100), plan.Pace(1e-5, 1e-5, 0.0)
            assert plan.plan_for_time(draft, 1e9, pace).steps == most
            assert steps_in_time(draft, 7, 1e9, pace) == most


@pytest.fixture(scope="module")
def stopped(data, tmp_path_factory):
    """The folder of a run that was stopped, and its configuration."""
    folder = tmp_path_factory.mktemp("damaged") / "a"
    with pytest.raises(ZeroDivisionError):
        fit(small(), data, epochs=3, out=folder, progress=lambda p: 1 / 0)
    return folder, json.loads((folder / "config.json").read_text())


KEYS = ("network", "preprocessing", "optimizer", "batch_size", "epoch_steps", "steps", "source", "network_name",
        "data", "data_digest", "split", "split_digest", "classes", "seed", "label_smoothing", "shift", "mirror",
        "cutout", "averaging", "tta", "patience", "init", "slow", "biases", "fresh", "notes", "class_weights", "format")


class TestDamagedConfig:
    @pytest.mark.parametrize("key, value", [
        *((key, value) for key in KEYS for value in (True, [[]], {"a": None})
          if value is not True or key not in ("mirror", "tta")),
        ("epoch_steps", 0), ("epoch_steps", 10**6), ("batch_size", -1), ("batch_size", 10**6), ("steps", 10**9 + 1),
        ("steps", 2.5), ("shift", -1), ("shift", 8), ("cutout", 9), ("averaging", -1), ("slow", 0), ("slow", 2),
        ("biases", 0), ("class_weights", [1, 1]), ("class_weights", [1, -1, 1]), ("class_weights", ["a", 1, 1]),
        ("seed", -1), ("label_smoothing", 1), ("classes", ["a"]), ("tta", "all"), ("tta", 1),
        ("label_smoothing", 10**400), ("split", {"train": "x", "validation": 1, "test": 1}),
        ("result", []), ("result", {"test": {"count": 1}}), ("result", {"test": 5}),
    ])
    def test_is_named_in_one_line(self, data, stopped, key, value):
        folder, config = stopped
        (folder / "config.json").write_text(json.dumps({**config, key: value}))
        with pytest.raises(ValueError, match="config.json") as error:
            fit(data=data, out=folder, resume=True)
        assert "\n" not in str(error.value)
