"""Folders, zips and tables of pictures: which files are found, as which class, for which part; and what is refused."""

import os

import numpy as np
import pytest
from data_helpers import (
    classes,
    encoded,
    images,
    labels,
    pixels,
    refused,
    tree,
    write_folder,
    write_idx,
    write_zip,
)
from PIL import Image

from pellucid.data import load
from pellucid.data.listing import shown

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture(params=["folder", "zip"])
def source(request, tmp_path):
    """Makes a source of {path: bytes}: a folder, or a zip."""
    if request.param == "folder":
        return lambda files: write_folder(tmp_path / "data", files)
    return lambda files: write_zip(tmp_path / "data.zip", files)


def summary(data):
    """[(file, class)] of the images and of the test images."""
    found = [(data.pictures.files, data.labels)]
    found += [(data.test_pictures.files, data.test_labels)] if data.has_test else []
    return [[(file, data.classes[label]) for file, label in zip(*part, strict=True)] for part in found]


# Layouts.


def test_class_folders(source):
    files = tree(*classes(), "bee/2021/may/x.png", "bee/2020/y.PNG")
    data = load(source(files))
    assert data.classes == ["ant", "bee"] and not data.has_test and data.validation is None and data.left_out == ()
    assert summary(data) == [[("ant/0.png", "ant"), ("ant/1.png", "ant"), ("bee/0.png", "bee"), ("bee/1.png", "bee"),
                              ("bee/2020/y.PNG", "bee"), ("bee/2021/may/x.png", "bee")]]
    for file, image in zip(data.pictures.files, data.images, strict=True):
        assert encoded(image) == files[file]
    assert data.pictures.sizes.tolist() == [[8, 8]] * 6 and data.pictures.modes == ("RGB",) * 6
    assert data.labels.dtype == np.int32 and data.digest and (data.fit, data.images.shape[1:]) == ("stretch", (8, 8, 3))


@pytest.mark.parametrize("names", [
    ("train", "val", "test"), ("training", "valid", "eval"), ("Train", "Validation", "EVALUATION"),
])
def test_part_folders(source, names):
    files = tree(*classes(*names))
    data = load(source(files))
    train, validation, test = names
    assert [file for file, _ in summary(data)[0]] == classes(train, validation)
    assert [file for file, _ in summary(data)[1]] == classes(test)
    assert data.validation.tolist() == [4, 5, 6, 7]
    for file, image in zip(data.test_pictures.files, data.test_images, strict=True):
        assert encoded(image) == files[file]


@pytest.mark.parametrize("other", ["val", "test"])
def test_two_parts(source, other):
    data = load(source(tree(*classes("train", other))))
    assert data.has_test == (other == "test") and (data.validation is not None) == (other == "val")


def test_without_train_the_folders_are_classes(source):
    assert load(source(tree("test/a.png", "val/b.png"))).classes == ["test", "val"]


@pytest.mark.parametrize("top", ["photos", "photos/2024"])
@pytest.mark.parametrize("parts", [[""], ["train", "test"]])
def test_all_under_one_folder(source, top, parts):
    files = {f"{top}/{path}": data for path, data in tree(*classes(*parts)).items()}
    data = load(source({**files, f"{top}/readme.txt": b"x"}))
    assert data.classes == ["ant", "bee"] and data.has_test == (len(parts) == 2)
    assert data.pictures.files[0].startswith(f"{top}/")


def test_a_preview_beside_the_parts(source):
    files = tree(*[f"data/{path}" for path in classes("train", "test")], "data/preview.png", "data/extra/z.png")
    data = load(source(files))
    assert data.classes == ["ant", "bee"] and len(data.images) == 4
    assert [file for file, why in data.left_out if "beside the folders for training" in why] == [
        "data/extra/z.png", "data/preview.png"]


def test_class_names_are_sorted_plainly(source):
    data = load(source(tree(*[f"{name}/0.png" for name in ("10", "9", "Bee", "ant", "ä b")])))
    assert data.classes == ["10", "9", "Bee", "ant", "ä b"]


def test_junk_is_ignored(source):
    junk = ("Thumbs.db", "ant/Thumbs.db", "ant/.DS_Store", "ant/._0.png", "ant/a.txt", "__MACOSX/ant/._0.png",
            ".git/a.png", "bee/inner.zip", "labels.csv", "ant/a")
    data = load(source({**tree(*classes()), **dict.fromkeys(junk, b"x")}))
    assert data.classes == ["ant", "bee"] and len(data.images) == 4 and data.left_out == ()


