"""Accuracy and log loss against the number of training images, and whether more of them would help.

All sizes get the same number of steps of the same batch, so the same computing: of fewer images each is seen more
often. With equally many epochs instead, small sizes would be trained too little, and what is put down to images would
in part be due to steps. Networks are trained as `fit` does by default; those weights count that are best in validation.

With a seed go a split and an order of the training images of which each size takes the first ones, so that those of
fewer are among those of more. Validation is as `split` has it, but on no more images than training, or 500. Test images
never take part in training or in a choice: they are what is measured with.
"""

from __future__ import annotations

import functools
import itertools
import time as clock
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace

import numpy as np

from .. import data as datasets
from .. import zoo
from ..network import Network
from ..texts import number
from ..training import plan as planning
from ..training import recipes
from ..training.step import Diverged
from . import power_law, trials
from .power_law import Estimate, PowerLaw
from .trials import Follow

SIZES = 5  # each has half the images of the next
LEAST_IMAGES, LEAST_OF_CLASS = 16, 2  # of the smallest size
WORTH = 0.1  # share of the mistakes whose end is worth twice the images
SMALLER = 0.8  # by which images are made fewer where there is no time for all
MOST_TESTED = 2000  # test images, where there is no time for all
CHANCE = 0.9  # of the mistakes of who always names the commonest class; above that nothing was learned
YES, HARDLY, UNTOLD = "yes", "hardly", "cannot tell"


@dataclass(frozen=True)
class Trial:
    """So many training images with one seed, measured on `count` test images of which `wrong` were taken for another
    class; `log_loss` is that of calibrated probabilities."""

    images: int
    seed: int
    count: int
    wrong: int
    log_loss: float
    validation_accuracy: float
    best_epoch: int
    seconds: float

    @property
    def accuracy(self) -> float:
        return 1 - self.wrong / self.count


@dataclass(frozen=True)
class Row:
    """One size over the seeds: means and standard deviations (None of one seed), in the test."""

    images: int
    seeds: int
    accuracy: float
    accuracy_deviation: float | None
    log_loss: float
    log_loss_deviation: float | None


@dataclass(frozen=True)
class Answer:
    """Whether twice the images would help: `word` is yes, hardly or cannot tell, `why` says it with numbers.

    `mistakes` is the share of mistakes that would go, `accuracy` what would be reached and `log_loss` likewise: each a
    median and the ends of a 95% interval; None where nothing could be fitted.
    """

    word: str
    why: str
    images: int
    mistakes: Estimate | None = None
    now: Estimate | None = None
    accuracy: Estimate | None = None
    log_loss: Estimate | None = None
    exponent: Estimate | None = None


@dataclass
class LearningCurve:
    """All trials, in the order in which they were trained: every size for `steps` steps of `batch_size` images.

    `available` is the number of training images; where there was no time for them, `sizes` end before. `chance` is the
    share of mistakes of who always names the commonest class.
    """

    network: str
    parameters: int
    available: int
    chance: float
    sizes: list[int]
    steps: int
    batch_size: int
    trials: list[Trial] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    interrupted: bool = False

    def table(self) -> list[Row]:
        """A row a size that was measured, the smallest first."""
        rows = []
        for size in self.sizes:
            if mine := [t for t in self.trials if t.images == size]:
                accuracy, loss = np.array([t.accuracy for t in mine]), np.array([t.log_loss for t in mine])
                several = len(mine) > 1
                rows.append(Row(size, len(mine), float(accuracy.mean()),
                                float(accuracy.std(ddof=1)) if several else None, float(loss.mean()),
                                float(loss.std(ddof=1)) if several else None))
        return rows

    def fits(self) -> tuple[PowerLaw, PowerLaw] | None:
        """The power laws of the share of mistakes and of the log loss, through sizes at which something was learned;
        None where those are too few."""
        learned = {row.images for row in self.table() if 1 - row.accuracy < CHANCE * self.chance}
        mine = [t for t in self.trials if t.images in learned]
        if len(learned) < power_law.LEAST:
            return None
        # Half a mistake is added, so that none can be taken the logarithm of; few scatter more than many.
        wrong = np.array([t.wrong + 0.5 for t in mine])
        n, seeds = [t.images for t in mine], [t.seed for t in mine]
        return (power_law.fit(n, wrong / [t.count + 1 for t in mine], seeds, wrong),
                power_law.fit(n, [max(t.log_loss, 1e-12) for t in mine], seeds))

    def answer(self) -> Answer:
        """Would more images help?"""
        twice, rows = 2 * self.available, self.table()
        if (found := self.fits()) is None:
            learned = [row for row in rows if 1 - row.accuracy < CHANCE * self.chance]
            why = (f"{len(learned)} of {len(rows)} sizes were learned from, and it takes {power_law.LEAST} to tell"
                   if rows else "nothing was measured")
            if len(rows) >= power_law.LEAST and not learned:
                why = ("with none of the sizes the network does better than always naming the commonest class; look at "
                       "the labels first (pellucid data labels)")
            return Answer(UNTOLD, f"Cannot tell: {why}.", twice)
        mistakes, losses = found
        gone = mistakes.removed(self.available, twice)
        now, then = (_accuracy(mistakes.at(n)) for n in (self.available, twice))
        word = YES if gone[1] >= WORTH else HARDLY if gone[2] < WORTH else UNTOLD
        measured = rows[-1].images
        seen = f" (measured: {rows[-1].accuracy:.2%})" if measured == self.available else ""
        why = {YES: "Yes", HARDLY: "Hardly", UNTOLD: "Cannot tell"}[word] + (
            f": by the curve, twice the images ({twice:,}) would bring the accuracy from {now[0]:.2%}{seen} to "
            f"{then[0]:.2%} (95% interval {then[1]:.2%} to {then[2]:.2%}) and end {gone[0]:.0%} of the mistakes "
            f"({max(gone[1], 0):.0%} to {gone[2]:.0%}); {WORTH:.0%} would be worth it.")
        if measured < self.available:
            why += f" There was time to measure up to {measured:,} images only; with more time the answer is surer."
        return Answer(word, why, twice, gone, now, then, losses.at(twice), mistakes.exponent)

    def curve(self, points: int = 40) -> list[dict]:
        """What the fitted power law says between the smallest size and twice the images: accuracies with intervals."""
        if (found := self.fits()) is None:
            return []
        made = []
        for n in np.geomspace(self.sizes[0], 2 * self.available, points):
            made.append({"images": float(n), "accuracy": list(_accuracy(found[0].at(n))),
                         "log_loss": list(found[1].at(n))})
        return made

    def to_json(self) -> dict:
        """Everything as plain numbers, lists and dicts; estimates as [median, low, high]."""
        return {
            **{k: getattr(self, k) for k in ("network", "parameters", "available", "chance", "sizes", "steps",
                                             "batch_size", "notes", "interrupted")},
            "budget": "equal steps", "table": [asdict(row) for row in self.table()], "answer": asdict(self.answer()),
            "curve": self.curve(), "trials": [{**asdict(t), "accuracy": t.accuracy} for t in self.trials],
        }


