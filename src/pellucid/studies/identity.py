"""Gradients through the identity: a model's norms layer by layer, beside the same network without its shortcuts.

"Identity mappings in deep residual networks" (He, Zhang, Ren and Sun, 2016, section 2): a sum hands the gradient on as
it is. Taken away, what stays is the plain network that the branches alone make.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ..data.arrays import spread
from ..explain.graph import logits
from ..layers import Add, Conv, Dense
from ..model import MEMORY, Model
from ..network import INPUT, Network, Node
from ..training import gradients
from ..training.gradients import Norm
from ..training.plan import whole
from ..training.step import Diverged, TrainStep
from ..training.whitening import whiten
from .layers import needed, with_parameters
from .matches import blocks
from .result import DoesNotApply, Study, checked, model_study, times

if TYPE_CHECKING:
    from ..draw import Picture

MODEL, FRESH, PLAIN = "the model as it is", "new weights", "new weights, no identity"
WORK, FEWEST = 5 * 10**11, 8  # multiply-adds that it may take; images that are looked at, and together, all the same


@dataclass(frozen=True, eq=False)
class Identity(Study):
    """The norms of the gradient by what they are of: the model as it is, its network with new weights, and the same
    without its `shortcuts`, in the mean over batches of `images` images. `labelled` says that their labels were given;
    else they are the model's own answers."""

    name, title = "identity", "Gradients through the identity"
    claim = "A sum hands the gradient on as it is, so that it reaches the first layers however many there are."

    shortcuts: int
    images: int
    labelled: bool
    norms: dict[str, tuple[Norm, ...]]

    @property
    def ratios(self) -> dict[str, float | None]:
        """How many times as large the gradient is in the first quarter of the convolutions and dense layers as in the
        last, in the geometric mean; None where a layer gets none."""
        found = {}
        for name, norms in self.norms.items():
            values = np.array(_of_weights(norms))
            ends = max(len(values) // 4, 1)
            first, last = values[:ends], values[-ends:]
            known = first.all() and last.all()
            found[name] = float(np.exp(np.log(first).mean() - np.log(last).mean())) if known else None
        return found

    @property
    def sentence(self) -> str:
        said = [f"{'not known' if ratio is None else times(ratio)} ({name})" for name, ratio in self.ratios.items()]
        labels = "with their labels" if self.labelled else "the loss being that to the model's own answers"
        return ("How many times as large the gradient of the loss is in the first quarter of the convolutions and "
                f"dense layers as in the last: {'; '.join(said)}. Sums with a shortcut: {self.shortcuts:,}; images: "
                f"{self.images:,}, {labels}.")

    def to_json(self) -> dict:
        return {**super().to_json(), "ratios": self.ratios}

    def figures(self) -> list[Picture]:
        return [gradients.picture([(name, _of_weights(norms)) for name, norms in self.norms.items()],
                                  "Gradient at each layer")]


@model_study("identity")
def identity(model: Model, images: np.ndarray, labels: np.ndarray | None = None, *, batch_size: int = 32,
             seed: int = 0) -> Identity:
    """The norms of the loss's gradient at each layer, in the mean over up to 4 batches of images; the model stays
    as it is. `seed` decides the new weights and the order of the images.

    Without `labels`, class indices, the loss is that to the model's own answers. Large networks are asked about fewer
    images. Raises ValueError for images and labels that do not fit and for values that are not finite, DoesNotApply for
    a network that ends in a map, and for one without sums to which one branch is deeper than the others.
    """
    images, size = checked(model, images), whole("batch_size", batch_size, 1)
    if labels is not None and np.shape(labels) != (len(images),):
        raise ValueError(f"expected a label for each of {len(images)} images, got {np.shape(labels)}")
    if len(model.network.output_shape) != 1:
        raise DoesNotApply("this network ends in a map and has no loss of one answer an image")
    end = logits(model.network)
    network = Network(model.network.input_shape, tuple(needed(model.network, end)), end)
    plain, shortcuts = without_identity(network)
    if not shortcuts:
        raise DoesNotApply("this network has no sum with a shortcut, so there is no identity path to take away")
    affordable = WORK // (9 * max(sum(network.macs.values()), 1))  # three models, each forwards and twice backwards
    together = int(MEMORY / (3 * sum(network.activation_bytes.values())))
    size = min(size, len(images), max(min(together, affordable), FEWEST))
    count = min(len(images), size * gradients.BATCHES, max(affordable, FEWEST))
    chosen = np.random.default_rng(seed).permutation(spread(len(images), count - count % size))
    images = np.ascontiguousarray(images[chosen])
    trained = with_parameters(network, model)
    answers = np.concatenate([values[end].argmax(axis=-1) for _, values in blocks(trained, images, [end])])
    known = answers if labels is None else np.asarray(labels)[chosen]
    models = {MODEL: trained, FRESH: Model(network, seed, preprocessing=model.preprocessing),
              PLAIN: Model(plain, seed, preprocessing=model.preprocessing)}
    for name, made in models.items():
        if name != MODEL:
            whiten(made, images)
    return Identity(shortcuts, len(images), labels is not None,
                    {name: _norms(name, made, images, known, size) for name, made in models.items()})


def _norms(name: str, model: Model, images: np.ndarray, labels: np.ndarray, size: int) -> tuple[Norm, ...]:
    try:
        return gradients.norms(TrainStep(model, size, gradients.STILL), model.network, images, labels, size)
    except Diverged:
        raise ValueError(f"{name}: the loss or its gradient is not a finite number; nothing can be measured with "
                         "it") from None


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
