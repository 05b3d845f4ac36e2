"""One step of training: forward, loss, backward, update. After the first call nothing is allocated."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from math import isfinite
from numbers import Real
from typing import TYPE_CHECKING

import numpy as np

from ..engine.library import Call
from ..engine.parameters import ParameterBuffer
from ..engine.plan import Plan
from ..engine.tensor import aligned
from ..geometry import UPDATE
from ..layers.activation import Softmax
from ..layers.dropout import mix
from ..layers.loss import CrossEntropy
from ..muon import Muon
from ..optim import Optimiser

if TYPE_CHECKING:
    from ..model import Model
    from ..network import Network


class Diverged(ValueError):
    """The loss or a gradient is not a finite number. The step that found it changed nothing."""

    def __init__(self, step: int, what: str, lr: float):
        super().__init__(
            f"training diverged at step {step}: the {what} is not a finite number. That step changed no weights, but "
            f"those before it may already be too large: try a lower learning rate than {lr:.3g}, or look for wrong "
            "values in the data"
        )
        self.step = step


class TrainStep:
    """Call it with images and labels: it updates the model's parameters and returns the mean loss before the update.

    Images are (batch_size, *input_shape), uint8 (the model's preprocessing is applied on the way in) or float32 as
    the network reads them; labels are integers (batch_size,). `class_weights` multiply the losses of a class's images,
    `factors` the learning rate of parameters, by name. `seed` decides what dropout drops. The same seed, steps
    and batches give the same parameters to the bit, whatever the number of threads.

    `precision` is "float32", or "int16" where the processor gains by it (`Library.precisions`): 3x3 convolutions then
    multiply integers of 16 bits, rounded (docs/engine.md), which is what `fit` trains with where it can.
    """

    def __init__(self, model: Model, batch_size: int, optimizer: Optimiser, *, label_smoothing: float = 0.0,
                 class_weights: Sequence[float] | None = None, factors: Mapping[str, float] | None = None,
                 seed: int = 0, precision: str = "float32"):
        require_trainable(model.network, batch_size)
        self.model, self.batch_size, self.optimizer, self.seed = model, batch_size, optimizer, seed
        self.steps, self.lr, self.part = 0, optimizer.rate(0), slice(None)  # of a batch, what is computed here: all
        network, self._parameters = model.network, model.buffer
        self._gradient = ParameterBuffer(network.parameters())
        loss = CrossEntropy(label_smoothing, None if class_weights is None else tuple(class_weights))
        self._plan = Plan(network, self._parameters, batch_size, gradient=self._gradient, training=True, loss=loss,
                          precision=precision)
        if model.preprocessing:
            self._plan.scale[:], self._plan.shift[:] = model.preprocessing.scale, model.preprocessing.shift
        size = self._parameters.trainable_size
        self._slots = {name: aligned(size, np.float32) for name in optimizer.slots}
        self._statistics = np.empty_like(self._parameters.flat[size:])  # running means and variances before a step
        self._sums = np.empty(-(-size // UPDATE), np.float32)
        self._sum = self._plan.library.kernel("chunk_sums").bind(g=self._gradient.flat[:size], sums=self._sums)
        factors = self._factors(factors or {})
        self._updates = [self._update_of(part, factor) for part, factor in self._parts(factors)]
        self._muon = self._muon_of(factors)

    def __call__(self, images: np.ndarray, labels: np.ndarray) -> float:
        """Raises Diverged, before anything is updated, when the loss or a gradient is not finite; ValueError for
        arrays that do not fit."""
        images, labels = checked(self.model, self.batch_size, np.asarray(images), np.asarray(labels))
        plan, trainable = self._plan, self._parameters.trainable_size
        self._statistics[:] = self._parameters.flat[trainable:]
        plan.labels[:] = labels
        plan.counter[0] = mix(self.seed, self.steps)
        plan.forward(images)
        loss = float(plan.losses.mean(dtype=np.float64))
        self.lr = self.optimizer.rate(self.steps)
        if isfinite(loss):
            plan.backward()
            plan.library.run([self._sum])
            # Huge but finite numbers may add up to infinity.
            finite = np.isfinite(self._sums).all() or np.isfinite(self._gradient.flat[:trainable]).all()
        if not isfinite(loss) or not finite:
            self._parameters.flat[trainable:] = self._statistics
            raise Diverged(self.steps + 1, "gradient" if isfinite(loss) else "loss", self.lr)
        for factor, rates, _ in self._updates:
            rates[:] = self.optimizer.rates(self.steps, factor)
        plan.library.run([call for _, _, call in self._updates])
        if self._muon:
            self._muon(self.lr)
        self.steps += 1
        self.model.changed()
        return loss

    def _factors(self, factors: Mapping[str, float]) -> dict[str, float]:
        """The factor of every trainable parameter, in the order they have in memory."""
        parameters = self.model.network.parameters()
        names = sorted((n for n, p in parameters.items() if p.trainable), key=self._parameters.offsets.get)
        check_factors(factors, names)
        return {name: float(factors.get(name, 1.0)) for name in names}

    def _parts(self, factors: dict[str, float]) -> list[tuple[slice, float]]:
        """Stretches of the trainable parameters that move number by number and have one factor each."""
        buffer, parts = self._parameters, []
        ends = [*(buffer.offsets[name] for name in list(factors)[1:]), buffer.trainable_size]
        for (name, factor), end in zip(factors.items(), ends, strict=True):
            start = buffer.offsets[name]
            if self.optimizer.orthogonalises(buffer.shapes[name]):
                continue
            if parts and parts[-1][1] == factor and parts[-1][0].stop == start:
                start = parts.pop()[0].start
            parts.append((slice(start, end), factor))
        return parts

    def _muon_of(self, factors: dict[str, float]) -> Muon | None:
        """The update of the parameters that move as matrices."""
        gradients, momenta = self.gradients(), self._by_name("momentum") if "momentum" in self._slots else {}
        matrices = [(self._parameters.arrays[name], gradients[name], momenta[name], factor)
                    for name, factor in factors.items() if self.optimizer.orthogonalises(gradients[name].shape)]
        return Muon(matrices, self.optimizer.momentum, self.optimizer.iterations) if matrices else None

    def _update_of(self, part: slice, factor: float) -> tuple[float, np.ndarray, Call]:
        """The update of a stretch of the parameters: its factor, the buffer for its rates, the call."""
        rates = np.zeros(len(self.optimizer.rates(0)), np.float32)
        kernel, arguments = self.optimizer.call(
            self._parameters.flat[part], self._gradient.flat[part], rates,
            {name: slot[part] for name, slot in self._slots.items()})
        return factor, rates, self._plan.library.kernel(kernel).bind(**arguments)

    def gradients(self) -> dict[str, np.ndarray]:
        """The trainable parameters' gradients of the last step, by name; read them before the next."""
        trainable = {n for n, p in self.model.network.parameters().items() if p.trainable}
        return {name: a for name, a in self._gradient.arrays.items() if name in trainable}

    def memory(self) -> int:
        """Bytes of activations, gradients and optimiser state, parameters not counted."""
        return self._plan.memory + self._gradient.flat.nbytes + sum(s.nbytes for s in self._slots.values())

    def state(self) -> dict[str, np.ndarray]:
        """The optimiser's buffers as "slot.parameter" arrays in PyTorch's layout: with `steps`, all resuming takes.

        They are the buffers themselves, not copies.
        """
        return {f"{slot}.{name}": a for slot in self._slots for name, a in self._by_name(slot).items()}

    def load_state(self, state: Mapping[str, np.ndarray], steps: int) -> None:
        """Take up where a step with that `state()` stood. Raises ValueError for other names or shapes."""
        mine = self.state()
        check_state(state, mine)
        for name, array in mine.items():
            array[...] = state[name]
        self.steps = steps

    def _by_name(self, slot: str) -> dict[str, np.ndarray]:
        flat, buffer = self._slots[slot], self._parameters
        return {name: flat[buffer.offsets[name]:][:p.size].reshape(p.shape)
                for name, p in self.model.network.parameters().items() if p.trainable}


# What every engine's step asks of its arguments.


def require_trainable(network: Network, batch_size: int) -> None:
    """Raise ValueError for a network that cannot be trained, and for a batch size that is no positive integer."""
    if not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size < 1:
        raise ValueError(f"batch_size must be an integer of at least 1, got {batch_size!r}")
    if len(network.output_shape) != 1:
        raise ValueError(f"training needs a network that ends in scores (classes,), got {network.output_shape}; "
                         "end it with Dense(classes)")
    if isinstance(network.node(network.output).layer, Softmax):
        raise ValueError("the loss takes the softmax itself: train the network without its last layer, Softmax()")
    if not network.parameter_count:
        raise ValueError("the network has no parameters to train")


def check_factors(factors: Mapping[str, float], names: Collection[str]) -> None:
    """Raise ValueError unless factors are numbers for some of the names."""
    if unknown := sorted(set(factors) - set(names)):
        raise ValueError(f"factors name what the network does not train: {', '.join(unknown[:5])}")
    if wrong := [f for f in factors.values() if not isinstance(f, Real) or not 0 <= f < float("inf")]:
        raise ValueError(f"a factor must be a finite number, at least 0, got {wrong[0]!r}")


def check_state(state: Mapping[str, np.ndarray], mine: Mapping[str, np.ndarray]) -> None:
    """Raise ValueError unless a state has the names and shapes of another."""
    if set(state) != set(mine):
        raise ValueError(f"the optimiser's state must have {sorted(mine)}, got {sorted(state)}")
    for name, array in mine.items():
        if state[name].shape != array.shape:
            raise ValueError(f"{name} must have shape {array.shape}, got {state[name].shape}")


def checked(model: Model, count: int, images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A batch. Raises ValueError unless it is `count` images that the model reads, and their labels."""
    expected = (count, *model.network.input_shape)
    if images.shape != expected or images.dtype not in (np.uint8, np.float32):
        raise ValueError(f"expected uint8 or float32 images of shape {expected}, "
                         f"got {images.dtype} of {images.shape}")
    if images.dtype == np.uint8 and not model.preprocessing:
        raise ValueError("uint8 images need a model with preprocessing: Model(..., preprocessing=...); "
                         "or give float32 images")
    classes = model.network.output_shape[0]
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        raise ValueError(f"expected {count} integer labels, got {labels.dtype} of shape {labels.shape}")
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"labels must be from 0 to {classes - 1}, got {labels.min()} to {labels.max()}")
    return images, labels
