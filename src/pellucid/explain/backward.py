"""The backward pass of one image: the gradient at any value and of any shared weight, each open to what it sums.

The loss is the cross entropy for a label, or a class's logit, at inference: dropout drops nothing, and batch
normalisation uses its running statistics.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from .. import reference
from ..model import Model
from ..network import INPUT, Network, Node
from . import taps
from .fields import axis_names
from .listing import checked_index
from .question import chosen, without_softmax
from .residual import Residual, residual
from .shares import Received, Sent, Shared
from .trace import Parts, parsed

if TYPE_CHECKING:
    from .trace import Trace


class Backward:
    """The gradients of one number, `loss`, for a traced image.

    `backward["conv1"]` is the gradient at a layer's value and `backward.parameter("conv1.weight")` that of a parameter;
    both open at an index. Where a network ends in a softmax, gradients begin at what it reads: it belongs to the loss.
    """

    def __init__(self, trace: Trace, target: int | str | None, label: int | str | None):
        if target is not None and label is not None:
            raise ValueError("gradients are of a logit or of the loss for a label; give a target or a label, not both")
        trace.model.require_classes()
        trace.unchanged()
        self.trace, self.bare = trace, without_softmax(trace.model)
        logits = trace.value(trace.logits)[None].astype(np.float64)
        if not np.isfinite(logits).all():
            raise ValueError(f"not all scores for this image ({trace.logits}) are finite numbers, so there are no "
                             "gradients; the trace shows where that begins")
        self.label = None if label is None else chosen(trace.model, trace.image, label)
        self.target = chosen(trace.model, trace.image, target) if label is None else None
        if self.label is None:
            self.loss, cotangent = float(logits[0, self.target]), np.eye(logits.shape[1])[self.target]
        else:
            self.loss = reference.cross_entropy(logits, [self.label])
            cotangent = reference.cross_entropy_grad(logits, [self.label])[0]
        self.cotangent = cotangent.astype(np.float32)
        self._parts = Parts()

    @property
    def of(self) -> str:
        """What the gradients are of, in words."""
        name = self.trace.model.classes[self.target if self.label is None else self.label]
        return f"the logit of {name!r}" if self.label is None else f"the cross entropy for the label {name!r}"

    def __getitem__(self, name: str) -> Gradient:
        """The gradient at a layer's value, or at the "input". Raises ValueError for another name."""
        if name != INPUT and self.trace.model.network.node(name).name not in self.bare.network.shapes:
            raise ValueError(f"{name!r} is the softmax that belongs to the loss; gradients begin at "
                             f"{self.trace.logits!r}, which it reads")
        return Gradient(self, name)

    def parameter(self, name: str) -> ParameterGradient:
        """The gradient to a trainable parameter, by its full name. Raises ValueError for another name."""
        if name not in self._parameters:
            known = [*self._parameters]
            raise ValueError(f"no trainable parameter is called {name!r}; there are {', '.join(known[:8])}"
                             + f" and {len(known) - 8:,} more" * (len(known) > 8))
        return ParameterGradient(self, name)

    def at(self, text: str) -> Gradient | ParameterGradient | Received | Shared:
        """What an address means: `conv1[3,4,0]` the gradient at a number, `conv1.weight[0,0,1,1]` to a weight."""
        name, index = parsed(text)
        found = self.parameter(name) if name in self._parameters else self[name]
        return found if index is None else found[index]

    def residual(self, name: str) -> Residual:
        """What came through the identity and through the branch of a residual sum, where they fork.

        `name` is the Add's. Raises ValueError for another layer.
        """
        return residual(self, self[name].name)

    # For those that open gradients.

    def value(self, name: str) -> np.ndarray:
        """The gradient at a value."""
        if name in self._handed_on:
            parts = [self.through(node, of) for node, of in self.readers(name)]
            return np.sum(parts, axis=0, dtype=np.float64).astype(np.float32)
        part = self.trace.part_of(name)

        def compute() -> dict[str, np.ndarray]:
            self.trace.unchanged()
            names = {node.name for node in self.trace.parts[part]} | ({INPUT} if part == 0 else set())
            names = (names & {INPUT, *self.bare.network.shapes}) - self._handed_on
            return taps.gradients(self.bare, self.trace.image[None], self.cotangent, names)

        return self._parts.get(part, compute)[name]

    def readers(self, name: str) -> list[tuple[Node, int]]:
        """Who reads a value on the way to the loss."""
        return [(node, of) for node, of in self.trace.readers[name] if node.name in self.bare.network.shapes]

    def through(self, node: Node, of: int) -> np.ndarray:
        """The part of the gradient at a node's input that comes through this node, in the input's shape."""
        inputs, parameters, dy = self.trace.inputs(node), self.trace.parameters(node), self.value(node.name)
        if len(inputs) > 1:  # a merge, which takes no time
            _, backward = node.layer.define(parameters, *(x[None] for x in inputs))
            return backward(dy[None])[0][of][0].astype(np.float32)
        alone = Model(Network(inputs[0].shape, (Node(node.name, node.layer),)), None)
        alone.load_parameters({f"{node.name}.{name}": value for name, value in parameters.items()})
        return taps.gradients(alone, inputs[0][None], dy, [INPUT])[INPUT][0]

    @cached_property
    def parameter_gradients(self) -> dict[str, np.ndarray]:
        """The engine's gradients to all trainable parameters."""
        self.trace.unchanged()
        return taps.parameter_gradients(self.bare, self.trace.image[None], self.cotangent)

    @cached_property
    def _parameters(self) -> dict[str, tuple[Node, str]]:
        """Trainable parameters by full name: their node and their name there."""
        network = self.bare.network
        return {f"{node.name}.{name}": (node, name) for node in network.nodes
                for name, p in node.layer.parameters(*network.input_shapes(node)).items() if p.trainable}

    @cached_property
    def _handed_on(self) -> frozenset[str]:
        """Values that are their input itself, which others read too: the engine knows their readers' gradients only."""
        found = set()
        for node in self.bare.network.nodes:
            if taps.hands_on(self.bare.network, node):
                (source,) = node.inputs
                if source in found or len(self.readers(source)) > 1:
                    found.add(node.name)
        return frozenset(found)

    def __repr__(self) -> str:
        return f"<Backward of {self.of}, {self.loss:.6g}>"


