"""Where `train` and `evaluate` put their reports. What fails here costs a line, never a result."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from .cli_terminal import one_line, say
from .texts import printable

if TYPE_CHECKING:
    from .evaluation import Evaluation
    from .model import Model
    from .training.result import Run

RESERVE = 1.5  # seconds that writing a report may take of the time that training is given


def check_report(path: str | None, wanted: bool, *inputs: str) -> None:
    """Refuse to write a report over something that is none, or that is read."""
    if path is None:
        return
    if not wanted:
        raise typer.BadParameter("give --report FILE or --no-report, not both")
    if not path.lower().endswith((".html", ".htm")):
        raise typer.BadParameter(f"--report writes a file whose name ends in .html, got {printable(path)}")
    if os.path.realpath(path) in map(os.path.realpath, inputs):
        raise typer.BadParameter(f"--report would overwrite {printable(path)}, which is read; choose another name")


def of_run(run: Run) -> Path | None:
    """Write the report of a run into its folder; None, and a line that says why, where that is impossible."""
    from .training.run import RunFolder

    def text() -> str:
        from .report import of_run

        return of_run(run)

    return _tried(RunFolder(run.folder).report, text, "the run is whole without it")


def of_evaluation(model: Model, file: Path, data: str, part: str, result: Evaluation, notes: list[str],
                  command: list[str], path: str | None) -> Path | None:
    """Write the report of an evaluation: to `path`, where that fails raising OSError; else beside the model, under a
    name that nothing has, where a line says why there is none."""
    def text() -> str:
        from .report import of_evaluation

        name = file.parent.resolve().name if file.name == "best.safetensors" else file.stem
        return of_evaluation(model, result, part, name=name, notes=notes, command=command)

    if path is not None:
        from .files import atomic_text

        atomic_text(path, text())
        return Path(path)
    return _tried(_free(file.parent, data), text, "--report FILE writes it elsewhere, --no-report none")


def _tried(path: Path, text: Callable[[], str], hint: str) -> Path | None:
    from .files import atomic_text

    try:
        atomic_text(path, text())
    except (Exception, KeyboardInterrupt) as e:
        if os.environ.get("PELLUCID_TRACEBACK"):
            raise
        why = "stopped by Ctrl-C" if isinstance(e, KeyboardInterrupt) else one_line(e)
        say(f"pellucid: no report: {why}; {hint}")
        return None
    return path


def _free(folder: Path, data: str) -> Path:
    """folder/report-<data>-<n>.html, with the smallest n from 1 that nothing has."""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", Path(data).stem).strip("-.")[:40] or "data"
    return next(p for n in count(1) if not os.path.lexists(p := folder / f"report-{name}-{n}.html"))
