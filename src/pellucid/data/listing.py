"""Which pictures a folder, a zip or a CSV holds, of which class, for which part; nothing is decoded here.

Folders and zips: `class/image`, or `train/class/image` beside parts for validation and test (`SPLITS`); folders below a
class belong to it. Where everything lies under one folder, that one is looked into. Names that begin with a dot, and
files whose names do not end as pictures' do, are ignored.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from . import zips
from .dataset import DataError
from .pictures import is_picture

PARTS = ("train", "validation", "test")
SPLITS = {"train": "train", "training": "train", "val": "validation", "valid": "validation",
          "validation": "validation", "test": "test", "eval": "test", "evaluation": "test"}
LEADS_OUT = "its name leads out of the zip"
_IGNORED = {"__macosx", "@eadir", "$recycle.bin", "lost+found"}


class File(NamedTuple):
    """A picture not yet read: its name for people, part, class, size in bytes, and its path or place in the zip."""

    name: str
    part: str
    label: int
    size: int
    place: str | zips.Member


@dataclass(frozen=True)
class Listing:
    """All pictures of a source: train, then validation, then test; in a part by class, then by name.

    `archive` is the zip that they stand in, or None. `left_out`: (file, why). `problems`: why nothing can be trained on
    them, a line each: there are not two classes, or one has no picture in some part.
    """

    files: list[File]
    classes: list[str]
    left_out: list[tuple[str, str]]
    archive: str | None = None
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Source:
    """What a path names: a text that differs for other contents, and the way to list them (which may take longer)."""

    fingerprint: str
    listing: Callable[[], Listing]


@dataclass
class Tree:
    """Pictures and folders by the parts of their paths below the top."""

    pictures: dict[tuple[str, ...], tuple[int, str | zips.Member]] = field(default_factory=dict)
    folders: set[tuple[str, ...]] = field(default_factory=set)
    left_out: list[tuple[str, str]] = field(default_factory=list)


def find(path: Path) -> Source:
    """The pictures in a folder, a zip, a .csv or a .tsv. Raises DataError for a path that cannot be read."""
    from .tables import read_table  # which imports this file

    if path.is_dir():
        tree, fingerprint = _walked(path)
        return Source(fingerprint, lambda: arranged(str(path), tree))
    if path.suffix.lower() in (".csv", ".tsv"):
        return read_table(path)
    return Source(zips.fingerprint(path), lambda: arranged(str(path), _zipped(path), str(path)))


def shown(name: str) -> str:
    """A name as it can be printed and stored anywhere: what is not text is escaped."""
    if all(c.isprintable() or c == "\u00a0" for c in name):
        return name
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def ignored(name: str) -> bool:
    """Whether a file or folder is hidden, or one that systems put beside pictures."""
    return name.startswith(".") or name.lower() in _IGNORED


def _holds_runs(entry: os.DirEntry) -> bool:
    """Whether this is what training leaves where it is started among the pictures: a run, or the folder of runs."""
    if not entry.is_dir(follow_symlinks=False):
        return False
    folder = Path(entry.path)
    if entry.name != "runs":
        return (folder / "config.json").is_file() and (folder / "last.safetensors").is_file()
    return any((run / "config.json").is_file() for run in folder.iterdir())


def _walked(root: Path) -> tuple[Tree, str]:
    """The tree below a folder, and the fingerprint: names, sizes and times of change.

    Links to folders are followed, each folder being read once, so that links that go in a circle end.
    """
    tree, state = Tree(), blake2b(digest_size=16)
    waiting: list[tuple[str, tuple[str, ...]]] = [(os.fspath(root), ())]
    links: list[tuple[str, tuple[str, ...]]] = []
    seen = set()
    while waiting or links:
        linked = not waiting  # what is a real folder has its own name first
        folder, parts = links.pop(0) if linked else waiting.pop()
        try:
            status = os.stat(folder)
            identity = status.st_dev, status.st_ino
            if identity in seen:
                if linked:
                    tree.left_out.append((shown("/".join(parts)), "a link to a folder that is read under another name"))
                continue
            with os.scandir(folder) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as e:
            reason = f"cannot be read ({e.strerror})"
            if not parts:
                raise DataError(f"{root}: {reason}; change its permissions or give another folder") from None
            tree.left_out.append((shown("/".join(parts)), reason))
            continue
        seen.add(identity)
        if parts:
            tree.folders.add(parts)
        state.update(os.fsencode("/".join(parts)) + b"\0\0")
        for entry in found:
            if not ignored(entry.name) and not _holds_runs(entry):
                _note(tree, state, entry, (*parts, entry.name), waiting, links)
    return tree, state.hexdigest()


def _note(tree: Tree, state, entry: os.DirEntry, parts: tuple[str, ...], waiting: list, links: list) -> None:
    try:
        if entry.is_dir():
            (links if entry.is_symlink() else waiting).append((entry.path, parts))
            return
        if not is_picture(entry.name):
            return
        status = entry.stat()
        reason = unreadable(status)
    except OSError as e:
        if not is_picture(entry.name):
            return
        reason = f"cannot be read ({e.strerror})"
    if reason:
        tree.left_out.append((shown("/".join(parts)), reason))
        return
    tree.pictures[parts] = status.st_size, entry.path
    state.update(f"{entry.name}\0{status.st_size} {status.st_mtime_ns}\0".encode(errors="surrogateescape"))


def unreadable(status: os.stat_result) -> str:
    """Why a file of this status cannot be a picture; empty where it can."""
    if not stat.S_ISREG(status.st_mode):
        return "not a regular file"
    if status.st_size > zips.LARGEST_FILE:
        return f"has {status.st_size:,} bytes, at most {zips.LARGEST_FILE:,} are read"
    return ""


def _zipped(path: Path) -> Tree:
    tree = Tree()
    for name, member in zips.members(path):
        parts, hostile = zips.parts_of(name)
        if not parts or any(map(ignored, (p for p in parts if p != ".."))):
            continue
        folder = name.endswith(("/", "\\"))
        if not hostile:
            tree.folders.update(parts[:i] for i in range(1, len(parts) + folder))
        if folder or not is_picture(parts[-1]):
            continue
        if hostile:
            tree.left_out.append((shown(name), LEADS_OUT))
        elif isinstance(member, str):
            tree.left_out.append((shown(name), member))
        elif parts in tree.pictures:
            tree.left_out.append((shown(name), "stands in the zip twice; the first is taken"))
        else:
            tree.pictures[parts] = member.size, member
    return tree


# From a tree to classes and parts.


def arranged(what: str, tree: Tree, archive: str | None = None) -> Listing:
    """The pictures of a tree by part and class. Raises DataError for a layout that is none of those known."""
    below: dict[tuple[str, ...], set[str]] = {}
    for parts in tree.folders:
        below.setdefault(parts[:-1], set()).add(parts[-1])
    holding = {parts[:-1] for parts in tree.pictures}  # folders with pictures directly in them
    if not tree.pictures:
        bad = f" that can be used (the first: {': '.join(tree.left_out[0])})" if tree.left_out else ""
        raise DataError(f"{what}: holds no pictures (.png, .jpg, ...){bad}; expected a folder of them for each class")
    top = _top(below, holding)
    tops = _part_folders(what, top, below.get(top, set()))
    left_out = list(tree.left_out)
    members: dict[tuple[str, str], list[tuple[tuple[str, ...], int, str | zips.Member]]] = {}
    part_of = {base: part for part, base in tops.items()}
    loose: dict[str, int] = {}
    for parts, (size, place) in tree.pictures.items():
        base = parts[:len(next(iter(part_of)))]
        part = part_of.get(base)
        if part is None:
            left_out.append((shown("/".join(parts)), "stands beside the folders for training, validation and test"))
        elif len(parts) == len(base) + 1:
            loose[part] = loose.get(part, 0) + 1
            left_out.append((shown("/".join(parts)), "is in no class's folder, so it has no label"))
        else:
            members.setdefault((part, parts[len(base)]), []).append((parts, size, place))
    present = {part: below.get(base, set()) for part, base in tops.items()}
    # Test pictures without labels, as competitions give them, are no test set.
    present = {part: names for part, names in present.items() if names or part == "train"}
    if not present["train"]:
        where = "/".join((what, *tops["train"]))
        raise DataError(f"{where}: its {loose.get('train', 0)} pictures lie in no class's folder; put those of each "
                        "class into a folder named after it, or give a CSV with the columns path and label")
    problems = list(_problems(what, tops, present, members, left_out))
    classes = sorted(set().union(*present.values()))
    number = {name: i for i, name in enumerate(classes)}
    files = [
        File(shown("/".join(parts)), part, number[name], size, place)
        for part in PARTS if part in present for name in classes
        for parts, size, place in sorted(members.get((part, name), []), key=lambda found: found[0])
    ]
    return Listing(files, [shown(name) for name in classes], sorted(left_out), archive, problems)


def _top(below: dict, holding: set) -> tuple[str, ...]:
    """The folder that the classes or parts stand in: the top, or the only one in it that holds no pictures itself."""
    top: tuple[str, ...] = ()
    while top not in holding and len(below.get(top, ())) == 1:
        name = next(iter(below[top]))
        inner = (*top, name)
        parts = {SPLITS.get(n.lower()) for n in below.get(inner, ())}
        if name.lower() in SPLITS or not parts or (inner in holding and "train" not in parts):
            break
        top = inner
    return top


def _part_folders(what: str, top: tuple[str, ...], names: set[str]) -> dict[str, tuple[str, ...]]:
    """The folder of each part; that of all for training where there are no parts."""
    tops: dict[str, tuple[str, ...]] = {}
    if not any(SPLITS.get(name.lower()) == "train" for name in names):
        return {"train": top}
    for name in sorted(names):
        if part := SPLITS.get(name.lower()):
            if part in tops:
                raise DataError(f"{what}: both {tops[part][-1]!r} and {name!r} are folders for {part}; keep one")
            tops[part] = (*top, name)
    return tops


def _problems(what: str, tops: dict, present: dict, members: dict, left_out: list) -> Iterator[str]:
    for part, names in present.items():
        where = "/".join((what, *map(shown, tops[part])))
        if empty := sorted(name for name in names if (part, name) not in members):
            inside = [f for f in left_out if f[0].startswith("/".join((*map(shown, tops[part]), shown(empty[0]), "")))]
            why = f" that can be used ({inside[0][0]}: {inside[0][1]})" if inside else ""
            yield f"{where}: the class {shown(empty[0])!r} has no picture{why}; add some or remove its folder"
        yield from other_classes(where, part, names, present["train"])
    if len(present["train"]) < 2:
        only = shown(next(iter(present["train"])))
        yield (f"{what}: holds one class only, {only!r}; a classifier needs at least 2, each with its pictures in a "
               "folder of its own")


def other_classes(where: str, part: str, names: set[str], known: set[str]) -> Iterator[str]:
    """What is wrong, naming the class, where a part has not the classes of the training part."""
    if unknown := sorted(names - known):
        yield (f"{where}: the {part} part has a class {shown(unknown[0])!r} that the training part has not "
               f"({', '.join(map(shown, sorted(known)[:10]))}); name the classes alike")
    if missing := sorted(known - names):
        yield (f"{where}: the {part} part has no class {shown(missing[0])!r}, the training part has; name the classes "
               "alike, with at least one picture each")
