"""Learning-rate schedules: functions from the step (counted from 0) to the learning rate, that are also data.

Each is a frozen dataclass; `to_json` and `from_json` carry it through a checkpoint.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from math import cos, isfinite, pi

SCHEDULES: dict[str, type[Schedule]] = {}


class Schedule:
    """Base of all schedules. Subclasses are frozen dataclasses; defining one registers it under its name."""

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        SCHEDULES[cls.__name__] = cls

    def __call__(self, step: int) -> float:
        """The learning rate of a step, the first being 0. After the last step it stays what it was at the end."""
        raise TypeError(f"{type(self).__name__} gives no rates; use {', '.join(SCHEDULES)}")

    def to_json(self) -> dict:
        """The kind and all fields."""
        return {"kind": type(self).__name__, **dataclasses.asdict(self)}


@dataclass(frozen=True)
class Constant(Schedule):
    """`lr` throughout, after a linear warm-up of `warmup` steps: lr / warmup at step 0, lr at step warmup - 1.

    Raises ValueError unless lr is finite and not negative and warmup is a whole number from 0.
    """

    lr: float
    warmup: int = 0

    def __post_init__(self):
        _rate("lr", self.lr)
        _steps("warmup", self.warmup, least=0)

    def __call__(self, step: int) -> float:
        return self.lr * _rise(step, self.warmup)


@dataclass(frozen=True)
class Cosine(Schedule):
    """A linear warm-up to `lr`, then half a cosine down to `final` at step `steps`.

    (Loshchilov and Hutter, "SGDR: Stochastic gradient descent with warm restarts", 2017, equation 5, one period.)

    Args:
        lr: the highest rate.
        steps: steps of the whole training, warm-up included.
        warmup: steps of the warm-up: lr / warmup at step 0, lr at step warmup - 1.
        final: the rate at the end, at most lr.

    Raises ValueError for a rate that is negative or not finite, steps below 1, warmup not in [0, steps) or final
    above lr.
    """

    lr: float
    steps: int
    warmup: int = 0
    final: float = 0.0

    def __post_init__(self):
        _rate("lr", self.lr)
        _steps("steps", self.steps, least=1)
        _steps("warmup", self.warmup, least=0)
        _rate("final", self.final)
        if self.warmup >= self.steps:
            raise ValueError(f"warmup must be below steps ({self.steps}), got {self.warmup}")
        if self.final > self.lr:
            raise ValueError(f"final must be at most lr ({self.lr:g}), got {self.final:g}")

    def __call__(self, step: int) -> float:
        if step < self.warmup:
            return self.lr * _rise(step, self.warmup)
        return _fall(self.lr, self.final, (step - self.warmup) / (self.steps - self.warmup))


@dataclass(frozen=True)
class OneCycle(Schedule):
    """Linearly from `start` up to `lr` during the first part of the training, then half a cosine down to `final`.

    (Smith and Topin, "Super-convergence: Very fast training of neural networks using large learning rates", 2018,
    with a cosine for the way down.)

    Args:
        lr: the highest rate, reached at step warmup x steps.
        steps: steps of the whole training.
        warmup: the share of the steps on the way up, from 0 to below 1.
        start: the rate of step 0; None for lr / 25.
        final: the rate at step `steps`.

    Raises ValueError for a rate that is negative or not finite, steps below 1, warmup not in [0, 1), start or final
    above lr.
    """

    lr: float
    steps: int
    warmup: float = 0.25
    start: float | None = None
    final: float = 0.0

    def __post_init__(self):
        _rate("lr", self.lr)
        _steps("steps", self.steps, least=1)
        if not _is_number(self.warmup) or not 0 <= self.warmup < 1:
            raise ValueError(f"warmup must be a share of the steps, at least 0 and below 1, got {self.warmup!r}")
        for name in ("start", "final"):
            value = getattr(self, name)
            if name == "start" and value is None:
                continue
            _rate(name, value)
            if value > self.lr:
                raise ValueError(f"{name} must be at most lr ({self.lr:g}), got {value:g}")

    def __call__(self, step: int) -> float:
        top = self.warmup * self.steps
        if step < top:
            start = self.lr / 25 if self.start is None else self.start
            return start + (self.lr - start) * step / top
        return _fall(self.lr, self.final, (step - top) / (self.steps - top))


@dataclass(frozen=True)
class InTurn(Schedule):
    """One rate or schedule after another: `parts` are pairs of it and its number of steps, each from its own beginning.
    The last goes on.

    Raises ValueError for no parts, steps below 1 or what is not a rate.
    """

    parts: tuple[tuple[float | Schedule, int], ...]

    def __post_init__(self):
        if not isinstance(self.parts, list | tuple) or not self.parts:
            raise ValueError(f"parts must be pairs of a rate and its steps, got {self.parts!r}")
        parts = []
        for part in self.parts:
            if not isinstance(part, list | tuple) or len(part) != 2:
                raise ValueError(f"parts must be pairs of a rate and its steps, got {part!r}")
            rate, steps = part
            _steps("steps", steps, least=1)
            parts.append((rate if isinstance(rate, Schedule) else from_json(rate), steps))
        object.__setattr__(self, "parts", tuple(parts))

    @property
    def last_begins(self) -> int:
        """The step at which the last part begins."""
        return sum(steps for _, steps in self.parts[:-1])

    def __call__(self, step: int) -> float:
        number = 0
        while number < len(self.parts) - 1 and step >= self.parts[number][1]:
            step -= self.parts[number][1]
            number += 1
        rate = self.parts[number][0]
        return rate(step) if callable(rate) else rate

    def to_json(self) -> dict:
        return {"kind": type(self).__name__, "parts": [[to_json(rate), steps] for rate, steps in self.parts]}


@dataclass(frozen=True)
class Paced(Schedule):
    """Another schedule at another pace: `knots` are pairs of a step and the step of `schedule` whose rate it has, both
    rising, the first (0, 0); between two knots the pace is even, and after the last one the rate stays.

    Raises ValueError for what is no schedule, and for fewer than two knots or knots that do not rise.
    """

    schedule: Schedule
    knots: tuple[tuple[int, float], ...]

    def __post_init__(self):
        if not isinstance(self.schedule, Schedule):
            object.__setattr__(self, "schedule", from_json(self.schedule))
        if not isinstance(self.schedule, Schedule):
            raise ValueError(f"only a schedule has a pace, got the rate {self.schedule!r}")
        try:
            knots = tuple((step, at) for step, at in self.knots)
        except (TypeError, ValueError):
            raise ValueError(f"knots must be pairs of steps, got {self.knots!r}") from None
        numbers = [n for knot in knots for n in knot]
        if len(knots) < 2 or knots[0] != (0, 0) or not all(_is_number(n) and isfinite(n) for n in numbers) or not all(
                a[0] < b[0] and a[1] < b[1] for a, b in zip(knots, knots[1:], strict=False)):
            raise ValueError(f"knots must rise from (0, 0), got {knots}")
        object.__setattr__(self, "knots", knots)

    def at(self, step: int) -> float:
        """The step of `schedule` whose rate a step has."""
        for (first, low), (last, high) in zip(self.knots, self.knots[1:], strict=False):
            if step < last:
                return low + (high - low) * (step - first) / (last - first)
        return self.knots[-1][1]

    def __call__(self, step: int) -> float:
        return self.schedule(self.at(step))

    def ending(self, step: int, end: int) -> Paced:
        """The same up to a step, and from there on at the pace at which it ends at step `end`."""
        before = [knot for knot in self.knots if knot[0] < step]
        return Paced(self.schedule, (*before, (step, self.at(step)), (end, self.knots[-1][1])))

    def to_json(self) -> dict:
        return {"kind": type(self).__name__, "schedule": self.schedule.to_json(), "knots": list(map(list, self.knots))}


def to_json(lr) -> float | dict:
    """A rate as optimisers hold it, a number or a schedule, as JSON. Raises TypeError for any other callable."""
    if isinstance(lr, Schedule):
        return lr.to_json()
    if callable(lr):
        raise TypeError(f"{lr!r} cannot be written to a file; derive it from pellucid.schedules.Schedule, or use one "
                        f"of {', '.join(SCHEDULES)}")
    return lr


def from_json(value: float | dict) -> float | Schedule:
    """The inverse of `to_json`. Raises ValueError for an unknown kind or field, or a value that does not fit."""
    if not isinstance(value, dict):
        _rate("lr", value)
        return value
    fields = dict(value)
    kind = fields.pop("kind", None)
    if not isinstance(kind, str) or kind not in SCHEDULES:
        raise ValueError(f"unknown schedule {kind!r}; known are {', '.join(sorted(SCHEDULES))}")
    known = {f.name for f in dataclasses.fields(SCHEDULES[kind])}
    if unknown := set(fields) - known:
        unknown = ", ".join(sorted(map(repr, unknown)))
        raise ValueError(f"{kind} has no field {unknown}; it has {', '.join(sorted(known))}")
    try:
        return SCHEDULES[kind](**fields)
    except (TypeError, ValueError) as e:
        raise ValueError(f"{kind}: {e}") from e


def _rise(step: int, warmup: int) -> float:
    """The share of the rate at a step of a linear warm-up, 1 after it."""
    return min((step + 1) / warmup, 1.0) if warmup else 1.0


def _fall(first: float, last: float, progress: float) -> float:
    """Half a cosine from `first` at progress 0 to `last` at 1, and on."""
    return last + (first - last) * (1 + cos(pi * min(progress, 1.0))) / 2


def _is_number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _rate(name: str, value) -> None:
    if not _is_number(value) or not isfinite(value) or value < 0:
        raise ValueError(f"{name} must be a finite number, at least 0, got {value!r}")


def _steps(name: str, value, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} must be a whole number of steps, at least {least}, got {value!r}")
