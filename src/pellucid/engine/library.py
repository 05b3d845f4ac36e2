"""Load the compiled kernels for this machine and call them.

Signatures are read from the metadata Halide compiled in, so a call is checked by name, type and dimension here, and
by extent inside the kernel; what does not fit is a Python exception.
"""

from __future__ import annotations

import ctypes as ct
import json
import os
import re
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from ..processors import threads
from .halide_abi import ERROR_HANDLER, Buffer, Dimension, Metadata, Type

# Held while kernels run: they share one pool of threads, which a fork must find idle and a plan's memory must not be
# computed in by two threads at once.
LOCK = threading.RLock()

FOLDER = Path(__file__).parent / "compiled"

GET_TORCH = "pip install 'pellucid[torch]'"


# glibc's mallopt: parameters (malloc.h), and what they are set to.
TRIM_THRESHOLD, MMAP_THRESHOLD = (-1, 1 << 28), (-3, 1 << 25)


def keep_freed_memory() -> None:
    """Let the process keep memory that was freed, up to a quarter of a gigabyte.

    Kernels take a megabyte or so for each of their tasks. By default glibc gives it back to the system each time, and
    fetching it again, page by page and zeroed, can take a large part of a convolution's time. Elsewhere than with
    glibc this does nothing.
    """
    if hasattr(libc := ct.CDLL(None), "mallopt"):
        for parameter, value in (TRIM_THRESHOLD, MMAP_THRESHOLD):
            libc.mallopt(parameter, value)


class KernelError(RuntimeError):
    """A kernel refused its arguments, or there is no kernel."""


class NoKernels(KernelError, OSError):
    """Nothing was compiled that this machine can execute. The message is one line that says what to do."""


@dataclass(frozen=True)
class Slot:
    """One argument of a kernel."""

    name: str
    is_buffer: bool
    dimensions: int
    dtype: np.dtype


