"""What every kernel file shares: the machine it is scheduled for, the shapes of its arguments, the registry.

A kernel is a function from a `Machine` to a `Program`; `@kernel("name")` exports it under that C name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import halide as hl

from ..geometry import BLOCK as LANES_OF_BLOCK  # channels side by side: the innermost dimension of every activation

# name: (file it is written in, program for a machine or None where the machine has no use for it)
KERNELS: dict[str, tuple[str, Callable[[Machine], Program | None]]] = {}


@dataclass(frozen=True)
class Machine:
    """An instruction set as a schedule sees it."""

    name: str
    lanes: int  # float32 values in a vector register
    registers: int  # vector registers

    @property
    def vectors(self) -> int:
        """Registers that one block of channels fills."""
        return LANES_OF_BLOCK // self.lanes

    @property
    def pair(self) -> int:
        """Blocks of channels in a register tile: two where one block is a single register."""
        return max(2 // self.vectors, 1)

    def half(self) -> int:
        """Columns of a block that fill half of the registers with accumulators, at most 8: enough to hide the latency
        of a multiply-add."""
        return max(min(self.registers // 2 // self.vectors, 8), 1)

    def most(self, blocks: int) -> int:
        """Columns of so many blocks whose accumulators fit in the registers beside what they are made of: the blocks'
        vectors and one number. At most 8."""
        width = self.vectors * blocks
        return max(min((self.registers - 1) // width - 1, 8), 1)

    def lanes_of(self, sums: int) -> int:
        """Channels of which so many sums each fit in the registers, with two to spare; at least one register's."""
        return min(max((self.registers - 2) // sums, 1) * self.lanes, LANES_OF_BLOCK)


@dataclass(frozen=True)
class Program:
    """A scheduled pipeline: its outputs, then its inputs and scalars. Names are the argument names of a call."""

    outputs: list[hl.Func]
    arguments: list


def kernel(name: str, *options, when: Callable[[Machine], bool] = lambda machine: True):
    """Register a program under its exported name, for the machines that `when` admits.

    Options are passed on after the machine.
    """

    def register(build):
        if name in KERNELS:
            raise ValueError(f"two kernels are named {name}")
        topic = build.__module__.rpartition(".")[2]
        KERNELS[name] = topic, lambda machine: build(machine, *options) if when(machine) else None
        return build

    return register


def variables(names: str) -> list[hl.Var]:
    """`variables("c x y")` -> three loop variables."""
    return [hl.Var(n) for n in names.split()]


def pin(buffer):
    """Fix dimension 0 of an argument to one block of channels, and return it."""
    buffer.dim(0).set_bounds(0, LANES_OF_BLOCK).set_stride(1)
    return buffer


def blocked(name: str, kind: hl.Type | None = None):
    """An activation: dimensions (c, x, y, b, n), channel 16 b + c."""
    return pin(hl.ImageParam(kind or hl.Float(32), 5, name))


def channels(name: str):
    """One value a channel: dimensions (c, b)."""
    return pin(hl.ImageParam(hl.Float(32), 2, name))


def places(t, of: tuple, width, height, x):
    """Where window or tile number t = column + width (row + height image) lies in a map x: (a function that does the
    divisions, to be computed once for all channels, column, row, image).

    `of` are the variables that t is written in. Past the last position it is the last image again.
    """
    at = hl.Func("at")
    at[of] = (t % width, (t / width) % height, t / (width * height))
    column, row, image = (at[of][i] for i in range(3))
    return at, hl.clamp(column, 0, width - 1), hl.clamp(row, 0, height - 1), hl.clamp(image, 0, x.dim(4).max())
