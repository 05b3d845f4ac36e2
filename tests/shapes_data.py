"""A small data set that a small network learns in a second: what the tests of training share."""

import numpy as np

CLASSES = ["bar", "disc", "ring"]


def pictures(count=120, size=8, seed=5):
    """uint8 images (N, size, size, 1) of three shapes in noise, and their labels."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    r = np.hypot(x, y)
    shapes = np.stack([np.abs(y) < 1, r < size / 4, np.abs(r - size / 3) < 0.8])
    labels = np.arange(count, dtype=np.int32) % 3
    images = 170 * shapes[labels] + rng.integers(0, 80, (count, size, size))
    return images.astype(np.uint8)[..., None], labels


def saved(folder, **options):
    """The path of shapes.npz in a folder, with the pictures and labels that `pictures` gives."""
    images, labels = pictures(**options)
    np.savez(folder / "shapes.npz", images=images, labels=labels, classes=np.array(CLASSES))
    return folder / "shapes.npz"
