"""A window slides over an image: which output position meets which input position, under which tap."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

from ..geometry import Window

Index = tuple[int, ...]  # one integer a spatial axis


def meetings(input_size: Sequence[int], axes: Sequence[Window]) -> Iterator[tuple[Index, Index, Index]]:
    """Every (position, tap, source): the output at `position` sees the input at `source` under tap `tap`.

    Taps that lie on padding meet nothing and are left out. The taps of one position come in scan order, row
    by row.
    """
    along = [
        [(o, i, p) for o in range(w.output_size(n)) for i, p in enumerate(w.inputs(o)) if 0 <= p < n]
        for n, w in zip(input_size, axes, strict=True)
    ]
    for meeting in product(*along):
        position, tap, source = zip(*meeting, strict=True)
        yield position, tap, source
