"""Images in: the rules for pixels and labels, the names of data sets, and the split."""

import gzip
import os

import numpy as np
import pytest
from data_helpers import idx, images, labels, refused, write_idx
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.data import Dataset, load, split, to_dataset
from pellucid.data.arrays import require_memory

# Arrays: the rules for pixels and labels.

def test_uint8_pixels_are_taken_as_they_are():
    x = images()
    data = to_dataset("d", x, labels())
    assert data.images.dtype == np.uint8 and data.images.shape == (12, 5, 4, 1)
    np.testing.assert_array_equal(data.images[..., 0], x)
    assert data.labels.dtype == np.int32 and data.labels.tolist() == labels().tolist()
    assert data.classes == ["0", "1", "2"] and not data.has_test and data.input_shape == (5, 4, 1)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_channels_come_last(channels):
    x = images(size=(5, 4, channels))
    np.testing.assert_array_equal(to_dataset("d", x, labels()).images, x)


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.uint32, np.int64, ">i2"])
def test_integer_pixels(dtype):
    x = images() // 2
    np.testing.assert_array_equal(to_dataset("d", x.astype(dtype), labels()).images[..., 0], x)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, ">f4"])
def test_fractions_are_scaled_and_rounded(dtype):
    x = images()
    np.testing.assert_array_equal(to_dataset("d", (x / 255).astype(dtype), labels()).images[..., 0], x)
    halves = np.resize([0.5, 0, 1, 0.25], x.shape).astype(dtype)  # 127.5 -> 128, 63.75 -> 64
    assert set(np.unique(to_dataset("d", halves, labels()).images)) == {0, 64, 128, 255}


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_whole_numbers_as_floats_are_taken_as_they_are(dtype):
    x = images()
    np.testing.assert_array_equal(to_dataset("d", x.astype(dtype), labels()).images[..., 0], x)


@pytest.mark.parametrize("change, texts", [
    (lambda x: x.astype(int) - 1, ["[-1, ", "0..255"]),
    (lambda x: x.astype(int) + 1, ["256]", "0..255"]),
    (lambda x: x / 128, ["fractions must lie in [0, 1]"]),
    (lambda x: (x - 128.0) / 64, ["pixels must lie in"]),
    (lambda x: x.astype(complex), ["must be numbers", "complex128"]),
    (lambda x: x > 99, ["must be numbers", "bool"]),
    (lambda x: x.astype(object), ["must be numbers", "object"]),
    (lambda x: x.reshape(12, 20), ["(N, H, W)", "(12, 20)", "reshape"]),
    (lambda x: x[0, 0, 0], ["got ()"]),
    (lambda x: x[:0], ["empty"]),
    (lambda x: x[:, :0], ["empty"]),
    (lambda x: np.stack([x] * 5, -1), ["5 channels", "expected 1 to 4"]),
    (lambda x: np.stack([x.astype(float)] * 3, 1).repeat(2, 3), ["channels come last", "transpose(0, 2, 3, 1)"]),
    (lambda x: x[:11], ["d: images are 11 but d: labels are 12"]),
])
def test_pixels_refused(change, texts):
    x = images()
    x[0, 0, 0], x[0, 0, 1] = 0, 255
    before = x.copy()
    refused(lambda: to_dataset("d", change(x), labels()), *texts)
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_pixels_that_are_not_numbers(dtype, monkeypatch):
    monkeypatch.setattr("pellucid.data.arrays._BLOCK", 100)  # several blocks
    x = (images(size=(5, 4, 3)) / 255).astype(dtype)
    x[7, 2, 1, 2] = np.nan
    refused(lambda: to_dataset("d", x, labels()), "d: images hold 1 pixel that is NaN",
            "first (nan) in image 7, row 2, column 1, channel 2")
    x[9, 0] = -np.inf
    x[6, 4, 3, 0] = np.inf
    refused(lambda: to_dataset("d", x, labels()), "hold 14 pixels",
            "first (inf) in image 6, row 4, column 3, channel 0")
    refused(lambda: to_dataset("d", images() / 255, labels(), x[..., 0], labels()), "d: test images hold 5 pixels")


