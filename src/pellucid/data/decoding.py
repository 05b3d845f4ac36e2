"""Pictures to a data set: their headers are looked at to choose a size, then each is decoded, once, into the cache.

Both are done by several processes, batch by batch; what is in memory at a time does not grow with the data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from functools import cached_property
from hashlib import blake2b
from math import prod
from pathlib import Path

import numpy as np

from .. import processors
from ..files import open_file
from . import cache, pictures, zips
from .arrays import require_memory
from .dataset import DataError, Dataset, Pictures
from .listing import PARTS, File, Source, find
from .pictures import RULES, SIZES, decode, is_grey, look, original, undisturbed
from .workers import in_processes

LARGEST_COMMON = 96  # pixels a side up to which a common size is kept
LARGEST_SIZE = 4096
_HEAD = 2**18  # bytes in which a picture's header is looked for first
_BATCH_FILES, _BATCH_BYTES = 256, 2**23
_FEW_FILES, _FEW_BYTES = 1000, 2**25  # for fewer, starting processes would take longer than it saves

Progress = Callable[[int, int], object]


def load_pictures(name: str, path: Path, *, size: int | Sequence[int] | None = None, fit: str | None = None,
                  channels: int | None = None, partial: bool = False, progress: Progress | None = None) -> Dataset:
    """The data set of the pictures in a folder, a zip, a .csv or a .tsv; see `pellucid.data.load`. Raises DataError."""
    return _Loading(name, path, checked_size(size), checked_fit(fit), checked_channels(channels), partial,
                    progress).dataset()


def originals(pictures: Pictures, chosen: Sequence[int], channels: int) -> list[np.ndarray]:
    """The pictures with these numbers as they were before they were resized: see `pictures.original`.

    Raises DataError where one is no longer there or can no longer be decoded.
    """
    listing = find(pictures.path).listing()
    places = {file.name: file.place for file in listing.files}
    names = [pictures.files[i] for i in chosen]
    if gone := [name for name in names if name not in places]:
        raise DataError(f"{pictures.path}: {gone[0]} is no longer there")
    found = []
    for name, data in zip(names, _contents(listing.archive, [places[name] for name in names]), strict=True):
        try:
            if isinstance(data, str):
                raise ValueError(data)
            found.append(original(data, channels))
        except ValueError as e:
            raise DataError(f"{name}: {e}") from None
    return found


def checked_size(size: int | Sequence[int] | None) -> tuple[int, int] | None:
    """A size that was asked for, as (height, width). Raises DataError for what is none."""
    if size is None:
        return None
    pair = (size, size) if isinstance(size, int | np.integer) else size
    if not isinstance(pair, tuple | list) or len(pair) != 2 or not all(
            isinstance(n, int | np.integer) and not isinstance(n, bool) and 1 <= n <= LARGEST_SIZE for n in pair):
        raise DataError(f"size must be a number of pixels or (height, width), each from 1 to {LARGEST_SIZE}, "
                        f"got {size!r}")
    return int(pair[0]), int(pair[1])


def checked_fit(fit: str | None) -> str | None:
    """Raises DataError for a way of fitting that there is not."""
    try:
        return fit if fit is None else pictures.checked_fit(fit)
    except ValueError as e:
        raise DataError(str(e)) from None


def checked_channels(channels: int | None) -> int | None:
    """Raises DataError for a number of channels that pictures cannot have."""
    if channels is not None and (isinstance(channels, bool) or channels not in (1, 3)):
        raise DataError(f"channels must be 1 (grey) or 3 (RGB), got {channels!r}")
    return channels


class _Unlike(Exception):
    """The pictures are not all as the first."""


def _check_guess(guess: dict, sizes: Sequence[Sequence[int]], modes: Sequence[str]) -> None:
    if any(list(size) != guess["common"] for size in sizes) or (guess["grey"] and not all(map(is_grey, modes))):
        raise _Unlike


class _Loading:
    """One call of `load_pictures`."""

    def __init__(self, name: str, path: Path, size: tuple[int, int] | None, fit: str | None, channels: int | None,
                 partial: bool, progress: Progress | None):
        self.name, self.size, self.fit, self.channels, self.progress = name, size, fit, channels, progress
        self.partial, self.path = partial, path
        self.source: Source = find(path)
        self.passes = 1  # over the pictures; of them, `passed` and `reported` have been done
        self.passed = self.reported = 0
        self.notes: list[str] = []

    @cached_property
    def listing(self):
        listing = self.source.listing()
        if listing.problems and not (self.partial and any(file.part == "train" for file in listing.files)):
            raise DataError(listing.problems[0])
        return listing

    def dataset(self) -> Dataset:
        asked = None not in (self.size, self.fit, self.channels)
        note = _digest("survey", RULES, self.source.fingerprint)
        found = {} if asked else cache.read_note(note)
        if found is not None and (asked or set(found) == {"common", "median", "grey"}):
            return self._dataset(found)
        data = None
        with suppress(_Unlike):
            found = self._guess()
            data = self._dataset(found, guessed=True)
        if data is None:
            found = self._survey()
            data = self._dataset(found)
        cache.write_note(note, found)
        return data

    def _dataset(self, found: dict, guessed: bool = False) -> Dataset:
        """The data set, if the pictures are as was found. Raises _Unlike where that was guessed wrong."""
        import PIL

        shape, fit = self._choice(found)
        key = _digest(RULES, PIL.__version__, self.source.fingerprint, shape, fit)
        entry = cache.read(key)
        if entry is None:
            entry = self._decoded(key, shape, fit, found if guessed else None)
        elif guessed:
            _check_guess(found, entry[1]["sizes"], entry[1]["modes"])
        self.require_pictures(entry[1])
        return replace(_dataset(self.name, self.path, *entry, fit, self.partial), notes=tuple(self.notes))

    def require_pictures(self, table: dict) -> None:
        """Raise DataError where a class has no picture left; for partial data, where training has none at all."""
        if table.get("complete", True) or self.partial and table["counts"][0]:
            return
        listing, left_out = self.listing, dict(map(tuple, table["left_out"]))  # the listing may have its own complaint
        held = set(zip(np.repeat(PARTS, table["counts"]), table["labels"], strict=True))
        file = next(file for file in listing.files if (file.part, file.label) not in held)
        raise DataError(f"{self.name}: none of the pictures of class {listing.classes[file.label]!r} for {file.part} "
                        f"can be used; the first: {file.name}: {left_out[file.name]}")

    # Which size.

    def _choice(self, found: dict) -> tuple[tuple[int, int, int], str]:
        """The shape of the images and how pictures are fitted into it."""
        size, fit, channels = self.size, self.fit, self.channels
        common = found.get("common") and tuple(found["common"])
        if size is None:
            size = common if common and max(common) <= LARGEST_COMMON else (
                (max([s for s in SIZES if s <= found["median"]], default=SIZES[0]),) * 2)
        return (*size, channels or (1 if found["grey"] else 3)), fit or ("stretch" if common == size else "crop")

    def _guess(self) -> dict:
        """What a survey would find if all pictures were as the first; for small ones, that saves looking at each twice.

        Raises _Unlike where that is not likely.
        """
        [answer] = _look_at(self.listing.archive, [self.listing.files[0].place])
        if isinstance(answer, str) or max(answer[0]) > LARGEST_COMMON:
            raise _Unlike
        size, mode = answer
        return {"common": list(size), "median": float(min(size)), "grey": is_grey(mode)}

    def _survey(self) -> dict:
        """From the headers: the size that all pictures have, or None; the median shorter side; whether all are grey."""
        self.passes, self.passed = 2, 0
        sizes, grey, first = [], True, None
        batches = _batches(self.listing.files, 1)
        with closing(self._run(_look_at, batches)) as results:
            for batch, answers in zip(batches, results, strict=True):
                for file, answer in zip(batch, answers, strict=True):
                    if isinstance(answer, str):
                        first = first or f"{file.name}: {answer}"
                        continue
                    sizes.append(answer[0])
                    grey = grey and is_grey(answer[1])
        if not sizes:
            raise DataError(f"{self.name}: none of its {len(self.listing.files)} pictures can be used; "
                            f"the first: {first}")
        common = sizes[0] if len(set(sizes)) == 1 else None
        return {"common": common and list(common), "median": float(np.median([min(s) for s in sizes])), "grey": grey}

    # Decoding.

    def _decoded(self, key: str, shape: tuple[int, int, int], fit: str,
                 guess: dict | None) -> tuple[np.ndarray, dict]:
        """A new entry of the cache; in memory where the cache cannot be written."""
        most = len(self.listing.files) * prod(shape)
        passed = self.passed
        try:
            record = _Record(self, shape, fit, guess)
            with closing(record.blocks()) as blocks:
                cache.write(key, most, blocks, record.table)
            entry = cache.read(key)
            if entry is not None:
                return entry
            problem = f"what was written into {cache.folder()} cannot be read again"
        except OSError as e:
            problem = e.strerror or str(e)
        try:
            require_memory(most, f"{self.name}: its decoded pictures")
            pixels = np.empty((len(self.listing.files), *shape), np.uint8)
        except (DataError, MemoryError):
            raise DataError(f"{self.name}: its decoded pictures take {most:,} bytes, which do not fit into memory, and "
                            f"{problem}; set PELLUCID_CACHE to a folder with that much space") from None
        self.notes = [f"decoded pictures are not kept for the next time: {problem}; set PELLUCID_CACHE to a folder "
                      "that can be written into"]
        self.passed, done = passed, 0
        record = _Record(self, shape, fit, guess)
        with closing(record.blocks()) as blocks:
            for block in blocks:
                pixels[done:done + len(block)] = block
                done += len(block)
        return pixels[:done], record.table()

    def _run(self, function: Callable, batches: list[list[File]], *arguments) -> Iterator:
        """function(archive, places, *arguments) of each batch, in order, by as many processes as pay."""
        tasks = [(self.listing.archive, [file.place for file in batch], *arguments) for batch in batches]
        few = sum(map(len, batches)) < _FEW_FILES and sum(f.size for batch in batches for f in batch) < _FEW_BYTES
        workers = 1 if few else min(processors.threads(), len(tasks))
        with closing(in_processes(function, tasks, workers) if workers > 1 else
                     (function(*task) for task in tasks)) as results:
            for batch, result in zip(batches, results, strict=True):
                self.passed += len(batch)
                self.reported = max(self.passed // self.passes, self.reported)  # never backwards
                if self.progress:
                    self.progress(self.reported, len(self.listing.files))
                yield result


class _Record:
    """What is learnt about the pictures while they are decoded."""

    def __init__(self, loading: _Loading, shape: tuple[int, int, int], fit: str, guess: dict | None):
        self.loading, self.shape, self.fit, self.guess = loading, shape, fit, guess
        self.kept: list[tuple[File, tuple[int, int], str]] = []
        self.left_out = list(loading.listing.left_out)
        self.state = blake2b(digest_size=16)

    def blocks(self) -> Iterator[np.ndarray]:
        """The images that can be used, uint8 (n, *shape), in the order of the listing. Raises _Unlike."""
        batches = _batches(self.loading.listing.files, prod(self.shape))
        with closing(self.loading._run(_decode_all, batches, self.shape, self.fit)) as results:
            for batch, (pixels, answers) in zip(batches, results, strict=True):
                for file, answer in zip(batch, answers, strict=True):
                    if isinstance(answer, str):
                        self.left_out.append((file.name, answer))
                    else:
                        self.kept.append((file, *answer))
                if self.guess is not None:
                    good = [answer for answer in answers if not isinstance(answer, str)]
                    _check_guess(self.guess, [size for size, _ in good], [mode for _, mode in good])
                self.state.update(pixels)
                yield pixels

    def table(self) -> dict:
        """All but the pixels. `complete` says whether every class has a picture in every part. Raises DataError."""
        listing = self.loading.listing
        held, listed = ({(file.part, file.label) for file in files}
                        for files in ([file for file, *_ in self.kept], listing.files))
        labels = [file.label for file, _, _ in self.kept]
        counts = [sum(file.part == part for file, _, _ in self.kept) for part in PARTS]
        table = {
            "shape": [len(self.kept), *self.shape], "counts": counts, "classes": listing.classes, "labels": labels,
            "files": [file.name for file, _, _ in self.kept], "sizes": [size for _, size, _ in self.kept],
            "modes": [mode for _, _, mode in self.kept], "left_out": sorted(self.left_out),
            "complete": held == listed and not listing.problems,
            "digest": _digest(self.state.hexdigest(), self.shape, counts, listing.classes, labels),
        }
        self.loading.require_pictures(table)  # before they are kept
        return table


def _dataset(name: str, path: Path, pixels: np.ndarray, table: dict, fit: str, partial: bool) -> Dataset:
    train, validation, test = table["counts"]
    own = train + validation
    labels = np.array(table["labels"], np.int32)
    sizes = np.array(table["sizes"], np.int32).reshape(-1, 2)
    parts = slice(own), slice(own, own + test)
    pictures = [Pictures(tuple(table["files"][p]), sizes[p], tuple(table["modes"][p]), path) for p in parts]
    return Dataset(
        name, pixels[:own], labels[:own], table["classes"],
        test_images=pixels[own:] if test else None, test_labels=labels[own:] if test else None,
        validation=np.arange(train, own) if validation else None,
        pictures=pictures[0], test_pictures=pictures[1] if test else None,
        left_out=tuple((file, why) for file, why in table["left_out"]), fit=fit, digest=table["digest"],
        partial=partial,
    )


def _digest(*values) -> str:
    return blake2b(repr(values).encode(), digest_size=16).hexdigest()


def _batches(files: list[File], image_bytes: int) -> list[list[File]]:
    """Runs of files with not too many bytes, neither packed nor decoded."""
    batches: list[list[File]] = []
    room = most = 0
    for file in files:
        if room < file.size or len(batches[-1]) >= most:
            batches.append([])
            room, most = _BATCH_BYTES, max(min(_BATCH_FILES, _BATCH_BYTES // image_bytes), 1)
        batches[-1].append(file)
        room -= file.size
    return batches


# In other processes.


def _contents(archive: str | None, places: list, most: int | None = None) -> Iterator[bytes | str]:
    """The bytes of each file, or its beginning of at most `most`; or why it cannot be read."""
    if archive is None:
        for path in places:
            try:
                with open_file(path) as (file, size):
                    yield file.read(min(size, most or zips.LARGEST_FILE))
            except OSError as e:
                yield str(e)
        return
    try:
        with open_file(archive) as (file, _):
            for member in places:
                try:
                    yield zips.read(file, member, most)
                except ValueError as e:
                    yield str(e)
    except OSError as e:
        raise DataError(str(e)) from None


def _look_at(archive: str | None, places: list) -> list[tuple[tuple[int, int], str] | str]:
    """`look` at each, or why not."""
    answers: list[tuple[tuple[int, int], str] | str] = []
    with undisturbed():
        for place, data in zip(places, _contents(archive, places, _HEAD), strict=True):
            try:
                answers.append(data if isinstance(data, str) else look(data))
            except ValueError as e:
                # The header may stand behind a long preface, as of colour profiles.
                whole = next(_contents(archive, [place])) if len(data) == _HEAD else str(e)
                try:
                    answers.append(whole if isinstance(whole, str) else look(whole))
                except ValueError as e:
                    answers.append(str(e))
    return answers


def _decode_all(archive: str | None, places: list, shape: tuple[int, int, int],
                fit: str) -> tuple[np.ndarray, list[tuple[tuple[int, int], str] | str]]:
    """The images of those that can be decoded; and of each the size and mode, or why not."""
    pixels, answers = np.empty((len(places), *shape), np.uint8), []
    done = 0
    with undisturbed():
        for data in _contents(archive, places):
            try:
                if isinstance(data, str):
                    raise ValueError(data)
                pixels[done], size, mode = decode(data, shape, fit)
                answers.append((size, mode))
                done += 1
            except ValueError as e:
                answers.append(str(e))
    return pixels[:done], answers
