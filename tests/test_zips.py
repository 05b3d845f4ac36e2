"""Zips of pictures: read in place, whatever they claim."""

import struct
import zipfile

import numpy as np
import pytest
from data_helpers import (
    classes,
    encoded,
    pixels,
    refused,
    tree,
    write_folder,
    write_zip,
)
from test_folders import summary

from pellucid.data import load, zips

pytestmark = pytest.mark.usefixtures("own_cache")


def test_hostile_names_in_zips(tmp_path):
    bad = ["../ant/x.png", "/ant/y.png", "ant/../../z.png", "C:/ant/w.png", "..\\ant\\v.png"]
    files = {**tree(*classes()), **dict.fromkeys(bad, encoded(pixels(8, 8, 3)))}
    data = load(write_zip(tmp_path / "a.zip", files))
    assert len(data.images) == 4 and [file for file, _ in data.left_out] == sorted(bad)
    assert all("leads out of the zip" in why for _, why in data.left_out)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.zip"]


def test_other_programs_names_in_zips(tmp_path):
    files = {f".\\train\\{path}".replace("/", "\\"): data for path, data in tree(*classes()).items()}
    assert load(write_zip(tmp_path / "a.zip", files)).classes == ["ant", "bee"]
    files = {f"./{path}": data for path, data in tree(*classes("train", "test")).items()}
    assert load(write_zip(tmp_path / "b.zip", files)).has_test


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_stored_and_deflated_zips(tmp_path, method):
    files = tree(*classes())
    data = load(write_zip(tmp_path / "a.zip", files, method))
    assert [encoded(image) for image in data.images] == list(files.values())


def test_zips_packed_otherwise(tmp_path):
    path = write_zip(tmp_path / "a.zip", tree(*classes()), zipfile.ZIP_LZMA)
    refused(lambda: load(path), "packed by method 14", "zip it again")


def test_a_zip_behind_something_else(tmp_path):
    path = write_zip(tmp_path / "a.zip", tree(*classes()))
    path.write_bytes(b"#!/bin/sh\n" * 99 + path.read_bytes())
    assert len(load(path).images) == 4


def patched(path, old, new, where=slice(None)):
    data = bytearray(path.read_bytes())
    part = data[where]
    assert old in part
    data[where] = part.replace(old, new)
    path.write_bytes(data)
    return path


def directory(path, change):
    """Rewrite each record of a zip's directory by `change`, given it as a bytearray."""
    data = bytearray(path.read_bytes())
    at = -1
    while (at := data.find(b"PK\1\2", at + 1)) >= 0:
        record = data[at:at + 46]
        change(record)
        data[at:at + 46] = record
    path.write_bytes(data)
    return path


def test_encrypted_zips(tmp_path):
    def encrypt(record):
        record[8] |= 1

    path = directory(write_zip(tmp_path / "a.zip", tree(*classes())), encrypt)
    refused(lambda: load(path), "encrypted", "unpack it with its password")


@pytest.mark.parametrize("size", [2**31, 2**28 + 1])
def test_bombs_in_zips(tmp_path, size):
    def claim(record):
        record[24:28] = struct.pack("<I", size)

    path = directory(write_zip(tmp_path / "a.zip", tree(*classes())), claim)
    refused(lambda: load(path), f"claims {size:,} bytes")


def test_a_file_in_a_zip_gives_no_more_than_it_claims(tmp_path):
    path = tmp_path / "a.zip"
    files = {**tree(*classes()), "ant/bomb.png": files_of_zeros(2**26)}
    write_zip(path, files)
    with zipfile.ZipFile(path) as archive:
        real = archive.getinfo("ant/bomb.png").file_size
    patched(path, struct.pack("<I", real), struct.pack("<I", 1000))
    member = dict(zips.members(path))["ant/bomb.png"]
    assert member.size == 1000
    with open(path, "rb") as file, pytest.raises(ValueError, match="size or checksum"):
        zips.read(file, member)
    assert [file for file, _ in load(path).left_out] == ["ant/bomb.png"]


def files_of_zeros(size):
    return encoded(pixels(8, 8, 3)) + bytes(size)


@pytest.mark.parametrize("damage", ["content", "header", "offset"])
def test_damaged_files_in_zips(tmp_path, damage):
    files = {**tree(*classes()), "ant/zz.png": encoded(pixels(8, 8, 3, seed=99))}
    path = write_zip(tmp_path / "a.zip", files, zipfile.ZIP_STORED)
    if damage == "content":
        patched(path, files["ant/zz.png"][40:60], bytes(20))
    elif damage == "header":
        at = path.read_bytes().index(b"ant/zz.png") - 30
        patched(path, b"PK\3\4", b"PK\0\0", slice(at, at + 4))
    else:
        def move(record):
            if record[42:46] == struct.pack("<I", offset):
                record[42:46] = struct.pack("<I", 2**31)

        offset = path.read_bytes().index(b"ant/zz.png") - 30
        directory(path, move)
    data = load(path)
    assert len(data.images) == 4 and len(data.left_out) == 1
    assert data.left_out[0][0] == "ant/zz.png" and "damaged" in data.left_out[0][1]


@pytest.mark.parametrize("content", [b"", b"PK", b"x" * 9999, "cut"])
def test_what_is_no_zip(tmp_path, content):
    path = write_zip(tmp_path / "a.zip", tree(*classes()))
    path.write_bytes(path.read_bytes()[:-30] if content == "cut" else content)
    refused(lambda: load(path), str(path), "not a zip file, or one that is cut off")


def test_a_directory_that_lies(tmp_path):
    path = write_zip(tmp_path / "a.zip", tree(*classes()))
    data = path.read_bytes()
    path.write_bytes(data[:-10] + struct.pack("<I", 2**30) + data[-6:])
    refused(lambda: load(path), "its directory is 1,073,741,824 bytes long")
    path.write_bytes(data[:-10] + struct.pack("<I", 5) + data[-6:])
    refused(lambda: load(path), "not a sound zip file")


def test_a_name_twice_in_a_zip(tmp_path):
    files = tree(*classes())
    path = write_zip(tmp_path / "a.zip", files)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("ant/0.png", encoded(pixels(8, 8, 3, seed=77)))
    data = load(path)
    assert encoded(data.images[0]) == files["ant/0.png"] and "twice" in data.left_out[0][1]


def test_a_zip_and_its_folder_hold_the_same(tmp_path):
    files = tree(*classes("train", "val", "test"))
    data = [load(write_folder(tmp_path / "a", files)), load(write_zip(tmp_path / "a.zip", files))]
    assert data[0].digest == data[1].digest and summary(data[0]) == summary(data[1])
    np.testing.assert_array_equal(data[0].images, data[1].images)
    other = load(write_zip(tmp_path / "b.zip", tree(*classes("train", "test", "val"))))
    assert other.digest != data[0].digest
