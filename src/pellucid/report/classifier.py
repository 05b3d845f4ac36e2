"""The report of a classifier: how good it is, what to mend first, and everything that shows why."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .. import draw, evaluation, views
from ..data import check
from ..evaluation import Evaluation
from ..evaluation.advice import Advice, advise
from ..model import Model
from ..texts import clipped, number
from ..training.plan import spoken
from ..training.progress import percent
from . import labels, origin, sentences
from .confusion import Confusion, confusion
from .network import network
from .pictures import Album
from .shell import Section, page, render, section
from .why import explained

if TYPE_CHECKING:
    from ..training.result import Run

ADVICE = 5  # weak points shown
SEEN, LEAST_SEEN, BUDGET = 2000, 100, 1e11  # training images asked about, and multiply-adds that it may take
CLASSES, MOST_CLASSES = 20, 1000  # rows of a table of classes that are shown, and that can be opened
NAME = 40  # characters of a class's name in a table
# The section that shows a weak point.
SECTIONS = {"interrupted": "training", "guessing": "classes", "pair": "classes", "few": "data", "weak": "classes",
            "labels": "labels", "overfitting": "training", "underfitting": "training", "copies": "data",
            "calibration": "calibration", "refused": "calibration", "rough": "classes", "absent": "classes"}


def of_run(run: Run) -> str:
    """The report of a training run, as one HTML text that needs no other file: on the test images, or on the
    validation images where training is not complete. Takes about a second."""
    part = "validation" if run.interrupted else "test"
    parts, setup, model = run.parts, run.setup, run.model
    result = run.evaluation or evaluation.evaluate_part(model, parts, part)
    most = int(min(SEEN, BUDGET // max(sum(setup.network.macs.values()), 1)))
    seen = None
    if most >= LEAST_SEEN:
        seen = evaluation.evaluate_part(model, parts, "train", most, tta=views.quick(model.tta))
    counts = {name: np.bincount(getattr(parts, name).labels, minlength=len(parts.classes)) for name in setup.split}
    points = advise(result, seen=seen, counts=counts["train"], in_two_classes=len(check.in_two_classes(parts)))
    if run.interrupted:
        points.insert(0, Advice(
            "interrupted", f"Training was stopped after step {run.steps:,} of {setup.plan.steps:,}",
            "Go on with pellucid train --resume and the run's folder. What is said here is of the best weights so far, "
            "on the validation images by which they were chosen, and so a little too good.", result.count))
    facts = [("validation accuracy", percent(run.best["validation_accuracy"])),
             ("trained for", f"{_epochs(run)}, {spoken(run.seconds)}")]
    if seen is not None:
        facts.insert(0, ("accuracy on training images", percent(seen.accuracy)))
    where = "test images, which training never saw" if part == "test" else "validation images"
    others = [_training(run, seen), network(model.network), _data(setup.notes, counts, parts.classes),
              origin.of_run(run)]
    title = f"{setup.network_name}, trained on {Path(setup.data).name or setup.data}"
    return _page(title, f"{number(result.count, 'image')}: the {where}", model, result, points, seen, facts, others)


def of_evaluation(
    model: Model, result: Evaluation, part: str = "", *, name: str = "model", notes: Sequence[str] = (),
    command: Sequence[str] | None = None,
) -> str:
    """The report of an evaluation, as `of_run`'s. `part` says in words on which images it was made, as `evaluate_on`
    does, `name` what the model is called, `notes` what is to be known of the data."""
    on = f"{number(result.count, 'image')}" + f": {part}" * bool(part)
    data = Path(part.partition(",")[0]).name or "images"
    return _page(f"{name} on {data}", on, model, result, advise(result), None, [],
                 [network(model.network), _data(notes, {}, []), origin.of_evaluation(model, command)])


def _page(
    title: str, on: str, model: Model, result: Evaluation, points: list[Advice], seen: Evaluation | None,
    facts: list[tuple[str, str]], others: list[Section],
) -> str:
    """What both reports have: the first screen, classes, mistakes, calibration and labels; then the other sections."""
    if not np.isfinite(result.answers.losses).all():
        raise ValueError("the model's outputs are infinite or no numbers, so there is nothing to report; train it anew")
    album = Album()
    cells = confusion(result, album)
    mistakes, left_out = explained(model, result)
    low, high = result.intervals["accuracy"]
    macro = result.averages["macro"]
    known = [
        ("accuracy", f"{percent(result.accuracy)} ({low:.1%} to {high:.1%})"),
        *((f"among the {k} most probable", percent(share)) for k, share in result.top.items() if k > 1),
        ("macro F1", percent(macro["f1"])), ("log loss", f"{result.log_loss:.4f} nats"),
        ("calibration error", percent(result.calibration_error)), *facts,
        ("parameters", f"{model.network.parameter_count:,}"),
    ]
    links = [f"#{cells.anchors.get(p.cell, SECTIONS[p.rule])}" for p in points]
    top = render("classifier/summary.html", on=on, said=sentences.verdict(result), facts=known,
                 points=list(zip(points, links, strict=True))[:ADVICE], otherwise=sentences.unless_found(result))
    return page(title, [
        _classes(result, cells), _mistakes(result, mistakes, left_out), _calibration(result),
        labels.disputed(result, seen, album), *others,
    ], top=top, foot=origin.made())


def _classes(result: Evaluation, cells: Confusion) -> Section:
    """The confusion matrix, and a table with a row a class."""
    headings = ("class", "images", "right", "precision", "recall", "F1", "most often taken for")
    ordered = sorted(range(len(result.classes)), key=lambda i: (result.classes[i].f1 is None, result.classes[i].f1))
    rows = [_class(result, i) for i in ordered[:MOST_CLASSES]]
    confused = [(pair, cells.anchors.get(_cell(result, pair))) for pair in result.confused]
    return section("What is taken for what", "classes", "classifier/classes.html", cells=cells, confused=confused,
                   headings=headings, rows=rows, shown=CLASSES, count=len(result.classes))


def _cell(result: Evaluation, pair: dict) -> tuple[int, int]:
    names = [c.name for c in result.classes]
    return names.index(pair["true"]), names.index(pair["predicted"])


def _class(result: Evaluation, i: int) -> tuple[str, ...]:
    c, wrong = result.classes[i], result.confusion[i].copy()
    wrong[i] = 0
    taken = f"{clipped(result.classes[wrong.argmax()].name, NAME)} ({wrong.max():,})" if wrong.max() else ""
    return (clipped(c.name, NAME), f"{c.count:,}", f"{c.correct:,}",
            *("" if share is None else f"{share:.1%}" for share in (c.precision, c.accuracy, c.f1)), taken)


def _mistakes(result: Evaluation, mistakes: list, left_out: str) -> Section:
    return section("Worst mistakes", "mistakes", "classifier/mistakes.html", mistakes=mistakes, left_out=left_out,
                   count=len(result.wrong))


def _calibration(result: Evaluation) -> Section:
    bins = [(b.low, b.high, b.count, b.confidence, b.accuracy) for b in result.reliability]
    rows = [(f"{b.low:.0%} to {b.high:.0%}", f"{b.count:,}", f"{b.confidence:.1%}", f"{b.accuracy:.1%}")
            for b in result.reliability if b.count]
    return section("Can its probabilities be believed", "calibration", "classifier/calibration.html", rows=rows,
                   picture=draw.reliability(bins), error=result.calibration_error, calibration=result.calibration,
                   refused=result.refused, bounds=result.intervals["calibration_error"])


def _training(run: Run, seen: Evaluation | None) -> Section:
    """The curves of a run."""
    epochs = [row["epoch"] for row in run.history]
    columns = {name: [row[name] for row in run.history] for name in run.history[0]} if epochs else {}
    pictures = []
    if len(epochs) > 1:  # one point is no curve
        pictures = [
            draw.curves([("training", epochs, columns["train_loss"]),
                         ("validation", epochs, columns["validation_loss"])],
                        x_label="epoch", y_label="loss, in nats", title="Loss"),
            draw.curves([("validation", epochs, columns["validation_accuracy"])], x_label="epoch", y_label="accuracy",
                        title="Accuracy", percent=True),
        ]
    ended = f" It ended there, for {number(run.setup.patience, 'epoch')} brought nothing higher." if run.stopped else ""
    lead = (f"{number(run.steps, 'step')} of {number(run.setup.plan.batch_size, 'image')}, which is {_epochs(run)}, in "
            f"{spoken(run.seconds)}.{ended} The weights of epoch "
            f"{run.best['epoch']} are kept: {percent(run.best['validation_accuracy'])} of the validation images are "
            "right with them.")
    if run.higher:
        lead += (f" After epoch {run.higher['epoch']} {percent(run.higher['validation_accuracy'])} were, a lead that "
                 "may be chance.")
    if seen is not None:
        which = "" if seen.count == len(run.parts.train) else f"{seen.count:,} of "
        lead += f" Of {which}the images that it was trained on, as they are, {percent(seen.accuracy)} are right."
    if views.quick(run.model.tta) != run.model.tta:
        lead += " These are answers by an image and its mirror image alone."
    return section("Training", "training", "classifier/training.html", lead=lead, pictures=pictures)


def _epochs(run: Run) -> str:
    """How often training went through its images: with a time given, the last epoch may be a part of one."""
    epochs = run.steps / run.setup.plan.epoch_steps
    return f"{epochs:,.3g} epoch" + "s" * (epochs != 1)


def _data(notes: Sequence[str], counts: dict[str, np.ndarray], classes: Sequence[str]) -> Section:
    """What was noted of the data, and how many images each class has, the fewest first."""
    rows = []
    if counts:
        order = np.argsort(counts["train"], kind="stable")[:MOST_CLASSES]
        rows = [(clipped(classes[i], NAME), *(f"{of[i]:,}" for of in counts.values())) for i in order]
    few = int((counts["train"] < check.TINY).sum()) if counts else 0
    return section("The data", "data", "classifier/data.html", notes=notes, headings=("class", *counts), rows=rows,
                   shown=CLASSES, count=len(classes), few=few, tiny=check.TINY)
