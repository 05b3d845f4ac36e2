"""Where values lie: one arena for what a plan computes, used again and again, and one for what plans share."""

from __future__ import annotations

from bisect import insort
from collections import defaultdict
from collections.abc import Collection

import numpy as np

from .. import processors
from .parameters import ParameterBuffer
from .tensor import ALIGNMENT, Storage, aligned


class Prepared:
    """Memory for what depends on the parameters alone: packed filters, folded normalisations. Plans share it."""

    def __init__(self, parameters: ParameterBuffer, sizes: list[int]):
        self._of, self._sizes = parameters, sizes
        starts = np.cumsum([0, *(-(-size // ALIGNMENT) * ALIGNMENT for size in sizes)])
        _require(int(starts[-1]))
        self.array, self._starts = aligned(int(starts[-1])), starts[:-1]

    def place(self, parameters: ParameterBuffer, storages: Collection[Storage]) -> None:
        """Give each its address, in order. Raises ValueError unless they are of these parameters and sizes."""
        if parameters is not self._of or [s.size() for s in storages] != self._sizes:
            raise ValueError("plans share what they prepare only if they are of one network and its parameters")
        for storage, start in zip(storages, self._starts, strict=True):
            storage.address = self.array.ctypes.data + int(start)


def allocate(storages: list[Storage]) -> np.ndarray:
    """Give every storage an address in one zeroed arena and return the arena.

    Memory is used again once its last reader has run: by anything without a halo, or, since a halo is zeroed here
    only and kernels write inside it, by a value of the very same form.
    """
    with_halo = [s for s in storages if s.shape_of_halo() is not None]
    plain = [s for s in storages if s.shape_of_halo() is None]
    places, end = _by_form(with_halo)
    for s, offset in _by_size(plain).items():
        places[s] = end + offset
    size = max((offset + _bytes(s) for s, offset in places.items()), default=0)
    _require(size)
    arena = aligned(size)
    for s, offset in places.items():
        s.address = arena.ctypes.data + offset
    return arena


def _bytes(s: Storage) -> int:
    """Its size, in whole cache lines."""
    return -(-s.size() // ALIGNMENT) * ALIGNMENT


def _lifetime(s: Storage) -> tuple[float, float]:
    """The first and the last call that need it."""
    return (-1, float("inf")) if s.pinned else (s.first, s.last)


def _by_form(storages: list[Storage]) -> tuple[dict[Storage, int], int]:
    """Offsets for values with a halo, and the end: each form has slots of its own, taken in the order of the calls."""
    slots: dict[object, list[list]] = defaultdict(list)  # form: [offset, busy until]
    places, end = {}, 0
    for s in sorted(storages, key=_lifetime):
        start, until = _lifetime(s)
        form = slots[s.shape_of_halo()]
        slot = next((slot for slot in form if slot[1] < start), None)
        if not slot:
            slot = [end, until]
            form.append(slot)
            end += _bytes(s)
        slot[1] = until
        places[s] = slot[0]
    return places, end


def _by_size(storages: list[Storage]) -> dict[Storage, int]:
    """Offsets for values without a halo: the largest first, each at the lowest place that is free while it lives."""
    places: dict[Storage, int] = {}
    placed: list[tuple[int, int, float, float]] = []  # begin, end, first, last; by where they begin
    for s in sorted(storages, key=_bytes, reverse=True):
        first, last = _lifetime(s)
        size, offset = _bytes(s), 0
        for begin, end, earliest, latest in placed:
            if earliest <= last and first <= latest:
                if begin - offset >= size:
                    break
                offset = max(offset, end)
        insort(placed, (offset, offset + size, first, last))
        places[s] = offset
    return places


def _require(size: int) -> None:
    """Raise MemoryError unless the machine has so many bytes."""
    if size > (memory := processors.memory()):
        raise MemoryError(f"the network's values take {size / 1e9:,.1f} GB, more than the {memory / 1e9:,.1f} GB of "
                          "memory there is; use smaller images or a smaller batch")
