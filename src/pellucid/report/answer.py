"""An answer and its reasons in plain sentences, made of the numbers."""

from __future__ import annotations

from collections import Counter

from ..draw.svg import percent
from ..explain.explanation import Explanation
from ..explain.maps import words
from ..explain.region import Region, place
from ..texts import clipped, listed, number, printable

LOST = 0.1  # of the target's probability that covering a part takes at least where the answer rests on it


def said(e: Explanation, label: str | None = None) -> list[str]:
    """What the model says, what speaks for it and where, what would change it, and what it is like.

    `label` is what the data call the image.
    """
    return [_answer(e, label), _part(e), *_methods(e), *_change(e), *_near(e)]


def _answer(e: Explanation, label: str | None) -> str:
    p, best = e.answer.probabilities, e.answer.best
    text = f"The model says {clipped(e.classes[best])}, at {percent(p[best])}"
    if len(p) > 1:
        second = int((-p).argsort(kind="stable")[1])
        text += f"; next comes {clipped(e.classes[second])}, at {percent(p[second])}"
    text += "."
    if label is not None:
        text += (" The data say the same." if label == e.classes[best] else
                 f" That is wrong: the data say {clipped(label)}.")
    if e.rejected:
        text += " By its threshold, the image is likely none of its classes."
    if e.target != best:
        text += f" Explained here is {clipped(e.classes[e.target])}, which it gives {percent(p[e.target])}."
    return text


def _part(e: Explanation) -> str:
    target = clipped(e.classes[e.target])
    before, after = (answer.probabilities[e.target] for answer in (e.region.whole, e.region.covered))
    where = f"the {place(e.region.box, e.image.shape[:2])} of the image ({rows_and_columns(e.region)})"
    moved = f"from {percent(before)} to {percent(after)}" + turned(e)
    if not e.found:
        speaks = e.region.speaks[e.target]
        way = "for" if speaks > 0 else "against" if speaks < 0 else "neither for nor against"
        return f"The part asked about, {where}, speaks {way} {target}: covered, {target} goes {moved}."
    if before - after < LOST * before:
        return (f"No single part is found that decides it: with {where} covered, where occlusion finds most, {target} "
                f"goes {moved}.")
    return f"What speaks most for {target} is in {where}: covered, {target} falls {moved}."


def turned(e: Explanation) -> str:
    """What the answer becomes without the part, where it becomes another."""
    now = e.region.covered.best
    return "" if now == e.answer.best else f", and the answer becomes {clipped(e.classes[now])}"


def rows_and_columns(region: Region) -> str:
    """Where a part is, in pixels from 0."""
    y, x, height, width = region.box
    return f"{_span('row', y, height)}, {_span('column', x, width)}"


def _span(word: str, first: int, count: int) -> str:
    return f"{word} {first}" if count == 1 else f"{word}s {first} to {first + count - 1}"


def _methods(e: Explanation) -> list[str]:
    if len(e.maps) < 2:
        return []
    return [agreement(e)]


def agreement(e: Explanation) -> str:
    """Which methods agree on where the target is to be seen."""
    agreeing, others, silent = ([words(m) for m in each] for each in e.groups())
    if not agreeing:
        return f"No method finds anything that speaks for {clipped(e.classes[e.target])}."
    maps = f"Of the {number(len(e.maps), 'map')}"
    if max(s.deletion.gain + s.insertion.gain for s in e.maps) <= 0:
        return f"{maps} none finds what the answer depends on better than a random order does, so believe none."
    best, *rest = agreeing
    text = f"{maps}, {best} finds best what the answer depends on; "
    if rest:
        text += f"{listed(rest)} {'agrees' if len(rest) == 1 else 'agree'} with it"
        text += f", {listed(others)} {'points' if len(others) == 1 else 'point'} elsewhere" if others else ""
    else:
        text += "no other agrees with it, so believe none alone" if others else "it is the only one"
    if silent:
        text += f", {listed(silent)} {'finds' if len(silent) == 1 else 'find'} nothing that speaks for it"
    return text + "."


def _change(e: Explanation) -> list[str]:
    if e.change is None:
        return []
    found = [change for change in e.change.changes.values() if change]
    if not found:
        return ["No shift, covered square or blur that was tried changes the answer."]
    texts = [f"{'covering ' * (c.kind == 'occlusion')}{c.text} makes it {clipped(c.answer_name)}" for c in found]
    return [f"The least that changes the answer: {listed(texts)}."]


def _near(e: Explanation) -> list[str]:
    if e.near is None or not e.near.names:
        return []
    name, count = Counter(e.near.names).most_common(1)[0]
    total = len(e.near.names)
    which = f"all {total}" if count == total else f"{count}"
    return [f"Of the {number(total, 'image')} nearest to it among {e.near.searched:,}, {which} are labelled "
            f"{clipped(printable(name))}."]
