"""One model, one .safetensors file: written whole or not at all, checked completely before it is believed.

The format (https://github.com/huggingface/safetensors): 8 bytes hold the header's length, little-endian; the
header is a JSON object of tensor name -> {"dtype", "shape", "data_offsets"}, with "__metadata__" -> {text: text};
the tensors' bytes follow, little-endian, in C order, with no gap. The library writes; reading is our own, because a
model file comes from anywhere: nothing is allocated until every statement in the header has been checked against
the others and against the file's size, and a checksum kept in the metadata finds damage in what is then read.
"""

from __future__ import annotations

import json
import os
import re
import reprlib
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from .files import open_file, replacing

MAX_HEADER = 4 * 2**20  # bytes; a header of a thousand tensors and a long training record has well under one MiB
MAX_DEPTH = 64  # of nested lists and objects in JSON metadata
MAX_DIMENSIONS = 32
CHECKSUM = "checksum"  # metadata key that `write` adds and the readers take out
MARK = "pellucid"  # metadata key of Pellucid's own files: where it stands, the checksum must stand too

DTYPES = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "U16": "uint16", "I16": "int16", "U32": "uint32", "I32": "int32",
    "U64": "uint64", "I64": "int64", "F16": "float16", "F32": "float32", "F64": "float64",
}

Shape = tuple[int, ...]
Expected = Mapping[str, "Shape | tuple[str, Shape]"]


class ModelFileError(ValueError):
    """A file that is not the model file it should be. The message names the file and is one line."""


@dataclass(frozen=True)
class TensorInfo:
    """One tensor of a file: NumPy name of its type, shape, and its first and last-plus-one byte in the file."""

    dtype: str
    shape: Shape
    start: int
    stop: int


@dataclass(frozen=True)
class Header:
    """What a file says it holds, checked: tensors in the order of their bytes, the metadata, the checksum."""

    tensors: dict[str, TensorInfo]
    metadata: dict[str, str]
    checksum: str | None = None


