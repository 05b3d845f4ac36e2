"""The confusion matrix and the images behind its cells."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .. import draw
from ..evaluation import Evaluation
from ..evaluation.scores import CONFUSED_PAIRS
from ..texts import clipped, number
from .pictures import Album, Shown

CLASSES = 40  # that the matrix shows; where there are more, those with most mistakes
WRONG, RIGHT = 8, 4  # pictures shown of a cell off the diagonal, and on it
NAME = 20  # characters of a class's name


@dataclass(frozen=True)
class Cell:
    """A cell that opens: its anchor, what it holds in words, and the first of its pictures."""

    anchor: str
    title: str
    note: str
    pictures: list[Shown]


@dataclass(frozen=True)
class Confusion:
    """The matrix as a picture, its cells, the anchors of those by (true, predicted), and what is left out."""

    picture: draw.Picture
    cells: list[Cell]
    anchors: dict[tuple[int, int], str]
    note: str


def confusion(result: Evaluation, album: Album) -> Confusion:
    """The matrix of the classes that fit, whose cells lead to their pictures as long as there is room for these."""
    wrong = result.confusion - np.diag(np.diag(result.confusion))
    mistakes = wrong.sum(axis=0) + wrong.sum(axis=1)
    # The pairs that are confused most are always there.
    first = np.unique(np.unravel_index(np.argsort(-wrong, axis=None, kind="stable")[:CONFUSED_PAIRS], wrong.shape))
    mistakes[first] += mistakes.sum()
    chosen = np.sort(np.argsort(-mistakes, kind="stable")[:CLASSES])
    places = {cell: p for cell, p in result.cells().items() if cell[0] in chosen and cell[1] in chosen}
    # Cells with most mistakes first, then the diagonal; the mistakes of one class together.
    order = sorted(places, key=lambda cell: (cell[0] == cell[1], -len(places[cell]), cell))
    cells, anchors = [], {}
    for true, predicted in order:
        cell = _cell(result, true, predicted, places[true, predicted], album)
        if cell.pictures:
            cells.append(cell)
            anchors[true, predicted] = cell.anchor
    names = [clipped(result.classes[i].name, NAME) for i in chosen]
    links = [[f"#{anchors[i, j]}" if (i, j) in anchors else None for j in chosen.tolist()] for i in chosen.tolist()]
    notes = []
    if len(chosen) < len(result.classes):
        inside = int(wrong[np.ix_(chosen, chosen)].sum())
        notes.append(f"Of {len(result.classes):,} classes the {len(chosen)} with most mistakes are shown, and "
                     f"{inside:,} of the {number(int(wrong.sum()), 'mistake')} lie among them.")
    if cells and len(cells) < len(places):
        notes.append(f"{len(cells):,} of {len(places):,} cells open, those with most mistakes first.")
    totals = [result.confusion.sum(axis=axis)[chosen] for axis in (1, 0)]
    picture = draw.confusion(result.confusion[np.ix_(chosen, chosen)], names, links=links, totals=totals)
    return Confusion(picture, cells, anchors, " ".join(notes))


def _cell(result: Evaluation, true: int, predicted: int, places: np.ndarray, album: Album) -> Cell:
    name, right = clipped(result.classes[true].name, NAME), true == predicted
    some = places[:RIGHT if right else WRONG]
    pictures = album.take(result, some, [f"{result.answers.confidence[i]:.1%}" for i in some])
    title = f"{name}, recognised" if right else f"{name} taken for {clipped(result.classes[predicted].name, NAME)}"
    which = "" if len(pictures) == len(places) else (
        f", of which the {len(pictures)} " + ("least sure" if right else "surest") + " are shown")
    note = f"{number(len(places), 'image')}{which}; with the probability of the answer."
    return Cell(f"cell-{true}-{predicted}", title, note, pictures)
