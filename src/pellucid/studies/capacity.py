"""Dense and convolutional networks of growing width on the same images, for the same number of steps.

Nothing holds the networks back: images are not changed, labels not smoothed, weights not averaged, and what is measured
are the weights at the end, not the best ones on the way. So the figures say what capacity does, not what training with
all its remedies makes of it.
"""

from __future__ import annotations

import functools
import itertools
import time as clock
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace

import numpy as np

from .. import data as datasets
from .. import evaluation, zoo
from ..network import Network
from ..texts import listed, number
from ..training import plan as planning
from ..training.step import Diverged
from . import trials
from .fitting import BEST, OVER, UNDER, UNTOLD, Verdict, geometric, interval, judge
from .trials import Follow

# Units of both hidden layers of `mlp`, and filters of the first of `lenet`: four times as wide each time.
WIDTHS = {"dense": (4, 16, 64, 256), "convolutional": (1, 4, 16, 64)}
MOST_PARAMETERS = 10**7  # larger ones would take the time of all others
ENOUGH, LEAST = 20, 5  # epochs that are hoped for, and without which there is nothing to see
SMALLER = 0.8  # by which images are made fewer where there is no time for all
RISES = 0.1  # share of the least validation loss by which it rises, before that is worth a word
FEW = 10  # images of a class, on average, below which training images are not reduced for the sake of time


@dataclass(frozen=True)
class Candidate:
    """A network of a family; `name` is what people call it."""

    family: str
    width: int
    network: Network

    @property
    def name(self) -> str:
        return f"{self.family} {self.width}"


@dataclass(frozen=True)
class Trial:
    """One network with one seed: cross-entropy and accuracy of the weights at the end of training, on the training
    images and in validation. `history` has a row an epoch: training loss on the way, validation loss and accuracy."""

    name: str
    seed: int
    train_loss: float
    train_accuracy: float
    validation_loss: float
    validation_accuracy: float
    seconds: float
    history: tuple[dict, ...]


@dataclass(frozen=True)
class Row:
    """One network over the seeds: means, of the losses geometric ones as verdicts have them, standard deviations (None
    of one seed), and beside the best of its family. Least loss and rise are arithmetic means."""

    name: str
    family: str
    width: int
    parameters: int
    macs: int
    train_loss: float
    validation_loss: float
    validation_loss_deviation: float | None
    train_accuracy: float
    validation_accuracy: float
    validation_accuracy_deviation: float | None
    least_validation_loss: float  # of any epoch
    rise: float  # of the validation loss, from there to the end
    rise_interval: tuple[float, float] | None
    verdict: Verdict


