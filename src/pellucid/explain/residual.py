"""The share of the identity: what came through the shortcut of a residual sum, and what through its branch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..layers import Add
from ..network import INPUT, Network

if TYPE_CHECKING:
    from .backward import Backward

IDENTITY, BRANCH, ELSEWHERE = "identity", "branch", "elsewhere"


@dataclass(frozen=True, eq=False)
class Part:
    """What the gradient at a fork received through one reader of it.

    `way` is "identity" where the sum itself reads the fork, "branch" for a layer that leads to the sum, and "elsewhere"
    for one that does not. `norm` is the root of the sum of squares.
    """

    way: str
    reader: str
    gradient: np.ndarray

    @property
    def norm(self) -> float:
        return float(np.sqrt(np.square(self.gradient, dtype=np.float64).sum()))


@dataclass(frozen=True, eq=False)
class Residual:
    """The gradient at the value `fork`, from which the inputs of the sum `name` come; `parts` add up to it."""

    name: str
    fork: str
    gradient: np.ndarray
    parts: tuple[Part, ...]

    def way(self, way: str) -> np.ndarray:
        """The sum of the parts that came this way, in the fork's shape; zeros for none."""
        return sum((p.gradient for p in self.parts if p.way == way), np.zeros_like(self.gradient))

    @property
    def norms(self) -> dict[str, float]:
        """The norm of the whole gradient at the fork, and of each way's part of it."""
        norms = {way: Part(way, "", self.way(way)).norm for way in {p.way: None for p in self.parts}}
        return {"whole": Part("", "", self.gradient).norm, **norms}

    def __str__(self) -> str:
        lines = [f"{self.name} adds what forks at {self.fork}; norms of the gradient there"]
        rows = [("whole", "", Part("", "", self.gradient).norm), *((p.way, p.reader, p.norm) for p in self.parts)]
        width = max(len(reader) for _, reader, _ in rows)
        return "\n".join(lines + [f"  {way:<9}  {reader:<{width}}  {norm:.6g}" for way, reader, norm in rows])

    def to_json(self) -> dict:
        """Names and norms, without the arrays."""
        return {"name": self.name, "fork": self.fork, "norms": self.norms,
                "parts": [{"way": p.way, "reader": p.reader, "norm": p.norm} for p in self.parts]}


def residual(backward: Backward, name: str) -> Residual:
    """What the fork before a residual sum received, by ways. Raises ValueError for a layer that is no sum."""
    network = backward.bare.network
    if name == INPUT or not isinstance(network.node(name).layer, Add):
        kind = "the input" if name == INPUT else type(network.node(name).layer).__name__
        adds = [node.name for node in network.nodes if isinstance(node.layer, Add)]
        known = ", ".join(adds[:8]) + (f" and {len(adds) - 8} more" if len(adds) > 8 else "")
        raise ValueError(f"{name!r} is {kind}, not an Add; " + (f"there are {known}" if adds else "there is none"))
    leading = _behind(network, name)
    common = set.intersection(*({source} | _behind(network, source) for source in network.node(name).inputs))
    fork = next((node.name for node in reversed(network.nodes) if node.name in common), INPUT)
    parts = []
    for node, of in backward.readers(fork):
        way = IDENTITY if node.name == name else BRANCH if node.name in leading else ELSEWHERE
        parts.append(Part(way, node.name, backward.through(node, of)))
    return Residual(name, fork, backward.value(fork), tuple(parts))


def _behind(network: Network, name: str) -> set[str]:
    """The values that a value comes from, itself left out."""
    found = set() if name == INPUT else set(network.node(name).inputs)
    for node in reversed(network.nodes):
        if node.name in found:
            found.update(node.inputs)
    return found
