"""The commands `pellucid export` and `pellucid import`."""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .cli_app import command
from .cli_options import Json, ModelPath, checked, model_file, shape_of
from .cli_terminal import printable, say, show, show_json

if TYPE_CHECKING:
    from .model import Model

ENDINGS = {"onnx": ".onnx", "torch": ".py"}


def export(
    model: ModelPath,
    to: Annotated[str, typer.Option("--to", metavar="onnx|torch", help="For ONNX Runtime and its like, or PyTorch.")],
    out: Annotated[str | None, typer.Option(metavar="FILE", help="Where to; beside the model if not given.")] = None,
    check: Annotated[str | None, typer.Option(
        metavar="DATA", help="Images to compare on; those the model was trained on if not given.")] = None,
    as_json: Json = False,
) -> None:
    """Write a model for other programs, and make sure that they get its answers.

    Pixels are scaled, and probabilities calibrated, in what is written. It is run on real images before it is put in
    its place; where there are none, the file is written and said to be unchecked.

    \b
    Examples:
      pellucid export runs/digits-lenet-1 --to onnx
      pellucid export model.safetensors --to onnx --out model.onnx --check photos/
      pellucid export model.safetensors --to torch --out net.py
    """
    if to not in ENDINGS:
        raise typer.BadParameter(f"--to must be one of {', '.join(ENDINGS)}, got {to!r}")
    if out is not None and not out.endswith(ENDINGS[to]):
        raise typer.BadParameter(f"--to {to} writes a file whose name ends in {ENDINGS[to]}, got {printable(out)}")
    from . import cli_check
    from .exchange import agreement, load, onnx, torch_source
    from .texts import quoted

    path = model_file(model)
    target = Path(out) if out else path.with_name(f"{path.stem}{'_torch' if to == 'torch' else ''}{ENDINGS[to]}")
    files = [target] if to == "onnx" else [target, target.with_suffix(torch_source.WEIGHTS)]
    for file in files:
        _require_new(file)
    loaded = load(path)
    with cli_check.display(sys.stderr) as reading:
        images, why = None, ""
        try:
            images = agreement.images_for(loaded, check, functools.partial(reading, "reading images"),
                                          originals=to == "onnx")
        except (ValueError, OSError) as e:
            if check is not None:
                raise
            why = str(e)
    found = (onnx if to == "onnx" else torch_source).export(loaded, target, images)
    if as_json:
        show_json({"model": str(path), "files": [str(f) for f in files], "checked": found is not None,
                   **({"data": found.data, "images": found.images, "largest_difference": found.difference,
                       "labels_agreed": found.agreed} if found else {"reason": why})})
        return
    show(f"written  {', '.join(quoted(f) for f in files)}")
    if not found:
        say(f"NOT checked, whether it gives the model's answers is not known: {printable(why)}")
        return
    where = {"onnx": "ONNX Runtime", "torch": "PyTorch"}[to]
    show(f"checked  in {where} on {found.images:,} images of {printable(found.data)}: {found.agreed:,} labels agree, "
         f"probabilities differ by at most {found.difference:.1e}")


