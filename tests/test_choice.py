"""Which epoch's weights are kept: the latest that no other beats by more than chance."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_fit import data, interrupt_at, small  # noqa: F401

from pellucid import fit
from pellucid.training.choice import highest, is_kept
from pellucid.training.trainer import Trainer


def row(epoch, accuracy, loss=0.5, lr=0.1):
    return {"epoch": epoch, "validation_accuracy": accuracy, "validation_loss": loss, "lr": lr}


def test_the_first_epoch_is_kept_and_what_is_not_finite_never():
    assert is_kept(row(1, 0.1), None, [], 100)
    for loss in (math.nan, math.inf):
        assert not is_kept(row(1, 0.1, loss), None, [], 100)
        assert not is_kept(row(2, 1.0, loss), row(1, 0.1), [row(1, 0.1)], 100)
        assert is_kept(row(2, 0.1), None, [row(1, 0.9, loss)], 100)


# Worked out from (right + 1) / (images + 2). The standard error is 0.047 for 0.9 and 0.86 or 0.85 of 100 images, 0.0146
# for 0.9 and 0.886 or 0.885 of 900; of 1,000 images 0.0017 for 1 and 0.999, 0.0022 for 1 and 0.997, 0.0024 for 0.999
# and 0.997, 0.0033 for 0.997 and 0.994, 0.0035 for 0.997 and 0.993.
@pytest.mark.parametrize(("best", "accuracy", "images", "kept"), [
    (0.9, 0.95, 100, True), (0.9, 0.90, 100, True), (0.9, 0.86, 100, True), (0.9, 0.85, 100, False),
    (0.9, 0.886, 900, True), (0.9, 0.885, 900, False),
    (1.0, 0.999, 1000, True), (1.0, 0.997, 1000, False), (0.999, 0.997, 1000, True),
    (0.997, 0.994, 1000, True), (0.997, 0.993, 1000, False),
])
def test_a_later_epoch_is_kept_unless_one_before_is_higher_by_a_standard_error(best, accuracy, images, kept):
    before = [row(1, best), row(2, best - 0.1)]
    assert is_kept(row(3, accuracy, 9.0), before[0], before, images) is kept


def test_steps_down_do_not_add_up():
    """Each is within a standard error of the one before, but the last not of the highest."""
    rows = [row(1, 0.9), row(2, 0.87)]
    assert is_kept(rows[1], rows[0], rows[:1], 100) and is_kept(row(3, 0.84), rows[1], rows[1:], 100)
    assert not is_kept(row(3, 0.84), rows[1], rows, 100)


def test_weights_at_a_higher_rate_must_be_better():
    kept = row(3, 0.9, 0.5, lr=0.01)
    assert not is_kept(row(4, 0.9, 0.5, lr=0.02), kept, [kept], 100)
    assert is_kept(row(4, 0.9, 0.4, lr=0.02), kept, [kept], 100)  # by its loss
    assert is_kept(row(4, 0.91, 0.6, lr=0.02), kept, [kept], 100)
    assert is_kept(row(4, 0.89, 0.6, lr=0.01), kept, [kept], 100)


@given(st.lists(st.tuples(st.integers(0, 40), st.floats(0, 9)), min_size=1, max_size=12))
def test_the_highest_is_first_by_accuracy_then_by_loss(given_rows):
    rows = [row(i, right / 40, loss) for i, (right, loss) in enumerate(given_rows, 1)]
    best = highest(rows)
    for other in rows:
        assert (other["validation_accuracy"], -other["validation_loss"], -other["epoch"]) <= (
            best["validation_accuracy"], -best["validation_loss"], -best["epoch"])
    assert highest([]) is None


@pytest.fixture
def told(monkeypatch):
    """A list of accuracies that validations give in turn, the last one again and again; and the weights they saw."""
    accuracies, weights = [], []

    def validate(self, epoch, train_loss, speed):
        weights.append({name: values.copy() for name, values in self.model.parameters.items()})
        return {"epoch": epoch, "step": self.state.step, "lr": self.step.lr, "train_loss": train_loss,
                "validation_loss": 0.5, "validation_accuracy": accuracies[min(len(weights), len(accuracies)) - 1],
                "seconds": 0.0, "images_per_second": speed}

    monkeypatch.setattr(Trainer, "_validate", validate)
    return accuracies, weights


def test_a_run_ends_with_the_weights_of_that_epoch(data, told):  # noqa: F811
    """Of nine images 0.9 is not told from 1, and 0.5 is: neither the highest is kept nor the last."""
    accuracies, weights = told
    accuracies += [0.3, 1.0, 0.9, 0.5, 0.2]
    run = fit(small(), data, epochs=5, patience=0, out=False)
    assert run.best == run.history[2] and run.higher == run.history[1]
    for name, values in run.model.parameters.items():
        assert np.array_equal(values, weights[2][name])


def test_what_stalls_is_the_highest(data, told):  # noqa: F811
    accuracies, _ = told
    accuracies += [0.3, 1.0, 0.9]
    run = fit(small(), data, epochs=9, patience=3, out=False)
    assert run.stopped and run.epochs == 5 and run.best["epoch"] == 5  # three epochs after the second


def test_a_longer_run_that_is_stopped_keeps_what_the_shorter_one_had(data, told, tmp_path):  # noqa: F811
    told[0].append(0.8)
    first = fit(small(), data, epochs=3, batch_size=16, patience=0, out=tmp_path / "a")
    assert first.best["epoch"] == 3
    more = fit(data=data, out=tmp_path / "a", resume=True, epochs="+4", progress=interrupt_at(first.steps + 7))
    assert more.interrupted and len(more.history) == 4 and more.history[3]["lr"] > first.best["lr"]
    assert more.best == first.best


def test_weights_of_an_epoch_that_goes_on_are_kept_unless_better_ones_come(data, told, tmp_path):  # noqa: F811
    """A longer run takes back the row of a short last epoch; it must not forget how good its weights are."""
    told[0][:] = [0.9]
    short = fit(small(), data, time=1e-3, batch_size=4, out=tmp_path / "a")
    told[0][:] = [0.1]
    longer = fit(data=data, out=tmp_path / "a", resume=True, epochs="+1")
    assert short.steps == 1 and [row["validation_accuracy"] for row in longer.history] == [0.1, 0.1]
    assert longer.best == short.best
    for lr in (0.2, 0.1):
        assert not is_kept(row(1, 0.1, lr=lr), row(1, 0.9), [], 9)
