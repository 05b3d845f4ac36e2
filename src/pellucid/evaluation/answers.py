"""What a model says of each image, in as few numbers as all figures of merit need."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

import numpy as np

KEPT = 5  # most probable classes kept an image


@dataclass(frozen=True, eq=False)
class Answers:
    """N labelled images as a model sees them.

    labels: (N,), the true classes. ranked, probabilities: (N, up to 5), the most probable classes, falling, and their
    probabilities. rank: (N,), how many classes rank above the true one. losses: (N,), -ln(probability of the true
    class), in nats. brier: (N,), the sum over the classes of (probability - 1 if it is the true one, else 0)^2.
    """

    labels: np.ndarray
    ranked: np.ndarray
    probabilities: np.ndarray
    rank: np.ndarray
    losses: np.ndarray
    brier: np.ndarray

    @classmethod
    def of(cls, outputs: np.ndarray, labels: np.ndarray) -> Answers:
        """From logits or log-probabilities (N, classes). Of equal ones the lower class ranks first."""
        logarithms = log_softmax(outputs)
        everything = np.exp(logarithms)
        order = np.argsort(-outputs, axis=1, kind="stable")
        rows = np.arange(len(labels))
        kept = order[:, :KEPT]
        true = everything[rows, labels]
        return cls(
            labels=labels, ranked=kept, probabilities=np.take_along_axis(everything, kept, axis=1),
            rank=np.argmax(order == labels[:, None], axis=1), losses=-logarithms[rows, labels],
            brier=(everything ** 2).sum(axis=1) - 2 * true + 1,
        )

    @classmethod
    def joined(cls, parts: Iterable[Answers]) -> Answers:
        """Those of several runs of images as one."""
        parts = list(parts)
        return cls(**{f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)})

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def predicted(self) -> np.ndarray:
        """(N,), the most probable classes."""
        return self.ranked[:, 0]

    @property
    def correct(self) -> np.ndarray:
        """(N,), whether the most probable class is the true one."""
        return self.rank == 0

    @property
    def confidence(self) -> np.ndarray:
        """(N,), the probabilities of the most probable classes."""
        return self.probabilities[:, 0]


def log_softmax(outputs: np.ndarray) -> np.ndarray:
    """ln(softmax(outputs)) along the classes, float64, without overflow for large logits."""
    shifted = outputs.astype(np.float64)
    with np.errstate(invalid="ignore"):  # infinite logits give NaN, which says what is the matter
        shifted -= shifted.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
