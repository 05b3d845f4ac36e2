"""What the first screen of a report says: how good the classifier is, in plain sentences made of the figures."""

from __future__ import annotations

from ..evaluation import Evaluation
from ..texts import called, number
from ..training.progress import percent

SURE = 0.9  # probability from which an answer counts as sure


def verdict(result: Evaluation) -> list[str]:
    """How good it is, against what, on what it is good and bad, and how far its probabilities can be believed."""
    of = "that it has never seen " if result.unseen else ""
    low, high = result.intervals["accuracy"]
    said = [f"It recognises {percent(result.accuracy)} of the images {of}({result.correct:,} of {result.count:,}). On "
            f"other images of the same kind, expect between {low:.1%} and {high:.1%}."]
    present = [c for c in result.classes if c.count]
    common = max(present, key=lambda c: c.count)
    said.append(f"Naming always the commonest class, {called(common.name)}, would be right for "
                f"{common.count / result.count:.1%}.")
    worst, best = (choose(present, key=lambda c: c.f1) for choose in (min, max))
    if worst.f1 < best.f1:
        said.append(f"Of its {number(len(result.classes), 'class', 'classes')} it knows {called(best.name)} best "
                    f"({best.correct:,} of {best.count:,} recognised, {best.precision:.1%} of such answers right) and "
                    f"{called(worst.name)} worst ({worst.correct:,} of {worst.count:,}"
                    + (f", {worst.precision:.1%}" if worst.predicted else ", never answered") + ").")
    sure = result.answers.confidence >= SURE
    if sure.any():
        right = result.answers.correct
        said.append(f"Where it gives its answer at least {SURE:.0%}, which it does for {sure.mean():.1%} of the "
                    f"images, {right[sure].mean():.1%} are right"
                    + (f"; of the others {right[~sure].mean():.1%}." if not sure.all() else "."))
    else:
        said.append(f"It never gives an answer {SURE:.0%} or more.")
    return said


def unless_found(result: Evaluation) -> str:
    """What to say where no weak point was found."""
    low, _ = result.intervals["accuracy"]
    if result.correct == result.count:
        return (f"Nothing: all {result.count:,} are right. So many images leave room for an error rate of up to "
                f"{1 - low:.1%}; only more of them, or harder ones, can show what to mend.")
    return ("No weak point stands out: the mistakes are spread. More training images help in general, and so does "
            "--recipe best.")
