"""`pellucid data labels` on labels made wrong on purpose: how many of them it finds, over seeds.

    python benchmarks/label_errors.py [--data digits] [--net lenet] [--share 0.03] [--seeds 3] [--json]

A share of the labels, drawn anew for each seed, is changed to other classes at random. Printed are, for the confident
disputes, for all disputes, and for the most disputed labels, as many as were changed: which part of them was changed
(precision), and which part of what was changed is among them (recall). Labels that were wrong before count as right.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace

import numpy as np
from machine import described, record_header, teller

from pellucid import data
from pellucid.evaluation import label_errors


def measure(dataset: data.Dataset, net: str, share: float, seed: int) -> dict:
    """What is found of the labels that were changed, and how long it took."""
    rng, classes = np.random.default_rng(seed), len(dataset.classes)
    changed = rng.choice(len(dataset.labels), max(round(share * len(dataset.labels)), 1), replace=False)
    labels = dataset.labels.copy()
    labels[changed] = (labels[changed] + rng.integers(1, classes, len(changed))) % classes
    start = time.perf_counter()
    suspects = label_errors(replace(dataset, labels=labels), net, seed=seed).suspects
    seconds = time.perf_counter() - start
    lists = {
        "confident": [s.index for s in suspects if s.confident], "all": [s.index for s in suspects],
        "first": [s.index for s in suspects[:len(changed)]],
    }
    return {"seconds": round(seconds, 1), "changed": len(changed), **{
        name: {"count": len(found), "precision": round(float(np.isin(found, changed).mean()) if found else 0.0, 3),
               "recall": round(float(np.isin(changed, found).mean()), 3)}
        for name, found in lists.items()
    }}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits", help="what `pellucid data labels` takes")
    parser.add_argument("--net", default="lenet")
    parser.add_argument("--share", type=float, default=0.03, help="of the labels that are changed")
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds, from 0 on")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    dataset = data.load(options.data)
    results = [measure(dataset, options.net, options.share, seed) for seed in range(options.seeds)]
    record = {**record_header("label_errors", ["numpy", "scikit-learn"]), "data": options.data, "net": options.net,
              "share": options.share, "seeds": results}
    tell = teller(options.json)
    tell(described(record))
    for name in ("confident", "first", "all"):
        count, precision, recall = (np.mean([r[name][key] for r in results]) for key in
                                    ("count", "precision", "recall"))
        tell(f"{name:<9}  {count:5.1f} labels, precision {precision:.3f}, recall {recall:.3f} "
             f"(means of {options.seeds} seeds; {results[0]['changed']} labels were changed)")
    tell(f"{np.mean([r['seconds'] for r in results]):.1f} s each")
    if options.json:
        print(json.dumps(record))


if __name__ == "__main__":
    main()
