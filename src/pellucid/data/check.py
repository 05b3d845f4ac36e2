"""What is wrong with a data set, or may be: found before training, each with what it means and what to do about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field

import numpy as np

from . import duplicates
from .dataset import DataError, Dataset
from .split import Split, split

SERIOUS, WARNING, NOTE = "serious", "warning", "note"
SEVERITIES = (SERIOUS, WARNING, NOTE)
TINY = 20  # images in a class below which little can be learned, and less be measured
IMBALANCE = 10  # times as many training images as the rarest class has
NAMES, PAIRS = 10, 2  # files or classes, and pairs of copies, that `brief` mentions; the rest are counted

TRAIN, VALIDATION, TEST = range(3)
PARTS = ("training", "validation", "test")


@dataclass(frozen=True)
class Item:
    """Something that a finding is about: files (or images by number, or classes), and what is to be said of them."""

    names: tuple[str, ...]
    note: str = ""


@dataclass(frozen=True)
class Finding:
    """What was found. `kind` is a fixed word for programs; `text`, `advice` are sentences, `items` what it is about."""

    kind: str
    severity: str
    text: str
    advice: str
    items: tuple[Item, ...] = ()


@dataclass(frozen=True)
class Report:
    """A data set in figures, and the findings, most severe first.

    `shape`: (H, W, C) of the images as training sees them; `counts`: images of each class in each part that the source
    brings (one part, "all", where it brings only one); `sizes`: smallest, median and largest (height, width) of the
    pictures before they were brought to one size, by area, and `modes` how many have which mode; empty for arrays.
    """

    name: str
    shape: tuple[int, int, int]
    counts: dict[str, dict[str, int]]
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    modes: dict[str, int] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()

    def to_json(self) -> dict:
        """All of it as a dict for JSON."""
        return asdict(self)


Progress = Callable[[str, int, int], None]


def check(dataset: Dataset, progress: Progress | None = None) -> Report:
    """Look at everything in a data set. Reads all images, and hashes them for near duplicates: seconds to minutes.

    `progress` is called with what is being done, how many images are done, and of how many.
    """
    d = _Labelled(dataset)
    findings = [
        *_absent(d), *_split(d), *_left_out(d), *_copies(d, progress), *_parts(d), *_classes(d), *_plain(d, progress),
        *_small(d),
    ]
    findings.sort(key=lambda f: SEVERITIES.index(f.severity))
    brought = [part for part in range(3) if d.counts[:, part].any()]
    titles = [PARTS[part] for part in brought] if len(brought) > 1 else ["all"]
    counts = {name: dict(zip(titles, map(int, row[brought]), strict=True))
              for name, row in zip(dataset.classes, d.counts, strict=True)}
    return Report(dataset.name, dataset.input_shape, counts, *_pictures(d), tuple(findings))


def brief(dataset: Dataset, parts: Split) -> list[str]:
    """What is worth a line before training begins on a split data set: nothing where all is well.

    Its notes, files left out, copies dropped or kept together, classes of few images, parts that do not fit each
    other. Names are as they are in the file system. That classes are uneven is for those to say who weigh them.
    """
    lines = list(dataset.notes)
    if count := len(dataset.left_out):
        named = "; ".join(f"{file} ({why})" for file, why in dataset.left_out[:NAMES])
        more = f"; and {count - NAMES} more" if count > NAMES else ""
        lines.append(f"left out {_count(count, 'file')} that cannot be used: {named}{more}")
    if count := len(parts.dropped.of_test):
        lines.append(f"left out {_count(count, 'image')} of which the test set holds a copy")
    if count := len(parts.dropped.of_validation):
        lines.append(f"left out {_count(count, 'training image')} of which the validation set holds a copy")
    used = np.ones(len(dataset.labels), bool)
    used[parts.dropped.of_test] = used[parts.dropped.of_validation] = False
    sizes = np.unique(parts.groups[used], return_counts=True)[1]
    if (sizes > 1).any():
        lines.append(f"kept {_count(int(sizes[sizes > 1].sum()), 'image')} together that are copies of one another or "
                     f"belong together ({_count(int((sizes > 1).sum()), 'group')}, each in one part)")
    if found := in_two_classes(parts):
        count, pairs = len(found), [" = ".join(pair) for pair in found[:PAIRS]]
        lines.append(f"{_count(count, 'image')} stand{'s' * (count == 1)} in two classes as copies: {', '.join(pairs)}"
                     + ", ..." * (count > PAIRS) + "; pellucid data check DATA shows all")
    labelled = _Labelled(dataset)
    for finding in (*_parts(labelled), *_classes(labelled)):
        if finding.kind != "imbalance":
            named = [name + f" ({item.note})" * bool(item.note) for item in finding.items for name in item.names]
            more = ", ..." * (len(named) > NAMES)
            lines.append(f"{finding.text}: {', '.join(named[:NAMES])}{more}" if named else finding.text)
    return lines


def in_two_classes(parts: Split) -> list[tuple[str, str]]:
    """Names of an image and of a copy of it that has another label, one pair for each group of copies."""
    dataset = parts.dataset
    _, first, group = np.unique(parts.groups, return_index=True, return_inverse=True)
    others = np.flatnonzero(dataset.labels != dataset.labels[first][group])
    groups, at = np.unique(parts.groups[others], return_index=True)
    return [(_name(dataset, i), _name(dataset, j)) for i, j in zip(groups, others[at], strict=True)]


class _Labelled:
    """A data set's images, training, validation and test, in one row: places, then labels, parts and names of each."""

    def __init__(self, dataset: Dataset):
        self.dataset = dataset
        own, test = len(dataset.labels), len(dataset.test_labels) if dataset.has_test else 0
        self.arrays = [dataset.images, *[dataset.test_images] * dataset.has_test]
        self.labels = np.concatenate([dataset.labels, *[dataset.test_labels] * dataset.has_test])
        self.parts = np.repeat((TRAIN, TEST), (own, test))
        if dataset.validation is not None:
            self.parts[dataset.validation] = VALIDATION
        classes = len(dataset.classes)
        self.counts = np.bincount(self.labels * 3 + self.parts, minlength=3 * classes).reshape(classes, 3)

    def name(self, place: int) -> str:
        """The file of an image, or what it is called where there is no file."""
        test = place - len(self.dataset.labels)
        return _name(self.dataset, place) if test < 0 else _name(self.dataset, test, test=True)


