"""How good a model is on labelled images: what it gets right, how sure it may be, what it takes for what."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from .answers import Answers
from .labels import LabelErrors, label_errors
from .scores import ClassResult, Evaluation, check_labels, from_answers

if TYPE_CHECKING:
    from ..data import Split
    from ..model import Model

__all__ = ["Answers", "ClassResult", "Evaluation", "LabelErrors", "evaluate", "evaluate_on", "evaluate_part",
           "label_errors", "matched", "score"]

CHUNK = 1024  # images computed at a time: few enough that a large data set of many classes needs little memory


def evaluate(model: Model, images: np.ndarray, labels: np.ndarray, *, top: tuple[int, ...] = (1, 5),
             files: Sequence[str] | None = None, indices: np.ndarray | None = None, tta: str | None = None
             ) -> Evaluation:
    """Evaluate a model on images (N, H, W, C), uint8 or already preprocessed float32, and labels (N,), by `tta` in
    place of the model's if given.

    A k of `top` that is not below the number of classes says nothing and is left out; 1 is always there. `files` and
    `indices` say how images are called where the evaluation names some. Raises ValueError for no images, labels out of
    range or another number of them, images of a shape the network does not take, and an unknown `tta`.
    """
    if len(images) == 0:
        raise ValueError("there are no images to evaluate on")
    model.require_classes()
    labels = check_labels(labels, len(images), model.network.output_shape[-1], model.classes)
    answers = Answers.joined(
        Answers.of(model.log_probabilities(images[i:i + CHUNK], tta=tta), labels[i:i + CHUNK])
        for i in range(0, len(images), CHUNK)
    )
    return from_answers(answers, model.classes, top, files=files, indices=indices, images=images,
                        calibration=model.calibration)


def evaluate_part(model: Model, parts: Split, part: str, most: int | None = None, *, tta: str | None = None
                  ) -> Evaluation:
    """`evaluate` on the "train", "validation" or "test" images of data that were split; where there are more than
    `most`, on so many at equal distances."""
    from ..data.arrays import spread

    whole, files = getattr(parts, part), parts.files(part)
    images, labels, indices = whole.images, whole.labels, whole.indices
    if most is not None and len(whole) > most:
        chosen = spread(len(whole), most)
        images, labels, indices = images[chosen], labels[chosen], indices[chosen]
        files = files and [files[i] for i in chosen]
    return replace(evaluate(model, images, labels, files=files, indices=indices, tta=tta), unseen=part == "test")


def score(
    outputs: np.ndarray, labels: np.ndarray, classes: list[str] | tuple[str, ...], *, top: tuple[int, ...] = (1, 5)
) -> Evaluation:
    """`evaluate`, given logits or log-probabilities (N, classes). Of equal ones the lower class ranks first."""
    labels = check_labels(labels, *outputs.shape, classes)
    return from_answers(Answers.of(outputs, labels), classes, top)


def evaluate_on(
    model: Model, data: str | os.PathLike, progress: Callable[[int, int], object] | None = None, *,
    seen: np.ndarray | None = None, note: Callable[[str], object] | None = None,
) -> tuple[str, Evaluation]:
    """Evaluate on a data set by its name or path; also says in words which of its images were used. Some of the
    model's classes may have no images there.

    On the data the model was trained on these are the images held out for the test, found again by the seed in the
    model's record. On other data, their own test images where they have some, else all, but none whose digest is among
    those that the model has `seen` (`RunFolder.read_seen`). Classes are matched by name. `progress` is `data.load`'s;
    `note` is called with each of the data set's `notes`. Raises ValueError where that is impossible, DataError for data
    that cannot be used.
    """
    from .. import data as datasets
    from ..data import duplicates
    from ..data.split import Rows
    from ..training.setup import digest, split_digest

    as_read = model.preprocessing.loading if model.preprocessing else {}
    dataset = datasets.load(data, **as_read, partial=True, progress=progress)
    for text in dataset.notes if note else ():
        note(text)
    pictures = dataset.test_pictures if dataset.has_test else dataset.pictures
    indices = None
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
        indices = parts.test.indices
    else:
        part, images, labels = f"{dataset.name}, all images", dataset.images, dataset.labels
        if dataset.has_test:
            part, images, labels = f"{dataset.name}, its test images", dataset.test_images, dataset.test_labels
        if seen is not None:
            indices = np.flatnonzero(~np.isin(duplicates.digests(images), seen))
            if not len(indices):
                raise ValueError(f"{part}: the model has seen each of them in training; give others")
            if count := len(images) - len(indices):
                part += f" but {count:,} that the model has seen in training"
            images, labels = Rows(images, indices), labels[indices]
        elif "data_digest" in model.record and not dataset.has_test:
            part += "; it is not told which of them the model was trained on, if any"
    files = pictures and tuple(pictures.files if indices is None else [pictures.files[i] for i in indices])
    result = evaluate(model, images, matched(labels, dataset.classes, model.classes), files=files, indices=indices)
    return part, replace(result, unseen=indices is not None)  # then those that were seen are left out


def matched(labels: np.ndarray, names: list[str], classes: list[str]) -> np.ndarray:
    """Labels that count in `names` as labels that count in `classes`.

    Raises ValueError where a label's name is not among them.
    """
    if missing := [names[label] for label in np.unique(labels) if names[label] not in classes]:
        raise ValueError(f"the model does not know the class {missing[0]!r}; it knows {', '.join(classes[:20])}"
                         + (f" and {len(classes) - 20} more" if len(classes) > 20 else ""))
    return np.array([classes.index(name) if name in classes else -1 for name in names])[labels]
