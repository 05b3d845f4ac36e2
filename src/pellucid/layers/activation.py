"""Functions applied to every number alone, and softmax over the channels. None has parameters."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, isfinite
from typing import ClassVar

import numpy as np

from .. import reference
from .arithmetic import Arithmetic, Step, beside, function, read
from .base import LAYERS, Layer


class _Pointwise(Layer):
    """A function of one number.

    Its definition in `reference` is called `function` and its kernel `kernel`, by default the class's name; their
    gradients have "_grad" after it and read the layer's input.
    """

    function: ClassVar[str] = ""
    kernel: ClassVar[str] = ""
    formula: ClassVar[str] = ""  # in a few characters, for who looks at one number

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        cls.function = cls.__dict__.get("function") or cls.__name__.lower()
        cls.kernel = cls.__dict__.get("kernel") or cls.function

    def scalars(self) -> dict[str, float]:
        """Arguments besides the arrays, of kernel and reference alike."""
        return {}

    def define(self, parameters, x, *, training=False, seed=0):
        function, gradient = getattr(reference, self.function), getattr(reference, self.function + "_grad")
        return function(x, **self.scalars()), lambda dy: ([gradient(x, dy, **self.scalars())], {})

    def terms(self, index, parameters, x):
        value = float(getattr(reference, self.function)(x[index], **self.scalars()))
        derivative = float(getattr(reference, self.function + "_grad")(x[index], 1, **self.scalars()))
        return function(x, index, [Step(self.formula, value)], derivative, max(1, abs(value), abs(float(x[index]))))

    def lower(self, b, x):
        y = b.like(x)
        b.call(self.kernel, x=x, y=y, **self.scalars())

        def backward(dy):
            if not b.needs_gradient(x):
                return [None]
            dx = b.like(x)
            b.call(self.kernel + "_grad", x=x, dy=dy, dx=dx, **self.scalars())
            return [dx]

        return y, backward


del LAYERS["_Pointwise"]  # a base, not a layer


@dataclass(frozen=True)
class ReLU(_Pointwise):
    """max(x, 0). The derivative at 0 is taken as 0."""

    formula: ClassVar[str] = "max(x, 0)"

    def lower(self, b, x):
        y = b.like(x)
        b.call("relu", x=x, y=y)

        def backward(dy):
            if not b.needs_gradient(x):
                return [None]
            dx = b.like(x)
            b.call("relu_grad", y=y, dy=dy, dx=dx)  # y says as much as x, and the next layer keeps it anyway
            return [dx]

        return y, backward


@dataclass(frozen=True)
class LeakyReLU(_Pointwise):
    """x where x > 0, slope x elsewhere (Maas, Hannun and Ng, "Rectifier nonlinearities", 2013).

    The derivative at 0 is `slope`. Raises ValueError unless `slope` is a finite number.
    """

    slope: float = 0.01
    function: ClassVar[str] = "leaky_relu"
    formula: ClassVar[str] = "x if x > 0, else slope x"

    def __post_init__(self):
        if not isinstance(self.slope, (int, float)) or isinstance(self.slope, bool) or not isfinite(self.slope):
            raise ValueError(f"slope must be a finite number, got {self.slope!r}")

    def scalars(self) -> dict[str, float]:
        return {"slope": self.slope}

    def kernel_text(self, shape) -> str:
        return f"slope {self.slope:g}"


@dataclass(frozen=True)
class Clip(_Pointwise):
    """min(max(x, low), high), None being no bound; `Clip(0, 6)` is ReLU6.

    The derivative at a bound is 1. Raises ValueError unless the bounds are finite numbers, the low one below the high.
    """

    low: float | None = None
    high: float | None = None
    formula: ClassVar[str] = "x between low and high"

    def __post_init__(self):
        super().__post_init__()
        for name in ("low", "high"):
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
            if value is not None and not number:
                raise ValueError(f"{name} must be a finite number or None, got {value!r}")
        if self.low is None and self.high is None:
            raise ValueError("Clip needs a bound, low or high or both, got none")
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError(f"low must be below high, got {self.low!r} and {self.high!r}")

    def scalars(self) -> dict[str, float]:
        return {"low": -inf if self.low is None else self.low, "high": inf if self.high is None else self.high}

    def kernel_text(self, shape) -> str:
        return " ".join(f"{name} {value:g}" for name, value in (("from", self.low), ("to", self.high))
                        if value is not None)


@dataclass(frozen=True)
class Sigmoid(_Pointwise):
    """1 / (1 + exp(-x))."""

    formula: ClassVar[str] = "1 / (1 + exp(-x))"


@dataclass(frozen=True)
class Tanh(_Pointwise):
    """(exp(x) - exp(-x)) / (exp(x) + exp(-x))."""

    kernel: ClassVar[str] = "hyperbolic_tangent"
    formula: ClassVar[str] = "tanh(x)"


@dataclass(frozen=True)
class ScaledTanh(_Pointwise):
    """amplitude tanh(slope x). With the numbers it begins with, 1 is mapped to 1 and -1 to -1, where the second
    derivative is largest (LeCun et al., "Gradient-based learning applied to document recognition", 1998, appendix A).

    Raises ValueError unless both are finite numbers.
    """

    amplitude: float = 1.7159
    slope: float = 2 / 3
    function: ClassVar[str] = "scaled_tanh"
    formula: ClassVar[str] = "amplitude tanh(slope x)"

    def __post_init__(self):
        for name, value in self.scalars().items():
            if not isinstance(value, (int, float)) or isinstance(value, bool) or not isfinite(value):
                raise ValueError(f"{name} must be a finite number, got {value!r}")

    def scalars(self) -> dict[str, float]:
        return {"amplitude": self.amplitude, "slope": self.slope}

    def kernel_text(self, shape) -> str:
        return f"{self.amplitude:g} tanh({self.slope:g} x)"


@dataclass(frozen=True)
class SiLU(_Pointwise):
    """x sigmoid(x) (Elfwing, Uchibe and Doya, "Sigmoid-weighted linear units", 2017), also called swish."""

    formula: ClassVar[str] = "x / (1 + exp(-x))"


@dataclass(frozen=True)
class GELU(_Pointwise):
    """x P(Z <= x) for a standard normal Z, exactly (Hendrycks and Gimpel, "Gaussian error linear units", 2016)."""

    formula: ClassVar[str] = "x P(Z <= x), Z normal"


@dataclass(frozen=True)
class Softmax(Layer):
    """exp(x) / sum of exp(x), over the channels at each position.

    For training a classifier, end the network with its scores instead: the cross entropy contains the softmax.
    """

    def define(self, parameters, x, *, training=False, seed=0):
        y = reference.softmax(x)
        return y, lambda dy: ([reference.softmax_grad(y, dy)], {})

    def terms(self, index, parameters, x):
        *position, channel = index
        at = beside(np.array([position], int), np.arange(x.shape[-1])[:, None])
        numbers, of = read(x, at)
        top = numbers.max()
        exponentials = np.exp(numbers - top)
        total = exponentials.sum()
        shares = exponentials / total
        own = shares[channel]
        derivative = own * ((np.arange(len(at)) == channel) - shares)
        steps = (Step("largest x", float(top)), Step("sum of exp(x - largest)", float(total)),
                 Step("exp(its own x - largest)", float(exponentials[channel])), Step("own / sum", float(own)))
        return Arithmetic(of, at, numbers, exponentials, derivative, steps, 1.0, "exp(x - largest)")

    def readers(self, index, of, shape):
        return beside(np.array([index[:-1]], int), np.arange(shape[-1])[:, None])

    def lower(self, b, x):
        y, channels = b.like(x), x.shape[-1]
        b.call("softmax", x=x, y=y, channels=channels)

        def backward(dy):
            if not b.needs_gradient(x):
                return [None]
            dx = b.like(x)
            b.call("softmax_grad", y=y, dy=dy, dx=dx, channels=channels)
            return [dx]

        return y, backward
