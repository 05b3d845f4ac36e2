"""All parameters of a network in one flat float32 buffer, so that the optimiser updates them in one pass."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..geometry import BLOCK
from ..layers.base import Parameter
from .library import View
from .tensor import Argument, aligned


class ParameterBuffer:
    """Parameters by name: trainable ones first, each padded to blocks of 16, the trainable ones with zeros.

    Arrays are in PyTorch's layout. A second buffer of the same `Mapping` (a gradient, a momentum) has the same layout.
    """

    def __init__(self, parameters: Mapping[str, Parameter]):
        self.shapes = {name: p.shape for name, p in parameters.items()}
        self.offsets: dict[str, int] = {}
        end = 0
        for trainable in (True, False):
            for name, p in parameters.items():
                if p.trainable == trainable:
                    self.offsets[name] = end
                    end += -(-p.size // BLOCK) * BLOCK
            if trainable:
                self.trainable_size = end
        self.flat = aligned(end, np.float32)
        self.arrays = {name: self.flat[self.offsets[name]:][:p.size].reshape(p.shape) for name, p in parameters.items()}

    def channels(self, name: str) -> Argument:
        """A one-dimensional parameter as (c, b)."""
        count = -(-self.shapes[name][0] // BLOCK)
        return self.seen(name, 0, (BLOCK, 1), (count, BLOCK))

    def seen(self, name: str, start: int, *dims: tuple[int, int]) -> Argument:
        """A parameter from element `start` on, as (extent, stride) pairs, innermost first."""
        address = self.flat.ctypes.data + 4 * (self.offsets[name] + start)
        view = View(address, self.flat.dtype, tuple((0, e, s) for e, s in dims), self.flat)
        return Argument(None, lambda: view)
