"""What every benchmark shares: the machine's name and peak, and fair timing of rivals."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

SETTLE = 0.02  # seconds before a run: the last rival's idle threads spin for a while and would take its processors


def cpu() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def interleaved(rivals: dict[str, Callable[[], object]], rounds: int, warmup: int = 3) -> dict[str, list[float]]:
    """Seconds of each run of each rival, taken in turn so that a machine's drift meets all alike."""
    for run in rivals.values():
        for _ in range(warmup):
            run()
    seconds: dict[str, list[float]] = {name: [] for name in rivals}
    for _ in range(rounds):
        for name, run in rivals.items():
            time.sleep(SETTLE)
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def medians(seconds: dict[str, list[float]]) -> dict[str, float]:
    return {name: statistics.median(values) for name, values in seconds.items()}


def peak_gflops(threads: int, rounds: int = 7, size: int = 1536) -> float:
    """The best rate of a large float32 matrix product by PyTorch's library: GFLOP/s, two FLOPs a multiply-add."""
    import torch

    torch.set_num_threads(threads)
    a, b = torch.rand(size, size), torch.rand(size, size)
    best = min(interleaved({"product": lambda: a @ b}, rounds)["product"])
    return 2 * size**3 / best / 1e9
