"""The command `pellucid compare`, and what it shows."""

from __future__ import annotations

import contextlib
import functools
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from .cli_app import command
from .cli_options import Json, Threads, checked, set_threads
from .cli_terminal import printable, say, show, show_json

if TYPE_CHECKING:
    from .training.compare import Comparison, Result


def compare(
    networks: Annotated[list[str], typer.Argument(metavar="NET...", help="Networks of the zoo.")],
    data: Annotated[str, typer.Option(metavar="DATA", help="As for train.")],
    epochs: Annotated[int | None, typer.Option(
        min=1, metavar="N", help="Times each goes through the images; as many as train takes if not given.",
        show_default=False)] = None,
    time: Annotated[str | None, typer.Option(
        "--time", metavar="TIME", help="Train each that long instead: 90s, 2m, 1h30m.")] = None,
    seeds: Annotated[int, typer.Option(min=1, metavar="N", help="Train each with so many seeds.")] = 1,
    gradients: Annotated[bool, typer.Option(
        "--gradients", help="Measure the gradient at each layer before training and at its end.")] = False,
    out: Annotated[str | None, typer.Option(
        metavar="DIR", help="A new folder for tables, a picture and runs; without it nothing is written.")] = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Train networks side by side and say what each gives for its cost.

    All see the same images in the same order, and have the same number of epochs or the same time. Ctrl-C stops and
    keeps what is done.

    \b
    Examples:
      pellucid compare mlp lenet --data digits
      pellucid compare mlp lenet --data photos/ --time 1m --seeds 3 --out compared
      pellucid compare mlp lenet --data digits --epochs 5 --gradients --json
    """
    if epochs is not None and time is not None:
        raise typer.BadParameter("give --epochs or --time, not both")
    if time is not None:
        from .training.plan import duration

        checked(duration, time)
    if twice := sorted({name for name in networks if networks.count(name) > 1}):
        raise typer.BadParameter(f"{printable(twice[0])} is given twice; each network is compared once")
    set_threads(threads)
    from . import cli_check
    from .training.compare import compare as trained
    from .training.progress import display

    with contextlib.ExitStack() as shown:
        reading = shown.enter_context(cli_check.display(sys.stderr))
        now, progress = None, None

        def follow(name: str, seed: int, p) -> None:
            nonlocal now, progress
            if (name, seed) != now:
                shown.close()
                say(f"{name}, seed {seed}")
                now, progress = (name, seed), shown.enter_context(display())
            progress(p)

        result = trained(networks, data, epochs=epochs, time=time, seeds=seeds, gradients=gradients, out=out,
                         progress=follow, loading=functools.partial(reading, "reading images"))
    if as_json:
        show_json(result.to_json())
    elif result.results:
        show(table(result))
    if result.interrupted:
        say(f"Stopped after {len(result.results)} of {len(networks) * seeds} runs"
            + (f"; what is done is in {printable(out)}" if out and result.results else ""))
        raise typer.Exit(1)


def table(c: Comparison) -> str:
    """A row a network, then the gradients, layer by layer."""
    from .training.plan import spoken
    from .training.progress import percent

    lines = [f"{printable(c.data)}, {c.budget} for each network"]
    body = [("network", "parameters", "multiply-adds", "test accuracy", "validation", "epochs", "time")]
    for row in c.table():
        spread = row["test_accuracy_deviation"]
        accuracy = percent(row["test_accuracy"]) + ("" if spread is None else f" ± {100 * spread:.2f}")
        body.append((row["network"], f"{row['parameters']:,}", f"{row['macs']:,}", accuracy,
                     percent(row["validation_accuracy"]), f"{row['epochs']:g}", spoken(row["seconds"])))
    lines += ["", *_columns(body)]
    if len({r.seed for r in c.results}) > 1:
        lines += ["", "Means over the seeds, ± the standard deviation between them."]
    for result in c.results:
        if result.gradients:
            lines += ["", *_gradients(result)]
    return "\n".join(lines)


def _gradients(result: Result) -> list[str]:
    body = [("layer", "kind", "parameters", "before training", "at the end")]
    body += [(g.layer, g.kind, f"{g.parameters:,}", f"{g.start:.3g}", f"{g.end:.3g}") for g in result.gradients]
    return [f"{result.network}, seed {result.seed}: norm of the gradient at each layer", *_columns(body)]


def _columns(rows: list[tuple[str, ...]]) -> list[str]:
    """Rows as text in columns; the first one to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join([f"{first:<{widths[0]}}", *(f"{c:>{w}}" for c, w in zip(rest, widths[1:], strict=True))])
            for first, *rest in rows]


command(compare)
