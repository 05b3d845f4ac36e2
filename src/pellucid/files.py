"""Files that are whole or not there: written under a temporary name, synced, renamed.

Everything Pellucid keeps (models, checkpoints, run folders) goes through here, so a crash, a full disk or a
kill at any moment leaves either the old file or the new one. Failures are `OSError`s of one clear line.
"""

from __future__ import annotations

import csv
import errno
import itertools
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

_HINTS = {
    errno.ENOSPC: "the disk is full: free some space or choose another folder",
    errno.EDQUOT: "your disk quota is used up: free some space or choose another folder",
    errno.EFBIG: "the file is larger than this system allows: choose another folder or raise the limit",
    errno.EROFS: "the file system is read-only: choose another folder",
    errno.EACCES: "permission denied: choose another folder or change its permissions",
    errno.EPERM: "permission denied: choose another folder or change its permissions",
    errno.ENOENT: "no such file or folder",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.ELOOP: "the symbolic links go in a circle",
    errno.ENAMETOOLONG: "the name is too long: choose a shorter one",
}


def explain(error: OSError, doing: str) -> OSError:
    """The same kind of error with a message of one line: what was being done, why it failed, what helps."""
    cause = _HINTS.get(error.errno) or error.strerror or str(error)
    clear = type(error)(f"{doing}: {cause}")
    clear.errno = error.errno  # with one argument `str` gives the message alone, and callers still see the number
    return clear


