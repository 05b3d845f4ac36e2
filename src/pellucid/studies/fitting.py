"""Under- and overfitting, told from numbers: models of growing capacity, each fitted several times.

All are compared with the one whose validation loss is lowest. One that does worse in validation fits its training data
either better, then it overfits, or worse too, then it underfits (Goodfellow, Bengio and Courville, "Deep learning",
2016, section 5.2). Losses are compared as ratios, repetition by repetition, and means are geometric ones: losses that
differ tenfold scatter tenfold, too. A difference counts where the 95% interval of the ratio leaves out 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LEVEL = 0.95
ALIKE = 1.25  # a validation loss that is surely less than so many times the best one is as good
BEST, AS_WELL, UNDER, OVER, UNTOLD = "fits best", "fits as well", "underfits", "overfits", "cannot be told"


@dataclass(frozen=True)
class Verdict:
    """What a model does beside the best one: its validation loss is `ratio` times that one's, with the 95% `interval`
    of that. It is None where there is one repetition only, and of the best."""

    word: str
    ratio: float
    interval: tuple[float, float] | None


def judge(train: np.ndarray, validation: np.ndarray) -> list[Verdict]:
    """The verdict on each model, from losses (models, repetitions) in training and validation.

    Repetition i of all models is on the same data. Raises ValueError for losses of other shapes, below 0 or not finite.
    """
    losses = [np.asarray(x, float) for x in (train, validation)]
    if losses[0].ndim != 2 or losses[0].shape != losses[1].shape or 0 in losses[0].shape:
        raise ValueError(f"expected losses of one shape (models, repetitions), got {losses[0].shape} and "
                         f"{losses[1].shape}")
    if not all(np.isfinite(x).all() and (x >= 0).all() for x in losses):
        raise ValueError("losses must be finite numbers, at least 0")
    train, validation = map(_logs, losses)
    best = int(validation.mean(axis=1).argmin())
    verdicts = []
    for i in range(len(train)):
        worse, bounds = validation[i] - validation[best], None
        if i == best:
            word = BEST
        elif (bounds := interval(worse)) is None:
            word = UNTOLD
        elif bounds[0] > 0:
            word = OVER if train[i].mean() < train[best].mean() else UNDER
        else:
            word = AS_WELL if bounds[1] <= np.log(ALIKE) else UNTOLD
        ratios = bounds and tuple(float(np.exp(bound)) for bound in bounds)
        verdicts.append(Verdict(word, float(np.exp(worse.mean())), ratios))
    return verdicts


def geometric(losses: np.ndarray) -> float:
    """The geometric mean."""
    return float(np.exp(_logs(losses).mean()))


def _logs(losses: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(losses, np.finfo(float).tiny))


def interval(values: np.ndarray) -> tuple[float, float] | None:
    """The 95% interval of the mean of some values by Student's t; None for fewer than two."""
    if len(values) < 2:
        return None
    from scipy.stats import t  # takes a while, so only where it is needed

    half = float(t.ppf((1 + LEVEL) / 2, len(values) - 1) * np.std(values, ddof=1) / len(values)**0.5)
    mean = float(np.mean(values))
    return mean - half, mean + half