@pytest.mark.parametrize("y, texts", [
    (labels() - 1, ["hold -1", "image 0", "start at 0"]),
    (labels() + 1, ["none is 0", "renumber"]),
    (labels() * 2, ["run to 4 but none is 1"]),
    (labels() * 10**9, ["hold 2000000000", "at most 100,000"]),
    (labels().astype(float), ["must be integers", "astype(int)"]),
    (labels() > 0, ["must be integers"]),
    (labels() * 0, ["1 class", "at least 2"]),
    (np.eye(3)[labels()], ["argmax"]),
    (np.array(3), ["(N,)", "()"]),
    (labels()[:, None, None], ["(N,)", "(12, 1, 1)"]),
    (labels(13), ["images are 12 but d: labels are 13"]),
    (np.array(["a", " "] * 6), ["empty text", "image 1"]),
    (np.array([b"a", b"\xff"] * 6), ["UTF-8"]),
])
def test_labels_refused(y, texts):
    refused(lambda: to_dataset("d", images(), y), *texts)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint64, ">i4"])
def test_labels_of_every_integer_type(dtype):
    data = to_dataset("d", images(), labels().astype(dtype)[:, None])
    assert data.labels.tolist() == labels().tolist()


@pytest.mark.parametrize("dtype", ["U", "S"])
def test_labels_as_texts(dtype):
    y = np.array(["zebra", "ant", "mole"] * 4).astype(dtype)
    test_y = np.array(["mole", "mole"]).astype(dtype)
    data = to_dataset("d", images(), y, images(2), test_y)
    assert data.classes == ["ant", "mole", "zebra"]
    assert data.labels.tolist() == [2, 0, 1] * 4 and data.test_labels.tolist() == [1, 1]
    refused(lambda: to_dataset("d", images(), y, images(2), np.array(["mole", "newt"])), "'newt'", "no training image")
    refused(lambda: to_dataset("d", images(), y, images(2), labels(2)), "training labels are texts")
    refused(lambda: to_dataset("d", images(), y, classes=["a", "b", "c"]), "leave out")


def test_class_names():
    data = to_dataset("d", images(), labels(), classes=["a", "b", "c"])
    assert data.classes == ["a", "b", "c"]
    refused(lambda: to_dataset("d", images(), labels(), classes=["a", "b"]), "hold 2", "0 to 1")
    refused(lambda: to_dataset("d", images(), labels(), classes=["a", "b", "c", "d"]), "'d'", "no image")
    refused(lambda: to_dataset("d", images(), labels(), classes=["a", "b", "a"]), "'a'", "its own name")


def test_test_sets_must_fit():
    x, y = images(), labels()
    data = to_dataset("d", x, y, images(2, seed=3), [2, 2] * np.ones(2, int))
    assert data.has_test and data.test_images.shape == (2, 5, 4, 1) and data.test_labels.tolist() == [2, 2]
    refused(lambda: to_dataset("d", x, y, images(2), np.array([0, 3])), "test labels hold 3", "image 1")
    refused(lambda: to_dataset("d", x, y, images(2, (4, 5)), labels(2)), "(4, 5, 1)", "(5, 4, 1)")
    refused(lambda: to_dataset("d", x, y, images(2) / 255, labels(2)), "uint8", "float64", "one type")
    refused(lambda: to_dataset("d", x / 255, y, images(2) / 1.0, labels(2)), "scale both alike")
    refused(lambda: to_dataset("d", x / 1.0, y, images(2) / 255, labels(2)), "scale both alike")
    refused(lambda: to_dataset("d", x, y, images(2), None), "test labels are missing")
    refused(lambda: to_dataset("d", x, y, None, labels(2)), "test images are missing")


