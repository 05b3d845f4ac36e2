"""Which epoch's weights are kept: the latest that no other beats by more than chance.

Of epochs that the validation images cannot tell apart, the highest is so by luck, and the more epochs the more of it;
the latest was trained at the lowest rate. (After the rule of one standard error: Breiman et al., "Classification and
regression trees", 1984, section 3.4.3, where the simplest of such models is taken.)
"""

from __future__ import annotations

import math
from collections.abc import Iterable


def highest(rows: Iterable[dict]) -> dict | None:
    """Of the rows of epochs, as metrics.csv has them, that of the highest validation accuracy, then of the lowest loss,
    the first of equal ones. Rows without a finite loss do not count; None where there are no others."""
    return max(filter(_is_finite, rows), key=lambda r: (r["validation_accuracy"], -r["validation_loss"]), default=None)


def is_kept(row: dict, before: Iterable[dict], images: int) -> bool:
    """Whether the weights of an epoch replace those of epochs `before`: unless the highest accuracy of these, by so
    many validation images, is above its own by more than the standard error of the difference of two proportions (as
    of independent ones, so not too small). Never without a finite loss."""
    best = highest(before)
    if best is None or not _is_finite(row):
        return _is_finite(row)
    p, q = best["validation_accuracy"], row["validation_accuracy"]
    return p - q <= math.sqrt((p * (1 - p) + q * (1 - q)) / images)


def _is_finite(row: dict) -> bool:
    return math.isfinite(row["validation_loss"])
