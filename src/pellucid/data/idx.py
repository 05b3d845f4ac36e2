"""IDX files, the format of the MNIST family (Y. LeCun, C. Cortes, C. Burges, "The MNIST database", file formats).

Two zero bytes, a byte for the type, a byte for the number of dimensions; each dimension as a big-endian 32-bit
integer; then the values, big-endian, the last dimension fastest. Plain or gzipped, told apart by their first bytes.
"""

from __future__ import annotations

import gzip
import os
import zlib
from math import prod
from pathlib import Path

import numpy as np

from ..files import open_file
from .arrays import require_memory, to_dataset
from .dataset import DataError, Dataset
from .zips import DEFLATE_RATIO

TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
TRAINING, TEST = ("train",), ("t10k", "test")  # what file names call the two sets


def read_idx(path: str | os.PathLike, dimensions: tuple[int, ...] | None = None) -> np.ndarray:
    """The array in an IDX file, in this machine's byte order.

    `dimensions` says how many are accepted. Sizes are checked before memory is taken: exactly for a plain file,
    against the most that deflate can pack for a gzipped one. Raises DataError.
    """
    try:
        with open_file(path) as (file, size):
            magic = file.read(2)
            file.seek(0)
            if magic != b"\x1f\x8b":
                return _read(path, file, size, size, dimensions)
            with gzip.GzipFile(fileobj=file) as unpacked:
                return _read(path, unpacked, None, size * DEFLATE_RATIO, dimensions)
    except OSError as e:  # gzip's BadGzipFile among them
        raise DataError(str(e) if str(path) in str(e) else f"{path}: {e}") from None
    except (EOFError, zlib.error) as e:
        raise DataError(f"{path}: truncated or damaged gzip file ({e}); fetch it again") from None


def _read(path, file, exact: int | None, most: int, dimensions: tuple[int, ...] | None) -> np.ndarray:
    head = _take(path, file, 4)
    if head[:2] != b"\0\0" or head[2] not in TYPES:
        raise DataError(f"{path}: not an IDX file: it begins with {head.hex(' ')}, expected 00 00 and a type "
                        f"({', '.join(f'{t:02x}' for t in TYPES)})")
    dtype, count = np.dtype(TYPES[head[2]]), head[3]
    if count not in (dimensions or range(1, 9)):
        wanted = " or ".join(map(str, dimensions)) if dimensions else "1 to 8"
        raise DataError(f"{path}: holds an array of {count} dimensions, expected {wanted}; "
                        "are images and labels mixed up?")
    shape = tuple(int.from_bytes(_take(path, file, 4), "big") for _ in range(count))
    size = prod(shape) * dtype.itemsize
    total = 4 + 4 * count + size
    if exact is not None and total != exact:
        state = "truncated" if exact < total else "damaged"
        raise DataError(f"{path}: shape {shape} of {dtype.name} makes a file of {total:,} bytes, found {exact:,}; "
                        f"it is {state}: fetch it again")
    if total > most:
        raise DataError(f"{path}: claims {total:,} bytes, more than a gzip file of this size can hold; "
                        "it is truncated or damaged: fetch it again")
    if not size:
        raise DataError(f"{path}: is empty: it has the shape {shape}, expected at least one value")
    require_memory(size, f"{path}: its array")
    array = np.empty(shape, dtype)
    _fill(path, file, memoryview(array.reshape(-1).view(np.uint8)))
    if file.read(1):  # reading on also makes gzip compare its checksum
        raise DataError(f"{path}: holds more than its shape {shape} says; it is damaged: fetch it again")
    return array.astype(dtype.newbyteorder("="), copy=False)


def _take(path, file, count: int) -> bytes:
    data = bytearray(count)
    _fill(path, file, memoryview(data))
    return bytes(data)


def _fill(path, file, view: memoryview) -> None:
    done = 0
    while done < len(view):
        got = file.readinto(view[done:])
        if not got:
            raise DataError(f"{path}: truncated: it ends where {len(view) - done:,} more bytes should stand")
        done += got


def find_idx(path: str | os.PathLike) -> dict[str, Path]:
    """The IDX files of a folder, of a prefix such as `emnist-letters`, or beside one of them.

    A dict of "images" and "labels", and "test_images" and "test_labels" where there are any. Empty if there is
    none at all.
    """
    path = Path(path)
    if path.is_dir():
        folder, prefixes = path, [""]
    else:
        stem = next((path.name[:i] for s in TRAINING + TEST if (i := path.name.find(f"{s}-images")) >= 0), None)
        folder = path.parent
        prefixes = [stem] if stem is not None else [path.name + "-", path.name + "_", path.name]
    found = {}
    for part, sets in (("", TRAINING), ("test_", TEST)):
        for kind, ending in (("images", "idx3"), ("labels", "idx1")):
            names = (f"{prefix}{s}-{kind}{dot}{ending}-ubyte{gz}"
                     for prefix in prefixes for s in sets for dot in "-." for gz in ("", ".gz"))
            file = next((folder / n for n in names if os.path.exists(folder / n)), None)
            if file is not None:
                found[part + kind] = file
    return found


def load_idx(path: str | os.PathLike, name: str | None = None, classes: list[str] | None = None,
             partial: bool = False) -> Dataset:
    """The data set in a folder or under a prefix of IDX files, named as MNIST's are; `partial` is `Dataset`'s.

    Raises DataError.
    """
    files = find_idx(path)
    example = {"images": "train-images-idx3-ubyte", "labels": "train-labels-idx1-ubyte",
               "test_images": "t10k-images-idx3-ubyte", "test_labels": "t10k-labels-idx1-ubyte"}
    needed = ["images", "labels"] + (["test_images", "test_labels"] if len(files) > 2 else [])
    needed += [part for part in files if part not in needed]
    needed += ["test_labels"] if "test_images" in needed and "test_labels" not in needed else []
    needed += ["test_images"] if "test_labels" in needed and "test_images" not in needed else []
    for part in needed:
        if part not in files:
            raise DataError(f"{path}: the file {example[part]} (or .gz) is missing beside "
                            f"{', '.join(sorted(f.name for f in files.values())) or 'nothing else'}")
    arrays = [read_idx(files[part], (3, 4) if part.endswith("images") else (1,)) for part in needed]
    terms = [files[part].name for part in needed]
    return to_dataset(name or str(path), *arrays, classes=classes, terms=[*terms, "", ""][:4], partial=partial)
