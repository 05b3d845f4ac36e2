"""The commands `pellucid data check` and `pellucid data labels`."""

from __future__ import annotations

import contextlib
import functools
import sys
from typing import Annotated

import typer

from .cli_app import command, data_app
from .cli_options import Json, Threads, checked, set_threads
from .cli_terminal import say, show, show_json


def check(data: Annotated[str, typer.Argument(metavar="DATA", help="As for train.")], as_json: Json = False) -> None:
    """Find what is wrong with labelled images, or may be.

    Unreadable files, copies and near copies (with other labels, in other parts), classes that are tiny or out of
    balance, parts that do not fit together, empty images. Nothing is changed. The exit status is 0 when the data could
    be checked, whatever was found.

    \b
    Examples:
      pellucid data check digits
      pellucid data check photos.npz --json
    """
    from . import cli_check
    from .data import load
    from .data.check import check as check_dataset

    with cli_check.display(sys.stderr) as progress:
        dataset = load(data, partial=True, progress=functools.partial(progress, "reading images"))
        for note in dataset.notes:
            say(note)
        report = check_dataset(dataset, progress)
    if as_json:
        show_json(report.to_json())
    else:
        show(cli_check.report(report))


def labels(
    data: Annotated[str, typer.Argument(metavar="DATA", help="As for train; its own test images are left alone.")],
    net: Annotated[str | None, typer.Option(
        metavar="NAME", help="The network; one that suits the images if not given.")] = None,
    folds: Annotated[int, typer.Option(min=2, metavar="N", help="Parts to judge, each by a model of its own.")] = 3,
    epochs: Annotated[int | None, typer.Option(min=1, metavar="N", help="Times to go through the images.")] = None,
    time: Annotated[str | None, typer.Option(
        "--time", metavar="TIME", help="Train that long instead, all folds together: 90s, 2m, 1h30m.")] = None,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Decides everything random.")] = 0,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """List the images whose label is probably wrong.

    A model is trained for each fold of the images, on the other folds, and disputes the labels that it finds less
    probable than another class. Nothing is changed or written: look at the images and decide.

    \b
    Examples:
      pellucid data labels photos.npz
      pellucid data labels photos/ --time 5m
      pellucid data labels digits --folds 5 --json
    """
    if epochs is not None and time is not None:
        raise typer.BadParameter("give --epochs or --time, not both")
    from . import zoo
    from .training.plan import MOST_EPOCHS, duration, whole

    if time is not None:
        checked(duration, time)
    if net is not None:
        checked(zoo.require, net)
    if epochs is not None:
        checked(whole, "--epochs", epochs, 1, MOST_EPOCHS)
    set_threads(threads)
    from . import cli_check, cli_evaluation
    from .data import load
    from .evaluation import label_errors
    from .training.progress import display

    with cli_check.display(sys.stderr) as reading:
        dataset = load(data, progress=functools.partial(reading, "reading images"))
    for note in dataset.notes:
        say(note)
    with contextlib.ExitStack() as shown:
        fold, progress = 0, None

        def follow(number: int, p) -> None:
            nonlocal fold, progress
            if number != fold:
                shown.close()
                say(f"fold {number} of {folds}")
                fold, progress = number, shown.enter_context(display())
            progress(p)

        result = label_errors(dataset, net, folds=folds, seed=seed, epochs=epochs, time=time, progress=follow)
    if as_json:
        show_json(result.to_json())
    else:
        show(cli_evaluation.label_errors(result))


for _function in (check, labels):
    command(_function, data_app)
