"""Every convolution kernel over a file of problems, each pass alone, against PyTorch.

    python benchmarks/kernels.py [--filter TEXT] [--passes forward,input,weight] [--file FILE] [--rounds 7]
                                 [--threads N] [--json]

A problem is a line such as `n2 h7 w5 c3 k8 k3x3 s2 p1 g1  # where it is from`; the file that comes with this,
`problems.txt`, has all shapes of AlexNet, VGG-16, ResNet-18, ResNet-50, MobileNet and the networks of `train_step.py`.
`--filter` takes the lines that have a text in them, comments included: `--filter VGG`, `--filter 'n16 h56'`.

Passes are the convolution itself (forward), the gradient to its input (input) and to its filters (weight), without a
bias. Ours are the calls that a training plan makes for them, on data that lie blocked in memory as the engine has
them, and with the packing of the filters, which a training step does each time. PyTorch's are
`torch.nn.functional.conv2d` and `torch.ops.aten.convolution_backward`, one output at a time, on contiguous and on
channels_last tensors; the better layout counts. Both as a program calls them, so PyTorch takes memory for its results
anew. A timed run is 10 ms of calls over the same arrays, rivals taking turns, and what is given is the median. GFLOP/s
count a direct convolution, two FLOPs a multiply-add.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from machine import arguments, best_peer, described, interleaved, medians, peak_gflops, record_header, teller

import pellucid
from pellucid.engine.library import Call
from pellucid.engine.parameters import ParameterBuffer
from pellucid.engine.plan import Plan
from pellucid.network import Network

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent / "tests"))
from problems import Problem, parse  # noqa: E402  (the notation is the tests')

PASSES = ("forward", "input", "weight")
OUTSIDE = ("input_f32", "store_f32")  # from arrays to the engine's memory and back
LEAST = 0.01  # seconds of calls that make one timed run


def passes(whole: Plan, without: Plan) -> dict[str, list[Call]]:
    """The calls of each pass of a convolution, from a training plan of it with the gradient to the input and one
    without. What the latter does backward is for the filters, and what the former does beyond that, for the input.
    Loading the output's gradient and storing the input's belong to neither.
    """
    weight = [call for call in without._rest if call.name not in OUTSIDE]
    known, input_ = Counter(call.name for call in weight), []
    for call in whole._rest:
        if known[call.name]:
            known[call.name] -= 1  # the gradient to the filters comes first
        elif call.name not in OUTSIDE:
            input_.append(call)
    if known.total():
        raise RuntimeError(f"no longer in the backward pass once the input's gradient is asked for: {+known}")
    return {"forward": list(whole._forward), "input": input_, "weight": weight}


def ours(problem: Problem, rng: np.random.Generator) -> dict:
    """A function for each pass, by our kernels."""
    network = Network.build(problem.shape, problem.conv(bias=False))
    parameters, gradient = (ParameterBuffer(network.parameters()) for _ in range(2))
    parameters.arrays["conv1.weight"][...] = rng.standard_normal(problem.weight_shape, np.float32)
    plans = [Plan(network, parameters, problem.n, gradient=gradient, training=True, input_gradient=asked)
             for asked in (True, False)]
    for plan in plans:  # all that the passes read is in place after this
        plan.forward(rng.standard_normal(plan.image.shape, np.float32))
        plan.backward(rng.standard_normal(plan.cotangent.shape, np.float32))
    return {name: lambda calls=calls: plans[0].library.run(calls) for name, calls in passes(*plans).items()}


def pytorch(problem: Problem, layout: torch.memory_format) -> dict:
    """A function for each pass, by PyTorch with its tensors in one layout."""
    if any(before != after for before, after in problem.padding) or len(problem.size) != 2:
        raise SystemExit(f"kernels: {problem} is not for PyTorch: it needs two axes, padded alike on both sides")
    padding = [before for before, _ in problem.padding]
    stride, dilation, groups = problem.stride, problem.dilation, problem.groups
    x, w, dy = (torch.randn(*shape).to(memory_format=layout) for shape in (
        (problem.n, problem.channels, *problem.size), problem.weight_shape,
        (problem.n, problem.filters, *problem.output)))

    def backward(*mask: bool):
        return lambda: torch.ops.aten.convolution_backward(
            dy, x, w, None, stride, padding, dilation, False, [0, 0], groups, mask)

    return {"forward": lambda: torch.nn.functional.conv2d(x, w, None, stride, padding, dilation, groups),
            "input": backward(True, False, False), "weight": backward(False, True, False)}


def measure(problem: Problem, wanted: list[str], rounds: int, peak: float) -> dict[str, dict]:
    """The figures of each pass."""
    rivals = {"pellucid": ours(problem, np.random.default_rng(0)),
              "default": pytorch(problem, torch.contiguous_format),
              "channels_last": pytorch(problem, torch.channels_last)}
    flops = 2 * problem.n * problem.conv(bias=False).macs(problem.shape)
    found = {}
    for name in wanted:
        times = medians(interleaved({rival: made[name] for rival, made in rivals.items()}, rounds, least=LEAST))
        peer, ratio = best_peer(times)
        rate = flops / times["pellucid"] / 1e9
        found[name] = {"microseconds": {rival: round(1e6 * t, 1) for rival, t in times.items()},
                       "gflops": round(rate, 1), "share_of_peak": round(rate / peak, 3),
                       "best_peer": peer, "ratio": round(ratio, 2)}
    return found


def problems(file: Path, text: str) -> list[tuple[Problem, str]]:
    """Problems and their comments, from the lines that have `text` in them."""
    lines = [line for line in file.read_text().splitlines() if line.partition("#")[0].strip() and text in line]
    return [(parse(line.partition("#")[0]), line.partition("#")[2].strip()) for line in lines]


def summary(results: list[dict], wanted: list[str]) -> dict[str, dict]:
    """Of each pass, over all problems."""
    found = {}
    for name in wanted:
        ratios = [r["passes"][name]["ratio"] for r in results]
        found[name] = {"geometric_mean_ratio": round(statistics.geometric_mean(ratios), 2), "lowest_ratio": min(ratios),
                       "slower_than_pytorch": sum(r < 1 for r in ratios), "problems": len(ratios)}
    return found


def main() -> None:
    parser = arguments(__doc__, rounds=7)
    parser.add_argument("--filter", default="", metavar="TEXT", help="only lines that have this in them")
    parser.add_argument("--passes", default=",".join(PASSES), help="a comma list of them (default %(default)s)")
    parser.add_argument("--file", type=Path, default=HERE / "problems.txt")
    options = parser.parse_args()
    wanted = options.passes.split(",")
    if not set(wanted) <= set(PASSES):
        parser.error(f"--passes takes {', '.join(PASSES)}, got {options.passes}")
    if not (chosen := problems(options.file, options.filter)):
        parser.error(f"no line of {options.file} has {options.filter!r} in it")
    torch.set_num_threads(options.threads)
    pellucid.set_threads(options.threads)
    torch.set_grad_enabled(False)
    peak = peak_gflops(options.threads)
    tell = teller(options.json)
    record = {**record_header("kernels", ["torch"]), "rounds": options.rounds, "peak_gflops": round(peak, 1)}
    tell(f"{described(record)}; peak {peak:.0f} GFLOP/s, medians of {options.rounds} rounds")
    results = []
    for problem, source in chosen:
        results.append({"problem": str(problem), "from": source,
                        "passes": measure(problem, wanted, options.rounds, peak)})
        tell(f"{problem}  # {source}")
        for name, r in results[-1]["passes"].items():
            us = r["microseconds"]
            tell(f"  {name:8}{us['pellucid']:12.1f} us{r['gflops']:8.1f} GFLOP/s{100 * r['share_of_peak']:6.1f}%"
                 f"{r['ratio']:8.2f}x  PyTorch {us[r['best_peer']]:.1f} us ({r['best_peer']})")
    record |= {"summary": summary(results, wanted), "problems": results}
    for name, s in record["summary"].items():
        tell(f"{name}: {s['geometric_mean_ratio']:.2f}x PyTorch (geometric mean of {s['problems']}), at least "
             f"{s['lowest_ratio']:.2f}x; slower in {s['slower_than_pytorch']}")
    if options.json:
        print(json.dumps(record))


if __name__ == "__main__":
    main()
