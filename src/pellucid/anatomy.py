"""Where a network's parameters and multiply-adds are, how its receptive field grows, what stacks of filters save.

All of it follows from the graph at hand, by counting; `describe` is the data, `text` the same for people.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from .geometry import Window, conv_macs
from .layers import Conv

if TYPE_CHECKING:
    from .network import Network, Node

WIDTH = 80  # columns at most
MOST = 16  # rows of a part; of longer ones the beginning and the end are shown

Costs = tuple[dict[str, int], dict[str, int]]  # parameters and multiply-adds of each node


def describe(network: Network) -> dict:
    """The anatomy of a network, as JSON.

    `parts`: for each first part of the layers' names (`features`, `layer1`; a layer without one is its own), and
    `kinds`: for each kind of layer with weights: parameters, multiply-adds for one image, and their shares of all.
    `fields`: for each size of map along the way: its distance in pixels of the input (`stride`), its layers with
    windows, and the receptive field before and after them, along the first axis. `stacks`: for each run of convolutions
    of stride 1 with nothing but pointwise layers between: their parameters and multiply-adds, and those of the one
    convolution with the same receptive field, inputs and outputs. Equal ones are counted.
    """
    costs = network.parameter_counts, network.macs
    return {"parts": _shares(network, costs, lambda node: node.name.partition(".")[0]),
            "kinds": _shares(network, costs, lambda node: type(node.layer).__name__),
            "fields": _growth(network), "stacks": _stacks(network, costs)}


def _shares(network: Network, costs: Costs, group) -> list[dict]:
    counts, macs = costs
    sums: dict[str, list[int]] = {}
    for node in network.nodes:
        total = sums.setdefault(group(node), [0, 0])
        total[0] += counts[node.name]
        total[1] += macs[node.name]
    all_counts, all_macs = max(sum(counts.values()), 1), max(sum(macs.values()), 1)
    return [{"name": name, "parameters": p, "macs": m, "parameters_share": p / all_counts, "macs_share": m / all_macs}
            for name, (p, m) in sums.items() if p or m]


def _growth(network: Network) -> list[dict]:
    rows: list[dict] = []
    fields = network.receptive_fields
    for node in network.nodes:
        field, before = fields[node.name], fields[node.inputs[0]]
        windows = node.layer.windows(network.shapes[node.inputs[0]])
        if not field or not before or not windows or all(w.reach == w.stride == 1 for w in windows):
            continue
        if not rows or rows[-1]["stride"] != field[0].stride:
            rows.append({"stride": field[0].stride, "layers": 0, "first": node.name, "field_before": before[0].size})
        rows[-1].update(last=node.name, map=list(network.shapes[node.name]), field=field[0].size)
        rows[-1]["layers"] += 1
    return rows


def _stacks(network: Network, costs: Costs) -> list[dict]:
    found: dict[tuple, dict] = {}
    for run in _runs(network):
        for nodes in _kept(run, network):
            row = _compared(nodes, network, costs)
            key = tuple(map(str, (row["kernels"], row["channels"], row["map"])))
            found.setdefault(key, {**row, "first": nodes[0].name, "times": 0})["times"] += 1
    return list(found.values())


def _runs(network: Network) -> list[list[Node]]:
    """Convolutions one after another, of stride 1 from the second on, nothing but pointwise layers between them."""
    readers: dict[str, list[Node]] = {}
    for node in network.nodes:
        for name in node.inputs:
            readers.setdefault(name, []).append(node)
    runs, seen = [], set()
    for node in network.nodes:
        if not _plain(node) or node.name in seen:
            continue
        run, at = [node], node
        while len(following := readers.get(at.name, [])) == 1:
            (at,) = following
            if _plain(at) and _stride(at, network) == 1:
                run.append(at)
                seen.add(at.name)
            elif len(at.inputs) > 1 or not _pointwise(at, network):
                break
        if sum(_size(n, network) > 1 for n in run) > 1:
            runs.append(run)
    return runs


def _kept(run: list[Node], network: Network) -> list[list[Node]]:
    """A run, and its end from where on the number of channels stays the same, if that is something else."""
    start = len(run)
    filters = run[-1].layer.filters
    while start and network.shapes[run[start - 1].inputs[0]][-1] == run[start - 1].layer.filters == filters:
        start -= 1
    return [run, run[start:]] if 0 < start < len(run) - 1 else [run]


def _plain(node: Node) -> bool:
    return isinstance(node.layer, Conv) and node.layer.groups == 1


def _pointwise(node: Node, network: Network) -> bool:
    windows = node.layer.windows(network.shapes[node.inputs[0]])
    shape = network.shapes[node.name]
    return windows is not None and all(w == Window(1) for w in windows) and shape == network.shapes[node.inputs[0]]


def _stride(node: Node, network: Network) -> int:
    return max(w.stride for w in node.layer.windows(network.shapes[node.inputs[0]]))


def _size(node: Node, network: Network) -> int:
    return max(w.reach for w in node.layer.windows(network.shapes[node.inputs[0]]))


def _compared(nodes: list[Node], network: Network, costs: Costs) -> dict:
    """A run of convolutions, and the one that sees as much."""
    counts, macs = costs
    inputs = [network.shapes[n.inputs[0]] for n in nodes]
    axes = [n.layer.windows(shape) for n, shape in zip(nodes, inputs, strict=True)]
    # Later windows move in steps of the first one's stride; their own strides are 1.
    field = [first.reach + sum((w.reach - 1) * first.stride for w in rest) for first, *rest in zip(*axes, strict=True)]
    output = network.shapes[nodes[-1].name]
    channels, filters = inputs[0][-1], output[-1]
    single = prod(field) * channels * filters + filters * nodes[-1].layer.bias
    return {
        "kernels": [[w.size for w in a] for a in axes],
        "channels": [channels, *(n.layer.filters for n in nodes)], "map": list(output), "field": field,
        "parameters": sum(counts[n.name] for n in nodes), "macs": sum(macs[n.name] for n in nodes),
        "single_parameters": single, "single_macs": conv_macs(output[:-1], filters, field, channels, 1),
    }


# For people.


def text(network: Network) -> str:
    """What `describe` says, in tables of at most 80 columns. Tables that would be empty are left out."""
    found = describe(network)
    tables = []
    if len(found["parts"]) > 1:
        rows = [(r["name"], f"{r['parameters']:,}", _percent(r["parameters_share"]), f"{r['macs']:,}",
                 _percent(r["macs_share"])) for r in found["parts"]]
        tables.append(_table("Where the parameters and the multiply-adds are",
                             ("part", "parameters", "share", "multiply-adds", "share"), rows))
    if len(found["kinds"]) > 1:
        rows = [(r["name"], f"{r['parameters']:,}", _percent(r["parameters_share"]), f"{r['macs']:,}",
                 _percent(r["macs_share"])) for r in found["kinds"]]
        tables.append(_table("", ("kind", "parameters", "share", "multiply-adds", "share"), rows))
    if found["fields"]:
        rows = [(_by(r["map"]), r["last"], str(r["layers"]), str(r["stride"]), f"{r['field_before']} -> {r['field']}")
                for r in found["fields"]]
        tables.append(_table("How the receptive field grows (pixels of the input, along the first axis)",
                             ("map", "up to layer", "windows", "step", "field"), rows))
    if found["stacks"]:
        rows = []
        for r in found["stacks"]:
            times = f" ({r['times']} times)" if r["times"] > 1 else ""
            rows.append((_kernels(r["kernels"]) + times, _channels(r["channels"]), f"{r['parameters']:,}",
                         _short(r["macs"])))
            rows.append((f"  or one {_by(r['field'])}", "", f"{r['single_parameters']:,}", _short(r["single_macs"])))
        tables.append(_table("Small filters one after another, or one large filter that sees as much",
                             ("filters", "channels", "parameters", "multiply-adds"), rows, 2))
    return "\n\n".join(tables)


def _table(title: str, headings: tuple[str, ...], rows: list[tuple[str, ...]], together: int = 1) -> str:
    left = 1 if headings[0] in ("part", "kind") else 2  # columns of text
    if len(rows) > MOST:
        half = MOST // 2 // together * together
        rows = [*rows[:half], ("...", *("" for _ in headings[1:])), *rows[-half:]]
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    excess = sum(widths) + 2 * (len(widths) - 1) - WIDTH
    if excess > 0:
        give = max(range(left), key=lambda i: widths[i])
        widths[give] = max(widths[give] - excess, 8)
    lines = []
    for row in (headings, *rows):
        cells = [c if len(c) <= w else "..." + c[len(c) - w + 3:] for c, w in zip(row, widths, strict=True)]
        lines.append("  ".join(f"{c:<{w}}" if i < left else f"{c:>{w}}"
                               for i, (c, w) in enumerate(zip(cells, widths, strict=True))).rstrip())
    return "\n".join(([title, ""] if title else []) + lines)


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def _by(sizes: list[int]) -> str:
    return "x".join(map(str, sizes))


def _kernels(kernels: list[list[int]]) -> str:
    """3 of 3x3, where all are alike; else 1x1, 3x3, 1x1."""
    if all(k == kernels[0] for k in kernels):
        return f"{len(kernels)} of {_by(kernels[0])}"
    return ", ".join(map(_by, kernels))


def _channels(channels: list[int]) -> str:
    """64 > 64 > 64, or 64 throughout."""
    return f"{channels[0]} throughout" if len(set(channels)) == 1 else " > ".join(map(str, channels))


def _short(count: int) -> str:
    """In millions, with three digits: 1.85 G, 231 M, or all digits of a small one."""
    for size, letter in ((10**9, "G"), (10**6, "M")):
        if count >= size:
            return f"{count / size:.3g} {letter}"
    return f"{count:,}"
