"""Data sets in NumPy's .npz files: a zip of arrays, each checked by its header before it is read.

Accepted names: images/labels, x/y or X/y, with x_test/y_test, test_images/test_labels or none; x_train/y_train,
train_images/train_labels in the same way; and classes (texts), which names integer labels. Nothing is ever
unpickled.
"""

from __future__ import annotations

import lzma
import os
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from ..files import open_file
from .arrays import require_memory, to_dataset, to_images
from .dataset import DataError, Dataset
from .zips import DEFLATE_RATIO

TRAINING_NAMES = (("images", "labels"), ("x", "y"), ("X", "y"), ("x_train", "y_train"), ("X_train", "y_train"),
                  ("train_images", "train_labels"))
TEST_NAMES = (("x_test", "y_test"), ("X_test", "y_test"), ("test_images", "test_labels"))


def load_npz(path: str | os.PathLike, partial: bool = False) -> Dataset:
    """The data set in an .npz file; `partial` is `Dataset`'s.

    Raises DataError for anything that is not one, OSError never.
    """
    with _opened(path) as (path, archive):
        return _from_archive(path, archive, partial)


def load_images(path: str | os.PathLike) -> np.ndarray:
    """The images in an .npz file that needs no labels, as uint8 (N, H, W, C).

    They are its only array, or the one called as a data set's images; test images count where there are no others.
    Raises DataError for anything else, OSError never.
    """
    with _opened(path) as (path, archive):
        members = _members(path, archive)
        names = [n.removesuffix(".npy") for n in members if n.endswith(".npy")]
        known = [n for n, _ in TRAINING_NAMES if n in names] or [n for n, _ in TEST_NAMES if n in names]
        chosen = names if len(names) == 1 else known
        if len(chosen) != 1:
            found = ", ".join(sorted(map(repr, names))[:12]) or "no array"
            raise DataError(f"{path}: holds {found}; expected one array of images, or one of them called 'images'")
        info = members[f"{chosen[0]}.npy"]
        require_memory(info.file_size, f"{path}: {chosen[0]}")
        return to_images(f"{path}: {chosen[0]}", _read_array(f"{path}: {chosen[0]}", archive, info))


@contextmanager
def _opened(path: str | os.PathLike) -> Iterator[tuple[Path, zipfile.ZipFile]]:
    """The archive, whatever is wrong with it becoming a DataError."""
    path = Path(path)
    try:
        with open_file(path) as (file, _), zipfile.ZipFile(file) as archive:
            yield path, archive
    except DataError:
        raise
    except OSError as e:
        raise DataError(str(e)) from None
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, RuntimeError,
            UnicodeDecodeError) as e:
        raise DataError(f"{path}: not a sound .npz file ({_line(e)}); save it again with numpy.savez") from None


