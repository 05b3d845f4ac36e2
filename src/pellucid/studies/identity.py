"""What the identity path does to gradients: a model's norms over depth, beside the same network without its shortcuts.

"Identity mappings in deep residual networks" (He, Zhang, Ren and Sun, 2016, section 2): a sum hands the gradient on as
it is. Taken away, what stays is the plain network that the branches alone make.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from ..draw import Picture
from ..layers import Add, Conv, Dense
from ..model import Model
from ..network import INPUT, Network, Node
from ..training import gradients
from ..training.step import TrainStep
from ..training.whitening import whiten

MODEL, FRESH, PLAIN = "the model as it is", "with new weights", "with new weights, without the identity"
LEAST = 1e-30  # of a norm, where ratios are taken


@dataclass(frozen=True)
class Norm:
    """Mean norm of the gradient to a layer's parameters; `depth` counts the layers with parameters, from 1."""

    layer: str
    kind: str
    depth: int
    parameters: int
    norm: float


@dataclass(frozen=True)
class Gradients:
    """Norms by what they are of: the model as it is, its network with new weights, and where it has `shortcuts`, the
    same without them. `images` were looked at, in batches."""

    shortcuts: int
    images: int
    norms: dict[str, tuple[Norm, ...]]

    def picture(self) -> Picture:
        """The norms of convolutions and dense layers over depth."""
        return gradients.picture([(name, _of_weights(found)) for name, found in self.norms.items()],
                                 "Gradient at each layer")

    def ratios(self) -> dict[str, float]:
        """How many times as large the gradient is in the first quarter of the convolutions and dense layers as in the
        last, in the geometric mean."""
        found = {}
        for name, norms in self.norms.items():
            logs = np.log(np.maximum(_of_weights(norms), LEAST))
            quarter = max(len(logs) // 4, 1)
            found[name] = float(np.exp(logs[:quarter].mean() - logs[-quarter:].mean()))
        return found

    def words(self) -> list[str]:
        """What the norms say, a sentence each."""
        said = [f"{name[0].upper()}{name[1:]}: the gradient is {ratio:.2g} times as large in the first quarter of the "
                "layers as in the last." for name, ratio in self.ratios().items()]
        if not self.shortcuts:
            said.append("The network has no sum with a shortcut, so there is no identity path to compare with.")
        return said

    def to_json(self) -> dict:
        """Everything as plain numbers, lists and dicts."""
        return {"shortcuts": self.shortcuts, "images": self.images, "ratios": self.ratios(), "words": self.words(),
                "norms": {name: [asdict(norm) for norm in norms] for name, norms in self.norms.items()}}


def study(model: Model, images: np.ndarray, labels: np.ndarray, *, batch_size: int = 32, seed: int = 0) -> Gradients:
    """The norms of the loss's gradient at each layer, in the mean over up to 4 batches of labelled images; the model
    stays as it is. `seed` decides the new weights.

    images: (N, H, W, C), uint8 or float32 as the network reads them. Raises ValueError for fewer images than a batch,
    for labels that do not fit, and for a network that cannot be trained.
    """
    if len(images) < batch_size or len(images) != len(labels):
        raise ValueError(f"expected at least {batch_size} images and as many labels, got {len(images)} and "
                         f"{len(labels)}")
    count = min(len(images) // batch_size, gradients.BATCHES) * batch_size
    images, labels = np.asarray(images[:count]), np.asarray(labels[:count])
    plain, shortcuts = without_identity(model.network)
    models = {MODEL: gradients.copy_of(model), FRESH: Model(model.network, seed, preprocessing=model.preprocessing)}
    if shortcuts:
        models[PLAIN] = Model(plain, seed, preprocessing=model.preprocessing)
    for name, made in models.items():
        if name != MODEL:
            whiten(made, images)
    return Gradients(shortcuts, count, {name: _norms(made, images, labels, batch_size)
                                        for name, made in models.items()})


def _norms(model: Model, images: np.ndarray, labels: np.ndarray, size: int) -> tuple[Norm, ...]:
    network = model.network
    found = gradients.norms(TrainStep(model, size, gradients.STILL), images, labels, size)
    return tuple(Norm(name, kind, depth, network.parameter_counts[name], found[name])
                 for depth, (name, kind) in enumerate(gradients.layers(network, found), 1))


def _of_weights(norms: Sequence[Norm]) -> list[float]:
    return [norm.norm for norm in norms if gradients.weighted(norm.kind)]


def without_identity(network: Network) -> tuple[Network, int]:
    """The network with each sum's deepest branch in place of the sum, and how many sums that were.

    The deepest has most convolutions and dense layers on its way from the input; a sum of equally deep ones stays.
    """
    depths, instead, nodes = {INPUT: 0}, {}, []
    for node in network.nodes:
        deep = [depths[i] for i in node.inputs]
        depths[node.name] = max(deep) + isinstance(node.layer, Conv | Dense)
        inputs = tuple(instead.get(i, i) for i in node.inputs)
        if isinstance(node.layer, Add) and deep.count(max(deep)) == 1:
            instead[node.name] = inputs[int(np.argmax(deep))]
        else:
            nodes.append(replace(node, inputs=inputs))
    output = instead.get(network.output, network.output)
    read: set[str] = {output}
    kept: list[Node] = []
    for node in reversed(nodes):  # what only a shortcut read goes, too
        if node.name in read:
            kept.append(node)
            read.update(node.inputs)
    return Network(network.input_shape, tuple(reversed(kept)), output), len(instead)
