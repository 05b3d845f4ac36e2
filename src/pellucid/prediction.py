"""From files to predictions, one file's fault never being another's.

Pictures are found in files, folders, zips and behind patterns, and read one after another, so that any number of them
takes the memory of a few.
"""

from __future__ import annotations

import glob
import itertools
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from . import data
from .data import BUILT_IN, zips
from .data.listing import LEADS_OUT, ignored
from .data.pictures import ENDINGS, decode, is_picture
from .files import open_file

if TYPE_CHECKING:
    from PIL.Image import Image

    from .model import Model
    from .preprocessing import Preprocessing

BATCH = 64

Failure = tuple[str, Exception]
Reader = Callable[[], bytes]


def predict_files(model: Model, paths: Iterable[str], *, reject: bool = True) -> Iterator[dict | Failure]:
    """Predict the images in files: pictures of any format Pillow reads, or .npz files with an array of images.

    A path may also be a folder, whose pictures are found at any depth, a zip of pictures, which is read in place, or a
    pattern such as `photos/*.jpg` that no file is called by. In folders and zips only names that end as pictures do
    count, and hidden ones do not.

    Yields, in the order of the paths, a dict an image with "path", "index" (in an .npz file, else None), "class",
    "probability", "rejected" (whether the model's threshold says that it is none of the classes; never with `reject`
    false) and "probabilities" (by class, descending), or (path, error) for a file that cannot be used. Raises
    ValueError, before the first, for a model that cannot tell what pictures show.
    """
    model.require_classes()
    model.require_preprocessing()
    return _predicted(model, paths, reject)


def _predicted(model: Model, paths: Iterable[str], reject: bool) -> Iterator[dict | Failure]:
    waiting: list[tuple[str, int | None, np.ndarray] | Failure] = []
    for path in paths:
        for item in read_images(path, model.preprocessing):
            waiting.append(item)
            if len(waiting) == BATCH:
                yield from _answered(model, waiting, reject)
                waiting = []
    yield from _answered(model, waiting, reject)


def read_images(path: str, preprocessing: Preprocessing) -> Iterator[tuple[str, int | None, np.ndarray] | Failure]:
    """The images behind a path: (file, index in an .npz file or None, uint8 array of the model's input shape).

    A file that cannot be used comes as (file, error); nothing is raised for it.
    """
    if Path(path).suffix.lower() == ".npz" and not Path(path).is_dir():
        try:
            for index, image in enumerate(data.load_images(path)):
                if image.shape != preprocessing.input_shape:
                    image = preprocessing.prepare(_picture(image))
                yield path, index, image
        except (ValueError, OSError, MemoryError) as e:
            yield path, e
        return
    for name, source in find_pictures(path):
        if isinstance(source, Exception):
            yield name, source
            continue
        try:
            image = _decoded(name, source, preprocessing)
        except (ValueError, OSError, MemoryError) as e:
            yield name, e
        else:
            yield name, None, image


@dataclass(frozen=True, eq=False)
class Named:
    """One image: what it is called, its uint8 pixels (H, W, C) as the model reads them, and its label where the data
    that it is from give one."""

    name: str
    image: np.ndarray
    label: str | None = None


def read_image(text: str, preprocessing: Preprocessing, progress: Callable[[int, int], object] | None = None) -> Named:
    """The one image that a text names: a picture file; one in a zip, as `predict` calls it, more.zip/1.png; or an
    image of a data set by its number from 0, DATA:17, or DATA:test:17 of the test images that it brings itself.

    `progress` is `data.load`'s. Raises ValueError or OSError, in one line, for what is none, or more than one.
    """
    numbered = re.fullmatch(r"(.+?)(:test)?:([0-9]{1,18})", text, re.DOTALL)
    if numbered and not os.path.lexists(text):
        return _of_data(*numbered.groups(), preprocessing, progress)
    if text in BUILT_IN and not os.path.lexists(text):
        raise ValueError(f"{text} is a data set, and one image is expected, such as {text}:0")
    archive = None if os.path.lexists(text) else _archive_of(text)
    if archive is not None:
        for name, source in find_pictures(archive):
            if name == text:
                if isinstance(source, Exception):
                    raise source
                return Named(name, _decoded(name, source, preprocessing))
        raise ValueError(f"{text}: {archive} holds no such picture")
    found = list(itertools.islice(read_images(text, preprocessing), 2))
    if not found or len(found[0]) == 2:
        raise found[0][1] if found else ValueError(f"{text} holds no image")
    name, index, image = found[0]
    if len(found) > 1:
        first = f"{name}:{index}" if index is not None else name
        raise ValueError(f"{text} holds several images, and one is expected, such as {first}")
    return Named(name if index is None else f"{name}:{index}", image)


def _archive_of(text: str) -> str | None:
    """The zip at the beginning of a path into it."""
    return next((str(p) for p in Path(text).parents if p.suffix.lower() == ".zip" and p.is_file()), None)


