"""`pellucid data check` as a user meets it."""

import json
import os
import pty
import subprocess

import numpy as np
import pytest
from photos_data import sound
from test_cli import assert_one_line, command, pellucid

from pellucid import cli_check


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """sound.npz, in which nothing is wrong, and copies.npz with a copy in the test set."""
    path = tmp_path_factory.mktemp("check")
    data = sound(72, 24)
    arrays = {"y_train": data.labels, "x_test": data.test_images, "y_test": data.test_labels,
              "classes": np.array(data.classes)}
    np.savez(path / "sound.npz", x_train=data.images, **arrays)
    images = data.images.copy()
    images[5] = data.test_images[4]  # cat and bee
    np.savez(path / "copies.npz", x_train=images, **arrays)
    return path


def quiet(text):
    """Standard error holds nothing but, on a slow machine, how far it is."""
    return all(line.startswith(("comparing images: ", "looking for ")) for line in text.splitlines())


def test_in_words(folder):
    done = pellucid("data", "check", "copies.npz", cwd=folder)
    assert done.returncode == 0 and quiet(done.stderr)
    assert done.stdout.startswith("copies.npz: 96 images in 3 classes, 16x16x3")
    assert "serious: 1 group of equal images with different labels\n" in done.stdout
    assert "    image 5 = test image 4: bee, cat\n" in done.stdout
    done = pellucid("data", "check", "sound.npz", cwd=folder)
    assert done.returncode == 0 and done.stdout.endswith("Nothing was found that is wrong or suspicious.\n")


def test_as_json(folder):
    before = (folder / "copies.npz").read_bytes()
    done = pellucid("data", "check", "copies.npz", "--json", cwd=folder)
    assert done.returncode == 0 and quiet(done.stderr)
    value = json.loads(done.stdout)
    assert value["name"] == "copies.npz" and value["counts"]["ant"] == {"training": 24, "test": 8}
    assert [(f["kind"], f["items"]) for f in value["findings"]] == [
        ("exact-labels", [{"names": ["image 5", "test image 4"], "note": "bee, cat"}]),
        ("exact-parts", [{"names": ["image 5", "test image 4"], "note": "training, test"}]),
    ]
    assert (folder / "copies.npz").read_bytes() == before and len(list(folder.iterdir())) == 2


def test_what_training_refuses_is_a_finding(folder, tmp_path):
    from data_helpers import tree, write_folder

    write_folder(tmp_path / "photos", tree("ant/1.png", "ant/2.png", "bee/readme.txt", "loose.png"))
    done = pellucid("data", "check", "photos", cwd=tmp_path, PELLUCID_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 0 and quiet(done.stderr)
    assert "photos: 2 images in 2 classes" in done.stdout
    assert "serious: 1 class without an image\n" in done.stdout and "\n    bee\n" in done.stdout
    assert "loose.png: is in no class's folder" in done.stdout
    assert "warning: 1 class of fewer than 20 images" in done.stdout
    done = pellucid("train", "photos", cwd=tmp_path, PELLUCID_CACHE=str(tmp_path / "cache"))
    assert "the class 'bee' has no picture" in assert_one_line(done)


def test_data_that_cannot_be_checked(folder):
    assert "no such file" in assert_one_line(pellucid("data", "check", "nowhere.npz", cwd=folder))


@pytest.mark.parametrize("arguments, message", [
    (("data",), "Missing command"), (("data", "chekc"), "chekc"), (("data", "check"), "DATA"),
    (("data", "check", "a", "b"), "b"),
])
def test_wrong_command_lines(folder, arguments, message):
    done = pellucid(*arguments, cwd=folder)
    assert done.returncode == 2 and done.stdout == "" and message in done.stderr and "Traceback" not in done.stderr


def test_help(folder):
    done = pellucid("data", "check", "--help", cwd=folder)
    assert done.returncode == 0 and "pellucid data check photos.npz --json" in done.stdout
    assert "check" in pellucid("data", "--help", cwd=folder).stdout


def test_on_a_terminal_it_shows_how_far_it_is(folder):
    controller, terminal = pty.openpty()
    done = subprocess.run(command("data", "check", "sound.npz", "--json"), cwd=folder, stdout=subprocess.PIPE,
                          stderr=terminal, stdin=subprocess.DEVNULL, text=True, timeout=60,
                          env={**os.environ, "TERM": "xterm", "COLUMNS": "100"})
    os.close(terminal)
    shown = os.read(controller, 2**16).decode()
    os.close(controller)
    assert done.returncode == 0 and json.loads(done.stdout)["findings"] == []
    assert "looking for empty images" in shown and "96/96" in shown


def test_plain_lines_come_every_so_often(monkeypatch, capsys):
    import sys

    now = [0.0]
    monkeypatch.setattr(cli_check.time, "monotonic", lambda: now[0])
    with cli_check.display(sys.stderr) as progress:
        for done in range(0, 5001, 500):
            now[0] = done / 1000
            progress("comparing images", done, 5000)
    assert capsys.readouterr().err == "comparing images: 2,000 of 5,000\ncomparing images: 4,000 of 5,000\n"
    with cli_check.display(None) as progress:  # standard error is closed
        now[0] = 100
        progress("comparing images", 1, 2)
