"""How long to train: batch size, number of steps, and what a time budget allows.

The schedule of the learning rate needs the number of steps before the first one, so it is settled here and kept: a
resumed run follows the plan it began with.
"""

from __future__ import annotations

import math
import operator
import re
import time
from dataclasses import dataclass, replace

import numpy as np

# Where nothing is asked for: at least so many steps, counted in batches of at most NORMAL images, and at least so many
# visits to each image.
DEFAULT_STEPS = 1200
DEFAULT_EPOCHS = 5

# Images in a batch: LEAST to NORMAL where that gives 32 steps an epoch, up to MOST where it gives 80.
LEAST, NORMAL, MOST = 16, 128, 512

ENOUGH = 200  # steps that a schedule needs; smaller batches give as many where time is short

# Share of a time budget that is planned with; the rest is for what a few measured steps do not show.
TIME_SHARE = 0.92

WHOLE = 30  # epochs from which on time is planned in whole ones; of fewer, the rest of one would be too much to lose

# A rate at which nothing moves and no step diverges, though every product is computed: steps are timed at it.
STILL = 1e-30

MOST_EPOCHS, MOST_STEPS = 10**6, 10**9


@dataclass(frozen=True)
class Plan:
    """`steps` updates of `batch_size` images each, `epoch_steps` of them an epoch (the last epoch may be shorter).

    Raises ValueError for what is not a whole number of at least 1, and for more epochs or steps than make sense.
    """

    batch_size: int
    epoch_steps: int
    steps: int

    def __post_init__(self):
        for name in ("batch_size", "epoch_steps", "steps"):
            whole(name, getattr(self, name), 1)
        whole("epochs", -(-self.steps // self.epoch_steps), 1, MOST_EPOCHS)
        whole("steps", self.steps, 1, MOST_STEPS)

    @property
    def epochs(self) -> int:
        return math.ceil(self.steps / self.epoch_steps)

    def length(self, epoch: int) -> int:
        """Steps of an epoch, counted from 1."""
        return min(self.steps - (epoch - 1) * self.epoch_steps, self.epoch_steps)


@dataclass(frozen=True)
class Pace:
    """Seconds that a step takes, that the end of an epoch adds (validation), and the end of the run (the test).

    `batch` is the number of images in such a step, and `fixed` what it takes however few they are.
    """

    step: float
    epoch: float
    end: float
    batch: int = 1
    fixed: float = 0.0

    def scaled(self, factor: float) -> Pace:
        """That of a network that computes so many times as much."""
        return Pace(self.step * factor, self.epoch * factor, self.end * factor, self.batch, self.fixed * factor)

    def at(self, batch: int) -> Pace:
        """That of steps of another batch."""
        return replace(self, step=self.fixed + (self.step - self.fixed) * batch / self.batch, batch=batch)


class Stopwatch:
    """Asked after each step whether to stop: yes after `least` seconds and five steps, the first not counted."""

    def __init__(self, least: float = 0.3):
        self.least = least
        self.times: list[float] = []

    @property
    def requested(self) -> bool:
        self.times.append(time.perf_counter())
        return len(self.times) > 5 and self.times[-1] - self.times[0] >= self.least

    @property
    def step_seconds(self) -> float:
        """The median time between two steps."""
        return float(np.median(np.diff(self.times)))


def batch_size(count: int) -> int:
    """The default batch for `count` training images: a power of two from LEAST to MOST, never above `count`."""
    power = 2 ** math.floor(math.log2(max(count, 1) / 32))
    while power > NORMAL and power > count / 80:
        power //= 2
    return min(max(1, count), MOST, max(LEAST, power))


def plan(
    count: int, *, batch: int | None = None, epochs: int | None = None, effort: float = 1.0, most: int = MOST_EPOCHS
) -> Plan:
    """The plan for `count` training images. Where no number of epochs is given, `effort` multiplies it, and `most` is
    the most before that.

    Images left over by whole batches wait for another epoch's order.

    Raises ValueError for a batch or a number of epochs below 1 or too large, such as a batch above `count`.
    """
    epochs = None if epochs is None else whole("epochs", epochs, 1, MOST_EPOCHS)
    batch = None if batch is None else whole("batch size", batch, 1)
    if batch is not None and batch > count:
        raise ValueError(f"a batch of {batch} needs as many training images, and there are {count}; use a smaller one")
    batch = batch or batch_size(count)
    epoch_steps = count // batch
    usual = DEFAULT_STEPS / (count // min(batch, NORMAL))
    epochs = epochs or max(round(effort * min(max(DEFAULT_EPOCHS, usual), most)), 1)
    return Plan(batch, epoch_steps, epochs * epoch_steps)


def plan_for_time(draft: Plan, seconds: float, pace: Pace) -> Plan:
    """`draft` with as many steps as fit into `seconds`, at least one: whole epochs from WHOLE on, else the last is cut
    short."""
    available = seconds * TIME_SHARE - pace.end
    epoch = draft.epoch_steps * pace.step + pace.epoch
    epochs = min(max(int(available // epoch), 0), MOST_EPOCHS, MOST_STEPS // draft.epoch_steps)
    steps = epochs * draft.epoch_steps
    if epochs < WHOLE:
        rest = int((available - epochs * epoch - pace.epoch) // pace.step)
        steps += min(max(rest, 0 if epochs else 1), draft.epoch_steps)
    return replace(draft, steps=steps)


def plan_with_enough_steps(draft: Plan, count: int, seconds: float, pace: Pace) -> Plan:
    """`plan_for_time` for `count` images, with smaller batches than the draft's where there would be fewer steps than
    ENOUGH, as long as that gives more of them."""
    plan = plan_for_time(draft, seconds, pace)
    while plan.steps < ENOUGH and plan.batch_size > LEAST:
        half = plan.batch_size // 2
        smaller = plan_for_time(Plan(half, count // half, plan.steps), seconds, pace.at(half))
        if smaller.steps < 1.5 * plan.steps:
            break
        plan = smaller
    return plan


def more_epochs(text: int | str) -> int:
    """The number in "+5": epochs to add to a run. Raises ValueError for anything else."""
    match = re.fullmatch(r"\+(\d{1,7})", text) if isinstance(text, str) else None
    if match is None:
        raise ValueError(f"a resumed run keeps its epochs; epochs may be added, as in +5, got {text!r}")
    return whole("epochs to add", int(match[1]), 1, MOST_EPOCHS)


def duration(text: str | float) -> float:
    """Seconds in "90s", "2m", "1h", "1h30m", "45" or a number. Raises ValueError for anything else or nothing."""
    if isinstance(text, str):
        match = re.fullmatch(
            r"\s*(?:(?P<h>\d+(?:\.\d+)?)\s*h)?\s*(?:(?P<m>\d+(?:\.\d+)?)\s*m(?:in)?)?\s*(?:(?P<s>\d+(?:\.\d+)?)\s*s?)?\s*",
            text.lower(),
        )
        if match is None or not any(match.groupdict().values()):
            raise ValueError(f"cannot read the time {text!r}; write it like 90s, 2m or 1h30m")
        hours, minutes, rest = (float(match[unit] or 0) for unit in "hms")
        seconds = hours * 3600 + minutes * 60 + rest
    else:
        try:
            seconds = float(text)
        except (TypeError, OverflowError):
            raise ValueError(f"cannot read the time {text!r}; give seconds or a text like 90s, 2m or 1h30m") from None
    if not (0 < seconds < math.inf):
        raise ValueError(f"the time to train must be above zero, got {text!r}")
    return seconds


def spoken(seconds: float) -> str:
    """Seconds as people read them: 4.2 s, 58 s, 3 min 05 s, 1 h 20 min."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def whole(name: str, value, least: int, most: int | None = None) -> int:
    """`value`, an integer of any type, as int. Raises ValueError for anything else or out of range."""
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None or number < least or most is not None and number > most:
        limit = f"of at least {least}" if most is None else f"from {least} to {most:,}"
        raise ValueError(f"{name} must be a whole number {limit}, got {value!r}")
    return number
