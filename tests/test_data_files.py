"""Data sets in files: .npz and IDX, their names, and every way in which a file can lie."""

import gzip
import io
import os
import tracemalloc
import zipfile

import numpy as np
import pytest
from data_helpers import IDX_TYPES, idx, images, labels, refused, write_idx
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.data import DataError, load
from pellucid.data.idx import read_idx

# .npz files.

@pytest.mark.parametrize("names", [
    "images labels", "x y", "X y", "x_train y_train", "x_train y_train x_test y_test", "x y X_test y_test",
    "train_images train_labels test_images test_labels", "images labels test_images test_labels",
])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz(tmp_path, names, save):
    path = tmp_path / "d.npz"
    arrays = [np.asfortranarray(images()), labels(), images(4, seed=2), labels(4)]
    save(path, **dict(zip(names.split(), arrays, strict=False)), note=np.array("anything else is left alone"))
    data = load(path)
    assert data.name == str(path)
    np.testing.assert_array_equal(data.images[..., 0], arrays[0])
    assert data.labels.tolist() == labels().tolist()
    if "test" in names:
        np.testing.assert_array_equal(data.test_images[..., 0], arrays[2])
        assert data.test_labels.tolist() == labels(4).tolist()
    assert data.has_test == ("test" in names)


def test_npz_with_class_names(tmp_path):
    np.savez(tmp_path / "D.NPZ.npz", images=images(), labels=labels(), classes=np.array(["ä", "b", "c"]))
    assert load(str(tmp_path / "D.NPZ.npz")).classes == ["ä", "b", "c"]


@pytest.mark.parametrize("arrays, texts", [
    ({}, ["no array", "images/labels"]),
    ({"a": images(), "b": labels()}, ["'a', 'b'", "x_train/y_train"]),
    ({"images": images()}, ["'images'", "expected exactly one"]),
    ({"images": images(), "labels": labels(), "x": images(), "y": labels()}, ["exactly one of"]),
    ({"x": images(), "y": labels(), "x_test": images()}, ["'x_test'", "one pair"]),
    ({"x": images(), "y": labels(), "x_test": images(), "X_test": images(), "y_test": labels()}, ["one pair"]),
    ({"x": images().astype(object), "y": labels()}, ["x holds Python objects", "never unpickled"]),
    ({"x": images(), "y": labels().astype("M8[s]")}, ["y has the type datetime64"]),
    ({"x": images().view([("r", "u1")]), "y": labels()}, ["x has the type"]),
    ({"x": images()[:0], "y": labels()[:0]}, ["x is empty", "(0, 5, 4)"]),
    ({"x": images(), "y": labels(11)}, [": x are 12", ": y are 11"]),
    ({"x": images() / np.nan, "y": labels()}, [": x hold 240 pixels", "image 0, row 0"]),
    ({"x": images(), "y": np.array([0, 1, 2, 9] * 3)}, ["none is 3"]),
    ({"x": images(), "y": labels(), "classes": np.arange(3)}, ["classes must be texts"]),
    ({"x": images(), "y": labels(), "classes": np.array(["a", "", "c"])}, ["empty text"]),
])
def test_npz_refused(tmp_path, arrays, texts):
    path = tmp_path / "d.npz"
    with np.errstate(divide="ignore", invalid="ignore"):
        np.savez(path, **arrays)
    assert refused(lambda: load(path), *texts).startswith(str(path))


def npy(header, data=b"", version=b"\1\0"):
    text = header.encode() + b"\n"
    return b"\x93NUMPY" + version + len(text).to_bytes(2, "little") + text + data


def header_of(shape, descr="|u1"):
    return f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}"


