"""The cache of decoded images: what is reused, what is made anew, what is removed; and decoding in processes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from data_helpers import classes, encoded, pixels, refused, tree, write_folder, write_zip
from PIL import Image

import pellucid
from pellucid.data import cache, decoding, load, pictures, split
from pellucid.prediction import read_images
from pellucid.preprocessing import Preprocessing

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def decoded(monkeypatch):
    """How many batches have been decoded in this process."""
    calls, decode_all = [], decoding._decode_all
    monkeypatch.setattr(decoding, "_decode_all", lambda *a: calls.append(a) or decode_all(*a))
    return calls


def same(a, b):
    np.testing.assert_array_equal(a.images, b.images)
    np.testing.assert_array_equal(a.labels, b.labels)
    np.testing.assert_array_equal(a.pictures.sizes, b.pictures.sizes)
    assert (a.classes, a.digest, a.left_out, a.fit) == (b.classes, b.digest, b.left_out, b.fit)
    assert (a.pictures.files, a.pictures.modes) == (b.pictures.files, b.pictures.modes)
    assert a.has_test == b.has_test
    if a.has_test:
        np.testing.assert_array_equal(a.test_images, b.test_images)


def entries(folder):
    return sorted(folder.glob("*.images"))


# Reuse.


@pytest.mark.parametrize("kind", ["folder", "zip", "table"])
def test_decoded_once(tmp_path, decoded, kind):
    files = {**tree(*classes("train", "val", "test")), "train/ant/bad.png": b"x"}
    path = write_folder(tmp_path / "a", files) if kind == "folder" else write_zip(tmp_path / "a.zip", files)
    if kind == "table":
        write_folder(tmp_path, tree(*classes(), "bee/bad.gif"))
        path = tmp_path / "a.csv"
        path.write_text("path,label\n" + "".join(f"{name},{name[:3]}\n" for name in [*classes(), "bee/bad.gif"]))
    first = load(path)
    assert len(decoded) == 1
    for _ in range(2):
        same(load(path), first)
    assert len(decoded) == 1


def test_contents_decide(tmp_path, decoded):
    path = write_zip(tmp_path / "a.zip", tree(*classes()))
    first = load(path)
    shutil.copy(path, tmp_path / "b.zip")
    assert load(tmp_path / "b.zip").digest == first.digest and len(decoded) == 1
    files = tree(*classes())
    files["ant/0.png"] = encoded(pixels(8, 8, 3, seed=5))
    write_zip(path, files)
    changed = load(path)
    assert changed.digest != first.digest and encoded(changed.images[0]) == files["ant/0.png"]
    root = write_folder(tmp_path / "a", files)
    assert load(root).digest == changed.digest
    write_folder(root, {"ant/0.png": encoded(pixels(8, 8, 3, seed=6))})
    os.utime(root / "ant/0.png", ns=(1, 1))
    assert encoded(load(root).images[0]) == encoded(pixels(8, 8, 3, seed=6))
    write_folder(root, {"cow/0.png": files["ant/0.png"]})
    assert load(root).classes == ["ant", "bee", "cow"]
    (root / "dog").mkdir()
    refused(lambda: load(root), "'dog' has no picture")


def test_the_rules_decide(tmp_path, decoded, monkeypatch):
    path = write_zip(tmp_path / "a.zip", tree(*classes()))
    load(path)
    monkeypatch.setattr(decoding, "RULES", pictures.RULES + 1)
    load(path)
    assert len(decoded) == 2


def test_large_data_are_a_map_of_the_file(tmp_path, own_cache, monkeypatch):
    path = write_zip(tmp_path / "a.zip", tree(*classes("train", "val", "test", count=4)))
    small = load(path)
    assert not isinstance(small.images, np.memmap)
    monkeypatch.setattr(cache, "IN_MEMORY", 100)
    for _ in range(2):
        data = load(path)
        assert isinstance(data.images, np.memmap) and isinstance(data.test_images, np.memmap)
        assert not data.images.flags.writeable
        same(data, small)
        shutil.rmtree(own_cache)
    np.testing.assert_array_equal(split(data).train.images, split(small).train.images)
    np.testing.assert_array_equal(data.images[[5, 1]], small.images[[5, 1]])  # of a file that is removed


@pytest.mark.parametrize("last", [(8, 9, 3), (8, 8, 3), (8, 8)])
def test_pictures_that_are_not_all_as_the_first(tmp_path, own_cache, monkeypatch, last):
    """All but the last are 8x8 and grey; only where that one is too, none is looked at twice."""
    monkeypatch.setattr(decoding, "_BATCH_FILES", 3)
    surveys, survey = [], decoding._Loading._survey
    monkeypatch.setattr(decoding._Loading, "_survey", lambda self: surveys.append(1) or survey(self))
    files = {path: encoded(pixels(8, 8, seed=i)) for i, path in enumerate(classes(count=5))}
    path = write_zip(tmp_path / "a.zip", {**files, "bee/last.png": encoded(pixels(*last))})
    calls = []
    for _ in range(2):
        data = load(path, progress=lambda *call: calls.append(call))
        assert data.fit == ("stretch" if last[:2] == (8, 8) else "crop")
        assert data.input_shape == ((32, 32) if last[1] == 9 else (8, 8)) + ((3,) if len(last) == 3 else (1,))
        assert len(surveys) == (len(last) == 3) and len(entries(own_cache)) == 1
        assert calls == sorted(calls)
        [note] = own_cache.glob("*.choice")
    note.unlink()  # then what was guessed is held against the entry
    assert load(path).input_shape == data.input_shape and len(surveys) == 2 * (len(last) == 3)


def test_progress(tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "_BATCH_FILES", 3)
    path = write_zip(tmp_path / "a.zip", tree(*classes(count=5)))
    calls = []
    load(path, progress=lambda *call: calls.append(call))
    done = [done for done, _ in calls]
    assert done == sorted(done) and done[-1] == 10 and len(set(done)) > 3 and {total for _, total in calls} == {10}
    load(path, progress=lambda *call: pytest.fail("nothing to do"))


# Damage.


@pytest.mark.parametrize("damage", [
    lambda data: b"", lambda data: data[:10], lambda data: data[:-1], lambda data: data[:500] + data[501:],
    lambda data: bytes([data[0] ^ 1]) + data[1:], lambda data: data[:-30] + b"}" + data[-29:],
    lambda data: data + b"x", lambda data: bytes(len(data)), lambda data: data[:-20] + bytes(20),
])
def test_damaged_entries_are_made_anew(tmp_path, own_cache, decoded, damage):
    path = write_zip(tmp_path / "a.zip", tree(*classes()))
    first = load(path)
    [entry] = entries(own_cache)
    whole = entry.read_bytes()
    entry.write_bytes(damage(whole))
    same(load(path), first)
    assert len(decoded) == 2 and entry.read_bytes() == whole


def test_damaged_notes_are_made_anew(tmp_path, own_cache):
    path = write_zip(tmp_path / "a.zip", tree(*classes()))
    first = load(path)
    [note] = own_cache.glob("*.choice")
    for content in ("", "{", "[]", "{}", '{"common": 3}'):
        note.write_text(content)
        same(load(path), first)
        assert json.loads(note.read_text())["common"] == [8, 8]


# Disks.


def test_no_space_and_no_permission(tmp_path, own_cache, monkeypatch, decoded):
    path = write_zip(tmp_path / "a.zip", tree(*classes("train", "test")))
    first = load(path)
    shutil.rmtree(own_cache)
    own_cache.write_text("no folder")
    again = load(path)
    same(again, first)
    assert first.notes == () and len(again.notes) == 1 and "\n" not in again.notes[0]
    assert str(own_cache) in again.notes[0] and "set PELLUCID_CACHE" in again.notes[0]
    monkeypatch.setattr("pellucid.data.arrays.os.sysconf", lambda name: 8)
    refused(lambda: load(path), "take 1,536 bytes, which do not fit into memory", str(own_cache), "set PELLUCID_CACHE")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_disk_that_becomes_full(tmp_path, own_cache, monkeypatch):
    path = write_zip(tmp_path / "a.zip", tree(*classes()))
    first = load(path)
    shutil.rmtree(own_cache)

    with monkeypatch.context() as patch:
        patch.setattr(cache, "open", lambda path, mode: open("/dev/full" if mode == "wb" else path, mode, buffering=0),
                      raising=False)
        same(load(path), first)
    assert not entries(own_cache) and not list(own_cache.glob(".*"))
    with monkeypatch.context() as patch:
        patch.setattr(cache.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1))
        again = load(path)
        same(again, first)
        assert "the disk has less free" in again.notes[0]
    assert not entries(own_cache)


def test_where_the_cache_is(monkeypatch):
    monkeypatch.setenv("PELLUCID_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache.folder() == Path("/x/pellucid/decoded")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/h")
    assert cache.folder() == Path("/h/.cache/pellucid/decoded")
    monkeypatch.setenv("PELLUCID_CACHE", "~/c")
    assert cache.folder() == Path("/h/c/decoded")


# The limit.


def test_the_least_recently_used_go_first(tmp_path, own_cache, monkeypatch, decoded):
    paths = [write_zip(tmp_path / f"{i}.zip", {**tree(*classes()), "ant/x.png": encoded(pixels(8, 8, 3, seed=50 + i))})
             for i in range(4)]
    for i, path in enumerate(paths[:3]):
        load(path, size=8, fit="crop", channels=3)
        [new] = [entry for entry in entries(own_cache) if entry.stat().st_mtime > 1000]
        os.utime(new, (i + 1, i + 1))
    size = new.stat().st_size
    load(paths[0], size=8, fit="crop", channels=3)  # now the last used
    monkeypatch.setenv("PELLUCID_DATA_CACHE_GB", str(3.5 * size / 1e9))
    load(paths[3], size=8, fit="crop", channels=3)
    assert len(decoded) == 4 and len(entries(own_cache)) == 3
    for i, count in ((0, 4), (2, 4), (3, 4), (1, 5)):
        load(paths[i], size=8, fit="crop", channels=3)
        assert len(decoded) == count
    monkeypatch.setenv("PELLUCID_DATA_CACHE_GB", "0")
    load(paths[0], size=9, fit="crop", channels=3)
    assert len(entries(own_cache)) == 1  # the one just made


def test_entries_in_use_stay(tmp_path, own_cache, monkeypatch):
    monkeypatch.setattr(cache, "IN_MEMORY", 100)
    monkeypatch.setenv("PELLUCID_DATA_CACHE_GB", "0")
    first = load(write_zip(tmp_path / "a.zip", tree(*classes())))
    [entry] = entries(own_cache)
    part = first.images[1:3]
    del first
    load(write_zip(tmp_path / "b.zip", tree("a/1.png", "b/2.png")))
    assert entry.exists() and len(part) == 2  # a view of it lives
    del part
    load(write_zip(tmp_path / "c.zip", tree("a/1.png", "b/3.png")))
    assert not entry.exists()


def test_what_killed_processes_left_is_removed(tmp_path, own_cache):
    own_cache.mkdir(parents=True)
    for name, age in ((".old.images.1.tmp", 999), (".new.images.2.tmp", 0), (".held.images.3.tmp", 999)):
        (own_cache / name).write_bytes(b"x")
        os.utime(own_cache / name, (time.time() - age,) * 2)
    (own_cache / "notes.txt").write_text("a user's")
    os.utime(own_cache / "notes.txt", (1, 1))
    with open(own_cache / ".held.images.3.tmp", "rb") as file:
        cache._lock(file, cache.fcntl.LOCK_EX)
        load(write_zip(tmp_path / "a.zip", tree(*classes())))
    assert sorted(p.name for p in own_cache.iterdir() if p.suffix in (".tmp", ".txt")) == [
        ".held.images.3.tmp", ".new.images.2.tmp", "notes.txt"]


@pytest.mark.parametrize("text", ["lots", "-1", "nan", "inf"])
def test_limits_refused(tmp_path, monkeypatch, text):
    monkeypatch.setenv("PELLUCID_DATA_CACHE_GB", text)
    path = write_zip(tmp_path / "a.zip", tree(*classes()))
    refused(lambda: load(path), "PELLUCID_DATA_CACHE_GB must be a number of gigabytes from 0", repr(text))


def test_the_default_limit(own_cache, monkeypatch):
    usage = shutil._ntuple_diskusage
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda path: usage(10**12, 0, 50 * 10**9))
    assert cache.limit() == 5e9 and cache.limit(10**10) == 6e9
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda path: usage(10**12, 0, 10**12))
    assert cache.limit() == 20e9


# Processes.


def run(code, path, **options):
    environment = {**os.environ, "PYTHONPATH": str(Path(pellucid.__file__).parents[1]), "PELLUCID_THREADS": "2"}
    return subprocess.Popen([sys.executable, "-c", code, str(path)], env=environment, stderr=subprocess.PIPE,
                            stdout=subprocess.PIPE, text=True, **options)


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A folder of 1,500 pictures, of which some are broken: enough for several processes."""
    root = tmp_path_factory.mktemp("many")
    files = {f"{'ant' if i % 2 else 'bee'}/{i:04}.jpg": encoded(pixels(16, 16, 3, seed=i), "JPEG") for i in range(1500)}
    write_folder(root, {**files, "ant/0001.jpg": b"x", "bee/0700.jpg": b""})
    return root


