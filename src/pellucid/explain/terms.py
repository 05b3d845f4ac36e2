"""One number of a network and the multiply-adds that made it."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..layers.arithmetic import PADDING, Arithmetic, Index, Step
from ..network import INPUT
from .fields import Span, said, window
from .listing import Listing, address, distance, finite, number

if TYPE_CHECKING:
    from .trace import Trace

PIXEL = "pixel"  # what the numbers of "input" are made of, where the image was uint8


class Term(NamedTuple):
    """One number that another is made of.

    `name` and `index` say where it stands; `name` is "padding" for a zero beside the map, and "pixel" for a value of
    the image before preprocessing. `factor` is what `value` is multiplied with, if it is, and `weight` the parameter's
    name and index that this comes from, if it does. `product` is what it contributes.
    """

    name: str
    index: Index
    value: float
    factor: float | None
    weight: tuple[str, Index] | None
    product: float
    trace: Trace

    @property
    def source(self) -> Terms | None:
        """What this number is made of itself; None for padding and for a pixel, with which everything begins."""
        return None if self.name in ("padding", PIXEL) else self.trace[self.name][self.index]

    def __repr__(self) -> str:
        times = "" if self.factor is None else f" x {number(self.factor)}"
        where = "padding" if self.name == "padding" else address(self.name, self.index)
        return f"<{where} {number(self.value)}{times}: {number(self.product)}>"


class Terms(Listing):
    """A number and what it is made of; `terms[i]` is a `Term`, and `terms[i].source` the `Terms` of what that read.

    `value` is what the engine computed; `total` is what the terms and steps give in float64, and `bound` how far apart
    the two may be for float32's rounding. `windows` says what of each layer below it looked at, `field` what of the
    image (None: all of it), `then` the layers that go on with this number alone, `winner` which term was the largest,
    for a layer that takes the largest.
    """

    def __init__(self, trace: Trace, name: str, index: Index):
        self.trace, self.name, self.index = trace, name, index
        self.value = float(trace[name].value[index])
        self.arithmetic = pixel(trace, index) if name == INPUT else trace.arithmetic(name, index)

    @property
    def numbers(self) -> np.ndarray:
        return self.arithmetic.terms

    @property
    def summed(self) -> bool:
        return self.arithmetic.winner is None

    @property
    def winner(self) -> int | None:
        return self.arithmetic.winner

    @property
    def steps(self) -> tuple[Step, ...]:
        return self.arithmetic.steps

    @property
    def total(self) -> float:
        return self.arithmetic.value

    @property
    def kind(self) -> str:
        return "input" if self.name == INPUT else type(self.trace.model.network.node(self.name).layer).__name__

    @cached_property
    def bound(self) -> float:
        share = self.arithmetic.share
        return self.arithmetic.bound + (share * float(np.abs(self.trace[self.name].value).max()) if share else 0.0)

    @property
    def address(self) -> str:
        return address(self.name, self.index)

    @cached_property
    def windows(self) -> dict[str, tuple[Span, ...]]:
        if self.name == INPUT:
            return {}
        network, made = self.trace.model.network, self.arithmetic
        return {source: window(made, of, network.shapes[source])
                for of, source in enumerate(network.node(self.name).inputs)
                if ((made.of == of) | (made.of == PADDING)).any()}

    @cached_property
    def field(self) -> tuple[Span, ...] | None:
        return self.trace.fields.of(self.name, self.index, self.trace.arithmetic)

    @cached_property
    def then(self) -> list[Terms]:
        found, name = [], self.name
        while node := self.trace.alone_after(name):
            made = self.trace[node][self.index]
            if len(made) != 1 or made[0].index != self.index:
                break
            found.append(made)
            name = node
        return found

    def __getitem__(self, i: int) -> Term:
        made = self.arithmetic
        at, of = tuple(made.at[i].tolist()), int(made.of[i])
        if self.name == INPUT:
            name = PIXEL
        else:
            name = "padding" if of == PADDING else self.trace.model.network.node(self.name).inputs[of]
        weight = made.weights and (f"{self.name}.{made.weights[0]}", tuple(made.weights[1][i].tolist()))
        factor = None if made.factors is None else float(made.factors[i])
        return Term(name, at, float(made.x[i]), factor, weight, float(made.terms[i]), self.trace)

    # As a table.

    @property
    def title(self) -> str:
        layer = "" if self.name == INPUT else f" ({self.kind}{self.trace.class_text(self.name, self.index)})"
        return f"{self.address} = {number(self.value)}{layer}"

    def facts(self) -> list[str]:
        if self.name == INPUT:
            return []
        shapes = self.trace.model.network.shapes
        facts = [f"looks at {source}: {said(spans, shapes[source])}" for source, spans in self.windows.items()]
        if shapes[INPUT][:-1]:
            field = self.field
            facts.append("sees of the image: " + (said(field, shapes[INPUT]) if field else "all of it"))
        return facts

    @property
    def headings(self) -> tuple[str, ...]:
        made, heads = self.arithmetic, ["from"]
        if made.factors is not None or _own_text(made):
            heads.append("x")
        if made.weights:
            heads.append("weight")
        if made.factors is not None:
            heads.append("times")
        return (*heads, made.text)

    def cells(self, i: int) -> tuple[str, ...]:
        made, term = self.arithmetic, self[i]
        cells = ["padding" if term.name == "padding" else address(term.name, term.index)]
        if i == made.winner:
            cells[0] += " wins"
        if made.factors is not None or _own_text(made):
            cells.append(number(term.value))
        if term.weight:
            cells.append(address(*term.weight))
        if term.factor is not None:
            cells.append(number(term.factor))
        return tuple(cells)

    def closing(self) -> list[tuple[str, float]]:
        return [(s.text + (f", {address(f'{self.name}.{s.parameter}', s.index)}" if s.parameter else ""), s.value)
                for s in self.steps]

    def after(self) -> list[str]:
        said = [f"then {t.name} ({t.kind}): {t.steps[-1].text} = {number(t.value)}" for t in self.then]
        return [*said, distance(self.total, self.value) + f"; rounding explains up to {self.bound:.2g}."]

    # As data.

    def head(self) -> dict:
        return {
            "address": self.address, "name": self.name, "kind": self.kind, "index": list(self.index),
            "value": finite(self.value), "total": finite(self.total), "bound": finite(self.bound),
            "windows": {source: [s.to_json() for s in spans] for source, spans in self.windows.items()},
            "field": None if self.field is None else [s.to_json() for s in self.field],
            "winner": self.winner, "text": self.arithmetic.text,
            "then": [{"address": t.address, "kind": t.kind, "value": finite(t.value)} for t in self.then],
        }

    def item(self, i: int) -> dict:
        term = self[i]
        item = {"from": term.name, "index": list(term.index), "value": finite(term.value)}
        if term.factor is not None:
            item["factor"] = finite(term.factor)
        if term.weight:
            item["weight"] = address(*term.weight)
        return {**item, "product": finite(term.product)}


def pixel(trace: Trace, index: Index) -> Arithmetic:
    """How preprocessing makes a number of the input from the image as it was given."""
    at, given = np.array([index]), trace.image[index]
    of = np.array([PADDING])
    if trace.image.dtype != np.uint8:
        none = np.zeros(0)
        return Arithmetic(of[:0], at[:0], none, none, none, (Step("given as float32", float(given)),), 0.0)
    preprocessing, channel = trace.model.preprocessing, index[-1]
    scale, shift = float(preprocessing.scale[channel]), float(preprocessing.shift[channel])
    x, factor = np.array([float(given)]), np.array([scale])
    steps = (Step("pixel times scale", float(given) * scale), Step("shift", shift),
             Step("(pixel / 255 - mean) / std", float(given) * scale + shift))
    return Arithmetic(of, at, x, x * factor, factor, steps, abs(float(given) * scale) + abs(shift), factors=factor)


def _own_text(made: Arithmetic) -> bool:
    """Whether the terms are something else than the numbers read."""
    return made.factors is None and made.terms is not made.x
