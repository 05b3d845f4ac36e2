"""All there is to say about one answer, as one value: what `pellucid explain` shows.

Nothing is explained here: each part is asked of the method that knows it, and a part that a network or its data do not
allow is left out with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..data import Dataset, Part
from ..layers.base import as_image
from ..model import Model
from . import METHODS, Curve, Map, Neighbours, SmallestChange, neighbours, smallest_change
from .agreement import AGREE, overlap
from .layer_maps import LayerMaps, layer_maps
from .occlusion import SQUARES
from .path import Path, strongest_path
from .question import ask
from .region import Answer, Region, region, strongest
from .scores import compared

LARGE = 5e8  # multiply-adds of a network from which on methods that ask it very often take coarser steps
STEPS, COARSE = 32, 4  # of deletion and insertion, the latter for a large network; never more than pixels
TERMS = 8  # of each number on the path, as data

Progress = Callable[[str, int, int], object]


@dataclass(frozen=True, eq=False)
class Scored:
    """A map, and how well it finds what the answer depends on."""

    map: Map
    deletion: Curve
    insertion: Curve


@dataclass(frozen=True, eq=False)
class Explanation:
    """Why a model gives a class for an image.

    image: as it was given; answer: what the model says of it; target: the class explained; rejected: whether the
    model's threshold says that it is none of its classes; maps: those of the methods; shared: (M, M), what each two of
    them share of what matters most (`agreement.overlap`), NaN where one names nothing; region: the part that was asked
    about or, if `found`, the one over which the map of occlusion is largest; change, near, layers, path: see their
    functions; asked: the path from the number that was asked about. `missing` says why a part or a method, by its
    name, is not there.
    """

    classes: list[str]
    image: np.ndarray
    answer: Answer
    target: int
    rejected: bool
    maps: list[Scored]
    shared: np.ndarray
    region: Region
    found: bool
    change: SmallestChange | None
    near: Neighbours | None
    layers: list[LayerMaps]
    path: Path
    asked: Path | None
    missing: dict[str, str]

    def groups(self) -> tuple[list[str], list[str], list[str]]:
        """The methods that agree with the best of them by deletion and insertion, that one first; those that do not;
        and those that find nothing that speaks for the target. Of no methods three times none."""
        silent = [i for i in range(len(self.maps)) if np.isnan(self.shared[i, i])]
        ranked = sorted((i for i in range(len(self.maps)) if i not in silent),
                        key=lambda i: -self.maps[i].deletion.gain - self.maps[i].insertion.gain)
        agreeing = [i for i in ranked if self.shared[ranked[0], i] >= AGREE]
        others = [i for i in ranked if i not in agreeing]
        return tuple([self.maps[i].map.method for i in each] for each in (agreeing, others, silent))

    def to_json(self) -> dict:
        """As dicts, lists, texts and numbers; maps as what they are made of and how good they are."""
        def say(answer: Answer) -> dict:
            return {"answer": self.classes[answer.best], "probability": float(answer.probabilities[self.target]),
                    "logit": float(answer.logits[self.target])}

        ranked = np.argsort(-self.answer.probabilities, kind="stable")
        agreeing, others, silent = self.groups()
        r, near = self.region, self.near
        return {
            "target": self.classes[self.target], **say(self.answer), "rejected": self.rejected,
            "probabilities": {self.classes[i]: float(self.answer.probabilities[i]) for i in ranked},
            "maps": [{"method": s.map.method, "layer": s.map.layer, "note": s.map.note, **s.map.facts,
                      **{f"{c.kind}_{key}": value for c in (s.deletion, s.insertion)
                         for key, value in (("area", c.area), ("random", c.control_area), ("gain", c.gain))}}
                     for s in self.maps],
            "shared": [[None if np.isnan(v) else float(v) for v in row] for row in self.shared],
            "agreeing": agreeing, "elsewhere": others, "silent": silent,
            "region": {"box": list(r.box), "found": self.found, "without": say(r.covered), "alone": say(r.alone),
                       "adds": {self.classes[i]: float(r.speaks[i]) for i in ranked}},
            "changes": self.change and {
                kind: change and {"text": change.text, "answer": change.answer_name, "probability": change.probability,
                                  **{name: float(value) for name, value in change.where.items()}}
                for kind, change in self.change.changes.items()},
            "neighbours": near and [{"index": int(i), "label": label, "distance": float(d)} for i, label, d in zip(
                near.indices, near.names or [None] * len(near.indices), near.distances, strict=True)],
            "layers": [{"layer": layer.name, "kind": layer.kind, "shape": list(layer.shape), "channels": [
                {"channel": c, "influence": float(v)} for c, v in zip(layer.channels, layer.influence, strict=True)]}
                for layer in self.layers],
            "path": [step.terms.to_json(TERMS) for step in self.path.steps],
            "at": self.asked and self.asked.steps[0].terms.to_json(),
            "left_out": self.missing,
        }


def explain_image(model: Model, image: np.ndarray, target: int | str | None = None, *,
                  methods: Sequence[str] | None = None, box: Sequence[int] | None = None,
                  at: str | None = None, data: Dataset | Part | None = None,
                  progress: Progress | None = None) -> Explanation:
    """Everything about one answer.

    `image` is of the network's size; `target` the class to explain, by default the answer; `methods` names those of
    `METHODS` to use, by default all that the network allows; `box` (y, x, height, width) the part of the image to ask
    about; `at` a number to open, as in conv1[3,4,0], whose field is that part where none is given; `data` the images to
    search for neighbours. `progress` is called with what is done next, the steps done and their number. Raises
    ValueError for what cannot be asked about (`question.ask`), and where a method that was named does not apply.
    """
    question = ask(model, image, target)
    names = list(METHODS) if methods is None else list(dict.fromkeys(methods))
    if unknown := [name for name in names if name not in METHODS]:
        raise ValueError(f"there is no method {unknown[0]!r}; there are {', '.join(METHODS)}")
    stages = [*names, "comparing the maps", "covering parts", "smallest change", "neighbours", "layers", "terms"]
    large = sum(model.network.macs.values()) > LARGE
    missing: dict[str, str] = {}

    def tell(stage: str) -> None:
        if progress:
            progress(stage.replace("_", " "), stages.index(stage), len(stages))

    def attempt(stage: str, make: Callable, required: bool = False):
        tell(stage)
        try:
            return make()
        except ValueError as e:
            if required:
                raise ValueError(f"{stage.replace(' ', '_')}: {e}") from None
            missing[stage] = str(e)
            return None

    maps = []
    for name in names:
        options = _coarse_method(name, question.read.shape) if large else {}
        made = attempt(name, lambda name=name, options=options: METHODS[name](model, image, question.target, **options),
                       methods is not None)
        if made is not None:
            maps.append(made)
    tell("comparing the maps")
    steps = min(COARSE if large else STEPS, question.read.size // question.read.shape[-1])
    scored = [Scored(map, *curves) for map, curves in zip(maps, compared(model, maps, steps=steps), strict=True)]
    tell("covering parts")
    asked = None if at is None else strongest_path(model, image, question.target, at=at)
    if box is None and asked is not None:
        box = asked.steps[0].seen
    found = box is None
    if found:
        occluded = next((map for map in maps if map.method == "occlusion"), None)
        box = strongest((occluded or METHODS["occlusion"](model, image, question.target)).values)
    part = region(model, image, box, question.target)
    answer = part.whole
    grids = _coarse(question.read.shape) if large else {}
    change = attempt("smallest change", lambda: smallest_change(model, image, **grids))
    near = None
    if data is None:
        missing["neighbours"] = "no images to search were given"
    else:
        near = attempt("neighbours", lambda: neighbours(model, image, data))
        if near is not None and hasattr(data, "indices"):  # of a part of a data set: which of all images these are
            near = replace(near, indices=data.indices[near.indices])
    layers = attempt("layers", lambda: layer_maps(model, image, question.target))
    if not layers:
        missing.setdefault("layers", "no layer of this network has positions: each unit sees the whole image")
    tell("terms")
    path = strongest_path(model, image, question.target)
    rejected = model.calibration is not None and bool(model.calibration.rejects(answer.probabilities[None])[0])
    return Explanation(
        list(model.classes), question.image, answer, question.target, rejected, scored, _shared(maps), part, found,
        change, near, layers or [], path, asked, missing)


def _shared(maps: Sequence[Map]) -> np.ndarray:
    found = [[overlap(a.values, b.values) for b in maps] for a in maps]
    return np.array(found, float).reshape(len(maps), len(maps))  # None becomes NaN


def _coarse_method(name: str, shape: tuple[int, ...]) -> dict:
    """How a method that asks the network often takes coarser steps."""
    if name == "occlusion":  # neighbouring squares overlap by a quarter instead of half
        return {"stride": max(1, 3 * max(2, round(max(as_image(shape)[:2]) / SQUARES)) // 4)}
    return {"steps": STEPS} if name == "integrated_gradients" else {}


def _coarse(shape: tuple[int, ...]) -> dict:
    """Grids of `smallest_change` with few points, for a network that takes long to ask."""
    longer = max(as_image(shape)[:2])
    sizes = sorted({max(longer // n, 1) for n in (32, 16, 8)})
    return {"shifts": sizes, "sides": sorted({max(longer // n, 1) for n in (4, 2)}), "sigmas": sizes}
