"""Gradient times input: the score as if the network were linear around this image."""

from __future__ import annotations

import numpy as np

from ..model import Model
from ..network import INPUT
from .maps import Map, answer, over_pixels
from .question import ask


def gradient_times_input(model: Model, image: np.ndarray, target: int | str | None = None) -> Map:
    """The gradient of the target's logit times the value that the network reads, summed over the channels; signed
    (Shrikumar, Greenside, Shcherbina and Kundaje, "Not just a black box", 2016).

    A pixel of the value zero, which is the mean colour of the training images, gets nothing. For a network without
    biases of ReLU, convolution, pooling and dense layers the values add up to the logit; the sum is in the facts, as
    "total". Raises ValueError for what cannot be asked about (`question.ask`).
    """
    question = ask(model, image, target)
    slopes = question.gradients(question.read[None])[INPUT][0]
    values = over_pixels(slopes.astype(np.float64) * question.read)
    total = float(values.sum())
    return answer("gradient_times_input", question, values, facts={"total": total},
                  note=f"The pixels add up to {total:.4g}; the logit is {question.score:.4g}. The rest is what biases "
                       "add, normalisation's included.")
