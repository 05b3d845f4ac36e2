"""Equal images and images that look alike."""

import io
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from photos_data import photos
from PIL import Image, ImageEnhance

from pellucid.data import duplicates, load


def groups(numbers):
    """The groups of more than one, as lists of places."""
    return [np.flatnonzero(numbers == n).tolist() for n in np.unique(numbers) if (numbers == n).sum() > 1]


# Equal images.

@settings(max_examples=80, deadline=None)
@given(size=st.tuples(st.integers(1, 9), st.integers(1, 70), st.integers(1, 4)), count=st.integers(1, 40),
       cut=st.integers(0, 40), kinds=st.integers(1, 12), seed=st.integers(0, 10**6),
       chunk=st.sampled_from([1, 500, 2**24]))
def test_exact_groups_are_those_of_equal_pixels(size, count, cut, kinds, seed, chunk):
    rng = np.random.default_rng(seed)
    pool = np.zeros((kinds, *size), np.uint8)
    pool.reshape(kinds, -1)[np.arange(kinds), rng.integers(0, pool[0].size, kinds)] = rng.integers(0, 3, kinds)
    images = pool[rng.integers(0, kinds, count)]
    with patch.object(duplicates, "CHUNK", chunk):
        found = duplicates.exact(images[:cut], images[cut:])
    flat = [image.tobytes() for image in images]
    assert found.tolist() == [flat.index(image) for image in flat]
    assert found.dtype == np.int64


def test_images_with_the_same_middle_are_told_apart():
    images = np.zeros((4, 9, 9, 1), np.uint8)
    images[1, 0, 0] = images[2, 0, 0] = 1
    images[3, 8, 8] = 1
    assert duplicates.exact(images).tolist() == [0, 1, 1, 3]


def test_images_of_any_memory_layout(tmp_path):
    images = photos(12, (9, 7, 3))
    images[7] = images[2]
    np.save(tmp_path / "images.npy", images)
    before = (tmp_path / "images.npy").read_bytes()
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    expected = [*range(7), 2, *range(8, 12)]
    for array in (images, mapped, images[:, ::-1, ::-1], images.transpose(0, 2, 1, 3), images[..., :1]):
        assert duplicates.exact(array).tolist() == expected
        assert duplicates.near(array).tolist() == expected
    assert (tmp_path / "images.npy").read_bytes() == before


# Images that look alike.

def saved(quality):
    def save(image):
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        return Image.open(file)
    return save


CHANGES = {
    "saved as JPEG": saved(90),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.1),
    "less contrast": lambda image: ImageEnhance.Contrast(image).enhance(0.6),
    "scaled": lambda image: image.resize((24, 20)).resize(image.size),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("size", [(32, 32, 3), (45, 61, 3), (40, 28, 1)])
def test_what_is_saved_again_looks_alike(change, size):
    images = photos(120, size)
    changed = np.stack([np.asarray(CHANGES[change](Image.fromarray(image.squeeze()))) for image in images])
    changed = changed.reshape(images.shape)
    changed = changed[(changed != images).any(axis=(1, 2, 3))]
    assert len(changed) == 120
    found = duplicates.near(images, changed)
    assert found[:120].tolist() == list(range(120))  # no two of the originals
    assert np.mean(found[120:] == np.arange(120)) >= 0.85


@pytest.mark.parametrize("change", [
    lambda images: images[:, :, ::-1], lambda images: images[:, ::-1], lambda images: 255 - images,
    lambda images: np.roll(images, 8, axis=1), lambda images: images[..., [1, 2, 0]],
])
def test_what_shows_something_else_does_not(change):
    images = photos(120, (32, 32, 3))
    assert groups(duplicates.near(images, np.ascontiguousarray(change(images)))) == []


def test_equal_images_and_their_likes_are_one_group():
    images = photos(20, (32, 32, 3))
    images[5] = images[3]
    images[9] = np.asarray(saved(90)(Image.fromarray(images[5])))
    assert groups(duplicates.exact(images)) == [[3, 5]]
    assert groups(duplicates.near(images)) == [[3, 5, 9]]


def test_images_with_little_on_them_are_not_alike_for_that():
    """They have nearly the same hash, which is why their pixels are compared."""
    rng = np.random.default_rng(0)
    plain = np.broadcast_to(np.arange(0, 200, 2, np.uint8)[:, None, None, None], (100, 28, 28, 1))
    dusty = np.zeros((400, 28, 28, 1), np.uint8)
    where = rng.permutation(26 * 26)[:400]
    dusty[np.arange(400), 1 + where // 26, 1 + where % 26] = 255
    noisy = rng.integers(126, 130, (200, 28, 28, 1), np.uint8)
    found = duplicates.near(plain, dusty, noisy)
    assert not [g for g in groups(found) if min(g) < 100 or max(g) >= 500]
    assert len(groups(found)) < 20  # specks that are neighbours, and one pixel when shrunk


def test_small_images_of_one_kind_are_rarely_alike():
    data = load("digits")
    found = groups(duplicates.near(data.images))
    assert 0 < len(found) < 20  # of 1,797
    assert all(len(set(data.labels[g])) == 1 and len(g) < 4 for g in found)


def test_a_crowd_is_one_group_in_bounded_time(monkeypatch):
    rng = np.random.default_rng(0)
    scene = photos(1, (32, 32, 1)).astype(int)
    crowd = np.clip(scene + rng.integers(-3, 4, (600, 32, 32, 1)), 0, 255).astype(np.uint8)
    others = photos(200, (32, 32, 1), seed=1)
    monkeypatch.setattr(duplicates, "CROWD", 4)
    pairs = []
    alike = duplicates._alike
    monkeypatch.setattr(duplicates, "_alike", lambda hashes: (pairs.append(len(p)) or p for p in alike(hashes)))
    found = duplicates.near(crowd, others)
    assert (found[:600] == 0).all() and found[600:].tolist() == list(range(600, 800))
    assert 600 <= sum(pairs) <= 8 * 4 * 800


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), flips=st.lists(st.integers(0, 63), min_size=1, max_size=3, unique=True))
def test_hashes_of_at_most_three_different_bits_are_all_found(seed, flips):
    hashes = np.random.default_rng(seed).integers(0, 2**64, 200, np.uint64)
    changed = hashes ^ np.uint64(sum(1 << flip for flip in flips))
    both = np.concatenate([hashes, changed])
    found = {tuple(sorted(pair)) for pairs in duplicates._alike(both) for pair in pairs.tolist()}
    assert {(i, i + 200) for i in range(200)} <= found
    assert all((int(both[a]) ^ int(both[b])).bit_count() <= duplicates.BITS for a, b in found)


def test_progress():
    calls = []
    images = photos(600, (8, 8, 1))
    images[599] = images[0]
    duplicates.near(images, progress=lambda *call: calls.append(call))
    assert calls == [(256, 599), (512, 599), (599, 599)]  # equal images are hashed once
