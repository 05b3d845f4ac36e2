"""Every value that a network computes for one image, each open to the multiply-adds that made it.

`model.trace(image)["conv1"][3, 4, 0]` is one number: see `terms.Terms`. `trace.backward` gives the gradients: see
`backward.Backward`.
"""

from __future__ import annotations

import re
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from functools import cached_property
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from ..draw import bars, feature_maps
from ..layers.arithmetic import UNWARNED, Arithmetic, Index
from ..layers.base import as_image
from ..model import Model
from ..network import INPUT, Node
from . import taps
from .fields import Fields
from .graph import logits
from .listing import checked_index
from .question import checked
from .terms import Terms

if TYPE_CHECKING:
    from .backward import Backward

PART = 2**29  # bytes of values that are computed and held together
PARTS = 2  # parts that are held
MOST_BARS = 64
ADDRESS = re.compile(r"\s*([\w.]+)\s*(?:\[([\s\d,]*)\])?\s*", re.ASCII)


class Parts:
    """Arrays of one image by name, part by part, of which the last `PARTS` that were asked for are held."""

    def __init__(self):
        self._held: OrderedDict[int, dict[str, np.ndarray]] = OrderedDict()

    def get(self, part: int, compute: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """The arrays of a part, read only; `compute` gives them with a batch of one, if they are not held."""
        if part not in self._held:
            while len(self._held) >= PARTS:
                self._held.popitem(last=False)
            found = compute()
            for array in found.values():
                array.flags.writeable = False
            self._held[part] = {name: array[0] for name, array in found.items()}
        self._held.move_to_end(part)
        return self._held[part]

    def __len__(self) -> int:
        return len(self._held)


class Trace:
    """The values of a network for one image, by the compiled kernels, as at inference.

    `trace["conv1"]` is a layer's value and `trace["input"]` what the network reads. Values are computed when first
    asked for, in parts: layers whose values and inputs take 512 MB at most, or one that takes more. Most networks are
    one part. The last two parts are held, so that memory is bounded. Between parts a value may differ in its last
    digits, because layers that are not asked for are computed in one pass. The model must not change meanwhile.
    """

    def __init__(self, model: Model, image: np.ndarray):
        self.model, self.image = model, checked(model, image).copy()
        self.image.flags.writeable = False
        self.version = model.version
        self.fields = Fields(model.network)
        self._parts = Parts()

    @property
    def names(self) -> list[str]:
        """"input" and the names of all layers, in the order they are computed in."""
        return [INPUT, *(node.name for node in self.model.network.nodes)]

    def __getitem__(self, name: str) -> Value:
        """A layer's value. Raises ValueError for a name that there is not."""
        return Value(self, name if name == INPUT else self.model.network.node(name).name)

    def __iter__(self):
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def at(self, address: str) -> Value | Terms:
        """What an address means: `conv1` a layer's value, `conv1[3,4,0]` one number of it. Raises ValueError."""
        name, index = parsed(address)
        return self[name] if index is None else self[name][index]

    def backward(self, target: int | str | None = None, *, label: int | str | None = None) -> Backward:
        """The gradients of a class's logit (by default the answer's), or of the cross entropy for a label.

        Classes are numbers or names. Raises ValueError for others, and for a network that gives no classes.
        """
        from .backward import Backward

        return Backward(self, target, label)

    # For those that open numbers.

    def value(self, name: str) -> np.ndarray:
        return self._values(self._owner[name])[name]

    def inputs(self, node: Node) -> list[np.ndarray]:
        """What a node read when its value was computed."""
        return [self._values(self._owner[node.name])[name] for name in node.inputs]

    def parameters(self, node: Node) -> dict[str, np.ndarray]:
        """A node's own parameters."""
        self.unchanged()
        names = node.layer.parameters(*self.model.network.input_shapes(node))
        arrays = self.model.buffer.arrays
        return {name: arrays[f"{node.name}.{name}"] for name in names}

    @np.errstate(**UNWARNED)
    def arithmetic(self, name: str, index: Index) -> Arithmetic:
        """What a number of a layer is made of."""
        node = self.model.network.node(name)
        return node.layer.terms(index, self.parameters(node), *self.inputs(node))

    @cached_property
    def readers(self) -> dict[str, list[tuple[Node, int]]]:
        """Who reads a value: nodes, and as which of their inputs."""
        found = defaultdict(list)
        for node in self.model.network.nodes:
            for of, name in enumerate(node.inputs):
                found[name].append((node, of))
        return found

    def alone_after(self, name: str) -> str | None:
        """The only layer that reads a value, if it reads nothing else and keeps the shape."""
        nodes, shapes = [node for node, _ in self.readers[name]], self.model.network.shapes
        if len(nodes) != 1 or len(nodes[0].inputs) > 1 or shapes[nodes[0].name] != shapes[name]:
            return None
        return nodes[0].name

    def class_text(self, name: str, index: Index) -> str:
        """", the score of 'cat'" for a number of the output of a model that names its classes."""
        network, classes = self.model.network, self.model.classes
        if name not in (network.output, self.logits) or len(index) > 1 or classes == [*map(str, range(len(classes)))]:
            return ""
        return f", the {'score' if name == self.logits else 'probability'} of {classes[index[0]]!r}"

    @property
    def logits(self) -> str:
        """The node of the scores, before any softmax."""
        return logits(self.model.network)

    def unchanged(self) -> None:
        """Raise ValueError if the model's parameters are not those that were traced."""
        if self.model.version != self.version:
            raise ValueError("the model's parameters have changed since this image was traced; trace it again")

    @cached_property
    def parts(self) -> list[list[Node]]:
        """The nodes, in the parts that are computed together."""
        sizes = {INPUT: 4 * self.image.size, **self.model.network.activation_bytes}
        parts, held = [[]], set()
        for node in self.model.network.nodes:
            more = {node.name, *node.inputs}
            if parts[-1] and sum(sizes[name] for name in held | more) > PART:
                parts, held = [*parts, []], set()
            parts[-1].append(node)
            held |= more
        return parts

    def part_of(self, name: str) -> int:
        """The number of the part in which a value is computed."""
        return self._owner[name]

    @cached_property
    def _owner(self) -> dict[str, int]:
        """The number of the part in which each value is computed."""
        return {INPUT: 0} | {node.name: i for i, part in enumerate(self.parts) for node in part}

    def _values(self, part: int) -> dict[str, np.ndarray]:
        def compute() -> dict[str, np.ndarray]:
            self.unchanged()
            names = {name for node in self.parts[part] for name in (node.name, *node.inputs)}
            return taps.values(self.model, self.image[None], names | ({INPUT} if part == 0 else set()))

        return self._parts.get(part, compute)

    def __repr__(self) -> str:
        return f"<Trace of {len(self)} values, from {self.image.dtype} {self.image.shape} to " \
               f"{self.model.network.output} {self.model.network.output_shape}>"


class Value:
    """A layer's value: `value` is the array, read only, and `layer[3, 4, 0]` opens one number of it."""

    def __init__(self, trace: Trace, name: str):
        self.trace, self.name = trace, name

    @property
    def value(self) -> np.ndarray:
        return self.trace.value(self.name)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.trace.model.network.shapes[self.name]

    @property
    def kind(self) -> str:
        return "input" if self.name == INPUT else type(self.trace.model.network.node(self.name).layer).__name__

    @property
    def field(self) -> tuple[int, ...] | None:
        """Pixels along each axis that a number of it sees, padding included; None for all."""
        known = self.trace.fields.known[self.name]
        return None if known is None else tuple(f.size for f in known)

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return np.array(self.value, dtype=dtype, copy=copy)

    def __getitem__(self, index) -> Terms:
        """One number by its full index. Raises ValueError for an index that there is not."""
        return Terms(self.trace, self.name, checked_index(index, self.shape, self.name))

    def __repr__(self) -> str:
        return f"<{self.text()}>"

    def _repr_html_(self) -> str:
        """In a notebook: drawn, channel by channel; a vector of up to `MOST_BARS` numbers as bars."""
        said, values = f"<div>{escape(self.text())}</div>", self.value
        if not np.isfinite(values).all():
            return f"{said}<div>Not all of its numbers are finite.</div>"
        if values.ndim > 1:
            return said + feature_maps(values.reshape(as_image(self.shape)), title=self.name)._repr_html_()
        if len(values) > MOST_BARS:
            return said
        classes = self.name in (self.trace.model.network.output, self.trace.logits)
        names = self.trace.model.classes if classes else [str(i) for i in range(len(values))]
        return said + bars(names, values, title=self.name)._repr_html_()

    def text(self) -> str:
        """Its name, kind and shape, and how much of the image a number of it sees."""
        said = f"{self.name} ({self.kind}), {self.shape}"
        if not self.trace.model.network.input_shape[:-1]:
            return said
        return f"{said}, each seeing {'x'.join(map(str, self.field)) if self.field else 'all'} of the image"


def parsed(address: str) -> tuple[str, Index | None]:
    """The name and the index of an address such as `conv1[3,4,0]`; None for no index. Raises ValueError."""
    found = ADDRESS.fullmatch(address) if isinstance(address, str) and len(address) < 1000 else None
    parts = found[2].split(",") if found and found[2] is not None else []
    if not found or not all(part.strip().isdigit() and len(part.strip()) < 10 for part in parts):
        raise ValueError(f"an address is a name and an index, as in conv1[3,4,0], got {address!r:.80}")
    return found[1], tuple(int(part) for part in parts) if found[2] is not None else None
