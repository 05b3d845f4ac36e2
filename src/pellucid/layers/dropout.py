"""Dropout, with a mask that is computed from a counter: nothing is stored, and it is the same everywhere.

Whether an element is kept depends on the step's seed, the layer's key and the element's number alone, by integer
arithmetic that numpy and the compiled kernel do alike. So a mask does not depend on threads, and a resumed run draws
the masks an unbroken one would (counter-based generation: Salmon et al., "Parallel random numbers: as easy as
1, 2, 3", 2011).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .. import reference
from .arithmetic import copied
from .base import Layer

MASK = 0xFFFFFFFF


@dataclass(frozen=True)
class Dropout(Layer):
    """While training, sets a share `rate` of the values to 0 and multiplies the others by 1 / (1 - rate).

    At inference it changes nothing. (Srivastava et al., "Dropout: A simple way to prevent neural networks from
    overfitting", 2014, with the scaling done while training.) Raises ValueError unless 0 <= rate < 1.
    """

    rate: float = 0.5

    def __post_init__(self):
        if not isinstance(self.rate, (int, float)) or isinstance(self.rate, bool) or not 0 <= self.rate < 1:
            raise ValueError(f"rate must be a number, at least 0 and below 1, got {self.rate!r}")

    def kernel_text(self, shape) -> str:
        return f"rate {self.rate:g}"

    def define(self, parameters, x, *, training=False, seed=0):
        """`seed` is the step's seed mixed with the layer's key: see `mix`."""
        if not training:
            return x, lambda dy: ([dy], {})
        mask = keep(seed, x.shape, self.rate)
        return reference.dropout(x, mask, self.rate), lambda dy: ([reference.dropout_grad(dy, mask, self.rate)], {})

    def terms(self, index, parameters, x):
        return copied(x, index, text="dropped only while training")

    def lower(self, b, x):
        if not b.training or not self.rate:
            return x, lambda dy: [dy]
        height, width, channels = x.shape
        constants = {"counter": b.counter, "key": b.key, "threshold": threshold(self.rate),
                     "scale": 1 / (1 - self.rate), "height": height, "width": width, "channels": channels}
        y = b.like(x)
        b.call("dropout", x=x, y=y, **constants)

        def backward(dy):
            if not b.needs_gradient(x):
                return [None]
            dx = b.like(x)
            b.call("dropout", x=dy, y=dx, **constants)
            return [dx]

        return y, backward


def hash32(h: np.ndarray) -> np.ndarray:
    """A bijection of the 32-bit integers in which every input bit sways every output bit about half the time.

    Two rounds of shift, exclusive or and multiplication; multipliers and shifts from Wellons, "Prospecting for hash
    functions", 2018 (lowest bias found). `h` is uint32, and so is the result.
    """
    h = (h ^ (h >> np.uint32(16))) * np.uint32(0x7FEB352D)
    h = (h ^ (h >> np.uint32(15))) * np.uint32(0x846CA68B)
    return h ^ (h >> np.uint32(16))


def mix(step_seed: int, key: int) -> int:
    """The seed of one layer at one step, a 32-bit integer."""
    h = hash32(np.array([step_seed & MASK], np.uint32))
    return int(hash32(h ^ np.uint32(key & MASK))[0])


def threshold(rate: float) -> int:
    """Hashes from here on are kept: a share 1 - rate of the 32-bit integers."""
    return min(round(rate * 2**32), MASK)


def keep(seed: int, shape: tuple[int, ...], rate: float) -> np.ndarray:
    """The mask of an array: element number i, counted with the last axis (the channels) fastest, is kept or not.

    The seed enters twice, so that masks of two seeds are not each other's permutations.
    """
    seed = np.uint32(seed & MASK)
    element = np.arange(int(np.prod(shape)), dtype=np.uint32).reshape(shape)
    return hash32(hash32(element ^ seed) + seed) >= np.uint32(threshold(rate))
