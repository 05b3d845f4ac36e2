"""What every benchmark shares: the machine's name and peak, how rivals are timed, and how a record begins.

    python benchmarks/machine.py    # prints the machine's name as it stands in the names of records
"""

from __future__ import annotations

import argparse
import math
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pellucid

BUSY = 0.1  # share of the processors that others may take before figures are in doubt
SETTLE = 0.025  # seconds before a run: the last rival's idle threads spin for a while and would take its processors


def cpu() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def slug() -> str:
    """The processor's name for file names: amd-epyc."""
    return re.sub(r"[^a-z0-9]+", "-", cpu().lower()).strip("-")


def others() -> float:
    """The share of all processors' time that other programs, or other guests of the host, take at the moment; 0 where
    the system does not say."""
    def counted() -> tuple[int, int]:
        times = list(map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]))
        return sum(times), times[3] + times[4]  # of these idle, or waiting for a disk

    try:
        total, idle = counted()
        time.sleep(0.5)
        now_total, now_idle = counted()
    except OSError:
        return 0.0
    return 1 - (now_idle - idle) / max(now_total - total, 1)


# Options and records.


def arguments(doc: str, rounds: int) -> argparse.ArgumentParser:
    """The command line that benchmarks of rivals share, explained by the module's docstring."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=rounds, help="runs of each rival (default %(default)s)")
    parser.add_argument("--threads", type=int, default=pellucid.threads(), help="of every rival (default %(default)s)")
    parser.add_argument("--json", action="store_true", help="one JSON record; the table goes to standard error")
    return parser


def record_header(name: str, packages: Iterable[str] = ()) -> dict:
    """How every record begins: what was measured, on what, with which versions. No date, so that the record of an
    unchanged machine differs in its figures only. `packages` that are not installed are left out. Says so on standard
    error where the machine is not quiet."""
    from pellucid.engine.library import library

    if (share := others()) > BUSY:
        say(f"{name}: other programs take {100 * share:.0f}% of the processors; run it again on a quiet machine")
    versions = {"python": platform.python_version(), "pellucid": pellucid.__version__}
    for package in packages:
        if found := installed(package):
            versions[package] = found
    return {"benchmark": name, "cpu": cpu(), "threads": pellucid.threads(), "isa": library().isa,
            "busy": round(share, 2), "versions": versions}


def described(record: dict) -> str:
    """The header in a line, for a table's top."""
    versions = ", ".join(f"{name} {v}" for name, v in record["versions"].items() if name != "python")
    return f"{record['cpu']} ({record['isa']}), threads: {record['threads']}; {versions}"


def installed(package: str) -> str | None:
    """Its version, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def say(text: str) -> None:
    """On standard error, which records leave free."""
    print(text, file=sys.stderr, flush=True)


def teller(as_json: bool) -> Callable[[str], None]:
    """What prints the lines of a table: on standard error where standard output is for the record."""
    return say if as_json else partial(print, flush=True)


# Timing.


def interleaved(rivals: dict[str, Callable[[], object]], rounds: int, warmup: int = 3,
                least: float = 0.0) -> dict[str, list[float]]:
    """Seconds of each run of each rival, taken in turn so that a machine's drift meets all alike.

    A run is made of as many calls as take `least` seconds, and its time is that of one of them.
    """
    def timed(call: Callable[[], object], calls: int) -> float:
        start = time.perf_counter()
        for _ in range(calls):
            call()
        return (time.perf_counter() - start) / calls

    calls = {name: math.ceil(least / min(timed(call, 1) for _ in range(warmup))) or 1 for name, call in rivals.items()}
    seconds: dict[str, list[float]] = {name: [] for name in rivals}
    for _ in range(rounds):
        for name, call in rivals.items():
            time.sleep(SETTLE)
            seconds[name].append(timed(call, calls[name]))
    return seconds


def medians(seconds: dict[str, list[float]]) -> dict[str, float]:
    return {name: statistics.median(values) for name, values in seconds.items()}


def best_peer(times: dict[str, float], ours: str = "pellucid") -> tuple[str, float]:
    """The fastest of the others, and its time as a multiple of ours: above 1 we are faster."""
    name = min((n for n in times if n != ours), key=times.get)
    return name, times[name] / times[ours]


def peak_gflops(threads: int) -> float:
    """THE peak that shares are of: the machine's rate of multiply-adds on registers alone, in GFLOP/s."""
    from ceilings import gflops  # Halide is slow to import

    return gflops(threads)


if __name__ == "__main__":
    print(slug())
