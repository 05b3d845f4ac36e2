"""The table of a network's layers: what each puts out, holds, computes and sees."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .geometry import ReceptiveField
from .layers.base import Shape

if TYPE_CHECKING:
    from .network import Network

WIDTH = 120  # columns at most
HEADINGS = ("layer", "kind", "output", "kernel", "parameters", "multiply-adds", "receptive field", "memory")
MEANING = "For one image: multiply-adds of the forward pass (each is two FLOPs), bytes of output in float32."
ALIGNED = "<<<<>>>>"
NAME, KERNEL = 0, 3  # the columns that may be shortened, but not below
SHORTEST = 12
GAP = "  "


def summary(network: Network) -> str:
    """The layers of a network in a table of at most 120 columns, with a row of totals.

    Multiply-adds and memory are for one image: memory is the layer's output in float32, in bytes. Parameters are
    the trainable ones; running statistics are counted below the table.
    """
    *each, total = rows(network)
    widths = _widths([HEADINGS, *each, total])
    rule = "-" * (sum(widths) + len(GAP) * (len(widths) - 1))
    lines = [_line(HEADINGS, widths), rule, *(_line(row, widths) for row in each), rule, _line(total, widths)]
    lines += ["", MEANING]
    if fixed := sum(p.size for p in network.parameters().values() if not p.trainable):
        lines.append(f"Not counted as parameters: {fixed:,} running statistics, which no gradient moves.")
    return "\n".join(lines)


def rows(network: Network) -> list[tuple[str, ...]]:
    """The table's texts under `HEADINGS`: the input, each layer, and the totals."""
    counts, macs = network.parameter_counts, network.macs
    memory, fields = network.activation_bytes, network.receptive_fields
    return [
        ("input", "", by(network.input_shape), "", "", "", "", ""),
        *((
            node.name, type(node.layer).__name__, by(network.shapes[node.name]),
            node.layer.kernel_text(*network.input_shapes(node)),
            f"{counts[node.name]:,}", f"{macs[node.name]:,}", field_text(fields[node.name]), f"{memory[node.name]:,}",
        ) for node in network.nodes),
        ("total", "", by(network.output_shape), "",
         f"{sum(counts.values()):,}", f"{sum(macs.values()):,}", "", f"{sum(memory.values()):,}"),
    ]  # fmt: skip


def by(shape: Shape) -> str:
    """(28, 28, 1) -> 28x28x1."""
    return "x".join(map(str, shape))


def field_text(field: tuple[ReceptiveField, ...] | None) -> str:
    """What one position sees: `5x5` of the input's positions, or `all` of it."""
    return "all" if field is None else by(tuple(f.size for f in field)) or "1"


def _widths(rows: list[tuple[str, ...]]) -> list[int]:
    """The width of each column; where the table would be too wide, the widest of names and kernels gives way."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    excess = sum(widths) + len(GAP) * (len(widths) - 1) - WIDTH
    for _ in range(excess):
        widest = max((NAME, KERNEL), key=lambda column: widths[column])
        widths[widest] = max(widths[widest] - 1, SHORTEST)
    return widths


def _line(row: tuple[str, ...], widths: list[int]) -> str:
    cells = []
    for column, (text, width, side) in enumerate(zip(row, widths, ALIGNED, strict=True)):
        if len(text) > width:  # of a nested name the end tells most
            text = "..." + text[len(text) - width + 3 :] if column == NAME else text[: width - 3] + "..."
        cells.append(f"{text:{side}{width}}")
    return GAP.join(cells).rstrip()