@dataclass
class Capacity:
    """All trials, in the order in which they were trained. `images` of the `available` training images were used, and
    `validation` others measured with; `left_out` names networks with why there are no figures of them."""

    candidates: list[Candidate]
    images: int
    available: int
    validation: int
    plan: planning.Plan
    trials: list[Trial] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    interrupted: bool = False

    @property
    def seeds(self) -> list[int]:
        """Those with which every network was trained that could be."""
        names = self._names()
        done = {(t.name, t.seed) for t in self.trials}
        return [s for s in sorted({t.seed for t in self.trials}) if all((name, s) in done for name in names)]

    def _names(self) -> list[str]:
        failed = {name for name, _ in self.left_out}
        return [c.name for c in self.candidates if c.name not in failed]

    def of(self, name: str) -> list[Trial]:
        """The trials of a network with the seeds that all have."""
        seeds = self.seeds
        return [t for t in self.trials if t.name == name and t.seed in seeds]

    def table(self) -> list[Row]:
        """A row a network, family by family, the smallest first; none before all were trained with one seed."""
        rows, names = [], self._names()
        for family in WIDTHS if self.seeds else ():
            mine = sorted((c for c in self.candidates if c.family == family and c.name in names),
                          key=lambda c: c.network.parameter_count)
            losses = [[[getattr(t, what) for t in self.of(c.name)] for c in mine]
                      for what in ("train_loss", "validation_loss")]
            rows += [self._row(c, verdict) for c, verdict in zip(mine, judge(*losses) if mine else (), strict=True)]
        return rows

    def _row(self, candidate: Candidate, verdict: Verdict) -> Row:
        mine = self.of(candidate.name)
        columns = {what: np.array([getattr(t, what) for t in mine]) for what in (
            "train_loss", "validation_loss", "train_accuracy", "validation_accuracy")}
        deviations = {f"{what}_deviation": float(columns[what].std(ddof=1)) if len(mine) > 1 else None
                      for what in ("validation_loss", "validation_accuracy")}
        least = np.array([min(r["validation_loss"] for r in t.history) for t in mine])
        rise = columns["validation_loss"] - least
        return Row(
            name=candidate.name, family=candidate.family, width=candidate.width,
            parameters=candidate.network.parameter_count, macs=sum(candidate.network.macs.values()),
            **{what: geometric(values) if "loss" in what else float(values.mean()) for what, values in columns.items()},
            **deviations,
            least_validation_loss=float(least.mean()), rise=float(rise.mean()), rise_interval=interval(rise),
            verdict=verdict,
        )

    def between(self) -> dict | None:
        """The best convolutional network beside the best dense one, by validation loss: their names, by how much its
        accuracy is higher, and the 95% interval of that. None where a family is missing."""
        best = {row.family: row for row in self.table() if row.verdict.word == BEST}
        if len(best) < 2:
            return None
        dense, conv = (self.of(best[family].name) for family in ("dense", "convolutional"))
        gain = np.array([b.validation_accuracy - a.validation_accuracy for a, b in zip(dense, conv, strict=True)])
        return {"dense": best["dense"].name, "convolutional": best["convolutional"].name,
                "gain": float(gain.mean()), "interval": interval(gain)}

    def words(self) -> list[str]:
        """What the figures say, a sentence each."""
        rows, said = self.table(), []
        for family in WIDTHS:
            mine = [row for row in rows if row.family == family]
            if mine:
                said += _of_family(family, mine, len(self.seeds))
        if found := self.between():
            said.append(_beside(found, {row.name: row for row in rows}))
        return said

    def to_json(self) -> dict:
        """Everything as plain numbers, lists and dicts."""
        return {
            "images": self.images, "available": self.available, "validation": self.validation, **asdict(self.plan),
            "epochs": self.plan.epochs, "seeds": self.seeds, "networks": [asdict(row) for row in self.table()],
            "between": self.between(), "words": self.words(), "left_out": [list(pair) for pair in self.left_out],
            "trials": [asdict(t) for t in self.trials], "notes": self.notes, "interrupted": self.interrupted,
        }


def _of_family(family: str, rows: list[Row], seeds: int) -> list[str]:
    best = next(row for row in rows if row.verdict.word == BEST)
    said = [f"Of the {family} networks {best.name}, with {best.parameters:,} parameters, has the lowest validation "
            f"loss, {best.validation_loss:.3f}."]
    for row in rows:
        d = row.verdict
        if d.word in (OVER, UNDER):
            side = "lower" if row.train_loss < best.train_loss else "higher"
            said.append(
                f"{row.name} {d.word}: its training loss is {side} ({row.train_loss:.2g} against {best.train_loss:.2g})"
                f", its validation loss {d.ratio:.3g} times as high (95% interval {d.interval[0]:.3g} to "
                f"{d.interval[1]:.3g}).")
    if seeds == 1:
        said.append("With one seed it cannot be told which of the others overfit or underfit.")
    else:
        if not any(row.verdict.word == OVER for row in rows):
            said.append(f"No {family} network is seen to overfit by being larger.")
        if untold := [row.name for row in rows if row.verdict.word == UNTOLD]:
            s = "s" * (len(untold) == 1)
            said.append(f"Whether {listed(untold)} overfit{s} or underfit{s}, {seeds} seeds do not tell.")
    for row in rows:
        if row.rise > RISES * row.least_validation_loss and row.rise_interval and row.rise_interval[0] > 0:
            said.append(f"{row.name} overfits by being trained longer: its validation loss rises from "
                        f"{row.least_validation_loss:.3f} to {row.least_validation_loss + row.rise:.3f} at the end.")
    known = [row for row in rows if row.train_accuracy > 0.999]
    if known:
        missed = ", ".join(f"{1 - row.validation_accuracy:.1%}" for row in known)
        said.append(f"{listed([row.name for row in known])} know{'s' * (len(known) == 1)} the training images by heart"
                    f" (more than 99.9% right) and miss{'es' * (len(known) == 1)} {missed} of those in validation.")
    return [text[0].upper() + text[1:] for text in said]