def test_what_cannot_be_used_is_left_out(source):
    bad = {"ant/empty.png": b"", "ant/text.jpg": b"no picture", "bee/cut.png": encoded(pixels(90, 90, 3))[:900],
           "bee/iphone.heic": b"\0\0\0\x18ftypheic", "loose.png": encoded(pixels(8, 8, 3))}
    files = tree(*classes())
    files["ant/wrong.jpg"] = files["ant/0.png"]  # a PNG, whatever its name
    data = load(source({**files, **bad}), size=8)
    assert [file for file, _ in data.left_out] == sorted(bad)
    reasons = dict(data.left_out)
    for file, text in zip(sorted(bad), ["empty (0 bytes)", "not an image", "cut off", "not an image", "no class"],
                          strict=True):
        assert text in reasons[file]
    assert [file for file, _ in summary(data)[0]] == [*classes()[:2], "ant/wrong.jpg", *classes()[2:]]
    for file, image in zip(data.pictures.files, data.images, strict=True):
        assert encoded(image) == files[file]


def test_test_pictures_without_labels(source):
    data = load(source(tree(*classes("train"), "test/1.png", "test/2.png")))
    assert not data.has_test and [file for file, _ in data.left_out] == ["test/1.png", "test/2.png"]


BAD_TREES = {
    "nothing": ({"readme.txt": b"x"}, ["holds no pictures", "a folder of them for each class"]),
    "loose": (tree("a.png", "b.png"), ["its 2 pictures lie in no class's folder", "CSV"]),
    "loose in train": (tree("train/a.png", *classes("test")), ["train: its 1 pictures lie in no class's folder"]),
    "one class": (tree("ant/0.png", "ant/1.png"), ["one class only, 'ant'", "at least 2"]),
    "one class in train": (tree("train/ant/0.png"), ["one class only, 'ant'"]),
    "unknown in test": (tree(*classes("train", "test"), "test/wasp/0.png"),
                        ["test: the test part has a class 'wasp'", "(ant, bee)"]),
    "missing in test": (tree(*classes("train", "test"), "train/wasp/0.png"), ["the test part has no class 'wasp'"]),
    "unknown in validation": (tree(*classes("train", "val"), "val/Ant/0.png"), ["validation part has a class 'Ant'"]),
    "two for one": (tree(*classes("train", "val", "valid")), ["both 'val' and 'valid' are folders for validation"]),
    "all broken": ({**tree(*classes()), "cow/0.png": b"", "cow/1.png": b"x"},
                   ["none of the pictures of class 'cow' for train can be used", "cow/0.png: the file is empty"]),
    "broken in test": ({**tree(*classes("train", "test", count=1)), "test/bee/0.png": b"x"},
                       ["none of the pictures of class 'bee' for test"]),
    "everything broken": (dict.fromkeys(classes(), b"x"), ["none of its 4 pictures can be used", "ant/0.png"]),
    "empty class": ({**tree(*classes()), "wasp/readme.txt": b"x"}, ["the class 'wasp' has no picture", "remove"]),
}


@pytest.mark.parametrize("name", BAD_TREES)
def test_layouts_refused(source, name, own_cache):
    files, texts = BAD_TREES[name]
    path = source(files)
    refused(lambda: load(path), str(path), *texts)
    assert not list(own_cache.glob("*.images")) and not list(own_cache.glob("*.tmp"))


# Folders.


PARTIAL = {"one class": ["ant"], "one class in train": ["ant"], "unknown in test": ["ant", "bee", "wasp"],
           "missing in test": ["ant", "bee", "wasp"], "unknown in validation": ["Ant", "ant", "bee"],
           "all broken": ["ant", "bee", "cow"], "broken in test": ["ant", "bee"], "empty class": ["ant", "bee", "wasp"]}


@pytest.mark.parametrize("name", BAD_TREES)
def test_what_is_no_good_for_training_can_be_looked_at(source, name):
    """And what looking at it leaves in the cache does not make it good for training."""
    files, texts = BAD_TREES[name]
    path = source(files)
    if name not in PARTIAL:
        refused(lambda: load(path, partial=True), str(path), *texts)
        return
    data = load(path, partial=True)
    assert data.classes == PARTIAL[name] and data.partial
    pictures = {file for part in summary(data) for file, _ in part} | {file for file, _ in data.left_out}
    assert pictures == {file for file in files if file.endswith(".png")}
    assert all(label == file.split("/")[-2] for part in summary(data) for file, label in part)
    refused(lambda: load(path), str(path), *texts)


