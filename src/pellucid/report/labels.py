"""The labels that the model itself disputes most."""

from __future__ import annotations

import numpy as np

from ..evaluation import Evaluation
from ..evaluation.advice import surely_disputed
from ..texts import clipped
from .pictures import Album
from .shell import Section, section

MOST = 12  # labels shown of each part


def disputed(result: Evaluation, seen: Evaluation | None, album: Album) -> Section:
    """Those of the images it is evaluated on, and of `seen`, images that it was trained on."""
    parts = [("Images it was trained on", "With these labels it was trained, and still it says otherwise.", seen),
             ("The images of this evaluation", "", result)]
    galleries = []
    for title, lead, part in parts:
        if part is not None and (found := part.disputed):
            surely = dict.fromkeys(surely_disputed(part))
            chosen = [*surely, *(place for place, _ in found if place not in surely)][:MOST]
            notes = [_note(part, place, place in surely) for place in chosen]
            galleries.append({"title": title, "lead": lead, "disputed": len(found), "count": part.count,
                              "surely": len(surely), "pictures": album.take(part, chosen, notes)})
    return section("Disputed labels", "labels", "classifier/labels.html", galleries=galleries)


def _note(result: Evaluation, place: int, surely: bool) -> str:
    told = result.answer(place)
    own, other = float(np.exp(-result.answers.losses[place])), told["probability"]
    return (f"labelled {clipped(told['true'])} ({own:.1%}), looks like {clipped(told['predicted'])} ({other:.1%})"
            + " *" * surely)
