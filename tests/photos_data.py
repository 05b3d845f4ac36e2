"""Pictures that have nothing in common, and data sets of them in which nothing is wrong: for tests of copies."""

import numpy as np
from PIL import Image

from pellucid.data import Dataset


def photos(count, size=(16, 16, 3), seed=0):
    """uint8 (count, H, W, C): light and dark, somewhat coloured, that run into each other; every image its own."""
    rng = np.random.default_rng(seed)
    height, width, channels = size
    patches = rng.integers(50, 170, (count, 1, 5, 5)) + rng.integers(0, 50, (count, channels, 5, 5))

    def smooth(patch):
        return np.asarray(Image.fromarray(patch).resize((width, height), Image.Resampling.BICUBIC))

    return np.stack([np.stack([smooth(p) for p in image], axis=-1) for image in patches.astype(np.uint8)])


def sound(count=72, test=0, seed=0, **fields):
    """Three classes in turn, without and with a test set."""
    images = photos(count + test, seed=seed)
    labels = (np.arange(count + test) % 3).astype(np.int32)
    if test:
        fields = {"test_images": images[count:], "test_labels": labels[count:], **fields}
    return Dataset(**{"name": "d", "images": images[:count], "labels": labels[:count],
                      "classes": ["ant", "bee", "cat"], **fields})
