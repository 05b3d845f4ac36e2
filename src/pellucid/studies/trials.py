"""Single networks trained on chosen images for a planned number of steps, by the loop of `fit`."""

from __future__ import annotations

import time as clock
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from .. import data as datasets
from ..model import Model
from ..training import engines, recipes
from ..training import plan as planning
from ..training.augment import Augmentation
from ..training.measuring import measure
from ..training.progress import Progress
from ..training.result import Run
from ..training.setup import Setup, digest, facts, prepare
from ..training.trainer import Trainer

MEASURE, MEASURE_SHARE = 0.3, 0.02  # seconds that a network is timed, and at most that share of what there is
FEWEST = 2  # seeds that are trained with, whatever the time, if so many are asked for
LEAST_VALIDATION = 500  # images, where there are so many
UNTOUCHED = Augmentation(0)

Follow = Callable[[str, int, int], object]  # told what is done, how much of it, and how much there is


@dataclass(frozen=True)
class Style:
    """How networks are trained: whether images are changed, labels smoothed and weights averaged and weighted."""

    changes: Augmentation = UNTOUCHED
    label_smoothing: float = 0.0
    averaging: bool = False
    balance: bool | None = False


def digested(dataset: datasets.Dataset) -> datasets.Dataset:
    """The same data set, whose digest is not computed again for each run."""
    return replace(dataset, digest=digest(dataset))


def nested(labels: np.ndarray, groups: np.ndarray, seed: int) -> np.ndarray:
    """An order of the images such that the first n of it are stratified, for any n, and those of fewer are among those
    of more. Of every class one stands at the beginning; images of one group stand together as far as classes allow."""
    rng = np.random.default_rng((seed, len(labels)))
    _, group = np.unique(groups, return_inverse=True)
    order = np.lexsort((group, rng.permutation(group.max() + 1)[group]))  # groups in a random order
    place = np.empty(len(labels))
    for label in np.unique(labels):
        mine = order[labels[order] == label]
        place[mine] = (np.arange(len(mine)) + rng.uniform(0, 1, len(mine))) / len(mine)
        place[mine[0]] = -1 + rng.uniform(0, 1)
    return np.argsort(place, kind="stable")


def reduced(parts: datasets.Split, images: int, seed: int) -> datasets.Split:
    """The parts with so many training images; and for validation as many as `validation` says. Both are stratified, and
    fewer of a seed are among more."""
    train, fewer = (some(part, parts.groups[part.indices], count, seed) for part, count in (
        (parts.train, images), (parts.validation, validation(parts, images))))
    return replace(parts, train=train, validation=fewer)


def some(part: datasets.Part, groups: np.ndarray, count: int, seed: int) -> datasets.Part:
    """So many images of a part, stratified; all where there are no more."""
    return part if count >= len(part) else part.take(np.sort(nested(part.labels, groups, seed)[:count]))


def validation(parts: datasets.Split, images: int) -> int:
    """How many images are enough in validation, beside which training on so many would else take no time."""
    return min(len(parts.validation), max(images, LEAST_VALIDATION))


def setup_of(network, dataset: datasets.Dataset, parts: datasets.Split, plan: planning.Plan, seed: int,
             style: Style) -> Setup:
    """The settings of a run, as `fit` makes them; the network is a Network, a name or (name, options)."""
    weights, _ = recipes.class_weights(parts.train.labels, dataset.classes, style.balance)
    return prepare(network, dataset, plan, facts(dataset, parts, None), seed=seed, source=None, optimizer=None,
                   lr=None, label_smoothing=style.label_smoothing, changes=style.changes, class_weights=weights,
                   notes=[], averaging=style.averaging, tta=None, patience=0, begin=None, recipe=None)


def train(setup: Setup, parts: datasets.Split, progress: Callable[[Progress], None] | None = None
          ) -> tuple[Run, Model]:
    """Train; returns the run, which keeps the best weights by validation, and the model with those of the last step.

    As `fit`, it says `interrupted` after Ctrl-C and raises Diverged.
    """
    trainer = Trainer(setup, parts, progress, engines.choose())
    trainer.begin(None)
    return trainer.run({}, None), trainer.model


def pace(setup: Setup, parts: datasets.Split, ends: float) -> planning.Pace:
    """How fast a network trains here, where all must end before `ends`."""
    return measure(setup, parts, engines.choose(), min(MEASURE, MEASURE_SHARE * max(left(ends), 0.0)))


def seconds(pace: planning.Pace, plan: planning.Plan, parts: datasets.Split, validation: int, end: int) -> float:
    """How long a run by a plan takes, with so many images in validation, and so many more to evaluate at its end;
    `pace` was measured with the whole of the `parts`."""
    image, step = pace.epoch / len(parts.validation), pace.at(plan.batch_size).step
    return plan.steps * step + image * (plan.epochs * validation + validation + end)


def left(ends: float) -> float:
    """Seconds to plan with until `ends`, of a clock that `time.perf_counter` reads."""
    return planning.TIME_SHARE * (ends - clock.perf_counter())


def late(began: float, done: int, ends: float | None) -> bool:
    """Whether the next seed would end too late, by the time that those done took since `began`."""
    now = clock.perf_counter()
    return ends is not None and done >= FEWEST and now + (now - began) / done > ends
