"""The figures of merit of a classifier, from what it says of each image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property

import numpy as np

from ..calibration import Calibration
from . import bootstrap, reliability
from .answers import KEPT, Answers
from .labels import most_disputed

CONFUSED_PAIRS, MISTAKES = 10, 20  # how many are listed
COLUMNS = ("image", "true", "predicted", "probability", "probability_of_true",
           *(f"{what}_{k}" for k in range(2, KEPT + 1) for what in ("class", "probability")))


@dataclass(frozen=True)
class ClassResult:
    """One class: its images, those given their own class, those of any class given this one, and their log loss."""

    name: str
    count: int
    correct: int
    predicted: int
    log_loss: float | None  # None for a class without images

    @property
    def accuracy(self) -> float | None:
        """Share of the class's images that were recognised (its recall); None for a class without images."""
        return self.correct / self.count if self.count else None

    @property
    def precision(self) -> float | None:
        """Share of the images given this class that are of it; None where none was given it."""
        return self.correct / self.predicted if self.predicted else None

    @property
    def f1(self) -> float | None:
        """The harmonic mean of precision and recall, 0 where none is right; None for a class without images."""
        return 2 * self.correct / (self.count + self.predicted) if self.count else None

    def to_json(self) -> dict:
        """Plain numbers; `count` is what others call the support."""
        return {**asdict(self), "accuracy": self.accuracy, "precision": self.precision, "recall": self.accuracy,
                "f1": self.f1}


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What `evaluate` found.

    `top[k]` is the share of images whose class is among the k most probable; `top[1]` is the accuracy. `log_loss` is
    the mean of -ln(probability given to the true class), in nats. `confusion[i, j]` counts images of class i that were
    taken for class j. `answers` says what each image was taken for, `files` the images' names where they have any,
    `indices` where each stands in its data set, `images` the images themselves where they were given; `calibration` is
    the model's; `unseen` says that the model is known never to have seen the images. Further figures are computed when
    they are asked for.
    """

    count: int
    top: dict[int, float]
    log_loss: float
    classes: tuple[ClassResult, ...]
    confusion: np.ndarray
    answers: Answers
    files: Sequence[str] | None = None
    indices: np.ndarray | None = None
    images: np.ndarray | None = None
    calibration: Calibration | None = None
    unseen: bool = False

    @property
    def accuracy(self) -> float:
        return self.top[1]

    @property
    def correct(self) -> int:
        """Images given their own class."""
        return int(np.trace(self.confusion))

    @property
    def brier_score(self) -> float:
        """The mean over images of the sum over classes of (probability - truth)^2, from 0 to 2 (Brier, 1950)."""
        return float(self.answers.brier.mean())

    @cached_property
    def reliability(self) -> list[reliability.Bin]:
        """The reliability curve, in 15 bins of equal width."""
        return reliability.equal_width(self.answers.confidence, self.answers.correct)

    @property
    def calibration_error(self) -> float:
        """The expected calibration error of `reliability`."""
        return reliability.calibration_error(self.reliability)

    @property
    def calibration_error_equal_mass(self) -> float:
        """The same with 15 bins of equally many images."""
        return reliability.calibration_error(reliability.equal_mass(self.answers.confidence, self.answers.correct))

    @cached_property
    def averages(self) -> dict[str, dict[str, float]]:
        """"macro" and "weighted" (by images) means of precision, recall and F1 over the classes that have images.

        A class that no image was given counts with a precision of 0.
        """
        present = [c for c in self.classes if c.count]
        table = np.array([[c.precision or 0.0, c.accuracy, c.f1] for c in present])
        weights = {"macro": None, "weighted": [c.count for c in present]}
        return {name: dict(zip(("precision", "recall", "f1"), np.average(table, axis=0, weights=w).tolist(),
                               strict=True)) for name, w in weights.items()}

    @cached_property
    def intervals(self) -> dict[str, bootstrap.Interval | None]:
        """95% bootstrap intervals of "accuracy", "macro_f1", "log_loss" and "calibration_error"."""
        return bootstrap.intervals(self.answers, len(self.classes))

    @property
    def confused(self) -> list[dict]:
        """The pairs (true, predicted) of different classes that occur most, with their count and share of the true."""
        wrong = self.confusion - np.diag(np.diag(self.confusion))
        order = np.argsort(-wrong, axis=None, kind="stable")[:CONFUSED_PAIRS]
        pairs = zip(*np.unravel_index(order, wrong.shape), strict=True)
        return [{"true": self.classes[i].name, "predicted": self.classes[j].name, "count": int(wrong[i, j]),
                 "share": float(wrong[i, j] / self.classes[i].count)} for i, j in pairs if wrong[i, j]]

    @property
    def mistakes(self) -> list[dict]:
        """The wrong answers that were given with the highest probabilities."""
        return [self.answer(i) for i in self.wrong[:MISTAKES]]

    @cached_property
    def wrong(self) -> np.ndarray:
        """Places of the images that were given another class than their own, the surest answers first."""
        wrong = np.flatnonzero(~self.answers.correct)
        return wrong[np.argsort(-self.answers.confidence[wrong], kind="stable")]

    def answer(self, i: int) -> dict:
        """What the image at a place is and was taken for, as plain values."""
        return {"file": self.files[i] if self.files else None, "index": self._index(i),
                "true": self.classes[self.answers.labels[i]].name,
                "predicted": self.classes[self.answers.predicted[i]].name,
                "probability": float(self.answers.confidence[i]),
                "probability_of_true": float(np.exp(-self.answers.losses[i]))}

    def cells(self) -> dict[tuple[int, int], np.ndarray]:
        """The places of the images in each cell of `confusion` that has any: the surest wrong answers first, and the
        least sure right ones."""
        answers, width = self.answers, len(self.classes)
        cell = answers.labels.astype(np.int64) * width + answers.predicted
        order = np.lexsort((np.where(answers.correct, 1, -1) * answers.confidence, cell))
        numbers, first = np.unique(cell[order], return_index=True)
        places = np.split(order, first[1:])
        return {divmod(int(n), width): p for n, p in zip(numbers, places, strict=True)}

    @property
    def disputed(self) -> list[tuple[int, bool]]:
        """(place, whether confidently) of each image whose label the model disputes, the most disputed first; in the
        sense of `labels`, but by the model itself."""
        answers = self.answers
        own = np.exp(-answers.losses)
        return most_disputed(own, answers.predicted, answers.confidence, answers.labels, len(self.classes))

    @property
    def refused(self) -> dict | None:
        """How many images the model's threshold refuses, and the accuracy of the others; None without a threshold."""
        if not self.calibration or self.calibration.threshold is None:
            return None
        refused = self.calibration.rejects(self.answers.probabilities)
        accepted = self.answers.correct[~refused]
        return {"count": int(refused.sum()), "share": float(refused.mean()),
                "accuracy_of_others": float(accepted.mean()) if len(accepted) else None}

    def rows(self) -> Iterator[list]:
        """A row an image under `COLUMNS`, for a table: its file or number, classes by name, probabilities."""
        names = [c.name for c in self.classes]
        answers = self.answers
        for i in range(self.count):
            ranked = [x for k in range(1, answers.ranked.shape[1])
                      for x in (names[answers.ranked[i, k]], float(answers.probabilities[i, k]))]
            row = [
                self.files[i] if self.files else self._index(i), names[answers.labels[i]], names[answers.predicted[i]],
                float(answers.confidence[i]), float(np.exp(-answers.losses[i])), *ranked,
            ]
            yield row + [""] * (len(COLUMNS) - len(row))

    def _index(self, i: int) -> int:
        return int(i if self.indices is None else self.indices[i])

    def summary(self) -> dict:
        """The figures that cost nothing, as plain numbers: what a training run keeps of its test."""
        return {"count": self.count, "correct": self.correct, "accuracy": self.accuracy,
                "top": {str(k): share for k, share in self.top.items()}, "log_loss": self.log_loss}

    def to_json(self) -> dict:
        """Everything as plain numbers, lists and dicts; the intervals take a moment."""
        return {
            **self.summary(),
            "brier_score": self.brier_score,
            "calibration_error": self.calibration_error,
            "calibration_error_equal_mass": self.calibration_error_equal_mass,
            "intervals": {name: bounds and list(bounds) for name, bounds in self.intervals.items()},
            "averages": self.averages,
            "classes": [c.to_json() for c in self.classes],
            "confusion": self.confusion.tolist(),
            "confused": self.confused,
            "mistakes": self.mistakes,
            "reliability": [asdict(b) for b in self.reliability],
            "calibration": self.calibration.to_json() if self.calibration else None,
            "refused": self.refused,
        }


