"""How kernels see a convolution's filters, which the parameters hold in PyTorch's layout (O, I / groups, kh, kw)."""

from __future__ import annotations

from collections.abc import Sequence


def filter_view(b, size: tuple[int, int], inside: int, out: int, groups: int = 1, *,
                taps: tuple[Sequence[int], Sequence[int]] | None = None, transposed: bool = False,
                gradient: bool = False):
    """The node's weight as (column, row, input of the group, output of the group, group).

    `size` is (kh, kw), `inside` and `out` channels of a group as the kernel reads and writes them. `taps` picks rows
    and columns, evenly spaced, also backwards. Transposed, what the weight calls outputs is read and its inputs are
    written, as the gradient to the input has it. `gradient` gives the place of the weight's gradient.
    """
    height, width = size
    rows, columns = taps or (range(height), range(width))
    row, column = (t[1] - t[0] if len(t) > 1 else 1 for t in (rows, columns))
    plane = height * width
    of_input, of_output = (plane * out, plane) if transposed else (plane, plane * inside)
    return b.filters("weight", rows[0] * width + columns[0], (len(columns), column), (len(rows), row * width),
                     (inside, of_input), (out, of_output), (groups, plane * inside * out), gradient=gradient)
