"""Which epoch's weights are kept: the latest that no other beats by more than chance.

Of epochs that the validation images cannot tell apart, the highest is so by luck, and the more epochs the more of it;
the latest was trained longest, and as a rule at the lowest rate. (After the rule of one standard error: Breiman et al.,
"Classification and regression trees", 1984, section 3.4.3, where the simplest of such models is taken.)
"""

from __future__ import annotations

import math
from collections.abc import Iterable


def highest(rows: Iterable[dict]) -> dict | None:
    """Of the rows of epochs, as metrics.csv has them, that of the highest validation accuracy, then of the lowest loss,
    the first of equal ones. Rows without a finite loss do not count; None where there are no others."""
    return max(filter(_is_finite, rows), key=_merit, default=None)


def is_kept(row: dict, kept: dict | None, before: Iterable[dict], images: int) -> bool:
    """Whether the weights of an epoch replace those that are `kept`, if there are any, after the epochs `before`.
    Accuracies are shares of so many validation images. `kept` may have no row in `before` any more, where the short
    epoch that it ended goes on in a longer run.

    They do where the epoch is the highest, and where the highest is not above it by more than a standard error, unless
    its learning rate was above that of `kept`: such weights still move. Never without a finite loss.
    """
    if kept is None or not _is_finite(row):
        return _is_finite(row)
    best = highest([*before, kept])
    if _merit(row) > _merit(best):
        return True
    return row["lr"] <= kept["lr"] and not _above(best["validation_accuracy"], row["validation_accuracy"], images)


def _above(p: float, q: float, images: int) -> bool:
    """Whether p - q is more than its standard error, by shares of one right and one wrong answer more, so that a share
    of 1 is not taken for certain (Agresti and Caffo, "Simple and effective confidence intervals for proportions and
    differences of proportions result from adding two successes and two failures", 2000). Answers to the same images
    are alike, so that the true error is smaller."""
    p, q = ((share * images + 1) / (images + 2) for share in (p, q))
    return p - q > math.sqrt((p * (1 - p) + q * (1 - q)) / (images + 2))


def _merit(row: dict) -> tuple[float, float]:
    return row["validation_accuracy"], -row["validation_loss"]


def _is_finite(row: dict) -> bool:
    return math.isfinite(row["validation_loss"])
