"""How accurate `pellucid train` is in a given time, from the start of the process to its end, over several seeds.

    python benchmarks/time_to_accuracy.py CASE DATA [--seeds 3] [--peer] [--json]

Cases: mnist-99, mnist-99.5, fashion-93, cifar10-90, cifar10-94. DATA is what `pellucid train` takes; it must bring its
own test images. The data are loaded once before the clock starts, so that pictures are decoded already; everything
else counts: starting Python, reading, looking for copies, timing the machine, training, validation, the test. What is
given is the mean test accuracy and the longest time of the seeds, beside what is asked for. No report is written.

With --peer the network and recipe of the last seed are then trained for one epoch by PyTorch (`--engine torch`, float32
in the channels-last layout), and the rates of whole epochs are compared: images a second, validation included.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from machine import described, record_header, teller

import pellucid
from pellucid import data
from pellucid.training.run import RunFolder
from pellucid.training.setup import Setup


@dataclass(frozen=True)
class Case:
    """A test accuracy to reach, the seconds that it may take, and the arguments of `pellucid train` meant to do it."""

    accuracy: float
    seconds: float
    arguments: tuple[str, ...]


CASES = {
    "mnist-99": Case(0.99, 12, ("--time", "10.8s")),
    "mnist-99.5": Case(0.995, 90, ("--time", "85s")),
    "fashion-93": Case(0.93, 180, ("--time", "172s", "--recipe", "best")),
    "cifar10-90": Case(0.90, 360, ("--time", "355s")),
    "cifar10-94": Case(0.94, 1080, ("--time", "1072s", "--recipe", "best", "--tta", "mirror")),
}


def run(case: Case, source: str, seed: int, folder: Path) -> dict:
    """One training into a new folder: its test accuracy and its time, from the start of the process to its end."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "pellucid", "train", source, "--seed", str(seed), "--out", str(folder), "--json",
         "--no-report", *case.arguments], capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if done.returncode:
        sys.exit(done.stderr)
    result = json.loads(done.stdout)
    return {"seed": seed, "seconds": round(seconds, 1), **{name: result[name] for name in (
        "test_accuracy", "validation_accuracy", "best_epoch", "epochs", "steps", "parameters")}}


def rates(source: str, folder: Path) -> dict:
    """Images a second over a whole epoch: of the run in a folder, the median of its epochs, and of PyTorch's first."""
    kept = RunFolder(folder)
    setup = Setup.from_json(kept.read_config())
    images = setup.plan.batch_size * setup.plan.epoch_steps
    seconds = [row["seconds"] for row in kept.read_metrics() if row["step"] % setup.plan.epoch_steps == 0]
    if not seconds:
        sys.exit("the run was shorter than an epoch: its rate cannot be compared")
    peer = pellucid.fit(setup.network, source, epochs=1, batch_size=setup.plan.batch_size, seed=setup.seed, out=False,
                        engine="torch", device="cpu", precision="float32")
    return {"pellucid": images / statistics.median(seconds), "pytorch": images / peer.history[0]["seconds"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=CASES, metavar="CASE")
    parser.add_argument("data", metavar="DATA")
    parser.add_argument("--seeds", type=int, default=3, help="runs (default 3)")
    parser.add_argument("--peer", action="store_true", help="compare with PyTorch's rate")
    parser.add_argument("--json", action="store_true", help="one JSON record; the table goes to standard error")
    options = parser.parse_args()
    case, tell = CASES[options.case], teller(options.json)
    if not data.load(options.data).has_test:
        parser.error(f"{options.data} has no test images of its own")
    record, runs, compared = record_header("time_to_accuracy", ["numpy", *["torch"] * options.peer]), [], None
    tell(described(record))
    tell(f"pellucid train {options.data} {' '.join(case.arguments)}")
    for seed in range(options.seeds):
        with tempfile.TemporaryDirectory() as folder:
            runs.append(run(case, options.data, seed, Path(folder, "run")))
            tell("seed {seed}: {test_accuracy:.2%} in {seconds:.1f} s, by epoch {best_epoch} of {epochs}, {steps} steps"
                 .format(**runs[-1]))
            if options.peer and seed == options.seeds - 1:
                compared = rates(options.data, Path(folder, "run"))
    accuracy = np.array([r["test_accuracy"] for r in runs])
    slowest = max(r["seconds"] for r in runs)
    reached = "reached" if accuracy.mean() >= case.accuracy and slowest <= case.seconds else "short"
    tell(f"mean {accuracy.mean():.2%} (asked {case.accuracy:.2%}), at most {slowest:.1f} s (asked {case.seconds:.0f}): "
         f"{reached}")
    if compared:
        tell("{pellucid:.0f} images a second over an epoch, PyTorch {pytorch:.0f}: {ratio:.2f} times as many".format(
            **compared, ratio=compared["pellucid"] / compared["pytorch"]))
    if options.json:
        print(json.dumps({**record, "case": options.case, "arguments": case.arguments, "runs": runs,
                          "mean_accuracy": float(accuracy.mean()), "longest_seconds": slowest,
                          "images_per_second": compared}))


if __name__ == "__main__":
    main()