def _beside(found: dict, rows: dict[str, Row]) -> str:
    dense, conv = rows[found["dense"]], rows[found["convolutional"]]
    text = (f"{conv.name.capitalize()} ({conv.parameters:,} parameters) is right on {conv.validation_accuracy:.1%} of "
            f"the validation images, {dense.name} ({dense.parameters:,}) on {dense.validation_accuracy:.1%}")
    if found["interval"] is None:
        return text + "; one seed does not tell whether that is chance."
    low, high = (100 * bound for bound in found["interval"])
    told = ("the convolutional network is better" if low > 0 else "the dense network is better" if high < 0 else
            "that may be chance")
    return (f"{text}: a difference of {100 * found['gain']:+.1f} points (95% interval {low:+.1f} to {high:+.1f}), "
            f"{told}.")


def candidates(shape: tuple[int, ...], classes: int, widths: dict[str, Sequence[int]] = WIDTHS
               ) -> tuple[list[Candidate], list[tuple[str, str]]]:
    """The networks for images of a shape, by turns of the families; and those left out, with why."""
    made, left_out = [], []
    for step, family in itertools.product(range(max(map(len, widths.values()))), widths):
        if step >= len(widths[family]):
            continue
        width = widths[family][step]
        name, options = ("mlp", {"hidden": (width, width)}) if family == "dense" else ("lenet", {"width": width})
        try:
            network = zoo.build(name, input_shape=shape, classes=classes, **options)
        except ValueError as e:
            left_out.append((f"{family} {width}", str(e)))
            continue
        if network.parameter_count > MOST_PARAMETERS:
            left_out.append((f"{family} {width}", f"{network.parameter_count:,} parameters, more than "
                                                  f"{MOST_PARAMETERS:,}"))
        else:
            made.append(Candidate(family, width, network))
    return made, left_out


def study(dataset: datasets.Dataset, *, ends: float | None = None, epochs: int | None = None,
          images: int | None = None, seeds: int = 5, widths: dict[str, Sequence[int]] = WIDTHS,
          progress: Follow | None = None, done: Callable[[Capacity], object] | None = None) -> Capacity:
    """Train each network of `widths` with each of the seeds 0, 1, ..., which decide the split, too.

    `images` of the training images are used, by default all, stratified, for `epochs`. What is not given is planned so
    that all ends before `ends` on the clock of `time.perf_counter`, as far as that is given: with fewer images where
    all cannot be gone through 20 times, because overfitting is not to be seen in less. `progress` is told after each
    step, `done` after each trial. Ctrl-C ends it; what is measured then is kept. Raises ValueError where the time is
    too short, or the data cannot be split.
    """
    seeds = planning.whole("seeds", seeds, 1, 1000)
    follow, done = progress or (lambda *_: None), done or (lambda _: None)
    chosen, left_out = candidates(dataset.input_shape, len(dataset.classes), widths)
    if not chosen:
        raise ValueError(f"{dataset.name}: none of the networks can be built: {left_out[0][1]}")
    dataset = trials.digested(dataset)
    parts = datasets.split(dataset, 0)
    of_seed = functools.lru_cache(1)(lambda seed: _parts(dataset, images, seed))
    available = len(parts.train)
    images = None if images is None else planning.whole("images", images, len(dataset.classes), available)
    if ends is None or epochs is not None and images is not None:
        images = images or available
        plan = planning.plan(images, epochs=epochs)
    else:
        images, plan = _within(ends, chosen, dataset, parts, seeds, epochs, images, follow)
    made = Capacity(chosen, images, available, trials.validation(parts, images), plan, left_out=left_out)
    began, count = clock.perf_counter(), len(chosen) * seeds
    try:
        for i, (seed, candidate) in enumerate(itertools.product(range(seeds), chosen)):
            if candidate is chosen[0] and trials.late(began, seed, ends):
                made.notes.append(f"There was time for {seed} of {seeds} seeds of the growing networks.")
                break
            if candidate.name in (name for name, _ in made.left_out):
                continue
            what = f"{candidate.name}, seed {seed} ({i + 1} of {count})"
            try:
                trial = _trial(candidate, dataset, of_seed(seed), plan, seed,
                               lambda p, what=what: follow(what, p.step, p.steps))
            except Diverged as e:
                made.left_out.append((candidate.name, str(e)))
                continue
            if trial is None:
                made.interrupted = True
                break
            made.trials.append(trial)
            done(made)
    except KeyboardInterrupt:
        made.interrupted = True
    return made


