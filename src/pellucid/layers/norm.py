"""Batch normalisation: each channel gets mean 0 and variance 1, then a learned scale and shift.

(Ioffe and Szegedy, "Batch normalization", 2015.) A channel's statistics are taken over images and positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import ClassVar

import numpy as np

from .. import reference
from ..geometry import BLOCK, blocks
from .arithmetic import Step, Uses, everywhere, function
from .base import ALONE, Layer, Parameter, Shape, halves, leading
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

    def terms(self, index, parameters, x):
        channel, number = index[-1:], float(x[index])
        mean, var, weight, bias = (float(parameters[name][channel])
                                   for name in ("running_mean", "running_var", "weight", "bias"))
        centred, deviation = number - mean, self._deviation(var)
        standardised, scale = centred / deviation, weight / deviation
        steps = (Step("mean", mean, "running_mean", channel), Step("variance", var, "running_var", channel),
                 Step("eps", self.eps), Step("weight", weight, "weight", channel), Step("bias", bias, "bias", channel),
                 Step("x - mean", centred), Step("that / sqrt(variance + eps)", standardised),
                 Step("that times weight", standardised * weight), Step("that + bias", standardised * weight + bias))
        return function(x, index, steps, scale, (abs(number) + abs(mean)) * abs(scale) + abs(bias))

    def uses(self, name, index, parameters, x):
        outputs = everywhere(x.shape, *index)
        if name == "bias":
            return Uses(outputs, np.ones(len(outputs)))
        mean, var = (float(parameters[name][index]) for name in ("running_mean", "running_var"))
        centred = x[tuple(outputs.T)].astype(float) - mean
        return Uses(outputs, centred / self._deviation(var), outputs, "standardised x")

    def _deviation(self, var: float) -> np.float64:
        """Not a number for a variance that is none, as in the kernels."""
        return np.sqrt(np.float64(var + self.eps))

    def fuses(self, b, followers, x):
        if b.gradients and not b.training:
            return 0
        count = leading(followers, "ReLU")
        if b.training and len(x.logical) == 3 and halves(followers[count:]):
            return count + 1
        return leading(followers, "Add", "ReLU")

    def lower(self, b, x, after=ALONE):
        mean, inverse, scale = self._statistics(b, x)
        bias = b.parameter("bias")
        if after.pool:
            height, width, channels = x.shape
            y, index = (b.tensor((height // 2, width // 2, channels), dtype) for dtype in ("float32", "uint8"))
            b.call("batch_norm_pool", x=x, mean=mean, scale=scale, bias=bias, relu=int(after.relu),
                   **{"y.0": y, "y.1": index})
        else:
            y = b.like(x)
            b.call("batch_norm", x=x, mean=mean, scale=scale, bias=bias, residual=after.residual or b.nothing(y),
                   relu=int(after.relu), y=y)

        def backward(dy):
            kind, more = "", {}
            if after.pool:
                kind, more = "pool_", {"index": index, "y": y, "relu": int(after.relu)}
            elif after.relu and after.residual:
                masked = b.like(dy)
                b.call("relu_grad", y=y, dy=dy, dx=masked)
                dy = masked  # also what the residual gets
            elif after.relu:
                kind, more = "relu_", {"bias": bias}
            known = {"x": x, "dy": dy, "mean": mean, "inverse": inverse, **more}
            dweight, dbias = b.gradient("weight"), b.gradient("bias")
            only = {"scale": scale} if kind == "relu_" else {}
            b.call(f"batch_norm_{kind}sums", **known, **only, dweight=dweight, dbias=dbias)
            gradients = [None]
            if b.needs_gradient(x):
                dx = b.like(x)
                if b.training:
                    b.call(f"batch_norm_{kind}grad", **known, scale=scale, dweight=dweight, dbias=dbias, dx=dx)
                else:
                    b.call("batch_norm_inference_grad", dy=dy, scale=scale, dx=dx)
                gradients = [dx]
            if after.residual:
                gradients.append(dy if b.needs_gradient(after.residual) else None)
            return gradients

        return y, backward

    def _statistics(self, b, x):
        """(mean, 1 / deviation, that times the weight), noting the calls that compute them."""
        form = blocks(x.shape[2]), BLOCK
        inverse, scale = b.scratch(form), b.scratch(form)
        running_mean, running_var = b.parameter("running_mean"), b.parameter("running_var")
        if not b.training:
            b.prepare("batch_norm_scale", var=running_var, weight=b.parameter("weight"), eps=self.eps, inverse=inverse,
                      scale=scale)
            return running_mean, inverse, scale
        count = _count(b.batch * prod(x.logical[:-1]))
        mean, var = b.scratch(form), b.scratch(form)
        b.call("batch_moments", x=x, mean=mean, var=var)
        b.call("batch_norm_running", mean=mean, var=var, momentum=self.momentum, unbiased=count / (count - 1),
               old_mean=running_mean, old_var=running_var, running_mean=running_mean, running_var=running_var)
        b.call("batch_norm_scale", var=var, weight=b.parameter("weight"), eps=self.eps, inverse=inverse, scale=scale)
        return mean, inverse, scale


def folded(b, node: str, norm: BatchNorm, channels: int, before):
    """Note the calls that fold a normalisation by its running statistics into the convolution before it, whose bias is
    `before`: what its filters are to be multiplied by, and its new bias."""
    inverse, scale, shift = (b.scratch((blocks(channels), BLOCK)) for _ in range(3))
    b.prepare("batch_norm_scale", var=b.parameter("running_var", node), weight=b.parameter("weight", node),
              eps=norm.eps, inverse=inverse, scale=scale)
    b.prepare("batch_norm_shift", mean=b.parameter("running_mean", node), scale=scale,
              bias=b.parameter("bias", node), before=before, shift=shift)
    return scale, shift


def _count(count: int) -> int:
    """Values a channel has in a batch. Raises ValueError unless there are two or more."""
    if count < 2:
        raise ValueError(
            f"batch normalisation needs two or more values a channel while training, got {count}: use a larger batch "
            "or a larger map"
        )
    return count
