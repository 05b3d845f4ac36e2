"""Lists of pictures: CSV (commas) and TSV (tabs) with the columns `path`, `label` and, if wanted, `split`."""

from __future__ import annotations

import csv
import io
import os
from hashlib import blake2b
from pathlib import Path

from ..files import open_file
from .dataset import DataError
from .listing import PARTS, SPLITS, File, Listing, Source, other_classes, shown, unreadable

_LARGEST_TABLE = 2**30
_COLUMNS = ("path", "label", "split")


def read_table(path: Path) -> Source:
    """The pictures that a .csv or .tsv names, their paths counting from its folder. Raises DataError.

    The fingerprint is that of the table's bytes and of each file's size and time of change.
    """
    try:
        with open_file(path) as (file, size):
            if size > _LARGEST_TABLE:
                raise DataError(f"{path}: has {size:,} bytes, at most {_LARGEST_TABLE:,} are read; divide it")
            data = file.read()
    except OSError as e:
        raise DataError(str(e)) from None
    state = blake2b(data, digest_size=16)
    found: dict[tuple[str, str], list[tuple[str, int, str]]] = {}
    left_out = []
    for name, label, part in _rows(path, data):
        place = os.path.join(path.parent, name)
        status, reason = _status(place)
        state.update(f"\0{status and (status.st_size, status.st_mtime_ns)}".encode())
        if reason:
            left_out.append((shown(name), reason))
        found.setdefault((part, label), [])
        if status:
            found[part, label].append((name, status.st_size, place))
    return Source(state.hexdigest(), lambda: _listing(path, found, left_out))


def _rows(path: Path, data: bytes) -> list[tuple[str, str, str]]:
    """(path, label, part) of each row, the same row twice counting once."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{path}: is not UTF-8 text; save it as CSV UTF-8") from None
    reader = csv.reader(io.StringIO(text, newline=""), delimiter="\t" if path.suffix.lower() == ".tsv" else ",",
                        strict=True)
    rows: dict[str, tuple[str, str]] = {}
    try:
        header = [name.strip().lower() for name in next(reader, [])]
        if not {"path", "label"} <= set(header) or any(header.count(name) > 1 for name in _COLUMNS):
            kind = "tabs" if path.suffix.lower() == ".tsv" else "commas"
            raise DataError(f"{path}: its first line names the columns {', '.join(map(repr, header[:8])) or 'nothing'}"
                            f"; expected path, label and, if wanted, split, each once, with {kind} between them")
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue
            where = f"{path}, line {reader.line_num}"
            if len(row) != len(header):
                raise DataError(f"{where}: has {len(row)} columns, the first line {len(header)}; "
                                "put cells that hold the separator into quotation marks")
            cells = {name: cell.strip() for name, cell in zip(header, row, strict=True)}
            part = SPLITS.get(cells.get("split", "").lower() or "train")
            if not cells["path"] or not cells["label"] or "\0" in cells["path"]:
                raise DataError(f"{where}: has no {'label' if cells['path'] else 'path'}; each picture needs both")
            if part is None:
                raise DataError(f"{where}: the split is {cells['split']!r}; expected one of {', '.join(SPLITS)}, "
                                "or nothing")
            value = cells["label"], part
            if rows.setdefault(cells["path"], value) != value:
                raise DataError(f"{where}: {cells['path']} stands here again with another label or split; "
                                "each picture has one of each")
    except csv.Error as e:
        raise DataError(f"{path}, line {reader.line_num}: {e}; save it again as CSV") from None
    return [(name, *value) for name, value in rows.items()]


def _status(place: str) -> tuple[os.stat_result | None, str]:
    """A file's status, or None and why it is no picture."""
    try:
        status = os.stat(place)
    except OSError as e:
        return None, f"cannot be read ({e.strerror})"
    reason = unreadable(status)
    return (None, reason) if reason else (status, "")


def _listing(path: Path, found: dict, left_out: list) -> Listing:
    names = {part: {label for p, label in found if p == part} for part in PARTS}
    names = {part: labels for part, labels in names.items() if labels}
    if "train" not in names:
        raise DataError(f"{path}: names no picture for training; expected rows whose split is train, or empty")
    problems = [problem for part, labels in names.items()
                for problem in other_classes(str(path), part, labels, names["train"])]
    if len(names["train"]) < 2:
        problems.append(f"{path}: holds one class only, {shown(*names['train'])!r}; a classifier needs at least 2")
    problems += [f"{path}: none of the pictures of class {shown(label)!r} for {part} can be used "
                 f"({': '.join(left_out[0])} is the first such file); paths count from the table's folder"
                 for (part, label), files in found.items() if not files]
    classes = sorted(set().union(*names.values()))
    files = [
        File(shown(name), part, classes.index(label), size, place)
        for part in PARTS if part in names for label in classes
        for name, size, place in sorted(found.get((part, label), []))
    ]
    return Listing(files, [shown(name) for name in classes], sorted(left_out), problems=problems)
