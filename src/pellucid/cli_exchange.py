"""The command `pellucid import`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .cli_app import command
from .cli_options import Json, shape_of
from .cli_terminal import printable, say, show, show_json

if TYPE_CHECKING:
    from .model import Model


def import_weights(
    source: Annotated[str, typer.Argument(
        metavar="FILE|NAME", help="Weights (.pth, .pt or .safetensors), or a network whose published ones to fetch.")],
    net: Annotated[str | None, typer.Option(
        metavar="NAME", help="The network that the weights in FILE belong to.")] = None,
    out: Annotated[str | None, typer.Option(
        metavar="MODEL", help="The model to write; NAME.safetensors if not given.")] = None,
    shape: Annotated[str | None, typer.Option(
        "--input", metavar="HxWxC", help="Size of the images, where it is not the network's own.")] = None,
    classes: Annotated[str | None, typer.Option(
        metavar="FILE", help="Names of the classes, a line each.")] = None,
    mean: Annotated[str | None, typer.Option(
        metavar="X,...", help="Mean of each channel, where white is 1; with --std.")] = None,
    std: Annotated[str | None, typer.Option(
        metavar="X,...", help="Standard deviation of each channel, where white is 1; with --mean.")] = None,
    fit_by: Annotated[str | None, typer.Option(
        "--fit", metavar="HOW", help="How pictures become that size: crop, 'crop 256', letterbox or stretch.")] = None,
    as_json: Json = False,
) -> None:
    """Make a model of weights that PyTorch has trained.

    Names and shapes must be those of torchvision's network, or of ours. Nothing in a file is executed: tensors are
    read, all else is refused. Networks of torchvision's get ImageNet's preprocessing and names; --mean, --std, --fit
    and --classes say otherwise. Published weights are checked by the digits of their SHA-256 that their name holds.

    \b
    Examples:
      pellucid import resnet50 --out resnet50.safetensors
      pellucid import resnet18-f37072fd.pth --net resnet18
      pellucid import mine.pth --net resnet20 --mean 0.49,0.48,0.45 --std 0.2,0.2,0.2 --classes names.txt
    """
    if (mean is None) != (std is None):
        raise typer.BadParameter("--mean and --std go together")
    if fit_by is not None and mean is None:
        raise typer.BadParameter("--fit needs --mean and --std")
    input_shape = shape_of(shape)
    from . import zoo
    from .cli_text import number
    from .exchange import fetching

    fetched = net is None and source in fetching.PUBLISHED and not Path(source).exists()
    if not fetched and net is None:
        if not Path(source).exists():
            raise ValueError(f"{source}: no such file, and no network with published weights; there are "
                             f"{', '.join(fetching.PUBLISHED)}")
        raise typer.BadParameter(f"say with --net which network these weights belong to: {', '.join(zoo.names())}")
    name = source if fetched else net
    target = Path(out if out is not None else f"{name}.safetensors")
    if target.suffix.lower() != ".safetensors":
        raise typer.BadParameter(f"--out is a file whose name ends in .safetensors, got {printable(str(target))}")
    if os.path.lexists(target):
        raise ValueError(f"{target} is there already; give another name with --out, or remove it")
    given = None if mean is None else {"mean": _numbers("--mean", mean), "std": _numbers("--std", std),
                                       "fit": fit_by or "crop"}
    model = _of_weights(None if fetched else source, name, input_shape, given, classes)
    model.save(target)
    described = {"model": str(target), "network": name, "parameters": model.network.parameter_count,
                 "input": list(model.network.input_shape), "classes": len(model.classes),
                 "preprocessing": model.preprocessing and model.preprocessing.to_json()}
    if as_json:
        show_json(described)
        return
    show(f"{printable(str(target))}: {name}, {number(described['parameters'], 'parameter')}, "
         f"{number(described['classes'], 'class', 'classes')}")
    if not model.preprocessing:
        say("It does not know what to do with pixels, so it cannot predict pictures: --mean and --std would say it.")


def _of_weights(file: str | None, net: str, input_shape: tuple[int, ...] | None, given: dict | None,
                classes: str | None) -> Model:
    """A network with the weights in a file, or with its published ones; `given` is the preprocessing, if asked for."""
    from . import cli_check, zoo
    from .exchange import weights
    from .preprocessing import Preprocessing

    options = {"input_shape": input_shape, "classes": None if classes is None else _names(classes)}
    if given:
        options["preprocessing"] = Preprocessing(zoo.build(net, input_shape=input_shape).input_shape, **given)
    if file is not None:
        return weights.load(file, net, **options)
    with cli_check.display(sys.stderr) as progress:
        return weights.published(net, progress=progress, **options)


def _names(path: str) -> list[str]:
    """The lines of a file that are not empty."""
    from .files import open_file

    with open_file(path) as (file, size):
        if size > 2**24:
            raise ValueError(f"{path}: of {size:,} bytes, which are no names of classes")
        try:
            return [line.strip() for line in file.read().decode("utf-8-sig").splitlines() if line.strip()]
        except UnicodeDecodeError:
            raise ValueError(f"{path}: not a text in UTF-8, expected the name of a class on each line") from None


def _numbers(option: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(map(float, text.split(",")))
    except ValueError:
        raise typer.BadParameter(f"{option} is a number a channel, as in 0.485,0.456,0.406; got {text!r}") from None


command(import_weights, name="import")