def _accuracy(mistakes: Estimate) -> Estimate:
    middle, low, high = (min(max(1 - e, 0.0), 1.0) for e in mistakes)
    return middle, high, low


def study(dataset: datasets.Dataset, *, network: Network | str | None = None, ends: float | None = None,
          steps: int | None = None, images: int | None = None, sizes: int = SIZES, seeds: int = 5,
          progress: Follow | None = None, done: Callable[[LearningCurve], object] | None = None) -> LearningCurve:
    """Train `network` (by default one that suits the images) on growing parts of the training images, with each of the
    seeds 0, 1, ...

    The largest part has `images`, by default all; of `sizes` parts each has half as many as the next. Each is trained
    for `steps`. What is not given is planned so that all ends before `ends` on the clock of `time.perf_counter`, as far
    as that is given, and else as `fit` does for the largest. `progress` is told after each step, `done` after each
    trial. Ctrl-C ends it; what is measured then is kept. Raises ValueError where the time is too short, or images are
    too few for two sizes.
    """
    seeds, sizes = planning.whole("seeds", seeds, 1, 1000), planning.whole("sizes", sizes, 2, 20)
    follow, done = progress or (lambda *_: None), done or (lambda _: None)
    dataset = trials.digested(dataset)
    parts, least = require_enough(dataset), _least(dataset)
    available = len(parts.train)
    images = None if images is None else planning.whole("images", images, 2 * least, available)
    options = [network] if network is not None else recipes.networks(dataset.input_shape, recipes.RECIPES["fast"])
    chosen, largest, tested, plan = _planned(options, dataset, parts, ends, steps, images, sizes, seeds, follow)
    counts = _sizes(largest, sizes, least)
    name, built = _built(chosen, dataset)
    commonest = np.bincount(parts.test.labels).max() / len(parts.test)
    made = LearningCurve(name, built.parameter_count, available, float(1 - commonest), counts, plan.steps,
                         plan.batch_size)

    @functools.lru_cache(1)
    def of_seed(seed: int) -> tuple[datasets.Split, trials.Style]:
        mine = datasets.split(dataset, seed)
        test = trials.some(mine.test, np.arange(len(mine.test)), tested, seed)
        return replace(mine, test=test), _style(mine, dataset, seed)

    began = clock.perf_counter()
    try:
        for i, (seed, count) in enumerate(itertools.product(range(seeds), counts)):
            if count == counts[0] and trials.late(began, seed, ends):
                made.notes.append(f"There was time for {seed} of {seeds} seeds of the learning curve.")
                break
            what = f"{count:,} images, seed {seed} ({i + 1} of {seeds * len(counts)})"
            mine, style = of_seed(seed)
            part = trials.reduced(mine, count, seed)
            setup = trials.setup_of(chosen, dataset, part, _plan(len(part.train), plan), seed, style)
            try:
                run, _ = trials.train(setup, part, lambda p, what=what: follow(what, p.step, p.steps))
            except Diverged as e:
                made.notes.append(f"{count:,} images, seed {seed}: {e}")
                continue
            if run.interrupted:
                made.interrupted = True
                break
            made.trials.append(Trial(count, seed, run.test["count"], run.test["count"] - run.test["correct"],
                                     run.test["log_loss"], run.best["validation_accuracy"], run.best["epoch"],
                                     run.seconds))
            done(made)
    except KeyboardInterrupt:
        made.interrupted = True
    return made


