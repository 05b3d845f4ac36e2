"""Inference against PyTorch, ONNX Runtime, OpenVINO and ncnn, with the same weights.

    python benchmarks/inference.py [NETWORK[@BATCH] ...] [--rounds 15] [--threads N] [--json]

Cases, all unless some are named: lenet@128 lenet@1 cifar_vgg@128 cifar_resnet18@128 vgg16@1 vgg16@16 resnet50@1
resnet50@16. Ours is `model.logits(images)`, on float32 images as they come, everything included. `peers.py` says how
the peers are run; each must find our logits, to 1e-3 of the largest, before it is timed. Weights are random, running
statistics and the scales of batch normalisation too, so that folding them is put to the test. A timed run is 0.1 s of
calls or one call, rivals taking turns, and what is given is the median. A peer that is not installed or does not work
is left out, and standard error says so:

    pip install torch onnx onnxscript onnxruntime openvino ncnn pnnx    # a C++ compiler as well, for torch.compile
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from machine import (
    arguments,
    best_peer,
    described,
    installed,
    interleaved,
    medians,
    peak_gflops,
    record_header,
    say,
    teller,
)
from peers import Job, Logits, peers
from torch_networks import network as torch_network

import pellucid

CASES = {"lenet": (128, 1), "cifar_vgg": (128,), "cifar_resnet18": (128,), "vgg16": (1, 16), "resnet50": (1, 16)}
TOLERANCE = 1e-3  # of the largest logit
LEAST = 0.1  # seconds of calls, one after another, that make one timed run
PACKAGES = ("torch", "onnx", "onnxruntime", "openvino", "ncnn", "pnnx")


def model(name: str) -> pellucid.Model:
    """The network with weights and statistics as if it had been trained."""
    made, rng = pellucid.Model(pellucid.zoo.build(name), seed=0), np.random.default_rng(0)
    values = dict(made.parameters)
    for norm in [key.removesuffix("running_var") for key in values if key.endswith("running_var")]:
        shape = values[norm + "weight"].shape
        values |= {norm + key: rng.uniform(0.5, 1.5, shape) for key in ("weight", "running_var")}
        values |= {norm + key: rng.normal(0, 0.1, shape) for key in ("bias", "running_mean")}
    made.load_parameters(values)
    return made


def rivals(name: str, ours: pellucid.Model, images: np.ndarray, threads: int, folder: str) -> dict[str, Logits]:
    """Every peer that is here and agrees with us, ours last."""
    expected, found = ours.logits(images), {}
    turned = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    for peer, (packages, make) in peers(len(images), threads).items():
        if missing := [p for p in packages if not installed(p)]:
            say(f"{peer}: left out; pip install {' '.join(missing)}")
            continue
        net = torch_network(name, ours).eval().requires_grad_(False)  # one for each: some change it
        try:
            run = make(Job(net, turned, threads, Path(folder)))
            logits = run()
        except Exception as e:  # each fails in its own ways, such as for want of a compiler
            say(f"{peer}: left out ({type(e).__name__}: {str(e).strip().partition(chr(10))[0][:200]})")
            continue
        off = float(np.abs(logits - expected).max() / np.abs(expected).max())
        if not off <= TOLERANCE:
            sys.exit(f"inference: {name}: the logits of {peer} differ from ours by {off:.2g} of the largest")
        found[peer] = run
    return {**found, "pellucid": lambda: ours.logits(images)}


def measure(name: str, batch: int, rounds: int, threads: int, peak: float) -> dict:
    ours = model(name)
    images = np.random.default_rng(1).standard_normal((batch, *ours.network.input_shape), np.float32)
    with tempfile.TemporaryDirectory() as folder:
        times = medians(interleaved(rivals(name, ours, images, threads, folder), rounds, least=LEAST))
    torch._dynamo.reset()  # else it gives up compiling after a few networks
    peer, ratio = best_peer(times)
    rate = 2 * batch * sum(ours.network.macs.values()) / times["pellucid"] / 1e9
    return {"network": name, "batch": batch, "milliseconds": {rival: round(1e3 * t, 3) for rival, t in times.items()},
            "images_per_second": float(f"{batch / times['pellucid']:.4g}"), "best_peer": peer, "ratio": round(ratio, 2),
            "gflops": round(rate, 1), "share_of_peak": round(rate / peak, 3)}


def table(found: dict) -> list[str]:
    lines = [f"{found['network']}, batch {found['batch']}"]
    for rival, ms in sorted(found["milliseconds"].items(), key=lambda item: item[1]):
        lines.append(f"  {rival:34}{ms:12.3f} ms{1e3 * found['batch'] / ms:12,.1f} images/s")
    lines.append(f"  {found['ratio']:.2f} times {found['best_peer']}; {found['gflops']:.0f} GFLOP/s, "
                 f"{100 * found['share_of_peak']:.0f}% of the peak")
    return lines


def cases(words: list[str]) -> list[tuple[str, int]]:
    """(network, batch) of each case. Raises ValueError for what is none."""
    found = []
    for word in words or CASES:
        name, _, batch = word.partition("@")
        if name not in CASES or (batch and not batch.isdecimal()):
            raise ValueError(f"a case is a network of {', '.join(CASES)}, perhaps with @ and a batch, got {word!r}")
        found += [(name, int(batch))] if batch else [(name, n) for n in CASES[name]]
    return found


def main() -> None:
    parser = arguments(__doc__, rounds=15)
    parser.add_argument("cases", nargs="*", metavar="NETWORK[@BATCH]", help="such as vgg16 or lenet@1 (default all)")
    options = parser.parse_args()
    try:
        chosen = cases(options.cases)
    except ValueError as e:
        parser.error(str(e))
    torch.set_num_threads(options.threads)
    pellucid.set_threads(options.threads)
    peak = peak_gflops(options.threads)
    record = {**record_header("inference", PACKAGES), "rounds": options.rounds, "peak_gflops": round(peak, 1),
              "cases": []}
    tell = teller(options.json)
    tell(f"{described(record)}; peak {peak:.0f} GFLOP/s, medians of {options.rounds} rounds")
    for name, batch in chosen:
        record["cases"].append(measure(name, batch, options.rounds, options.threads, peak))
        tell("\n".join(table(record["cases"][-1])))
    record["geometric_mean_ratio"] = round(statistics.geometric_mean(c["ratio"] for c in record["cases"]), 2)
    tell(f"{record['geometric_mean_ratio']:.2f} times the best peer (geometric mean)")
    if options.json:
        print(json.dumps(record))


if __name__ == "__main__":
    main()
