"""Where a classifier comes from, and how to get it again: command, seed, settings, versions, machine."""

from __future__ import annotations

import datetime
import platform
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .. import __version__
from ..engine.library import compiled, library
from ..model import Model
from ..network import brief
from ..processors import threads
from ..texts import clipped, quoted
from .shell import Section, section

if TYPE_CHECKING:
    from ..training.result import Run

MOST = 200  # characters of a setting
# Of what a run was started with, what is said by its own names.
SETTINGS = ("data", "source", "network_name", "seed", "epochs", "steps", "batch_size", "epoch_steps",
            "label_smoothing", "shift", "mirror", "cutout", "averaging",
            "tta", "patience", "recipe", "init", "data_digest", "split_digest")


def of_run(run: Run) -> Section:
    """The section about a run."""
    resumed = run.config.get("resumed")
    commands = [run.config.get("command"), *(resumed if isinstance(resumed, list) else [])]
    return _section(commands, run.setup.to_json(), run.config, (
        "The same command with a number of epochs, on the same images, with the same versions and on the same kind of "
        "machine, gives the same weights to the bit where the compiled kernels compute. With --time, the number of "
        "steps depends on how fast the machine is at that moment."))


def of_evaluation(model: Model, command: Sequence[str] | None) -> Section:
    """The section about a model that was evaluated: what its file tells of its training."""
    torch = model.engine
    engine = {} if torch is None else {
        "engine": "torch", "device": torch.device.type,
        "precision": "float32" if torch.dtype is None else str(torch.dtype).removeprefix("torch.")}
    return _section([command], model.record, engine, "The same command on the same images gives the same figures.")


def _section(commands: list, settings: dict, engine: dict, again: str) -> Section:
    told = [(name.replace("_", " "), _text(settings[name])) for name in SETTINGS if settings.get(name) is not None]
    if isinstance(optimizer := settings.get("optimizer"), dict):
        told += [(f"optimiser: {name}", _text(value)) for name, value in optimizer.items()]
    lines = [" ".join(map(quoted, c)) for c in commands if c and isinstance(c, list | tuple)]
    return section("How to get it again", "origin", "classifier/origin.html", commands=lines, settings=told,
                   machine=_machine(engine), again=again)


def _machine(engine: dict) -> list[tuple[str, str]]:
    computed = engine.get("engine", "native")
    if computed == "native" and compiled():
        precision = engine.get("precision")
        computed = f"compiled kernels, {library().isa}"
        computed += f", products of 3x3 convolutions in {precision}" if precision else ""
    elif computed == "torch":
        computed = f"PyTorch on {engine.get('device')} in {engine.get('precision')}"
    return [("Pellucid", __version__), ("Python", platform.python_version()), ("NumPy", np.__version__),
            ("system", f"{platform.system()} {platform.release()}, {platform.machine()}"),
            ("threads", str(threads())), ("computed by", computed)]


def made(command: Sequence[str] = ()) -> str:
    """The last line of a page: by which version, when, and by which command if that is given."""
    now = datetime.datetime.now().astimezone()
    text = f"Made by Pellucid {__version__} on {now:%Y-%m-%d at %H:%M %Z}"
    return f"{text}: {' '.join(map(quoted, command))}" if command else f"{text}."


def _text(value: object) -> str:
    if type(value) is int and abs(value) < 1e15:
        return f"{value:,}"
    return clipped(value if isinstance(value, str) else brief(value), MOST)
