"""One network, computed three ways: by the layers' definitions, by the compiled kernels, and by PyTorch.

Each way gives `Results`: the values of all nodes asked for, the gradients to the images and to every parameter, and
what the running statistics became. Gradients are those of sum(y * dy) for the output y and a cotangent dy.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from zlib import crc32

import numpy as np
import torch
import torch.nn.functional as F

from pellucid.engine.parameters import ParameterBuffer
from pellucid.engine.plan import Plan
from pellucid.geometry import windows
from pellucid.layers.dropout import keep, mix
from pellucid.network import INPUT, Network, Node

STEP = 1234567  # a step's seed, for dropout


@dataclass
class Results:
    values: dict[str, np.ndarray]
    dx: np.ndarray
    gradients: dict[str, np.ndarray]
    statistics: dict[str, np.ndarray]


def nodes(shape, *described, output="") -> Network:
    """A network from (name, layer, names of the inputs...)."""
    return Network(shape, tuple(Node(name, layer, inputs) for name, layer, *inputs in described), output)


def integers(rng, *shape):
    """Small integers: sums of their products are exact in float32, in any order."""
    return rng.integers(-3, 4, shape).astype(np.float32)


def normals(rng, *shape):
    return rng.standard_normal(shape, np.float32)


def parameters(network: Network, rng, data=normals) -> dict[str, np.ndarray]:
    """A value for every parameter; running variances are positive."""
    drawn = {}
    for name, p in network.parameters().items():
        value = data(rng, *p.shape)
        drawn[name] = np.abs(value) + np.float32(0.5) if name.endswith("running_var") else value
    return drawn


def trainable(network: Network) -> list[str]:
    return [name for name, p in network.parameters().items() if p.trainable]


# By the layers' definitions, in float64.


def by_definition(network: Network, parameters, x, dy, *, training=False, step=STEP) -> Results:
    parameters = {name: np.asarray(p, np.float64) for name, p in parameters.items()}
    values, backwards = {INPUT: np.asarray(x, np.float64)}, []
    for node in network.nodes:
        own = {name.removeprefix(node.name + "."): p for name, p in parameters.items()
               if name.rpartition(".")[0] == node.name}
        seed = mix(step, crc32(node.name.encode()))
        y, backward = node.layer.define(own, *(values[i] for i in node.inputs), training=training, seed=seed)
        values[node.name] = y
        parameters.update({f"{node.name}.{name}": p for name, p in own.items()})
        backwards.append((node, backward))
    received = defaultdict(lambda: 0.0, {network.output: np.asarray(dy, np.float64)})
    gradients = {}
    for node, backward in reversed(backwards):
        dxs, own = backward(received[node.name])
        for name, dx in zip(node.inputs, dxs, strict=True):
            received[name] = received[name] + dx
        gradients.update({f"{node.name}.{name}": g for name, g in own.items()})
    statistics = {n: p for n, p in parameters.items() if n not in trainable(network)}
    return Results(values, received[INPUT], gradients, statistics)


# By the engine, in float32.


def by_engine(network: Network, parameters, x, dy, *, training=False, step=STEP, taps=(), kernels=None,
              precision="float32") -> Results:
    """The plan has run before, on NaN: nothing of that may be left. Spare lanes of gradients must be exact zeros."""
    buffer, gradient = (ParameterBuffer(network.parameters()) for _ in range(2))
    plan = Plan(network, buffer, len(x), gradient=gradient, training=training, taps=taps, input_gradient=True,
                kernels=kernels, precision=precision)
    plan.counter[0] = step
    for image, cotangent in ((np.full_like(x, np.nan), np.full_like(dy, np.nan)), (x, dy)):
        for name, value in parameters.items():
            buffer.arrays[name][...] = value
        gradient.flat[:] = 0
        for name in trainable(network):
            gradient.arrays[name][...] = np.nan  # every number must be written
        plan.prepare()
        plan.forward(image)
        plan.backward(cotangent)
    values = {name: plan.value(name).copy() for name in {*taps, network.output}}
    result = {name: gradient.arrays[name].copy() for name in trainable(network)}
    for array in gradient.arrays.values():
        array[...] = 0
    np.testing.assert_array_equal(gradient.flat, 0, "the gradient's padding")
    statistics = {n: a.copy() for n, a in buffer.arrays.items() if n not in result}
    for name in result:
        np.testing.assert_array_equal(buffer.arrays[name], parameters[name], "parameters are only read")
    return Results(values, plan.input_gradient.copy(), result, statistics)


# By PyTorch, in float64.


def channels_first(x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(np.asarray(x, np.float64), -1, 1)))


def channels_last(t: torch.Tensor) -> np.ndarray:
    return np.moveaxis(t.detach().numpy(), 1, -1)


def _padded(layer, x, fill=0.0):
    """x with the layer's padding on each side, and the windows."""
    stride = layer.size if layer.stride is None else layer.stride
    axes = windows(x.shape[2:], layer.size, stride, layer.padding, getattr(layer, "dilation", 1))
    return F.pad(x, [side for w in reversed(axes) for side in (w.before, w.after)], value=fill), axes


