"""The machine's roofline: its peak rate of multiply-adds and its bandwidth by level, for one thread and for all.

    python benchmarks/roofline.py [--threads N] [--rounds 9] [--json]

The peak is that of multiply-adds on registers alone: nothing that computes in float32 exceeds it, and it is what the
other benchmarks give shares of. Bandwidths are over memory that each thread has for itself and that lies in the level
named: read and added up, or copied, where bytes read and bytes written both count. The rate of a large matrix product
by PyTorch stands beside them for comparison. All are the best of several runs. A program that does fewer multiply-adds
for a byte than the last line says is limited by memory.
"""

from __future__ import annotations

import json
import time

from ceilings import bandwidth, gflops, working_sets
from machine import arguments, described, installed, record_header, say, teller

import pellucid

SIZE = 1536  # rows and columns of the matrices


def matmul_gflops(threads: int, rounds: int) -> float:
    """The best rate of a large float32 matrix product by PyTorch's library."""
    import torch

    torch.set_num_threads(threads)
    a, b = torch.rand(SIZE, SIZE), torch.rand(SIZE, SIZE)
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        a @ b
        seconds.append(time.perf_counter() - start)
    return 2 * SIZE**3 / min(seconds) / 1e9


def measured(threads: int, rounds: int) -> dict:
    """All of it for that many threads."""
    found = {"gflops": round(gflops(threads, rounds), 1)}
    if installed("torch"):
        found["matmul_gflops"] = round(matmul_gflops(threads, rounds), 1)
    levels = found["gb_per_second"] = {}
    for level, size in working_sets(threads).items():
        rates = bandwidth(threads, size, rounds)
        levels[level] = {"kib_a_thread": size >> 10, **{kind: round(rate, 1) for kind, rate in rates.items()}}
    return found


def table(results: dict[str, dict]) -> list[str]:
    """A row a figure, a column a number of threads."""
    columns = list(results.values())
    lines = [f"{'threads':46}" + "".join(f"{threads:>10}" for threads in results)]

    def row(title: str, values, unit: str) -> None:
        lines.append(f"{title:46}" + "".join(f"{v:10.1f}" for v in values) + f" {unit}")

    row("multiply-adds", [c["gflops"] for c in columns], "GFLOP/s")
    if "matmul_gflops" in columns[0]:
        row(f"matrix product ({SIZE}), PyTorch", [c["matmul_gflops"] for c in columns], "GFLOP/s")
    for level in columns[0]["gb_per_second"]:
        for kind in ("read", "copy"):
            sizes = "/".join(f"{c['gb_per_second'][level]['kib_a_thread']}" for c in columns)
            row(f"{level} {kind}, {sizes} KiB a thread", [c["gb_per_second"][level][kind] for c in columns], "GB/s")
    row("peak / bandwidth of memory", [c["gflops"] / c["gb_per_second"]["memory"]["read"] for c in columns],
        "FLOPs a byte read")
    return lines


def main() -> None:
    options = arguments(__doc__, rounds=9).parse_args()
    pellucid.set_threads(options.threads)
    if not installed("torch"):
        say("roofline: without the matrix product; pip install torch for it")
    record = record_header("roofline", ["halide", "torch"])
    record["by_threads"] = {str(n): measured(n, options.rounds) for n in sorted({1, options.threads})}
    tell = teller(options.json)
    for line in [described(record), *table(record["by_threads"])]:
        tell(line)
    if options.json:
        print(json.dumps(record))


if __name__ == "__main__":
    main()
