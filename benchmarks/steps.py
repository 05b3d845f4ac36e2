"""A training step of one network, by us and by PyTorch: what `train_step.py` times and `step_memory.py` weighs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

import pellucid

BATCHES = {"lenet": 128, "cifar_vgg": 128, "cifar_resnet18": 64, "convnet": 512}  # the networks, and images in a step
MODES = {"pytorch default": torch.contiguous_format, "pytorch channels_last": torch.channels_last}  # of memory
SGD = {"lr": 0.01, "momentum": 0.9, "nesterov": True}


def data(name: str, batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Images as the network reads them, and labels."""
    network, rng = pellucid.zoo.build(name), np.random.default_rng(0)
    images = rng.standard_normal((batch, *network.input_shape), np.float32)
    return images, rng.integers(0, network.output_shape[0], batch)


def our_step(name: str, batch: int, precision: str = "float32") -> pellucid.TrainStep:
    """Called with images and labels it makes a step and returns the loss before it."""
    return pellucid.TrainStep(pellucid.Model(pellucid.zoo.build(name), seed=0), batch, pellucid.optim.SGD(**SGD),
                              precision=precision)


def torch_step(net: torch.nn.Module, images: np.ndarray, labels: np.ndarray, layout: torch.memory_format,
               compiled: bool = False) -> Callable[[], float]:
    """A function that makes a step of `net` and returns the loss before it. Images and labels are tensors already."""
    net = net.train().to(memory_format=layout)
    x = torch.from_numpy(images.transpose(0, 3, 1, 2)).contiguous(memory_format=layout)
    y = torch.from_numpy(labels)
    trained = [p for p in net.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, fused=True, **SGD)  # fused: one pass, the fastest it has
    forward = torch.compile(net) if compiled else net

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = torch.nn.functional.cross_entropy(forward(x), y)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step