def test_links(tmp_path):
    root = write_folder(tmp_path / "data", tree(*classes()))
    write_folder(tmp_path / "elsewhere", tree("x.png", "deeper/y.png"))
    (root / "ant/loop").symlink_to(root)
    (root / "ant/up").symlink_to("..")
    (root / "wasp").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/deeper/back").symlink_to(root / "ant")
    (root / "bee/gone.png").symlink_to(tmp_path / "nowhere.png")
    (root / "bee/self.png").symlink_to("self.png")
    os.mkfifo(root / "bee/pipe.png")
    data = load(root)
    assert data.classes == ["ant", "bee", "wasp"]
    assert [file for file, _ in summary(data)[0]] == [*classes(), "wasp/deeper/y.png", "wasp/x.png"]
    left_out = dict(data.left_out)
    assert set(left_out) == {"ant/loop", "ant/up", "wasp/deeper/back", "bee/gone.png", "bee/self.png", "bee/pipe.png"}
    assert "not a regular file" in left_out["bee/pipe.png"] and "cannot be read" in left_out["bee/gone.png"]


def test_many_links_end(tmp_path):
    """Twelve folders that all link to each other: 12! paths, each folder read once."""
    for i in range(12):
        folder = write_folder(tmp_path, tree(f"c{i}/0.png")) / f"c{i}"
        for j in range(12):
            (folder / f"to{j}").symlink_to(tmp_path / f"c{j}")
    assert len(load(tmp_path).images) == 12


def test_names_that_are_no_text(tmp_path):
    root = write_folder(tmp_path / "data", tree(*classes()))
    data = encoded(pixels(8, 8, 3))
    os.makedirs(os.fsencode(root) + b"/c\xff\n")
    for name in (b"/c\xff\n/0\x1b.png", b"/ant/\xfe.png"):
        with open(os.fsencode(root) + name, "wb") as file:
            file.write(data)
    for _ in range(2):  # the second time from the cache
        found = load(root)
        assert found.classes == ["ant", "bee", "c\\udcff\\n"]
        assert {"ant/\\udcfe.png", "c\\udcff\\n/0\\x1b.png"} < set(found.pictures.files)
    assert shown("häuser 1/日本.png") == "häuser 1/日本.png"


def test_nothing_of_the_users_is_changed(tmp_path):
    root = write_folder(tmp_path / "data", tree(*classes("train", "test")))

    def state():
        return {path: (path.stat().st_mtime_ns, path.stat().st_mode, path.read_bytes() if path.is_file() else None)
                for path in sorted(root.rglob("*"))}

    before = state()
    load(root)
    assert state() == before


# Tables.


def table(tmp_path, text, name="table.csv"):
    write_folder(tmp_path, tree("pictures/a.png", "pictures/b.png", "c.png", "d, e.png"))
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_tables(tmp_path, monkeypatch):
    rows = 'Label,path,note\nyes,pictures/a.png,x\nno,"d, e.png",\n\nyes,c.png,y\nno,pictures/b.png,z\n'
    path = table(tmp_path, rows)
    monkeypatch.chdir("/")
    data = load(path)
    assert data.classes == ["no", "yes"] and not data.has_test
    assert summary(data) == [
        [("d, e.png", "no"), ("pictures/b.png", "no"), ("c.png", "yes"), ("pictures/a.png", "yes")]]
    same = load(table(tmp_path, "\ufeff" + rows.replace("\n", "\r\n"), "again.csv"))
    assert summary(same) == summary(data) and same.digest == data.digest
    tabs = "path\tlabel\nc.png\tyes\nd, e.png\tno\n"
    assert summary(load(table(tmp_path, tabs, "t.tsv"))) == [[("d, e.png", "no"), ("c.png", "yes")]]


def test_tables_with_parts(tmp_path):
    rows = "path,label,split\nc.png,1,train\npictures/a.png,0,\npictures/b.png,1,TEST\nd.png,0,test\n"
    write_folder(tmp_path, tree("d.png"))
    data = load(table(tmp_path, rows))
    assert summary(data) == [[("pictures/a.png", "0"), ("c.png", "1")], [("d.png", "0"), ("pictures/b.png", "1")]]
    rows = rows.replace("TEST", "valid").replace("test", "val")
    data = load(table(tmp_path, rows, "b.csv"))
    assert data.validation.tolist() == [2, 3] and not data.has_test


