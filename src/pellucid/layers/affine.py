"""A scale and a shift for each channel: what is left of a normalisation whose statistics are part of its weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .. import reference
from ..geometry import BLOCK, blocks
from .arithmetic import Uses, dot, everywhere
from .base import Layer, Parameter, Shape
from .initialisation import ones, zeros


@dataclass(frozen=True)
class Affine(Layer):
    """weight x + bias, one of each for a channel. Parameters: weight (C,), bias (C,)."""

    def parameters(self, shape: Shape) -> dict[str, Parameter]:
        return {"weight": Parameter(shape[-1:], ones), "bias": Parameter(shape[-1:], zeros)}

    def define(self, parameters, x, *, training=False, seed=0):
        """Batch normalisation with the mean 0 and the variance 1 of every channel."""
        weight, mean, var = parameters["weight"], np.zeros(x.shape[-1]), np.ones(x.shape[-1])

        def backward(dy):
            dx, dweight, dbias = reference.batch_norm_inference_grad(x, weight, mean, var, 0.0, dy)
            return [dx], {"weight": dweight, "bias": dbias}

        return reference.batch_norm(x, weight, parameters["bias"], mean, var, 0.0), backward

    def terms(self, index, parameters, x):
        channel = index[-1:]
        return dot(parameters, x, np.array([index]), np.array([channel]), channel)

    def uses(self, name, index, parameters, x):
        outputs = everywhere(x.shape, *index)
        return Uses(outputs, x[tuple(outputs.T)].astype(float) if name == "weight" else np.ones(len(outputs)),
                    outputs if name == "weight" else None)

    def lower(self, b, x):
        form = blocks(x.shape[2]), BLOCK
        y, mean, scale = b.like(x), b.zeros(form), b.parameter("weight")
        b.call("batch_norm", x=x, mean=mean, scale=scale, bias=b.parameter("bias"), residual=b.nothing(y), relu=0, y=y)

        def backward(dy):
            b.call("batch_norm_sums", x=x, dy=dy, mean=mean, inverse=b.ones(form), dweight=b.gradient("weight"),
                   dbias=b.gradient("bias"))
            if not b.needs_gradient(x):
                return [None]
            dx = b.like(x)
            b.call("batch_norm_inference_grad", dy=dy, scale=scale, dx=dx)
            return [dx]

        return y, backward
