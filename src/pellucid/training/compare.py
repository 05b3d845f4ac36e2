"""Networks trained side by side on the same images, under the same budget, and what each gives for its cost."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from .. import data as datasets
from .. import distributed, files, zoo
from ..draw import Picture
from ..draw.scatter import Panel, scatter
from ..network import brief
from . import gradients as gradients_at
from .fit import fit
from .gradients import Gradient
from .plan import duration, whole
from .progress import Progress
from .result import Run


@dataclass(frozen=True)
class Result:
    """One network with one seed. `macs` are multiply-adds for an image, `seconds` the time trained for; accuracies are
    those of the best weights."""

    network: str
    seed: int
    parameters: int
    macs: int
    test_accuracy: float
    validation_accuracy: float
    epochs: int
    steps: int
    seconds: float
    folder: str | None
    gradients: tuple[Gradient, ...] = ()


@dataclass
class Comparison:
    """All results, in the order in which they were trained; `interrupted` says that some are missing."""

    data: str
    networks: list[str]
    budget: str
    results: list[Result] = field(default_factory=list)
    interrupted: bool = False

    def table(self) -> list[dict]:
        """A row a network that has a result: its costs, and mean and standard deviation over the seeds."""
        rows = []
        for name in self.networks:
            if not (mine := [r for r in self.results if r.network == name]):
                continue
            test = np.array([r.test_accuracy for r in mine])
            rows.append({
                "network": name, "parameters": mine[0].parameters, "macs": mine[0].macs, "seeds": len(mine),
                "test_accuracy": float(test.mean()),
                "test_accuracy_deviation": float(test.std(ddof=1)) if len(mine) > 1 else None,
                "validation_accuracy": float(np.mean([r.validation_accuracy for r in mine])),
                "epochs": float(np.mean([r.epochs for r in mine])),
                "seconds": float(np.mean([r.seconds for r in mine])),
            })
        return rows

    def svg(self) -> str:
        """Test accuracy against parameters, multiply-adds and time, as a picture."""
        rows = self.table()
        accuracy = [row["test_accuracy"] for row in rows]
        spread = [row["test_accuracy_deviation"] or 0.0 for row in rows]
        return scatter([row["network"] for row in rows], [
            Panel(title, label, [max(row[key], 1e-3) for row in rows], accuracy, spread) for title, label, key in (
                ("parameters", "number", "parameters"), ("multiply-adds", "for one image, forward", "macs"),
                ("time", "seconds trained for", "seconds"))
        ], "test accuracy").svg

    def gradient_pictures(self) -> dict[str, Picture]:
        """The norms over depth, "start" before training and "end" at its end: a curve a network, the geometric mean
        over its seeds. Nothing where no gradients were measured."""
        found = {name: [[g for g in r.gradients if gradients_at.weighted(g.kind)] for r in self.results
                        if r.network == name and r.gradients] for name in self.networks}
        titles = {"start": "before training", "end": "at the end of training"}
        return {when: gradients_at.picture(
            [(name, _means([[getattr(g, when) for g in run] for run in runs])) for name, runs in found.items() if runs],
            f"Gradient at each layer, {title}") for when, title in titles.items() if any(found.values())}

    def to_json(self) -> dict:
        """Everything in plain numbers and texts."""
        return {"data": self.data, "budget": self.budget, "interrupted": self.interrupted, "networks": self.table(),
                "runs": [asdict(r) for r in self.results]}


def compare(
    networks: list[str],
    data: str | os.PathLike,
    *,
    epochs: int | None = None,
    time: float | str | None = None,
    seeds: int = 1,
    gradients: bool = False,
    out: str | os.PathLike | None = None,
    progress: Callable[[str, int, Progress], None] | None = None,
    loading: Callable[[int, int], object] | None = None,
) -> Comparison:
    """Train each network of the zoo with each of the seeds 0, 1, ..., all as `pellucid.fit` does by default.

    Of one seed all networks see the same split, in the same order; `epochs` or `time` is the budget of each of them.
    Networks take turns, so that after Ctrl-C the first seeds are complete: what is done is kept then. `gradients` also
    measures the gradient at each layer. `out`, a new or empty folder, gets compare.csv, compare.svg, gradients.csv,
    gradients-start.svg, gradients-end.svg and the folder of each run, <network>-<seed>. `progress` is called with the
    network, the seed and what `fit` says; `loading` as by `data.load`.

    Raises ValueError for unknown networks, those that images do not fit, and settings that do not fit each other.
    """
    if distributed.world() > 1:
        raise ValueError(f"{distributed.world()} processes train one network together; compare networks in one process")
    networks = list(networks)
    if len(set(networks)) != len(networks) or not networks:
        raise ValueError(f"give the names of networks to compare, each once, got {brief(networks)}")
    if epochs is not None and time is not None:
        raise ValueError("give epochs or time, not both")
    seeds = whole("seeds", seeds, 1, 1000)
    epochs = None if epochs is None else whole("epochs", epochs, 1)
    time = None if time is None else duration(time)
    for name in networks:
        zoo.require(name)
    if out is not None and Path(out).is_dir() and any(Path(out).iterdir()):
        raise ValueError(f"the folder {out} is not empty; choose another one for the comparison")
    dataset = datasets.load(data, progress=loading)
    for name in networks:  # all of them, before the first is trained
        zoo.build(name, input_shape=dataset.input_shape, classes=len(dataset.classes))
    folder = None if out is None else files.check_writable(out)
    budget = "the default number of epochs" if epochs is None else f"{epochs} epoch{'s' * (epochs > 1)}"
    made = Comparison(dataset.name, networks, budget if time is None else f"{time:g} s")
    follow = progress or (lambda network, seed, p: None)
    try:
        for seed, name in itertools.product(range(seeds), networks):
            run = fit(name, data, epochs=epochs, time=time, seed=seed,
                      out=False if folder is None else folder / f"{name}-{seed}",
                      progress=lambda p, name=name, seed=seed: follow(name, seed, p))
            if run.interrupted:
                made.interrupted = True
                break
            made.results.append(_result(run, name, dataset, gradients))
            if folder is not None:
                _write(folder, made, gradients)
    except KeyboardInterrupt:
        made.interrupted = True
    return made


def _result(run: Run, name: str, dataset: datasets.Dataset, gradients: bool) -> Result:
    network, measured = run.setup.network, ()
    if gradients:
        parts = datasets.split(dataset, run.setup.seed)
        measured = gradients_at.of_run(run.setup, parts.train, run.model)
    return Result(
        network=name, seed=run.setup.seed, parameters=network.parameter_count, macs=sum(network.macs.values()),
        test_accuracy=run.test_accuracy, validation_accuracy=run.best["validation_accuracy"], epochs=run.epochs,
        steps=run.steps, seconds=run.seconds, folder=run.folder and str(run.folder), gradients=measured,
    )


def _means(norms: list[list[float]]) -> np.ndarray:
    """Geometric means over runs."""
    return np.exp(np.log(np.maximum(norms, np.finfo(float).tiny)).mean(axis=0))


def _write(folder: Path, made: Comparison, gradients: bool) -> None:
    """The tables and pictures, whole, with all that is there by now."""
    files.atomic_text(folder / "compare.svg", made.svg())
    columns = [name for name in Result.__dataclass_fields__ if name not in ("gradients", "folder")]
    with files.csv_file(folder / "compare.csv", columns) as write:
        for result in made.results:
            write([getattr(result, name) for name in columns])
    if gradients:
        columns = list(Gradient.__dataclass_fields__)
        with files.csv_file(folder / "gradients.csv", ["network", "seed", *columns]) as write:
            for result in made.results:
                for gradient in result.gradients:
                    write([result.network, result.seed, *(getattr(gradient, name) for name in columns)])
        for when, picture in made.gradient_pictures().items():
            picture.save(folder / f"gradients-{when}.svg")