@pytest.mark.parametrize("member, texts", [
    (b"", ["x: not a readable array"]),
    (b"\x93NUMPY\1\0\xff\xff{}", ["x: not a readable array"]),
    (npy("no header"), ["not a readable array"]),
    (npy("(" * 5000), ["not a readable array"]),
    (npy(header_of((2, 2, 2)), bytes(8), b"\7\0"), ["version (7, 0)"]),
    (npy(header_of((10**6, 10**6, 10**6)), bytes(8)), ["damaged"]),
    (npy(header_of((-2, -2, 2)), bytes(8)), ["(-2, -2, 2)"]),
    (npy(header_of((0, 2**62, 2**62))), ["is empty"]),
    (npy(header_of((2**62, 1, 1), "<U0")), ["is empty"]),
    (npy(header_of((2, 2, 2)), bytes(7)), ["takes 8 bytes", "holds 7"]),
    (npy(header_of((2, 2, 2)), bytes(9)), ["takes 8 bytes", "holds 9"]),
    (npy(header_of((True, 2, 2)), bytes(4)), ["x "]),
    (npy(header_of((2, 2, 2), "|O"), bytes(64)), ["never unpickled"]),
    (npy(header_of((2, 2, 2), "|V1"), bytes(8)), ["has the type"]),
])
def test_npz_arrays_that_lie(tmp_path, member, texts):
    path = tmp_path / "d.npz"
    y = io.BytesIO()
    np.save(y, labels())
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", member)
        archive.writestr("y.npy", y.getvalue())
    assert refused(lambda: load(path), *texts).startswith(str(path))


def test_npz_that_is_no_npz(tmp_path):
    path = tmp_path / "d.npz"
    for content in (b"", b"not a zip", b"PK\5\6" + bytes(18) + b"x", b"PK\3\4" + bytes(60)):
        path.write_bytes(content)
        refused(lambda: load(path), str(path))
    refused(lambda: load(tmp_path / "none.npz"), "no such file")
    os.mkfifo(tmp_path / "pipe.npz")
    refused(lambda: load(tmp_path / "pipe.npz"), "it is a pipe")
    (tmp_path / "folder.npz").mkdir()
    refused(lambda: load(tmp_path / "folder.npz"), "it is a folder")