def test_processes_give_what_one_gives(many, own_cache, monkeypatch):
    monkeypatch.setenv("PELLUCID_THREADS", "2")
    calls, in_processes = [], decoding.in_processes
    monkeypatch.setattr(decoding, "in_processes", lambda *a: calls.append(a) or in_processes(*a))
    several = load(many)
    assert len(calls) == 2 and [name for name, _ in several.left_out] == ["ant/0001.jpg", "bee/0700.jpg"]
    shutil.rmtree(own_cache)
    monkeypatch.setenv("PELLUCID_THREADS", "1")
    same(load(many), several)
    assert len(calls) == 2


# A script without `if __name__ == "__main__"`, as people write them.
SCRIPT = """
import sys, pellucid
print("started", flush=True)
data = pellucid.data.load(sys.argv[1], progress=lambda done, total: print(done, flush=True))
print(data.digest)
"""
SLOW = "import time\n" + SCRIPT.replace("print(done, flush=True)", "(print(done, flush=True), time.sleep(0.15))")


def test_two_processes_at_once(many, own_cache):
    both = [run(SCRIPT, many) for _ in range(2)]
    results = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], results
    outputs = [out.splitlines() for out, _ in results]
    assert [out.count("started") for out in outputs] == [1, 1]
    assert outputs[0][-1] == outputs[1][-1] == load(many).digest
    assert len(entries(own_cache)) == 1 and not list(own_cache.glob(".*"))


