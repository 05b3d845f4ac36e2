"""The smallest change: how little it takes for the model to answer otherwise."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from math import hypot
from numbers import Real
from typing import TYPE_CHECKING

import numpy as np

from ..layers.base import as_image
from ..model import Model
from ..network import brief
from ..texts import printable
from .blur import blurred
from .maps import side_by_side
from .occlusion import starts
from .question import BATCH, checked, chosen, empty, require_pixels

if TYPE_CHECKING:
    from ..draw import Picture

FEW = 8  # distances that are all tried; of more, powers of two
STEPS = 16  # of squares along the longer side of an image

Make = Callable[[], np.ndarray]


@dataclass(frozen=True, eq=False)
class Change:
    """A change that was tried and that changes the answer.

    kind: "shift", "occlusion" or "blur"; amount: the length of the shift, the square's side or the standard deviation
    of the blur, in pixels; where: its numbers by name (dy, dx; top, left, side; sigma); text: the same in words; image:
    the changed image, which can be looked at and predicted again; answer, answer_name, probability: what the model says
    of it.
    """

    kind: str
    amount: float
    where: dict[str, float]
    text: str
    image: np.ndarray
    answer: int
    answer_name: str
    probability: float


@dataclass(frozen=True, eq=False)
class SmallestChange:
    """The smallest change of each kind, or None where nothing that was tried changes the answer.

    image, answer, answer_name: what was asked and what the model says of it; target: the class to be reached, or None
    for any other; changes: by kind; searched: by kind, in words, all that is tried from small to large until one is
    found.
    """

    image: np.ndarray
    answer: int
    answer_name: str
    target: int | None
    changes: dict[str, Change | None]
    searched: dict[str, str]

    @property
    def picture(self) -> Picture:
        """The image and what each kind of change makes of it."""
        found = [change for change in self.changes.values() if change]
        captions = [f"{printable(change.answer_name)}\n{change.kind}" for change in found]
        return side_by_side([self.image, *(change.image for change in found)], [printable(self.answer_name), *captions])

    def _repr_html_(self) -> str:
        lines = "<br>".join(map(escape, str(self).splitlines()))
        return f"<figure>{self.picture}<figcaption>{lines}</figcaption></figure>"

    def __str__(self) -> str:
        """A line for each kind."""
        return "\n".join(
            f"{kind}: {change.text} makes it {printable(change.answer_name)} ({change.probability:.0%})" if change
            else f"{kind}: none of {self.searched[kind]}" for kind, change in self.changes.items())


@dataclass(frozen=True)
class _Trial:
    amount: float
    where: dict[str, float]
    text: str
    make: Make


def smallest_change(model: Model, image: np.ndarray, target: int | str | None = None, *,
                    shifts: Sequence[int] | None = None, sides: Sequence[int] | None = None,
                    sigmas: Sequence[float] | None = None, baseline: np.ndarray | None = None) -> SmallestChange:
    """The smallest shift, occlusion and blur after which the answer is `target`, by default any other class than now.

    Every change of a grid is tried on the model, from small to large, until one does it; none smaller on that grid does
    then. The answer is what `Model.predict` finds most probable.

    - **Shift**: by each pair of the distances `shifts` in pixels, both ways and 0 included, the shortest first; of
      equal ones the higher up, then the further left. What comes in repeats the border. By default every distance up to
      a quarter of the axis if these are at most 8, else powers of two.
    - **Occlusion**: squares, in signals stretches, with each of `sides` in pixels, from top left to bottom right in
      steps of a 16th of the image's longer side, at least a pixel, and the last of a row at the border. They show
      `baseline`, an image like `image`; by default what the network reads as zero, the mean colour of the training
      images. By default as many sides as steps fit into half the image.
    - **Blur**: by a Gaussian with each of `sigmas`, its standard deviation in pixels, by default every half pixel up to
      an eighth of the longer side.

    Raises ValueError for grids that are not of positive numbers, for a target that is the answer already, and for what
    cannot be asked about.
    """
    require_pixels(model)
    image = checked(model, image)
    answer = chosen(model, image, None)
    wanted = None if target is None else chosen(model, image, target)
    if wanted == answer:
        raise ValueError(f"the answer is {model.classes[answer]!r} already; name another class, or none for any other")
    height, width = as_image(image.shape)[:2]
    step = max(1, max(height, width) // STEPS)
    given = [_checked("shifts", shifts, int), _checked("sides", sides, int), _checked("sigmas", sigmas, Real)]
    apart = [_distances(n // 4) if given[0] is None else given[0] for n in (height, width)]
    sides = range(step, max(step, max(height, width) // 2) + 1, step) if given[1] is None else given[1]
    sigmas = np.arange(0.5, max(0.5, max(height, width) / 8) + 0.01, 0.5).tolist() if given[2] is None else given[2]
    kinds = {"shift": list(_shifts(image, apart)),
             "occlusion": list(_squares(image, _baseline(model, image, baseline), sides, step)),
             "blur": [_Trial(s, {"sigma": s}, f"a blur of {s:g} pixels", lambda s=s: blurred(image, s))
                      for s in sigmas]}
    changes = {kind: _first(model, kind, trials, answer, wanted) for kind, trials in kinds.items()}
    squares = "squares" if image.ndim == 3 else "stretches"
    searched = {
        "shift": f"{len(kinds['shift']):,} shifts by {_listed(sorted({*apart[0], *apart[1]}))} pixels along an axis",
        "occlusion": f"{len(kinds['occlusion']):,} {squares} of {_listed(list(sides))} pixels, {step} apart",
        "blur": f"{len(kinds['blur']):,} blurs of {_listed(sigmas)} pixels",
    }
    return SmallestChange(image, answer, model.classes[answer], wanted, changes, searched)


def _first(model: Model, kind: str, trials: list[_Trial], answer: int, wanted: int | None) -> Change | None:
    """The first trial that changes the answer as wanted, seen on the changed image alone."""
    for start in range(0, len(trials), BATCH):
        part = trials[start:start + BATCH]
        answers = model.log_probabilities(np.stack([t.make() for t in part])).argmax(axis=1)
        for i in np.flatnonzero(answers != answer if wanted is None else answers == wanted):
            changed = part[i].make()
            logs = model.log_probabilities(changed[None])[0]
            now = int(logs.argmax())
            if now == answers[i]:
                return Change(kind, part[i].amount, part[i].where, part[i].text, changed, now, model.classes[now],
                              float(np.exp(logs[now])))
    return None


def _shifts(image: np.ndarray, distances: list[Sequence[int]]) -> Iterator[_Trial]:
    height, width = as_image(image.shape)[:2]
    rows, columns = ([0, *(s * d for d in each if d < n for s in (-1, 1))]
                     for each, n in zip(distances, (height, width), strict=True))
    pairs = sorted(((y, x) for y in rows for x in columns if y or x), key=lambda p: (p[0]**2 + p[1]**2, p))
    for dy, dx in pairs:
        ways = [f"{abs(d)} {way}" for d, way in ((dy, "down" if dy > 0 else "up"), (dx, "right" if dx > 0 else "left"))
                if d]
        yield _Trial(hypot(dy, dx), {"dy": dy, "dx": dx}, f"a shift by {' and '.join(ways)}",
                     lambda dy=dy, dx=dx: shifted(image, dy, dx))


def shifted(image: np.ndarray, dy: int, dx: int) -> np.ndarray:
    """(H, W, C), or (L, C) with dy 0, moved down and right; what comes in repeats the border."""
    rows = image if image.ndim == 3 else image[None]
    y = np.clip(np.arange(rows.shape[0]) - dy, 0, rows.shape[0] - 1)
    x = np.clip(np.arange(rows.shape[1]) - dx, 0, rows.shape[1] - 1)
    return rows[y[:, None], x].reshape(image.shape)


def _squares(image: np.ndarray, baseline: np.ndarray, sides: Sequence[int], step: int) -> Iterator[_Trial]:
    height, width = as_image(image.shape)[:2]
    for side in sides:
        for top in starts(height, side, step):
            for left in starts(width, side, step):
                text = (f"a square of {side}x{side} pixels at row {top}, column {left}" if image.ndim == 3 else
                        f"a stretch of {side} pixels at {left}")
                yield _Trial(side, {"top": top, "left": left, "side": side}, text,
                             lambda top=top, left=left, side=side: _covered(image, baseline, top, left, side))


def _covered(image: np.ndarray, baseline: np.ndarray, top: int, left: int, side: int) -> np.ndarray:
    changed = image.copy()
    rows, below = (a if a.ndim == 3 else a[None] for a in (changed, baseline))
    rows[top:top + side, left:left + side] = below[top:top + side, left:left + side]
    return changed


def _baseline(model: Model, image: np.ndarray, baseline: np.ndarray | None) -> np.ndarray:
    """What squares show, of the image's own type."""
    if baseline is not None:
        baseline = checked(model, baseline)
        if baseline.dtype != image.dtype:
            raise ValueError(f"the baseline must be {image.dtype} as the image is, got {baseline.dtype}")
        return baseline
    return empty(model, image)


def _distances(most: int) -> list[int]:
    """From 1 to `most`: all, or where these are many the powers of two."""
    return list(range(1, most + 1)) if most <= FEW else [1 << i for i in range(most.bit_length())]


def _checked(what: str, values, kind: type) -> list | None:
    """A grid's numbers in ascending order. Raises ValueError unless they are positive and of that kind."""
    if values is None:
        return None
    values = [v.item() if isinstance(v, np.generic) else v for v in np.ravel(values)] if np.size(values) else []
    if not values or not all(isinstance(v, kind) and not isinstance(v, bool) and 0 < v < 10_000 for v in values):
        what_kind = "integers" if kind is int else "numbers"
        raise ValueError(f"{what} must be positive {what_kind}, at least one, got {brief(values)}")
    return sorted(set(values))


def _listed(values: Sequence[float]) -> str:
    """The numbers, or of more than four the first two and the last."""
    if len(values) > 4:
        return f"{values[0]:g}, {values[1]:g}, ... {values[-1]:g}"
    return ", ".join(f"{v:g}" for v in values) or "no"
