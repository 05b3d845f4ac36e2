"""How an error falls with the number of training images: error(n) = floor + a / n^b.

The form is that of Cortes, Jackel, Solla, Vapnik and Denker, "Learning curves: asymptotic values and rate of
convergence", 1994; Hestness et al., "Deep learning scaling is predictable, empirically", 2017, found it over many kinds
of data. A few noisy points hardly tell floor and exponent apart, so no single curve is fitted: every one counts as far
as it agrees with the points, and what is said of another n is a median and a 95% interval over all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# The curves that count before any point is seen: exponents, and shares of the error at the largest n that would stay
# for ever. That none stays counts as much as ten of the others: then intervals hold as often as they say, with a floor
# and without.
EXPONENTS, FLOORS = np.linspace(0.02, 2, 100), np.linspace(0, 0.98, 50)
BARE = 10
SAMPLES = 4000
FARTHEST = 3.0  # of the logarithm of a level from its mean, where two groups tell next to nothing of it
LEVEL = 0.95
LEAST = 3  # different n

Estimate = tuple[float, float, float]  # median, and the ends of the 95% interval


@dataclass(frozen=True, eq=False)
class PowerLaw:
    """Curves drawn by how well they agree with the points: error(n) = level (floor + (1 - floor) (n / largest)^-b)."""

    largest: int
    level: np.ndarray
    floor: np.ndarray
    exponents: np.ndarray

    def at(self, n: float) -> Estimate:
        """The error to be expected of n images, in the mean over runs."""
        return _estimate(self._at(n))

    def removed(self, n: float, more: float) -> Estimate:
        """The share of the error at n that is gone at `more`."""
        return _estimate(1 - self._at(more) / self._at(n))

    @property
    def exponent(self) -> Estimate:
        return _estimate(self.exponents)

    def _at(self, n: float) -> np.ndarray:
        return self.level * (self.floor + (1 - self.floor) * (n / self.largest) ** -self.exponents)


def fit(n: Sequence[float], error: Sequence[float], group: Sequence[int], weight: Sequence[float] | None = None, *,
        seed: int = 0) -> PowerLaw:
    """The curves through points (n, error above 0), one a run; a run weighs the more the less its error scatters.

    Runs of one `group` share what makes errors high or low at every n, such as test images that are hard: each group
    has a level of its own. About the curve, logarithms of errors scatter normally, with variance s^2 / weight. Levels
    and s are unknown, and integrated out (Gelman et al., "Bayesian data analysis", 2013, section 14.2), which leaves
    the sum of squares to the power -(points - groups) / 2 for each curve. Raises ValueError for fewer than 3 different
    n, and for groups of one point.
    """
    n, error, (_, group) = np.asarray(n, float), np.asarray(error, float), np.unique(group, return_inverse=True)
    weight = np.ones(len(n)) if weight is None else np.asarray(weight, float)
    if len(set(n)) < LEAST:
        raise ValueError(f"a power law needs at least {LEAST} different numbers of images, got {len(set(n))}")
    if not len(n) == len(error) == len(group) == len(weight):
        raise ValueError(f"expected an error, a group and a weight for each of {len(n)} points, got {len(error)}, "
                         f"{len(group)} and {len(weight)}")
    if len(n) <= group.max() + 1:
        raise ValueError(f"a power law needs several points in a group, got {len(n)} in {group.max() + 1} groups")
    if not (np.isfinite(error).all() and min(error.min(), weight.min()) > 0):
        raise ValueError("errors and weights must be finite and above 0")
    member = (group[:, None] == np.arange(group.max() + 1)) * weight[:, None]  # (points, groups)
    groups = member.shape[1]
    largest, free = n.max(), len(n) - groups
    floor, exponent = (a.ravel() for a in np.meshgrid(FLOORS, EXPONENTS))
    shape = floor[:, None] + (1 - floor[:, None]) * (n / largest) ** -exponent[:, None]
    gaps = np.log(error) - np.log(shape)
    levels = gaps @ (member / member.sum(axis=0))  # (curves, groups)
    squares = np.square(gaps - levels[:, group]) @ weight + 1e-12  # points may lie on a curve exactly
    belief = np.exp(-free / 2 * (np.log(squares) - np.log(squares.min()))) * np.where(floor == 0, BARE, 1)
    rng = np.random.default_rng(seed)
    drawn = rng.choice(len(belief), SAMPLES, p=belief / belief.sum())
    if groups > 1:
        free, spread = groups - 1, levels[drawn].std(axis=1, ddof=1) / groups**0.5
    else:
        spread = np.sqrt(squares[drawn] / free / weight.sum())
    off = np.clip(spread * rng.standard_t(free, SAMPLES), -FARTHEST, FARTHEST)
    level = np.exp(levels[drawn].mean(axis=1) + off)
    return PowerLaw(int(largest), level, floor[drawn], exponent[drawn])


def _estimate(values: np.ndarray) -> Estimate:
    tail = (1 - LEVEL) / 2
    low, middle, high = np.quantile(values, [tail, 0.5, 1 - tail])
    return float(middle), float(low), float(high)
