"""How well what is learned holds for what was not seen: polynomials, growing networks, and growing data, in one go."""

from __future__ import annotations

import os
import time as clock
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .. import data as datasets
from .. import distributed, zoo
from ..training import plan as planning
from . import capacity, learning_curve, polynomials
from .capacity import Capacity
from .learning_curve import LearningCurve
from .polynomials import Polynomials
from .trials import Follow

TIME, SEEDS = 100.0, 5
DEGREES = (1, 2, 10)
SHARE = 0.55  # of the time, for networks of growing width; the learning curve gets what is left


@dataclass
class Generalisation:
    """What was found on a data set; `curve` is None where Ctrl-C came before it, or a `problem`."""

    data: str
    classes: int
    shape: tuple[int, ...]
    time: float
    polynomials: Polynomials
    capacity: Capacity | None = None
    curve: LearningCurve | None = None
    seconds: float = 0.0
    problem: str | None = None

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C left some of it undone."""
        parts = [part for part in (self.capacity, self.curve) if part is not None]
        return self.curve is None and self.problem is None or any(part.interrupted for part in parts)

    def words(self) -> str:
        """The plain answer to whether more images help."""
        return self.curve.answer().why if self.curve else self.problem or "The learning curve was not measured."

    def to_json(self) -> dict:
        """Everything as plain numbers, lists and dicts."""
        return {
            "data": self.data, "classes": self.classes, "shape": list(self.shape), "time": self.time,
            "seconds": self.seconds, "interrupted": self.interrupted, "problem": self.problem,
            "polynomials": self.polynomials.to_json(),
            "capacity": self.capacity and self.capacity.to_json(),
            "learning_curve": self.curve and self.curve.to_json(),
        }


def study(data: str | os.PathLike | datasets.Dataset, *, time: float | str = TIME, seeds: int = SEEDS,
          network: str | None = None, degrees: Sequence[int] = DEGREES, progress: Follow | None = None,
          loading: Callable[[int, int], object] | None = None,
          done: Callable[[Generalisation], object] | None = None) -> Generalisation:
    """All of it within about `time`, seconds or like "2m", which reading the images does not count for.

    network: the one of the zoo that the learning curve is of, by default one that suits the images.
    progress: called with what is done, how far that is, and how far it goes.
    loading: as by `data.load`. done: called whenever a network has been trained.

    Ctrl-C ends it; what was measured until then is kept. Raises ValueError for settings that do not fit each other, and
    where the time is too short; DataError for data that cannot be used.
    """
    if distributed.world() > 1:
        raise ValueError(f"{distributed.world()} processes train one network together; measure in one process")
    time, seeds = planning.duration(time), planning.whole("seeds", seeds, 1, 1000)
    if network is not None:
        zoo.require(network)
    fits = polynomials.study(degrees)
    dataset = data if isinstance(data, datasets.Dataset) else datasets.load(data, progress=loading)
    if network is not None:  # whether the images fit it, before anything is trained
        zoo.build(network, input_shape=dataset.input_shape, classes=len(dataset.classes))
    learning_curve.require_enough(dataset)
    tell = done or (lambda _: None)
    began = clock.perf_counter()
    made = Generalisation(dataset.name, len(dataset.classes), dataset.input_shape, time, fits)

    def keep(name: str, part) -> None:
        setattr(made, name, part)
        made.seconds = clock.perf_counter() - began
        tell(made)

    try:
        made.capacity = capacity.study(dataset, ends=began + SHARE * time, seeds=seeds, progress=progress,
                                       done=lambda part: keep("capacity", part))
        if not made.capacity.interrupted:
            # What others did to the computer meanwhile may have taken its time: the curve has its share all the same.
            ends = max(began + time, clock.perf_counter() + (1 - SHARE) * time)
            made.curve = learning_curve.study(dataset, network=network, ends=ends, seeds=seeds, progress=progress,
                                              done=lambda part: keep("curve", part))
    except ValueError as e:
        if made.capacity is None:
            raise
        made.problem = str(e)  # and what was measured before is kept
    except KeyboardInterrupt:
        pass
    made.seconds = clock.perf_counter() - began
    return made
