"""The result of a run: the model, the history, the test."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .. import data as datasets
from .. import evaluation
from ..model import Model
from . import choice
from .run import RunFolder
from .setup import Setup


@dataclass
class Run:
    """What `fit` gives back.

    `model` holds the best weights by validation (see `choice`) and `best` is the row of their epoch, by `views.quick`;
    `history` has a row an epoch, as metrics.csv. `test` is the best weights' evaluation on the test images, made once,
    when training is complete: None for a run that was interrupted. `stopped` says that validation had stalled before
    the last epoch. `folder` is None where nothing was written. `parts` are the data as they were split, `evaluation`
    is that of which `test` keeps the figures, None where it was made before the run was resumed; `config` is what
    config.json holds.
    """

    model: Model
    folder: Path | None
    setup: Setup
    history: list[dict]
    best: dict
    test: dict | None
    epochs: int
    steps: int
    seconds: float
    interrupted: bool
    stopped: bool
    parts: datasets.Split
    evaluation: evaluation.Evaluation | None
    config: dict

    @property
    def test_accuracy(self) -> float | None:
        """Share of the test images that the best weights recognise."""
        return self.test["accuracy"] if self.test else None

    @property
    def higher(self) -> dict | None:
        """The row of the highest validation, where its accuracy is above that of `best`, by what may be chance."""
        found = choice.highest(self.history)
        return found if found and found["validation_accuracy"] > self.best["validation_accuracy"] else None

    def to_json(self) -> dict:
        """The result in plain numbers and texts."""
        folder = RunFolder(self.folder) if self.folder else None
        return {
            "run": str(folder.path) if folder else None,
            "model": str(folder.best) if folder else None,
            "interrupted": self.interrupted,
            "stopped_early": self.stopped,
            "test_accuracy": self.test_accuracy,
            "test": self.test,
            "validation_accuracy": self.best["validation_accuracy"],
            "validation_loss": self.best["validation_loss"],
            "best_epoch": self.best["epoch"],
            "epochs": self.epochs,
            "steps": self.steps,
            "seconds": self.seconds,
            **{name: getattr(self.setup, name) for name in ("data", "split", "network_name", "seed")},
            "parameters": self.setup.network.parameter_count,
        }
