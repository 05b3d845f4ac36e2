"""How fast training goes here: some steps and a validation, timed before the plan is made."""

from __future__ import annotations

import time as clock
from dataclasses import replace

from .. import data as datasets
from .. import evaluation, views
from . import engines
from . import plan as planning
from .setup import Setup
from .trainer import Trainer

MOST_TIMED = 512  # images of the validation by which its time is told
QUICK = 0.1  # seconds for them, below which they are timed twice


def measure(setup: Setup, parts: datasets.Split, engine: engines.Native | engines.Torch,
            seconds: float) -> planning.Pace:
    """How fast training goes, measured on a model of which nothing is kept, for about so many seconds."""
    # Small batches tell it sooner, and two sizes what a step takes that does not depend on them.
    sizes = sorted({max(min(setup.plan.batch_size, planning.NORMAL) // part, 1) for part in (1, 4)}, reverse=True)
    taken = [_step_seconds(setup, parts, engine, size, seconds / len(sizes)) for size in sizes]
    fixed = 0.0
    if len(sizes) > 1:
        slope = (taken[0][0] - taken[1][0]) / (sizes[0] - sizes[1])
        fixed = min(max(taken[0][0] - slope * sizes[0], 0.0), taken[1][0])
    trial, validation = taken[0][1], parts.validation
    quick = views.quick(trial.model.tta)
    some = slice(0, min(len(validation), MOST_TIMED))
    for _ in range(2):  # the first also plans how to compute so many images, which where they are few takes longer
        start = clock.perf_counter()
        evaluation.evaluate(trial.model, validation.images[some], validation.labels[some], tta=quick)
        took = clock.perf_counter() - start
        if took > QUICK:
            break
    image = took / some.stop
    times = views.count(trial.model.tta) / views.count(quick)
    # Validation once more for the calibration, and the test.
    pace = planning.Pace(taken[0][0], image * len(validation), image * times * (len(validation) + len(parts.test)),
                         sizes[0], fixed)
    return pace.at(setup.plan.batch_size)


def _step_seconds(setup: Setup, parts: datasets.Split, engine: engines.Native | engines.Torch, batch: int,
                  seconds: float) -> tuple[float, Trainer]:
    """How long a step of so many images takes, by doing some for about `seconds`; and what did them."""
    plan = planning.Plan(batch, len(parts.train) // batch, setup.plan.steps)
    still = replace(setup.optimizer, lr=planning.STILL)
    trial = Trainer(replace(setup, plan=plan, optimizer=still, patience=0), parts, None, engine)
    watch = planning.Stopwatch(seconds)
    trial._epoch(watch)
    while not trial.complete and not watch.requested:
        trial._epoch(watch)
    return watch.step_seconds, trial
