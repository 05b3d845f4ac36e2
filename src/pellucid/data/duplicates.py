"""Images that are the same, pixel by pixel, and images that look the same.

Both are given as groups: a number an image, the place of the first image of its group, so that an image that stands
alone is its own group. Several arrays count as one, the first image of the second after the last of the first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterable, Iterator
from math import prod

import numpy as np

CHUNK = 2**24  # bytes of images looked at together: data may be a file larger than memory
SAMPLE = 64  # bytes of an image by which most are told apart

SIDES = 16, 32  # pixels a side of what is compared, first small and then larger; the larger is hashed too
BITS = 6  # of the 64 bits of a perceptual hash, how many may differ
CORRELATION = 0.985  # of the pixels of images that look alike, at least
CROWD = 256  # images of like hash that one is compared with, so that time grows with the number of images only
FLAT = 1.0  # standard deviation, of 255, below which an image is too plain to be like another
PAIRS = 4096  # pairs of images that are compared together


def exact(*arrays: np.ndarray) -> np.ndarray:
    """The groups of equal images in uint8 arrays (N, H, W, C) of one (H, W, C), as int64 (N,).

    Images are equal where all pixels are, by a 128-bit BLAKE2b digest. Only those whose middle is not their own are
    read in full.
    """
    places = np.arange(sum(map(len, arrays)))
    groups = _firsts(sample.tobytes() for chunk in chunks([_samples(a) for a in arrays], places) for sample in chunk)
    shared = places[np.bincount(groups, minlength=len(places))[groups] > 1]
    digests = (hashlib.blake2b(image.data, digest_size=16).digest() for chunk in chunks(arrays, shared)
               for image in chunk)
    groups[shared] = shared[_firsts(digests)]
    return groups


def digests(images: np.ndarray) -> np.ndarray:
    """A 64-bit BLAKE2b digest of each image's pixels, uint64 (N,), of uint8 images (N, H, W, C) or `Rows` of them.

    Enough to know images again: among a million and a million others, two unlike ones are taken for equal less than
    once in ten million times.
    """
    found = b"".join(hashlib.blake2b(image.data, digest_size=8).digest()
                     for chunk in chunks([images], np.arange(len(images))) for image in chunk)
    return np.frombuffer(found, "<u8")


def near(*arrays: np.ndarray, progress: Callable[[int, int], None] | None = None) -> np.ndarray:
    """The groups of images that are equal or look alike, in uint8 arrays (N, H, W, C), as int64 (N,).

    Two images look alike where
    - their perceptual hashes (`imagehash.phash`, 64 bits of the lowest frequencies) differ in at most `BITS` bits, and
    - their pixels, less the mean of each channel, have a correlation of at least `CORRELATION`, shrunk to at most 16
      pixels a side in all channels, and to at most 32 in grey (JPEG keeps colours coarsely). So brightness and contrast
      do not count, and images that have nothing in common but an empty background are not alike.

    A group is what a chain of such pairs links. Pairs are looked for among images that share 16 neighbouring bits of
    the hash, as all do that differ in at most 3 (the pigeonhole principle; Norouzi, Punjani and Fleet, "Fast search in
    Hamming space with multi-index hashing", 2012). Where many do, each is compared with the next `CROWD` only.
    `progress` is called with how many of how many images have been hashed.
    """
    groups = exact(*arrays)
    places = np.unique(groups)
    thumbnails, hashes = _describe(arrays, places, progress)
    lively = _centred(thumbnails).std(axis=1) >= FLAT
    places, thumbnails, hashes = places[lively], thumbnails[lively], hashes[lively]
    linked = np.arange(len(places))
    for pairs in _alike(hashes):
        for i in range(0, len(pairs), PAIRS):
            some = pairs[i:i + PAIRS]
            some = some[linked[some[:, 0]] != linked[some[:, 1]]]
            some = some[_correlation(thumbnails, some) >= CORRELATION]
            if len(some):  # few, so they are read again rather than all kept at this size
                ends, at = np.unique(some, return_inverse=True)
                greys = np.concatenate([_grey(_shrunk(chunk, SIDES[1])) for chunk in chunks(arrays, places[ends])])
                some = some[_correlation(greys, at.reshape(some.shape)) >= CORRELATION]
                linked = _link(linked, some)
    first = np.arange(len(groups))
    first[places] = places[_firsts(linked.tolist())]
    return first[groups]


def _firsts(keys: Iterable[Hashable]) -> np.ndarray:
    """For each key the place where it stands first."""
    seen: dict[Hashable, int] = {}
    return np.array([seen.setdefault(key, place) for place, key in enumerate(keys)], np.int64)


def _samples(images: np.ndarray) -> np.ndarray:
    """From every image some bytes in the middle, as a view."""
    row = images[:, images.shape[1] // 2]
    width = max(SAMPLE // images.shape[3], 1)
    start = max((row.shape[1] - width) // 2, 0)
    return row[:, start:start + width]


def chunks(arrays: Iterable[np.ndarray], places: np.ndarray) -> Iterator[np.ndarray]:
    """The images at ascending `places`, some at a time, as ordinary arrays of at most about `CHUNK` bytes."""
    first = 0
    for array in arrays:
        own = places[(places >= first) & (places < first + len(array))] - first
        step = max(CHUNK // prod(array.shape[1:]), 1)
        for i in range(0, len(own), step):
            chosen = own[i:i + step]
            run = slice(chosen[0], chosen[-1] + 1)  # a slice of a file is read in one go
            yield np.ascontiguousarray(array[run] if len(chosen) == chosen[-1] + 1 - chosen[0] else array[chosen])
        first += len(array)


def _describe(
    arrays: Iterable[np.ndarray], places: np.ndarray, progress: Callable[[int, int], None] | None
) -> tuple[np.ndarray, np.ndarray]:
    """Of the images at `places`: themselves at the smaller of `SIDES`, and their perceptual hashes, uint64 (n,)."""
    import imagehash
    from PIL import Image

    thumbnails, hashes = [], []
    for chunk in chunks(arrays, places):
        for i in range(0, len(chunk), 256):
            images = _shrunk(chunk[i:i + 256], SIDES[1])
            thumbnails.append(_shrunk(images, SIDES[0]))
            hashes += [imagehash.phash(Image.fromarray(grey)).hash for grey in _grey(images)[..., 0]]
            if progress is not None:
                progress(len(hashes), len(places))
    return np.concatenate(thumbnails), np.packbits(np.array(hashes).reshape(-1, 64), axis=1).view(np.uint64).ravel()


def _shrunk(images: np.ndarray, side: int) -> np.ndarray:
    """uint8 images of at most `side` rows and columns: means over areas that differ by at most a pixel in size."""
    for axis in (1, 2):
        size = images.shape[axis]
        if size > side:
            bounds = np.arange(side + 1) * size // side
            areas = np.diff(bounds).reshape([-1 if a == axis else 1 for a in range(4)])
            images = np.add.reduceat(images, bounds[:-1], axis=axis, dtype=np.float32) / areas
    return images if images.dtype == np.uint8 else np.rint(images).astype(np.uint8)


def _grey(images: np.ndarray) -> np.ndarray:
    """uint8 (n, H, W, 1): the mean of the channels."""
    return np.rint(images.mean(axis=3, dtype=np.float32, keepdims=True)).astype(np.uint8)


def _alike(hashes: np.ndarray) -> Iterator[np.ndarray]:
    """Pairs of places (n, 2), some at a time, of 64-bit hashes that differ in at most `BITS` bits."""
    for turn in range(0, 64, 8):
        turned = hashes << np.uint64(turn) | hashes >> np.uint64(-turn % 64)
        order = np.argsort(turned)
        key = turned[order] >> np.uint64(48)
        at = np.arange(len(order))
        for step in range(1, CROWD + 1):
            at = at[at + step < len(order)]
            at = at[key[at] == key[at + step]]
            if not len(at):
                break
            pairs = np.stack((order[at], order[at + step]), axis=1)
            yield pairs[_count_bits(hashes[pairs[:, 0]] ^ hashes[pairs[:, 1]]) <= BITS]


def _count_bits(values: np.ndarray) -> np.ndarray:
    """How many bits of each uint64 are set: added up in pairs, in fours, in bytes, over all bytes."""
    ones, twos, fours, bytes_ = (np.uint64(int(digits * 8, 16)) for digits in ("55", "33", "0f", "01"))
    values = values - (values >> np.uint64(1) & ones)
    values = (values & twos) + (values >> np.uint64(2) & twos)
    return (values + (values >> np.uint64(4)) & fours) * bytes_ >> np.uint64(56)


def _centred(images: np.ndarray) -> np.ndarray:
    """Pixels less the mean of their channel, float32 (n, values)."""
    centred = images - images.mean(axis=(1, 2), dtype=np.float32, keepdims=True)
    return centred.reshape(len(images), prod(images.shape[1:]))


def _correlation(images: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Of the pixels of each pair of images, none of which is plain."""
    x, y = (_centred(images[places]) for places in pairs.T)
    return (x * y).sum(axis=1) / np.sqrt((x * x).sum(axis=1) * (y * y).sum(axis=1))


def _link(linked: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Numbers of groups, where the groups of each pair of places become one."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    count = int(linked.max()) + 1
    graph = coo_array((np.ones(len(pairs), bool), tuple(linked[pairs].T)), shape=(count, count))
    return connected_components(graph, directed=False)[1][linked]
