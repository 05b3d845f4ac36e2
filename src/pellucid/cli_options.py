"""Options that several commands have, and what commands do with them before they load anything."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import distributed
from .texts import printable

if TYPE_CHECKING:
    from .model import Model

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output, all else elsewhere.")]
Threads = Annotated[int | None, typer.Option(min=1, metavar="N", help="Threads to use; by default all processors.")]
Csv = Annotated[str | None, typer.Option(metavar="FILE", help="Write a row an image into this .csv file.")]
Engine = Annotated[str | None, typer.Option(
    metavar="NAME", help="What computes: native, the compiled kernels, or torch, PyTorch.")]
Device = Annotated[str | None, typer.Option(
    metavar="NAME", help="Where PyTorch computes: cpu, cuda or mps; a GPU by CUDA if there is one.")]
ModelPath = Annotated[str, typer.Argument(
    metavar="MODEL", help="A .safetensors or .onnx file, or the folder of a run.")]


def is_model(text: str) -> bool:
    """Whether a text names a model on disk rather than a network."""
    return text.endswith((".safetensors", ".onnx")) or os.sep in text or Path(text).exists()


def model_file(text: str) -> Path:
    """The file of a model given as a file or as a run folder."""
    path = Path(text)
    if not path.is_dir():
        if path.name == "last.safetensors" and path.is_file():
            raise ValueError(f"{path} holds the state of training; the model is {path.with_name('best.safetensors')}")
        return path
    best = path / "best.safetensors"
    if not best.is_file():
        raise ValueError(f"{path} has no best.safetensors; give a model file or the folder of a run")
    return best


def require_pixels(model: Model, path: Path) -> None:
    """Raise ValueError unless a model classifies pictures and knows what to do with their pixels."""
    model.require_classes()
    shape = model.network.input_shape
    if len(shape) != 3:
        raise ValueError(f"{path} reads {'signals' if len(shape) == 2 else 'vectors'} of {'x'.join(map(str, shape))}; "
                         "this command is for models of images")
    if model.preprocessing is None:
        raise ValueError(f"{path} does not say how pixels become what it reads; make a model of it that does: pellucid "
                         "import FILE --mean X,... --std X,...")


def check_csv(path: str | None, *inputs: str) -> None:
    """Refuse to write a table over something that is no table, or that is read."""
    if path is None:
        return
    if not path.lower().endswith(".csv"):
        raise typer.BadParameter(f"--csv writes a file whose name ends in .csv, got {printable(path)}")
    if os.path.realpath(path) in map(os.path.realpath, inputs):
        raise typer.BadParameter(f"--csv would overwrite {printable(path)}, which is read; choose another name")


def checked(check: Callable, *arguments, **limits):
    """What `check` returns; what it refuses with ValueError is a wrong command line."""
    try:
        return check(*arguments, **limits)
    except ValueError as e:
        raise typer.BadParameter(str(e)) from None


def computed_by(model: Model, engine: str | None, device: str | None) -> None:
    """Let the engine that was asked for compute a model's answers."""
    if distributed.world() > 1:
        raise ValueError(f"{distributed.world()} processes train together, but only one evaluates or predicts; leave "
                         "torchrun out")
    if (engine, device) != (None, None):
        from .training.engines import choose

        choose(engine, device).take(model)


def set_threads(count: int | None) -> None:
    if count is not None:
        from .processors import set_threads

        set_threads(count)


def shape_of(text: str | None) -> tuple[int, ...] | None:
    """A size as it is written on the command line, 28x28x1."""
    if text is None:
        return None
    parts = text.lower().split("x")
    if not 1 <= len(parts) <= 3 or not all(p.isdecimal() and int(p) for p in parts):
        raise typer.BadParameter(f"cannot read the size {text!r}; write it like 28x28x1 (height, width, channels)")
    from .network import checked_shape

    return checked(checked_shape, tuple(map(int, parts)), "--input")
