"""Filters that whiten: a first convolution whose answers on the training images are uncorrelated, of variance 1.

The patches that a filter sees have principal components, the eigenvectors of their covariance; each divided by the root
of its eigenvalue is a filter, and again with the opposite sign, because ReLU lets only one sign pass. They need no
training. (Page, "How to train your ResNet 8: Bag of tricks", 2019; Jordan, "94% on CIFAR-10 in 3.29 seconds on a single
GPU", 2024, section 3.2.)
"""

from __future__ import annotations

import numpy as np

from ..layers import Conv
from ..model import Model
from ..network import INPUT

MOST_IMAGES, MOST_PATCHES = 5000, 2**18  # that are looked at
LEAST = 5e-4  # is added to the eigenvalues, so that what hardly varies is not blown up to noise


def whiten(model: Model, images: np.ndarray) -> None:
    """Set the filters of every convolution of the image whose `init` is "whitening" from uint8 training images."""
    for node in model.network.nodes:
        layer = node.layer
        if isinstance(layer, Conv) and layer.init == "whitening" and node.inputs == (INPUT,):
            weight = model.buffer.arrays[f"{node.name}.weight"]
            some = images[np.linspace(0, len(images) - 1, min(len(images), MOST_IMAGES)).round().astype(np.int64)]
            weight[...] = filters(model.preprocessing.apply(np.asarray(some)), weight.shape)
            model.changed()


def filters(images: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Filters of `shape` (O, C, kh, kw) for float32 images (N, H, W, C): half of them the first components of the
    images' patches, largest first, half the same times -1. Components that are not there, because O / 2 is more than
    C kh kw, are zeros; an odd last filter is too."""
    count, _, height, width = shape
    every = np.lib.stride_tricks.sliding_window_view(images, (height, width), axis=(1, 2))
    step = max(-(-every[..., 0, 0, 0].size // MOST_PATCHES), 1)
    patches = every[::step].reshape(-1, images.shape[-1] * height * width).astype(np.float64)
    values, vectors = np.linalg.eigh(patches.T @ patches / len(patches))
    components = (vectors / np.sqrt(np.maximum(values, 0) + LEAST)).T[::-1][:count // 2].reshape(-1, *shape[1:])
    # An eigenvector's sign is arbitrary; a fixed one keeps results the same wherever it is computed.
    flat = components.reshape(len(components), -1)
    flat *= np.sign(flat[np.arange(len(flat)), np.abs(flat).argmax(axis=1)])[:, None]
    result = np.zeros(shape, np.float32)
    result[:len(components)], result[count // 2:][:len(components)] = components, -components
    return result
