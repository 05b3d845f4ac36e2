"""The worst mistakes, each with two explanations that were found in different ways, and whether these agree."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .. import draw, explain
from ..engine.library import KernelError, NoKernels
from ..evaluation import Evaluation
from ..explain import Map
from ..explain.agreement import AGREE, overlap
from ..explain.maps import words
from ..model import Model
from .pictures import name_of, thumbnail

METHODS = ("grad_cam", "occlusion", "gradient_times_input")  # the first two that the network allows are shown
MOST, LEAST = 12, 3  # mistakes that are explained
BUDGET = 4e11  # multiply-adds that explaining them may take, unless LEAST take more
PASSES = 200  # of the network for one mistake, about: most of them are occlusion's
SIDE = 160  # pixels of the longer side of an image and its maps that are kept


@dataclass(frozen=True)
class Explained:
    """A mistake: the image's name and what is told of it, its picture, a picture a map, and how far these agree."""

    name: str
    told: dict
    image: draw.Picture
    maps: list[tuple[str, draw.Picture]]
    agreement: str
    agree: bool | None


def explained(model: Model, result: Evaluation) -> tuple[list[Explained], str]:
    """The surest mistakes and why the model made them; where some are left out, or cannot be explained, the reason."""
    if result.images is None or result.images.dtype != np.uint8 or result.images.ndim != 4:
        return [], "The images were given as numbers that the network reads; these cannot be shown."
    macs = sum(model.network.macs.values())
    most = int(min(max(BUDGET // (PASSES * max(macs, 1)), LEAST), MOST))
    places = result.wrong[:most].tolist()
    images = [np.asarray(result.images[place]) for place in places]
    left_out = "" if len(places) == min(len(result.wrong), MOST) else (
        f"The network is large: only {len(places)} are explained. pellucid explain MODEL IMAGE explains any one.")
    try:
        maps = _maps(model, images, result.answers.predicted[places].tolist())
    except (KernelError, NoKernels, ValueError) as e:
        maps, left_out = [], f"They cannot be explained here: {e}."
    found = [
        Explained(name_of(result, place), result.answer(place), draw.image(thumbnail(images[i], SIDE)),
                  [_picture(images[i], each[i]) for each in maps], *_agreement([each[i] for each in maps]))
        for i, place in enumerate(places)
    ]
    return found, left_out


def _maps(model: Model, images: list[np.ndarray], targets: list[int]) -> list[list[Map]]:
    """By up to two methods, a map of each image, of why the answer was its target. Raises ValueError where no method
    can make them."""
    found, refused = [], None
    for name in METHODS:  # one after the other: each computes with plans of its own, of which few are kept
        try:
            found.append([explain.METHODS[name](model, image, target)
                          for image, target in zip(images, targets, strict=True)])
        except ValueError as e:
            refused = e
        if len(found) == 2:
            return found
    if not found:
        raise refused
    return found


def _picture(image: np.ndarray, m: Map) -> tuple[str, draw.Picture]:
    """What a map is called, and the map over its image."""
    small = thumbnail(image, SIDE)
    return words(m.method), draw.overlay(small, shrunk(m.values, small.shape[:2]))


def shrunk(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A map brought to a smaller size, each value the mean of what it stands for."""
    from PIL import Image

    if values.shape == size:
        return values
    return np.asarray(Image.fromarray(values).resize(size[::-1], Image.Resampling.BOX))


def _agreement(maps: list[Map]) -> tuple[str, bool | None]:
    """A sentence, and whether two maps agree: None where that cannot be said."""
    if len(maps) < 2:
        return "This network allows one explanation only." * len(maps), None
    share = overlap(maps[0].values, maps[1].values)
    if share is None:
        return "One of the two finds nothing that speaks for the answer, so they cannot be compared.", None
    if share >= AGREE:
        return f"The two agree: of what matters most to each they share {share:.0%}.", True
    return f"The two disagree: of what matters most to each they share {share:.0%}.", False
