"""What the machine offers: threads for the kernels, and memory. Results do not depend on either, to the bit."""

from __future__ import annotations

import math
import os
from functools import cache
from pathlib import Path

_chosen: int | None = None


@cache
def available() -> int:
    """Processors this process may use: its affinity, or less where a cgroup limits its time. Asked once."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cgroup_quota()
    return max(1, min(count, math.ceil(quota)) if quota else count)


def cgroup_quota(root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")) -> float | None:
    """Processors' worth of time the process's control groups allow, or None without a limit (cgroup v2 and v1)."""
    limits = []
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:  # version 2: the limit may stand at any level above
            folder = root / path.lstrip("/")
            limits += [_ratio(*text.split()) for p in (folder, *folder.parents) if (text := _read(p / "cpu.max"))]
        elif "cpu" in controllers.split(","):
            for folder in (root / "cpu" / path.lstrip("/"), root / "cpu"):
                if (quota := _read(folder / "cpu.cfs_quota_us")) and (period := _read(folder / "cpu.cfs_period_us")):
                    limits.append(_ratio(quota, period))
    return min((v for v in limits if v), default=None)


def _ratio(quota: str, period: str = "100000") -> float | None:
    return None if quota in ("max", "-1") else int(quota) / int(period)


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def memory() -> float:
    """Bytes of memory the machine has; infinity where the system does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return float("inf")


def threads() -> int:
    """The number in force: `set_threads`, else PELLUCID_THREADS, else all available processors.

    Raises ValueError when PELLUCID_THREADS is not a positive integer.
    """
    if _chosen:
        return _chosen
    if text := os.environ.get("PELLUCID_THREADS"):
        if not text.isdecimal() or int(text) < 1:
            raise ValueError(f"PELLUCID_THREADS must be a positive integer, got {text!r}")
        return int(text)
    return available()


def set_threads(count: int) -> None:
    """Use `count` threads from now on. Raises ValueError for less than 1."""
    global _chosen
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise ValueError(f"threads must be an integer of at least 1, got {count!r}")
    _chosen = count
