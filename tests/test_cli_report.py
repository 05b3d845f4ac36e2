"""Where `train` and `evaluate` put their reports, what they say of it, and that a report never costs a result."""

import io
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from pages import Page
from shapes_data import CLASSES, pictures

from pellucid import cli_report, report
from pellucid.cli import main


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A folder with shapes.npz."""
    monkeypatch.chdir(tmp_path)
    images, labels = pictures()
    np.savez("shapes.npz", images=images, labels=labels, classes=np.array(CLASSES))
    return tmp_path


@pytest.fixture
def call(work, capsys):
    """The command line in this process: (standard output, standard error) of arguments that end with a status."""
    def run(*arguments, status=0):
        with pytest.raises(SystemExit) as e:
            main(list(arguments))
        out, err = capsys.readouterr()
        assert (e.value.code or 0) == status, err
        return out, err

    return run


TRAIN = ("train", "shapes.npz", "--epochs", "2", "--out", "run")


def files(folder="."):
    return sorted(name for name in os.listdir(folder) if name.startswith(("report", ".")))


def broken(*arguments, **options):
    raise RuntimeError("no such luck")


def test_train_writes_it_into_the_run_folder_and_says_so(call):
    out, _ = call(*TRAIN)
    assert re.search(r"^report +run/report\.html$", out, re.MULTILINE)
    page = Page(Path("run/report.html").read_text())
    accuracy = re.search(r"test accuracy +(\S+)", out)[1]
    assert f"It recognises {accuracy} of the images that it has never seen" in page.text
    assert "pellucid " in page.text and "shapes.npz" in page.text
    # A longer run writes it anew.
    out, _ = call("train", "--resume", "run", "--epochs", "+1", "--json")
    told = json.loads(out)
    assert told["report"] == "run/report.html" and told["epochs"] == 3
    again = Page(Path("run/report.html").read_text())
    assert "3 epochs" in again.text and f"It recognises {told['test_accuracy']:.2%}" in again.text
    assert files("run") == ["report.html"]


def test_train_writes_none_where_none_is_wanted(call):
    out, _ = call(*TRAIN, "--no-report")
    assert ".html" not in out and files("run") == []
    assert json.loads(call("train", "--resume", "run", "--no-report", "--json")[0])["report"] is None


@pytest.mark.parametrize("fault", ["content", "disk", "interrupt"])
def test_a_report_that_fails_costs_a_line_and_no_training(call, monkeypatch, fault):
    if fault == "disk":
        def full(path, text):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("pellucid.files.atomic_text", full_report(full))
    else:
        error = KeyboardInterrupt() if fault == "interrupt" else RuntimeError("no such luck")

        def fails(run):
            raise error

        monkeypatch.setattr(report, "of_run", fails)
    out, err = call(*TRAIN)
    assert "test accuracy" in out and ".html" not in out
    (line,) = [line for line in err.splitlines() if line.startswith("pellucid:")]
    assert line.startswith("pellucid: no report: ") and "the run is whole" in line
    assert {"content": "no such luck", "disk": "No space", "interrupt": "Ctrl-C"}[fault] in line
    assert files("run") == [] and os.path.exists("run/best.safetensors")


def full_report(full):
    """The real writer, but for reports."""
    from pellucid.files import atomic_text

    return lambda path, text: (full if str(path).endswith(".html") else atomic_text)(path, text)


def test_an_interrupted_run_has_one_of_its_validation_images(call, monkeypatch):
    import signal

    from pellucid.training import progress

    class Stops(progress.Lines):
        def __call__(self, p):
            if p.step == 2:
                signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(progress, "display", lambda: Stops(io.StringIO()))
    _, err = call(*TRAIN, status=1)
    assert "validation images: run/report.html" in err and "Traceback" not in err
    assert "Training was stopped after step 2" in Page(Path("run/report.html").read_text()).text


@pytest.fixture
def trained(call):
    call(*TRAIN, "--no-report")
    return call


def test_evaluate_writes_beside_the_model_and_never_over_anything(trained):
    out, _ = trained("evaluate", "run", "shapes.npz")
    assert "run/report-shapes-1.html" in out.splitlines()[-1]
    first = Path("run/report-shapes-1.html").read_bytes()
    page = Page(first.decode())
    assert f"It recognises {re.search(r'accuracy +([0-9.]+%)', out)[1]}" in page.text and "never seen" in page.text
    os.symlink("nowhere", "run/report-shapes-2.html")
    assert "report-shapes-3.html" in trained("evaluate", "run/best.safetensors", "shapes.npz")[0]
    assert Path("run/report-shapes-1.html").read_bytes() == first and not os.path.exists("run/nowhere")
    assert files("run") == ["report-shapes-1.html", "report-shapes-2.html", "report-shapes-3.html"]


def test_evaluate_writes_where_it_is_told(trained):
    out, _ = trained("evaluate", "run", "shapes.npz", "--report", "here.html", "--json")
    assert json.loads(out)["report"] == "here.html"
    assert "pellucid " in Page(Path("here.html").read_text()).text
    assert files("run") == []


def test_evaluate_writes_none_with_json_alone_or_where_none_is_wanted(trained):
    assert json.loads(trained("evaluate", "run", "shapes.npz", "--json")[0])["report"] is None
    assert ".html" not in trained("evaluate", "run", "shapes.npz", "--no-report")[0]
    assert files() == files("run") == []


def test_evaluate_refuses_names_that_are_no_pages_or_are_read(trained):
    for options, words in ((("--report", "a.txt"), ".html"), (("--report", "a.html", "--no-report"), "not both")):
        assert words in trained("evaluate", "run", "shapes.npz", *options, status=2)[1]
    os.rename("shapes.npz", "shapes.html")
    assert "is read" in trained("evaluate", "run", "shapes.html", "--report", "shapes.html", status=2)[1]


def test_a_report_that_was_asked_for_and_fails_is_an_error_and_one_that_was_not_is_a_line(trained, monkeypatch):
    out, err = trained("evaluate", "run", "shapes.npz", "--report", "no/such/folder.html", status=1)
    assert "accuracy" in out and err.splitlines()[-1].startswith("pellucid: cannot write no/such/folder.html")
    monkeypatch.setattr(report, "of_evaluation", broken)
    out, err = trained("evaluate", "run", "shapes.npz")
    assert "accuracy" in out and "no report: " in err and "--report FILE" in err
    assert files("run") == []


@pytest.mark.parametrize("data, name", [("photos/", "photos"), ("a/ü b.zip", "b"), ("..", "data"), ("x" * 200, "xxx")])
def test_names_of_reports_are_plain(data, name, tmp_path):
    path = cli_report._free(tmp_path, data)
    assert path.parent == tmp_path and re.fullmatch(r"report-[A-Za-z0-9_.-]{1,40}-1\.html", path.name)
    assert name in path.name
