"""What layers lower themselves into: a list of kernel calls and the memory they touch.

Calls are only noted here. When the last is noted every halo and lifetime is known; then memory is laid out, and
each call is bound to addresses that never change.
"""

from __future__ import annotations

from dataclasses import dataclass
from zlib import crc32

import numpy as np

from .. import processors
from ..geometry import BLOCK
from ..layers.base import Layer, Shape
from .library import Call, Library, View
from .parameters import ParameterBuffer
from .tensor import ALIGNMENT, Argument, Scratch, Storage, Tensor, aligned


@dataclass(frozen=True)
class Note:
    """A call before its memory has addresses."""

    kernel: str
    arguments: dict[str, Argument | int | float]


class Builder:
    """Notes calls for one batch size.

    `gradient` is where the parameters' gradients go, None without a backward pass. `training` says how layers behave
    (batch statistics, dropout).
    """

    def __init__(self, library: Library, batch: int, parameters: ParameterBuffer,
                 gradient: ParameterBuffer | None = None, training: bool = False):
        self.library, self.batch, self.training = library, batch, training
        self._parameters, self._gradient = parameters, gradient
        self.gradients = gradient is not None
        self.notes: list[Note] = []
        self.prepared: list[Note] = []  # done once for given parameters, when they do not change every step
        self._storages: list[Storage] = []
        self.counter = np.zeros(1, np.uint32)  # the host changes it every step: the source of dropout's randomness
        self.labels = np.zeros(batch, np.int32)
        self.node = ""
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
        return Tensor(tuple(shape), self.batch, other.dtype, other.inner, other.needs_gradient, other.halo, other.shape,
                      other.storage)

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

    def parameter(self, name: str) -> Argument:
        """A one-dimensional parameter of the node being lowered, as (c, b)."""
        return self._parameters.channels(f"{self.node}.{name}")

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

    def tile(self, stem: str, width: int) -> str:
        """The kernel `stem_N` whose N columns cover a width with the least time.

        A tile of fewer than 4 columns takes as long as one of 4: that many are needed to hide the latency of a
        multiply-add. Whatever the tile, an output's terms are added in the same order, so it changes no result.
        """
        usable = [t for t in self.library.tiles(stem) if t <= max(width, 1)]
        return f"{stem}_{min(usable, key=lambda t: (-(-width // t) * max(t, 4), -t))}"

    # Calls.

    def call(self, kernel: str, **arguments) -> None:
        """Note a call. Tensors are passed without their halo; arrays and scratch whole."""
        self.notes.append(self._note(kernel, arguments))

    def prepare(self, kernel: str, **arguments) -> None:
        """Note a call that depends on parameters only: when training it runs each step, else once."""
        (self.notes if self.training else self.prepared).append(self._note(kernel, arguments))

    def _note(self, kernel: str, arguments: dict) -> Note:
        return Note(kernel, {name: _argument(value) for name, value in arguments.items()})

    # Memory.

    def bind(self) -> tuple[list[Call], list[Call], np.ndarray]:
        """Lay out memory and bind every call: (prepared calls, calls, the arena)."""
        for time, note in enumerate(self.notes):
            for a in note.arguments.values():
                if isinstance(a, Argument) and a.storage:
                    a.storage.touch(time)
        for note in self.prepared:  # what is prepared once must outlive every run
            for a in note.arguments.values():
                if isinstance(a, Argument) and a.storage:
                    a.storage.pinned = True
        arena = allocate([s for s in self._storages if s.first is not None or s.pinned])
        return [self._bound(n) for n in self.prepared], [self._bound(n) for n in self.notes], arena

    def _bound(self, note: Note) -> Call:
        values = {k: a.view() if isinstance(a, Argument) else a for k, a in note.arguments.items()}
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


def allocate(storages: list[Storage]) -> np.ndarray:
    """Give every storage an address in one zeroed arena and return the arena.

    Memory is reused once its last reader has run: by anything without a halo, or, since a halo is zeroed here
    only and kernels write inside it, by a value of the very same form.
    """
    slots: list[list] = []  # [offset, size, form of the halo, busy until]
    places, end = {}, 0
    never = float("inf")
    for s in sorted(storages, key=lambda s: -1 if s.pinned else s.first):
        size = -(-s.size() // ALIGNMENT) * ALIGNMENT
        form, start, until = s.shape_of_halo(), -1 if s.pinned else s.first, never if s.pinned else s.last
        free = [slot for slot in slots if slot[3] < start and slot[2] == form and slot[1] >= size]
        if free:
            slot = min(free, key=lambda slot: slot[1])
        else:
            slot = [end, size, form, until]
            slots.append(slot)
            end += size
        slot[3] = until
        places[s] = slot[0]
    if end > (memory := processors.memory()):
        raise MemoryError(f"the network's values take {end / 1e9:,.1f} GB, more than the {memory / 1e9:,.1f} GB of "
                          "memory there is; use smaller images or a smaller batch")
    arena = aligned(end)
    for s, offset in places.items():
        s.address = arena.ctypes.data + offset
    return arena
