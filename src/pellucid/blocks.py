"""Builders: layers written in the order one thinks of them, laid out as the named nodes of a graph.

`Sequential`, `Residual` and `Concat` hold layers and one another. They are no layers themselves: nothing of
them is left once `Network.build` has laid them out. A part used in two places becomes two sets of nodes,
each with parameters of its own.
"""

from __future__ import annotations

from typing import ClassVar

from . import layers
from .layers.base import Layer

INPUT = "input"  # the name of a network's input
Placed = tuple[str, Layer, tuple[str, ...]]  # name, layer, names of the inputs


class Block:
    """A part made of parts. `stem` is the stem of its automatic name."""

    stem: ClassVar[str] = "block"

    def place(self, scope: Scope, source: str) -> str:
        """Put the block's nodes into `scope`, reading from node `source`; return the name of its output."""
        raise TypeError(f"{type(self).__name__} is not a complete block")


Part = Layer | Block


class Sequential(Block):
    """One part after the other.

    Parts given by position are named by kind and running number (`conv1`, `relu1`, `pool1`, `conv2`), parts
    given by keyword, which come after them, by their keyword; `**{"0": part}` gives names that are no
    identifiers. Parts of a nested block carry its name before a dot: `block1.conv1`. An empty `Sequential()`
    hands on its input. Raises ValueError for a part that is neither a layer nor a block.
    """

    def __init__(self, *parts: Part, **named: Part):
        self.parts = _parts("Sequential", parts, named)

    def place(self, scope: Scope, source: str) -> str:
        for name, part in self.parts:
            source = scope.put(part, name, source)
        return source


class Residual(Block):
    """`body(x) + shortcut(x)`; without a shortcut, `body(x) + x`.

    He et al., "Deep residual learning for image recognition", 2016, equations 1 and 2. A `Sequential` body
    lends its names to the block (`layer1.0.conv1`, not `layer1.0.body.conv1`); the shortcut is called by its
    keyword, `shortcut` or any other (`downsample=...`); the sum is called `add`. Raises ValueError for
    more than one shortcut.
    """

    stem = "residual"

    def __init__(self, body: Part, shortcut: Part | None = None, **named: Part):
        if shortcut is not None:
            named = {"shortcut": shortcut, **named}
        if len(named) > 1:
            raise ValueError(f"Residual takes one shortcut, got {', '.join(named)}")
        ((_, self.body),) = _parts("Residual", (body,), {})
        self.shortcut = _parts("Residual", (), named)

    def place(self, scope: Scope, source: str) -> str:
        if isinstance(self.body, Sequential):
            result = self.body.place(scope, source)
        else:
            result = scope.put(self.body, None, source)
        skipped = source
        for name, part in self.shortcut:
            skipped = scope.put(part, name, source)
        return scope.append("add", layers.Add(), (result, skipped))


class Concat(Block):
    """Branches that read the same input, their outputs stacked along the channels.

    Szegedy et al., "Going deeper with convolutions", 2015. Blocks given by position are named `branch1`,
    `branch2`, ..., layers as in `Sequential`; the node that stacks them is called `concat`. Raises
    ValueError for fewer than two branches.
    """

    stem = "concat"

    def __init__(self, *branches: Part, **named: Part):
        self.branches = _parts("Concat", branches, named)
        if len(self.branches) < 2:
            raise ValueError(f"Concat needs two or more branches, got {len(self.branches)}")

    def place(self, scope: Scope, source: str) -> str:
        outputs = tuple(scope.put(part, name, source, stem="branch") for name, part in self.branches)
        return scope.append("concat", layers.Concat(), outputs)


class Scope:
    """The names inside one block: a prefix, and a running number for each stem."""

    def __init__(self, nodes: list[Placed], prefix: str = ""):
        self.nodes = nodes
        self.prefix = prefix
        self.counts: dict[str, int] = {}

    def append(self, name: str, layer: Layer, inputs: tuple[str, ...]) -> str:
        """Add one node; returns its full name."""
        self.nodes.append((self.prefix + name, layer, inputs))
        return self.prefix + name

    def put(self, part: Part, name: str | None, source: str, stem: str | None = None) -> str:
        """Add a part that reads `source`, a nested block in a scope of its own; returns its output's name.

        Without a `name` it gets an automatic one; `stem` is that of blocks here, if not their own.
        """
        if name is None:
            kind = part.short if isinstance(part, Layer) else stem or part.stem
            self.counts[kind] = self.counts.get(kind, 0) + 1
            name = f"{kind}{self.counts[kind]}"
        if isinstance(part, Layer):
            return self.append(name, part, (source,))
        return part.place(Scope(self.nodes, f"{self.prefix}{name}."), source)


def lay_out(body: Part) -> tuple[list[Placed], str]:
    """The nodes of a layer or block that reads the network's input, in order, and the name of its output."""
    nodes: list[Placed] = []
    ((_, body),) = _parts("a network", (body,), {})
    scope = Scope(nodes)
    output = scope.put(body, None, INPUT) if isinstance(body, Layer) else body.place(scope, INPUT)
    return nodes, output


def _parts(where: str, positional: tuple, named: dict) -> tuple[tuple[str | None, Part], ...]:
    parts = (*((None, part) for part in positional), *named.items())
    for _, part in parts:
        if isinstance(part, Part):
            continue
        if isinstance(part, type):
            raise ValueError(f"{where} takes layers and blocks, got the class {part.__name__}: write {part.__name__}()")
        if isinstance(part, list | tuple):
            raise ValueError(f"{where} takes its parts one by one, got a {type(part).__name__}: write *parts")
        raise ValueError(f"{where} takes layers and blocks, got {part!r}")
    return parts
