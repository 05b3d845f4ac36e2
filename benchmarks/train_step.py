"""A training step of the zoo's lenet against the best mode of PyTorch, in one run.

    python benchmarks/train_step.py [--batch 128] [--rounds 30] [--threads N] [--json]

Forward, softmax cross-entropy, backward and an SGD step with Nesterov momentum, on 28x28 grey float32 images. Peers:
PyTorch in its default layout, in channels_last, and both again compiled (torch.compile), with as many threads. The
compiled modes need a C++ compiler; without one they are left out, and standard error says so. Ends with status 1 where
the best of them is faster.
"""

from __future__ import annotations

import argparse
import json
import sys

import numpy as np
import torch
from machine import cpu, interleaved, medians, peak_gflops

import pellucid
from pellucid.engine.library import library


def torch_lenet() -> torch.nn.Module:
    """The same network from PyTorch's modules."""
    nn = torch.nn
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(64 * 7 * 7, 128), nn.ReLU(), nn.Linear(128, 10),
    )


def torch_step(images: np.ndarray, labels: np.ndarray, channels_last: bool, compiled: bool):
    """A function that makes one training step in PyTorch."""
    torch.manual_seed(0)
    net = torch_lenet()
    x, y = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()), torch.from_numpy(labels).long()
    if channels_last:
        net, x = net.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, nesterov=True)
    forward = torch.compile(net) if compiled else net

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = torch.nn.functional.cross_entropy(forward(x), y)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=pellucid.threads())
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    pellucid.set_threads(options.threads)
    rng = np.random.default_rng(0)
    images = rng.standard_normal((options.batch, 28, 28, 1)).astype(np.float32)
    labels = rng.integers(0, 10, options.batch)

    network = pellucid.zoo.build("lenet", input_shape=(28, 28, 1), classes=10)
    ours = pellucid.TrainStep(pellucid.Model(network, seed=0), options.batch,
                              pellucid.optim.SGD(lr=0.01, momentum=0.9, nesterov=True))
    rivals = {"pellucid": lambda: ours(images, labels)}
    for compiled in (False, True):
        for last in (False, True):
            name = f"pytorch {'channels_last' if last else 'default'}{', compiled' if compiled else ''}"
            step = torch_step(images, labels, last, compiled)
            try:
                step()
            except Exception as e:  # torch.compile fails in many ways where there is no compiler
                print(f"{name}: left out ({type(e).__name__})", file=sys.stderr)
                continue
            rivals[name] = step
    times = medians(interleaved(rivals, options.rounds))
    best = min((t, name) for name, t in times.items() if name != "pellucid")

    # Multiply-adds of a step: forward, to the weights, and to the input everywhere but in the first layer.
    macs = [m for m in network.macs.values() if m]
    flops = 2 * options.batch * (3 * sum(macs) - macs[0])
    peak = peak_gflops(options.threads)
    record = {
        "benchmark": "train_step", "network": "lenet", "batch": options.batch, "threads": options.threads, "cpu": cpu(),
        "isa": library().isa, "torch": torch.__version__, "rounds": options.rounds,
        "milliseconds": {n: round(1e3 * t, 2) for n, t in times.items()}, "best_peer": best[1],
        "ratio": round(best[0] / times["pellucid"], 2), "peak_gflops": round(peak),
        "share_of_peak": round(flops / times["pellucid"] / 1e9 / peak, 2),
        "memory_mb": round(ours.memory() / 1e6, 1),
    }
    if options.json:
        print(json.dumps(record))
    else:
        print(f"lenet, batch {options.batch}, {options.threads} threads, {record['cpu']} ({record['isa']}), "
              f"torch {torch.__version__}, medians of {options.rounds} interleaved rounds")
        for name, t in sorted(times.items(), key=lambda item: item[1]):
            print(f"  {name:34} {1e3 * t:8.2f} ms {options.batch / t:8.0f} images/s")
        print(f"  ratio to the best mode of PyTorch: {record['ratio']}x; "
              f"{flops / times['pellucid'] / 1e9:.0f} GFLOP/s, "
              f"{100 * record['share_of_peak']:.0f}% of a measured peak of {peak:.0f}")
    if record["ratio"] < 1:
        sys.exit("train_step: slower than PyTorch")


if __name__ == "__main__":
    main()
