"""The gradient: which pixels would move the score most if they changed a little."""

from __future__ import annotations

import numpy as np

from ..model import Model
from ..network import INPUT
from .maps import Map, answer, over_pixels
from .question import ask


def gradient(model: Model, image: np.ndarray, target: int | str | None = None) -> Map:
    """The gradient of the target's logit to each pixel, summed over the channels; signed (Simonyan, Vedaldi and
    Zisserman, "Deep inside convolutional networks", 2014, section 3, who take the largest magnitude instead).

    It is to what the network reads: how much the logit rises when all channels of a pixel rise together by one standard
    deviation of the training images. It says what would change the score, not what made it. Raises ValueError for
    what cannot be asked about (`question.ask`).
    """
    question = ask(model, image, target)
    values = over_pixels(question.gradients(question.read[None])[INPUT][0])
    return answer("gradient", question, values,
                  note="How much the logit rises when all channels of a pixel rise by one unit of what the network "
                       "reads.")
