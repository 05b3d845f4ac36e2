"""The page of `pellucid capacity`: would more images help, what larger networks do, and the same with polynomials."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..draw import Picture, curves
from ..summary import by
from ..texts import number
from ..training.plan import spoken
from .shell import Markup, Section, page, render

if TYPE_CHECKING:
    from ..studies.capacity import Capacity, Row
    from ..studies.generalisation import Generalisation
    from ..studies.learning_curve import LearningCurve
    from ..studies.polynomials import Polynomials

POINTS = 40  # at which the fitted curve is drawn


def write(g: Generalisation, foot: str = "") -> str:
    """The whole page as HTML; `foot` stands at the end."""
    sections = []
    if g.curve and g.curve.trials:
        sections.append(Section("Would more images help?", _learning(g.curve), g.curve.answer().why))
    if g.capacity and g.capacity.seeds:
        sections.append(Section("Dense and convolutional networks of growing width", _capacity(g.capacity),
                                "The same images, the same number of steps; only the networks differ."))
    sections.append(Section("Polynomials of growing degree", _polynomials(g.polynomials),
                            "The same thing where it can be seen whole: curves through noisy points."))
    top = [_text(f"{g.data}: images of {by(g.shape)} in {number(g.classes, 'class', 'classes')}. How well does what is "
                 "learned here hold for images that training has not seen?")]
    if g.problem:
        top.append(_text(f"There is no learning curve: {g.problem}."))
    if g.interrupted:
        top.append(_text("Stopped by Ctrl-C: this page has what was measured until then."))
    foot = f"Measured in {spoken(g.seconds)}. {foot}".rstrip()
    return page(f"Capacity and generalisation: {g.data}", sections, top=_blocks(top), foot=foot)


def _learning(c: LearningCurve) -> Markup:
    rows, fitted = c.table(), c.curve(POINTS)
    blocks = [_figure(picture, caption) for picture, caption in (
        (learning_picture(c, "accuracy"), "Accuracy on test images. Dots are means over the seeds, with a band of one "
         "standard deviation. The fitted curve, a power law, has the band in which it lies with 95% probability."),
        (learning_picture(c, "log_loss"), "Log loss on test images: the mean of -ln(probability given to the true "
         "class), of calibrated probabilities."))]
    blocks.append(_table(
        ("training images", "seeds", "test accuracy", "log loss"),
        [(f"{r.images:,}", r.seeds, _share(r.accuracy, r.accuracy_deviation),
          f"{r.log_loss:.4f}" + ("" if r.log_loss_deviation is None else f" ± {r.log_loss_deviation:.4f}"))
         for r in rows], (0, 1, 2, 3)))
    if fitted:
        answer = c.answer()
        blocks.append(_text(
            f"The share of mistakes falls with the number of images to the power of -{answer.exponent[0]:.2f} (95% "
            f"interval {answer.exponent[1]:.2f} to {answer.exponent[2]:.2f}), down to what no number of images ends. "
            "Such curves are power laws on many kinds of data (Cortes et al. 1994, Hestness et al. 2017); whether "
            "this one goes on as one beyond what was measured, nobody can promise."))
    blocks += [
        _text(f"Every size was trained for the same {c.steps:,} steps of {c.batch_size} images, not for as many "
              "epochs: so all had the same computing, and only the images differ. "
              f"The network is {c.network}, with {c.parameters:,} parameters, trained as pellucid train does. Smaller "
              "sets are parts of the larger ones, with each class in the same share; test images never took part in "
              "training or in a choice."),
        _list(c.notes)]
    return _blocks(blocks)


def learning_picture(c: LearningCurve, what: str) -> Picture:
    """"accuracy" or "log_loss" in the test against the number of training images, with the fitted power law."""
    rows, fitted, n = c.table(), c.curve(POINTS), [t.images for t in c.trials]
    series = [("measured", [r.images for r in rows], [getattr(r, what) for r in rows],
               [getattr(r, f"{what}_deviation") or 0.0 for r in rows])]
    if fitted:
        middle, low, high = np.array([p[what] for p in fitted]).T
        series.append((f"power law, to {2 * c.available:,}", [p["images"] for p in fitted], middle,
                       np.column_stack([middle - low, high - middle])))
    label = {"accuracy": "test accuracy", "log_loss": "log loss in the test"}[what]
    return curves(series, x_label=f"training images, {min(n):,} to {max(n):,} measured", y_label=label,
                  percent=what == "accuracy", log_x=True)


def _capacity(c: Capacity) -> Markup:
    rows = c.table()
    blocks = [
        _list(c.words()),
        _figure(capacity_picture(rows, "loss"), "Cross-entropy at the end of training, geometric mean over the seeds; "
                "the band is one standard deviation. Where the training curve falls and the validation curve rises, "
                "networks overfit."),
        _figure(capacity_picture(rows, "accuracy"), "Accuracy at the end of training."),
        _figure(history_picture(c), "The largest network of each family on its way: training loss as the mean over an "
                "epoch, validation loss at its end."),
        _table(("network", "parameters", "multiply-adds", "training loss", "validation loss", "training", "validation",
                "verdict"),
               [(r.name, f"{r.parameters:,}", f"{r.macs:,}", f"{r.train_loss:.3g}",
                 f"{r.validation_loss:.3f}" + ("" if r.validation_loss_deviation is None else
                                               f" ± {r.validation_loss_deviation:.3f}"),
                 f"{r.train_accuracy:.2%}", _share(r.validation_accuracy, r.validation_accuracy_deviation),
                 r.verdict.word) for r in rows], (1, 2, 3, 4, 5, 6)),
        _text(f"{c.images:,} of {c.available:,} training images, {c.plan.epochs} epochs of {c.plan.epoch_steps} steps "
              f"for every network, {number(len(c.seeds), 'seed')}; {c.validation:,} images in validation, other ones "
              "with each seed unless the data bring them. Images are not changed, and the weights at the end are "
              "measured, so that nothing hides overfitting. Dense networks have two hidden layers of as many units as "
              "their name says, convolutional ones are lenet with so many filters in the first layer."),
        _text("A verdict compares a network with the one of its family whose validation loss is lowest, seed by seed: "
              "overfits and underfits are said where the 95% interval of the ratio of validation losses is above 1, "
              "fits as well where it ends below 1.25."),
        _list([f"Left out: {name}: {why}" for name, why in c.left_out] + c.notes)]
    return _blocks(blocks)


def capacity_picture(rows: Sequence[Row], what: str) -> Picture:
    """"loss" or "accuracy" in training and validation against parameters, for each family."""
    series = []
    for family in dict.fromkeys(row.family for row in rows):
        mine = [row for row in rows if row.family == family]
        x = [row.parameters for row in mine]
        series.append((f"{family}, training", x, [getattr(row, f"train_{what}") for row in mine]))
        series.append((f"{family}, validation", x, [getattr(row, f"validation_{what}") for row in mine],
                       [getattr(row, f"validation_{what}_deviation") or 0.0 for row in mine]))
    return curves(series, x_label="parameters", y_label="cross-entropy" if what == "loss" else what,
                  percent=what == "accuracy", log_x=True)


def history_picture(c: Capacity) -> Picture:
    """Training and validation loss over the epochs, of the largest network of each family."""
    series = []
    for row in {row.family: row for row in c.table()}.values():
        runs = [t.history for t in c.of(row.name)]
        epochs = range(1, min(map(len, runs)) + 1)
        for what, name in (("train_loss", "training"), ("validation_loss", "validation")):
            series.append((f"{row.name}, {name}", list(epochs),
                           [float(np.mean([run[i - 1][what] for run in runs])) for i in epochs]))
    return curves(series, x_label="epoch", y_label="cross-entropy")


def _polynomials(p: Polynomials) -> Markup:
    return _blocks([
        _list(p.words()),
        _figure(polynomials_picture(p), f"{p.points} noisy points of the curve, and the polynomials that fit them "
                "best."),
        _figure(errors_picture(p), "Mean squared errors. Where the training curve falls and the validation curve "
                "rises, polynomials overfit."),
        _table(("degree", "training error", "validation error", "verdict"),
               [(d.degree, f"{d.train_error:.4f}", f"{d.validation_error:.4f}", d.verdict.word) for d in p.degrees],
               (0, 1, 2)),
        _text(f"Mean squared errors over {p.draws:,} draws of the noise, whose standard deviation is {p.noise:g}; the "
              "picture shows the first. Validation is on other points of the same curve.")])


def polynomials_picture(p: Polynomials) -> Picture:
    """The points of the first draw, the curve they come from, and the fits."""
    gaps = np.full(p.points, np.nan)  # between the points, so that no line joins them
    points = ("points", np.repeat(p.x, 2), np.column_stack([p.y, gaps]).ravel())
    fits = [(f"degree {d.degree}", p.grid, fit) for d, fit in zip(p.degrees, p.fits, strict=True)]
    return curves([points, ("the curve", p.grid, p.curve), *fits], x_label="x", y_label="y")


def errors_picture(p: Polynomials) -> Picture:
    """Mean squared errors in training and validation against the degree."""
    degrees = [d.degree for d in p.degrees]
    return curves([("training", degrees, [d.train_error for d in p.degrees]),
                   ("validation", degrees, [d.validation_error for d in p.degrees])],
                  x_label="degree", y_label="mean squared error")


def _share(mean: float, deviation: float | None) -> str:
    return f"{mean:.2%}" + ("" if deviation is None else f" ± {100 * deviation:.2f}")


def _text(text: str) -> tuple:
    return "text", text, None, None


def _list(items: Sequence[str]) -> tuple:
    return "list" if items else "", items, None, None


def _figure(picture: Picture, caption: str) -> tuple:
    return "figure", picture, caption, None


def _table(headings: Sequence[str], rows: Sequence[Sequence], numbers: Sequence[int]) -> tuple:
    return "table", headings, rows, numbers


def _blocks(blocks: Sequence[tuple]) -> Markup:
    return render("blocks.html", blocks=blocks)