@dataclass(frozen=True)
class View:
    """Memory as a kernel sees it: (min, extent, stride in elements) a dimension, innermost first."""

    address: int  # of the element at the mins
    dtype: np.dtype
    dims: tuple[tuple[int, int, int], ...]
    owner: object = None  # keeps the memory alive

    @classmethod
    def of(cls, array: np.ndarray) -> View:
        """An array, its last axis innermost."""
        axes = zip(reversed(array.shape), reversed(array.strides), strict=True)
        dims = tuple((0, n, s // array.itemsize) for n, s in axes)
        return cls(array.ctypes.data, array.dtype, dims, array)

    def runs(self, rows: int) -> View | None:
        """An activation (c, x, y, b, n) with every `rows` rows as one; None where a halo lies between rows."""
        c, x, y, *rest = self.dims
        if y[2] != x[1] * x[2]:
            return None
        joined = (x[0], x[1] * rows, x[2]), (y[0], y[1] // rows, y[2] * rows)
        return View(self.address, self.dtype, (c, *joined, *rest), self.owner)

    def buffer(self) -> Buffer:
        dims = (Dimension * len(self.dims))(*[Dimension(m, e, s, 0) for m, e, s in self.dims])
        b = Buffer(0, None, self.address, 0, Type.of(self.dtype), len(self.dims), dims, None)
        b.keep = (dims, self.owner)
        return b


class Call:
    """A kernel with all its arguments in place: run it as often as you like."""

    __slots__ = ("function", "argv", "library", "keep", "name")

    def __init__(self, kernel: Kernel, values: list):
        self.name, self.function, self.library, self.keep = kernel.name, kernel.function, kernel.library, values
        self.argv = (ct.c_void_p * len(values))(*[ct.addressof(v) for v in values])

    def __call__(self) -> None:
        """Raises KernelError when a buffer does not fit; nothing outside it was touched."""
        if self.function(self.argv):
            raise KernelError(f"{self.name}: {self.library.last_error()}")


class Kernel:
    """One compiled kernel and its signature."""

    def __init__(self, library: Library, name: str):
        self.library, self.name = library, name
        self.function = getattr(library.handle, name + "_argv")
        self.function.argtypes, self.function.restype = [ct.c_void_p], ct.c_int
        describe = getattr(library.handle, name + "_metadata")
        describe.restype = ct.POINTER(Metadata)
        metadata = describe().contents
        self.slots = []
        for a in metadata.arguments[: metadata.num_arguments]:
            # Halide numbers repeated function names: y, y$1, ...
            # The outputs of a function with several values are y.0, y.1, ...
            name = re.sub(r"\$\d+", "", a.name.decode())
            self.slots.append(Slot(name, a.kind != 0, a.dimensions, a.type.dtype()))

    def bind(self, **arguments: View | np.ndarray | int | float) -> Call:
        """The kernel with these arguments. Raises KernelError when a name, type or number of dimensions differs."""
        if names := {s.name for s in self.slots} ^ set(arguments):
            takes = ", ".join(s.name for s in self.slots)
            raise KernelError(f"{self.name} takes {takes}; check {', '.join(sorted(names))}")
        values = []
        for slot in self.slots:
            value = arguments[slot.name]
            if not slot.is_buffer:
                values.append(np.ctypeslib.as_ctypes_type(slot.dtype)(value))
                continue
            view = value if isinstance(value, View) else View.of(value)
            if view.dtype != slot.dtype or len(view.dims) != slot.dimensions:
                raise KernelError(f"{self.name}: {slot.name} must be {slot.dtype} with {slot.dimensions} dimensions, "
                                  f"got {view.dtype} with {len(view.dims)}")
            values.append(view.buffer())
        return Call(self, values)


class Library:
    """The kernels of one instruction set."""

    def __init__(self, path: Path, isa: str, names: Iterable[str]):
        self.isa, self.names = isa, frozenset(names)
        keep_freed_memory()
        self.handle = ct.CDLL(str(path))
        self._errors = threading.local()
        self._handler = ERROR_HANDLER(self._note)  # kept: the library calls it for as long as it lives
        self.handle.halide_set_error_handler(self._handler)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(before=self._before_fork, after_in_parent=LOCK.release, after_in_child=LOCK.release)
        self._threads = None
        self._kernels: dict[str, Kernel] = {}

    def _note(self, context, message):
        self._errors.text = message.decode(errors="replace").strip()

    def _before_fork(self):
        """End the threads, which a child would not have; parent and child make new ones when they need them."""
        LOCK.acquire()
        self.handle.halide_shutdown_thread_pool()

    def last_error(self) -> str:
        """What the last failed call of this thread said."""
        return getattr(self._errors, "text", "the kernel failed and did not say why")

    @property
    def precisions(self) -> tuple[str, ...]:
        """What the products of Winograd's kernels can be computed in, the fastest first."""
        return (*["int16"] * ("winograd_int16" in self.names), "float32")

    def kernel(self, name: str) -> Kernel:
        """Raises KernelError when the build has no kernel of that name."""
        if name not in self._kernels:
            if name not in self.names:
                raise KernelError(f"this build has no kernel {name!r} for {self.isa}; rebuild with `pip install .`")
            self._kernels[name] = Kernel(self, name)
        return self._kernels[name]

    def run(self, calls: Iterable[Call]) -> None:
        """Run calls in order, with the number of threads in force."""
        count = threads()
        with LOCK:
            if count != self._threads:
                self.handle.halide_set_num_threads(count)
                self._threads = count
            for call in calls:
                call()

    def tiles(self, stem: str) -> tuple[int, ...]:
        """The tile widths a kernel was compiled for: names `stem_N`."""
        widths = (n.removeprefix(stem + "_") for n in self.names if n.startswith(stem + "_"))
        return tuple(sorted(int(w) for w in widths if w.isdigit()))


def isas(folder: Path | None = None) -> list[str]:
    """Instruction sets that were built and that this machine can execute, best last.

    Raises NoKernels when nothing was built, or nothing this machine can execute.
    """
    folder = folder or FOLDER
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
    except FileNotFoundError:
        raise NoKernels("the kernels have not been compiled; run `pip install .` in Pellucid's source folder, "
                        "or `python -m pellucid.kernels.build` where Halide is installed; "
                        f"or install PyTorch, which then computes instead: {GET_TORCH}") from None
    usable = [name for name, entry in manifest.items() if _can_execute(folder / entry["file"], entry["features"])]
    if not usable:
        wanted = "; ".join(f"{n} needs {', '.join(e['needs']) or 'another processor'}" for n, e in manifest.items())
        raise NoKernels(f"Pellucid was built for a better machine than this one ({wanted}); "
                        "rebuild it here: pip install --force-reinstall --no-cache-dir .; or install PyTorch, which "
                        f"then computes instead: {GET_TORCH}")
    return usable


def _can_execute(path: Path, features: list[int]) -> bool:
    """Ask the library's own run time, whose code is compiled for no particular instruction set."""
    try:
        handle = ct.CDLL(str(path))
    except OSError:  # another architecture's library
        return False
    words = (ct.c_uint64 * len(features))(*features)
    return bool(handle.halide_can_use_target_features(len(features), words))


def compiled() -> bool:
    """Whether there are kernels that this machine can execute."""
    try:
        return bool(library())
    except NoKernels:
        return False


@cache
def library(isa: str | None = None) -> Library:
    """The kernels for an instruction set: the given one, else PELLUCID_ISA, else the best this machine executes.

    Raises NoKernels when there is none, ValueError when the named one cannot be used here.
    """
    usable = isas()
    isa = isa or os.environ.get("PELLUCID_ISA") or usable[-1]
    if isa not in usable:
        raise ValueError(f"no kernels for {isa!r} here; this build and machine have {', '.join(usable)}")
    entry = json.loads((FOLDER / "manifest.json").read_text())[isa]
    return Library(FOLDER / entry["file"], isa, entry["kernels"])
