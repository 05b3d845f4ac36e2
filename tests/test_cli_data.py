"""The command line on people's own data: a folder of IDX files, and .npz files."""

import json

import numpy as np
import pytest
from data_helpers import idx
from PIL import Image
from shapes_data import CLASSES, pictures
from test_cli import assert_one_line, pellucid

from pellucid.model import load

ENDINGS = {"images": "images-idx3-ubyte", "labels": "labels-idx1-ubyte"}


def answer(*arguments, cwd):
    """What a command that succeeds prints as JSON."""
    done = pellucid(*arguments, "--json", cwd=cwd)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The same 90 training and 30 test images as IDX files in `shapes` and in shapes.npz, and a run on each."""
    path = tmp_path_factory.mktemp("data")
    images, labels = pictures()
    parts = {"train": slice(0, 90), "t10k": slice(90, None)}
    (path / "shapes").mkdir()
    for name, part in parts.items():
        (path / "shapes" / f"{name}-{ENDINGS['images']}").write_bytes(idx(images[part, ..., 0]))
        (path / "shapes" / f"{name}-{ENDINGS['labels']}").write_bytes(idx(labels[part].astype(np.uint8)))
    np.savez(path / "shapes.npz", x_train=images[:90], y_train=labels[:90], x_test=images[90:], y_test=labels[90:])
    np.savez(path / "some.npz", images=images[90:95])
    Image.fromarray(images[90, ..., 0]).save(path / "first.png")
    for source, run in (("shapes", "from_idx"), ("shapes.npz", "from_npz")):
        result = answer("train", source, "--epochs", "1", "--out", run, cwd=path)
        (path / f"{run}.json").write_text(json.dumps(result))
    return path


RUNS = [("shapes", "from_idx"), ("shapes.npz", "from_npz")]


@pytest.mark.parametrize("source, run", RUNS)
def test_train(folder, source, run):
    result = json.loads((folder / f"{run}.json").read_text())
    assert (result["epochs"], result["interrupted"], result["run"]) == (1, False, run)
    assert result["split"]["test"] == result["test"]["count"] == 30  # the file's own test images
    assert result["split"]["train"] + result["split"]["validation"] == 90
    model = load(folder / result["model"])
    assert model.network.input_shape == (8, 8, 1) and model.classes == ["0", "1", "2"]
    assert model.record["test"]["accuracy"] == result["test_accuracy"]


@pytest.mark.parametrize("source, run", RUNS)
@pytest.mark.parametrize("other", ["shapes", "shapes.npz"])
def test_evaluate(folder, source, run, other):
    """Either file gives what training said: they hold the same test images."""
    result = answer("evaluate", run, other, cwd=folder)
    trained = json.loads((folder / f"{run}.json").read_text())
    assert result["count"] == 30 and result["correct"] == trained["test"]["correct"]
    images, labels = pictures()
    predicted = load(folder / run / "best.safetensors").predict(images[90:]).argmax(axis=1)
    assert result["correct"] == int((predicted == labels[90:]).sum())
    confusion = np.zeros((3, 3), int)
    np.add.at(confusion, (labels[90:], predicted), 1)
    assert result["confusion"] == confusion.tolist()


@pytest.mark.parametrize("source, run", RUNS)
def test_predict(folder, source, run):
    result = answer("predict", run, "some.npz", "first.png", cwd=folder)
    found = result["predictions"]
    assert [(f["path"], f["index"]) for f in found] == [*(("some.npz", i) for i in range(5)), ("first.png", None)]
    expected = load(folder / run / "best.safetensors").predict(pictures()[0][90:95])
    for f, probabilities in zip(found, [*expected, expected[0]], strict=True):
        assert [f["probabilities"][c] for c in "012"] == [float(p) for p in probabilities]
        assert f["class"] == str(probabilities.argmax())


def test_the_formats_make_no_difference(folder):
    a, b = (load(folder / run / "best.safetensors") for _, run in RUNS)
    for name, value in a.parameters.items():
        np.testing.assert_array_equal(value, b.parameters[name], name)
    assert a.preprocessing == b.preprocessing


def test_idx_files_are_no_pictures(folder):
    paths = ("shapes", f"shapes/t10k-{ENDINGS['images']}")
    done = pellucid("predict", "from_idx", *paths, cwd=folder)
    assert done.returncode == 1 and done.stdout == "" and "Traceback" not in done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 2
    for line, path in zip(lines, paths, strict=True):
        assert line.startswith(f"pellucid: {path}")


@pytest.mark.parametrize("damage", ["short", "no labels"])
def test_damaged_idx_files(folder, tmp_path, damage):
    for path in (folder / "shapes").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    if damage == "short":
        broken = tmp_path / f"train-{ENDINGS['images']}"
        broken.write_bytes(broken.read_bytes()[:-1])
    else:
        broken = tmp_path / f"train-{ENDINGS['labels']}"
        broken.unlink()
    line = assert_one_line(pellucid("train", tmp_path, "--out", tmp_path / "run", cwd=tmp_path))
    assert broken.name in line
    assert not (tmp_path / "run").exists()


def test_classes_named_in_the_file(tmp_path):
    images, labels = pictures(60)
    np.savez(tmp_path / "named.npz", images=images, labels=labels, classes=np.array(CLASSES))
    result = answer("train", "named.npz", "--epochs", "1", "--out", "run", cwd=tmp_path)
    assert load(tmp_path / result["model"]).classes == CLASSES
    assert [c["name"] for c in answer("evaluate", "run", "named.npz", cwd=tmp_path)["classes"]] == CLASSES
