"""Networks trained side by side on the same images, under the same budget, and what each gives for its cost."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from .. import data as datasets
from .. import distributed, files, zoo
from ..draw.scatter import Panel, scatter
from ..model import Model
from ..network import brief
from ..optim import SGD
from . import engines
from .fit import fit
from .plan import duration, whole
from .progress import Progress
from .setup import Setup
from .trainer import Run
from .whitening import whiten

BATCHES = 4  # over which the norm of a gradient is averaged


@dataclass(frozen=True)
class Gradient:
    """The Euclidean norm of the loss's gradient to all parameters of a layer: before training, and at its end.

    It is the mean over a few batches of training images, as they come without changes. `depth` counts the layers with
    parameters from the input on, from 1; `parameters` is how many the layer has.
    """

    layer: str
    kind: str
    depth: int
    parameters: int
    start: float
    end: float


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
    measures the gradient at each layer. `out`, a new or empty folder, gets compare.csv, compare.svg, gradients.csv and
    the folder of each run, <network>-<seed>. `progress` is called with the network, the seed and what `fit` says;
    `loading` as by `data.load`.

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
        measured = gradient_norms(run.setup, parts.train, run.model)
    return Result(
        network=name, seed=run.setup.seed, parameters=network.parameter_count, macs=sum(network.macs.values()),
        test_accuracy=run.test_accuracy, validation_accuracy=run.best["validation_accuracy"], epochs=run.epochs,
        steps=run.steps, seconds=run.seconds, folder=run.folder and str(run.folder), gradients=measured,
    )


def gradient_norms(setup: Setup, train: datasets.Part, trained: Model) -> tuple[Gradient, ...]:
    """The norms at each layer with parameters, of a new model as the run's was and of the trained one, which stays as
    it is. Dropout drops as in the first steps of the run."""
    network = setup.network
    start = Model(network, setup.seed, preprocessing=setup.preprocessing)
    whiten(start, train.images)
    end = Model(network, None, preprocessing=setup.preprocessing)
    end.load_parameters(trained.parameters)
    norms = [_norms(setup, train, model) for model in (start, end)]
    layers = [n for n in network.nodes if n.name in norms[0]]
    return tuple(Gradient(n.name, type(n.layer).__name__, i, network.parameter_counts[n.name],
                          norms[0][n.name], norms[1][n.name]) for i, n in enumerate(layers, 1))


def _norms(setup: Setup, train: datasets.Part, model: Model) -> dict[str, float]:
    """The mean norm of the gradient to each layer's parameters."""
    # At a rate of zero a step moves no weights; what it does to running statistics, gradients while training ignore.
    step = engines.choose().begin(model, replace(setup, optimizer=SGD(lr=0.0)))
    size, norms = setup.plan.batch_size, {}
    batches = range(min(BATCHES, len(train) // size))
    for i in batches:
        chosen = slice(i * size, (i + 1) * size)
        step(train.images[chosen], train.labels[chosen])
        of_layer: dict[str, float] = {}
        for name, g in step.gradients().items():
            layer = name.rpartition(".")[0]
            of_layer[layer] = of_layer.get(layer, 0.0) + float(np.square(g, dtype=np.float64).sum())
        for layer, square in of_layer.items():
            norms[layer] = norms.get(layer, 0.0) + square**0.5 / len(batches)
    return norms


def _write(folder: Path, made: Comparison, gradients: bool) -> None:
    """compare.csv, compare.svg and gradients.csv, whole, with all that is there by now."""
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
