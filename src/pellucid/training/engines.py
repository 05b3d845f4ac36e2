"""What trains: the compiled kernels in this process, or PyTorch on a device, in one process or several."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .. import distributed
from ..distributed import ALONE, Processes
from ..engine.library import GET_TORCH, compiled, library
from ..model import Model
from ..processors import threads
from .run import RunFolder
from .step import TrainStep

if TYPE_CHECKING:
    from .setup import Setup
    from .torch_step import TorchStep

ENGINES = ("native", "torch")
TORCH = ("float32", "bfloat16", "float16")  # what PyTorch computes in
PRECISIONS = ("int16", *TORCH)  # int16 and float32: the compiled kernels (`Library.precisions`)
MOST_AHEAD = 8  # batches, of which a computer with many processors would keep too many in memory


@dataclass(frozen=True)
class Native:
    """The compiled kernels, in one of their precisions (`TrainStep`)."""

    precision: str
    processes: Processes = field(default=ALONE, init=False)
    ahead: int = field(default=0, init=False)

    def begin(self, model: Model, setup: Setup) -> TrainStep:
        """The model's training step, as a run with these settings begins."""
        return TrainStep(model, setup.plan.batch_size, setup.optimizer, **_options(setup), precision=self.precision)

    def take(self, model: Model) -> None:
        """Compute this model's outputs from now on."""

    def leave(self, model: Model) -> None:
        """Compute them no longer."""

    def to_json(self) -> dict:
        """As config.json keeps it; it does not bind who resumes the run."""
        return {"engine": "native", "precision": self.precision}


@dataclass(frozen=True)
class Torch:
    """PyTorch on a device, in a precision (`torch_engine`). Methods as those of `Native`.

    `ahead` is how many batches threads prepare while the device computes.
    """

    device: Any  # a torch.device
    precision: str
    processes: Processes = ALONE
    ahead: int = 0

    def begin(self, model: Model, setup: Setup) -> TorchStep:
        from .torch_step import TorchStep

        return TorchStep(model, setup.plan.batch_size, setup.optimizer, **_options(setup), device=self.device,
                         precision=self.precision, processes=self.processes)

    def take(self, model: Model) -> None:
        from ..torch_engine import OnDevice

        model.use(OnDevice(model, self.device, processes=self.processes, precision=self.precision))

    def leave(self, model: Model) -> None:
        model.use(None)

    def to_json(self) -> dict:
        return {"engine": "torch", "device": self.device.type, "precision": self.precision,
                "processes": self.processes.count}


def again(out, name: str | None, device: str | None, precision: str | None) -> Native | Torch:
    """`choose` for the run in a folder: what is not asked for is as it was last trained.

    Raises ValueError as `choose` does, and for a config.json with a precision that there is not.
    """
    if device is not None or distributed.world() > 1:
        return choose(name, device, precision)
    folder = RunFolder.existing(out)
    before = folder.read_config()
    kept = {key: v for key in ("device", "precision") if isinstance(v := before.get(key), str)}
    if kept.get("precision", "float32") not in PRECISIONS:
        raise ValueError(f"{folder.config}: no precision is called {kept['precision']!r}; there are "
                         f"{', '.join(PRECISIONS)}")
    if before.get("engine") == "torch" and name != "native" and precision in (None, *TORCH):
        return choose("torch", **kept | ({"precision": precision} if precision else {}))
    if before.get("engine") != "torch" and name != "torch" and precision is None and (name or compiled()):
        precision = kept.get("precision", "float32")  # as it was before there were several
        return Native(precision if precision in library().precisions else "float32")
    return choose(name, device, precision)


def _options(setup: Setup) -> dict:
    return {"label_smoothing": setup.label_smoothing, "class_weights": setup.class_weights, "factors": setup.factors,
            "seed": setup.seed}


def choose(name: str | None = None, device: str | None = None, precision: str | None = None) -> Native | Torch:
    """The engine that was asked for: "native", "torch", or None for the compiled kernels where there are such.

    A device, a precision of PyTorch's alone or several processes ask for PyTorch. With "torch" the processes that
    `torchrun` has started meet here. Raises ValueError for what does not fit each other or is not there; ImportError
    where PyTorch is missing, NoKernels where the kernels are.
    """
    for what, value, known in (("engine", name, ENGINES), ("precision", precision, PRECISIONS)):
        if value is not None and value not in known:
            raise ValueError(f"{what} must be one of {', '.join(known)}, got {value!r}")
    wants = [] if device is None else [f"device {device}"]
    if precision in TORCH and precision != "float32":
        wants.append(f"precision {precision}")
    if distributed.world() > 1:
        wants.append(f"training in {distributed.world()} processes")
    if precision == "int16":
        if name == "torch" or wants:
            raise ValueError("precision int16 is of the engine native, on the CPU in one process; PyTorch computes in "
                             f"{', '.join(TORCH)}")
        name = "native"
    if name == "native" and wants:
        raise ValueError("the native engine computes in one process on the CPU, in int16 or float32; "
                         f"{wants[0]} needs the engine torch")
    if name == "native" or name is None and not wants and compiled():
        there = library().precisions
        if precision is not None and precision not in there:
            raise ValueError(f"the kernels for this processor compute in {' or '.join(there)}, not in {precision}")
        return Native(precision or there[0])
    try:
        from ..torch_engine import device_of, precision_of
    except ImportError as e:
        if e.name != "torch":
            raise
        if name is None and not wants:
            library()  # says what is missing
        raise ImportError(f"{wants[0] if wants else 'the engine torch'} needs PyTorch, which is not installed: "
                          f"{GET_TORCH}", name="torch") from None
    processes = distributed.join()
    with processes.agreeing():
        device = device_of(device, processes)
        idle = 0 if device.type == "cpu" else min(threads() // processes.here, MOST_AHEAD)
        return Torch(device, precision_of(precision, device), processes, idle)
