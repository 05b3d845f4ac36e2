"""How good a model is on labelled images: accuracy, top-k accuracy, log loss, and what is taken for what."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .model import Model

CHUNK = 1024  # images computed at a time: few enough that a large data set needs little memory


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


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found.

    `top[k]` is the share of images whose class is among the k most probable; `top[1]` is the accuracy. `log_loss` is
    the mean of -ln(probability given to the true class), in nats. `confusion[i, j]` counts images of class i that were
    taken for class j.
    """

    count: int
    top: dict[int, float]
    log_loss: float
    classes: tuple[ClassResult, ...]
    confusion: np.ndarray

    @property
    def accuracy(self) -> float:
        return self.top[1]

    @property
    def correct(self) -> int:
        """Images given their own class."""
        return int(np.trace(self.confusion))

    def to_json(self) -> dict:
        """Plain numbers, lists and dicts."""
        return {
            "count": self.count,
            "correct": self.correct,
            "accuracy": self.accuracy,
            "top": {str(k): share for k, share in self.top.items()},
            "log_loss": self.log_loss,
            "classes": [
                {"name": c.name, "count": c.count, "correct": c.correct, "predicted": c.predicted,
                 "accuracy": c.accuracy, "log_loss": c.log_loss}
                for c in self.classes
            ],
            "confusion": self.confusion.tolist(),
        }


def evaluate(model: Model, images: np.ndarray, labels: np.ndarray, *, top: tuple[int, ...] = (1, 5)) -> Evaluation:
    """Evaluate a model on images (N, H, W, C), uint8 or already preprocessed float32, and labels (N,).

    A k of `top` that is not below the number of classes says nothing and is left out; 1 is always there. Raises
    ValueError for no images, labels out of range or another number of them, and images of a shape the network does not
    take.
    """
    if len(images) == 0:
        raise ValueError("there are no images to evaluate on")
    return score(log_probabilities(model, images), labels, model.classes, top=top)


def log_probabilities(model: Model, images: np.ndarray) -> np.ndarray:
    """`model.log_probabilities`, some images at a time: they may be a file larger than memory."""
    return np.concatenate([model.log_probabilities(images[i:i + CHUNK]) for i in range(0, len(images), CHUNK)])


def evaluate_on(model: Model, data: str | os.PathLike) -> tuple[str, Evaluation]:
    """Evaluate on a data set by its name or path; also says in words which of its images were used.

    On the data the model was trained on these are the images held out for the test, found again by the seed in the
    model's record. On other data, their own test images where they have some, else all. Classes are matched by name.
    Raises ValueError where that is impossible, DataError for data that cannot be used.
    """
    from . import data as datasets
    from .training.setup import digest, split_digest

    dataset = datasets.load(data)
    if model.record.get("data_digest") == digest(dataset):
        seed = model.record.get("seed")
        if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
            raise ValueError("the model does not say with which seed its data were split; which images it never saw "
                             "cannot be told")
        parts = datasets.split(dataset, seed)
        if split_digest(parts) != model.record.get("split_digest"):
            raise ValueError(f"{dataset.name} is split differently than when the model was trained, by another version "
                             "of Pellucid or scikit-learn; which images it never saw cannot be told")
        part, images, labels = f"{dataset.name}, test images", parts.test.images, parts.test.labels
    elif dataset.has_test:
        part, images, labels = f"{dataset.name}, its test images", dataset.test_images, dataset.test_labels
    else:
        part, images, labels = f"{dataset.name}, all images", dataset.images, dataset.labels
    return part, evaluate(model, images, matched(labels, dataset.classes, model.classes))


def matched(labels: np.ndarray, names: list[str], classes: list[str]) -> np.ndarray:
    """Labels that count in `names` as labels that count in `classes`. Raises ValueError for a name not among them."""
    if missing := [name for name in names if name not in classes]:
        raise ValueError(f"the model does not know the class {missing[0]!r}; it knows {', '.join(classes[:20])}"
                         + (f" and {len(classes) - 20} more" if len(classes) > 20 else ""))
    return np.array([classes.index(name) for name in names])[labels]


def score(
    outputs: np.ndarray, labels: np.ndarray, classes: list[str] | tuple[str, ...], *, top: tuple[int, ...] = (1, 5)
) -> Evaluation:
    """`evaluate`, given logits or log-probabilities (N, classes). Of equal ones the lower class ranks first."""
    labels = np.asarray(labels)
    count, width = outputs.shape
    if labels.shape != (count,):
        raise ValueError(f"expected {count} labels, one an image, got an array of shape {labels.shape}")
    if count and not (0 <= labels.min() and labels.max() < width):
        raise ValueError(f"labels must be in 0..{width - 1}, got {labels.min()}..{labels.max()}")
    if len(classes) != width:
        raise ValueError(f"the network tells {width} classes apart, but {len(classes)} names were given")
    losses = log_losses(outputs, labels)
    ranked = np.argsort(-outputs, axis=1, kind="stable")
    rank = np.argmax(ranked == labels[:, None], axis=1)
    confusion = np.zeros((width, width), np.int64)
    np.add.at(confusion, (labels, ranked[:, 0]), 1)
    results = []
    for index, name in enumerate(classes):
        of_class = labels == index
        number = int(of_class.sum())
        results.append(ClassResult(
            name=str(name), count=number, correct=int(confusion[index, index]),
            predicted=int(confusion[:, index].sum()), log_loss=float(losses[of_class].mean()) if number else None,
        ))
    return Evaluation(
        count=count,
        top={k: float((rank < k).mean()) for k in sorted({1, *top}) if k == 1 or k < width},
        log_loss=float(losses.mean()),
        classes=tuple(results),
        confusion=confusion,
    )


def log_losses(outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """-ln(softmax(outputs)[label]) an image, float64, without overflow for large logits."""
    shifted = outputs.astype(np.float64)
    with np.errstate(invalid="ignore"):  # infinite logits give NaN, which says what is the matter
        shifted -= shifted.max(axis=1, keepdims=True)
    return np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(labels)), labels]
