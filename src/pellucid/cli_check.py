"""What `pellucid data check` shows: how far it is, and its report for people."""

from __future__ import annotations

import textwrap
import time
from typing import TYPE_CHECKING, TextIO

from .texts import number, printable
from .training import progress
from .training.progress import Forgiving

if TYPE_CHECKING:
    from .data.check import Finding, Item, Report

NAMES = 10  # of a finding; --json has all
WIDTH = 100  # columns of running text


def report(r: Report) -> str:
    """The counts as a table, then the findings: what was found, what that means and what to do, and where."""
    counts = {"smallest": "from", "median": "half up to", "largest": "to"}
    total = sum(sum(row.values()) for row in r.counts.values())
    lines = [f"{printable(r.name)}: {number(total, 'image')} in {number(len(r.counts), 'class', 'classes')}, "
             f"{'x'.join(map(str, r.shape))} (height x width x channels)"]
    if r.sizes:
        lines.append("pictures (height x width): "
                     + ", ".join(f"{word} {'x'.join(map(str, r.sizes[name]))}" for name, word in counts.items())
                     + "; " + ", ".join(f"{count:,} {printable(mode)}" for mode, count in r.modes.items()))
    lines += ["", *_table(r.counts)]
    if not r.findings:
        return "\n".join([*lines, "", "Nothing was found that is wrong or suspicious."])
    for finding in r.findings:
        lines += ["", *_finding(finding)]
    return "\n".join(lines)


def _table(counts: dict[str, dict[str, int]]) -> list[str]:
    names = {name: printable(name) for name in counts}
    parts = list(next(iter(counts.values())))
    total = {part: sum(row[part] for row in counts.values()) for part in parts}
    width = max(len("class"), *map(len, names.values()))
    widths = {part: max(len(part), len(f"{total[part]:,}")) for part in parts}

    def row(name: str, cells: dict[str, str]) -> str:
        return "  ".join([f"{name:<{width}}", *(f"{cells[part]:>{widths[part]}}" for part in parts)])

    return [row("class", {part: part for part in parts}),
            *(row(names[name], {part: f"{row_[part]:,}" for part in parts}) for name, row_ in counts.items()),
            row("total", {part: f"{total[part]:,}" for part in parts})]


def _finding(finding: Finding) -> list[str]:
    lines = textwrap.wrap(f"{finding.severity}: {printable(finding.text)}", WIDTH)
    lines += textwrap.wrap(finding.advice, WIDTH, initial_indent="  ", subsequent_indent="  ")
    shown, left, hidden = [], NAMES, sum(len(item.names) for item in finding.items)
    for item in finding.items:
        if left < min(len(item.names), 2):  # one of two images that are alike says nothing
            break
        shown.append("    " + _item(item, left))
        left -= len(item.names)
        hidden -= min(len(item.names), left + len(item.names))
    return [*lines, *shown, *[f"    and {hidden:,} more"] * (hidden > 0)]


def _item(item: Item, most: int) -> str:
    names = " = ".join(printable(name) for name in item.names[:most]) + " = ..." * (len(item.names) > most)
    return f"{names}: {printable(item.note)}" if item.note else names


def display(stream: TextIO | None, interval: float = 2.0) -> Lines | Live:
    """The display that suits the stream (None: there is none, and nothing shows); call it as `check` calls progress."""
    stream = Forgiving(stream)
    return Live(stream) if stream.isatty() else Lines(stream, interval)


class Lines(progress.Lines):
    """A plain line every `interval` seconds, none where all is done sooner."""

    def __enter__(self) -> Lines:
        self.shown_at = time.monotonic()
        return self

    def __call__(self, stage: str, done: int, count: int) -> None:
        if time.monotonic() - self.shown_at >= self.interval:
            self.shown_at = time.monotonic()
            self.stream.write(f"{stage}: {done:,} of {count:,}\n")
            self.stream.flush()


class Live(progress.Live):
    """One line with a bar that is rewritten in place, on a terminal."""

    def __init__(self, stream: Forgiving):
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        self.bar = Bar(TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(),
                       TimeRemainingColumn(), console=Console(file=stream), transient=True, refresh_per_second=8)
        self.task = None

    def __call__(self, stage: str, done: int, count: int) -> None:
        if self.task is None:
            self.task = self.bar.add_task("", total=count)
        self.bar.update(self.task, description=stage, completed=done, total=count)
