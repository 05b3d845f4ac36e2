"""Which kernels run a 3x3 convolution of stride 1: direct or Winograd's."""

from __future__ import annotations


def choose(isa: str, direction: str, size: tuple[int, int], channels: int, filters: int) -> str:
    return "winograd" if channels >= 32 and filters >= 32 and min(size) >= 4 else "direct"
