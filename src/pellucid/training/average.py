"""An exponential moving average of all weights: a better model than the last step's, while the rate is still high.

(Polyak and Juditsky, 1992, in the exponential form of Tarvainen and Valpola, "Mean teachers are better role models",
2017.) Running statistics of batch normalisation are averaged alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import exp

import numpy as np

from ..model import Model

EVERY = 5  # steps between two updates, so that they take no time


def default_horizon(epoch_steps: int, steps: int) -> int:
    """Steps to average over: half an epoch, at most a fortieth of the training; below 2 updates nothing is averaged."""
    horizon = min(epoch_steps // 2, steps // 40)
    return horizon if horizon >= 2 * EVERY else 0


class Average:
    """The average over about `horizon` steps of a model's parameters; `horizon` 0 is the parameters themselves."""

    def __init__(self, model: Model, horizon: int):
        self.model, self.horizon = model, horizon
        self.flat = model.buffer.flat.copy() if horizon else None

    def update(self, step: int) -> None:
        """Take in the parameters after a step, counted from 1. Early averages reach back to a tenth of the steps."""
        if not self.horizon or step % EVERY:
            return
        keep = exp(-EVERY / min(self.horizon, max(step / 10, 1)))
        self.flat *= np.float32(keep)
        self.flat += np.float32(1 - keep) * self.model.buffer.flat

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Meanwhile the model has the averaged parameters."""
        if not self.horizon:
            yield
            return
        now = self.model.buffer.flat.copy()
        try:
            self.model.buffer.flat[:] = self.flat
            self.model.changed()
            yield
        finally:
            self.model.buffer.flat[:] = now
            self.model.changed()

    def arrays(self) -> dict[str, np.ndarray]:
        """The averages by parameter, not copies: what resuming takes."""
        if not self.horizon:
            return {}
        buffer = self.model.buffer
        return {name: self.flat[buffer.offsets[name]:][:array.size].reshape(array.shape)
                for name, array in buffer.arrays.items()}
