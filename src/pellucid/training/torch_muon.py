"""`pellucid.optim.Muon` as an optimiser of PyTorch's."""

from __future__ import annotations

from math import sqrt

import torch

from ..muon import CUBIC, TINY


class TorchMuon(torch.optim.Optimizer):
    """Filters along the orthogonal matrix nearest to their momentum, all else by SGD with Nesterov momentum.

    The arguments are those of `pellucid.optim.Muon`.
    """

    def __init__(self, groups, lr: float, momentum: float, iterations: int, others: float, other_momentum: float):
        super().__init__(groups, {"lr": lr, "momentum": momentum, "iterations": iterations, "others": others,
                                  "other_momentum": other_momentum})

    @torch.no_grad()
    def step(self, closure=None) -> None:
        """One step from the gradients that the parameters have."""
        for group in self.param_groups:
            for p in group["params"]:
                matrix = p.ndim > 2
                m, momentum = self.state[p]["momentum_buffer"], group["momentum" if matrix else "other_momentum"]
                m.mul_(momentum).add_(p.grad)
                direction = p.grad + momentum * m
                if not group["lr"]:  # what is not to move keeps its norm, too
                    continue
                if matrix:
                    p.mul_(sqrt(len(p)) / p.norm().clamp(min=float(TINY)))
                    found = orthogonalised(direction.reshape(len(p), -1), group["iterations"])
                    p.sub_(found.reshape(p.shape), alpha=group["lr"])
                else:
                    p.sub_(direction, alpha=group["lr"] * group["others"])


def orthogonalised(x: torch.Tensor, iterations: int) -> torch.Tensor:
    """What `pellucid.muon.orthogonalise` makes of a matrix."""
    a, b, c = CUBIC
    wide = len(x) <= x.shape[1]
    x = x / x.norm().clamp(min=float(TINY))
    x = x if wide else x.T
    for _ in range(iterations):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x if wide else x.T