def _of_data(spec: str, test: str | None, number: str, preprocessing: Preprocessing,
             progress: Callable[[int, int], object] | None) -> Named:
    i, name = int(number), f"{spec}{test or ''}:{number}"
    if Path(spec).suffix.lower() == ".npz" and not test:  # its images need no labels, nor be of the model's size
        images, labels = data.load_images(spec), None
    else:
        dataset = data.load(spec, **preprocessing.loading, partial=True, progress=progress)
        images, labels = (dataset.test_images, dataset.test_labels) if test else (dataset.images, dataset.labels)
        if images is None:
            raise ValueError(f"{spec} brings no test images of its own; its images are called {spec}:0 and so on")
    if i >= len(images):
        raise ValueError(f"{name}: {spec}{test or ''} has {len(images):,} images, numbered from 0")
    image = np.array(images[i])
    if image.shape != preprocessing.input_shape:
        image = preprocessing.prepare(_picture(image))
    return Named(name, image, None if labels is None else dataset.classes[labels[i]])


def _decoded(name: str, read: Reader, preprocessing: Preprocessing) -> np.ndarray:
    """A picture as the model reads it. Raises OSError or ValueError, whatever is wrong with it."""
    content = read()
    try:
        return decode(content, preprocessing.input_shape, preprocessing.fit)[0]
    except ValueError as e:
        raise ValueError(f"{name}: {e}") from None


def _picture(image: np.ndarray) -> Image:
    """uint8 (H, W, C) as Pillow's picture: grey, grey with alpha, RGB, RGB with alpha."""
    from PIL import Image

    return Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)


# Finding pictures.


def find_pictures(path: str) -> Iterator[tuple[str, Reader | Exception]]:
    """The picture files behind a path, each with what reads it or why it cannot be used.

    A path that exists is what it is; else one with `*`, `?` or `[` is a pattern, where `**` is any depth of folders.
    """
    if os.path.lexists(path) or not glob.has_magic(path):
        yield from _in_path(path)
        return
    found = sorted(glob.iglob(path, recursive=True))
    if not found:
        yield path, FileNotFoundError(f"{path}: no file has a name like this")
    for each in found:
        if "**" not in path or not os.path.isdir(each):  # `photos/**` finds the folders too, and what is in them
            yield from _in_path(each)


def _in_path(path: str) -> Iterator[tuple[str, Reader | Exception]]:
    if os.path.isdir(path):
        found = _in_folder(path)
    elif Path(path).suffix.lower() == ".zip":
        found = _in_zip(path)
    else:
        yield path, lambda: _content(path)
        return
    empty = True
    for item in found:
        empty = False
        yield item
    if empty:
        yield path, ValueError(f"{path}: no pictures in it, whose names end in {', '.join(sorted(ENDINGS))}")


def _in_folder(path: str) -> Iterator[tuple[str, Reader | Exception]]:
    unread: list[OSError] = []
    for folder, folders, files in os.walk(path, onerror=unread.append):
        folders[:] = sorted(name for name in folders if not ignored(name))
        for error in unread:
            yield error.filename, PermissionError(f"{error.filename}: the folder cannot be read: {error.strerror}")
        unread.clear()
        for name in sorted(files):
            if is_picture(name) and not ignored(name):
                file = os.path.join(folder, name)
                yield file, lambda file=file: _content(file)
    for error in unread:
        yield error.filename, PermissionError(f"{error.filename}: the folder cannot be read: {error.strerror}")


def _in_zip(path: str) -> Iterator[tuple[str, Reader | Exception]]:
    try:
        with open_file(path) as (file, _):
            for given, member in zips.members(path):
                parts, hostile = zips.parts_of(given)
                if given.endswith("/") or any(map(ignored, (p for p in parts if p != ".."))) or not is_picture(given):
                    continue
                name, refused = f"{path}/{given}", LEADS_OUT if hostile else member
                if isinstance(refused, str):
                    yield name, ValueError(f"{name}: {refused}")
                else:
                    yield name, lambda name=name, member=member: _member(name, file, member)
    except (OSError, ValueError) as e:
        yield path, e


def _member(name: str, file: BinaryIO, member: zips.Member) -> bytes:
    try:
        return zips.read(file, member)
    except ValueError as e:
        raise ValueError(f"{name}: {e}") from None


def _content(path: str) -> bytes:
    with open_file(path) as (file, size):
        if size > zips.LARGEST_FILE:
            raise ValueError(f"{path}: of {size:,} bytes; at most {zips.LARGEST_FILE:,} are read")
        return file.read()


# Asking the model.


def _answered(model: Model, waiting: list, reject: bool) -> Iterator[dict | Failure]:
    """The waiting images with their probabilities and the errors between them, in order."""
    images = [item[2] for item in waiting if len(item) == 3]
    probabilities = model.predict(np.stack(images)) if images else np.empty((0, 1))
    refused = np.zeros(len(images), bool)
    if reject and model.calibration and images:
        refused = model.calibration.rejects(probabilities)
    answers = iter(zip(probabilities, refused.tolist(), strict=True))
    for item in waiting:
        if len(item) == 2:
            yield item
            continue
        answer, rejected = next(answers)
        ranked = np.argsort(-answer, kind="stable")
        yield {
            "path": item[0], "index": item[1], "class": model.classes[ranked[0]],
            "probability": float(answer[ranked[0]]), "rejected": rejected,
            "probabilities": {model.classes[i]: float(answer[i]) for i in ranked},
        }
