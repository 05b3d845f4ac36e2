"""A network, a batch size and a mode become one arena and a flat list of kernel calls.

No graph is walked and nothing is allocated when a plan runs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable

import numpy as np

from ..geometry import BLOCK
from ..layers.base import Epilogue
from ..network import INPUT, Network, Node
from .builder import Builder
from .library import Call, Library, library
from .memory import Prepared
from .parameters import ParameterBuffer
from .tensor import Tensor, aligned

LONGEST = 5  # chain of layers in one pass: convolution, batch normalisation, sum, ReLU, pooling


class Plan:
    """The calls that compute a network's output, and its gradients, for batches of one size.

    `gradient` is where the parameters' gradients go; without it there is no backward pass. The backward pass begins
    from the loss, if one is given (then `labels` are read and `losses` written), else from `cotangent`.
    `taps` names nodes, or "input", whose values `value` can read, and `gradient_taps` those whose gradients `gradient`
    can; `input_gradient` asks for the gradient to the images.
    `precision` "int16" multiplies integers of 16 bits in 3x3 convolutions, with a backward pass.
    `prepared` is that of another plan of this network, parameters and mode: what one has prepared serves both.
    Raises ValueError for an unknown tap, one whose gradient cannot be told from another's, a loss that does not fit the
    output, or a precision that the kernels do not have; KernelError without usable kernels.
    """

    def __init__(self, network: Network, parameters: ParameterBuffer, batch: int, *,
                 gradient: ParameterBuffer | None = None, training: bool = False, loss=None,
                 taps: Collection[str] = (), gradient_taps: Collection[str] = (), input_gradient: bool = False,
                 kernels: Library | None = None, prepared: Prepared | None = None, precision: str = "float32"):
        self.network, self.batch, self.library = network, batch, kernels or library()
        b = self._builder = Builder(self.library, batch, parameters, gradient, training, precision)
        self._gradient_taps = {network.node(name).name for name in gradient_taps}
        self._taps = {name if name == INPUT else network.node(name).name for name in taps} | {network.output}
        self._taps |= self._gradient_taps  # what is fused with others has no gradient of its own
        self.image = aligned(batch * int(np.prod(network.input_shape)), np.float32).reshape(batch, *network.input_shape)
        self.bytes_image = np.zeros(self.image.shape, np.uint8)
        self.scale, self.shift = _unscaled(network.input_shape[-1])
        self.labels, self.counter = b.labels, b.counter
        self._stores: dict[str, tuple] = {}
        self._gradients: dict[str, Tensor] = {}
        self.losses = self.cotangent = self.input_gradient = None
        self._forward_end = None

        values = self._lower_forward(b, input_gradient)
        for name in self._taps:
            values[name].storage.pinned = True
        self._forward_end = len(b.notes)
        if gradient is not None:
            self._lower_backward(b, values, loss)
        self._bind(b, values, prepared)

    # Making the plan.

    def _lower_forward(self, b: Builder, input_gradient: bool) -> dict[str, Tensor]:
        readers: dict[str, list[Node]] = defaultdict(list)
        for node in self.network.nodes:
            for name in node.inputs:
                readers[name].append(node)
        shape = self.network.input_shape
        as_it_comes = len(shape) > 1 and INPUT not in self._taps and all(
            n.layer.reads_image(shape) for n in readers[INPUT])
        x = b.tensor(shape, inner=shape[-1] if as_it_comes else BLOCK)
        x.needs_gradient = input_gradient and b.gradients
        x.storage.pinned = True  # written before the first call
        values, self._backward, self._fused = {INPUT: x}, [], set()
        for node in self.network.nodes:
            if node.name in self._fused:
                continue
            inputs = [values[i] for i in node.inputs]
            b.node = node.name
            chain = self._chain(node, readers, values)
            chain = chain[:1 + node.layer.fuses(b, [n.layer for n in chain[1:]], *inputs)]
            last = chain[-1]
            after = _epilogue(chain, values)
            b.readers = [n.layer for n in readers[last.name]] if last.name not in self._taps else []
            y, backward = node.layer.lower(b, *inputs, **({"after": after} if len(chain) > 1 else {}))
            trainable = any(p.trainable for p in node.layer.parameters(*(t.logical for t in inputs)).values())
            if after.residual:
                inputs = [*inputs, after.residual]
            if y in inputs:  # handed on: what reads it now is what counts
                y.rectified = y.rectified and len(b.readers) == 1
                others = any(len(readers[name]) > 1 for name, value in values.items() if value is y)
                if last.name in self._gradient_taps and others:
                    raise ValueError(f"{last.name} hands on {node.inputs[0]!r}, which others read too: only the "
                                     "gradient to that can be told")
                y.needs_gradient = y.needs_gradient or b.gradients and last.name in self._gradient_taps
            else:
                y.needs_gradient = b.gradients and (last.name in self._gradient_taps or trainable
                                                    or any(t.needs_gradient for t in inputs))
            values[last.name] = y
            self._fused.update(n.name for n in chain[1:])
            if y.needs_gradient:
                self._backward.append((node.name, inputs, y, backward))
        return values

    def _chain(self, node: Node, readers: dict[str, list[Node]], values: dict[str, Tensor]) -> list[Node]:
        """The node and those after it that it could compute in the same pass: each the only reader of the one before,
        which nobody taps, and the other part of a sum there already."""
        chain = [node]
        while len(chain) < LONGEST and chain[-1].name not in self._taps and len(readers[chain[-1].name]) == 1:
            (follower,) = readers[chain[-1].name]
            others = [name for name in follower.inputs if name != chain[-1].name]
            if len(others) > 1 or any(name not in values for name in others):
                break
            chain.append(follower)
        return chain

    def _lower_backward(self, b: Builder, values: dict[str, Tensor], loss) -> None:
        received = b.arrived
        names: dict[int, set[str]] = defaultdict(set)
        for name, y in values.items():
            names[id(y)].add(name)
        output = values[self.network.output]
        if loss:
            self.losses, dy = loss.lower(b, output)
            self._forward_end = len(b.notes)
        else:
            dy = b.like(output)
            dy.storage.pinned = True
            self.cotangent = np.zeros((self.batch, *self.network.output_shape), np.float32)
            self._load(b, self.cotangent, "input_f32", dy, *_unscaled(self.network.output_shape[-1]))
        received[id(output)].append(dy)
        for name, inputs, y, backward in reversed(self._backward):
            b.node = name
            parts = received.pop(id(y), [])
            if not parts:
                continue
            dy = _summed(b, parts)
            for tap in self._gradient_taps & names[id(y)]:
                self._gradients[tap] = dy
                dy.storage.pinned = True
            for x, dx in zip(inputs, backward(dy), strict=True):
                if dx is not None:
                    received[id(x)].append(dx)
        if values[INPUT].needs_gradient and (parts := received[id(values[INPUT])]):
            dx = _summed(b, parts)
            dx.storage.pinned = True
            self.input_gradient = np.zeros(self.image.shape, np.float32)
            b.call("store_f32", x=dx, out=_as_image(self.input_gradient))

    def _load(self, b: Builder, source: np.ndarray, kernel: str, target: Tensor, scale, shift) -> None:
        b.call(kernel, image=_as_image(source), scale=scale, shift=shift, inner=target.inner, y=target)

    def _bind(self, b: Builder, values: dict[str, Tensor], prepared: Prepared | None) -> None:
        """The network's own calls, then, bound apart, loading either kind of image and storing what is tapped."""
        end = len(b.notes)
        x = values[INPUT]
        self._load(b, self.image, "input_f32", x, *_unscaled(x.shape[2]))
        self._load(b, self.bytes_image, "input_u8", x, self.scale, self.shift)
        for name in sorted(self._taps):
            out = np.zeros((self.batch, *self.network.shapes[name]), np.float32)
            self._stores[name] = (len(b.notes), out)
            b.call("store_f32", x=values[name], out=_as_image(out))
        for name, dy in sorted(self._gradients.items()):
            out = np.zeros((self.batch, *self.network.shapes[name]), np.float32)
            self._stores[f"gradient of {name}"] = (len(b.notes), out)
            b.call("store_f32", x=dy, out=_as_image(out))
        self._prepared, calls, self._arena = b.bind(prepared)
        self.prepared = b.memory
        self._calls, self._load_f32, self._load_u8 = calls[:end], calls[end], calls[end + 1]
        self._stores = {name: (calls[i], out) for name, (i, out) in self._stores.items()}
        self._forward = self._calls[:self._forward_end]
        self._rest = self._calls[len(self._forward):]
        self._keep = b

    # Running it.

    @property
    def memory(self) -> int:
        """Bytes of the arena and of what is prepared."""
        return self._arena.nbytes + self.prepared.array.nbytes

    def prepare(self) -> None:
        """Do what depends on the parameters alone. To be called after they change, unless training."""
        self.library.run(self._prepared)

    def forward(self, images: np.ndarray) -> None:
        """Compute every value for `images`, as `load` takes them."""
        self.library.run([self._taken(images), *self._forward])

    def load(self, images: np.ndarray) -> None:
        """Take in a batch: (N, ...) float32 as the network reads them, or uint8 to be multiplied by `scale` and moved
        by `shift`. Raises ValueError for another shape."""
        self.library.run([self._taken(images)])

    def outputs(self, images: np.ndarray) -> np.ndarray:
        """What `forward` and then `value` give, for less: a small network on one image takes but some microseconds."""
        store, out = self._stores[self.network.output]
        self.library.run([self._taken(images), *self._forward, store])
        return out

    def _taken(self, images: np.ndarray) -> Call:
        """The call that takes in these images, which are copied to where it reads them."""
        target, load = (self.bytes_image, self._load_u8) if images.dtype == np.uint8 else (self.image, self._load_f32)
        if images.shape != target.shape:
            raise ValueError(f"this plan computes images of shape {target.shape}, got {images.shape}")
        target[...] = images
        return load

    def backward(self, cotangent: np.ndarray | None = None) -> None:
        """Compute the gradients, after `forward`; `cotangent` is that of the output where there is no loss."""
        if cotangent is not None:
            self.cotangent[:] = cotangent
        self.library.run(self._rest)

    def value(self, name: str | None = None) -> np.ndarray:
        """The value of a tapped node, by default the output: (N, ...) float32, overwritten by the next call."""
        return self._stored(name or self.network.output)

    def gradient(self, name: str) -> np.ndarray:
        """The gradient to a node's value, after `backward`: (N, ...) float32, overwritten by the next call. Zeros where
        the output does not depend on it."""
        if name in self._gradient_taps and name not in self._gradients:
            return np.zeros((self.batch, *self.network.shapes[name]), np.float32)
        return self._stored(f"gradient of {name}")

    def _stored(self, key: str) -> np.ndarray:
        call, out = self._stores[key]
        self.library.run([call])
        return out


def _epilogue(chain: list[Node], values: dict[str, Tensor]) -> Epilogue:
    """What follows the first node of a chain."""
    parts = {}
    for before, node in zip(chain, chain[1:], strict=False):
        kind = type(node.layer).__name__
        if kind == "BatchNorm":
            parts["norm"] = node.name, node.layer
        elif kind == "Add":
            parts["residual"] = values[next(name for name in node.inputs if name != before.name)]
        else:
            parts[{"ReLU": "relu", "MaxPool": "pool"}[kind]] = True
    return Epilogue(**parts)


def _summed(b: Builder, parts: Iterable[Tensor]) -> Tensor:
    """The sum of gradients from several readers."""
    total, *rest = parts
    for part in rest:
        y = b.like(total)
        b.call("add", a=total, b=part, y=y)
        total = y
    return total


def _unscaled(channels: int) -> tuple[np.ndarray, np.ndarray]:
    """The scale and shift that leave every channel as it is."""
    return np.ones(channels, np.float32), np.zeros(channels, np.float32)


def _as_image(array: np.ndarray) -> np.ndarray:
    """(N, H, W, C) for images, signals and features alike."""
    n, *shape = array.shape
    return array.reshape(n, *(1,) * (3 - len(shape)), *shape)
