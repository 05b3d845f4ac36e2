"""The page of `pellucid study`: each claim about convolutional networks, and what was measured of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..studies import Study
from .shell import Section, page, render

if TYPE_CHECKING:
    from ..draw import Picture


def study_page(
    title: str, facts: Sequence[tuple[str, object]], studies: Sequence[Study], refused: Mapping[str, str],
    foot: str = "",
) -> tuple[str, dict[str, Picture]]:
    """The page, and its pictures by the name that each has as a file.

    `facts` are pairs of what and how much for the head; `refused` says of studies by name why they do not apply; `foot`
    stands at the end.
    """
    pictures, sections = {}, []
    for study in studies:
        figures = {f"{study.name}-{i}": figure for i, figure in enumerate(study.figures(), 1)}
        pictures |= figures
        sections.append(Section(study.title, render("studied/study.html", sentence=study.sentence, figures=figures),
                                study.claim, study.name))
    if refused:
        sections.append(Section("Not measured", render("left_out.html", reasons=refused),
                                "What this network or these images do not allow.", "refused"))
    return page(title, sections, top=render("studied/head.html", facts=facts), foot=foot), pictures