def test_partial_tables(tmp_path):
    assert load(table(tmp_path, "path,label\nc.png,1\n"), partial=True).classes == ["1"]
    data = load(table(tmp_path, "path,label,split\nc.png,1,\ngone.png,0,\npictures/a.png,2,test\n"), partial=True)
    assert data.classes == ["0", "1", "2"] and summary(data) == [[("c.png", "1")], [("pictures/a.png", "2")]]
    refused(lambda: load(table(tmp_path, "path,label\ngone.png,1\n"), partial=True), "one class only")


def test_files_that_a_table_names_and_that_are_not_there(tmp_path):
    rows = "path,label\nc.png,1\npictures/a.png,0\ngone.png,1\npictures,1\nc.png,1\n"
    data = load(table(tmp_path, rows))
    assert len(data.images) == 2
    assert data.left_out == (("gone.png", "cannot be read (No such file or directory)"),
                             ("pictures", "not a regular file"))


@pytest.mark.parametrize(("text", "texts"), [
    ("", ["its first line names the columns nothing", "expected path, label"]),
    ("file,label\na,b\n", ["names the columns 'file', 'label'", "with commas between"]),
    ("path\tlabel\na\tb\n", ["'path\\tlabel'"]),
    ("path,label,label\na,b,c\n", ["each once"]),
    ("path,label\nc.png\n", ["line 2", "has 1 columns, the first line 2"]),
    ("path,label\nd, e.png,1\n", ["line 2", "quotation marks"]),
    ("path,label\nc.png,1\npictures/a.png, \n", ["line 3", "has no label"]),
    ("path,label\n,1\n", ["line 2", "has no path"]),
    ("path,label,split\nc.png,1,holdout\n", ["line 2", "'holdout'", "expected one of train, training"]),
    ("path,label\nc.png,1\npictures/a.png,0\nc.png,0\n", ["line 4: c.png stands here again with another label"]),
    ('path,label\n"c.png,1\n', ["line", "save it again as CSV"]),
    (b"path,label\nc.png,\xff\n", ["not UTF-8 text"]),
    ("path,label\n", ["names no picture for training"]),
    ("path,label,split\nc.png,1,test\n", ["names no picture for training"]),
    ("path,label\nc.png,1\npictures/a.png,1\n", ["one class only, '1'"]),
    ("path,label\nc.png,1\ngone.png,0\n", ["none of the pictures of class '0' for train", "gone.png"]),
    ("path,label,split\nc.png,1,\npictures/a.png,0,\nd.png,2,test\n", ["the test part has a class '2'"]),
])
def test_tables_refused(tmp_path, text, texts):
    path = table(tmp_path, text)
    refused(lambda: load(path), str(path), *texts)


# What is asked for.


def sized(*sizes, mode="RGB"):
    files = {}
    for i, (height, width) in enumerate(sizes):
        array = pixels(height, width, 3, seed=i)
        files[f"{'ab'[i % 2]}/{i:03}.png"] = encoded(Image.fromarray(array).convert(mode))
    return files


@pytest.mark.parametrize(("sizes", "shape", "fit"), [
    ([(28, 20)] * 4, (28, 20), "stretch"), ([(96, 96)] * 2, (96, 96), "stretch"), ([(97, 96)] * 2, (96, 96), "crop"),
    ([(40, 60), (60, 41)], (32, 32), "crop"), ([(50, 60), (50, 70), (300, 300)], (48, 48), "crop"),
    ([(700, 500)] * 3, (128, 128), "crop"), ([(9, 30), (9, 31)], (32, 32), "crop"),
])
def test_the_size_that_is_chosen(source, sizes, shape, fit):
    data = load(source(sized(*sizes)))
    assert data.images.shape[1:3] == shape and data.fit == fit
    assert sorted(map(tuple, data.pictures.sizes.tolist())) == sorted(sizes)


