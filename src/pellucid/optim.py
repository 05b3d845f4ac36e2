"""Optimisers: how parameters move along their gradients.

Formulas and defaults are PyTorch's where it has the optimiser. An optimiser here is a value, without state: it names
the state buffers it needs (`slots`, all starting at zero), the kernel that makes a step and its arguments. Steps are
counted from 0.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite, sqrt

from . import schedules

Rate = float | Callable[[int], float]

OPTIMISERS: dict[str, type[Optimiser]] = {}


class Optimiser:
    """Base of all optimisers. Subclasses are frozen dataclasses; defining one registers it under its name."""

    lr: Rate

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        OPTIMISERS[cls.__name__] = cls

    @property
    def slots(self) -> tuple[str, ...]:
        """Names of the state buffers, each as long as the parameters."""
        return ()

    def rate(self, step: int) -> float:
        """The learning rate of a step. Raises ValueError if the schedule gives none that can be used."""
        if not callable(self.lr):
            return float(self.lr)
        value = self.lr(step)
        if not isinstance(value, (int, float)) or not isfinite(value) or value < 0:
            raise ValueError(f"the learning-rate schedule must give a finite number, at least 0; "
                             f"at step {step} it gave {value!r}")
        return float(value)

    def rates(self, step: int, factor: float = 1.0) -> tuple[float, ...]:
        """What the kernel's buffer `rates` must hold for a step, the learning rate multiplied by `factor`."""
        return (self.rate(step) * factor,)

    def orthogonalises(self, shape: tuple[int, ...]) -> bool:
        """Whether a parameter of this shape moves as a matrix (`pellucid.muon`), and not number by number."""
        return False

    def call_arguments(self) -> tuple[str, dict[str, float]]:
        """The kernel's name and its constant scalars."""
        raise TypeError(f"{type(self).__name__} has no kernel; use {', '.join(OPTIMISERS)}")

    def call(self, parameters, gradients, rates, slots: dict) -> tuple[str, dict]:
        """The kernel's name and all its arguments, for flat float32 vectors of one length.

        `parameters` and `slots` (by name) are updated in place; `rates` holds `self.rates(step)`.
        """
        name, scalars = self.call_arguments()
        buffers = [parameters, *(slots[slot] for slot in self.slots)]
        numbered = {f"{name}.{i}": buffer for i, buffer in enumerate(buffers)} if self.slots else {name: parameters}
        return name, {**numbered, "g": gradients, "rates": rates, **scalars}

    def to_json(self) -> dict:
        """The kind and all fields. Raises TypeError if `lr` is a function of your own."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {"kind": type(self).__name__, **fields, "lr": schedules.to_json(self.lr)}

    def _check(self, name: str, least: float, below: float) -> None:
        value = getattr(self, name)
        if not _is_number(value) or not least <= value < below:
            limit = f" and below {below:g}" if isfinite(below) else " and finite"
            raise ValueError(f"{name} must be a number, at least {least:g}{limit}, got {value!r}")

    def _check_rate(self) -> None:
        if not callable(self.lr):
            try:
                self._check("lr", 0, float("inf"))
            except ValueError as e:
                raise ValueError(f"{e}; a schedule from pellucid.schedules will do too") from None


@dataclass(frozen=True)
class SGD(Optimiser):
    """Stochastic gradient descent: d = g + weight_decay p; m = momentum m + d; p -= lr m.

    With `nesterov`, p -= lr (d + momentum m) (Sutskever et al., "On the importance of initialization and momentum in
    deep learning", 2013). As torch.optim.SGD with dampening 0.

    Raises ValueError unless lr >= 0, 0 <= momentum < 1, weight_decay >= 0, and momentum > 0 with nesterov.
    """

    lr: Rate = 0.01
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0

    def __post_init__(self):
        self._check_rate()
        self._check("momentum", 0, 1)
        self._check("weight_decay", 0, float("inf"))
        if not isinstance(self.nesterov, bool):
            raise ValueError(f"nesterov must be True or False, got {self.nesterov!r}")
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov looks ahead along the momentum: give a momentum above 0, such as 0.9")

    @property
    def slots(self) -> tuple[str, ...]:
        return ("momentum",) if self.momentum else ()

    def call_arguments(self) -> tuple[str, dict[str, float]]:
        if not self.momentum:
            return "sgd", {"weight_decay": self.weight_decay}
        name = "nesterov_sgd" if self.nesterov else "momentum_sgd"
        return name, {"weight_decay": self.weight_decay, "momentum": self.momentum}


@dataclass(frozen=True)
class Adam(Optimiser):
    """Steps of even size: the mean of the gradient over the root of the mean of its square.

    d = g + weight_decay p; m = beta1 m + (1 - beta1) d; v = beta2 v + (1 - beta2) d^2;
    p -= lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps) at the t-th step, t from 1 (Kingma and Ba, "Adam: A
    method for stochastic optimization", 2015). As torch.optim.Adam.

    Raises ValueError unless lr >= 0, both betas are in [0, 1), weight_decay >= 0 and eps is positive in float32.
    """

    lr: Rate = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0

    def __post_init__(self):
        self._check_rate()
        betas = self.betas
        pair = isinstance(betas, (tuple, list)) and len(betas) == 2
        if not pair or not all(_is_number(b) and 0 <= b < 1 for b in betas):
            raise ValueError(f"betas must be two numbers, at least 0 and below 1, got {betas!r}")
        object.__setattr__(self, "betas", tuple(betas))
        self._check("eps", 1e-37, float("inf"))  # with eps = 0 a gradient that is always 0 would give 0 / 0
        self._check("weight_decay", 0, float("inf"))

    @property
    def slots(self) -> tuple[str, ...]:
        return ("m", "v")

    def rates(self, step: int, factor: float = 1.0) -> tuple[float, float, float]:
        beta1, beta2 = self.betas
        lr, t = self.rate(step) * factor, step + 1
        return lr / (1 - beta1**t), 1 / sqrt(1 - beta2**t), 1 - lr * self._decoupled

    @property
    def _decoupled(self) -> float:
        """Weight decay applied to the parameters themselves."""
        return 0.0

    def call_arguments(self) -> tuple[str, dict[str, float]]:
        (beta1, beta2), coupled = self.betas, self.weight_decay - self._decoupled
        return "adam", {"weight_decay": coupled, "beta1": beta1, "rest1": 1 - beta1, "beta2": beta2,
                        "rest2": 1 - beta2, "eps": self.eps}


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decoupled weight decay: p shrinks by the factor 1 - lr weight_decay, and d = g.

    (Loshchilov and Hutter, "Decoupled weight decay regularization", 2019.) As torch.optim.AdamW. Raises ValueError as
    Adam does.
    """

    weight_decay: float = 0.01

    @property
    def _decoupled(self) -> float:
        return self.weight_decay


@dataclass(frozen=True)
class Muon(Optimiser):
    """Orthogonal steps for the filters of convolutions, momentum for everything else.

    A layer's filters are a matrix W with a row for each filter. m = momentum m + g; U is the orthogonal matrix nearest
    to g + momentum m, found by `iterations` steps of Newton and Schulz (see `pellucid.muon`);
    W = sqrt(rows) W / |W| - lr U. All other parameters, biases and dense layers among them, move by SGD with Nesterov
    momentum `other_momentum` at the rate lr * others. (Jordan et al., "Muon: An optimizer for hidden layers in neural
    networks", 2024, with the fixed norm of filters that airbench's record runs on CIFAR-10 have.) A fixed norm fits
    filters that batch normalisation follows, for which their scale does not matter.

    Raises ValueError unless lr and others >= 0, 0 <= momentum < 1, 0 < other_momentum < 1 and iterations is a positive
    integer.
    """

    lr: Rate = 0.12
    momentum: float = 0.75
    iterations: int = 3
    others: float = 0.2
    other_momentum: float = 0.85

    def __post_init__(self):
        self._check_rate()
        self._check("momentum", 0, 1)
        self._check("other_momentum", 0, 1)
        if not self.other_momentum:
            raise ValueError("other_momentum must be above 0: Nesterov's look-ahead is along the momentum")
        self._check("others", 0, float("inf"))
        if not isinstance(self.iterations, int) or isinstance(self.iterations, bool) or self.iterations < 1:
            raise ValueError(f"iterations must be a positive integer, got {self.iterations!r}")

    @property
    def slots(self) -> tuple[str, ...]:
        return ("momentum",)

    def rates(self, step: int, factor: float = 1.0) -> tuple[float, ...]:
        return (self.rate(step) * self.others * factor,)

    def orthogonalises(self, shape: tuple[int, ...]) -> bool:
        return len(shape) > 2

    def call_arguments(self) -> tuple[str, dict[str, float]]:
        return "nesterov_sgd", {"weight_decay": 0.0, "momentum": self.other_momentum}


def from_json(value: dict) -> Optimiser:
    """The inverse of `to_json`. Raises ValueError for an unknown kind or field, or a value that does not fit."""
    if not isinstance(value, dict):
        raise ValueError(f"an optimiser must be a dict with its kind and fields, got {value!r}")
    fields = dict(value)
    kind = fields.pop("kind", None)
    if not isinstance(kind, str) or kind not in OPTIMISERS:
        raise ValueError(f"unknown optimiser {kind!r}; known are {', '.join(sorted(OPTIMISERS))}")
    known = {f.name for f in dataclasses.fields(OPTIMISERS[kind])}
    if unknown := set(fields) - known:
        unknown = ", ".join(sorted(map(repr, unknown)))
        raise ValueError(f"{kind} has no field {unknown}; it has {', '.join(sorted(known))}")
    if "lr" in fields:
        fields["lr"] = schedules.from_json(fields["lr"])
    try:
        return OPTIMISERS[kind](**fields)
    except (TypeError, ValueError) as e:
        raise ValueError(f"{kind}: {e}") from e


def _is_number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
