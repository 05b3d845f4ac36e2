"""Integrated gradients: the change of the score from an empty image to this one, shared out among the pixels."""

from __future__ import annotations

import numpy as np

from ..model import Model
from ..network import INPUT, brief
from .maps import Map, answer, over_pixels
from .question import BATCH, Question, ask

FIRST, MOST = 64, 512  # steps; doubled in between
SHORT = 0.01  # of the change, that the sum may miss


def integrated_gradients(model: Model, image: np.ndarray, target: int | str | None = None, *,
                         baseline: np.ndarray | None = None, steps: int | None = None) -> Map:
    """(image - baseline) times the mean gradient on the straight line between them, summed over the channels; signed
    (Sundararajan, Taly and Yan, "Axiomatic attribution for deep networks", 2017).

    `baseline` is an image like `image`; by default what the network reads as zero, the mean colour of the training
    images. The mean is taken at the middles of `steps` equal parts; by default 64, doubled up to 512 until the values
    add up to the logit less the baseline's within 1% of it (completeness). The facts say how many ("steps"), what the
    values add up to ("total"), and what they should ("expected"). Raises ValueError for steps that are not an integer
    from 1 to 100,000 and for what cannot be asked about (`question.ask`).
    """
    question, taken = ask(model, image, target), FIRST if steps is None else steps
    if not isinstance(taken, int | np.integer) or isinstance(taken, bool) or not 1 <= taken <= 100_000:
        raise ValueError(f"steps must be an integer from 1 to 100,000, got {brief(taken)}")
    start = question.baseline(baseline)
    expected = question.score - float(question.scores(start[None])[0])
    while True:
        values = over_pixels((question.read - start) * _mean_gradient(question, start, taken))
        total = float(values.sum())
        missing = abs(total - expected)
        if steps is not None or taken >= MOST or missing <= max(SHORT * abs(expected), 1e-4 * np.abs(values).sum()):
            break
        taken *= 2
    return answer("integrated_gradients", question, values,
                  facts={"steps": int(taken), "total": total, "expected": expected},
                  note=f"The pixels add up to {total:.4g} in {taken} steps; the logit is {question.score:.4g}, which "
                       f"is {expected:.4g} more than for the baseline.")


def _mean_gradient(question: Question, start: np.ndarray, steps: int) -> np.ndarray:
    total = np.zeros(start.shape)
    along = ((np.arange(steps) + 0.5) / steps).astype(np.float32).reshape(-1, *[1] * start.ndim)
    for first in range(0, steps, BATCH):
        images = start + along[first:first + BATCH] * (question.read - start)
        total += question.gradients(images)[INPUT].sum(axis=0, dtype=np.float64)
    return total / steps