def _conv(layer, p, x, **_):
    x, axes = _padded(layer, x)
    convolve = (F.conv1d, F.conv2d)[len(axes) - 1]
    return convolve(x, p["weight"], p.get("bias"), stride=tuple(w.stride for w in axes),
                    dilation=tuple(w.dilation for w in axes), groups=layer.groups)


def _max_pool(layer, p, x, **_):
    x, axes = _padded(layer, x, -torch.inf)
    pool = (F.max_pool1d, F.max_pool2d)[len(axes) - 1]
    return pool(x, *(tuple(getattr(w, name) for w in axes) for name in ("size", "stride")),
                dilation=tuple(w.dilation for w in axes))


def _avg_pool(layer, p, x, **_):
    """By convolutions with ones: of the values, and of what is counted."""
    padded, axes = _padded(layer, x)
    counted = torch.ones_like(padded) if layer.count_include_pad else _padded(layer, torch.ones_like(x))[0]
    convolve, channels = (F.conv1d, F.conv2d)[len(axes) - 1], x.shape[1]
    ones = torch.ones((channels, 1, *(w.size for w in axes)), dtype=x.dtype)
    options = {"stride": tuple(w.stride for w in axes), "dilation": tuple(w.dilation for w in axes),
               "groups": channels}
    return convolve(padded, ones, **options) / convolve(counted, ones, **options)


def _shuffle(layer, p, x, **_):
    return F.channel_shuffle(x if x.ndim > 2 else x[..., None], layer.groups).reshape(x.shape)


def _pad(layer, p, x, **_):
    sides = layer.sides((*x.shape[2:], x.shape[1]))
    return F.pad(x, [side for pair in reversed(sides) for side in pair])


def _affine(layer, p, x, **_):
    per_channel = (1, -1, *(1,) * (x.ndim - 2))
    return x * p["weight"].reshape(per_channel) + p["bias"].reshape(per_channel)


def _batch_norm(layer, p, x, *, training, **_):
    return F.batch_norm(x, p["running_mean"], p["running_var"], p["weight"], p["bias"], training, layer.momentum,
                        layer.eps)


def _dropout(layer, p, x, *, training, seed):
    if not training:
        return x
    mask = keep(seed, channels_last(x).shape, layer.rate)
    return x * channels_first(mask) / (1 - layer.rate)


def _pad_channels(layer, p, x, **_):
    return F.pad(x, [0, 0] * (x.ndim - 2) + [0, layer.channels - x.shape[1]])


def _adaptive(layer, p, x, **_):
    return (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d)[x.ndim - 3](x, layer.size)


