"""Deletion and insertion of every method of `pellucid.explain` that gives maps, on test images of a trained network.

    python benchmarks/explanations.py DATA [--net NAME] [--epochs 10] [--images 50] [--seeds 3] [--json]

For each seed the network is trained anew, and asked why it answers as it does for some of the test images, the first of
an order drawn from the seed. Printed are the means over images, and the standard deviations of the seeds' means, of the
area under the target's probability while pixels are taken away (deletion; small is good) and put in (insertion; large
is good), and their gains: how much better the area is than that of random orders, which stand in a row of their own. A
method that the network does not allow is left out, with its reason.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
from machine import described, record_header, teller

import pellucid
from pellucid import explain
from pellucid.explain.scores import compared


def measure(data: str, net: str | None, epochs: int, images: int, seed: int) -> tuple[dict, dict]:
    """For each method (deletion area, its gain, insertion area, its gain, seconds a map), means over images; and what
    was refused, by method."""
    run = pellucid.fit(net, data, epochs=epochs, seed=seed, out=False)
    test = pellucid.data.split(pellucid.data.load(data, **run.model.preprocessing.loading), seed=seed).test
    chosen = np.random.default_rng(seed).permutation(len(test))[:images]
    found: dict[str, list] = {"random order": []}
    refused: dict[str, str] = {}
    for image in test.images[np.sort(chosen)]:
        maps, seconds = [], []
        for name, method in explain.METHODS.items():
            start = time.perf_counter()
            try:
                maps.append(method(run.model, image))
            except ValueError as e:
                refused[name] = str(e)
                continue
            seconds.append(time.perf_counter() - start)
        for map, (out, into), took in zip(maps, compared(run.model, maps), seconds, strict=True):
            found.setdefault(map.method, []).append((out.area, out.gain, into.area, into.gain, took))
        found["random order"].append((out.control_area, 0, into.control_area, 0, 0))  # the same for all maps
    return {name: np.mean(rows, axis=0).round(4).tolist() for name, rows in found.items()}, refused


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="what `pellucid train` takes")
    parser.add_argument("--net", help="a network of the zoo; by default what `pellucid train` would choose")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--images", type=int, default=50, help="test images that are explained, for each seed")
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds, from 0 on")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    tell = teller(options.json)
    results = [measure(options.data, options.net, options.epochs, options.images, seed)
               for seed in range(options.seeds)]
    record = {**record_header("explanations", ["numpy"]), **vars(options), "seeds": [found for found, _ in results],
              "refused": results[0][1]}
    tell(described(record))
    tell(f"{'':<22}{'deletion':>15}{'gain':>17}{'insertion':>17}{'gain':>17}{'ms a map':>10}")
    for name in results[0][0]:
        rows = np.array([found[name] for found, _ in results])
        spread = rows.std(axis=0, ddof=1) if len(rows) > 1 else np.zeros(rows.shape[1])
        cells = [f"{m:8.3f} ± {s:.3f}" for m, s in zip(rows.mean(axis=0)[:4], spread[:4], strict=True)]
        tell(f"{name:<22}" + "".join(f"{c:>17}" for c in cells)[2:] + f"{1000 * rows[:, 4].mean():10.1f}")
    for name, reason in results[0][1].items():
        tell(f"{name}: left out: {reason}")
    if options.json:
        print(json.dumps(record))


if __name__ == "__main__":
    main()
