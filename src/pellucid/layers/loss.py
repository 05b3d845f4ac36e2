"""The loss a classifier is trained with. It stands after a network, so it is not a layer of one."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real

import numpy as np

from .. import reference


@dataclass(frozen=True)
class CrossEntropy:
    """Mean over the batch of -weight sum over classes of target log(softmax(logits)).

    The target is 1 - smoothing on the label, plus smoothing / classes on every class (Szegedy et al., "Rethinking the
    Inception architecture for computer vision", 2016, section 7). Without weights as torch.nn.CrossEntropyLoss.
    `weights` has one number a class, by which the losses of its images are multiplied; None for 1. Raises ValueError
    unless smoothing is from 0 to 1 and weights are numbers from 0 to 1e30.
    """

    smoothing: float = 0.0
    weights: tuple[float, ...] | None = None

    def __post_init__(self):
        s = self.smoothing
        if not isinstance(s, (int, float)) or isinstance(s, bool) or not 0 <= s <= 1:
            raise ValueError(f"label smoothing must be a number from 0 to 1, got {s!r}")
        if self.weights is not None:
            numbers = all(isinstance(w, Real) and not isinstance(w, bool) for w in self.weights)
            # Above that the largest float32 would overflow with the losses of a batch.
            if not numbers or not all(0 <= w <= 1e30 for w in self.weights):
                raise ValueError(f"weights must be a number of at least 0 for each class, got {self.weights!r}")

    def define(self, logits: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray]:
        """The mean loss and its gradient to the logits, in float64. `logits` is (N, classes), `labels` (N,)."""
        return (reference.cross_entropy(logits, labels, self.smoothing, self.weights),
                reference.cross_entropy_grad(logits, labels, self.smoothing, self.weights))

    def lower(self, b, logits):
        """Emit the loss and its gradient: returns (losses of the images, gradient of their mean to the logits).

        Reads `b.labels`, int32 from 0 to classes - 1. Raises ValueError unless `logits` is a feature vector and
        there is a weight for each class.
        """
        if len(logits.logical) != 1:
            raise ValueError(f"the cross entropy needs scores of shape (classes,), got {logits.logical}; "
                             "end the network with Flatten or a global pool, then Dense(classes)")
        classes = logits.shape[-1]
        weights = np.ones(classes, np.float32) if self.weights is None else np.array(self.weights, np.float32)
        if len(weights) != classes:
            raise ValueError(f"the network tells {classes} classes apart, but {len(weights)} class weights were given")
        losses, gradient = np.zeros(b.batch, np.float32), b.like(logits)
        b.call("cross_entropy", logits=logits, labels=b.labels, weights=weights, channels=classes,
               smoothing=self.smoothing, scale=1 / max(b.batch, 1), loss=losses, dlogits=gradient)
        return losses, gradient