def test_size_fit_and_channels_as_asked(source):
    path = source(sized((40, 60), (60, 41)))
    for size, shape in ((20, (20, 20)), ((10, 30), (10, 30)), ([7, 8], (7, 8))):
        for fit in ("crop", "letterbox", "stretch"):
            for channels in (1, 3):
                data = load(path, size=size, fit=fit, channels=channels)
                assert data.images.shape[1:] == (*shape, channels) and data.fit == fit
    assert load(path, size=40).fit == "crop"
    digests = {load(path, size=20, fit=fit).digest for fit in ("crop", "letterbox", "stretch")}
    assert len(digests) == 3


def test_what_is_chosen_is_what_is_asked_for(source):
    path = source(sized((40, 60), (60, 41)))
    chosen = load(path)
    asked = load(path, size=chosen.images.shape[1:3], fit=chosen.fit, channels=chosen.images.shape[3])
    assert asked.digest == chosen.digest


@pytest.mark.parametrize("mode", ["1", "L", "LA", "I;16"])
def test_grey_pictures_have_one_channel(tmp_path, mode):
    files = sized((12, 12), (12, 12), mode="L" if mode == "I;16" else mode)
    if mode == "I;16":
        files = {path: encoded(pixels(12, 12, 2).view(np.uint16)[..., 0]) for path in files}
    data = load(write_folder(tmp_path, files))
    assert data.input_shape == (12, 12, 1) and set(data.pictures.modes) == {mode}
    write_folder(tmp_path, {"a/colour.png": encoded(pixels(12, 12, 3))})
    assert load(tmp_path).input_shape == (12, 12, 3)


@pytest.mark.parametrize(("options", "text"), [
    ({"size": 0}, "size must be"), ({"size": (3, 4, 5)}, "size must be"), ({"size": True}, "size must be"),
    ({"size": "9"}, "size must be"), ({"size": 10**6}, "size must be"), ({"size": (2.0, 3)}, "size must be"),
    ({"fit": "squash"}, "fit must be one of crop"), ({"channels": 4}, "channels must be 1"),
    ({"channels": True}, "channels must be 1"),
])
def test_options_refused(tmp_path, options, text):
    write_folder(tmp_path / "a", tree(*classes()))
    np.savez(tmp_path / "a.npz", images=images(), labels=labels())
    for name in ("a", "a.npz"):
        refused(lambda n=name: load(tmp_path / n, **options), text)


def test_arrays_are_not_resized(tmp_path):
    np.savez(tmp_path / "a.npz", images=images(), labels=labels())
    data = load(tmp_path / "a.npz", size=(5, 4), channels=1, fit="crop")
    assert data.fit == "crop" and data.images.shape == (12, 5, 4, 1)
    assert load(tmp_path / "a.npz").fit == "stretch"
    refused(lambda: load(tmp_path / "a.npz", size=5), "a.npz: its images are 5x4 with 1 channel", "5x5")
    refused(lambda: load("digits", channels=3), "digits: its images are 8x8 with 1 channel", "with 3")


# Built-in names.


@pytest.mark.parametrize("name", ["cifar10", "mnist"])
@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_pictures_by_name(tmp_path, monkeypatch, name, kind):
    monkeypatch.setenv("PELLUCID_DATA", str(tmp_path))
    refused(lambda: load(name), f"{name} is not on this machine", str(tmp_path / name), f"{name}.zip")
    files = {f"{name}/{path}": data for path, data in tree(*classes("train", "test")).items()}
    if kind == "zip":
        write_zip(tmp_path / f"{name}.zip", files)
    else:
        write_folder(tmp_path, files)
    data = load(name, size=4)
    assert data.name == name and data.has_test and data.input_shape == (4, 4, 3)


def test_idx_files_come_first(tmp_path, monkeypatch):
    monkeypatch.setenv("PELLUCID_DATA", str(tmp_path))
    write_zip(tmp_path / "mnist.zip", tree(*classes("train", "test")))
    assert load("mnist").classes == ["ant", "bee"]
    write_idx(tmp_path / "mnist")
    refused(lambda: load("mnist"), "class '3'", "no image")  # the small IDX files lack classes of the ten


def test_runs_among_the_pictures_are_no_class(tmp_path):
    """Training that was started in the folder of the pictures leaves its runs there."""
    root = tmp_path / "photos"
    write_folder(root, tree(*classes(count=4)))
    before = load(root)
    for run in (root / "runs" / "photos-lenet-1", root / "mine"):
        run.mkdir(parents=True)
        (run / "config.json").write_text("{}")
        (run / "last.safetensors").write_bytes(b"")
    after = load(root)
    assert after.classes == before.classes and after.digest == before.digest
