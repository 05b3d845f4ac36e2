"""Zips read in place. Nothing is unpacked to the disk, and no name in a zip is ever used as a path.

`zipfile` reads the directory; files are then read by their place in it, which takes a tenth of the time and lets
several processes read one zip without each reading a directory of 60,000 names.
"""

from __future__ import annotations

import os
import stat
import zipfile
import zlib
from hashlib import blake2b
from typing import BinaryIO, NamedTuple

from ..files import open_file
from .dataset import DataError

DEFLATE_RATIO = 1032  # the most that deflate can shrink anything (zlib's technical notes), so the most to believe
LARGEST_FILE = 2**28  # bytes of one picture's file, packed or not
_LARGEST_DIRECTORY = 2**28
_END, _LONGEST_END = b"PK\x05\x06", 22 + 65535  # the end record, and its size with the longest comment


class Member(NamedTuple):
    """Where a file stands in a zip: offset of its header, bytes there, bytes unpacked, method, CRC-32."""

    offset: int
    packed: int
    size: int
    method: int
    checksum: int


def fingerprint(path: str | os.PathLike) -> str:
    """A text that differs for zips whose directories (names, sizes, times, checksums) differ. Raises DataError."""
    try:
        with open_file(path) as (file, size):
            tail_at = max(size - _LONGEST_END, 0)
            file.seek(tail_at)
            tail = file.read()
            at = tail.rfind(_END)
            if at < 0 or at + 22 > len(tail):
                raise DataError(f"{path}: not a zip file, or one that is cut off: it has no directory at its end")
            directory = int.from_bytes(tail[at + 12:at + 16], "little")
            if directory > _LARGEST_DIRECTORY:
                raise DataError(f"{path}: its directory is {directory:,} bytes long, at most {_LARGEST_DIRECTORY:,} "
                                "are read; divide it into several zips")
            # A zip of more than 65,535 files has 76 bytes of records between the directory and the end.
            file.seek(max(tail_at + at - directory - 76, 0))
            return blake2b(file.read(), digest_size=16).hexdigest()
    except OSError as e:
        raise DataError(str(e)) from None


def members(path: str | os.PathLike) -> list[tuple[str, Member | str]]:
    """(name, where it stands) of all that a zip holds, or (name, why it cannot be read). Raises DataError."""
    try:
        with open_file(path) as (file, size), zipfile.ZipFile(file) as archive:
            found = archive.infolist()
            if sum(info.compress_size for info in found) > size:
                raise DataError(f"{path}: its parts overlap, so it would unpack to more than it holds; not read")
            return [(info.filename, _member(info)) for info in found]
    except DataError:
        raise
    except OSError as e:
        raise DataError(str(e)) from None
    except Exception as e:  # what `zipfile` raises for damaged directories is not only BadZipFile
        raise DataError(f"{path}: not a sound zip file ({(str(e).splitlines() or [type(e).__name__])[0][:120]}); "
                        "make it again") from None


def parts_of(name: str) -> tuple[tuple[str, ...], bool]:
    """A name in a zip as folders and file, and whether it leads out of the zip."""
    plain = name.replace("\\", "/")  # some programs write backslashes, and "./" before every name
    parts = tuple(p for p in plain.split("/") if p not in ("", "."))
    return parts, ".." in parts or plain.startswith("/") or bool(parts) and ":" in parts[0]


def _member(info: zipfile.ZipInfo) -> Member | str:
    if stat.S_ISLNK(info.external_attr >> 16):
        return "a symbolic link, which is not followed in a zip; pack the picture itself"
    if info.flag_bits & 1:
        return "encrypted; unpack it with its password and give the folder"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return f"packed by method {info.compress_type}; only stored and deflated files are read: zip it again"
    size, packed = info.file_size, info.compress_size
    if max(size, packed) > LARGEST_FILE or size > DEFLATE_RATIO * (packed + 1):
        return (f"claims {size:,} bytes in {packed:,} packed ones; at most {LARGEST_FILE:,}, and no more than the "
                "method can hold, are read")
    return Member(info.header_offset, info.compress_size, info.file_size, info.compress_type, info.CRC)


def read(file: BinaryIO, member: Member, most: int | None = None) -> bytes:
    """A file of an opened zip, or its beginning of at most `most` bytes. Raises ValueError where it is damaged."""
    file.seek(member.offset)
    head = file.read(30)
    if len(head) < 30 or head[:4] != b"PK\x03\x04":
        raise ValueError("the zip is damaged: it has no file where its directory says; make it again")
    file.seek(int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little"), os.SEEK_CUR)
    size = member.size if most is None else min(member.size, most)
    if not size:
        return b""
    data = file.read(member.packed if most is None else min(member.packed, most))
    if member.method == zipfile.ZIP_DEFLATED:
        try:
            data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, size)  # never more than it claims
        except zlib.error as e:
            raise ValueError(f"the zip is damaged here ({e}); make it again") from None
    if most is None and (len(data) != size or zlib.crc32(data) != member.checksum):
        raise ValueError("the zip is damaged here: size or checksum is not that of its directory; make it again")
    return data
