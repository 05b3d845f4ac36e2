"""A step of training by PyTorch, in place of `TrainStep`: on a GPU, or shared by several processes.

The same losses and updates as the native engine's, within the rounding of float32, by PyTorch's own optimisers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel

from .. import optim
from ..distributed import ALONE, Processes
from ..layers.dropout import mix
from ..layers.loss import CrossEntropy
from ..torch_engine import OnDevice
from .step import Diverged, check_factors, check_state, checked, require_trainable
from .torch_muon import TorchMuon

if TYPE_CHECKING:
    from ..model import Model

# PyTorch's optimiser for each of ours: its class, its arguments but the rate, and what it calls our slots.
OPTIMISERS = {
    optim.SGD: (torch.optim.SGD, ("momentum", "nesterov", "weight_decay"), {"momentum": "momentum_buffer"}),
    optim.Adam: (torch.optim.Adam, ("betas", "eps", "weight_decay"), {"m": "exp_avg", "v": "exp_avg_sq"}),
    optim.AdamW: (torch.optim.AdamW, ("betas", "eps", "weight_decay"), {"m": "exp_avg", "v": "exp_avg_sq"}),
    optim.Muon: (TorchMuon, ("momentum", "iterations", "others", "other_momentum"), {"momentum": "momentum_buffer"}),
}


class TorchStep:
    """As `TrainStep`, with the model's network on a device.

    With several processes `batch_size` is that of all together; each calls with the images in `part` of the batch, and
    gets the loss of the whole. Gradients are averaged by DistributedDataParallel, batch normalisation and dropout see
    the whole batch, so that the result does not depend on the number of processes but for rounding. `precision` is one
    of `engines.TORCH`: with "float16" the loss is scaled, and a step whose gradients overflow is left out.
    Raises ValueError as `TrainStep` does, for a layer or an optimiser without a counterpart in PyTorch, and for fewer
    images than processes.
    """

    def __init__(self, model: Model, batch_size: int, optimizer: optim.Optimiser, *, label_smoothing: float = 0.0,
                 class_weights: Sequence[float] | None = None, factors: Mapping[str, float] | None = None,
                 seed: int = 0, device: torch.device | str = "cpu", precision: str = "float32",
                 processes: Processes = ALONE):
        require_trainable(model.network, batch_size)
        if batch_size < processes.count:
            raise ValueError(f"a batch of {batch_size} is too small for {processes.count} processes; each needs an "
                             "image: use a larger batch, or fewer processes")
        loss = CrossEntropy(label_smoothing, None if class_weights is None else tuple(class_weights))
        classes = model.network.output_shape[0]
        if loss.weights is not None and len(loss.weights) != classes:
            raise ValueError(f"the network tells {classes} classes apart, but {len(loss.weights)} class weights were "
                             "given")
        if type(optimizer) not in OPTIMISERS:
            known = ", ".join(kind.__name__ for kind in OPTIMISERS)
            raise ValueError(f"the PyTorch engine has no {type(optimizer).__name__}; it has {known}. Use one of them, "
                             "or the native engine")
        self.model, self.batch_size, self.optimizer, self.seed = model, batch_size, optimizer, seed
        self.steps, self.lr, self.processes = 0, optimizer.rate(0), processes
        self.part = processes.part(batch_size)
        self._smoothing = loss.smoothing
        self.copy = OnDevice(model, torch.device(device), precision=precision, processes=processes)
        device = self.copy.device
        self._weights = torch.tensor(loss.weights or (1.0,) * classes, dtype=torch.float32, device=device)
        self.copy.module.normalised_over(batch_size, processes)
        self._module = self.copy.module
        if processes.count > 1:
            self.copy.send()
            self._module = DistributedDataParallel(self.copy.module)
        self._learned = {name: p for name, p in self.copy.module.named_parameters() if p.requires_grad}
        self._statistics = list(self.copy.module.buffers())
        self._optimizer, self._slots = self._torch_optimizer(factors or {})
        self._scaler = torch.amp.GradScaler(device.type, enabled=precision == "float16")
        model.use(self.copy)

    def __call__(self, images: np.ndarray, labels: np.ndarray) -> float:
        """The mean loss over the batch of all processes before the update. Raises Diverged as `TrainStep` does, in all
        processes alike, and `distributed.Lost` where another one has ended."""
        images, labels = checked(self.model, self.part.stop - self.part.start, np.asarray(images), np.asarray(labels))
        self.copy.send()
        self.copy.module.train()
        self.copy.module.dropped_by(mix(self.seed, self.steps), self.part.start)
        before = [s.clone() for s in self._statistics]
        self.lr = self.optimizer.rate(self.steps)
        for group in self._optimizer.param_groups:
            group["lr"] = self.lr * group["factor"]
        self._optimizer.zero_grad()
        with self.processes.talking():
            share = self._loss(self.copy.read(images), labels)
            loss = self.processes.total(share.item())
            if isfinite(loss):
                # Averaging over the processes turns their shares of the mean into a mean of shares.
                self._scaler.scale(share * self.processes.count).backward()
                self._scaler.unscale_(self._optimizer)
        if not isfinite(loss) or not self._updated():
            for s, old in zip(self._statistics, before, strict=True):
                s.copy_(old)
            self.copy.trained()
            raise Diverged(self.steps + 1, "gradient" if isfinite(loss) else "loss", self.lr)
        self.steps += 1
        self.copy.trained()
        return loss

    def _loss(self, x: torch.Tensor, labels: np.ndarray) -> torch.Tensor:
        """The losses of this process's images, added up and divided by the batch's size."""
        with self.copy.autocast():
            scores = self._module(x)
        labels = torch.from_numpy(labels.astype(np.int64)).to(x.device)
        losses = F.cross_entropy(scores.float(), labels, label_smoothing=self._smoothing, reduction="none")
        return (losses * self._weights[labels]).sum() / self.batch_size

    def _updated(self) -> bool:
        """Move the parameters, unless a gradient is not finite. With scaled losses that is left to the scaler."""
        if not self._scaler.is_enabled():
            gradients = [p.grad for p in self._learned.values()]
            # Huge but finite numbers may have an infinite norm.
            if not torch.nn.utils.get_total_norm(gradients).isfinite() and not all(
                    g.isfinite().all() for g in gradients):
                return False
        self._scaler.step(self._optimizer)
        self._scaler.update()
        return True

    def _torch_optimizer(self, factors: Mapping[str, float]) -> tuple[torch.optim.Optimizer, dict[str, str]]:
        """PyTorch's optimiser, its state all zeros, with a group of parameters for each factor; its names of slots."""
        check_factors(factors, self._learned)
        kind, options, names = OPTIMISERS[type(self.optimizer)]
        groups: dict[float, list] = {}
        for name, p in self._learned.items():
            groups.setdefault(float(factors.get(name, 1.0)), []).append(p)
        made = kind([{"params": ps, "factor": factor} for factor, ps in groups.items()], lr=self.lr,
                    **{name: getattr(self.optimizer, name) for name in options})
        slots = {slot: names[slot] for slot in self.optimizer.slots}
        for p in self._learned.values() if slots else ():
            made.state[p] = {theirs: torch.zeros_like(p) for theirs in slots.values()}
            if "exp_avg" in made.state[p]:
                made.state[p]["step"] = torch.tensor(0.0)
        return made, slots

    def gradients(self) -> dict[str, np.ndarray]:
        """The trainable parameters' gradients of the last step, by name; read them before the next."""
        return {name: p.grad.cpu().numpy() for name, p in self._learned.items()}

    def memory(self) -> int:
        """Bytes of gradients and optimiser state; what PyTorch takes for activations it does not say."""
        return sum(p.numel() * 4 for p in self._learned.values()) * (1 + len(self._slots))

    def state(self) -> dict[str, np.ndarray]:
        """The optimiser's buffers as `TrainStep.state` names and shapes them, as copies."""
        return {f"{slot}.{name}": self._optimizer.state[p][theirs].cpu().numpy().copy()
                for slot, theirs in self._slots.items() for name, p in self._learned.items()}

    def load_state(self, state: Mapping[str, np.ndarray], steps: int) -> None:
        """Take up where a step of either engine with that `state()` stood. Raises ValueError as `TrainStep` does."""
        check_state(state, self.state())
        for slot, theirs in self._slots.items():
            for name, p in self._learned.items():
                self._optimizer.state[p][theirs].copy_(torch.from_numpy(np.array(state[f"{slot}.{name}"])))
        for held in self._optimizer.state.values():
            if "step" in held:
                held["step"].fill_(steps)
        self.steps = steps
