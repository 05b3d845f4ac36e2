"""Labels that are probably wrong: those that models which never saw the image dispute most.

The data are cut into folds, and each fold is judged by a model trained on the others. An image is suspect where that
model finds another class more probable than its label, the more so the less probable the label is: its
self-confidence. A dispute is confident where the other class is at least as probable as it is on average for the images
that carry its label. Both are from confident learning (Northcutt, Jiang and Chuang, "Confident learning: estimating
uncertainty in dataset labels", 2021).
"""

from __future__ import annotations

import os
import time as clock
from collections.abc import Callable
from dataclasses import asdict, dataclass
from math import ceil
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ..network import Network
    from ..training.progress import Progress


@dataclass(frozen=True)
class Suspect:
    """An image whose label is disputed: its file, where it has one, its place in the data set, and both classes."""

    file: str | None
    index: int
    label: str
    suggested: str
    probability: float  # of the label
    probability_of_suggested: float
    confident: bool  # whether the suggested class is as probable as it usually is for its own images


@dataclass(frozen=True, eq=False)
class LabelErrors:
    """What `label_errors` found: the suspects, most disputed first, among `count` images of the data set `name`.

    `accuracy` is the share of images whose label the models agree with; `probabilities` (N, classes) are what they
    gave, each image by the model that never saw it.
    """

    name: str
    count: int
    folds: int
    accuracy: float
    suspects: tuple[Suspect, ...]
    probabilities: np.ndarray

    def to_json(self) -> dict:
        """The result in plain numbers and texts, without the probabilities of images that are not suspect."""
        return {"name": self.name, "count": self.count, "folds": self.folds, "accuracy": self.accuracy,
                "suspects": [asdict(s) for s in self.suspects]}


def label_errors(
    data: str | os.PathLike | object = "digits",
    network: Network | str | None = None,
    *,
    folds: int = 3,
    seed: int = 0,
    epochs: int | None = None,
    time: float | str | None = None,
    progress: Callable[[int, Progress], None] | None = None,
) -> LabelErrors:
    """Find images whose label is probably wrong.

    data: what `pellucid.data.load` takes, or a Dataset. Its own test images, if any, are not looked at.
    network, epochs, seed: as for `pellucid.fit`, which trains one model a fold; nothing is written.
    time: instead of epochs, how long all folds together may train, in seconds or like "2m".
    progress: called with the number of the fold, from 1, and its training's `Progress` after every step.

    Images of one group (`Dataset.groups`) stay in one fold; those of a fold and of its training are read into memory.
    Raises ValueError for fewer than 2 folds, DataError where a class has too few images for them, KeyboardInterrupt
    after Ctrl-C, and what `fit` raises.
    """
    from .. import data as datasets
    from ..training.fit import fit
    from ..training.plan import duration

    ends = None if time is None else clock.monotonic() + duration(time)
    if isinstance(folds, bool) or not isinstance(folds, int) or folds < 2:
        raise ValueError(f"folds must be a whole number of at least 2, got {folds!r}")
    dataset = data if isinstance(data, datasets.Dataset) else datasets.load(data)
    labels = dataset.labels
    probabilities = np.empty((len(labels), len(dataset.classes)))
    for number, (kept, out) in enumerate(_folds(dataset, folds, seed), start=1):
        fold = datasets.Dataset(
            f"{dataset.name}, fold {number}", dataset.images[kept], labels[kept], dataset.classes,
            test_images=dataset.images[out], test_labels=labels[out],
            groups=None if dataset.groups is None else dataset.groups[kept], fit=dataset.fit,
        )
        # What one fold leaves of its time is the next ones'; each is given some, so that a late one still ends.
        share = None if ends is None else max(ends - clock.monotonic(), 0.1) / (folds - number + 1)
        run = fit(network, fold, epochs=epochs, time=share, seed=seed, out=False,
                  progress=progress and (lambda p, number=number: progress(number, p)))
        if run.interrupted:
            raise KeyboardInterrupt
        probabilities[out] = np.exp(run.model.log_probabilities(fold.test_images))
    files = dataset.pictures and dataset.pictures.files
    return LabelErrors(
        name=dataset.name, count=len(labels), folds=folds,
        accuracy=float((probabilities.argmax(axis=1) == labels).mean()),
        suspects=tuple(
            Suspect(files[i] if files else None, int(i), dataset.classes[labels[i]], dataset.classes[other],
                    float(probabilities[i, labels[i]]), float(probabilities[i, other]), confident)
            for i, other, confident in disputed(probabilities, labels)
        ),
        probabilities=probabilities,
    )


def disputed(probabilities: np.ndarray, labels: np.ndarray) -> list[tuple[int, int, bool]]:
    """(image, suggested class, whether confidently) for each label that is disputed, the most disputed first.

    probabilities: (N, classes), each image's from a model that never saw it; labels: (N,), every class among them.
    """
    own, suggested = probabilities[np.arange(len(labels)), labels], probabilities.argmax(axis=1)
    found = most_disputed(own, suggested, probabilities.max(axis=1), labels, probabilities.shape[1])
    return [(i, int(suggested[i]), confident) for i, confident in found]


def most_disputed(
    own: np.ndarray, suggested: np.ndarray, highest: np.ndarray, labels: np.ndarray, classes: int
) -> list[tuple[int, bool]]:
    """(image, whether confidently) for each label that is disputed, the most disputed first.

    For each image: the probability of its label, the most probable class, that one's probability, and the label. Of a
    class without images nothing is usual, so that no dispute in its favour is confident.
    """
    counts = np.bincount(labels, minlength=classes)
    usual = np.where(counts, np.bincount(labels, weights=own, minlength=classes) / np.maximum(counts, 1), np.inf)
    confident = highest >= usual[suggested]
    suspect = np.flatnonzero(suggested != labels)
    return [(int(i), bool(confident[i])) for i in suspect[np.argsort(own[suspect], kind="stable")]]


def _folds(dataset, folds: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """(indices to train on, indices to judge) a fold, stratified. Raises DataError, naming the class, where too few."""
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    from ..data import DataError, duplicates

    counts = np.bincount(dataset.labels)
    # A model needs two images of a class, one to train on and one for validation, after a fold was taken away.
    needed = next(n for n in range(folds, 2 * folds + 1) if n - ceil(n / folds) >= 2)
    # Copies in other folds would vouch for each other's labels.
    groups = duplicates.exact(dataset.images) if dataset.groups is None else dataset.groups
    apart = len(np.unique(groups)) == len(groups)
    kind = StratifiedKFold if apart else StratifiedGroupKFold
    if counts.min() >= needed:
        cut = kind(folds, shuffle=True, random_state=seed % 2**32)
        found = list(cut.split(np.zeros(len(dataset.labels)), dataset.labels, None if apart else groups))
        left = np.min([np.bincount(dataset.labels[kept], minlength=len(counts)) for kept, _ in found], axis=0)
        if left.min() >= 2:
            return found
        counts, why = left, f"after one of {folds} folds is taken away, because its images are one group"
        needed = 2
    else:
        why = f"for {folds} folds"
    rarest = int(counts.argmin())
    raise DataError(f"{dataset.name}: class {dataset.classes[rarest]!r} has {counts[rarest]} images {why}, but "
                    f"{needed} are needed; add images or leave the class out")
