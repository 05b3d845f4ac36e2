"""What training shows while it runs: a live line on a terminal, a plain line now and then anywhere else.

`fit` calls its `progress` with a `Progress` after every step; both displays here are such callables and context
managers. They write to standard error only, and go silent where it is closed, full or a broken pipe: training goes on.
"""

from __future__ import annotations

import math
import os
import sys
import time
from dataclasses import dataclass
from typing import TextIO

from .plan import spoken


@dataclass(frozen=True)
class Progress:
    """Where a run stands after a step; `row` is the epoch's line of metrics.csv when the step was its last.

    `loss` is the mean of the training loss over the epoch so far, `images_per_second` and `seconds_left` are measured
    over this session of the run. `best` is true when the epoch's weights are now the ones that are kept.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    images_per_second: float
    seconds_left: float
    row: dict | None = None
    best: bool = False


def display(stream: TextIO | None = None) -> Lines | Live:
    """The display that suits the stream (standard error where none is given; where there is none, nothing shows)."""
    stream = Forgiving(stream or sys.stderr)
    return Live(stream) if stream.isatty() and _columns(stream) >= 80 else Lines(stream)


class Forgiving:
    """A text stream that is dropped when it can no longer be written to; None is one from the start."""

    def __init__(self, stream: TextIO | None):
        self.stream, self.encoding = stream, getattr(stream, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        self._try("write", text)
        return len(text)

    def flush(self) -> None:
        self._try("flush")

    def isatty(self) -> bool:
        return bool(self._try("isatty")) and os.environ.get("TERM") != "dumb"

    def fileno(self) -> int:
        if self.stream is None:
            raise OSError("the stream is closed")
        return self.stream.fileno()

    def _try(self, method: str, *arguments):
        stream = self.stream  # the live line is written from a thread of its own
        if stream is not None:
            try:
                return getattr(stream, method)(*arguments)
            except (OSError, ValueError):  # ValueError: it was closed
                self.stream = None
        return None


def _columns(stream: Forgiving) -> int:
    """The terminal's width, 80 where it does not say."""
    if (text := os.environ.get("COLUMNS", "")).isdecimal():
        return int(text)
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


class Lines:
    """A plain line at the end of the first and the last epoch, and of others at most one each `interval` seconds.

    Epochs of more than a minute show that they are alive in between.
    """

    def __init__(self, stream: TextIO | Forgiving, interval: float = 2.0):
        self.stream, self.interval = stream, interval
        self.shown_at = -math.inf

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *error) -> None:
        pass

    def __call__(self, p: Progress) -> None:
        now = time.monotonic()
        if math.isinf(self.shown_at) and p.row is None:
            self.shown_at = now - self.interval  # the first epoch's end is shown, however soon
        since = now - self.shown_at
        if p.step == p.steps or since >= (self.interval if p.row is not None else 60):
            self.shown_at = now
            self.stream.write(line(p) + "\n")
            self.stream.flush()


class Live:
    """One line that is rewritten in place, with a bar, on a terminal."""

    def __init__(self, stream: TextIO | Forgiving):
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bar

        self.bar = Bar(
            TextColumn("epoch {task.fields[epoch]}"), BarColumn(bar_width=24),
            TextColumn("loss {task.fields[loss]:.4f}  {task.fields[validation]}{task.fields[speed]}"),
            console=Console(file=stream), transient=True, refresh_per_second=8,
        )
        self.validation = ""
        self.task = None

    def __enter__(self) -> Live:
        self.bar.start()
        return self

    def __exit__(self, *error) -> None:
        self.bar.stop()

    def __call__(self, p: Progress) -> None:
        if p.row is not None:
            self.validation = f"validation {percent(p.row['validation_accuracy'])}  "
        fields = {
            "epoch": f"{p.epoch}/{p.epochs}", "loss": p.loss, "validation": self.validation,
            "speed": f"{p.images_per_second:,.0f} images/s  {spoken(p.seconds_left)} left",
        }
        if self.task is None:
            self.task = self.bar.add_task("", total=p.steps, completed=p.step, **fields)
        else:
            self.bar.update(self.task, completed=p.step, **fields)


def line(p: Progress) -> str:
    """One plain line: `epoch 12/40  loss 0.2134  validation 98.3%  21,000 images/s  1.9 s left`."""
    parts = [f"epoch {p.epoch}/{p.epochs}", f"loss {p.loss:.4f}"]
    if p.row is not None:
        parts.append(f"validation {percent(p.row['validation_accuracy'])}{' (kept)' if p.best else ''}")
    parts.append(f"{p.images_per_second:,.0f} images/s")
    parts.append(f"{spoken(p.seconds_left)} left")
    return "  ".join(parts)


def percent(share: float) -> str:
    """0.98456 -> "98.46%"."""
    return f"{share:.2%}"