def check_labels(labels: np.ndarray, count: int, width: int, classes: Sequence[str]) -> np.ndarray:
    """Labels as an array. Raises ValueError unless there is one from 0 to `width` - 1 an image, and names to match."""
    labels = np.asarray(labels)
    if labels.shape != (count,):
        raise ValueError(f"expected {count} labels, one an image, got an array of shape {labels.shape}")
    if count and not (0 <= labels.min() and labels.max() < width):
        raise ValueError(f"labels must be in 0..{width - 1}, got {labels.min()}..{labels.max()}")
    if len(classes) != width:
        raise ValueError(f"the network tells {width} classes apart, but {len(classes)} names were given")
    return labels


def from_answers(answers: Answers, classes: Sequence[str], top: tuple[int, ...], **about) -> Evaluation:
    """The evaluation of some answers; `about` is what else `Evaluation` holds."""
    width = len(classes)
    confusion = np.zeros((width, width), np.int64)
    np.add.at(confusion, (answers.labels, answers.predicted), 1)
    counts, predicted = confusion.sum(axis=1), confusion.sum(axis=0)
    losses = np.bincount(answers.labels, weights=answers.losses, minlength=width)
    return Evaluation(
        count=len(answers),
        top={k: float((answers.rank < k).mean()) for k in sorted({1, *top}) if k == 1 or k < width},
        log_loss=float(answers.losses.mean()),
        classes=tuple(
            ClassResult(str(name), int(counts[i]), int(confusion[i, i]), int(predicted[i]),
                        float(losses[i] / counts[i]) if counts[i] else None)
            for i, name in enumerate(classes)
        ),
        confusion=confusion,
        answers=answers,
        **about,
    )