def test_a_dataset_checks_itself():
    x, y = images()[..., None], labels().astype(np.int32)
    for arguments in ((x / 1.0, y), (x[..., 0], y), (x, y.astype(np.int64)), (x, y[1:]), (x, y + 1), (x, y - 1),
                      (x[:0], y[:0])):
        refused(lambda a=arguments: Dataset("d", *a, ["a", "b", "c"]), "d: ")
    refused(lambda: Dataset("d", x, y, ["a", "b", "c"], test_images=x), "no labels")


def test_partial_data_may_lack_classes(tmp_path):
    np.savez(tmp_path / "some.npz", images=images(), labels=np.full(12, 3))
    write_idx(tmp_path / "idx")
    (tmp_path / "idx" / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(np.full(12, 2, np.uint8))))
    for name, count in (("some.npz", 4), ("idx", 3)):
        data = load(tmp_path / name, partial=True)
        assert data.classes == [str(i) for i in range(count)] and (data.labels == count - 1).all()
        refused(lambda name=name: load(tmp_path / name), "without a gap")


def test_labels_that_number_more_classes_than_there_can_be(tmp_path):
    for label in (10**9, 2**40):
        np.savez(tmp_path / "hostile.npz", images=images(), labels=np.array([0, 1] * 5 + [0, label]))
        for partial in (False, True):
            refused(lambda partial=partial: load(tmp_path / "hostile.npz", partial=partial), "at most 100,000 classes")


def test_memory_limit():
    require_memory(1000, "x")
    refused(lambda: require_memory(2**60, "x: its arrays"), "x: its arrays would take 1,152,921,504,606,846,976 bytes")


# Names.

def test_digits():
    data = load("digits")
    assert data.name == "digits" and data.images.shape == (1797, 8, 8, 1) and data.classes == list("0123456789")
    assert data.images[0, 0].ravel().tolist() == [0, 0, 80, 207, 143, 16, 0, 0]  # 0 0 5 13 9 1 0 0, times 255 / 16
    assert data.images.min() == 0 and data.images.max() == 255 and len(np.unique(data.images)) == 17
    assert np.bincount(data.labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


@pytest.mark.parametrize("name, folder", [
    ("mnist", "mnist"), ("mnist", "MNIST/raw"),
    ("fashion-mnist", "fashion-mnist"), ("fashion-mnist", "FashionMNIST/raw"),
])
def test_mnist_family(tmp_path, monkeypatch, name, folder):
    root = write_idx(tmp_path / folder)
    for part, n in (("train", 12), ("t10k", 6)):  # all ten classes
        (root / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx((np.arange(n) % 10).astype(np.uint8))))
    monkeypatch.setenv("PELLUCID_DATA", str(tmp_path))
    data = load(name)
    assert data.name == name and data.has_test and data.images.shape == (12, 5, 4, 1)
    assert data.classes[9] == ("9" if name == "mnist" else "Ankle boot") and len(data.classes) == 10


@pytest.mark.parametrize("variable", [True, False])
def test_mnist_not_here(tmp_path, monkeypatch, variable):
    if variable:
        monkeypatch.setenv("PELLUCID_DATA", str(tmp_path))
    else:
        monkeypatch.setenv("PELLUCID_DATA", "")
        monkeypatch.setenv("HOME", str(tmp_path))
    place = tmp_path if variable else tmp_path / ".cache" / "pellucid" / "data"
    refused(lambda: load("mnist"), f"into {place / 'mnist'},", "train-images-idx3-ubyte.gz", "PELLUCID_DATA")
    if not os.path.exists("/usr/share/datasets/fashion-mnist"):
        refused(lambda: load("fashion-mnist"), str(place / "fashion-mnist"), "Debian's package dataset-fashion-mnist")