class Gradient:
    """The gradient at a layer's value: `value` is the array, and an index opens one number of it."""

    def __init__(self, backward: Backward, name: str):
        self.backward, self.name = backward, name

    @property
    def value(self) -> np.ndarray:
        return self.backward.value(self.name)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.backward.bare.network.shapes[self.name]

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return np.array(self.value, dtype=dtype, copy=copy)

    def __getitem__(self, index) -> Received:
        """One number by its full index: what it received, from which outputs of which layers."""
        return Received(self.backward, self.name, checked_index(index, self.shape, self.name))

    def sent(self, index) -> Sent:
        """Where the gradient of one number went: to each number that it was made of; of a maximum, to its winner."""
        if self.name == INPUT:
            raise ValueError("the input is made of nothing that a gradient could go to")
        return Sent(self.backward, self.name, checked_index(index, self.shape, self.name))

    def __repr__(self) -> str:
        axes = ", ".join(axis_names(self.shape))
        return f"<gradient of {self.backward.of} to {self.name}, {self.shape} ({axes})>"


class ParameterGradient:
    """The gradient to a parameter: `value` is the engine's, and an index opens one number as a sum over positions."""

    def __init__(self, backward: Backward, name: str):
        self.backward, self.name = backward, name
        self.node, self.own = backward._parameters[name]

    @property
    def value(self) -> np.ndarray:
        return self.backward.parameter_gradients[self.name]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.value.shape

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return np.array(self.value, dtype=dtype, copy=copy)

    def __getitem__(self, index) -> Shared:
        """One weight or bias by its full index, in PyTorch's layout."""
        return Shared(self, checked_index(index, self.shape, self.name))

    def __repr__(self) -> str:
        return f"<gradient of {self.backward.of} to {self.name}, {self.shape}>"
