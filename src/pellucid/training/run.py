"""A run folder: what a training run leaves behind, and what it can be resumed from.

    best.safetensors   the best weights by validation: a model file like any other
    last.safetensors   where training stands: parameters, optimiser, step (`State`)
    metrics.csv        a row an epoch
    config.json        everything the run was started with, and its result
    report.html        how good the best weights are, and why (written by the command line, see `report`)
    seen.safetensors   digests of the images that training and validation saw

Every file is whole at any moment (see `files`).
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from .. import files, modelfile

COLUMNS = (
    "epoch", "step", "lr", "train_loss", "validation_loss", "validation_accuracy", "seconds", "images_per_second",
)
INTEGERS = ("epoch", "step")
OPTIMIZER = "optimizer."  # before the names of the optimiser's buffers in last.safetensors
SPLIT = ("data_digest", "split_digest")  # what of a record says which images were seen
STATE = "training"  # metadata of last.safetensors


@dataclass
class State:
    """Where a run stands between two steps.

    `step` updates are done; `losses` are the training losses of the current epoch's steps so far, summed in order.
    `best` is the row of the best epoch, None before the first validation; `seconds` is the time trained for so far;
    `stopped` is not 0 where validation had stalled, so that training ended early: then it is the number of steps that
    were planned. A run that is made longer goes on. `revision` is the plan that is followed in place of the one in
    config.json, if there is one (see `Setup.revised`).
    """

    step: int = 0
    losses: float = 0.0
    best: dict | None = None
    seconds: float = 0.0
    stopped: int = 0
    revision: dict | None = None
    rows: list[dict] = field(default_factory=list)


class RunFolder:
    """The files of one run by name."""

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)

    @property
    def best(self) -> Path:
        return self.path / "best.safetensors"

    @property
    def last(self) -> Path:
        return self.path / "last.safetensors"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.csv"

    @property
    def config(self) -> Path:
        return self.path / "config.json"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def seen(self) -> Path:
        return self.path / "seen.safetensors"

    @classmethod
    def create(cls, out: str | os.PathLike | None, name: str) -> RunFolder:
        """A new folder that can be written to: `out`, or runs/<name>-<n> with the first free number.

        Raises OSError of one line where it cannot be written to, ValueError when `out` holds files already.
        """
        if out is None:
            name = re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-.") or "run"
            return cls(files.check_writable(files.new_folder(files.check_writable("runs") / name)))
        cls.require_new(out)
        return cls(files.check_writable(Path(out)))

    @classmethod
    def require_new(cls, out: str | os.PathLike) -> None:
        """Raise ValueError when a folder holds files already."""
        folder = Path(out)
        if folder.is_dir() and next(folder.iterdir(), None) is not None:
            hint = f"continue it with --resume {out}, or " if cls(folder).last.exists() else ""
            raise ValueError(f"the folder {out} is not empty; {hint}choose another one with --out")

    @classmethod
    def existing(cls, path: str | os.PathLike) -> RunFolder:
        """The folder of a run to resume, writable. Raises ValueError when it holds none, OSError where unwritable."""
        folder = cls(path)
        for needed in (folder.config, folder.last):
            if not needed.is_file():
                raise ValueError(f"cannot resume {path}: it has no {needed.name}, so it is not the folder of a run "
                                 "that has finished an epoch; start a new run")
        files.check_writable(folder.path)
        return folder

    # config.json

    def write_config(self, config: dict) -> None:
        files.atomic_text(self.config, json.dumps(config, indent=2, allow_nan=False) + "\n")

    def read_config(self) -> dict:
        """What `write_config` wrote. Raises ValueError for a damaged file."""
        with files.open_file(self.config) as (file, _):
            text = file.read()
        config = modelfile.parse_json(text.decode(errors="replace"), str(self.config))
        if not isinstance(config, dict):
            raise ValueError(f"{self.config} must hold a JSON object")
        return config

    # metrics.csv

    def write_metrics(self, rows: list[dict]) -> None:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        files.atomic_text(self.metrics, text.getvalue())

    def read_metrics(self) -> list[dict]:
        """The rows, as numbers. Raises ValueError for a file that `write_metrics` did not write."""
        with files.open_file(self.metrics) as (file, _):
            reader = csv.DictReader(io.StringIO(file.read().decode(errors="replace"), newline=""))
            try:
                return [{c: (int if c in INTEGERS else float)(row[c]) for c in COLUMNS} for row in reader]
            except (KeyError, TypeError, ValueError):
                raise ValueError(f"{self.metrics} is damaged; start a new run") from None

    # seen.safetensors

    def write_seen(self, digests: np.ndarray, record: dict) -> None:
        """Keep the digests (see `duplicates.digests`) of images that were seen under the data and split of `record`."""
        modelfile.write(self.seen, {"digests": digests}, {name: record[name] for name in SPLIT})

    def read_seen(self, record: dict) -> np.ndarray | None:
        """What `write_seen` wrote for the model of this record; None where there is nothing. Raises ValueError."""
        if not self.seen.is_file():
            return None
        tensors, metadata = modelfile.read(self.seen)
        if set(tensors) != {"digests"} or tensors["digests"].dtype != np.uint64:
            raise ValueError(f"{self.seen} does not hold the digests of images; remove it")
        return tensors["digests"] if metadata == {name: record.get(name) for name in SPLIT} else None

    # last.safetensors

    def write_last(
        self, parameters: dict[str, np.ndarray], optimizer: dict[str, np.ndarray], state: State,
        metadata: dict[str, str],
    ) -> None:
        """Write where training stands; `metadata` is that of the model's own file."""
        record = {k: v for k, v in asdict(state).items() if k != "rows"}
        tensors = {**parameters, **{OPTIMIZER + name: value for name, value in optimizer.items()}}
        modelfile.write(self.last, tensors, {**metadata, STATE: json.dumps(record, allow_nan=False)})

    def read_revision(self) -> dict | None:
        """`State.revision` of last.safetensors."""
        text = modelfile.read_header(self.last).metadata.get(STATE, "null")
        record = modelfile.parse_json(text, f"{self.last}: the state of training")
        return record.get("revision") if isinstance(record, dict) else None

    def read_last(
        self, parameters: dict[str, np.ndarray], optimizer: dict[str, np.ndarray]
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], State]:
        """Parameters, optimiser buffers and state, of the names, shapes and types of those given.

        Raises ValueError for a file that does not fit them. `State.rows` comes from metrics.csv, without rows that a
        crash left there ahead of the state.
        """
        wanted = {**parameters, **{OPTIMIZER + name: value for name, value in optimizer.items()}}
        tensors, metadata = modelfile.read(
            self.last, {name: (value.dtype.name, value.shape) for name, value in wanted.items()}
        )
        record = modelfile.parse_json(metadata.get(STATE, "null"), f"{self.last}: the state of training")
        try:
            state = State(
                step=int(record["step"]), losses=float(record["losses"]), best=record["best"],
                seconds=float(record["seconds"]), stopped=int(record["stopped"]), revision=record.get("revision"),
            )
        except (KeyError, TypeError, ValueError):
            raise ValueError(f"{self.last} does not say where training stands; start a new run") from None
        state.rows = [row for row in self.read_metrics() if row["step"] <= state.step] if self.metrics.exists() else []
        return (
            {name: tensors[name] for name in parameters},
            {name: tensors[OPTIMIZER + name] for name in optimizer},
            state,
        )
