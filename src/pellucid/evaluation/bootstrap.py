"""How far figures would move on other images of the same kind: bootstrap intervals.

The images are drawn again with replacement, as many as there are, and the figure is computed anew, a thousand times
(Efron and Tibshirani, "An introduction to the bootstrap", 1993). The interval reaches from the 2.5th to the 97.5th
percentile, less the bootstrap's estimate of the bias (their chapter 10): drawing again makes a calibration error
larger, and without that an interval could lie wholly above the figure it is for.
"""

from __future__ import annotations

import numpy as np

from .answers import Answers
from .reliability import BINS, bin_numbers

RESAMPLES = 1000
LEVEL = 0.95
_BLOCK = 2**21  # numbers drawn at a time

Interval = tuple[float, float]


def intervals(
    answers: Answers, classes: int, *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Interval | None]:
    """95% intervals of "accuracy", "macro_f1", "log_loss" and "calibration_error".

    Where all images are right, or none, drawing them again tells nothing: the accuracy's is then Clopper and Pearson's
    (1934) and macro F1 has none. Nor has a figure that is not finite.
    """
    count = len(answers)
    # Images of one true and one predicted class are counted together, which is all that macro F1 needs.
    order = np.lexsort((answers.predicted, answers.labels))
    labels, predicted = answers.labels[order], answers.predicted[order]
    correct = answers.correct[order].astype(np.float64)
    gaps = np.zeros((count, BINS))
    confidence = answers.confidence[order]
    if finite := bool(np.isfinite(confidence).all() and np.isfinite(answers.losses).all()):
        gaps[np.arange(count), bin_numbers(confidence)] = confidence - correct
    columns = np.column_stack([correct, answers.losses[order] if finite else np.zeros(count), gaps])
    cells = np.flatnonzero(np.diff(labels * classes + predicted, prepend=-1))

    def figures(counts: np.ndarray) -> np.ndarray:
        """(n, 4): the four figures where each image is there so many times, for counts (n, N)."""
        sums = counts @ columns / count
        f1 = _macro_f1(np.add.reduceat(counts, cells, axis=1), labels[cells], predicted[cells])
        return np.column_stack([sums[:, 0], f1, sums[:, 1], np.abs(sums[:, 2:]).sum(axis=1)])

    rng, block = np.random.default_rng(seed), max(_BLOCK // count, 1)
    drawn = []
    for first in range(0, resamples, block):
        rows = min(block, resamples - first)
        places = rng.integers(0, count, (rows, count)) + count * np.arange(rows)[:, None]
        drawn.append(figures(np.bincount(places.ravel(), minlength=rows * count).reshape(rows, count).astype(float)))
    drawn, found = np.concatenate(drawn), figures(np.ones((1, count)))[0]
    tail = (1 - LEVEL) / 2
    bounds = np.quantile(drawn, [tail, 1 - tail], axis=0) - (drawn.mean(axis=0) - found)
    upper = np.array([1, 1, np.inf, 1])
    low, high = np.clip(bounds, 0, upper)
    names = ("accuracy", "macro_f1", "log_loss", "calibration_error")
    result: dict[str, Interval | None] = {n: (float(low[i]), float(high[i])) for i, n in enumerate(names)}
    if correct.min() == correct.max():
        certain = tail ** (1 / count)
        result |= {"accuracy": (certain, 1.0) if correct[0] else (0.0, 1 - certain), "macro_f1": None}
    if not finite:
        result |= {"log_loss": None, "calibration_error": None}
    return result


def _macro_f1(counts: np.ndarray, labels: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """(n,): the mean over the classes with images of their F1, for (n, cells) images of a true and a predicted class.

    The cells are sorted by their true classes.
    """
    starts = np.flatnonzero(np.diff(labels, prepend=-1))
    support = np.add.reduceat(counts, starts, axis=1)
    by_prediction = np.argsort(predicted, kind="stable")
    named = np.flatnonzero(np.diff(predicted[by_prediction], prepend=-1))
    of_class = dict(zip(predicted[by_prediction][named].tolist(), range(len(named)), strict=True))
    times = np.add.reduceat(counts[:, by_prediction], named, axis=1)
    right = {int(labels[i]): i for i in np.flatnonzero(labels == predicted)}
    total, present = np.zeros(len(counts)), (support > 0).sum(axis=1)
    for column, c in enumerate(labels[starts].tolist()):
        if c in right:  # else its F1 is zero
            given = times[:, of_class[c]]
            total += np.divide(2 * counts[:, right[c]], support[:, column] + given, out=np.zeros(len(counts)),
                               where=support[:, column] > 0)
    return total / present
