"""What layers lower themselves into: a list of kernel calls and the memory they touch.

Calls are only noted here. When the last is noted every halo and lifetime is known; then memory is laid out, and
each call is bound to addresses that never change.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from zlib import crc32

import numpy as np

from .. import processors
from ..geometry import BLOCK
from ..layers.base import Layer, Shape
from . import algorithms
from .library import Call, Library, View
from .memory import Prepared, allocate
from .parameters import ParameterBuffer
from .tensor import Argument, Scratch, Storage, Tensor

TASKS_OF_THREAD = 4  # that each thread should get, so that none waits long for the last


@dataclass(frozen=True)
class Note:
    """A call before its memory has addresses."""

    kernel: str
    arguments: dict[str, Argument | int | float]
    maps: tuple[str, ...] = ()  # arguments whose every `together` rows are to be one
    together: int = 1
    otherwise: Note | None = None  # the call where that cannot be, for a halo lies between rows


class Builder:
    """Notes calls for one batch size.

    `gradient` is where the parameters' gradients go, None without a backward pass. `training` says how layers behave
    (batch statistics, dropout), `precision` what Winograd's kernels multiply where there are gradients, one of
    the library's.
    """

    def __init__(self, library: Library, batch: int, parameters: ParameterBuffer,
                 gradient: ParameterBuffer | None = None, training: bool = False, precision: str = "float32"):
        self.library, self.batch, self.training = library, batch, training
        if precision not in library.precisions:
            known = " or ".join(library.precisions)
            raise ValueError(f"precision must be {known} on this processor, got {precision!r}")
        # Without gradients a normalisation may be folded into filters, whose largest value is then another.
        self.integers = precision == "int16" and gradient is not None
        self.largest_filters: dict[str, Scratch] = {}  # by node, where they are
        self._parameters, self._gradient = parameters, gradient
        self.gradients = gradient is not None
        self.threads = processors.threads()  # to cut work into tasks by; no result depends on it
        self.notes: list[Note] = []
        self.prepared: list[Note] = []  # done once for given parameters, when they do not change every step
        self._storages: list[Storage] = []
        self.counter = np.zeros(1, np.uint32)  # the host changes it every step: the source of dropout's randomness
        self.labels = np.zeros(batch, np.int32)
        self.node = ""
        self.arrived: dict[int, list[Tensor]] = defaultdict(list)  # gradients to a value, by its id, from its readers
        self.readers: list[Layer] = []  # the layers that read the value of the node being lowered

    # Values.

    def tensor(self, shape: Shape, dtype="float32", inner: int | None = None) -> Tensor:
        """A new value; `shape` is a layer's, without the batch."""
        return self._keep(Tensor(tuple(shape), self.batch, dtype, inner or BLOCK))

    def like(self, other: Tensor) -> Tensor:
        """A new float32 value of the same shape."""
        return self._keep(Tensor(other.logical, self.batch, "float32", shape=other.shape))

    def alias(self, other: Tensor, shape: Shape) -> Tensor:
        """The same memory under another logical shape."""
        return Tensor(tuple(shape), self.batch, other.dtype, other.inner, other.needs_gradient,
                      rectified=other.rectified, halo=other.halo, shape=other.shape, storage=other.storage)

    def scratch(self, shape: tuple[int, ...], dtype="float32") -> Scratch:
        """Plain memory; `shape` as numpy has it."""
        return self._keep(Scratch(tuple(shape), dtype))

    def _keep(self, value):
        self._storages.append(value.storage)
        return value

    def needs_gradient(self, x: Tensor) -> bool:
        """Whether anybody will read the gradient to `x`."""
        return x.needs_gradient

    # Arguments.

    def parameter(self, name: str, node: str = "") -> Argument:
        """A one-dimensional parameter of a node, by default the one being lowered, as (c, b)."""
        return self._parameters.channels(f"{node or self.node}.{name}")

    def gradient(self, name: str) -> Argument:
        """Where its gradient goes."""
        return self._gradient.channels(f"{self.node}.{name}")

    def filters(self, name: str, start: int, *dims: tuple[int, int], gradient: bool = False) -> Argument:
        """A weight of the node being lowered, from an element on, as (extent, stride) pairs, innermost first."""
        return (self._gradient if gradient else self._parameters).seen(f"{self.node}.{name}", start, *dims)

    @property
    def key(self) -> int:
        """A number that tells this node from the others, the same in every plan."""
        return crc32(self.node.encode())

    def constant(self, values) -> np.ndarray:
        """Integers a kernel looks up."""
        return np.ascontiguousarray(values, np.int32)

    def zeros(self, shape: tuple[int, ...]) -> np.ndarray:
        """What a kernel reads in place of a bias that is not there."""
        return np.zeros(shape, np.float32)

    def ones(self, shape: tuple[int, ...]) -> np.ndarray:
        """What a kernel reads in place of a scale that is not there."""
        return np.ones(shape, np.float32)

    def nothing(self, like: Tensor | tuple[int, int, int, int]) -> Argument:
        """What a kernel reads in place of a residual that is not there: a block of zeros at every place of a map, given
        as a value or as (blocks, height, width, images)."""
        if isinstance(like, Tensor):
            like = like.blocks, *like.shape[:2], like.batch
        block = np.zeros(BLOCK, np.float32)
        deep, height, width, images = like
        view = View(block.ctypes.data, block.dtype,
                    ((0, BLOCK, 1), (0, width, 0), (0, height, 0), (0, deep, 0), (0, images, 0)), block)
        return Argument(None, lambda: view)

    def algorithm(self, direction: str, size: tuple[int, int], channels: int, filters: int) -> str:
        """How a 3x3 convolution of stride 1 is computed: see `engine.algorithms`."""
        return algorithms.choose(self.library.isa, direction, size, channels, filters)

    def received(self, x: Tensor) -> Tensor | None:
        """Take what other readers of `x` have sent back so far, in the backward pass, to add it to one's own gradient.
        None where that is nothing, or not yet one sum."""
        parts = self.arrived[id(x)]
        return parts.pop() if len(parts) == 1 else None

    def tile(self, stem: str, width: int) -> str:
        """The kernel `stem_N` whose N columns cover a width with the least time.

        A tile of fewer than 4 columns takes as long as one of 4: that many are needed to hide the latency of a
        multiply-add. Reading the filters for a tile takes as long as half a column. Whatever the tile, an output's
        terms are added in the same order, so it changes no result.
        """
        usable = [t for t in self.library.tiles(stem) if t <= max(width, 1)]
        return f"{stem}_{min(usable, key=lambda t: (-(-width // t) * (max(t, 4) + 0.5), -t))}"

    def share(self, blocks: int, chunks: int) -> int:
        """Blocks of output channels for a task that has one of `chunks` chunks of a map: all of them where there are
        chunks enough for all threads, else fewer. It changes no result."""
        parts = max(-(-TASKS_OF_THREAD * self.threads // chunks), 1)
        each = -(-blocks // parts)
        return each + each % 2  # kernels may take blocks in pairs

    def rows(self, height: int, blocks: int) -> int:
        """Rows of a map for a task that has one block of its channels for one image. It changes no result."""
        parts = -(-TASKS_OF_THREAD * self.threads // (blocks * self.batch))
        return max(-(-height // parts), 1)

    def together(self, height: int, blocks: int) -> int:
        """Rows of a map to compute as one: all of them where there are tasks enough for all threads, else a part that
        divides the height. It changes no result."""
        parts = -(-TASKS_OF_THREAD * self.threads // (blocks * self.batch))
        return max(r for r in range(1, height + 1) if height % r == 0 and (r == 1 or height // r >= parts))

    # Calls.

    def call(self, kernel: str, **arguments) -> None:
        """Note a call. Tensors are passed without their halo; arrays and scratch whole."""
        self.notes.append(self._note(kernel, arguments))

    def call_on_runs(self, together: int, maps: Sequence[str], call: tuple[str, dict], otherwise: tuple[str, dict]):
        """Note a call, a kernel and its arguments, for which every `together` rows of the `maps` among them are one.
        Whether a halo stands against that is known only when all is noted: then it is the call `otherwise`."""
        note = self._note(*call)
        self.notes.append(replace(note, maps=tuple(maps), together=together, otherwise=self._note(*otherwise)))

    def prepare(self, kernel: str, **arguments) -> None:
        """Note a call that depends on parameters only: when training it runs each step, else once."""
        (self.notes if self.training else self.prepared).append(self._note(kernel, arguments))

    def _note(self, kernel: str, arguments: dict) -> Note:
        return Note(kernel, {name: _argument(value) for name, value in arguments.items()})

    # Memory.

    def bind(self, shared: Prepared | None = None) -> tuple[list[Call], list[Call], np.ndarray]:
        """Lay out memory and bind every call: (prepared calls, calls, the arena).

        `shared` is the `memory` of what a plan of the same parameters for another batch has prepared. Raises ValueError
        for that of other parameters.
        """
        for time, note in enumerate(self.notes):
            for a in note.arguments.values():
                if isinstance(a, Argument) and a.storage:
                    a.storage.touch(time)
        # What is prepared once lies apart: it outlives every run and does not depend on the batch.
        once = dict.fromkeys(a.storage for note in self.prepared for a in note.arguments.values()
                             if isinstance(a, Argument) and a.storage)
        self.memory = shared or Prepared(self._parameters, [s.size() for s in once])
        self.memory.place(self._parameters, once)
        arena = allocate([s for s in self._storages if s not in once and (s.first is not None or s.pinned)])
        return [self._bound(n) for n in self.prepared], [self._bound(n) for n in self.notes], arena

    def _bound(self, note: Note) -> Call:
        values = {k: a.view() if isinstance(a, Argument) else a for k, a in note.arguments.items()}
        values.update({name: values[name].runs(note.together) for name in note.maps})
        if any(values[name] is None for name in note.maps):
            return self._bound(note.otherwise)
        return self.library.kernel(note.kernel).bind(**values)


def _argument(value):
    if isinstance(value, Tensor):
        return value.interior()
    if isinstance(value, Scratch):
        return value.whole()
    if isinstance(value, np.ndarray):
        view = View.of(value)
        return Argument(None, lambda: view)
    return value
