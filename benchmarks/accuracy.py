"""The numerical error of a 3x3 convolution's passes, by direct and by Winograd's kernels, against float64.

Of Winograd's kernels in float32 and, where there are such, on integers of 16 bits.

    python benchmarks/accuracy.py [--json]

Inputs, filters and gradients are normal; the error is the largest difference from the float64 result, as a share of the
largest magnitude in that result.
"""

from __future__ import annotations

import argparse
import json
from unittest import mock

import numpy as np
import torch
from machine import cpu

from pellucid.engine import algorithms
from pellucid.engine.library import library
from pellucid.engine.parameters import ParameterBuffer
from pellucid.engine.plan import Plan
from pellucid.layers import Conv
from pellucid.network import Network

SHAPES = [(16, 14, 64), (8, 32, 64), (4, 32, 256), (8, 8, 256), (16, 4, 512), (2, 28, 512)]  # images, side, channels
KINDS = [("direct", "float32"), ("winograd", "float32"), ("winograd", "int16")]


def truth(x, w, dy) -> list[np.ndarray]:
    """The result and the gradients to input and filters, by PyTorch in float64."""
    x, w, dy = (torch.from_numpy(a.astype(np.float64)) for a in (x.transpose(0, 3, 1, 2), w, dy.transpose(0, 3, 1, 2)))
    x.requires_grad_()
    w.requires_grad_()
    y = torch.nn.functional.conv2d(x, w, padding=1)
    dx, dw = torch.autograd.grad(y, (x, w), dy)
    return [t.detach().numpy() for t in (y.permute(0, 2, 3, 1), dx.permute(0, 2, 3, 1), dw)]


def ours(kind: str, precision: str, network: Network, x, w, dy) -> list[np.ndarray]:
    """The same by the engine's kernels of one kind."""
    buffer, gradient = ParameterBuffer(network.parameters()), ParameterBuffer(network.parameters())
    buffer.arrays["conv1.weight"][...] = w
    with mock.patch.object(algorithms, "choose", lambda *shape: kind):
        plan = Plan(network, buffer, len(x), gradient=gradient, input_gradient=True, precision=precision)
    plan.prepare()
    plan.forward(x)
    plan.backward(dy)
    return [plan.value(), plan.input_gradient, gradient.arrays["conv1.weight"]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rng, rows = np.random.default_rng(0), []
    for n, side, channels in SHAPES:
        network = Network.build((side, side, channels), Conv(channels, 3, padding=1, bias=False))
        x, dy = (rng.standard_normal((n, side, side, channels)).astype(np.float32) for _ in range(2))
        w = (rng.standard_normal((channels, channels, 3, 3)) / np.sqrt(9 * channels)).astype(np.float32)
        expected = truth(x, w, dy)
        for kind, precision in (k for k in KINDS if k[1] in library().precisions):
            errors = [float(np.abs(a - e).max() / np.abs(e).max())
                      for a, e in zip(ours(kind, precision, network, x, w, dy), expected, strict=True)]
            rows.append({"problem": f"n{n} h{side} w{side} c{channels} k{channels} k3x3 p1", "kernels": kind,
                         "precision": precision, **dict(zip(("forward", "input", "weight"), errors, strict=True))})
    if options.json:
        print(json.dumps({"benchmark": "accuracy", "cpu": cpu(), "isa": library().isa, "errors": rows}))
        return
    print(f"{cpu()} ({library().isa}): largest error, as a share of the largest value")
    for row in rows:
        print(f"  {row['problem']:34} {row['kernels']:9}{row['precision']:8}" + "".join(
            f" {name} {row[name]:.1e}" for name in ("forward", "input", "weight")))


if __name__ == "__main__":
    main()
