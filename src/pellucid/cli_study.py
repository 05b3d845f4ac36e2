"""The command `pellucid study`."""

from __future__ import annotations

import functools
import sys
import textwrap
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from .cli_app import command
from .cli_options import Json, ModelPath, Threads, model_file, require_pixels, set_threads
from .cli_terminal import show, show_json
from .texts import number, printable, quoted

if TYPE_CHECKING:
    import numpy as np

    from .model import Model

WIDTH, INDENT = 80, {"initial_indent": "  ", "subsequent_indent": "  "}
# Multiply-adds that one pass over the images may take; studies that take many passes take fewer images themselves.
BUDGET, MOST, LEAST = 3e11, 1000, 16


def study(
    model: ModelPath,
    data: Annotated[str, typer.Argument(metavar="DATA", help="As for train; its test images count, if it has some.")],
    out: Annotated[str | None, typer.Option(
        metavar="DIR", help="A new folder for the page, its pictures and numbers; studied/MODEL-1 (or 2, ...) if not "
        "given.")] = None,
    only: Annotated[list[str] | None, typer.Option(
        metavar="NAME", help="Only this study; may be given several times.", show_default=False)] = None,
    images: Annotated[int | None, typer.Option(
        min=1, metavar="N", help="Images to look at, taken at equal distances; by default as many as take about a "
        "minute, at most 1,000.", show_default=False)] = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Measure on a model what is said of convolutional networks: templates, hierarchy, sharing, equivariance.

    One page shows what was found, with pictures, and opens without a network. What a network does not allow, such as
    filters where there is no convolution, is said and left out.

    \b
    Examples:
      pellucid study runs/digits-lenet-1 digits
      pellucid study model.safetensors photos/ --out studied/photos
      pellucid study runs/digits-lenet-1 digits --only depth --only sharing --json
    """
    from . import studies

    if unknown := [name for name in only or () if name not in studies.MODEL_STUDIES]:
        raise typer.BadParameter(f"there is no study {printable(unknown[0])!r}; there are "
                                 f"{', '.join(studies.MODEL_STUDIES)}")
    set_threads(threads)
    from . import cli_check, files
    from .exchange import load
    from .report.origin import made
    from .report.studied import study_page
    from .report.writing import default_folder, write_page

    path = model_file(model)
    loaded = load(path)
    require_pixels(loaded, path)
    names = [name for name in studies.MODEL_STUDIES if not only or name in only]
    found, refused = [], {}
    with files.filling(out or default_folder("studied", model), numbered=out is None) as inside, \
            cli_check.display(sys.stderr) as progress:
        part, pixels = images_of(loaded, data, images, functools.partial(progress, "reading images"))
        for i, name in enumerate(names):
            progress(f"studying {name}", i, len(names))
            try:
                found.append(studies.MODEL_STUDIES[name](loaded, pixels))
            except studies.DoesNotApply as e:
                refused[name] = str(e)
        progress("drawing", len(names), len(names))
        numbers = {"model": str(path), "data": data, "images": part, "count": len(pixels),
                   "studies": [study.to_json() for study in found], "left_out": refused}
        facts = [("model", str(path)), ("images", f"{len(pixels):,} of {part}"),
                 ("layers", len(loaded.network.nodes)), ("parameters", f"{loaded.network.parameter_count:,}")]
        page, pictures = study_page(f"What {path.stem if path.stem != 'best' else path.parent.name} does", facts, found,
                                    refused, made(["pellucid", *sys.argv[1:]]))
        write_page(inside, "study", page, pictures, numbers)
    file = inside.parent / "study.html"
    if as_json:
        show_json({**numbers, "page": str(file)})
        return
    for study in found:
        show(f"{study.title}\n{textwrap.fill(printable(study.sentence), WIDTH, **INDENT)}\n")
    for name, reason in refused.items():
        show(f"{name} is left out: {printable(reason)}\n")
    show(f"page      {quoted(file)}")
    show(f"pictures  {number(len(pictures), 'file')} in {quoted(inside.parent / 'pictures')}")


def images_of(model: Model, data: str, count: int | None, progress: Callable) -> tuple[str, np.ndarray]:
    """What the images are in words, and some of them at equal distances: its own test images, else all."""
    from .data import load
    from .data.arrays import spread

    dataset = load(data, **model.preprocessing.loading, partial=True, progress=progress)
    part, pixels = f"{dataset.name}, all images", dataset.images
    if dataset.has_test:
        part, pixels = f"{dataset.name}, its test images", dataset.test_images
    cost = max(sum(model.network.macs.values()), 1)
    most = count or int(min(max(BUDGET / cost, LEAST), MOST))
    return f"{part}, {len(pixels):,}", pixels[spread(len(pixels), most)]


command(study)