def require_enough(dataset: datasets.Dataset) -> datasets.Split:
    """The parts of the data set with the seed 0. Raises ValueError unless training images are enough for two sizes."""
    parts, least = datasets.split(dataset, 0), _least(dataset)
    if len(parts.train) < 2 * least:
        raise ValueError(f"{dataset.name}: a learning curve needs at least {2 * least} training images, got "
                         f"{len(parts.train)}; add images")
    return parts


def _least(dataset: datasets.Dataset) -> int:
    """How many images the smallest size has at least."""
    return max(LEAST_IMAGES, LEAST_OF_CLASS * len(dataset.classes))


def _sizes(largest: int, sizes: int, least: int) -> list[int]:
    """The numbers of images, ascending: halves of halves of the largest, none below `least`."""
    return [n for i in reversed(range(sizes)) if (n := largest >> i) >= least]


def _style(parts: datasets.Split, dataset: datasets.Dataset, seed: int) -> trials.Style:
    """How `fit` trains by default."""
    changes, _ = recipes.augmentation(parts.train.images, dataset.input_shape, seed, shift=None, mirror=None,
                                      cutout=None)
    return trials.Style(changes, label_smoothing=recipes.label_smoothing(dataset.input_shape), averaging=True,
                        balance=None)


def _plan(count: int, plan: planning.Plan) -> planning.Plan:
    """The same steps with so many images."""
    return replace(plan, epoch_steps=count // plan.batch_size)


def _built(option, dataset: datasets.Dataset) -> tuple[str, Network]:
    if isinstance(option, Network):
        return "network", option
    name, options = option if isinstance(option, tuple) else (option, {})
    network = zoo.build(name, input_shape=dataset.input_shape, classes=len(dataset.classes), **options)
    return name + "".join(f", {k} {v}" for k, v in options.items()), network


def _planned(options: Sequence, dataset: datasets.Dataset, parts: datasets.Split, ends: float | None,
             steps: int | None, images: int | None, sizes: int, seeds: int, follow: Follow
             ) -> tuple[object, int, int, planning.Plan]:
    """The first of the networks for which there is time to use all images, or else the last; how many images that one
    has time for, and how many in the test; and the plan of the largest size. Where there is no time for all seeds, the
    fewest are planned with."""
    available, style = images or len(parts.train), _style(parts, dataset, 0)
    least = _least(dataset)

    def usual(largest: int) -> planning.Plan:
        batch = planning.batch_size(_sizes(largest, sizes, least)[0])
        plan = planning.plan(largest, batch=batch, most=recipes.MOST_EPOCHS)
        return plan if steps is None else replace(plan, steps=planning.whole("steps", steps, 1))

    def shortest(largest: int) -> planning.Plan:
        plan = usual(largest)
        return plan if steps is not None else replace(plan, steps=min(
            plan.steps, max(planning.ENOUGH, planning.DEFAULT_EPOCHS * plan.epoch_steps)))

    def needs(plan: planning.Plan, largest: int, tested: int) -> float:
        return seeds * sum(trials.seconds(pace, _plan(n, plan), parts, trials.validation(parts, n), tested)
                           for n in _sizes(largest, sizes, least))

    tested = len(parts.test)
    if ends is None:
        return options[0], available, tested, usual(available)
    for i, option in enumerate(options):
        follow("timing the network", i, len(options))
        pace = trials.pace(trials.setup_of(option, dataset, parts, usual(available), 0, style), parts, ends)
        if needs(shortest(available), available, tested) <= trials.left(ends):
            break
    largest, time = available, trials.left(ends)
    if needs(shortest(available), available, tested) > time:
        tested = min(tested, MOST_TESTED)
    while (needed := needs(shortest(largest), largest, tested)) > time:
        if images is None and (smaller := int(SMALLER * largest)) >= 2 * least:
            largest = smaller
        elif seeds > trials.FEWEST:
            seeds, largest = trials.FEWEST, available
        else:
            raise ValueError(
                f"the time is too short for a learning curve with {number(seeds, 'seed')}: it needs about "
                f"{planning.spoken(needed / planning.TIME_SHARE)}; give more time{' or fewer seeds' * (seeds > 1)}")
    plan = usual(largest)
    return option, largest, tested, replace(plan, steps=max(
        int(plan.steps * min(1.0, time / needs(plan, largest, tested))), shortest(largest).steps))
