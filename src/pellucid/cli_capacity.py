"""The command `pellucid capacity`, and what it shows."""

from __future__ import annotations

import functools
import json
import sys
import time as clock
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .cli_app import command
from .cli_options import Json, Threads, checked, set_threads
from .cli_terminal import fail, printable, say, show, show_json

if TYPE_CHECKING:
    from .studies.generalisation import Generalisation

SAVE_EVERY = 10.0  # seconds between saves, and between lines where no bar can be shown


def capacity(
    data: Annotated[str, typer.Argument(metavar="DATA", help="As for train.")],
    time: Annotated[str, typer.Option(
        "--time", metavar="TIME", help="How long all may take together: 90s, 10m, 1h.")] = "100s",
    seeds: Annotated[int, typer.Option(min=1, max=1000, metavar="N", help="Train everything with so many seeds.")] = 5,
    net: Annotated[str | None, typer.Option(
        metavar="NAME", help="The network of the learning curve; one that suits the images if not given.")] = None,
    degrees: Annotated[str, typer.Option(metavar="N,N,...", help="Degrees of the polynomials.")] = "1,2,10",
    out: Annotated[str | None, typer.Option(
        metavar="DIR", help="A new folder for the page and the numbers; runs/capacity-DATA-1 (or 2, ...) if not given.",
    )] = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Measure under- and overfitting, and whether more images would help.

    Trains dense and convolutional networks of growing width on the same images, and one network on growing parts of
    them, many small runs in all; fits polynomials to noisy points besides. Writes capacity.html and capacity.json.
    Ctrl-C stops and keeps what was measured; it cannot be resumed.

    \b
    Examples:
      pellucid capacity digits
      pellucid capacity photos/ --time 20m --seeds 3 --out measured
      pellucid capacity digits --degrees 1,3,9 --json
    """
    from . import zoo
    from .training.plan import duration

    seconds = checked(duration, time)
    wanted = _degrees(degrees)
    if net is not None:
        checked(zoo.require, net)
    set_threads(threads)
    from . import cli_check, files
    from .report import generalisation as page
    from .report import origin
    from .studies.generalisation import study
    from .training.run import RunFolder

    folder, saved = None, 0.0
    if out is not None:  # before anything is read
        RunFolder.require_new(out)
        files.check_writable(out)
        folder = Path(out)

    def save(g: Generalisation) -> None:
        nonlocal folder, saved
        if folder is None:
            folder = RunFolder.create(None, f"capacity-{Path(g.data).stem}").path
        files.atomic_text(folder / "capacity.json", json.dumps(g.to_json(), allow_nan=False) + "\n")
        files.atomic_text(folder / "capacity.html", page.write(g, origin.made(["pellucid", *sys.argv[1:]])))
        saved = clock.monotonic()

    def measured(g: Generalisation) -> None:
        if clock.monotonic() - saved > SAVE_EVERY:
            save(g)

    with cli_check.display(sys.stderr, SAVE_EVERY) as display:
        made = study(data, time=seconds, seeds=seeds, network=net, degrees=wanted, progress=display,
                     loading=functools.partial(display, "reading images"), done=measured)
    if not made.interrupted or made.capacity and made.capacity.trials:
        save(made)
    if as_json:
        show_json({**made.to_json(), "folder": folder and str(folder)})
    elif folder:
        show(text(made, folder))
    if made.problem:
        fail(made.problem)
    if made.interrupted:
        say("Stopped" + (f"; what was measured is in {printable(str(folder))}, and cannot be resumed" if folder else
                         " before anything was measured"))
        raise typer.Exit(1)


def _degrees(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and len(part) < 4 for part in parts) or len(set(map(int, parts))) != len(parts):
        raise typer.BadParameter(f"--degrees must be whole numbers, each once, like 1,2,10, got {printable(text)}")
    from .studies.polynomials import POINTS

    if max(map(int, parts)) >= POINTS:
        raise typer.BadParameter(f"--degrees must be below {POINTS}, the number of points, got {printable(text)}")
    return [int(part) for part in parts]


def text(g: Generalisation, folder: Path) -> str:
    """What was found, in sentences, and where the page is."""
    lines = ["Polynomials", *(f"  {line}" for line in g.polynomials.words())]
    if g.capacity and g.capacity.trials:
        lines += ["", "Dense and convolutional networks of growing width"]
        lines += [f"  {line}" for line in g.capacity.words()]
    if g.curve and g.curve.trials:
        lines += ["", "Would more images help?", f"  {g.words()}"]
    notes = [note for part in (g.capacity, g.curve) if part for note in part.notes]
    lines += ["", *notes] if notes else []
    return "\n".join([*map(printable, lines), "", f"page     {printable(str(folder / 'capacity.html'))}",
                      f"numbers  {printable(str(folder / 'capacity.json'))}"])


command(capacity)
