"""Single operations on arrays, run by the compiled kernels; `pellucid.reference` has the same in plain loops.

Arrays are N, H, W, C (images) or N, L, C (signals), filters O, I / groups, kh, kw (or O, I / groups, k); results are
float32. A convolution here does not flip its filter: it is the cross-correlation every library calls convolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from .engine.library import LOCK
from .engine.parameters import ParameterBuffer
from .engine.plan import Plan
from .geometry import Padding, per_axis
from .layers import AvgPool, Conv, MaxPool
from .layers.base import Layer, Shape
from .network import Network
from .reference import conv_matrix

__all__ = ["avg_pool", "conv", "conv_grad_input", "conv_grad_weight", "conv_matrix", "max_pool"]

Sizes = int | Sequence[int]


def conv(x, w, bias=None, *, stride: Sizes = 1, padding: Padding = 0, dilation: Sizes = 1,
         groups: int = 1) -> np.ndarray:
    """Convolution of x (N, H, W, C) with filters w (O, C / groups, kh, kw), plus bias (O,): (N, H', W', O).

    `padding` is an integer, one an axis, a pair an axis, or "same". Raises ValueError when shapes do not fit or the
    output would be empty.
    """
    x, w = _array(x, "x"), _array(w, "w")
    layer = _conv_layer(w, x.shape[-1], x.ndim, bias is not None, stride, padding, dilation, groups)
    values = {"weight": w} if bias is None else {"weight": w, "bias": _array(bias, "bias")}
    return _forward(layer, x, values)


def conv_grad_input(dy, w, input_size: Sizes, *, stride: Sizes = 1, padding: Padding = 0, dilation: Sizes = 1,
                    groups: int = 1) -> np.ndarray:
    """Gradient of `conv` to its input of spatial size `input_size`, given that to its output: (N, *input_size, C)."""
    dy, w = _array(dy, "dy"), _array(w, "w")
    channels = w.shape[1] * groups if w.ndim > 1 else 0
    layer = _conv_layer(w, channels, dy.ndim, False, stride, padding, dilation, groups)
    shape = (*per_axis(input_size, dy.ndim - 2, "input_size"), channels)
    plan, values, _ = _checked(layer, shape, dy, len(dy), True)
    if not plan:
        return np.zeros((len(dy), *shape), np.float32)
    with LOCK:  # calls of one shape share a plan
        values.arrays["conv1.weight"][...] = w
        plan.prepare()
        plan.backward(dy)
        return plan.input_gradient.copy()


def conv_grad_weight(x, dy, kernel_size: Sizes, *, stride: Sizes = 1, padding: Padding = 0, dilation: Sizes = 1,
                     groups: int = 1) -> np.ndarray:
    """Gradient of `conv` to its filters of `kernel_size`, given that to its output: (O, C / groups, kh, kw)."""
    x, dy = _array(x, "x"), _array(dy, "dy")
    size = per_axis(kernel_size, x.ndim - 2, "kernel_size")
    layer = Conv(dy.shape[-1], size, stride, padding, dilation, groups, bias=False)
    plan, _, gradient = _checked(layer, x.shape[1:], dy, len(x), False)
    if not plan:
        return np.zeros((dy.shape[-1], x.shape[-1] // groups, *size), np.float32)
    with LOCK:  # calls of one shape share a plan
        plan.load(x)
        plan.backward(dy)
        return gradient.arrays["conv1.weight"].copy()


def max_pool(x, size: Sizes, *, stride: Sizes | None = None, padding: Padding = 0, dilation: Sizes = 1) -> np.ndarray:
    """The largest value under each window, channel by channel; `stride` is `size` unless given. Padding never wins."""
    return _forward(MaxPool(size, stride, padding, dilation), _array(x, "x"), {})


def avg_pool(x, size: Sizes, *, stride: Sizes | None = None, padding: Padding = 0, dilation: Sizes = 1,
             count_include_pad: bool = True) -> np.ndarray:
    """The mean under each window, channel by channel; `stride` is `size` unless given. Padding counts as zeros, or not
    at all without `count_include_pad`."""
    return _forward(AvgPool(size, stride, padding, dilation, count_include_pad), _array(x, "x"), {})


def _array(value, name: str) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype.kind not in "iufb":
        raise ValueError(f"{name} must hold real numbers, got {array.dtype}")
    return np.asarray(array, np.float32)


def _conv_layer(w: np.ndarray, channels: int, dimensions: int, bias: bool, stride, padding, dilation, groups) -> Conv:
    if w.ndim != dimensions or dimensions not in (3, 4):
        raise ValueError(f"filters must be (O, I / groups, kh, kw) for images or (O, I / groups, k) for signals; got "
                         f"filters of {w.ndim} dimensions for arrays of {dimensions}")
    if w.shape[1] * groups != channels:
        raise ValueError(f"filters for {w.shape[1]} channels in each of {groups} groups need {w.shape[1] * groups} "
                         f"input channels, got {channels}")
    return Conv(w.shape[0], w.shape[2:], stride, padding, dilation, groups, bias)


@lru_cache(maxsize=4)  # each keeps its memory
def _plan(layer: Layer, shape: Shape, batch: int, gradients: bool,
          input_gradient: bool) -> tuple[Plan, ParameterBuffer, ParameterBuffer | None]:
    network = Network.build(shape, layer)
    values = ParameterBuffer(network.parameters())
    gradient = ParameterBuffer(network.parameters()) if gradients else None
    return Plan(network, values, batch, gradient=gradient, input_gradient=input_gradient), values, gradient


def _forward(layer: Layer, x: np.ndarray, parameters: dict[str, np.ndarray]) -> np.ndarray:
    if x.ndim not in (3, 4):
        raise ValueError(f"x must be N, H, W, C or N, L, C, got shape {x.shape}")
    if not len(x):
        return np.zeros((0, *Network.build(x.shape[1:], layer).output_shape), np.float32)
    plan, values, _ = _plan(layer, x.shape[1:], len(x), False, False)
    with LOCK:  # calls of one shape share a plan
        for name, value in parameters.items():
            target = values.arrays[f"conv1.{name}"]
            if target.shape != value.shape:
                raise ValueError(f"{name} must have shape {target.shape}, got {value.shape}")
            target[...] = value
        plan.prepare()
        plan.forward(x)
        return plan.value().copy()


def _checked(layer: Layer, shape: Shape, dy: np.ndarray, batch: int, input_gradient: bool):
    """The plan for a backward pass, or (None, None, None) for an empty batch. Raises ValueError unless dy fits."""
    network = Network.build(shape, layer)
    if dy.shape != (batch, *network.output_shape):
        raise ValueError(f"dy must have the output's shape {(batch, *network.output_shape)}, got {dy.shape}")
    return _plan(layer, shape, batch, True, input_gradient) if batch else (None, None, None)
