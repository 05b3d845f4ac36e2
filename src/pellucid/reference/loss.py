"""From scores to probabilities to a loss: softmax and cross entropy."""

from __future__ import annotations

import numpy as np

from .arrays import float64, require_shape


def softmax(x) -> np.ndarray:
    """exp(x) / sum of exp(x), over the last axis: positive, and summing to 1."""
    x = float64(x)
    e = np.exp(x - x.max(axis=-1, keepdims=True))  # a shift changes nothing and prevents overflow
    return e / e.sum(axis=-1, keepdims=True)


def softmax_grad(y, dy) -> np.ndarray:
    """Gradient of `softmax` to its input, from its output `y`: y (dy - sum of y dy)."""
    y, dy = float64(y), float64(dy)
    return y * (dy - (y * dy).sum(axis=-1, keepdims=True))


def cross_entropy(logits, labels, smoothing: float = 0.0, weights=None) -> float:
    """Mean over the batch of -weight sum over classes of target log(softmax(logits)).

    Args:
        logits: (N, classes), N at least 1.
        labels: (N,) integers, 0 to classes - 1.
        smoothing: the target is 1 - smoothing on the label, plus smoothing / classes on every class (Szegedy et al.,
            "Rethinking the Inception architecture", 2016, section 7).
        weights: (classes,), by which the losses of the images of a class are multiplied; None for 1.

    Raises ValueError if a label is out of range, shapes do not fit or smoothing is not in [0, 1].
    """
    logits = float64(logits)
    total = 0.0
    for z, target, weight in zip(logits, _targets(logits, labels, smoothing), _weights(logits, labels, weights),
                                 strict=True):
        shifted = z - z.max()
        total -= weight * (target @ (shifted - np.log(np.exp(shifted).sum())))
    return float(total / len(logits))


def cross_entropy_grad(logits, labels, smoothing: float = 0.0, weights=None) -> np.ndarray:
    """Gradient of `cross_entropy` to the logits: weight (softmax(logits) - target) / N."""
    logits = float64(logits)
    targets = _targets(logits, labels, smoothing)
    return _weights(logits, labels, weights)[:, None] * (softmax(logits) - targets) / len(logits)


def _weights(logits: np.ndarray, labels, weights) -> np.ndarray:
    """The weight of each image's loss, (N,)."""
    if weights is None:
        return np.ones(len(logits))
    weights = float64(weights)
    require_shape("weights", weights, (logits.shape[1],))
    return weights[np.asarray(labels)]


def _targets(logits: np.ndarray, labels, smoothing: float) -> np.ndarray:
    """The probabilities the softmax should give, (N, classes)."""
    labels = np.asarray(labels)
    if logits.ndim != 2 or logits.size == 0:
        raise ValueError(f"logits must have shape (N, classes), neither of them 0, got {logits.shape}")
    require_shape("labels", labels, (len(logits),))
    classes = logits.shape[1]
    if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"labels must be integers from 0 to {classes - 1}, got {labels}")
    if not 0 <= smoothing <= 1:
        raise ValueError(f"smoothing must be from 0 to 1, got {smoothing!r}")
    targets = np.full(logits.shape, smoothing / classes)
    targets[np.arange(len(labels)), labels] += 1 - smoothing
    return targets
