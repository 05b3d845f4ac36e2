"""A training step of the zoo's small networks against PyTorch: time, memory, and how near it comes to the machine.

    python benchmarks/train_step.py [NETWORK ...] [--precision float32] [--batch N] [--rounds 15] [--threads N]
                                    [--calls] [--json]

Networks: `lenet` (28x28 grey, batch 128), `cifar_vgg`, `cifar_resnet18` and `convnet` (32x32 colour, batches 128, 64
and 512); all four unless named. A step is forward, softmax cross-entropy, backward and SGD with Nesterov momentum, in
float32, or with `--precision int16` as `pellucid train` computes.
Peers: PyTorch in its default layout, in channels_last, and both again compiled (torch.compile), with as many threads
and with our initial weights: each must find our first loss, to 1e-3 of it (int16: 1e-2), before it is timed. The
compiled modes need a C++ compiler; without one they are left out, and standard error says so. Ends with status 1 where
PyTorch is faster.

Memory is measured from outside: how much the largest resident size of a fresh process grows in a few steps, parameters
included, for us and for PyTorch in the better of its two layouts (`step_memory.py`; Linux only). Beside it stands what
the engine counts itself: `TrainStep.memory()` and the parameters.

The bytes that a step moves at least: every value that is kept is written and read once forward, read again backward,
and its gradient is written and read; the images are read twice. No value is kept where only ReLU, Add, Flatten,
Dropout or 2x2 maxima read it: they can be computed as it is made. GFLOP/s count direct products, so that Winograd's
algorithm may pass the peak. A parameter is read forward and backward, its
gradient written and read, its momentum and itself read and written by the update. The time these bytes take is at
the bandwidth measured for copying memory; values that stay in a cache may beat it.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from math import prod
from pathlib import Path

import torch
from ceilings import copy_bandwidth
from machine import arguments, best_peer, described, interleaved, medians, peak_gflops, record_header, say, teller
from steps import BATCHES, MODES, data, our_step, torch_step
from torch_networks import network as torch_network

import pellucid
from pellucid.layers import MaxPool
from pellucid.network import Network

ALONG = ("ReLU", "Add", "Flatten", "Dropout", "pairs")  # what can be computed as its input is made; pairs: 2x2 maxima
LEAST = 0.2  # seconds of steps, one after another as in training, that make one timed run
TOLERANCE = {"float32": 1e-3, "int16": 1e-2}  # of the loss


def least_bytes(network: Network, batch: int) -> int:
    """What a step has to move to and from memory, by the model in this file's docstring."""
    readers = defaultdict(list)
    for node in network.nodes:
        for source in node.inputs:
            pairs = isinstance(node.layer, MaxPool) and node.layer.size == 2
            readers[source].append("pairs" if pairs else type(node.layer).__name__)
    kept = [n.name for n in network.nodes if not readers[n.name] or not set(readers[n.name]) <= set(ALONG)]
    values = sum(prod(network.shapes[name]) for name in kept)
    return 4 * (batch * (5 * values + 2 * prod(network.input_shape)) + 8 * network.parameter_count)


def step_flops(network: Network, batch: int) -> int:
    """Of all products: forward, to the weights that are trained, and to the input everywhere but in the first layer."""
    trained = network.parameter_counts
    macs = [(m, 2 + (trained[name] > 0)) for name, m in network.macs.items() if m]
    return 2 * batch * (sum(m * passes for m, passes in macs) - macs[0][0])


def peers(name: str, ours: pellucid.TrainStep, tolerance: float, images, labels) -> dict:
    """PyTorch's modes, each having made its first step from our weights."""
    steps = {f"{mode}{', compiled' if compiled else ''}":
             torch_step(torch_network(name, ours.model), images, labels, layout, compiled)
             for compiled in (False, True) for mode, layout in MODES.items()}
    expected = ours(images, labels)
    for mode in list(steps):
        try:
            loss = steps[mode]()
        except Exception as e:  # torch.compile fails in many ways where there is no compiler
            if "compiled" not in mode:
                raise
            say(f"{mode}: left out ({type(e).__name__}); apt-get install g++")
            del steps[mode]
            continue
        if not abs(loss - expected) <= tolerance * abs(expected):
            sys.exit(f"train_step: {name}: the first loss of {mode} is {loss}, ours {expected}")
    return steps


def memory(name: str, batch: int, threads: int) -> dict[str, float]:
    """Megabytes each rival takes, by `step_memory.py`; empty where the system does not say."""
    if not Path("/proc/self/clear_refs").exists():
        return {}
    script = [sys.executable, str(Path(__file__).with_name("step_memory.py"))]
    return {rival: round(int(subprocess.run([*script, rival, name, str(batch), str(threads)], check=True,
                                            stdout=subprocess.PIPE).stdout) / 1e6, 1)
            for rival in ("pellucid", *MODES)}


