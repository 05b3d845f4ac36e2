"""Measure which kernels are faster for a 3x3 convolution of stride 1, direct or Winograd's, and write it down.

    python benchmarks/algorithms.py [--write] [--rounds 7] [--threads N] [--json]

For a grid of map sizes and channels, each direction is timed by both kinds, taking turns. `--write` puts the ratios of
medians into `src/pellucid/engine/algorithms.json` under the instruction set in use; plans read them from there. Batches
are as large as makes some hundreds of milliseconds of work at most; they are no part of the table.
"""

from __future__ import annotations

import json
from unittest import mock

import numpy as np
from kernels import PASSES, ours
from machine import BUSY, arguments, described, interleaved, medians, record_header, teller
from problems import parse

import pellucid
from pellucid.engine import algorithms

# Side of the map, channels, filters.
GRID = [(112, 32, 64), (56, 64, 64), (28, 32, 32), (32, 64, 64), (14, 32, 64), (16, 64, 128), (8, 64, 64), (8, 32, 64),
        (4, 32, 64), (28, 128, 128), (16, 128, 128), (8, 128, 256), (14, 256, 256), (8, 256, 256), (4, 256, 512),
        (28, 512, 512), (14, 512, 512), (7, 512, 512), (4, 512, 512), (7, 128, 128), (2, 512, 512), (4, 128, 128)]
WORK = 8e9  # multiply-adds of a run: packing the filters is a small part of it, as it is in training
MOST = 128  # images


def ratios(side: int, channels: int, filters: int, rounds: int) -> dict[str, float]:
    """The direct kernels' time as a multiple of Winograd's, for each direction."""
    macs = side * side * channels * filters * 9
    n = int(max(min(WORK / macs, MOST), 1))
    problem = parse(f"n{n} h{side} w{side} c{channels} k{filters} k3x3 p1")
    made = {}
    for kind in ("direct", "winograd"):
        with mock.patch.object(algorithms, "choose", lambda *shape, kind=kind: kind):
            made[kind] = ours(problem, np.random.default_rng(0))
    found = {}
    for direction in PASSES:
        times = medians(interleaved({kind: calls[direction] for kind, calls in made.items()}, rounds, least=0.01))
        found[direction] = round(times["direct"] / times["winograd"], 3)
    return found


def main() -> None:
    parser = arguments(__doc__, rounds=7)
    parser.add_argument("--write", action="store_true", help="write the table that plans read")
    options = parser.parse_args()
    pellucid.set_threads(options.threads)
    record, tell = record_header("algorithms"), teller(options.json)
    tell(described(record) + "; time of direct kernels / time of Winograd's")
    rows = {direction: [] for direction in PASSES}
    for side, channels, filters in GRID:
        found = ratios(side, channels, filters, options.rounds)
        for direction, ratio in found.items():
            rows[direction].append([side, side, channels, filters, ratio])
        shape = f"h{side} w{side} c{channels} k{filters}"
        tell(f"  {shape:22}" + "".join(f"{direction} {ratio:5.2f}  " for direction, ratio in found.items()))
    if options.write and record["busy"] > BUSY:
        tell("not written: the machine was busy")
    elif options.write:
        table = algorithms.table() if algorithms.TABLE.exists() else {}
        table[record["isa"]] = rows
        lines = [f' "{isa}": {{\n' + ",\n".join(
            f'  "{direction}": [\n' + ",\n".join(f"   {json.dumps(row)}" for row in values) + "\n  ]"
            for direction, values in directions.items()) + "\n }" for isa, directions in table.items()]
        algorithms.TABLE.write_text("{\n" + ",\n".join(lines) + "\n}\n")
        tell(f"written: {algorithms.TABLE}")
    if options.json:
        print(json.dumps({**record, "rounds": options.rounds, "ratios": rows}))


if __name__ == "__main__":
    main()
