"""Weights that others have trained become models: a state_dict and the network it belongs to."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from .. import modelfile, zoo
from ..layers.base import Shape
from ..model import Model
from ..network import Network
from ..preprocessing import Preprocessing
from . import fetching, imagenet, pth
from .pth import PthError

COUNTER = "num_batches_tracked"  # PyTorch's batch normalisation counts with it; no result depends on it
PARALLEL = "module."  # what DataParallel puts before every name


class WeightsError(ValueError):
    """Weights that do not fit the network. The message is one line."""


def load_state_dict(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The tensors in a file, by name: .safetensors, or what torch.save wrote (.pth, .pt), told apart by their content.

    Nothing is unpickled; see `pellucid.exchange.pth`. Raises OSError, ModelFileError or PthError, in one line, for a
    file that cannot be read, is damaged or holds something else than tensors.
    """
    with modelfile.open_file(path) as (file, _):
        begin = file.read(len(pth.LEGACY))
    if begin.startswith(pth.ZIP) or begin == pth.LEGACY:
        return pth.read(path)
    if begin[:1] == b"\x80":
        raise PthError(f"{path}: a pickle that torch.save did not write; nothing in it is executed, so it is not read")
    return modelfile.read(path)[0]


def fitted(values: Mapping[str, np.ndarray], network: Network) -> dict[str, np.ndarray]:
    """The network's parameters from a state_dict, float32, in the network's order.

    Counters of batch normalisation are left out, and so is `module.` before every name. Raises WeightsError where a
    tensor is missing, unknown, of another shape or type, or has values that are not finite.
    """
    values = {name: v for name, v in values.items() if name.rpartition(".")[2] != COUNTER}
    if values and all(name.startswith(PARALLEL) for name in values):
        values = {name.removeprefix(PARALLEL): v for name, v in values.items()}
    expected = network.parameters()
    missing, unknown = [n for n in expected if n not in values], [n for n in values if n not in expected]
    if missing or unknown:
        raise WeightsError(f"the weights are those of another network: {_some(missing, 'missing')}, "
                           f"{_some(unknown, 'unknown')}")
    result = {}
    for name, parameter in expected.items():
        value = values[name]
        if value.shape != parameter.shape:
            raise WeightsError(f"{name} has shape {value.shape}, the network's has {parameter.shape}")
        if value.dtype.kind != "f":
            raise WeightsError(f"{name} holds numbers of type {value.dtype}, expected floating point")
        with np.errstate(over="ignore"):
            result[name] = value.astype(np.float32)
        if not np.isfinite(result[name]).all():
            raise WeightsError(f"{name} has values that are not finite numbers")
    return result


def load(path: str | os.PathLike, net: str, *, input_shape: Shape | None = None, classes: Sequence[str] | None = None,
         preprocessing: Preprocessing | None = None, resize: int = imagenet.RESIZE) -> Model:
    """A model of the zoo's network `net` with the weights in a file.

    The number of classes is that of the weights. What is not given comes with networks that were published with weights
    for ImageNet: its preprocessing (`resize` as in `imagenet.preprocessing`), and its names where there are 1,000
    classes. Other networks get no preprocessing, so they read float32 images only, and numbers for names. Raises as
    `load_state_dict`, ValueError for an unknown network or a size that does not fit it, and WeightsError for weights
    that do not.
    """
    zoo.require(net)
    values = load_state_dict(path)
    last = list(zoo.build(net, input_shape=input_shape).parameters())[-1]
    rows = next((v.shape[0] for n, v in values.items() if n.removeprefix(PARALLEL) == last and v.ndim), None)
    network = zoo.build(net, input_shape=input_shape, classes=rows or None)
    try:
        parameters = fitted(values, network)
    except WeightsError as e:
        raise WeightsError(f"{path}, for {net}: {e}") from None
    if net in fetching.PUBLISHED and network.input_shape[-1] == 3:
        preprocessing = preprocessing or imagenet.preprocessing(network.input_shape, resize)
        if classes is None and network.output_shape == (1000,):
            classes = imagenet.classes()
    model = Model(network, None, preprocessing=preprocessing, classes=classes,
                  record={"imported": {"network": net, "file": Path(path).name}})
    model.load_parameters(parameters)
    return model


def published(net: str, *, progress=None, **options) -> Model:
    """The network with the weights that torchvision has published for it, fetched unless they are in the cache.

    `progress` as in `fetching.fetch`, the rest as in `load`. Raises ValueError for a network without published weights,
    OSError where they cannot be fetched, and as `load`.
    """
    file = fetching.fetch(net, progress=progress)
    return load(file, net, resize=fetching.PUBLISHED[net].resize, **options)


def _some(names: Sequence[str], what: str) -> str:
    """How many names, and the first of them."""
    if not names:
        return f"none {what}"
    return f"{len(names):,} {what} ({names[0][:80]}{', ...' if len(names) > 1 else ''})"
