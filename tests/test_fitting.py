"""Under- and overfitting and power laws, told from numbers alone: verdicts, polynomials, curves through errors."""

import numpy as np
import pytest
from numpy.polynomial import Polynomial

from pellucid.report import generalisation as page
from pellucid.studies import polynomials, power_law
from pellucid.studies.fitting import AS_WELL, BEST, OVER, UNDER, UNTOLD, interval, judge

# Verdicts.


def test_verdicts():
    noise = np.array([0.98, 1.0, 1.02])
    train = np.outer([2.0, 0.5, 0.1, 0.4, 0.3], noise)
    validation = np.array([3 * noise, noise, 2 * noise, 1.05 * noise[::-1], [0.7, 1.0, 3.0]])
    verdicts = judge(train, validation)
    assert [v.word for v in verdicts] == [UNDER, BEST, OVER, AS_WELL, UNTOLD]
    assert verdicts[2].ratio == pytest.approx(2) and verdicts[1].interval is None
    low, high = verdicts[4].interval
    assert low < 1 < high and verdicts[4].ratio == pytest.approx((low * high) ** 0.5)
    assert [v.word for v in judge(train[:, :1], validation[:, :1])] == [UNTOLD, UNTOLD, UNTOLD, UNTOLD, BEST]
    for wrong in (train[0], train[:, :0], -train, train * np.nan):
        with pytest.raises(ValueError, match="losses"):
            judge(wrong, wrong)


def test_intervals_hold_the_mean_as_often_as_they_say():
    rng = np.random.default_rng(0)
    held = [low < 1 < high for low, high in (interval(rng.normal(1, 2, 4)) for _ in range(400))]
    assert 0.92 < np.mean(held) < 0.98


# Polynomials.


def test_a_parabola_is_fitted_best_by_degree_2():
    found = polynomials.study(draws=2000)
    assert [d.degree for d in found.degrees] == [1, 2, 10]
    assert [d.verdict.word for d in found.degrees] == [UNDER, BEST, OVER]
    errors = [d.train_error for d in found.degrees]
    assert errors == sorted(errors, reverse=True)  # each holds the ones before it
    # A fit of p numbers to n points leaves (n - p) / n of the noise, in the mean.
    assert errors[1:] == pytest.approx([0.25**2 * (12 - p) / 12 for p in (3, 11)], rel=0.1)
    for degree, line in zip(found.degrees, found.fits, strict=True):
        np.testing.assert_allclose(line, Polynomial.fit(found.x, found.y, degree.degree)(found.grid), atol=1e-8)
    text = " ".join(found.words())
    assert "Degree 1 underfits" in text and "Degree 2 fits best" in text and "Degree 10 overfits" in text


def test_what_fits_depends_on_the_curve():
    found = polynomials.study((1, 2, 3), curve=Polynomial([0, -3, 0, 4]), noise=0.1, points=20)
    assert [d.verdict.word for d in found.degrees] == [UNDER, UNDER, BEST]
    line = polynomials.study((1, 2), curve=Polynomial([0, 1]), noise=0.5)
    assert [d.verdict.word for d in line.degrees] == [BEST, OVER]


@pytest.mark.parametrize("degrees, options, text", [
    ((), {}, "each once"), ((2, 2), {}, "each once"), ((12,), {}, "at least 13 points"), ((1.5,), {}, "whole number"),
    ((1,), {"noise": -1}, "noise"),
])
def test_degrees_that_cannot_be_fitted(degrees, options, text):
    with pytest.raises(ValueError, match=text):
        polynomials.study(degrees, **options)


def test_errors_of_polynomials_are_drawn_against_their_degree(monkeypatch):
    found = polynomials.study((3, 1))
    monkeypatch.setattr(page, "curves", lambda series, **_: series)
    assert page.errors_picture(found) == [("training", [1, 3], [d.train_error for d in found.degrees]),
                                          ("validation", [1, 3], [d.validation_error for d in found.degrees])]


# Power laws.

N = np.repeat([75, 151, 303, 606, 1212], 4)
SEEDS = np.tile(range(4), 5)


def errors(floor, exponent, seed, scatter=0.12, of_seed=0.3):
    rng = np.random.default_rng(seed)
    return 0.02 * (floor + (1 - floor) * (N / 1212) ** -exponent) * np.exp(
        rng.normal(0, scatter, len(N)) + rng.normal(0, of_seed, 4)[SEEDS])


@pytest.mark.parametrize("floor, exponent", [(0.0, 0.4), (0.5, 0.8), (0.9, 0.5)])
def test_the_interval_holds_what_more_images_bring(floor, exponent):
    truth = 1 - (floor + (1 - floor) * 2**-exponent)
    held, at = [], []
    for seed in range(30):
        law = power_law.fit(N, errors(floor, exponent, seed), SEEDS)
        middle, low, high = law.removed(1212, 2424)
        assert low <= middle <= high
        held.append(low <= truth <= high)
        middle, low, high = law.at(2424)
        at.append(low <= 0.02 * (1 - truth) <= high)
    assert np.mean(held) >= 0.8 and np.mean(at) >= 0.8
    exact = power_law.fit(N, errors(floor, exponent, 0, 0, 0), SEEDS)
    assert exact.removed(1212, 2424)[0] == pytest.approx(truth, abs=0.01)
    assert exact.at(303)[0] == pytest.approx(0.02 * (floor + (1 - floor) * 4**exponent), rel=0.01)


def test_a_level_of_a_seed_does_not_change_the_form():
    e = errors(0.5, 0.8, 1)
    moved = power_law.fit(N, e * np.array([1, 2, 0.5, 3.0])[SEEDS], SEEDS)
    assert moved.removed(1212, 2424) == pytest.approx(power_law.fit(N, e, SEEDS).removed(1212, 2424))
    few = power_law.fit(N, e, SEEDS, np.where(N > 100, 1.0, 1e-9))  # a point of no weight says nothing
    off = power_law.fit(N, np.where(N > 100, e, 1.0), SEEDS, np.where(N > 100, 1.0, 1e-9))
    assert few.exponent == pytest.approx(off.exponent, abs=0.05)


@pytest.mark.parametrize("n, error, group, text", [
    ([10, 20], [1, 1], [0, 0], "3 different"), ([10, 20, 30], [1, 0, 1], [0, 0, 0], "above 0"),
    ([10, 20, 30], [1, 1], [0, 0, 0], "for each of 3"), ([10, 20, 30], [1, 1, 1], [0, 1, 2], "several points"),
    ([10, 20, 30], [1, np.inf, 1], [0, 0, 0], "finite"),
])
def test_points_that_no_law_can_be_fitted_to(n, error, group, text):
    with pytest.raises(ValueError, match=text):
        power_law.fit(n, error, group)
