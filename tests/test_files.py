"""Files that are whole or not there: pellucid.files, and what it does for model files."""

import os
import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy  # noqa: F401  before root becomes nobody, who may not be able to read it

from pellucid.files import atomic_text, atomic_write, check_writable, filling, replacing
from pellucid.modelfile import read, write


@pytest.fixture
def old(tmp_path):
    path = tmp_path / "old.txt"
    path.write_bytes(b"old contents")
    return path


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("bug"), KeyboardInterrupt()])
def test_a_failing_writer_leaves_the_old_file(old, error):
    def writer(file):
        file.write(b"half")
        raise error

    with pytest.raises(type(error)) as e:
        atomic_write(old, writer)
    assert old.read_bytes() == b"old contents" and os.listdir(old.parent) == [old.name]
    if isinstance(error, OSError):
        assert str(e.value) == f"cannot write {old}: the disk is full: free some space or choose another folder"
        assert e.value.errno == 28


def test_atomic_text(tmp_path):
    atomic_text(tmp_path / "a.csv", "é\r\nb\n")
    assert (tmp_path / "a.csv").read_bytes() == "é\r\nb\n".encode()
    atomic_text(tmp_path / "a.csv", "")
    assert (tmp_path / "a.csv").read_bytes() == b"" and os.listdir(tmp_path) == ["a.csv"]


def test_long_names(tmp_path):
    atomic_text(tmp_path / ("é" * 127), "x")
    assert os.listdir(tmp_path) == ["é" * 127]
    with pytest.raises(OSError, match="name is too long"):
        atomic_text(tmp_path / ("é" * 128), "x")


def test_the_folder_is_synced_after_the_rename(tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda d: (calls.append(os.fstat(d).st_ino), fsync(d)))
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append("rename"), replace(a, b)))
    with replacing(tmp_path / "a") as temporary:
        temporary.write_text("x")
    assert calls == [(tmp_path / "a").stat().st_ino, "rename", tmp_path.stat().st_ino]


def test_check_writable(tmp_path):
    folder = tmp_path / "runs" / "one"
    assert check_writable(folder) == folder
    assert folder.is_dir() and not os.listdir(folder)
    check_writable(str(folder))
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(NotADirectoryError, match="cannot write into the folder .* a file, not a folder"):
            check_writable(path)


@pytest.mark.parametrize("number, message", [(28, "disk is full"), (30, "system is read-only"), (5, "Input/output")])
def test_check_writable_on_a_failing_disk(tmp_path, monkeypatch, number, message):
    def fail(_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match=f"cannot write into the folder .*{message}"):
        check_writable(tmp_path)
    assert not os.listdir(tmp_path)


@contextmanager
def unprivileged_folder(mode):
    """A folder as an ordinary user meets it; root, whom permissions do not bind, becomes nobody meanwhile."""
    root = os.geteuid() == 0
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "old").write_text("old")
        inner = Path(folder) / "inner"
        inner.mkdir()
        for path, bits in ((folder, 0o755), (inner, mode)):
            os.chmod(path, bits)
        try:
            if root:
                os.seteuid(65534)
            yield Path(folder), inner
        finally:
            if root:
                os.seteuid(0)
            inner.chmod(0o755)


def test_read_only_folder():
    array = {"a": np.zeros(3)}
    with unprivileged_folder(0o555) as (_, inner):
        with pytest.raises(PermissionError, match="cannot write .*permission denied: choose another folder"):
            write(inner / "m.safetensors", array, {})
        with pytest.raises(PermissionError, match="cannot write into the folder .*permission denied"):
            check_writable(inner)
        with pytest.raises(PermissionError, match="cannot write into the folder .*permission denied"):
            check_writable(inner / "new")
        assert not os.listdir(inner)


def test_unreadable_file():
    with unprivileged_folder(0o000) as (_, inner), pytest.raises(PermissionError, match="cannot read .*permission"):
        read(inner / "m.safetensors")


def test_filling_a_folder(tmp_path):
    for _ in range(2):
        with filling(tmp_path / "new" / "page", numbered=True) as inside:
            (inside / "pictures").mkdir()
            (inside / "pictures" / "a.svg").write_text("a")
            assert os.listdir(inside.parent) == [inside.name]
    for n in (1, 2):
        folder = tmp_path / "new" / f"page-{n}"
        assert os.listdir(folder) == ["pictures"] and (folder / "pictures" / "a.svg").read_text() == "a"
    (tmp_path / "mine").mkdir()
    number = (tmp_path / "mine").stat().st_ino
    with filling(tmp_path / "mine") as inside:
        (inside / "b").touch()
    assert os.listdir(tmp_path / "mine") == ["b"] and (tmp_path / "mine").stat().st_ino == number


@pytest.mark.parametrize("numbered", [False, True])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError("bad"), KeyboardInterrupt()])
def test_a_folder_that_is_not_filled_leaves_nothing(tmp_path, error, numbered):
    (tmp_path / "mine").mkdir()
    for path in (tmp_path / "a" / "b", tmp_path / "mine"):
        with pytest.raises(type(error)) as e, filling(path, numbered=numbered) as inside:
            (inside / "pictures").mkdir()
            (inside / "pictures" / "a.svg").write_text("half")
            raise error
        assert os.listdir(tmp_path) == ["mine"] and not os.listdir(tmp_path / "mine")
    if isinstance(error, OSError):
        assert "disk is full" in str(e.value) and e.value.errno == 28


def test_a_folder_whose_files_cannot_all_be_moved_up(tmp_path, monkeypatch):
    replace = os.replace

    def failing(source, target):
        if Path(source).name == "b":
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(KeyboardInterrupt), filling(tmp_path / "new") as inside:
        (inside / "a").mkdir()
        (inside / "a" / "x").touch()
        (inside / "b").touch()
    assert not os.listdir(tmp_path)


def test_folders_that_are_not_filled(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("mine")
    for path, error in (("full", "full is not empty; choose another"), ("file", "it is a file, not a folder"),
                        ("file/below", "a part of the path is a file, not a folder")):
        with pytest.raises(OSError, match=error), filling(tmp_path / path):
            raise AssertionError("it must not begin")
    assert sorted(os.listdir(tmp_path)) == ["file", "full"] and os.listdir(tmp_path / "full") == ["x"]
    with unprivileged_folder(0o555) as (_, inner):
        for path, numbered in ((inner, False), (inner / "new", False), (inner / "new", True)):
            with pytest.raises(PermissionError, match="permission denied"), filling(path, numbered=numbered):
                raise AssertionError("it must not begin")
        assert not os.listdir(inner)
