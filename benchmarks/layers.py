"""Every other kernel than convolution's: pooling, normalisation, activation, sums, dense layers, the loss, an update.

    python benchmarks/layers.py [--filter TEXT] [--rounds 9] [--threads N] [--json]

These are bound by memory, so beside the time stands the rate at which the bytes move that must move at least (inputs
and outputs once, parameters once), and its share of the rate at which memory is copied. Values that stay in a cache
may beat it. Forward and backward are timed apart, as a training step calls them; a dense layer at batch 1 as inference
does. PyTorch's are its functions and their gradients by autograd, in the better of its two layouts. Rivals take turns;
what is given is the median.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from ceilings import copy_bandwidth
from kernels import LEAST, OUTSIDE
from machine import arguments, best_peer, described, interleaved, medians, record_header, teller

import pellucid
from pellucid.engine.library import library
from pellucid.engine.parameters import ParameterBuffer
from pellucid.engine.plan import Plan
from pellucid.engine.tensor import aligned
from pellucid.layers import GELU, AvgPool, BatchNorm, Dense, GlobalAvgPool, MaxPool, ReLU, Softmax
from pellucid.layers.base import Layer
from pellucid.network import Network
from pellucid.optim import SGD, Adam


@dataclass(frozen=True)
class Case:
    """A layer on `batch` images of a shape, and the PyTorch function of (input, weight, bias) that is its like."""

    name: str
    layer: Layer
    shape: tuple[int, ...]
    batch: int
    peer: Callable
    inference: bool = False


MAP = (56, 56, 64)
CASES = [
    Case("max pool 2x2", MaxPool(2), MAP, 16, lambda x, w, b: F.max_pool2d(x, 2)),
    Case("max pool 3x3 s2", MaxPool(3, 2, 1), (112, 112, 64), 16, lambda x, w, b: F.max_pool2d(x, 3, 2, 1)),
    Case("average pool 2x2", AvgPool(2), MAP, 16, lambda x, w, b: F.avg_pool2d(x, 2)),
    Case("global average pool", GlobalAvgPool(), (7, 7, 512), 64, lambda x, w, b: x.mean((2, 3))),
    Case("batch norm", BatchNorm(), MAP, 16, lambda x, w, b: F.batch_norm(x, None, None, w, b, True)),
    Case("ReLU", ReLU(), MAP, 16, lambda x, w, b: F.relu(x)),
    Case("GELU", GELU(), MAP, 16, lambda x, w, b: F.gelu(x)),
    Case("softmax", Softmax(), (1000,), 128, lambda x, w, b: F.softmax(x, -1)),
    Case("dense 3136-128", Dense(128), (3136,), 128, lambda x, w, b: F.linear(x, w, b)),
    Case("dense 512-10", Dense(10), (512,), 128, lambda x, w, b: F.linear(x, w, b)),
    Case("dense 4096-4096", Dense(4096), (4096,), 64, lambda x, w, b: F.linear(x, w, b)),
    Case("dense 25088-4096 at batch 1", Dense(4096), (25088,), 1, lambda x, w, b: F.linear(x, w, b), True),
    Case("dense 4096-4096 at batch 1", Dense(4096), (4096,), 1, lambda x, w, b: F.linear(x, w, b), True),
    Case("dense 2048-1000 at batch 1", Dense(1000), (2048,), 1, lambda x, w, b: F.linear(x, w, b), True),
]


def ours(case: Case) -> tuple[dict[str, Callable], int]:
    """A function for each pass, by our kernels; and the number of parameters."""
    network = Network.build(case.shape, case.layer)
    parameters, gradient = (ParameterBuffer(network.parameters()) for _ in range(2))
    rng = np.random.default_rng(0)
    for array in parameters.arrays.values():
        array[...] = rng.uniform(0.5, 1, array.shape)
    training = not case.inference
    plan = Plan(network, parameters, case.batch, gradient=gradient if training else None, training=training,
                input_gradient=training)
    plan.prepare()
    plan.forward(rng.standard_normal(plan.image.shape, np.float32))
    forward = [call for call in plan._forward if call.name not in OUTSIDE]
    passes = {"forward": lambda: plan.library.run(forward)}
    if training:
        plan.backward(rng.standard_normal(plan.cotangent.shape, np.float32))
        backward = [call for call in plan._rest if call.name not in OUTSIDE]
        passes["backward"] = lambda: plan.library.run(backward)
    return passes, network.parameter_count


def pytorch(case: Case, layout: torch.memory_format) -> dict[str, Callable]:
    """A function for each pass, by PyTorch with its tensors in one layout."""
    network = Network.build(case.shape, case.layer)
    x = torch.randn(case.batch, *(case.shape[-1:] + case.shape[:-1]))
    if x.ndim == 4:
        x = x.to(memory_format=layout)
    shapes = [p.shape for p in network.parameters().values() if p.trainable]
    w, b = [torch.rand(s) + 0.5 for s in shapes] if shapes else (None, None)
    if case.inference:
        return {"forward": lambda: case.peer(x, w, b)}
    wanted = [t.requires_grad_() for t in (x, w, b) if t is not None]
    y = case.peer(x, w, b)
    dy = torch.randn_like(y)

    def forward():
        with torch.enable_grad():  # it keeps what the backward pass needs, as a training step does
            case.peer(x, w, b)

    return {"forward": forward, "backward": lambda: torch.autograd.grad(y, wanted, dy, retain_graph=True)}


def updates(count: int) -> list[tuple[str, Callable, Callable, int]]:
    """(name, ours, PyTorch's, bytes) of an optimiser's step over so many parameters."""
    made, kernels = [], library()
    for optimiser, slots, theirs in (
            (SGD(0.01, momentum=0.9), 1, lambda p: torch.optim.SGD(p, 0.01, momentum=0.9, fused=True)),
            (Adam(0.01), 2, lambda p: torch.optim.Adam(p, 0.01, fused=True))):
        p, g, *state = (aligned(count, np.float32) for _ in range(2 + slots))
        g[:] = np.random.default_rng(0).standard_normal(count)
        rates = np.array(optimiser.rates(0), np.float32)
        kernel, given = optimiser.call(p, g, rates, dict(zip(optimiser.slots, state, strict=True)))
        call = kernels.kernel(kernel).bind(**given)
        p = torch.randn(count, requires_grad=True)
        p.grad = torch.randn(count)
        # Read: parameter, gradient, slots; written: parameter, slots.
        made.append((type(optimiser).__name__, lambda call=call: kernels.run([call]), theirs([p]).step,
                     4 * count * (3 + 2 * slots)))
    return made


def main() -> None:
    parser = arguments(__doc__, rounds=9)
    parser.add_argument("--filter", default="", metavar="TEXT", help="only cases that have this in their name")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    pellucid.set_threads(options.threads)
    copying = copy_bandwidth(options.threads)
    tell = teller(options.json)
    record = {**record_header("layers", ["torch"]), "rounds": options.rounds, "copy_gb_s": round(copying, 1)}
    tell(f"{described(record)}; copying {copying:.1f} GB/s, medians of {options.rounds} rounds")
    results = []

    def note(name: str, moved: int, rivals: dict[str, Callable]) -> None:
        times = medians(interleaved(rivals, options.rounds, least=LEAST))
        peer, ratio = best_peer(times)
        rate = moved / times["pellucid"] / 1e9
        results.append({"case": name, "microseconds": {rival: round(1e6 * t, 1) for rival, t in times.items()},
                        "megabytes": round(moved / 1e6, 2), "gb_s": round(rate, 1),
                        "share_of_copying": round(rate / copying, 2), "best_peer": peer, "ratio": round(ratio, 2)})
        tell(f"{name:38}{1e6 * times['pellucid']:11.1f} us{rate:8.1f} GB/s{100 * rate / copying:6.0f}%{ratio:8.2f}x  "
             f"PyTorch {1e6 * times[peer]:.1f} us ({peer})")

    for case in CASES:
        if options.filter not in case.name:
            continue
        mine, parameters = ours(case)
        peers = {"default": pytorch(case, torch.contiguous_format)}
        if len(case.shape) == 3:
            peers["channels_last"] = pytorch(case, torch.channels_last)
        network = Network.build(case.shape, case.layer)
        values = case.batch * (np.prod(case.shape) + np.prod(network.output_shape))
        for name, run in mine.items():
            moved = 4 * (values + parameters * (1 if name == "forward" else 2))
            note(f"{case.name}, {name}", int(moved), {"pellucid": run, **{k: p[name] for k, p in peers.items()}})
    for name, run, theirs, moved in updates(11_000_000):
        if options.filter in name:
            note(f"{name}, 11 million parameters", moved, {"pellucid": run, "default": theirs})
    if options.json:
        print(json.dumps({**record, "cases": results}))


if __name__ == "__main__":
    main()