def write(path: str | os.PathLike, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Write tensors and metadata as one .safetensors file; equal contents give equal bytes.

    The file is written under a temporary name in the same folder, read back (the header), synced and renamed, so
    `path` holds the old file or the new one at any moment. Raises OSError where it cannot be written and
    ModelFileError for tensors or metadata that the format cannot hold.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    tensors = {name: _storable(path, name, value) for name, value in tensors.items()}
    for key, value in metadata.items():
        if not isinstance(key, str) or not isinstance(value, str) or not _is_text(key + value):
            raise ModelFileError(f"{path}: metadata {_short(key)} must be text, got {_short(value)}")
    if CHECKSUM in metadata:
        raise ModelFileError(f"{path}: metadata {CHECKSUM!r} is written by Pellucid itself; use another name")
    checksum = _checksum(tensors, metadata)
    with replacing(path) as temporary:
        try:
            save_file(tensors, temporary, metadata={**metadata, CHECKSUM: checksum})
        except SafetensorError as e:
            raise _write_error(e, path) from e
        _sort_metadata(temporary)
        try:
            written = read_header(temporary)
        except ModelFileError as e:
            raise ModelFileError(str(e).replace(str(temporary), str(path))) from None
        if written.metadata != dict(metadata) or {n: (t.dtype, t.shape) for n, t in written.tensors.items()} != {
            n: (a.dtype.name, a.shape) for n, a in tensors.items()
        }:
            raise ModelFileError(f"{path}: what was written does not read back; the old file is kept")


def read_header(path: str | os.PathLike) -> Header:
    """The header of a file, every statement of it checked; no tensor is read.

    Raises OSError for a file that is missing, unreadable or not a regular file, ModelFileError for one whose
    contents are not a complete and consistent .safetensors file.
    """
    with open_file(path) as (file, size):
        return _read_header(path, file, size)


def read(path: str | os.PathLike, expected: Expected | None = None) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The tensors and the metadata of a file.

    `expected` says for each tensor its shape (float32 is meant) or (dtype name, shape); the file must then hold
    exactly these, which is checked before anything is allocated, and they come back in that order. Raises as
    `read_header` does, and ModelFileError for tensors other than expected and for damaged contents.
    """
    with open_file(path) as (file, size):
        header = _read_header(path, file, size)
        if expected is not None:
            _check_expected(path, header, expected)
        try:
            tensors = {name: np.empty(t.shape, t.dtype) for name, t in header.tensors.items()}
        except MemoryError:
            raise ModelFileError(f"{path}: its tensors take {size:,} bytes, more than there is memory for") from None
        for name, info in header.tensors.items():
            _fill(path, file, name, info, tensors[name])
    if header.checksum is not None and header.checksum != _checksum(tensors, header.metadata):
        raise ModelFileError(f"{path}: the contents do not fit the file's own checksum; it is damaged: use a copy")
    return {name: tensors[name] for name in (tensors if expected is None else expected)}, header.metadata


def parse_json(text: str, what: str) -> object:
    """JSON read strictly, for metadata from untrusted files.

    Raises ModelFileError, its message beginning with `what`, for anything json.loads refuses and for duplicate
    keys, NaN and infinities, numbers of absurd length and nesting deeper than MAX_DEPTH.
    """
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite)
    except RecursionError:
        raise ModelFileError(f"{what} is nested too deeply") from None
    except ValueError as e:  # JSONDecodeError, our own refusals, integers too long to convert
        raise ModelFileError(f"{what} is not valid JSON: {str(e).splitlines()[0]}") from None
    level = [value]
    for _ in range(MAX_DEPTH):
        nested = [v for v in level if isinstance(v, list | dict)]
        if not nested:
            return value
        level = [inner for v in nested for inner in (v.values() if isinstance(v, dict) else v)]
    raise ModelFileError(f"{what} is nested deeper than {MAX_DEPTH} levels")


def parse_header(raw: bytes, data_size: int) -> Header:
    """The header from its bytes, checked against the number of data bytes that follow. Raises ModelFileError."""
    if raw[:1] != b"{":
        raise ModelFileError("the header must begin with '{': this is not a .safetensors file")
    try:
        text = raw.decode()
    except UnicodeDecodeError as e:
        raise ModelFileError(f"the header is not UTF-8 (byte {e.start})") from None
    entries = parse_json(text, "the header")
    metadata = entries.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise ModelFileError("the header's __metadata__ must be an object of texts")
    for part in (*entries, *metadata, *metadata.values()):
        if not _is_text(part):
            raise ModelFileError(f"{_short(part)} in the header is not valid Unicode")
    base = 8 + len(raw)
    found = sorted(
        ((name, _tensor_info(name, entry, data_size)) for name, entry in entries.items()),
        key=lambda item: (item[1].start, item[1].stop),
    )
    end, before = 0, "the header"
    for name, info in found:
        if info.start != end:
            kind = "overlaps" if info.start < end else "leaves a hole after"
            raise ModelFileError(f"tensor {_short(name)} starts at data byte {info.start}, expected {end}: "
                                 f"it {kind} {before}")
        end, before = info.stop, f"tensor {_short(name)}"
    if end != data_size:
        raise ModelFileError(f"the tensors end at data byte {end}, the file at {data_size}; they must end together")
    tensors = {n: TensorInfo(t.dtype, t.shape, base + t.start, base + t.stop) for n, t in found}
    checksum = metadata.pop(CHECKSUM, None)
    if checksum is None and MARK in metadata:
        raise ModelFileError(f"a Pellucid model must have a {CHECKSUM!r} in its metadata; save it with Pellucid")
    return Header(tensors, metadata, checksum)


def _read_header(path, file, size: int) -> Header:
    if size < 8:
        raise ModelFileError(f"{path}: not a model file: it has {size} bytes, a .safetensors file has at least 10")
    length = int.from_bytes(_read_exactly(path, file, 8), "little")
    if length > size - 8:
        raise ModelFileError(f"{path}: its header should have {length:,} bytes but the file has only {size - 8:,} "
                             "after the length: it is truncated or not a .safetensors file")
    if length > MAX_HEADER:
        raise ModelFileError(f"{path}: its header of {length:,} bytes is larger than the {MAX_HEADER:,} allowed")
    try:
        return parse_header(_read_exactly(path, file, length), size - 8 - length)
    except ModelFileError as e:
        raise ModelFileError(f"{path}: {e}") from None


def _read_exactly(path, file, count: int) -> bytes:
    data = bytearray(count)
    _read_into(path, file, memoryview(data))
    return bytes(data)


def _read_into(path, file, view: memoryview) -> None:
    done = 0
    while done < len(view):
        got = file.readinto(view[done:])
        if not got:
            raise ModelFileError(f"{path}: the file became shorter while it was read")
        done += got


def _fill(path, file, name: str, info: TensorInfo, array: np.ndarray) -> None:
    if array.size == 0:
        return
    file.seek(info.start)
    octets = array.reshape(-1).view(np.uint8)
    _read_into(path, file, memoryview(octets))
    if info.dtype == "bool" and octets.max() > 1:
        raise ModelFileError(f"{path}: tensor {_short(name)} of truth values holds the byte {octets.max()}")


def _tensor_info(name: str, entry: object, data_size: int) -> TensorInfo:
    """One entry of the header, its offsets still counted from the first data byte."""
    what = f"tensor {_short(name)}"
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ModelFileError(f"{what} must have dtype, shape and data_offsets and nothing else, got {_short(entry)}")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ModelFileError(f"{what} has the unknown dtype {_short(dtype)}; known are {', '.join(DTYPES)}")
    if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
        raise ModelFileError(f"{what}: its shape must be a list of integers of at least 0, got {_short(shape)}")
    if len(shape) > MAX_DIMENSIONS:
        raise ModelFileError(f"{what} has {len(shape)} dimensions, more than the {MAX_DIMENSIONS} allowed")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(type(n) is int for n in offsets):
        raise ModelFileError(f"{what}: data_offsets must be two integers, got {_short(offsets)}")
    start, stop = offsets
    if not 0 <= start <= stop <= data_size:
        raise ModelFileError(f"{what}: data_offsets {_short(offsets)} must rise and lie within the {data_size} bytes "
                             "of data: the file is truncated or damaged")
    item = np.dtype(DTYPES[dtype]).itemsize
    # Python's integers do not overflow, NumPy's do: an empty array may still have sides that it cannot hold.
    if prod(n for n in shape if n) * item >= 2**63:
        raise ModelFileError(f"{what}: its shape {_short(shape)} is too large")
    if prod(shape) * item != stop - start:
        raise ModelFileError(f"{what}: shape {_short(shape)} of {dtype} takes {prod(shape) * item} bytes, "
                             f"data_offsets {_short(offsets)} give it {stop - start}")
    return TensorInfo(DTYPES[dtype], tuple(shape), start, stop)


def _check_expected(path, header: Header, expected: Expected) -> None:
    wanted = {}
    for name, value in expected.items():
        dtype, shape = value if len(value) == 2 and isinstance(value[0], str) else ("float32", value)
        wanted[name] = np.dtype(dtype).name, tuple(shape)
    for name, (dtype, shape) in wanted.items():
        found = header.tensors.get(name)
        if found is None:
            raise ModelFileError(f"{path}: tensor {_short(name)} is missing; expected {dtype} {shape}")
        if (found.dtype, found.shape) != (dtype, shape):
            raise ModelFileError(f"{path}: tensor {_short(name)} is {found.dtype} {found.shape}, "
                                 f"expected {dtype} {shape}")
    if extra := [name for name in header.tensors if name not in wanted]:
        more = f" and {len(extra) - 1} more" if len(extra) > 1 else ""
        found = header.tensors[extra[0]]
        raise ModelFileError(f"{path}: tensor {_short(extra[0])} ({found.dtype} {found.shape}){more} is not expected; "
                             f"expected are {len(wanted)} tensors and no others")


def _storable(path, name: str, value: np.ndarray) -> np.ndarray:
    if not isinstance(name, str) or name == "__metadata__" or not _is_text(name):
        raise ModelFileError(f"{path}: {_short(name)} cannot be the name of a tensor")
    array = np.asarray(value)
    if array.dtype.name not in DTYPES.values():
        raise ModelFileError(f"{path}: tensor {_short(name)} is of type {array.dtype}; "
                             f"a model file holds {', '.join(DTYPES.values())}")
    return np.asarray(array, array.dtype.newbyteorder("="), order="C")


def _checksum(tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> str:
    """CRC-32 over the contents whatever their order in the file: metadata, types, shapes, bytes."""
    described = [sorted(metadata.items()), sorted((n, a.dtype.name, a.shape) for n, a in tensors.items())]
    value = zlib.crc32(json.dumps(described).encode())
    for name in sorted(tensors):
        if tensors[name].size:
            value = zlib.crc32(tensors[name].reshape(-1).view(np.uint8), value)
    return f"crc32:{value:08x}"


def _sort_metadata(path: Path) -> None:
    """Put the metadata in order: the library writes it in a random one, and equal models shall be equal files."""
    with open(path, "r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        raw = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        if len(raw) <= length:  # the same JSON in another order, unless the library ever escapes differently
            file.seek(8)
            file.write(raw.ljust(length))


def _write_error(error: Exception, path) -> Exception:
    """The library reports a failed write as text; an OSError with its number again where there is one."""
    number = re.search(r"\(os error (\d+)\)", str(error))
    if number:
        return OSError(int(number[1]), os.strerror(int(number[1])))
    return ModelFileError(f"{path}: cannot be written: {' '.join(str(error).split())}")


def _unique(pairs: list[tuple[str, object]]) -> dict:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen = set()
        twice = next(k for k, _ in pairs if k in seen or seen.add(k))
        raise ValueError(f"the key {_short(twice)} stands twice")
    return result


def _no_constant(text: str) -> object:
    raise ValueError(f"{text} is not a JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"the number {_short(text)} is too large")
    return value


def _is_text(value: str) -> bool:
    """Whether a string can be written as UTF-8; JSON escapes can spell halves of surrogate pairs that cannot."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = _repr.maxlong = 80
_short = _repr.repr  # quoted, on one line, never long, whatever a file holds
