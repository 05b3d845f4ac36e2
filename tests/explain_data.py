"""Images in which one small patch decides and all else is noise, and a network trained on them."""

from functools import lru_cache

import numpy as np

import pellucid
from pellucid.layers import Conv, Dense, GlobalMaxPool, MaxPool, ReLU
from pellucid.network import Network, Sequential

SIDE, PATCH = 16, 4
ROWS, COLUMNS = np.indices((PATCH, PATCH)) % 2
PATTERNS = 255 * np.stack([ROWS, COLUMNS, (ROWS + COLUMNS) % 2]).astype(np.uint8)


def planted(count, seed=0):
    """Images (N, 16, 16, 1) of grey noise with stripes, columns or a chequerboard of 4x4 in one place; the labels and
    the places (N, 2)."""
    rng = np.random.default_rng(seed)
    images = rng.integers(96, 160, (count, SIDE, SIDE, 1), np.uint8)
    labels = rng.integers(0, len(PATTERNS), count).astype(np.int32)
    places = rng.integers(0, SIDE - PATCH + 1, (count, 2))
    for image, label, (y, x) in zip(images, labels, places, strict=True):
        image[y:y + PATCH, x:x + PATCH, 0] = PATTERNS[label]
    return images, labels, places


def network(shape=(SIDE, SIDE, 1), classes=3, pool=GlobalMaxPool, bias=True):
    """Two convolutions, a pool between them, and a dense layer that reads the map through another."""
    return Network.build(shape, Sequential(
        Conv(12, 3, padding=1, bias=bias), ReLU(), MaxPool(2), Conv(16, 3, padding=1, bias=bias), ReLU(), pool(),
        Dense(classes, bias=bias)))


@lru_cache(maxsize=1)
def trained():
    """A model that tells the patterns apart; not to be changed."""
    images, labels, _ = planted(1500)
    model = pellucid.Model(network(), seed=1, preprocessing=pellucid.Preprocessing.from_images(images),
                           classes=["rows", "columns", "checks"])
    step = pellucid.TrainStep(model, batch_size=50, optimizer=pellucid.optim.SGD(lr=0.01, momentum=0.9, nesterov=True))
    for epoch in range(8):
        for part in np.split(np.random.default_rng(epoch).permutation(len(images)), 30):
            step(images[part], labels[part])
    return model
