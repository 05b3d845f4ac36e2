"""Pellucid: convolutional networks you can see through.

Trains image classifiers on an ordinary CPU, and lets you open any number in them. Start with `pellucid.fit`, or with
`pellucid.ops` and `pellucid.reference` for single convolutions. Everything is imported when first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

_MODULES = (
    "calibration", "data", "draw", "evaluation", "explain", "geometry", "layers", "network", "ops", "optim",
    "reference", "report", "schedules", "studies", "zoo",
)
_NAMES = {
    "Diverged": "training.step",
    "ImageClassifier": "estimator",
    "KernelError": "engine.library",
    "Model": "model",
    "Network": "network",
    "Preprocessing": "preprocessing",
    "TrainStep": "training.step",
    "fit": "training.fit",
    "load": "exchange",
    "set_threads": "processors",
    "threads": "processors",
}
__all__ = [
    "Diverged", "ImageClassifier", "KernelError", "Model", "Network", "Preprocessing", "TrainStep", "calibration",
    "data", "draw", "evaluation", "explain", "fit", "geometry", "layers", "load", "network", "ops", "optim",
    "reference", "report", "schedules", "set_threads", "studies", "threads", "zoo",
]

if TYPE_CHECKING:
    from . import (
        calibration,
        data,
        draw,
        evaluation,
        explain,
        geometry,
        layers,
        network,
        ops,
        optim,
        reference,
        report,
        schedules,
        studies,
        zoo,
    )
    from .engine.library import KernelError
    from .estimator import ImageClassifier
    from .exchange import load
    from .model import Model
    from .network import Network
    from .preprocessing import Preprocessing
    from .processors import set_threads, threads
    from .training.fit import fit
    from .training.step import Diverged, TrainStep


def __getattr__(name: str):
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    if name in _NAMES:
        value = getattr(import_module(f"{__name__}.{_NAMES[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *__all__])