def test_specs_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PELLUCID_CACHE", str(tmp_path / "cache"))
    for name in ("a.csv", "a.zip", "a.PNG", "a.txt"):
        (tmp_path / name).touch()
    (tmp_path / "class").mkdir()
    refused(lambda: load("a.csv"), "a.csv: its first line names")
    refused(lambda: load("a.zip"), "a.zip: not a zip file")
    refused(lambda: load("a.PNG"), "a.PNG: one picture is no data set", "a folder or zip of pictures")
    refused(lambda: load("class"), "class: holds no pictures")
    refused(lambda: load("b.zip"), "b.zip: no such file")
    refused(lambda: load("a.txt"), "not a data set that is known here")
    refused(lambda: load("digit"), "did you mean 'digits'?")
    refused(lambda: load("nowhere/at/all"), "no such file, folder or built-in", "fashion-mnist")
    for spec in ("", "a\0b", b"digits"):
        refused(lambda s=spec: load(s), "must be a name or a path")
    write_idx(tmp_path / "digits")
    assert load("./digits").has_test and not load("digits").has_test


# Splits.

def dataset(counts, own_test=False):
    y = np.repeat(np.arange(len(counts)), counts)
    y = np.random.default_rng(1).permutation(y).astype(np.int32)
    x = np.arange((len(y) + 3) * 2, dtype=np.uint32).view(np.uint8).reshape(-1, 2, 4, 1)  # each image its own
    extra = {"test_images": x[len(y):], "test_labels": y[:3]} if own_test else {}
    return Dataset("d", x[:len(y)], y, [f"c{i}" for i in range(len(counts))], **extra)


@settings(max_examples=60, deadline=None)
@given(counts=st.lists(st.integers(3, 8) | st.integers(3, 120), min_size=2, max_size=12), own_test=st.booleans(),
       seed=st.integers(0, 2**40))
def test_split(counts, own_test, seed):
    data = dataset(counts, own_test)
    parts = split(data, seed)
    assert (parts.name, parts.classes) == (data.name, data.classes)
    own = [parts.train, parts.validation] + ([] if own_test else [parts.test])
    assert sorted(np.concatenate([p.indices for p in own]).tolist()) == list(range(len(data.labels)))
    for part in own:
        np.testing.assert_array_equal(part.images, data.images[part.indices])
        np.testing.assert_array_equal(part.labels, data.labels[part.indices])
        assert set(part.labels.tolist()) == set(range(len(counts)))
        assert part.labels.dtype == np.int32 and len(part) == len(part.images)
    if own_test:
        assert parts.test.images is data.test_images and parts.test.labels is data.test_labels
    again = split(data, seed)
    np.testing.assert_array_equal(again.train.indices, parts.train.indices)
    np.testing.assert_array_equal(again.validation.indices, parts.validation.indices)
    np.testing.assert_array_equal(again.test.indices, parts.test.indices)


def test_split_sizes_are_stratified():
    data = load("digits")
    parts = split(data, seed=3)
    assert (len(parts.train), len(parts.validation), len(parts.test)) == (1212, 135, 450)
    for part, share in ((parts.test, 0.25), (parts.validation, 0.075), (parts.train, 0.675)):
        assert np.abs(np.bincount(part.labels) - share * np.bincount(data.labels)).max() < 1.5
    assert not np.array_equal(split(data, seed=4).test.indices, parts.test.indices)


@pytest.mark.parametrize("counts, own_test, texts", [
    ([5, 2, 9], False, ["class 'c1' has 2 images", "training, validation and test need one each, 3 together"]),
    ([5, 1], False, ["class 'c1' has 1 image,"]),
    ([1, 5], True, ["class 'c0' has 1 image,", "2 together", "add images or leave the class out"]),
])
def test_split_of_too_few(counts, own_test, texts):
    refused(lambda: split(dataset(counts, own_test)), *texts)


def test_split_of_just_enough():
    assert [len(p) for p in vars(split(dataset([3, 3, 3]))).values() if hasattr(p, "indices")] == [3, 3, 3]
    parts = split(dataset([2, 2], own_test=True))
    assert len(parts.train) == len(parts.validation) == 2 and len(parts.test) == 3
