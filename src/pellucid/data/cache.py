"""Decoded images on the disk, so that each picture is decoded once.

An entry is one file: the pixels of all images, then a table (JSON: labels, files, ...), then a footer with the table's
length and checksum. It is written under a temporary name and renamed, so it is whole or not there, and whoever reads
it goes on reading the old one where it is replaced or removed meanwhile. A shared lock (flock) on an entry says that it
is in use; the least recently used of the others are removed beyond `limit`.
"""

from __future__ import annotations

import errno
import fcntl
import json
import math
import os
import shutil
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from math import prod
from pathlib import Path

import numpy as np

from ..files import atomic_text, check_writable, replacing
from .dataset import DataError

IN_MEMORY = 2**28  # bytes of pixels up to which they are read into memory, which also verifies them
_FOOTER = struct.Struct("<8sQI")  # magic, length and CRC-32 of the table
_MAGIC = b"pellucid"
_ENTRY, _NOTE = ".images", ".choice"
_ABANDONED = 60  # seconds after which a temporary file that nobody has locked was left by a process that was killed


def root() -> Path:
    """Where all that can be had again is kept: PELLUCID_CACHE, else pellucid/ in XDG_CACHE_HOME or ~/.cache."""
    root = os.environ.get("PELLUCID_CACHE")
    if not root:
        root = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "pellucid")
    return Path(root).expanduser()


def folder() -> Path:
    """Where entries are."""
    return root() / "decoded"


def limit(occupied: int = 0) -> float:
    """Bytes that entries may take: PELLUCID_DATA_CACHE_GB, else 20 GB or a tenth of what is free, if that is less.

    `occupied` by entries counts as free. Raises DataError where the variable is no number.
    """
    if text := os.environ.get("PELLUCID_DATA_CACHE_GB"):
        try:
            value = float(text)
        except ValueError:
            value = -1
        if not 0 <= value < math.inf:
            raise DataError(f"PELLUCID_DATA_CACHE_GB must be a number of gigabytes from 0, got {text!r}")
        return value * 1e9
    return min(20e9, (shutil.disk_usage(folder()).free + occupied) / 10)


def read(key: str) -> tuple[np.ndarray, dict] | None:
    """The pixels (N, H, W, C) and the table of an entry, or None where there is none, or a damaged one.

    Pixels of more than `IN_MEMORY` bytes are a read-only map of the file; their values are not verified.
    """
    path = folder() / (key + _ENTRY)
    try:
        with open(path, "rb") as file:
            _lock(file, fcntl.LOCK_SH)
            file.seek(-_FOOTER.size, os.SEEK_END)
            end = file.tell()
            magic, length, checksum = _FOOTER.unpack(file.read(_FOOTER.size))
            file.seek(end - length)
            text = file.read(length)
            table = json.loads(text)
            shape = tuple(table["shape"])
            if magic != _MAGIC or zlib.crc32(text) != checksum or prod(shape) + length != end:
                return None
            if prod(shape) > IN_MEMORY:
                # The map keeps a duplicate of the file's descriptor, and with it the lock, for as long as it lives.
                pixels = np.memmap(file, np.uint8, "r", shape=shape)
            else:
                file.seek(0)
                pixels = np.fromfile(file, np.uint8, prod(shape)).reshape(shape)
                if zlib.crc32(pixels) != table["checksum"]:
                    return None
    except (OSError, ValueError, KeyError, TypeError, struct.error):
        return None
    with suppress(OSError):  # of a read-only cache
        os.utime(path)  # when it was last used
    return pixels, table


def write(key: str, most: int, blocks: Iterator[np.ndarray], table: Callable[[], dict]) -> None:
    """Make an entry of blocks of images, written as they come, and of the `table` asked for after the last.

    `most` is how many bytes the blocks may have. Raises OSError, of one line, where it cannot be written, and passes
    on what `blocks` and `table` raise; nothing is left behind then.
    """
    place = check_writable(folder())
    if shutil.disk_usage(place).free < most:
        raise OSError(errno.ENOSPC, f"cannot write {most:,} bytes into {place}: the disk has less free")
    trim(key)  # a bad limit is found before anything is decoded
    path, checksum = place / (key + _ENTRY), 0
    with replacing(path) as temporary, open(temporary, "wb") as file:
        _lock(file, fcntl.LOCK_EX)
        for block in blocks:
            file.write(block)
            checksum = zlib.crc32(block, checksum)
        text = json.dumps({**table(), "checksum": checksum}).encode()
        file.write(text + _FOOTER.pack(_MAGIC, len(text), zlib.crc32(text)))
    trim(key)


def trim(keep: str) -> None:
    """Remove what was abandoned, and the least recently used entries beyond `limit`, except `keep` and those in use."""
    found = []
    with os.scandir(folder()) as entries:
        for entry in entries:
            with suppress(OSError):  # another process has removed it
                status = entry.stat()
                if entry.name.endswith((_ENTRY, _NOTE)):
                    found.append((status.st_mtime, entry.name, status.st_size))
                elif entry.name.endswith(".tmp") and status.st_mtime < time.time() - _ABANDONED:
                    _remove_unused(entry.path)
    occupied = sum(size for *_, size in found)
    most = limit(occupied)
    for _, name, size in sorted(found):
        if occupied <= most:
            return
        if name != keep + _ENTRY and _remove_unused(folder() / name):
            occupied -= size


def _remove_unused(path: str | os.PathLike) -> bool:
    with suppress(OSError), open(path, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(path)
        return True
    return False


def _lock(file, kind: int) -> None:
    with suppress(OSError):  # some network file systems have no locks: then an entry may be removed too early
        fcntl.flock(file, kind | fcntl.LOCK_NB)


# Small notes beside the entries.


def read_note(key: str) -> dict | None:
    """What `write_note` wrote, or None."""
    path = folder() / (key + _NOTE)
    try:
        note = json.loads(path.read_bytes())
        os.utime(path)
    except (OSError, ValueError):
        return None
    return note if isinstance(note, dict) else None


def write_note(key: str, note: dict) -> None:
    """Keep a small dict for `read_note`, if the cache can be written."""
    with suppress(OSError):
        folder().mkdir(parents=True, exist_ok=True)
        atomic_text(folder() / (key + _NOTE), json.dumps(note))
