"""Filters that whiten: a first convolution whose answers on the training images are uncorrelated, of variance 1.

The patches that a filter sees have principal components, the eigenvectors of their covariance; each divided by the root
of its eigenvalue is a filter, and again with the opposite sign, because ReLU lets only one sign pass. They need no
training. (Page, "How to train your ResNet 8: Bag of tricks", 2019; Jordan, "94% on CIFAR-10 in 3.29 seconds on a single
GPU", 2024, section 3.2.)
"""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil, sqrt

import numpy as np

from ..data.arrays import spread
from ..layers import Conv
from ..model import Model
from ..network import INPUT, Node

MOST_PATCHES, LEAST_IMAGES = 2**18, 256  # that are looked at; of large images not every place is
CHUNK = 16  # images at a time
LEAST = 5e-4  # is added to the eigenvalues, so that what hardly varies is not blown up to noise


def whiten(model: Model, images: np.ndarray) -> None:
    """Set the filters of every convolution whose `init` is "whitening" from training images (N, *input_shape): uint8,
    which the model's preprocessing is applied to, or float32 as the network reads them.

    A network with such a layer that is trained by a loop of your own needs this once, before the first step. Raises
    ValueError for such a layer that does not read images, and for images smaller than its filters.
    """
    for node in model.network.nodes:
        if not isinstance(node.layer, Conv) or node.layer.init != "whitening":
            continue
        weight = model.buffer.arrays[f"{node.name}.weight"]
        _require_images(node, model, weight.shape[2:])
        height, width, _ = model.network.input_shape
        chosen = spread(len(images), max(MOST_PATCHES // (height * width), LEAST_IMAGES))
        chunks = (np.asarray(images[chosen[i:i + CHUNK]]) for i in range(0, len(chosen), CHUNK))
        prepared = (model.preprocessing.apply(c) if c.dtype == np.uint8 else c for c in chunks)
        weight[...] = filters(prepared, weight.shape, ceil(sqrt(len(chosen) * height * width / MOST_PATCHES)))
        model.changed()


def _require_images(node: Node, model: Model, size: tuple[int, ...]) -> None:
    shape = model.network.input_shape
    if node.inputs != (INPUT,) or len(shape) != 3:
        raise ValueError(f'layer {node.name!r} has init "whitening", which is for convolutions that read images')
    if any(n < k for n, k in zip(shape, size, strict=False)):
        raise ValueError(f"layer {node.name!r} cannot whiten images of {shape}, which are smaller than its filters")


def filters(chunks: Iterable[np.ndarray], shape: tuple[int, ...], step: int = 1) -> np.ndarray:
    """Filters of `shape` (O, C, kh, kw) for float32 images, chunks of (n, H, W, C), of which every `step`th row and
    column of patches is looked at: half of them the first components of the patches, largest first, half the same times
    -1. Components that are not there, because O / 2 is more than C kh kw, are zeros; an odd last filter is too."""
    half, (channels, height, width) = shape[0] // 2, shape[1:]
    covariance, seen = np.zeros((channels * height * width,) * 2), 0
    for images in chunks:
        every = np.lib.stride_tricks.sliding_window_view(images, (height, width), axis=(1, 2))[:, ::step, ::step]
        patches = every.reshape(-1, channels * height * width).astype(np.float64)
        covariance += patches.T @ patches
        seen += len(patches)
    values, vectors = np.linalg.eigh(covariance / seen)
    components = (vectors / np.sqrt(np.maximum(values, 0) + LEAST)).T[::-1][:half].reshape(-1, *shape[1:])
    # An eigenvector's sign is arbitrary; a fixed one keeps results the same wherever it is computed.
    flat = components.reshape(len(components), -1)
    flat *= np.sign(flat[np.arange(len(flat)), np.abs(flat).argmax(axis=1)])[:, None]
    result = np.zeros(shape, np.float32)
    result[:len(components)], result[half:][:len(components)] = components, -components
    return result