def _members(path: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    members = {}
    for info in archive.infolist():
        if info.filename in members:
            raise DataError(f"{path}: holds two arrays called {info.filename!r}; save it again with numpy.savez")
        members[info.filename] = info
    return members


def _from_archive(path: Path, archive: zipfile.ZipFile, partial: bool) -> Dataset:
    members = _members(path, archive)
    names = {n.removesuffix(".npy") for n in members if n.endswith(".npy")}
    training = [pair for pair in TRAINING_NAMES if names.issuperset(pair)]
    test = [pair for pair in TEST_NAMES if names.issuperset(pair)]
    if len(training) != 1:
        found = ", ".join(sorted(map(repr, names))[:12]) or "no array"
        raise DataError(f"{path}: holds {found}; expected exactly one of "
                        f"{', '.join('/'.join(pair) for pair in TRAINING_NAMES)}")
    half = [n for pair in TEST_NAMES for n in pair if n in names and not any(n in t for t in test)]
    if len(test) > 1 or half:
        found = ", ".join(map(repr, half or sorted(set(sum(test, ())))))
        raise DataError(f"{path}: holds {found}; expected one pair of "
                        f"{', '.join('/'.join(pair) for pair in TEST_NAMES)}, or no test set")
    wanted = [*training[0], *(test[0] if test else ()), *(["classes"] if "classes" in names else [])]
    for name in wanted:  # all of them before any takes memory
        with archive.open(members[f"{name}.npy"]) as stream:
            _array_header(f"{path}: {name}", stream, members[f"{name}.npy"])
    require_memory(sum(members[f"{n}.npy"].file_size for n in wanted), f"{path}: its arrays")
    arrays = {name: _read_array(f"{path}: {name}", archive, members[f"{name}.npy"]) for name in wanted}
    classes = _class_names(path, arrays.pop("classes")) if "classes" in arrays else None
    terms = wanted[:4] if test else [*wanted[:2], "", ""]
    return to_dataset(str(path), *arrays.values(), classes=classes, terms=terms, partial=partial)


def _array_header(what: str, stream, info: zipfile.ZipInfo) -> tuple[tuple[int, ...], np.dtype, bool]:
    """Shape, type and whether in Fortran order, with the sizes that follow checked against the zip's directory."""
    try:
        version = npy.read_magic(stream)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"version {version} of the format")
        parse = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        with warnings.catch_warnings(action="ignore"):  # of headers that Python 2 wrote
            shape, fortran, dtype = parse(stream)
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError):
        raise  # the zip is at fault, not the header
    except Exception as e:  # NumPy lets out whatever Python's own parsers raise, tokenize.TokenError among them
        raise DataError(f"{what}: not a readable array ({_line(e)})") from None
    if dtype.hasobject:
        raise DataError(f"{what} holds Python objects, which are never unpickled; save numbers or texts")
    if dtype.kind not in "uifUSb":
        raise DataError(f"{what} has the type {dtype}; expected numbers or texts")
    if not all(type(n) is int and n > 0 for n in shape) or not dtype.itemsize:
        raise DataError(f"{what} is empty: it has the shape {shape} and the type {dtype}; expected at least one value")
    size, present = prod(shape) * dtype.itemsize, info.file_size - stream.tell()
    if size != present:
        raise DataError(f"{what} of shape {shape} and type {dtype} takes {size:,} bytes but the file holds "
                        f"{present:,}; it is damaged: save it again")
    # Other methods have no such bound; what they claim is held against the machine's memory only.
    deflated = info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    if deflated and info.file_size > DEFLATE_RATIO * (info.compress_size + 1):
        raise DataError(f"{what} claims {info.file_size:,} bytes, more than {info.compress_size:,} compressed bytes "
                        "can hold; the file is damaged")
    return shape, dtype, fortran


def _read_array(what: str, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(info) as stream:
        shape, dtype, fortran = _array_header(what, stream, info)
        try:
            octets = np.empty(prod(shape) * dtype.itemsize, np.uint8)
        except MemoryError:
            raise DataError(f"{what} of shape {shape} does not fit into memory; give fewer or smaller images") from None
        done = 0
        while done < len(octets):
            got = stream.readinto(memoryview(octets)[done:done + 2**24])
            if not got:
                raise DataError(f"{what} ends after {done:,} of {len(octets):,} bytes; the file is truncated")
            done += got
        stream.read(1)  # past the end, where the zip's checksum is compared
    array = octets.view(dtype)
    return array.reshape(shape[::-1]).T if fortran else array.reshape(shape)


def _class_names(path: Path, classes: np.ndarray) -> list[str]:
    if classes.ndim != 1 or classes.dtype.kind not in "US":
        raise DataError(f"{path}: classes must be texts of shape (K,), got {classes.dtype} {classes.shape}")
    try:
        names = [c.decode() if isinstance(c, bytes) else str(c) for c in classes]
    except UnicodeDecodeError:
        raise DataError(f"{path}: classes hold bytes that are not UTF-8 text") from None
    if not all(n.strip() for n in names):
        raise DataError(f"{path}: classes hold an empty text; a class needs a name")
    return names


def _line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]
