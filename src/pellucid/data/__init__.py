"""Images in: every source becomes a `Dataset`, and `split` makes training, validation and test parts of it."""

from __future__ import annotations

import difflib
import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from .arrays import to_dataset
from .dataset import DataError, Dataset, Pictures
from .digits import load_digits
from .idx import find_idx, load_idx
from .npz import load_images, load_npz
from .pictures import SIZES, is_picture
from .split import Part, Split, split

__all__ = ["BUILT_IN", "DataError", "Dataset", "Part", "Pictures", "SIZES", "Split", "load", "load_images",
           "originals", "split", "to_dataset"]

FASHION_CLASSES = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag",
                   "Ankle boot"]
_LISTS = (".csv", ".tsv", ".zip")
_ACCEPTED = ("digits, mnist, fashion-mnist, cifar10, a folder or zip of pictures, a .csv of path and label, "
             "an .npz file or a folder of IDX files")


def load(
    spec: str | os.PathLike,
    *,
    size: int | Sequence[int] | None = None,
    fit: str | None = None,
    channels: int | None = None,
    partial: bool = False,
    progress: Callable[[int, int], object] | None = None,
) -> Dataset:
    """The data set that `spec` names.

    A built-in name ("digits", "mnist", "fashion-mnist", "cifar10"); the path of an .npz file; a folder or prefix of IDX
    files named as MNIST's are; a folder or zip of pictures, `class/image` or `train/class/image`; a .csv or .tsv with
    the columns path and label. A built-in name wins over a folder of the same name; write ./mnist for that.

    Pictures become images of `size` (pixels, or (height, width)), with `channels` 1 or 3, by `fit`: "crop", "letterbox"
    or "stretch" (see `pellucid.data.pictures`). Without `size`: the one that all pictures have, if it is at most 96
    pixels a side, else a square with the largest of 32, 48, 64, 96, 128 not above the median shorter side. Without
    `channels`: 1 if all pictures are grey. Without `fit`: "crop" where pictures must be resized. `progress` is called
    with the number of pictures done and their total while they are decoded, which happens once: they are kept in a
    cache. With `partial`, classes may be without an image, in a part or at all, and there may be one class only: for
    looking at data and evaluating on them. Arrays (.npz, IDX) must have the size and channels that are asked for.

    Raises DataError, in one line, for everything that cannot be used.
    """
    text = os.fspath(spec)
    if not isinstance(text, str) or not text or "\0" in text:
        raise DataError(f"a data set must be a name or a path, got {spec!r}")
    options = {"size": size, "fit": fit, "channels": channels}
    pictures = functools.partial(_load_pictures, progress=progress, partial=partial, **options)
    if isinstance(spec, str) and spec in BUILT_IN:
        return _as_asked(BUILT_IN[spec](pictures), **options)
    path = Path(text).expanduser()
    if path.suffix.lower() == ".npz":
        return _as_asked(load_npz(path, partial), **options)
    if find_idx(path):
        return _as_asked(load_idx(path, partial=partial), **options)
    if path.is_dir() or (path.suffix.lower() in _LISTS and os.path.lexists(path)):
        return pictures(str(path), path)
    if os.path.lexists(path):
        what = "one picture is no data set" if is_picture(path.name) else "not a data set that is known here"
        raise DataError(f"{path}: {what}; accepted are {_ACCEPTED}")
    near = difflib.get_close_matches(text.lower(), BUILT_IN, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"accepted are {_ACCEPTED}"
    raise DataError(f"{text}: no such file, folder or built-in data set; {hint}")


def _load_pictures(name: str, path: Path, **options) -> Dataset:
    from .decoding import load_pictures  # only where there are pictures: it needs modules that the rest does not

    return load_pictures(name, path, **options)


def originals(pictures: Pictures, chosen: Sequence[int], channels: int) -> list[np.ndarray]:
    """The pictures with these numbers as they are before they are resized: uint8 (H, W, `channels`), upright, 1 or 3
    channels. Raises DataError where one cannot be read any more."""
    from .decoding import originals

    return originals(pictures, chosen, channels)


def _as_asked(dataset: Dataset, size: int | Sequence[int] | None, fit: str | None, channels: int | None) -> Dataset:
    """The data set, if it is what was asked for. Raises DataError where its arrays have another size or channels."""
    from .decoding import checked_channels, checked_fit, checked_size

    height, width, found = dataset.input_shape
    asked = checked_size(size) or (height, width), checked_channels(channels) or found
    if asked != ((height, width), found):
        raise DataError(f"{dataset.name}: its images are {height}x{width} with {found} channel{'s' * (found > 1)}, "
                        f"asked for were {asked[0][0]}x{asked[0][1]} with {asked[1]}; only pictures are resized, "
                        "arrays are taken as they are")
    return dataset if fit is None else replace(dataset, fit=checked_fit(fit))


def _data_folder() -> Path:
    return Path(os.environ.get("PELLUCID_DATA") or "~/.cache/pellucid/data").expanduser()


def _mnist_family(name: str, folders: list[Path], hint: str, classes: list[str],
                  pictures: Callable[..., Dataset]) -> Dataset:
    for folder in folders:
        if find_idx(folder):
            return load_idx(folder, name, classes)
    if found := _pictures_of(name):
        return pictures(name, found)
    raise DataError(
        f"{name} is not on this machine: put its IDX files (train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, "
        f"t10k-images-idx3-ubyte.gz, t10k-labels-idx1-ubyte.gz) into {folders[0]}{hint}"
    )


def _pictures_of(name: str) -> Path | None:
    """The folder or zip of a built-in data set's pictures, if there is one."""
    root = _data_folder()
    return next((path for path in (root / name, root / f"{name}.zip") if path.exists()), None)


def _mnist(pictures: Callable[..., Dataset]) -> Dataset:
    root = _data_folder()
    return _mnist_family("mnist", [root / "mnist", root / "MNIST" / "raw"],
                         ", or its pictures as mnist.zip beside that folder, or set PELLUCID_DATA to the folder that "
                         "holds mnist/",
                         [str(d) for d in range(10)], pictures)


def _fashion_mnist(pictures: Callable[..., Dataset]) -> Dataset:
    root = _data_folder()
    folders = [root / "fashion-mnist", root / "FashionMNIST" / "raw", Path("/usr/share/datasets/fashion-mnist")]
    return _mnist_family("fashion-mnist", folders,
                         ", or install Debian's package dataset-fashion-mnist", FASHION_CLASSES, pictures)


def _cifar10(pictures: Callable[..., Dataset]) -> Dataset:
    if found := _pictures_of("cifar10"):
        return pictures("cifar10", found)
    raise DataError(f"cifar10 is not on this machine: put its pictures, train/class/image and test/class/image, into "
                    f"{_data_folder() / 'cifar10'} or into cifar10.zip beside it, or set PELLUCID_DATA to the folder "
                    "that holds them")


BUILT_IN: dict[str, Callable[[Callable[..., Dataset]], Dataset]] = {
    "digits": lambda pictures: load_digits(), "mnist": _mnist, "fashion-mnist": _fashion_mnist, "cifar10": _cifar10,
}