def _name(dataset: Dataset, place: int, test: bool = False) -> str:
    pictures = dataset.test_pictures if test else dataset.pictures
    return pictures.files[place] if pictures is not None else f"{'test ' * test}image {place}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}{'es' if noun.endswith('s') else 's'}"


def _pictures(d: _Labelled) -> tuple[dict[str, tuple[int, int]], dict[str, int]]:
    pictures = [p for p in (d.dataset.pictures, d.dataset.test_pictures) if p is not None]
    if not pictures:
        return {}, {}
    sizes = np.concatenate([p.sizes for p in pictures]).astype(np.int64)
    by_area = sizes[np.argsort(sizes.prod(axis=1), kind="stable")]
    named = {"smallest": by_area[0], "median": by_area[len(by_area) // 2], "largest": by_area[-1]}
    modes = Counter(mode for p in pictures for mode in p.modes)
    return {name: (int(h), int(w)) for name, (h, w) in named.items()}, dict(modes.most_common())


def _absent(d: _Labelled) -> Iterator[Finding]:
    """What partial data lack."""
    names, what = d.dataset.classes, "a training image" if d.counts.any(axis=0).sum() > 1 else "an image"
    if empty := [Item((names[c],)) for c in np.flatnonzero(d.counts[:, TRAIN] == 0)]:
        yield Finding("empty", SERIOUS, f"{_count(len(empty), 'class')} without {what}", "Training stops there. Add "
                      "images, or remove the class: its folder, its rows or its label.", tuple(empty))
    if len(names) < 2:
        yield Finding("one-class", SERIOUS, "one class only", "Training stops there: a classifier tells at least two "
                      "classes apart. Add images of another, in a folder or under a label of its own.",
                      (Item((names[0],)),))


def _split(d: _Labelled) -> Iterator[Finding]:
    if len(d.dataset.classes) < 2 or not d.counts[:, TRAIN].all():
        return  # said already
    try:
        split(d.dataset)
    except DataError as e:
        yield Finding("split", SERIOUS, "the data cannot be split into parts: "
                      + str(e).removeprefix(f"{d.dataset.name}: "), "Training stops with this message.")


def _left_out(d: _Labelled) -> Iterator[Finding]:
    if left_out := d.dataset.left_out:
        yield Finding(
            "unreadable", WARNING, f"{_count(len(left_out), 'file')} cannot be used",
            "They are in no part. Repair them or save them again where they should count.",
            tuple(Item((file,), why) for file, why in left_out))


def _copies(d: _Labelled, progress: Progress | None) -> Iterator[Finding]:
    """Equal images, then those that look alike, each by how much harm they do."""
    stage = None if progress is None else lambda done, count: progress("comparing images", done, count)
    exact = duplicates.exact(*d.arrays)
    near = duplicates.near(*d.arrays, progress=stage)
    yield from _grouped(d, "exact", "equal images", list(_members(exact)), (SERIOUS, SERIOUS, NOTE))
    alike = [places for places in _members(near) if len(np.unique(exact[places])) > 1]
    yield from _grouped(d, "near", "images that look alike", alike, (WARNING, WARNING, NOTE))


def _members(groups: np.ndarray) -> Iterator[np.ndarray]:
    """The places of each group of more than one image."""
    order = np.argsort(groups, kind="stable")
    bounds = np.flatnonzero(np.diff(groups[order])) + 1
    return (places for places in np.split(order, bounds) if len(places) > 1)


def _grouped(
    d: _Labelled, kind: str, what: str, groups: list[np.ndarray], severities: tuple[str, str, str]
) -> Iterator[Finding]:
    two_labels = [g for g in groups if len(np.unique(d.labels[g])) > 1]
    across = [g for g in groups if len(np.unique(d.parts[g])) > 1]
    within = [g for g in groups if len(np.unique(d.labels[g])) == 1 and len(np.unique(d.parts[g])) == 1]
    handled = ("Training leaves them out where the test or validation set holds a copy, so figures stay honest; "
               "delete one of each." if kind == "exact" else
               "What is learned by heart counts as recognised, and the test figures come out too good. Look at them, "
               "and leave those that show the same thing in one part only.")
    together = ("They count as one when the data are split, and as many in training. Delete the copies unless that is "
                "wanted." if kind == "exact" else
                "Splitting does not keep them together. Look at them, and delete those that add nothing.")
    for problem, chosen, severity, which, advice in (
        ("labels", two_labels, severities[0], " with different labels",
         "At most one of the labels is right. Delete the wrong ones."),
        ("parts", across, severities[1], " in different parts", handled),
        ("within", within, severities[2], " in one class and part", together),
    ):
        if chosen:
            items = tuple(Item(tuple(map(d.name, g)), _place(d, g, problem)) for g in chosen)
            yield Finding(f"{kind}-{problem}", severity, f"{_count(len(chosen), 'group')} of {what}{which}", advice,
                          items)


def _place(d: _Labelled, places: np.ndarray, problem: str) -> str:
    """Which labels, or which parts, images have."""
    if problem == "parts":
        return ", ".join(PARTS[part] for part in np.unique(d.parts[places]))
    return ", ".join(d.dataset.classes[label] for label in np.unique(d.labels[places]))


def _parts(d: _Labelled) -> Iterator[Finding]:
    """The parts that the source brings, held against its training images."""
    names, totals = d.dataset.classes, d.counts.sum(axis=0)
    for part in (VALIDATION, TEST):
        if not totals[part]:
            continue
        word = PARTS[part]
        if missing := [Item((names[c],)) for c in np.flatnonzero(d.counts[:, part] == 0)]:
            yield Finding(f"missing-{word}", SERIOUS, f"{_count(len(missing), 'class')} without a {word} image",
                          "How well they are recognised is not measured. Add some, or leave the part out: one is then "
                          "set aside." + " Training on pictures stops there." * (d.dataset.pictures is not None),
                          tuple(missing))
        if totals[part] > totals[TRAIN]:
            yield Finding(f"large-{word}", WARNING, f"more {word} images ({totals[part]:,}) than training images "
                          f"({totals[TRAIN]:,})", "A network learns from the training images only. Are the parts mixed "
                          "up? Else move some.")
        if different := [Item((names[c],), f"{shares[0]:.1%} of the training images, {shares[1]:.1%} of these")
                         for c, shares in _unlike(d.counts[:, TRAIN], d.counts[:, part])]:
            yield Finding(f"shares-{word}", WARNING, f"{_count(len(different), 'class')} with another share of the "
                          f"{word} images than of the training images", "Accuracy counts a class by its share, so the "
                          "figures describe another mixture than was trained on. Draw the parts from one pool.",
                          tuple(different))


def _unlike(a: np.ndarray, b: np.ndarray) -> Iterator[tuple[int, tuple[float, float]]]:
    """Classes whose shares in two lists of counts differ by half or more, and by more than chance would have it.

    Chance: four standard errors of the difference between two shares of one population.
    """
    if not a.any():
        return
    p, q, pooled = a / a.sum(), b / b.sum(), (a + b) / (a.sum() + b.sum())
    error = np.sqrt(pooled * (1 - pooled) * (1 / a.sum() + 1 / b.sum()))
    for c in np.flatnonzero((np.maximum(p, q) >= 1.5 * np.minimum(p, q)) & (abs(p - q) > 4 * error)):
        yield int(c), (float(p[c]), float(q[c]))


def _classes(d: _Labelled) -> Iterator[Finding]:
    names, totals, train = d.dataset.classes, d.counts.sum(axis=1), d.counts[:, TRAIN]
    if tiny := [Item((names[c],), _count(int(totals[c]), "image"))
            for c in np.flatnonzero((0 < totals) & (totals < TINY))]:
        yield Finding("tiny", WARNING, f"{_count(len(tiny), 'class')} of fewer than {TINY} images",
                      "A network learns little from so few, and figures for them are mostly chance. Add images, or "
                      "join or leave out these classes.", tuple(tiny))
    if _unbalanced(train[train > 0]):
        few = np.flatnonzero((0 < train) & (train * IMBALANCE <= train.max()))
        items = tuple(Item((names[c],), _count(int(train[c]), "image")) for c in few)
        yield Finding("imbalance", WARNING, f"{_count(len(few), 'class')} with at most 1/{IMBALANCE} of the "
                      f"{train.max():,} training images of {names[train.argmax()]!r}",
                      "A network tends to answer with the common classes. Add images of the rare ones, and judge by "
                      "the figures class by class.", items)


def _unbalanced(counts: np.ndarray) -> bool:
    return bool(counts.max() >= max(IMBALANCE * counts.min(), 1))


def _plain(d: _Labelled, progress: Progress | None) -> Iterator[Finding]:
    found, done, count = [], 0, len(d.labels)
    for images in duplicates.chunks(d.arrays, np.arange(count)):
        found += [done + int(i) for i in np.flatnonzero((images == images[:, :1, :1]).all(axis=(1, 2, 3)))]
        done += len(images)
        if progress is not None:
            progress("looking for empty images", done, count)
    if found:
        yield Finding("plain", WARNING, f"{_count(len(found), 'image')} of a single colour", "There is nothing in them "
                      "to recognise. Delete them, unless empty is a class.", _named(d, found))


def _small(d: _Labelled) -> Iterator[Finding]:
    height, width, _ = d.dataset.input_shape
    found = []
    for first, pictures in ((0, d.dataset.pictures), (len(d.dataset.labels), d.dataset.test_pictures)):
        if pictures is not None:
            found += (first + np.flatnonzero((pictures.sizes * 2 < (height, width)).all(axis=1))).tolist()
    if found:
        yield Finding("small", NOTE, f"{_count(len(found), 'picture')} of less than half the size that they are "
                      f"brought to, {height}x{width}", "Enlarged they are blurred, which a network may learn instead "
                      "of what they show. Use larger pictures, or a smaller size for all.", _named(d, found))


def _named(d: _Labelled, places: list[int]) -> tuple[Item, ...]:
    return tuple(Item((d.name(place),)) for place in places)
