"""Splits that keep what belongs together on one side, and honour the parts that a source brings itself."""

from dataclasses import replace

import numpy as np
import pytest
from data_helpers import refused
from hypothesis import given, settings
from hypothesis import strategies as st
from photos_data import photos, sound
from sklearn.model_selection import train_test_split

from pellucid.data import Dataset, load, split


def parts_of(parts, own_test=False):
    return [parts.train, parts.validation] + ([] if own_test else [parts.test])


def with_copies(units, extra, seed, two_labels=False):
    """`units` different images in each of the classes, then `extra` copies of some; all in random order."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(units)), units)
    source = np.concatenate([np.arange(len(labels)), rng.integers(0, len(labels), extra)])
    labels = labels[source]
    if two_labels:  # copies with the label of another class
        labels[-extra:] = rng.integers(0, len(units), extra)
    source, labels = (a[order] for order in [rng.permutation(len(source))] for a in (source, labels))
    images = (source.astype(np.uint32)[:, None] + 1).view(np.uint8).reshape(-1, 2, 2, 1)
    return Dataset("d", images, labels.astype(np.int32), [f"c{i}" for i in range(len(units))]), source


@settings(max_examples=60, deadline=None)
@given(units=st.lists(st.integers(3, 40), min_size=2, max_size=8), extra=st.integers(1, 60),
       seed=st.integers(0, 2**40), given_groups=st.booleans())
def test_copies_stay_on_one_side(units, extra, seed, given_groups):
    data, source = with_copies(units, extra, seed % 10**6)
    if given_groups:  # images of their own, kept together by what the source says
        names = np.random.default_rng(1).integers(-2**62, 2**62, len(source))
        data = replace(data, groups=names[source], images=np.arange(len(source), dtype=np.uint32).view(np.uint8)
                       .reshape(-1, 2, 2, 1))
    parts = split(data, seed)
    assert sorted(np.concatenate([p.indices for p in parts_of(parts)]).tolist()) == list(range(len(data.labels)))
    sources = [set(source[p.indices]) for p in parts_of(parts)]
    assert not sources[0] & sources[1] and not sources[0] & sources[2] and not sources[1] & sources[2]
    for part in parts_of(parts):
        assert set(part.labels.tolist()) == set(range(len(units)))
        assert (np.diff(part.indices) > 0).all()
        np.testing.assert_array_equal(part.images, data.images[part.indices])
        np.testing.assert_array_equal(part.labels, data.labels[part.indices])
    assert len(parts.dropped) == 0
    assert parts.groups.tolist() == [source.tolist().index(s) for s in source]
    for a, b in zip(parts_of(parts), parts_of(split(data, seed)), strict=True):
        np.testing.assert_array_equal(a.indices, b.indices)


@settings(max_examples=40, deadline=None)
@given(units=st.lists(st.integers(30, 50), min_size=2, max_size=5), extra=st.integers(1, 20),
       seed=st.integers(0, 10**6))
def test_copies_with_other_labels_stay_on_one_side_too(units, extra, seed):
    data, source = with_copies(units, extra, seed, two_labels=True)
    parts = split(data, seed)
    sources = [set(source[p.indices]) for p in parts_of(parts)]
    assert not sources[0] & sources[1] and not sources[0] & sources[2] and not sources[1] & sources[2]
    assert sum(map(len, parts_of(parts))) == len(data.labels)
    for part in parts_of(parts):
        assert set(part.labels.tolist()) == set(range(len(units)))


def test_copies_with_two_labels_count_for_the_rarer_one():
    images = photos(20, (4, 4, 1))[[*range(20), 0, 1, 2]]  # all of the second class are in the first too
    data = Dataset("d", images, np.repeat(np.arange(2, dtype=np.int32), (20, 3)), ["c0", "c1"])
    for seed in range(5):
        parts = parts_of(split(data, seed))
        assert [int((p.labels == 1).sum()) for p in parts] == [1, 1, 1]
        for part in parts:
            assert {i - 20 for i in part.indices if i >= 20} == set(part.indices) & {0, 1, 2}


@pytest.mark.parametrize("seed", [0, 7])
def test_without_copies_it_is_a_plain_stratified_split(seed):
    data = load("digits")
    rest, test = train_test_split(np.arange(1797), test_size=450, stratify=data.labels, random_state=seed)
    rest = np.sort(rest)
    train, validation = train_test_split(rest, test_size=135, stratify=data.labels[rest], random_state=seed)
    names = np.random.default_rng(2).permutation(1797)
    for same in (data, replace(data, groups=names)):  # groups of one image each, whatever their numbers
        parts = split(same, seed)
        for part, expected in zip(parts_of(parts), (train, validation, test), strict=True):
            assert part.indices.tolist() == np.sort(expected).tolist()


def test_shares_with_many_copies():
    data, source = with_copies([200, 400], 300, 3)
    parts = split(data)
    units = [len(set(source[p.indices])) for p in parts_of(parts)]
    assert units == [405, 45, 150]


# What the source brings.

def test_training_images_that_the_test_set_holds_are_dropped():
    data = sound(60, 12)
    images = data.images.copy()
    images[[5, 40]], images[7] = data.test_images[3], data.test_images[0]
    parts = split(replace(data, images=images))
    assert parts.dropped.of_test.tolist() == [5, 7, 40] and parts.dropped.of_validation.tolist() == []
    assert len(parts.dropped) == 3
    assert parts.test.images is data.test_images and len(parts.test) == 12
    used = np.concatenate([parts.train.indices, parts.validation.indices])
    assert sorted(used.tolist()) == [i for i in range(60) if i not in (5, 7, 40)]
    assert len(parts.validation) == 6


def test_what_belongs_with_a_copy_of_a_test_image_is_dropped_too():
    data = sound(60, 12)
    images = data.images.copy()
    images[5] = data.test_images[3]
    numbers = np.arange(60)
    numbers[[5, 8]] = 99
    assert split(replace(data, images=images, groups=numbers)).dropped.of_test.tolist() == [5, 8]


@pytest.mark.parametrize("own_test", [False, True])
def test_own_validation(own_test):
    chosen = np.array([3, 4, 11, 30])
    data = sound(60, 12 if own_test else 0, validation=chosen)
    parts = split(data, 5)
    assert parts.validation.indices.tolist() == chosen.tolist()
    np.testing.assert_array_equal(parts.validation.images, data.images[chosen])
    assert len(parts.test) == (12 if own_test else 14)  # a quarter of the other 56
    rest = [parts.train.indices, chosen, *([] if own_test else [parts.test.indices])]
    assert sorted(np.concatenate(rest).tolist()) == list(range(60))
    assert len(parts.dropped) == 0


def test_copies_of_own_validation_images():
    data = sound(60, 12, validation=np.array([3, 4, 11, 30]))
    images = data.images.copy()
    images[[20, 21]] = images[4]  # training copies of a validation image
    images[11] = images[22] = data.test_images[0]  # a validation and a training image of the test set
    parts = split(replace(data, images=images))
    assert parts.dropped.of_test.tolist() == [11, 22] and parts.dropped.of_validation.tolist() == [20, 21]
    assert parts.validation.indices.tolist() == [3, 4, 30]
    assert parts.train.indices.tolist() == [i for i in range(60) if i not in (3, 4, 11, 20, 21, 22, 30)]


# Too few.

def copied(counts, kinds, **fields):
    """Classes of so many images, of so many kinds each."""
    pool = iter(photos(sum(kinds), (4, 4, 1)))
    images = np.concatenate([np.resize([next(pool) for _ in range(k)], (n, 4, 4, 1))
                             for n, k in zip(counts, kinds, strict=True)])
    labels = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    return Dataset("d", images, labels, [f"c{i}" for i in range(len(counts))], **fields)


def test_too_few_distinct_images():
    refused(lambda: split(copied([9, 9], [9, 2])), "d: class 'c1' has 9 images, of which 2 can be used",
            "the others are copies", "training, validation and test need one each, 3 together")
    assert [len(p) for p in parts_of(split(copied([3, 9], [3, 3])))] == [4, 4, 4]
    refused(lambda: split(copied([2, 9], [2, 9])), "class 'c0' has 2 images, but training, validation and test need")


def test_too_few_beside_what_the_source_brings():
    data = copied([6, 6], [6, 6])
    with_test = replace(data, test_images=data.images[[0, 1, 2, 3, 4, 6]], test_labels=data.labels[[0, 1, 2, 3, 4, 6]])
    refused(lambda: split(with_test), "class 'c0' has 6 images, of which 1 can be used",
            "training and validation need one each, 2 together")
    whole = replace(data, test_images=data.images[:6], test_labels=data.labels[:6], validation=np.array([6]))
    refused(lambda: split(whole), "class 'c0' has 6 images outside its validation images, of which 0 can be used",
            "but training needs one;")
    own = replace(data, validation=np.arange(5))
    refused(lambda: split(own), "class 'c0' has 1 image outside its validation images, but training and test need one")
    both = replace(data, test_images=data.images[:3], test_labels=data.labels[:3], validation=np.arange(2))
    refused(lambda: split(both), "every validation image is also a test image")


def test_validation_takes_no_more_than_it_needs():
    """A tenth of the images, at most 1,000, or 20 a class where that is more."""
    images = np.arange(30_000, dtype="<u4").view(np.uint8).reshape(30_000, 2, 2, 1)
    for classes, expected in ((10, 1000), (150, 3000), (40, 1000)):
        labels = (np.arange(30_000) % classes).astype(np.int32)
        tests = {"test_images": images[:classes] + 200, "test_labels": labels[:classes]}
        parts = split(Dataset("many", images, labels, [str(c) for c in range(classes)], **tests), 0)
        assert len(parts.validation) == expected and len(parts.train) > 26_900
