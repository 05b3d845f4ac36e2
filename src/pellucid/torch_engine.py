"""Run a network with PyTorch in place of the compiled kernels: on a GPU, or where no kernels were compiled.

Importing this module imports PyTorch.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

import numpy as np
import torch

from . import processors
from .distributed import ALONE, Processes
from .torch_modules import NetworkModule

if TYPE_CHECKING:
    from .model import Model

CHUNK = 256  # images computed at a time where memory allows
MEMORY = min(2**32, processors.memory() / 4)  # bytes that all activations of a chunk may have


# Devices.


def device_of(name: str | None, processes: Processes = ALONE) -> torch.device:
    """The device of that name: "cpu", "cuda", "cuda:1", "mps"; None for a GPU by CUDA where there is one, else the CPU.

    Of several processes on a machine each gets a GPU of its own. Raises ValueError for a device that is not there.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    try:
        device = torch.device(name or ("cuda" if gpus else "cpu"))
    except (RuntimeError, TypeError):
        raise ValueError(f"device must be cpu, cuda, cuda:0 (or another number) or mps, got {name!r}") from None
    if device.type == "cuda":
        index = processes.local if device.index is None else device.index
        if index >= gpus:
            found = f"{gpus} of them" if gpus else "none"
            raise ValueError(f"there is no GPU number {index} for CUDA here, PyTorch {torch.__version__} finds "
                             f"{found}; use another device, such as cpu, or install a PyTorch made for your GPUs")
        if processes.here > 1 and device.index is not None:
            raise ValueError(f"{processes.here} processes on this machine need a GPU each; give cuda without a number")
        device = torch.device("cuda", index)
        torch.cuda.set_device(device)
    elif device.type == "mps":
        if not torch.backends.mps.is_available():
            raise ValueError(f"there is no GPU by Metal here that PyTorch {torch.__version__} can use; use another "
                             "device, such as cpu")
        if processes.count > 1:
            raise ValueError("several processes share no GPU by Metal; use --device cpu, or one process")
    elif device.type == "cpu":
        torch.set_num_threads(max(processors.threads() // processes.here, 1))
    else:
        raise ValueError(f"device must be cpu, cuda, cuda:0 (or another number) or mps, got {name!r}")
    return device


def precision_of(name: str | None, device: torch.device) -> str:
    """The precision of that name; None for the one by which a device gains: float32 everywhere but on GPUs by CUDA.

    There it is bfloat16 where the GPU computes in it, from compute capability 8 on, and float16 from 7 on.
    """
    if name is None:
        capability = torch.cuda.get_device_capability(device)[0] if device.type == "cuda" else 0
        return "bfloat16" if capability >= 8 else "float16" if capability == 7 else "float32"
    return name


# A model's copy.


class OnDevice:
    """A model's network as a module on a device. It computes the model's outputs, and may be trained in its place.

    The model's parameters and the module's are brought to agreement when one of them is asked for and the other has
    changed. With several processes `outputs` shares the images out, so all must ask for the same.
    """

    def __init__(self, model: Model, device: torch.device, *, precision: str = "float32", processes: Processes = ALONE):
        self.model, self.device, self.processes = model, device, processes
        self.dtype = None if precision == "float32" else getattr(torch, precision)
        form = torch.channels_last if len(model.network.input_shape) == 3 else torch.contiguous_format
        self.module = NetworkModule(model.network).to(device=device, memory_format=form)
        self.tensors = {**dict(self.module.named_parameters()), **dict(self.module.named_buffers())}
        self._seen, self._ahead = None, False  # the model's version in the module; whether the module is newer
        pre = model.preprocessing
        self._scale, self._shift = (torch.from_numpy(v).to(device) for v in (pre.scale, pre.shift)) if pre else (1, 0)

    def trained(self) -> None:
        """Say that the module's parameters have changed."""
        self._ahead = True

    def fetch(self) -> None:
        """Bring the model's parameters up to date with the module's."""
        if self._ahead:
            self._ahead = False
            arrays = self.model.buffer.arrays
            for name, tensor in self.tensors.items():
                arrays[name][...] = tensor.detach().cpu().numpy()

    def send(self) -> None:
        """Bring the module's parameters up to date with the model's."""
        if self._seen != self.model.version:
            arrays = self.model.buffer.arrays
            with torch.no_grad():
                for name, tensor in self.tensors.items():
                    tensor.copy_(torch.from_numpy(arrays[name]))
            self._seen = self.model.version

    def read(self, images: np.ndarray) -> torch.Tensor:
        """uint8 or float32 images on the device, as float32, uint8 ones preprocessed."""
        x = torch.from_numpy(np.require(images, requirements=("C", "W"))).to(self.device)
        return x if images.dtype == np.float32 else x.float().mul_(self._scale).add_(self._shift)

    def autocast(self):
        """The context in which the module computes in the chosen precision."""
        return torch.autocast(self.device.type, self.dtype) if self.dtype else nullcontext()

    def outputs(self, images: np.ndarray) -> np.ndarray:
        """The network's output for uint8 or float32 images (N, *input_shape): float32 (N, *output_shape)."""
        self.send()
        self.module.eval()
        mine = images[self.processes.part(len(images))]
        size = int(max(min(CHUNK, MEMORY // sum(self.model.network.activation_bytes.values())), 1))
        out = np.empty((len(mine), *self.model.network.output_shape), np.float32)
        with torch.inference_mode():
            for i in range(0, len(mine), size):
                out[i:i + size] = self.module(self.read(mine[i:i + size])).cpu().numpy()
        return self.processes.joined(out, len(images))
