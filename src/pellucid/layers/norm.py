"""Batch normalisation: each channel gets mean 0 and variance 1, then a learned scale and shift.

(Ioffe and Szegedy, "Batch normalization", 2015.) A channel's statistics are taken over images and positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import ClassVar

from .. import reference
from ..geometry import BLOCK, blocks
from .base import Layer, Parameter, Shape
from .initialisation import ones, zeros


@dataclass(frozen=True)
class BatchNorm(Layer):
    """weight (x - mean) / sqrt(var + eps) + bias.

    While training, mean and variance are the batch's, and running averages of them move by `momentum`; afterwards
    they are those averages. As in PyTorch, the batch's variance divides by the count and the running one by the
    count less one.
    """

    short: ClassVar[str] = "bn"

    eps: float = 1e-5
    momentum: float = 0.1

    def __post_init__(self):
        if not self.eps > 0:
            raise ValueError(f"eps must be positive, got {self.eps!r}")
        if not 0 <= self.momentum <= 1:
            raise ValueError(f"momentum must be between 0 and 1, got {self.momentum!r}")

    def parameters(self, shape: Shape) -> dict[str, Parameter]:
        channels = shape[-1:]
        return {
            "weight": Parameter(channels, ones),
            "bias": Parameter(channels, zeros),
            "running_mean": Parameter(channels, zeros, trainable=False),
            "running_var": Parameter(channels, ones, trainable=False),
        }

    def define(self, parameters, x, *, training=False, seed=0):
        weight, bias = parameters["weight"], parameters["bias"]
        if training:
            count = _count(prod(x.shape[:-1]))
            mean, var = reference.batch_moments(x)
            for name, new in (("running_mean", mean), ("running_var", var * count / (count - 1))):
                parameters[name] = (1 - self.momentum) * parameters[name] + self.momentum * new
        else:
            mean, var = parameters["running_mean"], parameters["running_var"]

        def backward(dy):
            if training:
                dx, dweight, dbias = reference.batch_norm_grad(x, weight, dy, self.eps)
            else:
                dx, dweight, dbias = reference.batch_norm_inference_grad(x, weight, mean, var, self.eps, dy)
            return [dx], {"weight": dweight, "bias": dbias}

        return reference.batch_norm(x, weight, bias, mean, var, self.eps), backward

    def lower(self, b, x):
        weight, bias, eps = b.parameter("weight"), b.parameter("bias"), self.eps
        mean, var = running_mean, running_var = b.parameter("running_mean"), b.parameter("running_var")
        if b.training:
            count = _count(b.batch * prod(x.logical[:-1]))
            mean, var = (b.scratch((blocks(x.logical[-1]), BLOCK)) for _ in range(2))
            b.call("batch_moments", x=x, mean=mean, var=var)
            b.call("batch_norm_running", mean=mean, var=var, momentum=self.momentum, unbiased=count / (count - 1),
                   old_mean=running_mean, old_var=running_var, running_mean=running_mean, running_var=running_var)
        y = b.like(x)
        b.call("batch_norm", x=x, mean=mean, var=var, weight=weight, bias=bias, eps=eps, y=y)

        def backward(dy):
            dweight, dbias = b.gradient("weight"), b.gradient("bias")
            b.call("batch_norm_sums", x=x, dy=dy, mean=mean, var=var, eps=eps, dweight=dweight, dbias=dbias)
            if not b.needs_gradient(x):
                return [None]
            dx = b.like(x)
            if b.training:
                b.call("batch_norm_grad", x=x, dy=dy, mean=mean, var=var, weight=weight, dweight=dweight, dbias=dbias,
                       eps=eps, dx=dx)
            else:
                b.call("batch_norm_inference_grad", dy=dy, var=var, weight=weight, eps=eps, dx=dx)
            return [dx]

        return y, backward


def _count(count: int) -> int:
    """Values a channel has in a batch. Raises ValueError unless there are two or more."""
    if count < 2:
        raise ValueError(
            f"batch normalisation needs two or more values a channel while training, got {count}: use a larger batch "
            "or a larger map"
        )
    return count
