"""What to mend first: the weak points that the figures of an evaluation show, by rules that can be read off.

Each rule has a threshold (below) and says how many images it concerns, by which the findings are ranked; one image may
count in several of them. `docs/report.md` lists the rules.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..data.check import TINY
from ..texts import called, number
from .scores import Evaluation

PAIR, PAIR_SHARE = 3, 0.05  # mistakes between two classes, and their share of all mistakes
WEAK, WEAK_BY = 3, 0.1  # mistakes of a class, and how far its recall lies below the accuracy
DISPUTED, IMPROBABLE = 3, 0.1  # labels that are disputed confidently and at most so probable, in shares of chance
JUDGE = 0.8  # of the images a model must recognise before it can doubt labels
GAP = 0.05  # of the training images so much more are right
LEARNED = 0.9  # of the training images less are right
UNCALIBRATED = 0.04  # the calibration error is at least that, by the lower end of its interval
REFUSED = 3  # times as many images are refused as expected
ROUGH = 0.05  # half the width of the accuracy's interval
NAMED = 3  # classes named in a sentence


@dataclass(frozen=True)
class Advice:
    """A weak point: the rule that found it, in a sentence what it is, what mends it, and how many images it concerns.

    `cell` is the (true, predicted) classes by number that it is about, where it is about two.
    """

    rule: str
    found: str
    mend: str
    images: int
    cell: tuple[int, int] | None = None


def advise(
    result: Evaluation, *, seen: Evaluation | None = None, counts: Sequence[int] | None = None,
    in_two_classes: int = 0,
) -> list[Advice]:
    """The weak points of a model by its evaluation, those that concern most images first.

    Where more is known: `seen`, the evaluation of the same model on images that it was trained on; `counts`, the number
    of training images of each class; how many groups of copies stand `in_two_classes`.
    """
    found = [*_guesses(result), *_pair(result), *_few(result, counts), *_weak(result, counts), *_labels(result, seen),
             *_fit(result, seen), *_copies(in_two_classes), *_sure(result), *_refused(result), *_rough(result),
             *_absent(result)]
    return sorted(found, key=lambda advice: -advice.images)


def _guesses(result: Evaluation) -> Iterator[Advice]:
    """Perhaps no better than one that never looks at an image."""
    common = max(result.classes, key=lambda c: c.count)
    share = common.count / result.count
    if result.correct < result.count and result.intervals["accuracy"][0] <= share < 1:
        yield Advice("guessing", f"By these images it may be no better than naming always {called(common.name)}, "
                     f"which would be right for {share:.1%}", "Do these labels belong to these images, and are "
                     "these like the images that it was trained on, in colours, size and crop? Else it has not learned "
                     "yet: train longer, or with more images.", result.count - result.correct)


def _pair(result: Evaluation) -> Iterator[Advice]:
    """The two classes that are mixed up most, in either direction."""
    wrong = result.confusion - np.diag(np.diag(result.confusion))
    both = np.triu(wrong + wrong.T)
    a, b = map(int, np.unravel_index(both.argmax(), both.shape))
    count = int(both[a, b])
    if count < max(PAIR, PAIR_SHARE * wrong.sum()):
        return
    if wrong[b, a] > wrong[a, b]:
        a, b = b, a
    (name, other), back = (called(result.classes[i].name) for i in (a, b)), int(wrong[b, a])
    said = f"{name} is taken for {other} {number(int(wrong[a, b]), 'time')}"
    yield Advice("pair", said + (f", and {other} for {name} {number(back, 'time')}" if back else ""),
                 "Look at these images. If you can tell them apart, add more like them to the training images; if you "
                 "cannot, join the two classes or use larger pictures (--size).", count, (a, b))


def _few(result: Evaluation, counts: Sequence[int] | None) -> Iterator[Advice]:
    """Classes with hardly any training images and with mistakes."""
    if counts is None:
        return
    mistakes = [c.count - c.correct for c in result.classes]
    few = sorted((i for i, n in enumerate(counts) if n < TINY and mistakes[i]), key=lambda i: -mistakes[i])
    if few:
        named = _named([f"{called(result.classes[i].name)} ({counts[i]:,})" for i in few])
        yield Advice("few", f"Fewer than {TINY} training images, and mistakes: {named}",
                     "Add images of these classes: nowhere else does each one help as much.",
                     sum(mistakes[i] for i in few))


def _weak(result: Evaluation, counts: Sequence[int] | None) -> Iterator[Advice]:
    """The class that is recognised worst, if that is not for want of images."""
    candidates = [c for i, c in enumerate(result.classes)
                  if c.count - c.correct >= WEAK and c.accuracy <= result.accuracy - WEAK_BY
                  and (counts is None or counts[i] >= TINY)]
    if candidates:
        c = min(candidates, key=lambda c: c.accuracy)
        yield Advice("weak", f"Of {called(c.name)} only {c.correct:,} of {c.count:,} images are recognised "
                     f"({c.accuracy:.1%}, of all {result.accuracy:.1%})",
                     "Look at its mistakes: what do these images have that the training images of the class lack? Add "
                     "images of that kind.", c.count - c.correct)


def _labels(result: Evaluation, seen: Evaluation | None) -> Iterator[Advice]:
    """Labels that the model contradicts with all its weight."""
    count = sum(len(surely_disputed(part)) for part in (result, seen) if part is not None)
    if count >= DISPUTED and result.accuracy >= JUDGE:
        yield Advice("labels", f"{count:,} labels may be wrong: the model is sure of another class, and gives the "
                     "label a tenth or less of what guessing would",
                     "Look at them and correct those that are wrong: a wrong label spoils training and the figures.",
                     count)


def surely_disputed(result: Evaluation) -> list[int]:
    """Places of the images whose label is disputed confidently and is at most a tenth as probable as by chance, the
    least probable first."""
    own = np.exp(-result.answers.losses)
    return [i for i, confident in result.disputed if confident and own[i] * len(result.classes) <= IMPROBABLE]


def _fit(result: Evaluation, seen: Evaluation | None) -> Iterator[Advice]:
    """Learned by heart, or not learned."""
    if seen is None:
        return
    gap, bounds = seen.accuracy - result.accuracy, result.intervals["accuracy"]
    if gap >= GAP and seen.accuracy > bounds[1]:
        yield Advice("overfitting", f"It recognises {seen.accuracy:.1%} of the images that it was trained on, but "
                     f"{result.accuracy:.1%} of others: what lies between is learned by heart",
                     "More training images help most; next --recipe best, or stronger changes to the images (--shift, "
                     "--mirror, --cutout).", round(gap * result.count))
    if seen.accuracy < LEARNED:
        yield Advice("underfitting",
                     f"Even of the images that it was trained on it recognises only {seen.accuracy:.1%}",
                     "Train longer (--resume with --epochs +N), with a larger network (--recipe best) or larger "
                     "pictures (--size). If that brings nothing, these images may not tell the classes apart.",
                     round((1 - seen.accuracy) * result.count))


def _copies(groups: int) -> Iterator[Advice]:
    if groups:
        yield Advice("copies", f"{number(groups, 'image')} {'stands' if groups == 1 else 'stand'} in two classes as "
                     "copies", "At most one of the labels is right. Delete the others; pellucid data check DATA lists "
                     "them.", groups)


def _sure(result: Evaluation) -> Iterator[Advice]:
    """Probabilities that do not mean what they say."""
    bounds = result.intervals["calibration_error"]
    if bounds and bounds[0] >= UNCALIBRATED:
        confidence = float(result.answers.confidence.mean())
        often = "too" if confidence > result.accuracy else "not"
        yield Advice("calibration", f"It is {often} sure{'' if often == 'too' else ' enough'}: on average it gives its "
                     f"answers {confidence:.1%}, and {result.accuracy:.1%} are right",
                     "Do not take its probabilities at their word here. " + (
                         "Calibration is fitted on validation images: more of them help, and such as resemble these."
                         if result.calibration else
                         "Fit a calibration on images that it was not trained on: pellucid.calibration.fit."),
                     round(result.calibration_error * result.count))


def _refused(result: Evaluation) -> Iterator[Advice]:
    """More images than expected that the model's threshold holds for none of the classes."""
    refused = result.refused
    if not refused:
        return
    _, most = result.calibration.false_alarm_interval
    if refused["share"] > max(REFUSED * result.calibration.false_alarm_rate, most):
        yield Advice("refused", f"{refused['share']:.1%} of the images would be refused as none of the classes, where "
                     f"{result.calibration.false_alarm_rate:.1%} are expected",
                     "These images differ from those it was trained on: other things, another camera, light or crop? "
                     "Add some like them to the training images.", refused["count"])


def _rough(result: Evaluation) -> Iterator[Advice]:
    """Too few images to know."""
    low, high = result.intervals["accuracy"]
    if (high - low) / 2 > ROUGH:
        yield Advice("rough", f"With {number(result.count, 'image')} the accuracy stays open between {low:.1%} "
                     f"and {high:.1%}", "Set more test images aside before you compare models or rely on the figure.",
                     round((high - low) / 2 * result.count))


def _absent(result: Evaluation) -> Iterator[Advice]:
    if absent := [called(c.name) for c in result.classes if not c.count]:
        yield Advice("absent", f"No image here is of {_named(absent)}",
                     "How well these are recognised is not known. Add images of them.", 0)


def _named(names: list[str]) -> str:
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
