"""Probabilities that mean what they say: one temperature for a model's outputs, and a threshold to refuse images by.

Temperature scaling divides the outputs by one number before the softmax (Guo et al., "On calibration of modern neural
networks", 2017): it changes how sure a model is, never which class it names. Refusing where the largest probability is
low is the baseline of Hendrycks and Gimpel ("A baseline for detecting misclassified and out-of-distribution examples",
2017). How often that refuses an image of a class the model does know is counted on validation images.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from math import isfinite
from typing import TYPE_CHECKING

import numpy as np

from .network import brief

if TYPE_CHECKING:
    from .model import Model

TEMPERATURES = (0.01, 100.0)  # beyond these a model is as good as certain of everything, or of nothing
FALSE_ALARM_RATE = 0.05
LEAST_LOGARITHM = -745.0  # of a positive float64; a probability that was rounded to zero counts as that


@dataclass(frozen=True)
class Calibration:
    """How sure a model may be. Raises ValueError for values that none can have.

    temperature: what outputs are divided by, within `TEMPERATURES`. images: how many validation images it was fitted
    on. threshold: an image whose largest probability lies below it is refused, None where there were too few images to
    set one. false_alarm_rate: the share of images of known classes that is expected to be refused, None without a
    threshold.
    """

    temperature: float
    images: int
    threshold: float | None = None
    false_alarm_rate: float | None = None

    def __post_init__(self):
        _require("temperature", self.temperature, *TEMPERATURES)
        if type(self.images) is not int or self.images < 1:
            raise ValueError(f"calibration: images must be a whole number of at least 1, got {brief(self.images)}")
        if (self.threshold is None) != (self.false_alarm_rate is None):
            raise ValueError("calibration: threshold and false_alarm_rate belong together; give both or neither")
        if self.threshold is not None:
            _require("threshold", self.threshold, 0, 1)
            _require("false_alarm_rate", self.false_alarm_rate, 0, 1)

    @property
    def false_alarm_interval(self) -> tuple[float, float] | None:
        """Where the true rate lies with 95% probability: few validation images leave it open.

        The k-th smallest of n probabilities has a Beta(k, n + 1 - k) share of all others below it (David and
        Nagaraja, "Order statistics", 2003, section 2.1). None without a threshold.
        """
        if self.false_alarm_rate is None:
            return None
        from scipy.special import betaincinv

        below = min(max(round(self.false_alarm_rate * (self.images + 1)), 1), self.images)
        low, high = betaincinv(below, self.images + 1 - below, (0.025, 0.975))
        return float(low), float(high)

    def rejects(self, probabilities: np.ndarray) -> np.ndarray:
        """Which images (N,) are refused, given probabilities (N, classes); none without a threshold."""
        largest = np.asarray(probabilities).max(axis=-1).astype(np.float32)
        return largest < np.float32(0 if self.threshold is None else self.threshold)

    def to_json(self) -> dict:
        """As a dict of numbers; `from_json` reads it back without loss."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict) -> Calibration:
        """What `to_json` wrote. Raises ValueError for anything else."""
        keys = ("temperature", "images", "threshold", "false_alarm_rate")
        if not isinstance(data, dict) or set(data) != set(keys):
            raise ValueError(f"calibration must be an object of exactly {', '.join(keys)}, got {brief(data)}")
        return cls(**data)


def fit(
    model: Model, images: np.ndarray, labels: np.ndarray, *, false_alarm_rate: float = FALSE_ALARM_RATE
) -> Calibration:
    """The calibration of a model, from images (N, H, W, C) it was not trained on and their labels (N,).

    The temperature makes the log loss smallest. Where the model is right about every image the log loss falls for
    ever as the temperature does; then the mean of the largest probability becomes (N + 1) / (N + 2), which is all
    that N successes tell (Laplace's rule of succession). The threshold is the k-th smallest of the largest
    probabilities with k = floor(false_alarm_rate (N + 1)), so that an image like these falls below it with the
    probability k / (N + 1); with k = 0 there is none. Nothing is random. The model keeps the calibration it has: set
    `model.calibration`. Raises ValueError for no images, labels that do not fit and outputs that are not finite.
    """
    _require("false_alarm_rate", false_alarm_rate, 0, 1)
    if len(images) == 0:
        raise ValueError("calibration needs images that the model was not trained on, got none")
    scores = model.log_probabilities(images, calibrated=False)
    labels = np.asarray(labels)
    if labels.shape != scores.shape[:1] or labels.dtype.kind not in "iu" \
            or not 0 <= labels.min() <= labels.max() < scores.shape[1]:
        raise ValueError(f"calibration needs {len(scores)} labels from 0 to {scores.shape[1] - 1}, "
                         f"got {labels.dtype} of shape {labels.shape}")
    if np.isnan(scores).any():
        raise ValueError("the model's outputs are not finite numbers; it cannot be calibrated")
    scores = np.maximum(scores - scores.max(axis=1, keepdims=True), LEAST_LOGARITHM)
    temperature = _temperature(scores, labels)
    confidence = np.sort(_softmax(scores / temperature).max(axis=1))
    count = len(confidence)
    below = min(int(false_alarm_rate * (count + 1) + 1e-9), count)
    if not below:
        return Calibration(temperature, count)
    return Calibration(temperature, count, float(np.float32(confidence[below - 1])), below / (count + 1))


def _temperature(scores: np.ndarray, labels: np.ndarray) -> float:
    """The best temperature for outputs (N, classes) whose largest is 0."""
    count = len(labels)
    true = scores[np.arange(count), labels]

    def slope(inverse: float) -> float:
        """Of the log loss, which is convex, by the inverse of the temperature: it rises with it."""
        return float((_softmax(inverse * scores) * scores).sum(axis=1).mean() - true.mean())

    def too_sure(inverse: float) -> float:
        return float(_softmax(inverse * scores).max(axis=1).mean()) - (count + 1) / (count + 2)

    all_right = bool((scores.argmax(axis=1) == labels).all())
    return 1 / _root(too_sure if all_right else slope)


def _root(rising: Callable[[float], float]) -> float:
    """Where a rising function of the inverse temperature is zero; the nearer bound where it is so nowhere."""
    from scipy.optimize import brentq

    low, high = 1 / TEMPERATURES[1], 1 / TEMPERATURES[0]
    if rising(low) >= 0:
        return low
    return high if rising(high) <= 0 else float(brentq(rising, low, high))


def _softmax(scores: np.ndarray) -> np.ndarray:
    """Along the classes, of outputs whose largest is 0."""
    p = np.exp(scores)
    return p / p.sum(axis=1, keepdims=True)


def _require(name: str, value, low: float, high: float) -> None:
    """Raise ValueError unless it is a number within the bounds."""
    number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300 and isfinite(value)
    if not number or not low <= value <= high:
        raise ValueError(f"calibration: {name} must be a number from {low:g} to {high:g}, got {brief(value)}")
