"""Tensors from files that torch.save wrote (.pth, .pt), read without PyTorch and without unpickling anything.

Since PyTorch 1.6 such a file is a zip: `NAME/data.pkl` says which tensors there are, `NAME/data/0`, `/1`, ... are the
storages, bare numbers that one or several tensors are views of, and `NAME/byteorder` says "little" or "big". Before, it
was five pickles in a row (a magic number, a version, facts about the machine, the value, the storages' keys), then the
storages, each after its length. Both are read; see `pickled` for how.
"""

from __future__ import annotations

import io
import os
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from typing import BinaryIO

import numpy as np

from ..files import open_file
from . import pickled
from .pickled import Name, Refused

ZIP = b"PK\x03\x04"
LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the pickle of the magic number
LONGEST_PICKLE = 4 * 2**20  # bytes; that of a thousand tensors has well under one MiB
MOST_DIMENSIONS = 32
MOST_OF_NONE = 2**40  # what the other sides of an empty tensor may multiply to; NumPy cannot hold any
CHECKPOINT = ("state_dict", "model_state_dict", "model")  # where training scripts keep it
BFLOAT16 = "bfloat16"  # the upper half of a float32, which NumPy does not know
TYPES = {
    "DoubleStorage": "f8", "FloatStorage": "f4", "HalfStorage": "f2", "BFloat16Storage": BFLOAT16, "LongStorage": "i8",
    "IntStorage": "i4", "ShortStorage": "i2", "CharStorage": "i1", "ByteStorage": "u1", "BoolStorage": "?",
}


class PthError(ValueError):
    """A file that is not the dictionary of tensors it should be. The message names the file and is one line."""


@dataclass(frozen=True)
class Storage:
    """Where numbers stand: their type and how many; several tensors may be views of them."""

    key: str
    kind: str
    count: int

    @property
    def width(self) -> int:
        """Bytes of one number."""
        return 2 if self.kind == BFLOAT16 else np.dtype(self.kind).itemsize


@dataclass(frozen=True)
class View:
    """A tensor before its storage is read."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def read(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The tensors of a `state_dict` by name, as read-only arrays.

    A checkpoint that holds one under `state_dict`, `model_state_dict` or `model` is taken for that. Tensors that share
    numbers in the file share them here, so the result takes no more memory than the file is long (bfloat16, which
    becomes float32, twice that). Raises OSError for a file that cannot be read, and PthError for one that is damaged or
    holds anything that only executing it could make.
    """
    with open_file(path) as (file, size):
        try:
            begin = file.read(len(LEGACY))
            file.seek(0)
            if begin[:len(ZIP)] == ZIP:
                return _from_zip(file, size)
            if begin == LEGACY:
                return _from_legacy(file, size)
            raise Refused("not a file of torch.save: it begins with neither a zip nor torch's magic number")
        except Refused as e:
            raise PthError(f"{path}: {e}") from None
        except MemoryError:
            raise PthError(f"{path}: its tensors take {size:,} bytes, more than there is memory for") from None


# The two forms.