def measure(name: str, batch: int, precision: str, rounds: int, threads: int) -> dict:
    """All figures of one network, but for those that need the machine's ceilings."""
    images, labels = data(name, batch)
    ours = our_step(name, batch, precision)
    rivals = {**peers(name, ours, TOLERANCE[precision], images, labels), "pellucid": lambda: ours(images, labels)}
    times = medians(interleaved(rivals, rounds, least=LEAST))
    torch._dynamo.reset()  # else it gives up compiling after a few networks
    peer, ratio = best_peer(times)
    network = ours.model.network
    return {"network": name, "batch": batch, "precision": precision, "seconds": times, "best_peer": peer,
            "ratio": round(ratio, 2), "flops": step_flops(network, batch), "least_bytes": least_bytes(network, batch),
            "counted_mb": round((ours.memory() + ours.model.buffer.flat.nbytes) / 1e6, 1),
            "memory_mb": memory(name, batch, threads)}


def finished(found: dict, peak: float, copying: float) -> dict:
    """The figures with their shares of the peak and of the bandwidth, ready for the record."""
    seconds = found.pop("seconds")
    ours = seconds["pellucid"]
    rate = found["flops"] / ours / 1e9
    found |= {
        "milliseconds": {rival: round(1e3 * t, 2) for rival, t in seconds.items()},
        "images_per_second": round(found["batch"] / ours, 1), "gflops": round(rate, 1),
        "share_of_peak": round(rate / peak, 3),
        "share_of_bandwidth": round(found["least_bytes"] / copying / 1e9 / ours, 3),
    }
    if sizes := found["memory_mb"]:
        found["memory_ratio"] = round(sizes["pellucid"] / min(sizes[mode] for mode in MODES), 2)
    return found


def calls(name: str, batch: int, precision: str, rounds: int) -> list[str]:
    """Lines that say where our own step spends its time: kernels, how often each is called, and the medians' sum."""
    step = our_step(name, batch, precision)
    step(*data(name, batch))
    seconds = [[] for _ in step._plan._calls]
    for _ in range(rounds):
        for call, taken in zip(step._plan._calls, seconds, strict=True):
            start = time.perf_counter()
            call()
            taken.append(time.perf_counter() - start)
    found = defaultdict(list)
    for call, taken in zip(step._plan._calls, seconds, strict=True):
        found[call.name].append(1e3 * statistics.median(taken))
    rows = sorted(found.items(), key=lambda item: -sum(item[1]))
    return [f"{name}, batch {batch}: {sum(map(sum, found.values())):.1f} ms in kernels",
            *(f"  {kernel:34}{len(times):4} calls{sum(times):10.2f} ms" for kernel, times in rows)]


def table(found: dict) -> list[str]:
    lines = [f"{found['network']}, batch {found['batch']}, {found['precision']}"]
    for rival, ms in sorted(found["milliseconds"].items(), key=lambda item: item[1]):
        lines.append(f"  {rival:34}{ms:10.2f} ms{1e3 * found['batch'] / ms:10.0f} images/s")
    lines.append(f"  {found['ratio']:.2f} times {found['best_peer']}; {found['gflops']:.0f} GFLOP/s, "
                 f"{100 * found['share_of_peak']:.0f}% of the peak")
    lines.append(f"  moves at least {found['least_bytes'] / 1e6:.0f} MB, which at the bandwidth of memory take "
                 f"{100 * found['share_of_bandwidth']:.0f}% of its time")
    if sizes := found["memory_mb"]:
        lines.append(f"  memory: {sizes['pellucid']:.0f} MB ({found['counted_mb']:.0f} by the engine's own count), "
                     f"PyTorch {min(sizes[mode] for mode in MODES):.0f} MB: {found['memory_ratio']:.2f} times")
    return lines


def main() -> None:
    parser = arguments(__doc__, rounds=15)
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=f"of {', '.join(BATCHES)} (default all)")
    parser.add_argument("--precision", choices=TOLERANCE, default="float32", help="of our products (default float32)")
    parser.add_argument("--batch", type=int, help="images in a step, in place of each network's own number")
    parser.add_argument("--calls", action="store_true", help="only where our own step spends its time")
    options = parser.parse_args()
    if unknown := set(options.networks) - set(BATCHES):
        parser.error(f"no network {', '.join(unknown)} here; there are {', '.join(BATCHES)}")
    torch.set_num_threads(options.threads)
    pellucid.set_threads(options.threads)
    if options.calls:
        for name in options.networks or BATCHES:
            print("\n".join(calls(name, options.batch or BATCHES[name], options.precision, options.rounds)))
        return
    peak, copying = peak_gflops(options.threads), copy_bandwidth(options.threads)
    record = {**record_header("train_step", ["torch"]), "rounds": options.rounds, "peak_gflops": round(peak, 1),
              "copy_gb_per_second": round(copying, 1), "networks": []}
    tell = teller(options.json)
    tell(f"{described(record)}; peak {peak:.0f} GFLOP/s, copying {copying:.1f} GB/s, "
         f"medians of {options.rounds} rounds")
    for name in options.networks or BATCHES:
        found = finished(measure(name, options.batch or BATCHES[name], options.precision, options.rounds,
                                 options.threads), peak, copying)
        record["networks"].append(found)
        tell("\n".join(table(found)))
    if options.json:
        print(json.dumps(record))
    if slower := [found["network"] for found in record["networks"] if found["ratio"] < 1]:
        sys.exit(f"train_step: slower than PyTorch: {', '.join(slower)}")


if __name__ == "__main__":
    main()
