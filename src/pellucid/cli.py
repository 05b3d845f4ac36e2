"""The command line. It computes nothing: each command calls the library and prints what it gives back.

Imports stand where they are used, so that a command starts as fast as its own work allows.
"""

from __future__ import annotations

import contextlib
import functools
import math
import sys
from typing import Annotated

import typer

from . import (
    cli_capacity,  # noqa: F401  they add their commands
    cli_compare,  # noqa: F401
    cli_data,  # noqa: F401
    cli_exchange,  # noqa: F401
    cli_explain,  # noqa: F401
    cli_report,
    cli_study,  # noqa: F401
    distributed,
)
from .cli_app import app, command, main
from .cli_options import (
    Csv,
    Device,
    Engine,
    Json,
    ModelPath,
    Threads,
    check_csv,
    checked,
    computed_by,
    is_model,
    model_file,
    set_threads,
    shape_of,
)
from .cli_terminal import say, show, show_json

__all__ = ["app", "main"]


@command
def train(
    data: Annotated[str | None, typer.Argument(
        metavar="DATA", show_default=False,
        help="A folder of pictures, class/picture or train/class/picture, or a zip of that; a .csv of path and label; "
             "an .npz file; a folder of IDX files; digits, mnist, fashion-mnist or cifar10.",
    )] = None,
    net: Annotated[str | None, typer.Option(
        metavar="NAME", help="The network; one that suits images and time if not given.")] = None,
    epochs: Annotated[str | None, typer.Option(
        metavar="N", help="Times to go through the images; with --resume, as +N, times more.")] = None,
    time: Annotated[str | None, typer.Option(
        "--time", metavar="TIME", help="Train that long instead: 90s, 2m, 1h30m.")] = None,
    recipe: Annotated[str | None, typer.Option(
        metavar="NAME", help="How much to spend: fast, standard or best.")] = None,
    init: Annotated[str | None, typer.Option(
        metavar="MODEL", help="Start from the layers of this model, with a new last one.")] = None,
    size: Annotated[int | None, typer.Option(
        min=1, metavar="PIXELS", help="Bring pictures to squares of that side; else one that suits them.")] = None,
    fit_by: Annotated[str | None, typer.Option(
        "--fit", metavar="HOW", help="Where pictures have other proportions: crop, letterbox or stretch.")] = None,
    out: Annotated[str | None, typer.Option(
        metavar="DIR", help="The run folder; runs/DATA-NET-1 (or 2, ...) if not given.")] = None,
    resume: Annotated[str | None, typer.Option(
        metavar="DIR", help="Continue the run in this folder, as if it had never stopped.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, metavar="N", help="Decides everything random; 0 if not given.",
                                             show_default=False)] = None,
    lr: Annotated[float | None, typer.Option(metavar="X", help="The highest learning rate of the schedule.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, metavar="N", help="Images a step.")] = None,
    shift: Annotated[int | None, typer.Option(
        min=0, metavar="PIXELS", help="Move training images at random by so much; 0 for not at all.")] = None,
    mirror: Annotated[bool | None, typer.Option(
        "--mirror/--no-mirror", help="Mirror training images left to right, or not; else the images are asked.",
        show_default=False)] = None,
    tta: Annotated[str | None, typer.Option(
        metavar="VIEWS", help="What answers are the mean over (test-time augmentation): none, the image alone; mirror, "
        "its mirror image too; shifts, both also moved a little, which takes 5 times as long as mirror. Else mirror "
        "where training images are mirrored, and shifts there with --recipe best.", show_default=False)] = None,
    cutout: Annotated[int | None, typer.Option(
        min=0, metavar="PIXELS", help="Paint over a square of that side in each training image.")] = None,
    balance: Annotated[bool | None, typer.Option(
        "--balance/--no-balance", help="Let rare classes weigh more, or not; else where classes are uneven.",
        show_default=False)] = None,
    patience: Annotated[int | None, typer.Option(
        min=0, metavar="N", help="Stop after N epochs without a higher validation accuracy; 0 for never.")] = None,
    engine: Engine = None,
    device: Device = None,
    precision: Annotated[str | None, typer.Option(
        metavar="NAME", help="What training computes in. The kernels: int16, the default, for the products of 3x3 "
        "convolutions, or float32. PyTorch: float32, bfloat16 or float16; what the device gains by.",
        show_default=False)] = None,
    threads: Threads = None,
    report: Annotated[bool, typer.Option(
        "--report/--no-report", help="Write report.html into the run folder: how good it is, and what to mend.",
    )] = True,
    as_json: Json = False,
) -> None:
    """Train a classifier on labelled images.

    A part of the images is set aside: some to choose the best weights (validation), and, where the data bring no test
    images of their own, a quarter to say at the end how good they are. Ctrl-C stops and keeps the best.

    \b
    Examples:
      pellucid train digits
      pellucid train photos/ --time 2m --out runs/photos
      pellucid train --resume runs/photos
      pellucid train --resume runs/photos --epochs +5
      pellucid train more.zip --init runs/photos
      pellucid train photos/ --device cuda
    """
    settings = {"--net": net, "--time": time, "--out": out, "--seed": seed, "--lr": lr, "--batch-size": batch_size,
                "--shift": shift, "--mirror": mirror, "--tta": tta, "--cutout": cutout, "--balance": balance,
                "--patience": patience, "--recipe": recipe, "--init": init, "--size": size, "--fit": fit_by}
    if resume is not None and (given := [name for name, value in settings.items() if value is not None]):
        raise typer.BadParameter(f"--resume keeps the settings of the run; leave out {', '.join(given)}")
    if resume == "":
        raise typer.BadParameter("--resume needs the folder of a run")
    if lr is not None and not 0 < lr < math.inf:
        raise typer.BadParameter(f"--lr must be a number above zero, got {lr:g}")
    if resume is None and data is None:
        raise typer.BadParameter("say what to train on, for example: pellucid train digits")
    if epochs is not None and time is not None:
        raise typer.BadParameter("give --epochs or --time, not both")
    if init is not None and (given := [name for name in ("--net", "--size", "--fit") if settings[name] is not None]):
        raise typer.BadParameter(f"--init brings its own network and size; leave out {', '.join(given)}")
    from . import zoo
    from .data.decoding import LARGEST_SIZE
    from .data.pictures import FITS
    from .training.engines import ENGINES, PRECISIONS
    from .training.plan import duration, whole
    from .training.recipes import RECIPES
    from .views import KINDS

    for name, value, known in (("--recipe", recipe, RECIPES), ("--fit", fit_by, FITS), ("--tta", tta, KINDS),
                               ("--engine", engine, ENGINES), ("--precision", precision, PRECISIONS)):
        if value is not None and value not in known:
            raise typer.BadParameter(f"{name} must be one of {', '.join(known)}, got {value!r}")
    if time is not None:
        checked(duration, time)
    if net is not None:
        checked(zoo.require, net)
    for name, value in (("--size", size), ("--shift", shift), ("--cutout", cutout)):
        if value is not None:  # whether images are that large is seen when they are read
            checked(whole, name, value, 0, LARGEST_SIZE)
    rounds = None if epochs is None else _epochs(epochs, resume is not None)
    set_threads(threads)
    from . import cli_check, cli_text
    from .training.fit import fit
    from .training.progress import display

    with contextlib.ExitStack() as shown:
        reading, progress = shown.enter_context(cli_check.display(sys.stderr)), None

        def started(setup, folder) -> None:
            nonlocal progress
            shown.close()
            say(cli_text.start(setup, folder))
            progress = shown.enter_context(display())

        run = fit(
            net, data, epochs=rounds, time=time, seed=seed, out=resume or out, batch_size=batch_size, lr=lr,
            shift=shift, mirror=mirror, tta=tta, cutout=cutout, balance=balance, patience=patience, recipe=recipe,
            init=None if init is None else model_file(init), resume=resume is not None, size=size, fit_by=fit_by,
            engine=engine, device=device, precision=precision, progress=lambda p: progress(p),
            loading=functools.partial(reading, "reading images"), on_start=started,
            command=["pellucid", *sys.argv[1:]], reserve=cli_report.RESERVE if report else 0.0,
        )
    if distributed.rank():
        raise typer.Exit(int(run.interrupted))
    written = cli_report.of_run(run) if report else None
    if as_json:
        show_json({**run.to_json(), "report": written and str(written)})
    if run.interrupted:
        say(cli_text.interrupted(run, written))
        raise typer.Exit(1)
    if not as_json:
        show(cli_text.finished(run, written))


def _epochs(text: str, resumed: bool) -> int | str:
    from .training.plan import MOST_EPOCHS, more_epochs, whole

    if resumed:
        checked(more_epochs, text)
        return text
    if not text.isdecimal() or not int(text):
        raise typer.BadParameter(f"--epochs must be a whole number of at least 1, got {text!r}"
                                 + ("; +N adds epochs to a run, with --resume" if text.startswith("+") else ""))
    return checked(whole, "--epochs", int(text), 1, MOST_EPOCHS)


@command
def evaluate(
    model: ModelPath,
    data: Annotated[str, typer.Argument(metavar="DATA", help="As for train.")],
    csv: Csv = None,
    report: Annotated[str | None, typer.Option(
        metavar="FILE", help="Write the report there; by default beside the model, as report-DATA-1.html (or 2, ...).",
    )] = None,
    no_report: Annotated[bool, typer.Option("--no-report", help="Write no report, as with --json alone.")] = False,
    engine: Engine = None,
    device: Device = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Say how good a model is on labelled images, class by class, and how far its probabilities can be believed.

    On the data it was trained on, only the test images count, those it never saw. On other data, their test images if
    they have some of their own, else all; without those that the run has seen, if MODEL is still in its run folder.

    \b
    Examples:
      pellucid evaluate runs/digits-lenet-1 digits
      pellucid evaluate model.safetensors more.npz --json
      pellucid evaluate model.safetensors more.npz --csv images.csv
      pellucid evaluate model.safetensors more.npz --report more.html
    """
    check_csv(csv, model, data)
    cli_report.check_report(report, not no_report, model, data)
    set_threads(threads)
    from . import cli_check, cli_evaluation
    from .evaluation import evaluate_on, scores
    from .exchange import load
    from .files import csv_file
    from .training.run import RunFolder

    path = model_file(model)
    loaded = load(path)
    seen = RunFolder(path.parent).read_seen(loaded.record)
    computed_by(loaded, engine, device)
    notes: list[str] = []
    with csv_file(csv, scores.COLUMNS) if csv is not None else contextlib.nullcontext() as write:
        with cli_check.display(sys.stderr) as reading:
            part, result = evaluate_on(loaded, data, functools.partial(reading, "reading images"), seen=seen,
                                       note=notes.append)
        for note in notes:
            say(note)
        for row in result.rows() if write else ():
            write(row)
    written = failed = None
    if report is not None or not as_json and not no_report:
        try:
            written = cli_report.of_evaluation(
                loaded, path, data, part, result, notes, ["pellucid", *sys.argv[1:]], report)
        except Exception as e:  # the figures come first
            failed = e
    if as_json:
        show_json({"model": str(path), "data": data, "images": part, "report": written and str(written),
                   **result.to_json()})
    else:
        show(cli_evaluation.evaluation(part, result, written))
    if failed is not None:
        raise failed


@command
def predict(
    model: ModelPath,
    paths: Annotated[list[str], typer.Argument(
        metavar="PATH", help="Images, folders or zips of them, patterns, or .npz files with arrays of them.")],
    top: Annotated[int | None, typer.Option(
        min=1, metavar="N", help="Classes to show for each image; 3 if not given, in JSON all.", show_default=False,
    )] = None,
    reject: Annotated[bool, typer.Option(
        "--reject/--no-reject", help="Say where an image is likely none of the classes, if the model has learned when.",
    )] = True,
    csv: Csv = None,
    engine: Engine = None,
    device: Device = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Say what is in images.

    Folders are searched at any depth. A file that cannot be read is reported and the others go on; the exit status is
    then 1. With --csv the answers go into that file instead.

    \b
    Examples:
      pellucid predict runs/digits-lenet-1 three.png
      pellucid predict model.safetensors photos/ more.zip --csv answers.csv
      pellucid predict model.safetensors *.jpg --top 5 --json
    """
    check_csv(csv, model, *paths)
    set_threads(threads)
    from .cli_prediction import report
    from .exchange import load
    from .prediction import predict_files

    file = model_file(model)
    loaded = load(file)
    computed_by(loaded, engine, device)
    about = {"model": str(file), "threshold": loaded.calibration and loaded.calibration.threshold if reject else None}
    results = predict_files(loaded, paths, reject=reject)
    if report(results, about, as_json=as_json, csv=csv, top=top, classes=len(loaded.classes)):
        raise typer.Exit(1)


@command
def summary(
    network: Annotated[str, typer.Argument(metavar="NET|MODEL", help="A network, a model file or a run folder.")],
    shape: Annotated[str | None, typer.Option("--input", metavar="HxWxC", help="Size of the images: 28x28x1.")] = None,
    classes: Annotated[int | None, typer.Option(min=1, metavar="N", help="Number of classes.")] = None,
    as_json: Json = False,
) -> None:
    """List a network's layers: what each puts out, holds, computes and sees; and where its costs are.

    \b
    Examples:
      pellucid summary lenet
      pellucid summary lenet --input 32x32x3 --classes 100
      pellucid summary runs/digits-lenet-1
    """
    if is_model(network):
        if shape is not None or classes is not None:
            raise typer.BadParameter("--input and --classes are for a network's name; a model has its own")
        from .exchange import load

        net = load(model_file(network)).network
    else:
        from . import zoo

        if network not in zoo.names():
            raise ValueError(f"{network}: no such file, run folder or network; networks are {', '.join(zoo.names())}")
        net = zoo.build(network, input_shape=shape_of(shape), classes=classes)
    from . import anatomy, cli_text

    if as_json:
        show_json({**cli_text.layers(net), **anatomy.describe(net)})
    else:
        show("\n\n".join(filter(None, (net.summary(), anatomy.text(net)))))