def _from_zip(file: BinaryIO, size: int) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(file) as archive:
            found = archive.infolist()
    except OSError:
        raise
    except Exception as e:  # what `zipfile` raises for damaged directories is not only BadZipFile
        raise Refused(f"not a sound zip file ({(str(e).splitlines() or [type(e).__name__])[0][:100]}); "
                      "it is damaged or cut off: get it again") from None
    members = {info.filename: info for info in found}
    if len(members) < len(found) or sum(info.compress_size for info in found) > size:
        raise Refused("its parts overlap or have the same name; it is not read")
    pickles = [name for name in members if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(pickles) != 1:
        raise Refused("a zip, but not one that torch.save wrote: it should have one NAME/data.pkl")
    root = pickles[0].removesuffix("data.pkl")
    if any(name.startswith(root + "code/") for name in members):
        raise Refused(f"a TorchScript program, not a dictionary of tensors; {pickled.ADVICE}")

    def content(name: str, most: int) -> np.ndarray:
        if name not in members:
            raise Refused(f"its part {name[:80]!r} is missing; it is damaged: get it again")
        return _stored(file, members[name], most)

    order = "little"
    if root + "byteorder" in members:
        order = bytes(content(root + "byteorder", 16)).decode("ascii", "replace")
        if order not in ("little", "big"):
            raise Refused(f"its byte order must be little or big, got {order!r}")
    reading = _Reading(order, lambda storage: content(f"{root}data/{storage.key}", storage.count * storage.width))
    pickle = content(pickles[0], LONGEST_PICKLE)
    views = _state_dict(reading.value(io.BytesIO(pickle.tobytes())))
    return {name: reading.array(view) for name, view in views.items()}


def _stored(file: BinaryIO, info: zipfile.ZipInfo, most: int) -> np.ndarray:
    """The bytes of a member. Raises Refused for one that is packed, damaged or longer than `most`."""
    what = f"its part {info.filename[:80]!r}"
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1 or info.compress_size != info.file_size:
        raise Refused(f"{what} is packed or encrypted, which torch.save never does; save it again with torch")
    if info.file_size > most:
        raise Refused(f"{what} has {info.file_size:,} bytes, at most {most:,} are expected")
    file.seek(max(info.header_offset, 0))  # a damaged directory may give a negative one
    head = file.read(30)
    if len(head) < 30 or head[:4] != ZIP:
        raise Refused(f"{what} is not where the zip's directory says; it is damaged: get it again")
    file.seek(int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little"), os.SEEK_CUR)
    data = _exactly(file, info.file_size)
    if zlib.crc32(data) != info.CRC:
        raise Refused(f"{what} does not fit its checksum; it is damaged: get it again")
    return data


def _from_legacy(file: BinaryIO, size: int) -> dict[str, np.ndarray]:
    head = io.BytesIO(file.read(LONGEST_PICKLE))
    plain = _Reading("little", None)
    plain.value(head)  # the magic number
    version, machine = plain.value(head), plain.value(head)
    if version != 1001 or not isinstance(machine, dict) or type(machine.get("little_endian")) is not bool:
        raise Refused("it begins as a file of an old torch.save does, but goes on otherwise; it is damaged")
    reading = _Reading("little" if machine["little_endian"] else "big", None)
    views, keys = _state_dict(reading.value(head)), plain.value(head)
    # Of texts alone: to print or to compare what is nested may take for ever.
    if not isinstance(keys, list) or not all(type(k) is str for k in keys) or sorted(keys) != sorted(reading.storages):
        raise Refused("its storages are not those that its tensors are views of; it is damaged")
    at, contents = head.tell(), {}
    for key in keys:
        storage = reading.storages[key]
        file.seek(at)
        length = int.from_bytes(file.read(8), reading.order)
        if length != storage.count or at + 8 + storage.count * storage.width > size:
            raise Refused("a storage has another length than its tensors say, or the file is cut off; get it again")
        contents[key] = at + 8
        at += 8 + storage.count * storage.width

    def content(storage: Storage) -> np.ndarray:
        file.seek(contents[storage.key])
        return _exactly(file, storage.count * storage.width)

    reading.content = content
    return {name: reading.array(view) for name, view in views.items()}


def _exactly(file: BinaryIO, count: int) -> np.ndarray:
    """So many bytes, which the caller knows the file to have. Raises Refused where it ends before."""
    data, done = np.empty(count, np.uint8), 0
    while done < count:
        got = file.readinto(memoryview(data)[done:])
        if not got:
            raise Refused("the file ends too early; it is cut off: get it again")
        done += got
    return data


# From names and numbers to arrays.


def _state_dict(value: object) -> dict[str, View]:
    """The dictionary of tensors that a value is, or holds as training scripts use to."""
    if isinstance(value, dict):
        value = next((value[key] for key in CHECKPOINT if isinstance(value.get(key), dict)), value)
    if not isinstance(value, dict):
        raise Refused(f"it holds a {type(value).__name__.lower()}, expected a state_dict: tensors by name")
    for name, tensor in value.items():
        if not isinstance(name, str) or not isinstance(tensor, View):
            raise Refused(f"{str(name)[:80]!r} is of type {type(tensor).__name__}, expected a tensor; {pickled.ADVICE}")
    return value


@dataclass
class _Reading:
    """One file: its byte order, where a storage's bytes come from, and the storages met so far."""

    order: str
    content: Callable[[Storage], np.ndarray] | None
    storages: dict[str, Storage] = field(default_factory=dict)
    read: dict[str, np.ndarray] = field(default_factory=dict)

    def value(self, file: BinaryIO) -> object:
        """What the next pickle says, its tensors as `View`s."""
        calls = {
            "collections OrderedDict": _ordered_dict,
            "torch._utils _rebuild_tensor_v2": lambda storage, offset, size, stride, *_: _view(
                storage, offset, size, stride),
            "torch._utils _rebuild_tensor": _view,
            "torch._utils _rebuild_parameter": lambda data, *_: data,
            "torch Size": lambda size: size,
        }
        return pickled.read(file, calls, self.storage)

    def storage(self, reference: object) -> Storage:
        """What ("storage", type, key, place, count) refers to; older files have a sixth part, None."""
        if not isinstance(reference, tuple) or len(reference) not in (5, 6) or reference[0] != "storage":
            raise Refused(f"it refers to something that is no storage, as whole modules do; {pickled.ADVICE}")
        _, kind, key, _, count, *view = reference
        name = kind.text.removeprefix("torch ") if isinstance(kind, Name) else ""
        if name not in TYPES:
            raise Refused(f"it holds numbers of the type {(name or 'unknown')[:80]!r}; read are {', '.join(TYPES)}")
        if type(key) is not str or type(count) is not int or count < 0 or view not in ([], [None]):
            raise Refused("a storage is described in a way that torch.save does not; it is damaged")
        storage = Storage(key, TYPES[name], count)
        if self.storages.setdefault(key, storage) != storage:
            raise Refused(f"storage {key[:80]!r} is described in two ways; it is damaged")
        return storage

    def array(self, view: View) -> np.ndarray:
        storage = view.storage
        if storage.key not in self.read:
            data = self.content(storage)
            if len(data) != storage.count * storage.width:
                raise Refused(f"storage {storage.key[:80]!r} has {len(data):,} bytes, its {storage.count:,} numbers "
                              f"need {storage.count * storage.width:,}; it is damaged: get it again")
            self.read[storage.key] = _numbers(data, storage.kind, self.order)
        numbers = self.read[storage.key]
        steps = tuple(s * numbers.itemsize for s in view.stride)
        return np.lib.stride_tricks.as_strided(numbers[view.offset:], view.size, steps, writeable=False)


def _ordered_dict(*arguments) -> dict:
    """An empty dictionary; what is in it comes after."""
    if arguments not in ((), ([],)):
        raise Refused("a dictionary is made in a way that torch.save does not; it is not read")
    return {}


def _view(storage: object, offset: object, size: object, stride: object) -> View:
    """A tensor, checked against its storage: nothing outside is read, and it has no more numbers than that."""
    integers = (offset, *size, *stride) if isinstance(size, tuple) and isinstance(stride, tuple) else (None,)
    if not isinstance(storage, Storage) or not all(type(n) is int and n >= 0 for n in integers):
        raise Refused("a tensor is described in a way that torch.save does not; it is damaged")
    if len(size) != len(stride) or len(size) > MOST_DIMENSIONS:
        raise Refused(f"a tensor has {len(size)} dimensions and {len(stride)} strides; expected are equally many, at "
                      f"most {MOST_DIMENSIONS}")
    if all(size):
        beyond = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True)) >= storage.count
    else:  # nothing is read, wherever it may lie
        offset, beyond = 0, prod(n for n in size if n) > MOST_OF_NONE
    if beyond or all(size) and prod(size) > storage.count:
        raise Refused(f"a tensor of shape {size} reaches beyond its storage of {storage.count:,} numbers; it is "
                      "damaged")
    return View(storage, offset, size, stride)


def _numbers(data: np.ndarray, kind: str, order: str) -> np.ndarray:
    """Bytes as numbers of this machine's byte order."""
    sign = "<" if order == "little" else ">"
    if kind == BFLOAT16:
        return (data.view(sign + "u2").astype(np.uint32) << 16).view(np.float32)
    if kind == "?" and data.size and data.max() > 1:
        raise Refused(f"truth values must be 0 or 1, one is {data.max()}; it is damaged")
    numbers = data.view(np.dtype(kind).newbyteorder(sign))
    return numbers.astype(numbers.dtype.newbyteorder("="), copy=False)
