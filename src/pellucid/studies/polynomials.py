"""Polynomials of growing degree through noisy points of a curve: the smallest picture of under- and overfitting.

A polynomial of too low a degree cannot follow the curve; one of too high a degree follows the noise (Bishop, "Pattern
recognition and machine learning", 2006, section 1.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.polynomial import Polynomial, legendre

from ..training.plan import whole
from .fitting import BEST, UNTOLD, Verdict, judge

CURVE = Polynomial([0.2, -0.5, 2.0])  # a parabola, on -1..1
POINTS, NOISE, DRAWS = 12, 0.25, 200
GRID = 201  # places at which fits are drawn


@dataclass(frozen=True)
class Degree:
    """The fits of one degree: mean squared errors, means over the draws of the points; and beside the best degree."""

    degree: int
    train_error: float
    validation_error: float
    verdict: Verdict


@dataclass(frozen=True, eq=False)
class Polynomials:
    """What `study` found. `x`, `y` are the points of the first draw, and `fits` the polynomials through them at `grid`,
    a row a degree, beside the `curve` without noise. No error in validation can be expected below `noise` squared."""

    degrees: tuple[Degree, ...]
    points: int
    noise: float
    draws: int
    x: np.ndarray
    y: np.ndarray
    grid: np.ndarray
    curve: np.ndarray
    fits: np.ndarray

    def words(self) -> list[str]:
        """What the errors say, a sentence a degree."""
        best = next(d for d in self.degrees if d.verdict.word == BEST)
        said = [f"Degree {best.degree} fits best: mean squared error {best.train_error:.3f} in training and "
                f"{best.validation_error:.3f} in validation, where the noise alone makes {self.noise**2:.3f}."]
        for d in self.degrees:
            if d is not best:
                does = "cannot be told apart from it" if d.verdict.word == UNTOLD else d.verdict.word
                said.append(f"Degree {d.degree} {does}: {d.train_error:.3f} in training, {d.validation_error:.3f} in "
                            "validation.")
        return said

    def to_json(self) -> dict:
        """Everything as plain numbers, lists and dicts."""
        return {
            "points": self.points, "noise": self.noise, "draws": self.draws, "words": self.words(),
            "degrees": [asdict(d) for d in self.degrees], "x": self.x.tolist(), "y": self.y.tolist(),
            "grid": self.grid.tolist(), "curve": self.curve.tolist(), "fits": self.fits.tolist(),
        }


def study(degrees: Sequence[int] = (1, 2, 10), *, curve: Polynomial = CURVE, points: int = POINTS,
          noise: float = NOISE, draws: int = DRAWS, seed: int = 0) -> Polynomials:
    """Fit polynomials by least squares to `points` points of `curve`, evenly spread over -1..1, with normal noise.

    Validation is on as many points at random places, with noise of their own. All is done with `draws` draws of the
    noise. Raises ValueError for degrees that are no whole numbers, twice the same, or as high as there are points.
    """
    points = whole("points", points, 2, 10_000)
    draws = whole("draws", draws, 1, 100_000)
    degrees = [whole("a degree", d, 0) for d in degrees]
    if not degrees or len(set(degrees)) != len(degrees):
        raise ValueError(f"give degrees, each once, got {degrees}")
    if max(degrees) >= points:
        raise ValueError(f"a polynomial of degree {max(degrees)} through {points} points is not determined; give at "
                         f"least {max(degrees) + 1} points, or lower degrees")
    if not 0 <= noise < np.inf:
        raise ValueError(f"noise must be a standard deviation of at least 0, got {noise!r}")
    degrees, rng = sorted(degrees), np.random.default_rng(seed)
    x, grid, new = np.linspace(-1, 1, points), np.linspace(-1, 1, GRID), rng.uniform(-1, 1, (points, draws))
    y = curve(x)[:, None] + rng.normal(0, noise, (points, draws))
    value = curve(new) + rng.normal(0, noise, (points, draws))
    errors, lines = [], []
    for degree in degrees:
        fits = legendre.legfit(x, y, degree)  # (degree + 1, draws); of powers of x, high ones would be nearly alike
        errors.append((np.square(legendre.legval(x, fits).T - y).mean(axis=0),
                       np.square(legendre.legval(new, fits, tensor=False) - value).mean(axis=0)))
        lines.append(legendre.legval(grid, fits[:, 0]))
    errors = np.array(errors).swapaxes(0, 1)  # (training and validation, degrees, draws)
    means, verdicts = errors.mean(axis=2), judge(*errors)
    return Polynomials(
        tuple(Degree(d, float(means[0, i]), float(means[1, i]), verdicts[i]) for i, d in enumerate(degrees)),
        points, float(noise), draws, x, y[:, 0], grid, curve(grid), np.array(lines),
    )
