"""Which epoch's weights are kept, by the rule of one standard error."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_fit import data, small  # noqa: F401

from pellucid import fit
from pellucid.training import choice
from pellucid.training.choice import highest, is_kept


def row(epoch, accuracy, loss=0.5):
    return {"epoch": epoch, "validation_accuracy": accuracy, "validation_loss": loss}


def test_the_first_epoch_is_kept_and_what_is_not_finite_never():
    assert is_kept(row(1, 0.1), [], 100)
    for loss in (math.nan, math.inf):
        assert not is_kept(row(1, 0.1, loss), [], 100)
        assert not is_kept(row(2, 1.0, loss), [row(1, 0.1)], 100)
        assert is_kept(row(2, 0.1), [row(1, 0.9, loss)], 100)


# The standard error is 0.046 for 0.9 and 0.86 of 100 images, 0.047 for 0.9 and 0.85, 0.0145 for 0.9 and 0.885 of 900.
@pytest.mark.parametrize(("accuracy", "images", "kept"), [
    (0.95, 100, True), (0.90, 100, True), (0.86, 100, True), (0.85, 100, False), (0.886, 900, True),
    (0.885, 900, False),
])
def test_a_later_epoch_is_kept_unless_an_earlier_one_is_higher_by_a_standard_error(accuracy, images, kept):
    assert is_kept(row(3, accuracy, 9.0), [row(1, 0.9), row(2, 0.7)], images) is kept


def test_steps_down_do_not_add_up():
    """Each is within a standard error of the one before, but the last not of the highest."""
    rows = [row(1, 0.9), row(2, 0.87)]
    assert is_kept(rows[1], rows[:1], 100) and is_kept(row(3, 0.84), rows[1:], 100)
    assert not is_kept(row(3, 0.84), rows, 100)


def test_an_image_or_two_of_a_thousand_choose_no_epoch():
    assert is_kept(row(2, 0.995), [row(1, 0.997)], 1000) and not is_kept(row(2, 0.990), [row(1, 0.997)], 1000)


@given(st.lists(st.tuples(st.integers(0, 40), st.floats(0, 9)), min_size=1, max_size=12))
def test_the_highest_is_first_by_accuracy_then_by_loss(given_rows):
    rows = [row(i, right / 40, loss) for i, (right, loss) in enumerate(given_rows, 1)]
    best = highest(rows)
    for other in rows:
        assert (other["validation_accuracy"], -other["validation_loss"], -other["epoch"]) <= (
            best["validation_accuracy"], -best["validation_loss"], -best["epoch"])
    assert highest([]) is None


def test_weights_of_an_epoch_that_goes_on_are_kept_unless_better_ones_come(data, tmp_path, monkeypatch):  # noqa: F811
    """A longer run takes back the row of a short last epoch; it must not forget how good its weights are."""
    short = fit(small(), data, time=1e-3, batch_size=4, out=tmp_path / "a")
    seen = []

    def watched(row, before, images):
        seen.append(list(before))
        return is_kept(row, before, images)

    monkeypatch.setattr(choice, "is_kept", watched)
    longer = fit(data=data, out=tmp_path / "a", resume=True, epochs="+1")
    assert short.steps == 1 and len(longer.history) == 2
    assert seen[0] == [short.best]