def kind_of(mode: int) -> str:
    """What a file mode says the thing is, in words."""
    for test, name in (
        (stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a device"), (stat.S_ISBLK, "a device"), (stat.S_ISREG, "a file"),
    ):
        if test(mode):
            return name
    return "not a file"


def _require_path(path: str | os.PathLike) -> None:
    if "\0" in os.fspath(path):
        raise OSError(f"a path cannot hold a null character, got {os.fspath(path)!r}")


def _require_file(mode: int, doing: str) -> None:
    if not stat.S_ISREG(mode):
        kind = IsADirectoryError if stat.S_ISDIR(mode) else OSError
        raise kind(f"{doing}: it is {kind_of(mode)}, expected a regular file")


@contextmanager
def open_file(path: str | os.PathLike) -> Iterator[tuple[BinaryIO, int]]:
    """Open a regular file for reading, unbuffered: yields it and its size in bytes.

    Symbolic links are followed. Raises OSError for anything that is missing, unreadable or not a regular file;
    a pipe without a writer never makes it wait.
    """
    doing = f"cannot read {os.fspath(path)}"
    _require_path(path)
    try:
        # Looked at before it is opened (opening a device may act on it) and after (it may have been swapped).
        _require_file(os.stat(path).st_mode, doing)
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
        with os.fdopen(os.open(path, flags), "rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            _require_file(status.st_mode, doing)
            yield file, status.st_size
    except OSError as e:
        raise (explain(e, doing) if e.strerror else e) from None


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path to write to; when the block ends well it is synced and takes `path`'s place.

    On any exception the temporary is removed and `path` stays as it was. A symbolic link is kept and the file it
    points to is replaced; a replaced file passes on its permissions. Raises OSError where `path` cannot be written.
    """
    doing = f"cannot write {os.fspath(path)}"
    _require_path(path)
    target = Path(os.path.realpath(path))
    temporary = target.parent / f".{target.name[:40]}.{secrets.token_hex(4)}.tmp"
    created = False
    try:
        mode = None
        with suppress(FileNotFoundError):
            mode = os.stat(target).st_mode
            _require_file(mode, doing)
        try:
            descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        except FileNotFoundError:
            raise FileNotFoundError(f"{doing}: there is no folder {target.parent}; create it first") from None
        created = True
        with os.fdopen(descriptor, "wb") as file:
            mode = os.fstat(file.fileno()).st_mode if mode is None else mode
        yield temporary
        # Whoever wrote may have put a new file there, with permissions of its own.
        os.chmod(temporary, stat.S_IMODE(mode))
        _sync(temporary, os.O_RDWR)
        os.replace(temporary, target)
        created = False
        with suppress(OSError):  # some systems cannot sync a folder; the file is whole all the same
            _sync(target.parent, os.O_RDONLY)
    except OSError as e:
        raise (explain(e, doing) if e.strerror else e) from e
    finally:
        if created:
            with suppress(OSError):
                os.unlink(temporary)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags | getattr(os, "O_BINARY", 0))
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def atomic_write(path: str | os.PathLike, writer: Callable[[BinaryIO], object]) -> None:
    """Write a file whole or not at all: `writer` gets a binary file and writes everything into it.

    Raises OSError (one line) where it cannot be written, and passes on what `writer` raises; in both cases the
    old file, if any, is untouched and nothing is left behind.
    """
    with replacing(path) as temporary, open(temporary, "wb") as file:
        writer(file)


def atomic_text(path: str | os.PathLike, text: str) -> None:
    """`atomic_write` of a text as UTF-8, its line ends as they are."""
    data = text.encode()
    atomic_write(path, lambda file: file.write(data))


@contextmanager
def csv_file(path: str | os.PathLike, columns: Sequence[str]) -> Iterator[Callable[[Sequence], object]]:
    """Yield what writes a row to a CSV file, whose first row names the columns; whole or not at all, as `replacing`.

    UTF-8, lines end in a line feed; bytes of file names that are no text are written as escapes.
    """
    with replacing(path) as temporary, \
            open(temporary, "w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        yield writer.writerow


@contextmanager
def filling(path: str | os.PathLike, *, numbered: bool = False) -> Iterator[Path]:
    """Yield a temporary folder within the folder `path`; when the block ends well, what is in it moves up into that.

    `path` must be missing or an empty folder; with `numbered` it is path-1, path-2, ..., the first that nothing has.
    On any exception nothing is left of what was written, nor of folders that were made for it. Raises OSError of one
    line where the folder is not empty or cannot be written into, before the block begins.
    """
    _require_path(path)
    folder, made, moved = Path(path), [], []
    doing = f"cannot write into the folder {folder}"
    try:
        with _explained(doing):
            if numbered:
                _make(folder.parent, made)
                folder = new_folder(folder)
                made.append(folder)
            elif folder.exists() and not folder.is_dir():
                raise NotADirectoryError(f"{doing}: it is {kind_of(os.stat(folder).st_mode)}, not a folder")
            else:
                _make(folder, made)
                if next(folder.iterdir(), None) is not None:
                    raise FileExistsError(f"the folder {folder} is not empty; choose another one")
            temporary = folder / f".{secrets.token_hex(4)}.tmp"
            temporary.mkdir()
            made.append(temporary)
        with _explained(doing):
            yield temporary
            for file in temporary.rglob("*"):
                if not file.is_dir():
                    _sync(file, os.O_RDWR)
            for entry in sorted(temporary.iterdir()):
                moved.append(folder / entry.name)
                os.replace(entry, moved[-1])
            temporary.rmdir()
    except BaseException:
        for entry in (*moved, *(m for m in made if m.suffix == ".tmp")):
            shutil.rmtree(entry, ignore_errors=True) if entry.is_dir() else entry.unlink(missing_ok=True)
        for each in reversed(made):
            with suppress(OSError):  # somebody else has put something there
                each.rmdir()
        raise


@contextmanager
def _explained(doing: str) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        raise (explain(e, doing) if e.strerror else e) from None


def _make(folder: Path, made: list[Path]) -> None:
    """Make a folder with those above it, adding to `made` what was not there."""
    for each in (*reversed(folder.parents), folder):
        if not each.is_dir():
            with suppress(FileExistsError):
                each.mkdir()
                made.append(each)


def new_folder(path: Path) -> Path:
    """Make the first of path-1, path-2, ... that nothing has, for whoever asks alone. Raises OSError."""
    for n in itertools.count(1):
        folder = path.with_name(f"{path.name}-{n}")
        with suppress(FileExistsError):
            folder.mkdir()
            return folder


def check_writable(folder: str | os.PathLike) -> Path:
    """Create `folder` with its parents if it is missing and prove that files can be written into it.

    A small file is written, synced and removed again. Raises OSError of one line where that fails, so that a long
    run finds out before it starts.
    """
    doing = f"cannot write into the folder {os.fspath(folder)}"
    _require_path(folder)
    folder = Path(folder)
    try:
        if folder.exists() and not folder.is_dir():
            raise NotADirectoryError(f"{doing}: it is {kind_of(os.stat(folder).st_mode)}, not a folder")
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".writable.{secrets.token_hex(4)}.tmp"
        try:
            with open(probe, "xb") as file:
                file.write(b"pellucid")
                file.flush()
                os.fsync(file.fileno())
        finally:
            probe.unlink(missing_ok=True)
    except OSError as e:
        raise (explain(e, doing) if e.strerror else e) from None
    return folder