TORCH = {
    "AdaptiveAvgPool": _adaptive,
    "Add": lambda layer, p, *xs, **_: sum(xs[1:], xs[0]),
    "Affine": _affine,
    "AvgPool": _avg_pool,
    "BatchNorm": _batch_norm,
    "ChannelShuffle": _shuffle,
    "Clip": lambda layer, p, x, **_: torch.clamp(x, layer.low, layer.high),
    "Concat": lambda layer, p, *xs, **_: torch.cat(xs, 1),
    "Conv": _conv,
    "Dense": lambda layer, p, x, **_: F.linear(x, p["weight"], p.get("bias")),
    "Dropout": _dropout,
    "Flatten": lambda layer, p, x, **_: x.flatten(1),
    "GELU": lambda layer, p, x, **_: F.gelu(x),
    "GlobalAvgPool": lambda layer, p, x, **_: x.flatten(2).mean(2),
    "GlobalMaxPool": lambda layer, p, x, **_: F.adaptive_max_pool2d(x[..., None] if x.ndim == 3 else x, 1).flatten(1),
    "LRN": lambda layer, p, x, **_: F.local_response_norm(x if x.ndim > 2 else x[..., None], layer.size, layer.alpha,
                                                          layer.beta, layer.k).reshape(x.shape),
    "LeakyReLU": lambda layer, p, x, **_: F.leaky_relu(x, layer.slope),
    "MaxPool": _max_pool,
    "Pad": _pad,
    "PadChannels": _pad_channels,
    "ReLU": lambda layer, p, x, **_: F.relu(x),
    "ScaledTanh": lambda layer, p, x, **_: layer.amplitude * torch.tanh(layer.slope * x),
    "SiLU": lambda layer, p, x, **_: F.silu(x),
    "Sigmoid": lambda layer, p, x, **_: torch.sigmoid(x),
    "Softmax": lambda layer, p, x, **_: torch.softmax(x, 1),
    "TakeChannels": lambda layer, p, x, **_: x[:, list(layer.order)],
    "Tanh": lambda layer, p, x, **_: torch.tanh(x),
}


def by_torch(network: Network, parameters, x, dy, *, training=False, step=STEP) -> Results:
    learned = trainable(network)
    tensors = {n: torch.tensor(np.asarray(p, np.float64)).requires_grad_(n in learned) for n, p in parameters.items()}
    values = {INPUT: channels_first(x).requires_grad_()}
    for node in network.nodes:
        own = {n.removeprefix(node.name + "."): t for n, t in tensors.items() if n.rpartition(".")[0] == node.name}
        seed = mix(step, crc32(node.name.encode()))
        function = TORCH[type(node.layer).__name__]
        values[node.name] = function(node.layer, own, *(values[i] for i in node.inputs), training=training, seed=seed)
    grads = torch.autograd.grad(values[network.output], [values[INPUT], *(tensors[n] for n in learned)],
                                channels_first(dy))
    gradients = {name: g.numpy() for name, g in zip(learned, grads[1:], strict=True)}
    statistics = {n: t.numpy() for n, t in tensors.items() if n not in learned}
    return Results({n: channels_last(v) for n, v in values.items()}, channels_last(grads[0]), gradients, statistics)


# Agreement.


def exactly(what, got, expected):
    np.testing.assert_array_equal(got, expected, what)
    assert np.shape(got) == np.shape(expected), what


def within(tolerance: float):
    """Errors up to `tolerance` of the largest expected value, or of 1 if that is more."""

    def close(what, got, expected):
        assert np.shape(got) == np.shape(expected), what
        scale = max(1.0, float(np.abs(expected).max(initial=0)))
        np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance * scale, err_msg=what)

    return close


def compare(got: Results, expected: Results, same) -> None:
    """`same(what, got, expected)` for all that both have; parameters and statistics must be the same set."""
    for name in got.values.keys() & expected.values.keys():
        same(f"value of {name}", got.values[name], expected.values[name])
    same("gradient to the input", got.dx, expected.dx)
    for part in ("gradients", "statistics"):
        mine, others = getattr(got, part), getattr(expected, part)
        assert mine.keys() == others.keys()
        for name in mine:
            same(f"{part} of {name}", mine[name], others[name])


def agree(network: Network, n: int, seed: int, *, exact: bool, training=False, tolerance=2e-5, taps=(),
          kernels=None, precision="float32") -> Results:
    """Check that the three ways agree for `n` images: exactly on integers, or within `tolerance` on normal data.

    Returns the engine's results.
    """
    rng, data = np.random.default_rng(seed), integers if exact else normals
    drawn = parameters(network, rng, data)
    x, dy = data(rng, n, *network.input_shape), data(rng, n, *network.output_shape)
    expected = by_definition(network, drawn, x, dy, training=training)
    compare(by_torch(network, drawn, x, dy, training=training), expected, exactly if exact else within(1e-10))
    got = by_engine(network, drawn, x, dy, training=training, taps=taps, kernels=kernels, precision=precision)
    compare(got, expected, exactly if exact else within(tolerance))
    return got
