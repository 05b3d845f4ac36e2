"""What the machine can do at most: multiply-adds and bytes a second, by kernels that Halide compiles on the spot.

Every thread works for itself: the multiply-adds on registers alone, the others on memory of the thread's own. Rates
are the best of several runs, since whatever disturbs a run only makes it slower. `roofline.py` prints them all.
"""

from __future__ import annotations

import time
from functools import cache
from math import prod
from pathlib import Path

import halide as hl
import numpy as np

from pellucid.engine.tensor import aligned
from pellucid.kernels.build import ISAS, host_isa

F32 = hl.Float(32)
SECONDS = 0.02  # that a run takes at least: many times what waking the threads does
CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
USUAL = {"L1": (32 << 10, 1), "L2": (512 << 10, 1), "L3": (32 << 20, 64)}  # where the system does not say


def gflops(threads: int, rounds: int = 9) -> float:
    """Peak rate of float32 multiply-adds, in GFLOP/s; a multiply-add counts as two."""
    out = np.zeros((threads, *_registers()), np.float32)
    run = _multiply_adds()
    return 2 * out.size / _best(lambda repeats: run(repeats, 0.999, 0.001, out), rounds) / 1e9


def bandwidth(threads: int, size: int, rounds: int = 5) -> dict[str, float]:
    """GB/s over `size` bytes of memory a thread, gone through again and again: `read`, and `copy` from one half to the
    other, where bytes read and bytes written count alike."""
    count = size // 4 // prod(_registers())
    memory, sums = _zeros(threads, count), np.zeros((threads, *_registers()), np.float32)
    source, target = (_zeros(threads, count // 2) for _ in range(2))
    read, copy = _reader(), _copier()
    return {"read": memory.nbytes / _best(lambda repeats: read(repeats, memory, sums), rounds) / 1e9,
            "copy": 2 * source.nbytes / _best(lambda repeats: copy(repeats, 1.0, source, target), rounds) / 1e9}


def _zeros(threads: int, count: int) -> np.ndarray:
    """`count` blocks for each thread. They begin on a cache line, and are written to, so that memory is behind them."""
    array = aligned(threads * count * prod(_registers()), np.float32).reshape(threads, count, *_registers())
    array[:] = 0
    return array


def copy_bandwidth(threads: int) -> float:
    """GB/s at which memory beyond the caches is copied, bytes read and bytes written together."""
    return bandwidth(threads, working_sets(threads)["memory"])["copy"]


def working_sets(threads: int) -> dict[str, int]:
    """Bytes a thread that lie in each level: half of a cache of its own, a quarter of its share of one that others
    may be using, and for memory eight times the largest cache, all threads together."""
    caches = {}
    for folder in sorted(CACHES.glob("index*")):
        level, kind, size, sharing = ((folder / name).read_text().strip()
                                      for name in ("level", "type", "size", "shared_cpu_list"))
        if kind != "Instruction":
            caches[f"L{level}"] = (int(size.removesuffix("K")) << 10, _count(sharing))
    caches = caches or USUAL
    sets = {name: size // (4 if name == "L3" else 2) // min(threads, sharing)
            for name, (size, sharing) in caches.items()}
    return {**sets, "memory": 8 * max(size for size, _ in caches.values()) // threads}


def _count(processors: str) -> int:
    """How many there are in a list such as "0-3,8"."""
    ends = [part.split("-") for part in processors.split(",")]
    return sum(int(end[-1]) - int(end[0]) + 1 for end in ends)


def _best(run, rounds: int) -> float:
    """Seconds of one repeat in the fastest of `rounds` runs, each of enough repeats to be timed."""
    def timed(repeats: int) -> float:
        start = time.perf_counter()
        run(repeats)
        return time.perf_counter() - start

    repeats = 1
    while (seconds := timed(repeats)) < SECONDS:
        repeats *= 2 if seconds > SECONDS / 4 else 4
    return min(timed(repeats) for _ in range(rounds)) / repeats


# The kernels. Each goes `repeats` times through its loop, and `t` counts the threads.


def _registers() -> tuple[int, int]:
    """Vectors worked on at once, and the numbers in each: as many as fit into the registers beside two constants, more
    than the latency of a multiply-add asks for on any machine."""
    _, _, lanes, registers = ISAS[host_isa()]
    return registers - 4, lanes


def _variables():
    return [hl.Var(name) for name in ("v", "q", "block", "t")]


def _memory(name: str) -> hl.ImageParam:
    """(v, q, block, t): threads have memory of their own, gone through block by block."""
    vectors, lanes = _registers()
    memory = hl.ImageParam(F32, 4, name)
    memory.dim(0).set_bounds(0, lanes)
    memory.dim(1).set_bounds(0, vectors).set_stride(lanes)
    return memory


def _accumulated(s: hl.Func, r: hl.RDom, arguments: list):
    """The kernel that computes s, a thread's accumulators, wholly in registers and then writes it out."""
    vectors, lanes = _registers()
    v, q, _, t = _variables()
    out = hl.Func("out")
    out[v, q, t] = s[v, q, t]
    out.bound(v, 0, lanes).bound(q, 0, vectors).vectorize(v).unroll(q).parallel(t)
    s.compute_at(out, t).vectorize(v).unroll(q)
    s.update().reorder(v, q, *(r[i] for i in range(r.dimensions())), t).vectorize(v).unroll(q)
    return out.compile_to_callable(arguments, hl.get_host_target())


@cache
def _multiply_adds():
    v, q, _, t = _variables()
    repeats, a, b = hl.Param(hl.Int(32), "repeats"), hl.Param(F32, "a"), hl.Param(F32, "b")
    r, s = hl.RDom([(0, repeats)]), hl.Func("s")
    s[v, q, t] = hl.cast(F32, v + q)
    s[v, q, t] = hl.select(r[0] < 0, 0.0, s[v, q, t] * a + b)  # never the first, but a loop has to be mentioned
    return _accumulated(s, r, [repeats, a, b])


@cache
def _reader():
    v, q, _, t = _variables()
    repeats, memory, s = hl.Param(hl.Int(32), "repeats"), _memory("memory"), hl.Func("s")
    r = hl.RDom([(0, memory.dim(2).extent()), (0, repeats)])
    s[v, q, t] = 0.0
    s[v, q, t] += memory[v, q, r[0], t]
    return _accumulated(s, r, [repeats, memory])


@cache
def _copier():
    """Multiplies what it copies, lest the C library's memcpy be put in its place."""
    v, q, block, t = _variables()
    repeats, a, memory = hl.Param(hl.Int(32), "repeats"), hl.Param(F32, "a"), _memory("memory")
    vectors, lanes = _registers()
    r, out = hl.RDom([(0, memory.dim(2).extent()), (0, repeats)]), hl.Func("out")
    out[v, q, block, t] = hl.undef(F32)
    out[v, q, r[0], t] = a * memory[v, q, r[0], t]
    out.bound(v, 0, lanes).bound(q, 0, vectors)
    out.update().reorder(v, q, r[0], r[1], t).vectorize(v).unroll(q).parallel(t)
    return out.compile_to_callable([repeats, a, memory], hl.get_host_target())
