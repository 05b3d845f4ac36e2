"""From files to predictions, one file's fault never being another's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .files import open_file

if TYPE_CHECKING:
    from PIL.Image import Image

    from .model import Model
    from .preprocessing import Preprocessing

BATCH = 64


def predict_files(model: Model, paths: Iterable[str]) -> Iterator[dict | tuple[str, Exception]]:
    """Predict the images in files: pictures of any format Pillow reads, or .npz files with an array of images.

    Yields, in the order of the paths, a dict an image with "path", "index" (in an .npz file, else None), "class",
    "probability" and "probabilities" (by class, descending), or (path, error) for a file that cannot be used.
    """
    model.require_classes()
    model.require_preprocessing()
    waiting: list[tuple[str, int | None, np.ndarray] | tuple[str, Exception]] = []
    for path in paths:
        try:
            waiting += [(path, index, image) for index, image in read_images(path, model.preprocessing)]
        except (ValueError, OSError, SyntaxError, MemoryError) as e:  # Pillow raises SyntaxError for some broken PNGs
            waiting.append((path, e))
        if len(waiting) >= BATCH:
            yield from _answered(model, waiting)
            waiting = []
    yield from _answered(model, waiting)


def read_images(path: str, preprocessing: Preprocessing) -> Iterator[tuple[int | None, np.ndarray]]:
    """The images of one file as uint8 arrays of the model's input shape, each with its index in an .npz file or None.

    Raises OSError for a file that cannot be read, ValueError for one that holds no images the model could take.
    """
    from PIL import Image

    if Path(path).suffix.lower() == ".npz":
        from .data import load_images

        for index, image in enumerate(load_images(path)):
            if image.shape != preprocessing.input_shape:
                image = preprocessing.prepare(_picture(image))
            yield index, image
        return
    if Path(path).is_dir():
        raise IsADirectoryError(f"{path} is a folder; give the images in it, such as {Path(path) / '*.png'}")
    try:
        with open_file(path) as (file, _), Image.open(file) as image:
            image.load()
            yield None, preprocessing.prepare(image)
    except Image.UnidentifiedImageError:
        raise ValueError(f"{path}: not an image in a format that is known; PNG and JPEG always are") from None
    except Image.DecompressionBombError as e:
        raise ValueError(f"{path}: {e}") from None


def _picture(image: np.ndarray) -> Image:
    """uint8 (H, W, C) as Pillow's picture: grey, grey with alpha, RGB, RGB with alpha."""
    from PIL import Image

    return Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)


def _answered(model: Model, waiting: list) -> Iterator[dict | tuple[str, Exception]]:
    """The waiting images with their probabilities and the errors between them, in order."""
    images = [item[2] for item in waiting if len(item) == 3]
    answers = iter(model.predict(np.stack(images)) if images else ())
    for item in waiting:
        if len(item) == 2:
            yield item
            continue
        probabilities = next(answers)
        ranked = np.argsort(-probabilities, kind="stable")
        yield {
            "path": item[0], "index": item[1], "class": model.classes[ranked[0]],
            "probability": float(probabilities[ranked[0]]),
            "probabilities": {model.classes[i]: float(probabilities[i]) for i in ranked},
        }
