"""Predicting from files, folders, patterns and zips, whatever lies in them."""

import csv
import io
import json
import os
import re
import struct
import subprocess
import sys
import warnings
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image
from shapes_data import CLASSES, pictures

import pellucid
from pellucid import prediction
from pellucid.calibration import Calibration
from pellucid.cli import main
from pellucid.layers import Dense, Flatten
from pellucid.model import Model
from pellucid.network import Network, Sequential
from pellucid.prediction import predict_files, read_image, read_images
from pellucid.preprocessing import Preprocessing


@pytest.fixture(scope="module")
def model():
    net = Network.build((8, 8, 1), Sequential(Flatten(), Dense(3)))
    return Model(net, seed=1, preprocessing=Preprocessing((8, 8, 1), (0.4,), (0.3,)), classes=CLASSES)


IMAGES = pictures(40)[0]


def encoded(i, kind="png"):
    buffer = io.BytesIO()
    Image.fromarray(IMAGES[i, ..., 0]).save(buffer, kind)
    return buffer.getvalue()


def answers(model, *paths, **options):
    found = list(predict_files(model, map(str, paths), **options))
    return [f for f in found if isinstance(f, dict)], [f for f in found if not isinstance(f, dict)]


def lay_out(folder):
    """Three pictures at three depths, and what should not count beside them."""
    for name, i in (("b.PNG", 0), ("a/x.png", 1), ("a/deep/er/y.png", 2)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(encoded(i))
    for junk in ("notes.txt", ".hidden.png", "._b.png", "Thumbs.db", "__MACOSX/b.png", ".git/z.png", "a/.DS_Store"):
        (folder / junk).parent.mkdir(parents=True, exist_ok=True)
        (folder / junk).write_bytes(encoded(3))
    return folder


def test_a_folder_is_searched_at_any_depth_and_junk_left_out(model, tmp_path):
    folder = lay_out(tmp_path / "photos")
    (folder / "a" / "round").symlink_to(folder)
    found, failed = answers(model, folder)
    assert not failed
    assert [f["path"] for f in found] == [str(folder / p) for p in ("b.PNG", "a/x.png", "a/deep/er/y.png")]
    expected = model.predict(IMAGES[:3])
    for f, p in zip(found, expected, strict=True):
        assert [f["probabilities"][c] for c in CLASSES] == [float(x) for x in p]


@pytest.mark.parametrize("pattern, expected", [
    ("photos/*.PNG", ["b.PNG"]), ("photos/a/**/?.png", ["a/deep/er/y.png", "a/x.png"]),
    ("photos/a/[x-z].png", ["a/x.png"]),
])
def test_patterns(model, tmp_path, monkeypatch, pattern, expected):
    lay_out(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    found, failed = answers(model, pattern)
    assert [f["path"] for f in found] == [f"photos/{p}" for p in expected] and not failed


def test_a_file_called_like_a_pattern_is_that_file(model, tmp_path):
    (tmp_path / "[1].png").write_bytes(encoded(0))
    (tmp_path / "1.png").write_bytes(encoded(1))
    found, failed = answers(model, tmp_path / "[1].png", tmp_path / "none*.png")
    assert [f["path"] for f in found] == [str(tmp_path / "[1].png")]
    (path, error), = failed
    assert path.endswith("none*.png") and "no file has a name like this" in str(error)


def test_a_zip_is_read_in_place(model, tmp_path):
    path = tmp_path / "photos.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.mkdir("photos")
        for name, i in (("photos/a.png", 0), ("photos/deep/b.bmp", 1)):
            archive.writestr(name, encoded(i, name[-3:]))
        for junk in ("__MACOSX/photos/a.png", "photos/.DS_Store", "photos/.c.png", "notes.txt", "inner.zip"):
            archive.writestr(junk, b"junk")
    found, failed = answers(model, path)
    assert [f["path"] for f in found] == [f"{path}/photos/a.png", f"{path}/photos/deep/b.bmp"] and not failed
    np.testing.assert_array_equal([[f["probabilities"][c] for c in CLASSES] for f in found], model.predict(IMAGES[:2]))
    assert os.listdir(tmp_path) == ["photos.zip"]


def refused_member(model, path, *texts):
    """The zip's middle picture is refused with these words, the two around it are not."""
    found, failed = answers(model, path)
    assert len(found) == 2, failed
    (name, error), = failed
    assert name.startswith(str(path)) and "\n" not in str(error)
    for text in texts:
        assert text in str(error), str(error)


def around(path, name="bad.png", content=b"", kind=zipfile.ZIP_DEFLATED, change=None):
    """A zip of two good pictures and, between them, what is given."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", encoded(0))
        info = zipfile.ZipInfo(name)
        info.compress_type = kind
        if change:
            change(info)
        archive.writestr(info, content)
        archive.writestr("z.png", encoded(1))
    return path


@pytest.mark.parametrize("name", ["../bad.png", "/bad.png", "a/../../bad.png", "..\\bad.png", "C:\\bad.png"])
def test_names_that_lead_out_of_a_zip(model, tmp_path, name):
    refused_member(model, around(tmp_path / "x.zip", name, encoded(2)), "leads out of the zip")


def test_what_a_zip_may_not_hold(model, tmp_path, monkeypatch):
    def link(info):
        info.create_system, info.external_attr = 3, 0o120777 << 16

    refused_member(model, around(tmp_path / "link.zip", content=b"/etc/passwd", change=link), "symbolic link")
    refused_member(model, around(tmp_path / "bz2.zip", content=encoded(2), kind=zipfile.ZIP_BZIP2), "method")
    refused_member(model, around(tmp_path / "text.zip", content=b"no picture"), "not an image")
    refused_member(model, around(tmp_path / "cut.zip", content=encoded(2)[:60]), "truncated")
    monkeypatch.setattr("pellucid.data.zips.LARGEST_FILE", 10_000)
    refused_member(model, around(tmp_path / "bomb.zip", content=bytes(20_000)), "claims 20,000 bytes", "10,000")


def patched(path, before, after, count):
    content = path.read_bytes()
    assert content.count(before) == count
    path.write_bytes(content.replace(before, after))
    return path


def test_zips_that_lie(model, tmp_path):
    bomb = around(tmp_path / "claim.zip", content=bytes(1001))
    patched(bomb, (1001).to_bytes(4, "little"), (200_000_000).to_bytes(4, "little"), 2)
    refused_member(model, bomb, "claims 200,000,000 bytes")
    damaged = around(tmp_path / "crc.zip", content=encoded(2), kind=zipfile.ZIP_STORED)
    patched(damaged, encoded(2), encoded(2)[:-5] + b"12345", 1)
    refused_member(model, damaged, "the zip is damaged")
    locked = around(tmp_path / "locked.zip", content=encoded(2))
    content = bytearray(locked.read_bytes())
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(mark, content.index(mark) + 1) + place] |= 1
    locked.write_bytes(content)
    refused_member(model, locked, "encrypted")


def test_a_zip_whose_parts_overlap(model, tmp_path):
    path = around(tmp_path / "overlap.zip", content=os.urandom(3000))
    content = bytearray(path.read_bytes())
    place = content.index(b"PK\x01\x02")
    content[place + 20:place + 24] = (10_000).to_bytes(4, "little")
    path.write_bytes(content)
    found, ((_, error),) = answers(model, path)
    assert not found and "overlap" in str(error)


@pytest.mark.parametrize("content, text", [
    (b"", "not a sound zip"), (b"PK\x05\x06", "not a sound zip"), (b"no zip" * 50, "not a sound zip"),
    (b"PK\x05\x06" + bytes(18), "no pictures"),
])
def test_what_is_no_zip_of_pictures(model, tmp_path, content, text):
    (tmp_path / "x.zip").write_bytes(content)
    found, ((path, error),) = answers(model, tmp_path / "x.zip")
    assert not found and path in str(error) and text in str(error)


def test_mutated_zips_and_pictures_never_escape(model, tmp_path):
    rng = np.random.default_rng(0)
    whole = {"x.zip": around(tmp_path / "x.zip", content=encoded(2)).read_bytes(),
             **{f"x.{kind}": encoded(0, kind) for kind in ("png", "bmp", "gif", "tiff", "jpeg")}}
    failures = 0
    for name, content in whole.items():
        for _ in range(60):
            changed = bytearray(content)
            for place in rng.integers(0, len(content), 3):
                changed[place] = rng.integers(256)
            kept = rng.integers(1, len(content)) if rng.random() < 0.3 else len(content)
            (tmp_path / name).write_bytes(changed[:kept])
            with warnings.catch_warnings(action="error"):
                failed = answers(model, tmp_path / name)[1]
            failures += len(failed)
            assert all("\n" not in str(e) and isinstance(e, ValueError | OSError) for _, e in failed)
    assert failures > 50


def test_a_picture_that_would_unpack_to_more_than_memory_is_refused_by_its_header(model, tmp_path):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    bomb = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    (tmp_path / "bomb.png").write_bytes(bomb)
    found, ((path, error),) = answers(model, tmp_path / "bomb.png")
    assert not found and str(error).startswith(path) and "by its header it has more than" in str(error)
    refused_member(model, around(tmp_path / "x.zip", content=bomb), "by its header it has more than")


def test_empty_and_unreadable_folders(model, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("x")
    found, failed = answers(model, tmp_path / "empty", tmp_path / "none")
    assert not found
    assert "no pictures in it" in str(failed[0][1]) and "no such file" in str(failed[1][1])
    os.mkfifo(tmp_path / "empty" / "pipe.png")
    assert "pipe" in str(answers(model, tmp_path / "empty")[1][0][1])


def test_a_large_folder_is_read_as_it_is_answered(model, tmp_path, monkeypatch):
    for i in range(200):
        (tmp_path / f"{i:03}.png").write_bytes(encoded(i % 40))
    opened = []
    original = prediction.open_file
    monkeypatch.setattr(prediction, "open_file", lambda path: opened.append(path) or original(path))
    stream = predict_files(model, [str(tmp_path)])
    assert not opened
    next(stream)
    assert len(opened) == prediction.BATCH
    assert len(list(stream)) == 199 and len(opened) == 200


def test_a_model_that_reads_no_pictures_is_refused_at_once():
    bare = Model(Network.build((8, 8, 1), Sequential(Flatten(), Dense(3))))
    with pytest.raises(ValueError, match="no preprocessing"):
        predict_files(bare, ["x.png"])


def calibrated(model, threshold):
    model.calibration = Calibration(1.0, 100, threshold, 0.05)
    return model


def test_rejection(model, tmp_path):
    for i in range(12):
        (tmp_path / f"{i:02}.png").write_bytes(encoded(i))
    largest = model.predict(IMAGES[:12]).max(axis=1)
    threshold = float(np.sort(largest)[4])
    try:
        found, _ = answers(calibrated(model, threshold), tmp_path)
        assert [f["rejected"] for f in found] == (largest < np.float32(threshold)).tolist()
        assert sum(f["rejected"] for f in found) == 4
        assert not any(f["rejected"] for f in answers(model, tmp_path, reject=False)[0])
    finally:
        model.calibration = None
    assert not any(f["rejected"] for f in answers(model, tmp_path)[0])


# The command.


@pytest.fixture
def work(model, tmp_path, monkeypatch):
    """A folder of pictures and a model, whose threshold refuses some."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for i in range(6):
        (tmp_path / "photos" / f"{i}.png").write_bytes(encoded(i))
    threshold = float(np.sort(model.predict(IMAGES[:6]).max(axis=1))[2])
    try:
        calibrated(model, threshold).save(tmp_path / "m.safetensors")
    finally:
        model.calibration = None
    return tmp_path


def run(capsys, *arguments, status=0):
    with pytest.raises(SystemExit) as e:
        main(["predict", "m.safetensors", *arguments])
    out, err = capsys.readouterr()
    assert (e.value.code or 0) == status, err
    return out, err


def test_text_says_none_of_these(work, capsys):
    lines = run(capsys, "photos", "--top", "2")[0].splitlines()
    assert len(lines) == 6 and sum(": none of these; nearest " in line for line in lines) == 2
    assert all(line.count("%") == 2 for line in lines)
    assert "none of these" not in run(capsys, "photos", "--no-reject")[0]


def test_json_is_one_object_whatever_is_found(work, capsys):
    (work / "photos" / "bad.png").write_text("x")
    out, err = run(capsys, "photos", "--json", status=1)
    result = json.loads(out)
    assert sum(p["rejected"] for p in result["predictions"]) == 2 and 0 < result["threshold"] < 1
    assert [f["path"] for f in result["failures"]] == ["photos/bad.png"] and err.count("\n") == 1
    assert all(len(p["probabilities"]) == 3 for p in result["predictions"])
    result = json.loads(run(capsys, "photos/0.png", "--json", "--top", "1", "--no-reject")[0])
    assert len(result["predictions"][0]["probabilities"]) == 1 and result["threshold"] is None
    result = json.loads(run(capsys, "none.png", "--json", status=1)[0])
    assert result["predictions"] == [] and len(result["failures"]) == 1


def test_csv(work, capsys):
    (work / "photos" / "bad.png").write_text("x")
    out, err = run(capsys, "photos", "--csv", "a.csv", "--top", "9", status=1)
    assert out == "" and "photos/bad.png" in err and err.endswith("6 images written to a.csv\n")
    with open("a.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    expected = json.loads(run(capsys, "photos", "--json", status=1)[0])["predictions"]
    assert [r["path"] for r in rows] == [f"photos/{i}.png" for i in range(6)]
    for row, found in zip(rows, expected, strict=True):
        assert row["rejected"] == str(int(found["rejected"])) and row["index"] == ""
        shown = {row[f"class_{k}"]: float(row[f"probability_{k}"]) for k in (1, 2, 3)}
        assert list(shown.items()) == list(found["probabilities"].items())
    assert set(os.listdir()) == {"photos", "m.safetensors", "a.csv"}


def test_a_csv_that_cannot_be_written_is_said_before_anything_is_read(work, capsys):
    out, err = run(capsys, "none.png", "--csv", "gone/a.csv", status=1)
    assert out == "" and err.count("\n") == 1 and "there is no folder" in err


def test_progress_of_many_images_goes_to_standard_error(work, capsys, monkeypatch):
    from pellucid import cli_prediction

    monkeypatch.setattr(cli_prediction, "INTERVAL", 0)
    out, err = run(capsys, "photos", "--json")
    assert len(json.loads(out)["predictions"]) == 6 and err.count("images/s\n") == 6


def test_interrupted_it_leaves_no_half_table(work):
    code = ("import sys\nfrom pellucid import prediction\nfrom pellucid.cli import main\n"
            "prediction.BATCH = 2\noriginal = prediction.open_file\ncount = 0\n"
            "def opened(path):\n"
            "    global count\n    count += 1\n"
            "    if count == 5: raise KeyboardInterrupt\n"
            "    return original(path)\n"
            "prediction.open_file = opened\n"
            "main(['predict', 'm.safetensors', 'photos', '--csv', 'a.csv'])")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (1, "pellucid: stopped by Ctrl-C\n")
    assert set(os.listdir()) == {"photos", "m.safetensors"}


# One image by its name.


def test_one_image_is_called_as_predict_calls_it(model, tmp_path):
    """A picture, one in a zip, and an image of arrays: the bytes that `predict` reads."""
    (tmp_path / "b.png").write_bytes(encoded(0, "bmp"))
    with zipfile.ZipFile(tmp_path / "more.zip", "w") as archive:
        archive.writestr("ring/1.png", encoded(1))
        archive.writestr("ring/2.png", encoded(2))
    np.savez(tmp_path / "x.npz", images=IMAGES)
    for name, i in (("b.png", 0), ("more.zip/ring/2.png", 2), ("x.npz:7", 7)):
        found = read_image(str(tmp_path / name), model.preprocessing)
        assert found.name == str(tmp_path / name) and found.label is None
        np.testing.assert_array_equal(found.image, IMAGES[i])
    large = str(tmp_path / "large.npz")
    np.savez(large, images=IMAGES.repeat(3, 1).repeat(2, 2))
    _, _, resized = list(read_images(large, model.preprocessing))[7]
    np.testing.assert_array_equal(read_image(f"{large}:7", model.preprocessing).image, resized)
    np.savez(tmp_path / "one.npz", images=IMAGES[3:4])
    np.testing.assert_array_equal(read_image(str(tmp_path / "one.npz"), model.preprocessing).image, IMAGES[3])


def test_one_image_of_a_data_set(model, tmp_path):
    found = read_image("digits:17", model.preprocessing)
    dataset = pellucid.data.load("digits")
    assert (found.name, found.label) == ("digits:17", dataset.classes[dataset.labels[17]])
    np.testing.assert_array_equal(found.image, dataset.images[17])
    labels = np.arange(40) % 3
    np.savez(tmp_path / "x.npz", x_train=IMAGES, y_train=labels, x_test=IMAGES[::-1], y_test=labels)
    found = read_image(f"{tmp_path}/x.npz:test:4", model.preprocessing)
    assert found.label == "1"
    np.testing.assert_array_equal(found.image, IMAGES[35])
    (tmp_path / "p:3").write_bytes(encoded(5))  # a file of that name is what is meant
    np.testing.assert_array_equal(read_image(f"{tmp_path}/p:3", model.preprocessing).image, IMAGES[5])


def test_what_is_not_one_image(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lay_out(tmp_path / "photos")
    np.savez("x.npz", images=IMAGES)
    (tmp_path / "bad.png").write_bytes(b"no picture")
    with zipfile.ZipFile("more.zip", "w") as archive:
        archive.writestr("1.png", encoded(1))
        archive.writestr("2.png", b"no picture")
    for name, error in (
        ("photos", "photos holds several images, and one is expected, such as photos/b.PNG"),
        ("x.npz", "one is expected, such as x.npz:0"), ("x.npz:40", "x.npz:40: x.npz has 40 images, numbered from 0"),
        ("digits", "digits is a data set, and one image is expected, such as digits:0"),
        ("digits:1797", "digits has 1,797 images"), ("digits:test:1", "no test images of its own"),
        ("more.zip/3.png", "more.zip holds no such picture"), ("more.zip/2.png", "more.zip/2.png: "),
        ("bad.png", "bad.png: "), ("gone.png", "no such file"), ("gone:3", "no such file, folder or built-in"),
    ):
        with pytest.raises((ValueError, OSError), match=re.escape(error)) as e:
            read_image(name, model.preprocessing)
        assert "\n" not in str(e.value)