def test_npz_with_a_name_twice(tmp_path):
    np.savez(tmp_path / "d.npz", x=images(), y=labels())
    with zipfile.ZipFile(tmp_path / "d.npz", "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("x.npy", b"")
    refused(lambda: load(tmp_path / "d.npz"), "two arrays called 'x.npy'")


def test_npz_that_claims_too_much(tmp_path):
    """Header and directory agree on 100 MB, but the few compressed bytes cannot hold them: nothing is allocated."""
    path = tmp_path / "d.npz"
    member = npy(header_of((1000, 1000, 100)), bytes(10))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", member)
        archive.writestr("y.npy", member)
    content = bytearray(path.read_bytes())
    place = content.find(b"PK\1\2") + 24  # the uncompressed size in the zip's directory
    assert int.from_bytes(content[place:place + 4], "little") == len(member)
    content[place:place + 4] = (len(member) - 10 + 10**8).to_bytes(4, "little")
    path.write_bytes(content)
    tracemalloc.start()
    try:
        refused(lambda: load(path), "x claims 100,0", "compressed bytes can hold")
        assert tracemalloc.get_traced_memory()[1] < 10**7
    finally:
        tracemalloc.stop()


def test_npz_damage_is_noticed(tmp_path):
    path = tmp_path / "d.npz"
    np.savez(path, x=images(), y=labels())
    content = bytearray(path.read_bytes())
    place = content.find(images().tobytes())
    content[place + 17] ^= 4
    path.write_bytes(content)
    refused(lambda: load(path), "not a sound .npz file", "CRC")


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_npz_mutated(tmp_path_factory, data):
    buffer = io.BytesIO()
    np.savez_compressed(buffer, x=images(), y=labels())
    content = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "mutated.npz"
    path.write_bytes(content[:data.draw(st.integers(0, len(content)) | st.just(len(content)))])
    try:
        found = load(path)
    except DataError:
        return
    np.testing.assert_array_equal(found.images[..., 0], images())
    np.testing.assert_array_equal(found.labels, labels())


# IDX files.

@pytest.mark.parametrize("dot", "-.")
@pytest.mark.parametrize("gz", [False, True])
@pytest.mark.parametrize("test", [False, True])
def test_idx_folder(tmp_path, dot, gz, test):
    data = load(write_idx(tmp_path / "d", test, dot, gz))
    np.testing.assert_array_equal(data.images[..., 0], images())
    assert data.labels.tolist() == labels().tolist() and data.classes == ["0", "1", "2"]
    assert data.has_test == test
    if test:
        np.testing.assert_array_equal(data.test_images[..., 0], images(6, seed=1))
        assert data.test_labels.tolist() == labels(6).tolist()


def test_idx_prefix(tmp_path):
    write_idx(tmp_path, prefix="emnist-letters-", test_name="test")
    for spec in ("emnist-letters", "emnist-letters-", "emnist-letters-train-images-idx3-ubyte.gz"):
        assert load(tmp_path / spec).has_test
    refused(lambda: load(tmp_path / "emnist-digits"), "no such file")


@pytest.mark.parametrize("dtype", IDX_TYPES)
def test_idx_types(tmp_path, dtype):
    array = np.arange(-12, 12).reshape(2, 3, 4).astype(dtype) if dtype != "uint8" else images(2)
    (tmp_path / "a").write_bytes(idx(array))
    found = read_idx(tmp_path / "a")
    assert found.dtype == np.dtype(dtype) and found.dtype.isnative
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize("missing", ["train-images", "train-labels", "t10k-images", "t10k-labels"])
def test_idx_file_missing(tmp_path, missing):
    folder = write_idx(tmp_path)
    next(folder.glob(f"{missing}*")).unlink()
    refused(lambda: load(folder), missing, "missing beside")


def test_idx_swapped(tmp_path):
    folder = write_idx(tmp_path, gz=False)
    (folder / "train-labels-idx1-ubyte").write_bytes(idx(images()))
    refused(lambda: load(folder), "train-labels-idx1-ubyte", "3 dimensions, expected 1", "mixed up")
    (folder / "train-labels-idx1-ubyte").write_bytes(idx(labels(11).astype(np.uint8)))
    refused(lambda: load(folder), "train-images-idx3-ubyte are 12", "train-labels-idx1-ubyte are 11")


@pytest.mark.parametrize("gz", [False, True])
@pytest.mark.parametrize("content, texts", [
    (b"", ["truncated"]),
    (b"\0\0\x08", ["truncated"]),
    (b"\0\0\x08\3\0\0\0", ["truncated"]),
    (b"\0\1\x08\3" + bytes(20), ["not an IDX file", "00 01 08 03"]),
    (b"\0\0\x0a\3" + bytes(20), ["not an IDX file"]),
    (b"\0\0\x08\0" + bytes(20), ["0 dimensions"]),
    (b"\0\0\x08\xff" + bytes(20), ["255 dimensions"]),
    (b"\0\0\x08\3" + b"\xff" * 12 + bytes(20), ["bytes"]),
    (b"\0\0\x08\3" + bytes(4) + b"\xff" * 8, ["is empty"]),
    (idx(images())[:-1], ["truncated"]),
    (idx(images()) + b"\0", ["damaged"]),
])
def test_idx_files_that_lie(tmp_path, content, texts, gz):
    path = tmp_path / "a"
    path.write_bytes(gzip.compress(content) if gz else content)
    tracemalloc.start()
    try:
        assert refused(lambda: read_idx(path), *texts).startswith(str(path))
        assert tracemalloc.get_traced_memory()[1] < 10**7
    finally:
        tracemalloc.stop()


def test_idx_gzip_that_claims_too_much(tmp_path):
    head = b"\0\0\x08\3" + b"".join(n.to_bytes(4, "big") for n in (1000, 1000, 100))
    (tmp_path / "a").write_bytes(gzip.compress(head + bytes(10)))
    tracemalloc.start()
    try:
        refused(lambda: read_idx(tmp_path / "a"), "claims 100,000,016 bytes", "truncated or damaged")
        assert tracemalloc.get_traced_memory()[1] < 10**7
    finally:
        tracemalloc.stop()


def test_idx_gzip_damaged(tmp_path):
    path, content = tmp_path / "a.gz", gzip.compress(idx(images()))
    for damaged in (content[:-9], content[:5], content[:-8] + bytes(8), content[:40] + b"\xff" * 8 + content[48:]):
        path.write_bytes(damaged)
        assert refused(lambda: read_idx(path)).startswith(str(path))
    refused(lambda: read_idx(tmp_path / "none"), "no such file")
    os.mkfifo(tmp_path / "pipe")
    refused(lambda: read_idx(tmp_path / "pipe"), "it is a pipe")


@settings(max_examples=150, deadline=None)
@given(content=st.binary(max_size=40).map(lambda b: b"\0\0" + b) | st.binary(max_size=40))
def test_idx_of_any_bytes(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(content)
    try:
        array = read_idx(path)
    except DataError as e:
        assert str(e).startswith(str(path))
        return
    assert idx(array) == content
