"""What `evaluate` and `data labels` say: figures, curves and tables for people, at most 80 columns wide."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from .texts import clipped, number, printable
from .training.progress import percent

if TYPE_CHECKING:
    from .calibration import Calibration
    from .evaluation import Evaluation, LabelErrors

WIDTH = 80
CLASSES, PAIRS, MISTAKES, SUSPECTS, ABSENT = 20, 5, 5, 20, 5  # rows shown


def evaluation(part: str, result: Evaluation, report: Path | None = None) -> str:
    """An evaluation as figures, the reliability curve, what is confused, and a table with a row a class; and where its
    report is."""
    blocks = [_figures(part, result), _reliability(result)]
    if result.confused:
        blocks += [_confused(result), _mistakes(result)]
    blocks.append(_classes(result))
    if report is not None:
        blocks.append([f"With the images behind these figures: {printable(str(report))}"])
    return "\n\n".join("\n".join(lines) for lines in blocks)


def _figures(part: str, result: Evaluation) -> list[str]:
    def line(name: str, value: str, bounds=None, note: str = "") -> str:
        between = f"{bounds[0]} to {bounds[1]}" if bounds else ""
        return f"{name:<17}  {value:>7}  {between:<17}  {note}".rstrip()

    def shares(name: str) -> list[str] | None:
        return (bounds := result.intervals[name]) and [percent(b) for b in bounds]

    losses = result.intervals["log_loss"]
    macro, weighted = result.averages["macro"], result.averages["weighted"]
    return [
        f"{printable(part)}: {number(result.count, 'image')} in {number(len(result.classes), 'class', 'classes')}",
        f"{'':<28}95% interval",
        line("accuracy", percent(result.accuracy), shares("accuracy"), f"{result.correct:,} right"),
        *(line(f"top {k}", percent(share)) for k, share in result.top.items() if k > 1),
        line("macro F1", percent(macro["f1"]), shares("macro_f1"),
             f"precision {percent(macro['precision'])}, recall {percent(macro['recall'])}"),
        line("weighted F1", percent(weighted["f1"]), None,
             f"precision {percent(weighted['precision'])}, recall {percent(weighted['recall'])}"),
        line("log loss", f"{result.log_loss:.4f}", losses and [f"{b:.4f}" for b in losses], "in nats"),
        line("Brier score", f"{result.brier_score:.4f}", None, "from 0, the best, to 2"),
        line("calibration error", percent(result.calibration_error), shares("calibration_error"),
             f"{percent(result.calibration_error_equal_mass)} in bins of equal counts"),
        _calibration(result.calibration, result.refused),
    ]


def _calibration(calibration: Calibration | None, refused: dict | None) -> str:
    if calibration is None:
        return "The model's probabilities are as its training left them: it has no calibration."
    said = (f"Calibration: temperature {calibration.temperature:.3f}, fitted on "
            f"{number(calibration.images, 'validation image')}")
    if refused is None:
        said += ", too few to set a threshold below which an image is none of the classes."
    else:
        low, high = calibration.false_alarm_interval
        said += (f". Images below {calibration.threshold:.1%} are refused as none of the classes: by the validation "
                 f"images {calibration.false_alarm_rate:.1%} of all that are of these classes ({low:.1%} to "
                 f"{high:.1%}), here {refused['count']:,}, which is {refused['share']:.1%}.")
        if refused["count"] and refused["accuracy_of_others"] is not None:
            said += f" Of the others {percent(refused['accuracy_of_others'])} are right."
    return textwrap.fill(said, WIDTH)


def _reliability(result: Evaluation) -> list[str]:
    lines = ["probability   images    mean   right", ]
    for b in result.reliability:
        if b.count:
            lines.append(f"{b.low:>4.0%} to {b.high:>4.0%}  {b.count:>6,}  {b.confidence:>6.1%}  {b.accuracy:>6.1%}")
    return lines


def _confused(result: Evaluation) -> list[str]:
    lines = ["Most often confused:"]
    for pair in result.confused[:PAIRS]:
        lines.append(f"  {clipped(pair['true'])} taken for {clipped(pair['predicted'])}: "
                     f"{number(pair['count'], 'time')}, {pair['share']:.1%} of its images")
    return lines


def _mistakes(result: Evaluation) -> list[str]:
    lines = ["Surest mistakes (more with --json, all with --csv):"]
    for m in result.mistakes[:MISTAKES]:
        where = f"image {m['index']}" if m["file"] is None else printable(m["file"])
        lines.append(f"  {where}\n    {clipped(m['true'])} taken for {clipped(m['predicted'])} at "
                     f"{m['probability']:.1%}, the truth at {m['probability_of_true']:.1%}")
    return lines


def _classes(result: Evaluation) -> list[str]:
    shown = list(range(len(result.classes)))
    title = []
    if len(shown) > CLASSES:
        by_f1 = sorted(shown, key=lambda i: (result.classes[i].f1 is None, result.classes[i].f1 or 0.0))
        shown = by_f1[:CLASSES]
        title = [f"The {CLASSES} classes of the lowest F1, of {len(result.classes):,}; all of them with --json:"]
    names = {i: clipped(result.classes[i].name, 20) for i in shown}
    width = max(5, *map(len, names.values()))
    lines = [*title, f"{'class':<{width}}  images  precision  recall      F1  most often taken for"]
    for i in shown:
        c, name = result.classes[i], names[i]
        precision = "" if c.precision is None else f"{c.precision:.1%}"
        if not c.count:
            lines.append(f"{name:<{width}}  {0:>6}  {precision:>9}".rstrip())
            continue
        wrong = result.confusion[i].copy()
        wrong[i] = 0
        taken = f"{clipped(result.classes[wrong.argmax()].name, 14)} ({wrong.max():,})" if wrong.max() else ""
        lines.append(f"{name:<{width}}  {c.count:>6,}  {precision:>9}  {c.accuracy:>6.1%}  {c.f1:>6.1%}  "
                     f"{taken}".rstrip())
    if absent := [clipped(c.name) for c in result.classes if not c.count]:
        named = ", ".join(absent[:ABSENT]) + f" and {len(absent) - ABSENT:,} more" * (len(absent) > ABSENT)
        lines += ["", *textwrap.wrap(
            f"No image here is of {named}: no recall and no F1 can be given for what is absent, the averages leave it "
            "out, and precision counts these images only.", WIDTH)]
    return lines


def label_errors(result: LabelErrors) -> str:
    """The labels that are disputed most, a line each."""
    lines = [f"{printable(result.name)}: {number(result.count, 'image')} in {result.folds} folds",
             f"{percent(result.accuracy)} of the labels are what models say that never saw the images."]
    if not result.suspects:
        return "\n".join([*lines, "No label is disputed."])
    confident = sum(s.confident for s in result.suspects)
    lines.append(textwrap.fill(
        f"{number(len(result.suspects), 'label')} disputed, {confident:,} of them confidently (*); the most disputed "
        "first. Look at each before you change it:", WIDTH))
    for s in result.suspects[:SUSPECTS]:
        where = f"image {s.index}" if s.file is None else printable(s.file)
        lines.append(f"{'*' if s.confident else ' '} {where}\n"
                     f"    labelled {clipped(s.label)} ({s.probability:.1%}), looks like "
                     f"{clipped(s.suggested)} ({s.probability_of_suggested:.1%})")
    if (more := len(result.suspects) - SUSPECTS) > 0:
        lines.append(f"and {more:,} more; all of them with --json")
    return "\n".join(lines)
