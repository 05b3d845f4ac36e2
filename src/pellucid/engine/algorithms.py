"""Which kernels compute a 3x3 convolution of stride 1: direct ones, or Winograd's.

Read from `algorithms.json`, which `benchmarks/algorithms.py` writes from measurements: for an instruction set and a
direction ("forward", "input", "weight"), rows of [height, width, channels, filters, time of the direct kernels as a
multiple of the time of Winograd's]. The batch is no part of it, so that it changes no result.
"""

from __future__ import annotations

import json
from functools import cache
from math import log2
from pathlib import Path

from ..layers.winograd import LEAST

TABLE = Path(__file__).parent / "algorithms.json"


@cache
def table() -> dict[str, dict[str, list[list[float]]]]:
    return json.loads(TABLE.read_text())


@cache
def choose(isa: str, direction: str, size: tuple[int, int], channels: int, filters: int) -> str:
    """"winograd" or "direct": what was faster for the measured shape nearest to this one.

    Distance is the sum of the logarithms of how many times larger or smaller the map, the channels and the filters are.
    Winograd's tiles of 4x4 overhang a map: the more so than they do the measured one, the less they gain. An
    instruction set that was not measured goes by the first one that was.
    """
    if min(channels, filters) < LEAST or min(size) < 2:
        return "direct"
    measured = table().get(isa) or next(iter(table().values()))

    def distance(row: list[float]) -> float:
        height, width, c, k, _ = row
        return (abs(log2(height * width / (size[0] * size[1]))) + abs(log2(c / channels)) + abs(log2(k / filters)))

    height, width, *_, ratio = min(measured[direction], key=distance)
    return "winograd" if ratio * _used(*size) / _used(height, width) > 1 else "direct"


def _used(height: int, width: int) -> float:
    """The share of a map's tiles of 4x4 that lies in the map."""
    return height * width / (16 * -(-height // 4) * -(-width // 4))