def import_(
    source: Annotated[str, typer.Argument(
        metavar="FILE|NAME", help="A graph (.onnx), weights (.pth, .pt or .safetensors), or a network whose published "
        "weights to fetch.")],
    net: Annotated[str | None, typer.Option(
        metavar="NAME", help="The network that the weights in FILE belong to.")] = None,
    out: Annotated[str | None, typer.Option(
        metavar="MODEL", help="The model to write, a .safetensors file; named as the network or FILE if not given.",
    )] = None,
    shape: Annotated[str | None, typer.Option(
        "--input", metavar="HxWxC", help="Size of the images, where it is not the network's own.")] = None,
    mean: Annotated[str | None, typer.Option(
        metavar="X,...", help="What is subtracted from each channel, where white is 1; with --std.")] = None,
    std: Annotated[str | None, typer.Option(
        metavar="X,...", help="What each channel is divided by then; with --mean.")] = None,
    fit_by: Annotated[str | None, typer.Option(
        "--fit", metavar="HOW", help="How pictures become that size: crop, 'crop 256', letterbox or stretch.")] = None,
    classes: Annotated[str | None, typer.Option(
        metavar="FILE", help="A text file with the name of a class in each line.")] = None,
    as_json: Json = False,
) -> None:
    """Make a model of a network from elsewhere.

    Nothing in a file is executed: tensors and graphs are read, all else is refused. Weights must have the names and
    shapes of torchvision's network or of ours, and get ImageNet's preprocessing and names where the network is
    torchvision's; published ones are checked by the digits of their SHA-256 that their name holds. A graph alone does
    not say how pixels become its numbers nor what its outputs mean: --mean and --std, and --classes, do.

    \b
    Examples:
      pellucid import resnet50 --out resnet50.safetensors
      pellucid import resnet18-f37072fd.pth --net resnet18
      pellucid import net.onnx --classes names.txt --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225
    """
    from .data.pictures import checked_fit
    from .summary import by
    from .texts import number, quoted

    if (mean is None) != (std is None):
        raise typer.BadParameter("--mean and --std go together")
    if fit_by is not None and mean is None:
        raise typer.BadParameter("--fit needs --mean and --std")
    if fit_by is not None:
        checked(checked_fit, fit_by)
    pixels = None if mean is None else {"mean": _numbers("--mean", mean), "std": _numbers("--std", std),
                                        "fit": fit_by or "crop"}
    size, graph = shape_of(shape), Path(source).suffix.lower() == ".onnx"
    if graph and net is not None:
        raise typer.BadParameter(f"--net names the network of weights, and {printable(source)} brings its own")
    fetched = not graph and _is_published(source, net)
    name = Path(source).stem if graph else source if fetched else net
    target = Path(out if out is not None else f"{name}.safetensors")
    if target.suffix.lower() != ".safetensors":
        raise typer.BadParameter(f"--out is a file whose name ends in .safetensors, got {printable(str(target))}")
    _require_new(target)
    names = None if classes is None else _names(classes)
    if graph:
        from .exchange import onnx

        model = onnx.load(source, input_shape=size, classes=names, **pixels or {})
    else:
        model = _of_weights(None if fetched else source, name, size, pixels, names)
    model.save(target)
    network = model.network
    if as_json:
        show_json({"model": str(target), "network": name, "input": list(network.input_shape),
                   "output": list(network.output_shape), "layers": len(network.nodes),
                   "parameters": network.parameter_count, "classes": model.classes,
                   "preprocessing": model.preprocessing and model.preprocessing.to_json()})
        return
    what = "" if graph else f"{name}, "
    show(f"{quoted(target)}: {what}{number(len(network.nodes), 'layer')}, "
         f"{number(network.parameter_count, 'parameter')}, {by(network.input_shape)} to {by(network.output_shape)}")
    if not model.preprocessing:
        say("It cannot predict pictures: how pixels become its numbers is not known; give --mean and --std")


def _is_published(source: str, net: str | None) -> bool:
    """Whether a source is the name of a network whose published weights are meant, and no file of weights for `net`."""
    from . import zoo
    from .exchange import fetching

    if net is not None:
        return False
    if Path(source).exists():
        raise typer.BadParameter(f"say with --net which network these weights belong to: {', '.join(zoo.names())}")
    if source not in fetching.PUBLISHED:
        raise ValueError(f"{source}: no such file, and no network with published weights; there are "
                         f"{', '.join(fetching.PUBLISHED)}")
    return True


def _of_weights(file: str | None, net: str, input_shape: tuple[int, ...] | None, given: dict | None,
                classes: list[str] | None) -> Model:
    """A network with the weights in a file, or with its published ones; `given` is the preprocessing, if asked for."""
    from . import cli_check, zoo
    from .exchange import weights
    from .preprocessing import Preprocessing

    options = {"input_shape": input_shape, "classes": classes}
    if given:
        options["preprocessing"] = Preprocessing(zoo.build(net, input_shape=input_shape).input_shape, **given)
    if file is not None:
        return weights.load(file, net, **options)
    with cli_check.display(sys.stderr) as progress:
        return weights.published(net, progress=progress, **options)


def _require_new(path: Path) -> None:
    if os.path.lexists(path):
        raise ValueError(f"{path} exists already; choose another name with --out, or remove it")


def _numbers(option: str, text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"{option} is a number a channel, as in 0.485,0.456,0.406; got {text!r}") from None


def _names(path: str) -> list[str]:
    """The lines of a file that are not empty."""
    from .files import open_file

    with open_file(path) as (file, size):
        if size > 2**24:
            raise ValueError(f"{path}: of {size:,} bytes; no list of class names is that long")
        try:
            lines = file.read().decode("utf-8-sig").splitlines()
        except UnicodeDecodeError:
            raise ValueError(f"{path}: not a text in UTF-8, expected the name of a class in each line") from None
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise ValueError(f"{path}: no names in it; expected one in each line")
    return names


command(export)
command(import_, name="import")
