"""Images in: every source becomes a `Dataset`, and `split` makes training, validation and test parts of it."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from pathlib import Path

from .arrays import to_dataset
from .dataset import DataError, Dataset, Pictures
from .digits import load_digits
from .idx import find_idx, load_idx
from .npz import load_images, load_npz
from .split import Part, Split, split

__all__ = ["BUILT_IN", "DataError", "Dataset", "Part", "Pictures", "Split", "load", "load_images", "split",
           "to_dataset"]

FASHION_CLASSES = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag",
                   "Ankle boot"]
_LATER = (".csv", ".tsv", ".zip")
_PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
_ACCEPTED = "digits, mnist, fashion-mnist, an .npz file or a folder of IDX files"


def load(spec: str | os.PathLike) -> Dataset:
    """The data set that `spec` names.

    A built-in name ("digits", "mnist", "fashion-mnist"), the path of an .npz file, or a folder or prefix of IDX
    files named as MNIST's are. A built-in name wins over a folder of the same name; write ./mnist for that.
    Raises DataError, in one line, for everything that cannot be used.
    """
    text = os.fspath(spec)
    if not isinstance(text, str) or not text or "\0" in text:
        raise DataError(f"a data set must be a name or a path, got {spec!r}")
    if isinstance(spec, str) and spec in BUILT_IN:
        return BUILT_IN[spec]()
    path = Path(text).expanduser()
    if path.suffix.lower() == ".npz":
        return load_npz(path)
    if find_idx(path):
        return load_idx(path)
    if path.is_dir():
        raise DataError(f"{path}: no IDX files (train-images-idx3-ubyte ...) in this folder; folders of images are not "
                        "supported yet by this version: save the images as an .npz file")
    if path.suffix.lower() in _LATER or path.suffix.lower() in _PICTURES:
        raise DataError(f"{path}: {path.suffix.lower()} files are not supported yet by this version; "
                        f"accepted are {_ACCEPTED}")
    if os.path.lexists(path):
        raise DataError(f"{path}: not a data set that is known here; accepted are {_ACCEPTED}")
    near = difflib.get_close_matches(text.lower(), BUILT_IN, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"accepted are {_ACCEPTED}"
    raise DataError(f"{text}: no such file, folder or built-in data set; {hint}")


def _data_folder() -> Path:
    return Path(os.environ.get("PELLUCID_DATA") or "~/.cache/pellucid/data").expanduser()


def _mnist_family(name: str, folders: list[Path], hint: str, classes: list[str]) -> Dataset:
    for folder in folders:
        if find_idx(folder):
            return load_idx(folder, name, classes)
    raise DataError(
        f"{name} is not on this machine: put its IDX files (train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, "
        f"t10k-images-idx3-ubyte.gz, t10k-labels-idx1-ubyte.gz) into {folders[0]}{hint}"
    )


def _mnist() -> Dataset:
    root = _data_folder()
    return _mnist_family("mnist", [root / "mnist", root / "MNIST" / "raw"],
                         ", or set PELLUCID_DATA to the folder that holds mnist/", [str(d) for d in range(10)])


def _fashion_mnist() -> Dataset:
    root = _data_folder()
    folders = [root / "fashion-mnist", root / "FashionMNIST" / "raw", Path("/usr/share/datasets/fashion-mnist")]
    return _mnist_family("fashion-mnist", folders,
                         ", or install Debian's package dataset-fashion-mnist", FASHION_CLASSES)


BUILT_IN: dict[str, Callable[[], Dataset]] = {
    "digits": load_digits, "mnist": _mnist, "fashion-mnist": _fashion_mnist,
}