def children(group):
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            found.append(status.parent.name)
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_ctrl_c_leaves_nothing(many, own_cache):
    process = run(SLOW, many, start_new_session=True)
    try:
        while int(process.stdout.readline().replace("started", "0")) < 900:  # decoding has begun
            pass
        before = time.monotonic()
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=20)
        assert time.monotonic() - before < 5
        assert process.returncode != 0 and errors.rstrip().endswith("KeyboardInterrupt")
        assert errors.count("Traceback") == 1, errors  # none of the workers'
        assert not entries(own_cache) and not list(own_cache.glob(".*"))
        deadline = time.monotonic() + 10
        while children(process.pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not children(process.pid)
    finally:
        process.kill()
        process.communicate()


def test_kill_leaves_nothing_that_counts(many, own_cache):
    process = run(SLOW, many)
    while int(process.stdout.readline().replace("started", "0")) < 900:
        pass
    process.kill()
    process.communicate(timeout=20)  # the workers, which hold the other ends of its pipes, end too
    assert not entries(own_cache)
    for left in own_cache.glob(".*.tmp"):
        os.utime(left, (1, 1))
    assert len(load(many).images) == 1498
    assert len(entries(own_cache)) == 1 and not list(own_cache.glob(".*.tmp"))


def dies(*_):
    os._exit(9)


def test_a_worker_that_dies_is_said(many, monkeypatch):
    monkeypatch.setenv("PELLUCID_THREADS", "2")
    monkeypatch.setattr(decoding, "_decode_all", dies)
    refused(lambda: load(many), "a process that decodes pictures has died", "PELLUCID_THREADS")


# Training and predicting see the same.


@pytest.mark.parametrize("fit", pictures.FITS)
@pytest.mark.parametrize("channels", [1, 3])
def test_prediction_sees_what_training_saw(tmp_path, fit, channels):
    """Bytes equal, for pictures of many kinds; large JPEGs are decoded smaller by both."""
    exif = Image.Exif()
    exif[0x0112] = 6
    y, x = np.mgrid[:300, :500]
    photo = np.stack([x % 256, y % 256, (x + y) % 256], -1).astype(np.uint8)
    files = {
        "a/large.jpg": encoded(photo, "JPEG", quality=90), "a/turned.jpg": encoded(photo, "JPEG", exif=exif),
        "a/deep.png": encoded(pixels(40, 50, 2).view(np.uint16)[..., 0]), "b/clear.png": encoded(pixels(40, 50, 4)),
        "b/grey.tif": encoded(pixels(50, 30), "TIFF"),
        "b/palette.gif": encoded(pixels(33, 44), "GIF"),
    }
    root = write_folder(tmp_path, files)
    data = load(root, size=(24, 30), fit=fit, channels=channels)
    preprocessing = Preprocessing.from_images(data.images, fit=data.fit)
    assert preprocessing.fit == fit and len(data.images) == 6
    for file, image in zip(data.pictures.files, data.images, strict=True):
        [(_, _, seen)] = read_images(str(root / file), preprocessing)
        np.testing.assert_array_equal(seen, image, file)


def test_mean_and_deviation_of_a_map(tmp_path, monkeypatch):
    path = write_zip(tmp_path / "a.zip", tree(*classes(count=20)))
    exact = Preprocessing.from_images(load(path).images)
    monkeypatch.setattr(cache, "IN_MEMORY", 100)
    parts = split(load(path))
    assert Preprocessing.from_images(load(path).images) == exact
    rows = parts.train.images
    np.testing.assert_allclose(Preprocessing.from_images(rows).mean, np.asarray(rows).mean((0, 1, 2)) / 255, rtol=1e-12)
    monkeypatch.setattr("pellucid.preprocessing.MOST_COUNTED", 10)
    sampled = Preprocessing.from_images(load(path).images)
    assert sampled != exact and np.abs(np.subtract(sampled.mean, exact.mean)).max() < 0.05
