"""Axes: from a range of numbers to pixels, with round numbers at the ticks."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor, log10

from .svg import Sketch, number, percent, short, text_width


@dataclass(frozen=True)
class Axis:
    """Values from `low` to `high`, drawn from pixel `start` to pixel `end`; logarithmic where `log`."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False
    as_percent: bool = False

    def __call__(self, value: float) -> float:
        """The pixel of a value."""
        low, high, value = (log10(v) if self.log else v for v in (self.low, self.high, value))
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def ticks(self, most: int = 6) -> list[tuple[float, str]]:
        """Round values within the range, at most about `most`, each with its text."""
        if self.log:
            return [(v, short(v) if v >= 1 else number(v)) for v in self._powers(most)]
        step = nice((self.high - self.low) / most)
        first, last = ceil(self.low / step - 1e-9), floor(self.high / step + 1e-9)
        digits = max(-floor(log10(step) + 1e-9) - 2, 0)
        return [(i * step, percent(i * step, digits) if self.as_percent else tick_text(i * step, step))
                for i in range(first, last + 1)]

    def _powers(self, most: int) -> list[float]:
        bottom, top = floor(log10(self.low)), ceil(log10(self.high))
        for factors in ((1, 2, 3, 5), (1, 2, 5), (1, 3), (1,)):
            found = [f * 10.0**p for p in range(bottom, top + 1) for f in factors]
            found = [v for v in found if self.low * (1 - 1e-9) <= v <= self.high * (1 + 1e-9)]
            if len(found) <= most:
                return found or [self.low, self.high]
        return found[:: ceil(len(found) / most)]


def nice(step: float) -> float:
    """The next 1, 2 or 5 times a power of ten."""
    power = 10.0 ** floor(log10(step))
    return next(f * power for f in (1, 2, 5, 10) if f * power >= step * (1 - 1e-9))


def tick_text(value: float, step: float) -> str:
    """A multiple of `step`, with the digits it needs and no more."""
    if abs(value) >= 10_000 and step >= 100:
        return short(value, max(floor(log10(abs(value)) + 1e-9) - floor(log10(step) + 1e-9) + 1, 3))
    return number(round(value, max(-floor(log10(step) + 1e-9), 0)), 12)


def spanned(low: float, high: float, start: float, end: float, *, room: float = 0.05, most: float | None = None,
            least: float | None = None, log: bool = False, as_percent: bool = False) -> Axis:
    """An axis for values from low to high, with a share of room on both sides, but within `least` and `most`."""
    if log:
        spread = max((high / low) ** room, 1.05)
        return Axis(low / spread, high * spread, start, end, True)
    # What differs by rounding only is one value.
    extra = (high - low) * room if high - low > abs(high) * 1e-9 else abs(high) * room or 0.01
    low, high = low - extra, high + extra
    low = low if least is None else max(low, least)
    high = high if most is None else min(high, most)
    return Axis(low, high, start, end, False, as_percent)


def frame(sketch: Sketch, x: Axis, y: Axis, x_label: str, y_label: str, *, ticks: tuple[int, int] = (6, 6)) -> None:
    """Both axes with ticks, their texts, thin lines for values of y, and labels."""
    for value, text in y.ticks(ticks[1]):
        sketch.line(x.start, y(value), x.end, y(value), "grid")
        sketch.text(x.start - 6, y(value) + 4, text, "muted", anchor="end")
    for value, text in x.ticks(ticks[0]):
        sketch.line(x(value), y.start, x(value), y.start + 4)
        sketch.text(x(value), y.start + 17, text, "muted", anchor="middle")
    sketch.path([(x.start, y.end), (x.start, y.start), (x.end, y.start)])
    sketch.text((x.start + x.end) / 2, y.start + 35, x_label, anchor="middle", room=x.end - x.start + 30)
    sketch.text(14, (y.start + y.end) / 2, y_label, anchor="middle", turned=True, room=y.start - y.end + 20)


def left_of(ticks: list[tuple[float, str]]) -> float:
    """The room that an axis to the left needs for its label and the texts at its ticks."""
    return 24 + 8 + max((text_width(text) for _, text in ticks), default=0)


def apart(wanted: list[float], gap: float, low: float, high: float) -> list[float]:
    """Positions as near as possible to the wanted ones, in their order, at least `gap` apart and within low..high.

    There must be room for them. Neighbours that would touch form a block, which stands where its members want to be on
    average.
    """
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    blocks: list[list] = []  # first position, members

    def first_of(members: list[int]) -> float:
        centred = sum(wanted[m] for m in members) / len(members) - gap * (len(members) - 1) / 2
        return min(max(centred, low), high - gap * (len(members) - 1))

    for i in order:
        blocks.append([wanted[i], [i]])
        while True:
            blocks[-1][0] = first_of(blocks[-1][1])
            if len(blocks) < 2 or blocks[-2][0] + gap * len(blocks[-2][1]) <= blocks[-1][0] + 1e-9:
                break
            last = blocks.pop()
            blocks[-1][1] += last[1]
    found = [0.0] * len(wanted)
    for first, members in blocks:
        for k, i in enumerate(members):
            found[i] = first + gap * k
    return found
