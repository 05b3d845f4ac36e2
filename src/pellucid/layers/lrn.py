"""Local response normalisation, which AlexNet has after its first layers: neighbouring channels compete."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

import numpy as np

from .. import reference
from .arithmetic import Arithmetic, Step, beside, read
from .base import Layer


@dataclass(frozen=True)
class LRN(Layer):
    """x / (k + alpha / size * sum of x^2 over the `size` channels around each)^beta.

    (Krizhevsky, Sutskever and Hinton, "ImageNet classification with deep convolutional neural networks", 2012, section
    3.3; there alpha is not divided by the size, here it is, as in PyTorch and ONNX: the paper's 1e-4 is 5e-4 here.)
    Channels beyond the first and last count as zeros. Raises ValueError unless `size` is odd, `k` positive and `alpha`
    and `beta` are not negative.
    """

    size: int = 5
    alpha: float = 1e-4
    beta: float = 0.75
    k: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        if not isinstance(self.size, int) or isinstance(self.size, bool) or self.size < 1 or self.size % 2 == 0:
            raise ValueError(f"size must be an odd number of channels, got {self.size!r}")
        for name, least in (("alpha", "at least 0"), ("beta", "at least 0"), ("k", "above 0")):
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
            if not number or value < 0 or value == 0 and name == "k":
                raise ValueError(f"{name} must be a number {least}, got {value!r}")

    def kernel_text(self, shape) -> str:
        return f"{self.size} channels"

    @property
    def options(self) -> dict:
        """The keywords of the functions in `reference`."""
        return {"alpha": self.alpha, "beta": self.beta, "k": self.k}

    def define(self, parameters, x, *, training=False, seed=0):
        y = reference.lrn(x, self.size, **self.options)
        return y, lambda dy: ([reference.lrn_grad(x, dy, self.size, **self.options)], {})

    def terms(self, index, parameters, x):
        at = self.readers(index, 0, x.shape)
        numbers, of = read(x, at)
        squares = numbers**2
        total = squares.sum()
        divided, own = self.k + self.alpha / self.size * total, float(x[index])
        value = own * divided**-self.beta
        derivative = -2 * self.alpha * self.beta / self.size * own * numbers * divided ** (-self.beta - 1)
        derivative[at[:, -1] == index[-1]] += divided**-self.beta
        steps = (Step("sum of squares", float(total)), Step("k + alpha / size sum", float(divided)),
                 Step("its own x", own), Step("x / (k + ...)^beta", float(value)))
        return Arithmetic(of, at, numbers, squares, derivative, steps, abs(float(value)), "x squared")

    def readers(self, index, of, shape):
        """The channels around: who is in whose sum is mutual."""
        first, stop = max(index[-1] - self.size // 2, 0), min(index[-1] + self.size // 2 + 1, shape[-1])
        return beside(np.array([index[:-1]], int), np.arange(first, stop)[:, None])

    def lower(self, b, x):
        y = b.like(x)
        scalars = {"size": self.size, "alpha": self.alpha / self.size, "beta": self.beta, "k": self.k,
                   "channels": x.shape[2]}
        b.call("lrn", x=x, y=y, **scalars)

        def backward(dy):
            if not b.needs_gradient(x):
                return [None]
            dx = b.like(x)
            b.call("lrn_grad", x=x, dy=dy, dx=dx, **scalars)
            return [dx]

        return y, backward
