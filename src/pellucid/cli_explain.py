"""The command `pellucid explain`."""

from __future__ import annotations

import functools
import sys
import textwrap
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from .cli_app import command
from .cli_options import Json, ModelPath, Threads, checked, model_file, require_pixels, set_threads
from .cli_terminal import say, show, show_json
from .texts import number, printable, quoted

if TYPE_CHECKING:
    import numpy as np

    from .data.split import Rows
    from .model import Model

WIDTH = 80
BUDGET, LEAST = 2e11, 64  # multiply-adds that searching for neighbours may take, and images that are searched at least


class Searched(NamedTuple):
    """Images among which to look for neighbours: `indices` say which of the data set these are."""

    images: Rows
    labels: np.ndarray
    classes: list[str]
    indices: np.ndarray


def explain(
    model: ModelPath,
    image: Annotated[str, typer.Argument(
        metavar="IMAGE", help="A picture; one in a zip, more.zip/1.png; or an image of a data set by its number from "
        "0, digits:17, or mnist:test:17 of its test images.")],
    out: Annotated[str | None, typer.Option(
        metavar="DIR", help="A new folder for the page, its pictures and numbers; explained/IMAGE-1 (or 2, ...) if not "
        "given.")] = None,
    target: Annotated[str | None, typer.Option(
        metavar="CLASS", help="The class to explain, by name or number; the model's answer if not given.")] = None,
    data: Annotated[str | None, typer.Option(
        metavar="DATA", help="Where to search for similar images; the data the model was trained on if not given.",
    )] = None,
    method: Annotated[list[str] | None, typer.Option(
        metavar="NAME", help="Only this map; may be given several times.", show_default=False)] = None,
    region: Annotated[str | None, typer.Option(
        metavar="Y,X,H,W", help="Why this part of it? In pixels of the image as the model reads it, from 0.")] = None,
    at: Annotated[str | None, typer.Option(
        metavar="NUMBER", help="Open this number of the network: 'conv1[3,4,0]', y, x and channel.")] = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Say why a model answers as it does for an image, and why a part of it speaks for that.

    One page shows where each method sees the reason and which to believe, what a part of the image does to the answer,
    the smallest change that turns it, similar images, each layer's maps, and every number from the answer down to a
    pixel. It opens without a network.

    \b
    Examples:
      pellucid explain runs/digits-lenet-1 three.png
      pellucid explain runs/digits-lenet-1 digits:17 --target 9
      pellucid explain model.safetensors photos.zip/cat/1.jpg --region 10,20,32,32
      pellucid explain model.safetensors three.png --at 'conv1[3,4,0]' --json
    """
    box = None if region is None else _box(region)
    if method:
        from .explain import METHODS

        if unknown := [name for name in method if name not in METHODS]:
            raise typer.BadParameter(f"there is no method {printable(unknown[0])!r}; there are {', '.join(METHODS)}")
    if at is not None:
        from .explain.trace import parsed

        checked(parsed, at)
    set_threads(threads)
    from . import cli_check, files
    from .exchange import load
    from .explain.explanation import explain_image
    from .prediction import read_image
    from .report.explained import explanation_page
    from .report.origin import made
    from .report.writing import default_folder, write_page

    path = model_file(model)
    loaded = load(path)
    require_pixels(loaded, path)
    with files.filling(out or default_folder("explained", image), numbered=out is None) as inside, \
            cli_check.display(sys.stderr) as progress:
        reading = functools.partial(progress, "reading images")
        named = read_image(image, loaded.preprocessing, reading)
        searched, where = _searched(loaded, data, reading)
        e = explain_image(loaded, named.image, _target(loaded, target), methods=method or None, box=box, at=at,
                          data=searched, progress=progress)
        if searched is None:
            e.missing["neighbours"] = where
        progress("drawing", 1, 1)
        page, pictures = explanation_page(
            loaded, e, named.name, named.label, facts=[("model", str(path))], nearest=where,
            foot=made(["pellucid", *sys.argv[1:]]))
        numbers = {"model": str(path), "image": named.name, "label": named.label, **e.to_json()}
        write_page(inside, "explanation", page, pictures, numbers)
    file = inside.parent / "explanation.html"
    if as_json:
        show_json({**numbers, "page": str(file)})
        return
    from .report.answer import said

    show(textwrap.fill(printable(" ".join(said(e, named.label))), WIDTH) + "\n")
    if e.asked:
        show(f"{e.asked.steps[0].terms}\n")
    for part, reason in e.missing.items():
        say(f"left out: {part}: {printable(reason)}")
    show(f"page      {quoted(file)}\npictures  {number(len(pictures), 'file')} in {quoted(inside.parent / 'pictures')}")
    if not e.asked:
        step = e.path.steps[min(len(e.path.steps) // 2, len(e.path.steps) - 1)]
        show(f"\nNext:  pellucid explain {quoted(model)} {quoted(image)} --at {quoted(step.terms.address)}")


def _target(model: Model, text: str | None) -> str | int | None:
    """A class by its name, or else by its number."""
    if text is None or text in model.classes or not text.isdecimal() or len(text) > 9:
        return text
    return int(text)


def _box(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 4 or not all(part.isdecimal() and len(part) < 10 for part in parts):
        raise typer.BadParameter(f"--region is y,x,height,width in pixels, such as 2,0,4,4, got {printable(text)!r}")
    return [int(part) for part in parts]


def _searched(model: Model, given: str | None, progress: Callable) -> tuple[Searched | None, str]:
    """The images to search, at most as many as the budget allows, and in words which these are, or why there are none.

    Of the data that the model was trained on those of training; of others all. Data that are not given must be those
    still: what a model file names is no reason to show what else lies there.
    """
    spec = given if given is not None else model.record.get("source")
    other = "--data DATA names images to search"
    if not isinstance(spec, str) or not spec:
        return None, f"the model does not say what it was trained on; {other}"
    import numpy as np

    from . import data
    from .data.arrays import spread
    from .data.split import Rows
    from .training.setup import digest

    try:
        dataset = data.load(spec, **model.preprocessing.loading, partial=True, progress=progress)
    except (ValueError, OSError):
        if given is not None:
            raise
        return None, f"the data that the model was trained on, {spec}, cannot be read; {other}"
    chosen, where, seed = np.arange(len(dataset.labels)), dataset.name, model.record.get("seed")
    known = model.record.get("data_digest") == digest(dataset)
    if given is None and not known:
        return None, f"{spec} does not hold what the model was trained on; {other}"
    if known and isinstance(seed, int) and not isinstance(seed, bool):
        chosen, where = data.split(dataset, seed).train.indices, f"{dataset.name}, those it was trained on"
    most = max(int(BUDGET / max(sum(model.network.macs.values()), 1)), LEAST)
    if len(chosen) > most:
        chosen, where = chosen[spread(len(chosen), most)], f"{where}: {most:,} of {len(chosen):,} at equal distances"
    return Searched(Rows(dataset.images, chosen), dataset.labels[chosen], dataset.classes, chosen), where


command(explain)
