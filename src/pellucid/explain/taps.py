"""Any value of a network, and the gradient to it: what all explanations are made of.

A tap is a node's name, or "input" for what the network reads, preprocessing included. Values are those of inference, by
the compiled kernels.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from weakref import WeakKeyDictionary

import numpy as np

from ..engine.library import LOCK
from ..engine.parameters import ParameterBuffer
from ..engine.plan import Plan
from ..layers import AdaptiveAvgPool, Conv, Dropout
from ..model import MEMORY, Model
from ..network import INPUT, Network, Node

CHUNKS = (64, 16, 4, 1)  # images computed at a time
KEPT = 16  # plans of a model that are kept for the next question, as long as they take less than KEPT_MEMORY bytes
KEPT_MEMORY = MEMORY / 4

_plans: WeakKeyDictionary[Model, dict[tuple, Tapped]] = WeakKeyDictionary()


class Tapped:
    """A plan for some taps and a batch, and the version of the model's parameters that it is prepared for."""

    def __init__(self, model: Model, batch: int, names: frozenset[str], backward: bool):
        network = _frozen(model.network) if names else model.network
        self.gradient = ParameterBuffer(network.parameters()) if backward else None
        nodes = names - {INPUT}
        self.plan = Plan(
            network, model.buffer, batch, gradient=self.gradient, taps=() if backward else names,
            gradient_taps=nodes if backward else (), input_gradient=backward and INPUT in names)
        if model.preprocessing:
            self.plan.scale[:], self.plan.shift[:] = model.preprocessing.scale, model.preprocessing.shift
        self.stored = batch * sum(network.activation_bytes[name] for name in nodes)  # bytes of the arrays handed out
        self.version: int | None = None

    @property
    def memory(self) -> int:
        """Bytes held."""
        return self.plan.memory + self.stored + (self.gradient.flat.nbytes if self.gradient else 0)

    def prepare(self, version: int) -> None:
        if self.version != version:
            self.plan.prepare()
            self.version = version


def values(model: Model, images: np.ndarray, names: Collection[str]) -> dict[str, np.ndarray]:
    """The values at some taps for images (N, H, W, C), uint8 or float32 as the network reads them: {name: (N, ...)}.

    Raises ValueError for images that do not fit and for a name that no node has, KernelError without usable kernels.
    """
    images, names = as_read(model, images), known(model, names)
    shapes = {**model.network.shapes, INPUT: model.network.input_shape}
    found = {name: np.empty((len(images), *shapes[name]), np.float32) for name in names}
    with LOCK:
        for part, tapped in _chunks(model, len(images), names, backward=False):
            tapped.plan.forward(images[part])
            for name in names:
                found[name][part] = tapped.plan.value(name)
    return found


def gradients(model: Model, images: np.ndarray, cotangent: np.ndarray, names: Collection[str]) -> dict[str, np.ndarray]:
    """The gradients of sum(cotangent * output), an image at a time, to the values at some taps: {name: (N, ...)}.

    `images` are what `values` takes; `cotangent` is (N, *output) or, the same for all, (*output,). Raises what `values`
    does.
    """
    images, names = as_read(model, images), known(model, names)
    shapes = {**model.network.shapes, INPUT: model.network.input_shape}
    cotangents = _for_each(model, cotangent, len(images))
    found = {name: np.empty((len(images), *shapes[name]), np.float32) for name in names}
    with LOCK:
        for part, tapped in _chunks(model, len(images), names, backward=True):
            tapped.plan.forward(images[part])
            tapped.plan.backward(cotangents[part])
            for name in names:
                found[name][part] = tapped.plan.input_gradient if name == INPUT else tapped.plan.gradient(name)
    return found


def parameter_gradients(model: Model, images: np.ndarray, cotangent: np.ndarray) -> dict[str, np.ndarray]:
    """The gradients of sum(cotangent * output) over all images to every trainable parameter, by name, in its shape.

    Takes and raises what `gradients` does.
    """
    images = as_read(model, images)
    cotangents = _for_each(model, cotangent, len(images))
    trainable = [name for name, p in model.network.parameters().items() if p.trainable]
    total = {name: np.zeros(model.buffer.shapes[name], np.float32) for name in trainable}
    with LOCK:
        for part, tapped in _chunks(model, len(images), frozenset(), backward=True):
            tapped.plan.forward(images[part])
            tapped.plan.backward(cotangents[part])
            for name in trainable:
                total[name] += tapped.gradient.arrays[name]
    return total


def as_read(model: Model, images: np.ndarray) -> np.ndarray:
    """Images (N, H, W, C) as a plan takes them; uint8 grey ones may come as (N, H, W). Raises ValueError for others."""
    images, shape = np.asarray(images), model.network.input_shape
    if images.dtype == np.uint8:
        model.require_preprocessing()
        if shape[-1] == 1 and images.shape[1:] == shape[:-1]:
            images = images[..., None]
    elif images.dtype != np.float32:
        raise ValueError(f"expected uint8 or float32 images, got {images.dtype}")
    if images.shape[1:] != shape:
        raise ValueError(f"expected images of shape (N, {', '.join(map(str, shape))}), got {images.shape}")
    return images


def hands_on(network: Network, node: Node) -> bool:
    """Whether a node's value at inference is the one it reads, so that nothing is computed for it."""
    same = network.shapes[node.name] == network.shapes[node.inputs[0]]
    return isinstance(node.layer, Dropout) or isinstance(node.layer, AdaptiveAvgPool) and same


def known(model: Model, names: Collection[str]) -> frozenset[str]:
    """The names as a set. Raises ValueError for one that the network does not have."""
    return frozenset(name if name == INPUT else model.network.node(name).name for name in names)


def _for_each(model: Model, cotangent: np.ndarray, count: int) -> np.ndarray:
    """The cotangent of each of `count` images."""
    output = model.network.output_shape
    if np.shape(cotangent) not in (output, (count, *output)):
        raise ValueError(f"the cotangent must have shape {(count, *output)} or {output}, got {np.shape(cotangent)}")
    return np.broadcast_to(np.asarray(cotangent, np.float32), (count, *output))


def _chunks(model: Model, count: int, names: frozenset[str], backward: bool) -> Iterator[tuple[slice, Tapped]]:
    """Parts of `count` images and a prepared plan for each."""
    each = sum(model.network.activation_bytes.values()) * (3 if backward else 1)
    done = 0
    while done < count:
        size = next(c for c in CHUNKS if c == 1 or c <= count - done and c * each <= MEMORY)
        tapped = _tapped(model, size, names, backward)
        tapped.prepare(model.version)
        yield slice(done, done + size), tapped
        done += size


def _frozen(network: Network) -> Network:
    """The same network with filters that are not trained: their gradients, which nobody asks for, are not computed."""
    return replace(network, nodes=tuple(
        replace(node, layer=replace(node.layer, trainable=False)) if isinstance(node.layer, Conv) else node
        for node in network.nodes))


def _tapped(model: Model, batch: int, names: frozenset[str], backward: bool) -> Tapped:
    mine, key = _plans.setdefault(model, {}), (batch, names, backward)
    if key not in mine:
        while mine and (len(mine) >= KEPT or sum(t.memory for t in mine.values()) > KEPT_MEMORY):
            del mine[next(iter(mine))]
        mine[key] = Tapped(model, batch, names, backward)
    else:
        mine[key] = mine.pop(key)  # used last
    return mine[key]
