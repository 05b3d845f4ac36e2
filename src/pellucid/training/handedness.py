"""Whether images may be mirrored: asked of the images themselves.

Mirrored photographs of animals look like other photographs of animals, but mirrored letters look like no letters. So a
linear classifier is asked to tell images from their mirror images: where it can, left and right mean something.
"""

from __future__ import annotations

import numpy as np

ASKED = 3000  # images, at most
LEAST = 30  # of fewer nothing can be said
SIDE = 16  # pixels to which they are reduced
FOLDS = 3
TELLING = 0.65  # share of images told from their mirror images from which on mirroring is not done


def told_apart(images: np.ndarray, seed: int = 0) -> float | None:
    """The share of images that a linear classifier, fitted to others, tells from their mirror images.

    images: (N, H, W, C) or `data.Rows`, any number type. 0.5 is chance, and what images give that are their own mirror
    images. None for fewer than 30 images, of which nothing can be said.
    """
    rng = np.random.default_rng((seed, len(images)))
    chosen = np.sort(rng.choice(len(images), min(len(images), ASKED), replace=False))
    if len(chosen) < LEAST:
        return None
    # What its mirror image does not have in common with an image changes its sign when the image is mirrored. So a
    # linear function that is 1 on images is -1 on mirror images, and its sign tells which is which.
    odd = np.concatenate([_odd(images[chosen[i:i + 64]]) for i in range(0, len(chosen), 64)])
    odd = odd[rng.permutation(len(odd))]
    if not odd.any():
        return 0.5
    odd /= odd.std()
    fold, told = np.arange(len(odd)) % FOLDS, 0
    for number in range(FOLDS):
        seen, unseen = odd[fold != number], odd[fold == number]
        # Ridge regression: as many more rows as there are images keep the weights small.
        weights = np.linalg.solve(seen.T @ seen + len(seen) * np.eye(odd.shape[1]), seen.sum(axis=0))
        answers = unseen @ weights
        told += np.count_nonzero(answers > 0) + np.count_nonzero(answers == 0) / 2
    return float(told / len(odd))


def _odd(images: np.ndarray) -> np.ndarray:
    """The left halves of grey images less their mirror images, in means over whole blocks of pixels: (N, values)."""
    grey = images.mean(axis=3, dtype=np.float32)
    grey = (grey - grey[:, :, ::-1])[:, :, : grey.shape[2] // 2]
    _, height, width = grey.shape
    by, bx = max(height // SIDE, 1), max(2 * width // SIDE, 1)
    grey = grey[:, : height // by * by, : width // bx * bx]
    return grey.reshape(len(grey), height // by, by, width // bx, bx).mean(axis=(2, 4)).reshape(len(grey), -1)
