"""One number of a backward pass as the sum that it is: over the outputs that read it, or that a weight is in."""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..layers.arithmetic import PADDING, UNWARNED, Index, inside
from .listing import Listing, address, distance, finite, number

if TYPE_CHECKING:
    from .backward import Backward, ParameterGradient


class Share(NamedTuple):
    """A product of a gradient: `name` (or "padding") and `index` say where that gradient stands, or went to."""

    name: str
    index: Index
    derivative: float
    gradient: float
    product: float
    backward: Backward

    @property
    def source(self) -> Received | None:
        """What the gradient there is the sum of itself; None in the padding."""
        return None if self.name == "padding" else self.backward[self.name][self.index]


class _Products(Listing):
    """Derivatives times gradients. Subclasses give the arrays, a row a term, and where each stands.

    `value` is what the engine computed, `total` the sum in float64 of what stands here.
    """

    backward: Backward
    derivatives: np.ndarray
    gradients: np.ndarray

    @cached_property
    @np.errstate(**UNWARNED)
    def numbers(self) -> np.ndarray:
        return self.derivatives * self.gradients

    @property
    @np.errstate(**UNWARNED)
    def total(self) -> float:
        return float(self.numbers.sum())

    @abstractmethod
    def place(self, i: int) -> tuple[str, Index]:
        """Where the gradient of term `i` stands."""

    def __getitem__(self, i: int) -> Share:
        return Share(*self.place(i), float(self.derivatives[i]), float(self.gradients[i]), float(self.numbers[i]),
                     self.backward)

    def cells(self, i: int) -> tuple[str, ...]:
        return address(*self.place(i)), number(self.derivatives[i]), number(self.gradients[i])

    def item(self, i: int) -> dict:
        name, index = self.place(i)
        return {self.headings[0]: name, "index": list(index), "derivative": finite(self.derivatives[i]),
                "gradient": finite(self.gradients[i]), "product": finite(self.numbers[i])}

    def closing(self) -> list[tuple[str, float]]:
        return [("sum", self.total)]

    def after(self) -> list[str]:
        return [distance(self.total, self.value) + "."]

    def head(self) -> dict:
        return {"gradient_of": self.backward.of, "to": self.address, "value": finite(self.value),
                "total": finite(self.total)}

    @property
    def address(self) -> str:
        return address(self.name, self.index)

    @property
    def title(self) -> str:
        return f"gradient of {self.backward.of} to {self.address} = {number(self.value)}"


class Received(_Products):
    """The gradient at one number of a value: from each output that reads it, its derivative times its own gradient.

    `terms[i].source` steps on to that output, and so to the loss. What a number received through a max pool comes from
    the windows that it won.
    """

    headings = ("from", "derivative", "gradient", "product")

    @np.errstate(**UNWARNED)
    def __init__(self, backward: Backward, name: str, index: Index):
        self.backward, self.name, self.index = backward, name, index
        self.value = float(backward.value(name)[index])
        places, derivatives, gradients = [], [], []
        for node, of in backward.readers(name):
            outputs, slopes = node.layer.derivatives(index, of, backward.trace.parameters(node),
                                                     *backward.trace.inputs(node))
            places += [(node.name, tuple(output)) for output in outputs.tolist()]
            derivatives.append(slopes)
            gradients.append(backward.value(node.name)[tuple(outputs.T)])
        self._places = places
        self.derivatives, self.gradients = (np.concatenate([np.zeros(0), *part]) for part in (derivatives, gradients))
        self.begins = name == backward.bare.network.output

    @property
    def total(self) -> float:
        return float(self.backward.cotangent[self.index]) if self.begins else super().total

    def place(self, i: int) -> tuple[str, Index]:
        return self._places[i]

    def closing(self) -> list[tuple[str, float]]:
        if not self.begins:
            return super().closing()
        (index,), backward = self.index, self.backward
        if backward.label is None:
            return [("of the logit to itself" if index == backward.target else "of another logit", self.total)]
        target = float(index == backward.label)
        return [("probability", self.total + target), ("target", target), ("probability - target", self.total)]


class Sent(_Products):
    """Where the gradient of one number went: to each number it was made of, times the derivative. No sum: the parts
    go to different places, where they meet others."""

    headings = ("to", "derivative", "gradient", "product")

    def __init__(self, backward: Backward, name: str, index: Index):
        self.backward, self.name, self.index = backward, name, index
        self.value = float(backward.value(name)[index])
        self._made = backward.trace.arithmetic(name, index)
        self.derivatives = self._made.derivative
        self.gradients = np.full(len(self.derivatives), self.value)

    def place(self, i: int) -> tuple[str, Index]:
        made, node = self._made, self.backward.trace.model.network.node(self.name)
        return ("padding" if made.of[i] == PADDING else node.inputs[made.of[i]]), tuple(made.at[i].tolist())

    def cells(self, i: int) -> tuple[str, ...]:
        name, index = self.place(i)
        return ("padding" if name == "padding" else address(name, index)), *super().cells(i)[1:]

    def closing(self) -> list[tuple[str, float]]:
        return []

    def after(self) -> list[str]:
        return []


class Shared(_Products):
    """The gradient to one number of a parameter, summed over all outputs it is in: for a filter's weight, at each
    position the number of the input that it met, times the gradient that arrived there."""

    @np.errstate(**UNWARNED)
    def __init__(self, of: ParameterGradient, index: Index):
        self.backward, self.name, self.index = of.backward, of.name, index
        self.node = of.node.name
        trace = self.backward.trace
        (x,) = trace.inputs(of.node)
        self._uses = of.node.layer.uses(of.own, index, trace.parameters(of.node), x)
        self.value = float(of.value[index])
        self.derivatives = self._uses.derivative
        self.gradients = self.backward.value(self.node)[tuple(self._uses.outputs.T)].astype(np.float64)
        self._source, self._shape = of.node.inputs[0], x.shape

    @cached_property
    def _inside(self) -> np.ndarray:
        return inside(self._uses.at, self._shape)

    def place(self, i: int) -> tuple[str, Index]:
        return self.node, tuple(self._uses.outputs[i].tolist())

    def met(self, i: int) -> tuple[str, Index] | None:
        """The number of the input that the weight met there; None in the padding, and for a bias."""
        if self._uses.at is None or not self._inside[i]:
            return None
        return self._source, tuple(self._uses.at[i].tolist())

    @property
    def headings(self) -> tuple[str, ...]:
        if self._uses.at is None:
            return "arrived at", "gradient", "product"
        return "arrived at", "met", self._uses.text, "gradient", "product"

    def cells(self, i: int) -> tuple[str, ...]:
        cells = super().cells(i)
        if self._uses.at is None:
            return cells[0], cells[2]
        met = self.met(i)
        return cells[0], address(*met) if met else "padding", *cells[1:]

    def item(self, i: int) -> dict:
        met = self.met(i)
        item = super().item(i)
        return {"from": item.pop(self.headings[0]), **item, "met": address(*met) if met else None}