def _parts(dataset: datasets.Dataset, images: int, seed: int) -> datasets.Split:
    """What stands in for the test, whose images are of no use here, is validation."""
    parts = trials.reduced(datasets.split(dataset, seed), images, seed)
    return replace(parts, test=parts.validation)


def _trial(candidate: Candidate, dataset: datasets.Dataset, parts: datasets.Split, plan: planning.Plan, seed: int,
           progress) -> Trial | None:
    """Train a network and measure its last weights; None where Ctrl-C broke it off."""
    plan = planning.plan(len(parts.train), batch=min(plan.batch_size, len(parts.train)), epochs=plan.epochs)
    setup = trials.setup_of(candidate.network, dataset, parts, plan, seed, trials.Style())
    run, last = trials.train(setup, parts, progress)
    if run.interrupted:
        return None
    train = evaluation.evaluate(last, parts.train.images, parts.train.labels)
    end = run.history[-1]
    return Trial(
        name=candidate.name, seed=seed, train_loss=train.log_loss, train_accuracy=train.accuracy,
        validation_loss=end["validation_loss"], validation_accuracy=end["validation_accuracy"], seconds=run.seconds,
        history=tuple({k: row[k] for k in ("epoch", "train_loss", "validation_loss", "validation_accuracy")}
                      for row in run.history),
    )


def _within(ends: float, chosen: list[Candidate], dataset: datasets.Dataset, parts: datasets.Split, seeds: int,
            epochs: int | None, images: int | None, follow: Follow) -> tuple[int, planning.Plan]:
    """How many images, and for how long, so that all networks end in time."""
    draft, began, paces = planning.plan(images or len(parts.train)), clock.perf_counter(), []
    for i, candidate in enumerate(chosen):
        follow("timing the networks", i, len(chosen))
        setup = trials.setup_of(candidate.network, dataset, parts, draft, 0, trials.Style())
        paces.append(trials.pace(setup, parts, ends))
    timing, time, most = clock.perf_counter() - began, trials.left(ends), images or len(parts.train)
    least = most if images else min(most, FEW * len(dataset.classes))

    def needs(plan: planning.Plan, count: int, seeds: int) -> float:
        some = trials.validation(parts, count)
        return seeds * sum(trials.seconds(pace, plan, parts, some, some + count) for pace in paces)

    for planned in (seeds, min(seeds, trials.FEWEST)):
        count = most
        while count > least and needs(planning.plan(count, epochs=epochs or ENOUGH), count, planned) > time:
            count = max(int(count * SMALLER), least)
        plan = planning.plan(count, epochs=epochs or max(planning.plan(count).epochs, ENOUGH))
        if (needed := needs(plan, count, planned)) <= time:
            return count, plan
        fewer = int(plan.epochs * time / needed)
        if fewer >= LEAST and epochs is None:
            return count, planning.plan(count, epochs=fewer)
    shortest = timing + needed * (LEAST / plan.epochs if epochs is None else 1) / planning.TIME_SHARE
    raise ValueError(f"the time is too short for {len(chosen)} networks with {number(planned, 'seed')}: they need "
                     f"about {planning.spoken(shortest)}; give more time{' or fewer seeds' * (planned > 1)}")
