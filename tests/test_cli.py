"""The command line as a user meets it: in a process of its own, by what it prints and how it ends."""

import json
import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from shapes_data import CLASSES, pictures

from pellucid.model import load
from pellucid.modelfile import read
from pellucid.texts import quoted

SHORT = ("--epochs", "4", "--no-report")


def command(*arguments):
    return [sys.executable, "-m", "pellucid", *map(str, arguments)]


def pellucid(*arguments, cwd, **environment):
    return subprocess.run(command(*arguments), cwd=cwd, capture_output=True, text=True, timeout=120,
                          stdin=subprocess.DEVNULL, env={**os.environ, **environment})


def assert_one_line(done, status=1):
    """The command ended with that status, nothing on standard output, and one last line that says what is wrong."""
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("pellucid: ")]
    assert len(lines) == 1 and done.stderr.splitlines()[-1] == lines[0], done.stderr
    return lines[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with shapes.npz, two pictures, a broken one, and a trained run in `run`."""
    path = tmp_path_factory.mktemp("work")
    images, labels = pictures()
    np.savez(path / "shapes.npz", images=images, labels=labels, classes=np.array(CLASSES))
    np.savez(path / "unlabelled.npz", images=images[:3] / 255)
    Image.fromarray(images[0, ..., 0]).save(path / "bar.png")
    Image.fromarray(images[1, ..., 0]).resize((40, 40)).convert("RGB").save(path / "disc.bmp")
    (path / "broken.png").write_bytes((path / "bar.png").read_bytes()[:60])
    (path / "notes.png").write_text("not a picture")
    done = pellucid("train", "shapes.npz", "--epochs", "12", "--out", "run", "--json", cwd=path)
    assert done.returncode == 0, done.stderr
    (path / "trained.json").write_text(done.stdout)
    return path


class TestHelp:
    def test_alone_it_says_what_it_can_do(self, tmp_path):
        done = pellucid(cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        assert "pellucid train digits" in done.stdout
        for name in ("train", "evaluate", "predict", "summary", "data labels", "export", "import"):
            assert f"pellucid {name}" in done.stdout

    @pytest.mark.parametrize("name", ["train", "evaluate", "predict", "summary", "data labels", "compare", "export",
                                      "import"])
    def test_each_command_shows_examples(self, name, tmp_path):
        done = pellucid(*name.split(), "--help", cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        examples = done.stdout.split("Examples:")[1].split("\n\n")[0].strip().splitlines()
        assert len(examples) >= 2
        assert all(line.strip().startswith(f"pellucid {name} ") for line in examples)

    def test_version(self, tmp_path):
        import pellucid as package

        assert pellucid("--version", cwd=tmp_path).stdout == f"pellucid {package.__version__}\n"

    @pytest.mark.parametrize("arguments, message", [
        (("trian",), "trian"),
        (("train",), "pellucid train digits"),
        (("train", "digits", "--epochs", "0"), "--epochs"),
        (("train", "digits", "--epochs", "x"), "--epochs"),
        (("train", "digits", "--seed", "-1"), "--seed"),
        (("train", "digits", "--epochs", "1", "--time", "2m"), "not both"),
        (("train", "digits", "--time", "soon"), "90s, 2m or 1h30m"),
        (("train", "--resume", "run", "--seed", "3"), "leave out --seed"),
        (("train", "digits", "--lr", "nan"), "--lr must be"),
        (("train", "digits", "--lr", "0"), "--lr must be"),
        (("train", "digits", "--engine", "fast"), "native, torch"),
        (("train", "digits", "--precision", "8"), "int16, float32, bfloat16, float16"),
        (("train", "--resume", ""), "--resume needs"),
        (("predict", "run"), "PATH"),
        (("evaluate", "run"), "DATA"),
        (("predict", "run", "bar.png", "--csv", "bar.png"), "ends in .csv"),
        (("predict", "run", "bar.png", "a.csv", "--csv", "./a.csv"), "would overwrite ./a.csv"),
        (("predict", "run", "bar.png", "--top", "0"), "--top"),
        (("evaluate", "run", "shapes.npz", "--csv", "shapes.npz"), "ends in .csv"),
        (("data", "labels", "shapes.npz", "--folds", "1"), "--folds"),
        (("summary", "lenet", "--input", "28by28"), "28x28x1"),
        (("train", "digits", "--unknown"), "--unknown"),
        (("train", "digits", "--net", "lenett"), "lenet"),
        (("train", "digits", "--size", "0"), "--size"),
        (("train", "digits", "--size", "9999"), "--size must be"),
        (("train", "digits", "--shift", "9999"), "--shift must be"),
        (("train", "digits", "--cutout", "1.5"), "--cutout"),
        (("train", "digits", "--cutout", "9999"), "--cutout must be"),
        (("train", "digits", "--epochs", "10000000"), "--epochs must be"),
        (("data", "labels", "digits", "--net", "lenett"), "lenet"),
        (("data", "labels", "digits", "--time", "soon"), "90s, 2m or 1h30m"),
        (("data", "labels", "digits", "--time", "9s", "--epochs", "2"), "not both"),
        (("data", "labels", "digits", "--epochs", "10000000"), "--epochs must be"),
        (("summary", "lenet", "--input", "99999x99999x3"), "--input would have"),
    ])
    def test_wrong_command_lines(self, arguments, message, folder):
        done = pellucid(*arguments, cwd=folder)
        assert done.returncode == 2, done.stderr
        assert done.stdout == "" and message in done.stderr and "Traceback" not in done.stderr


FULL = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux's /dev/full")


class TestStreams:
    @FULL
    @pytest.mark.parametrize("arguments", [
        "", "--version", "--help", "train --help", "summary lenet", "summary lenet --json", "predict run bar.png",
        "evaluate run shapes.npz",
    ])
    def test_standard_output_that_is_full(self, folder, arguments):
        with open("/dev/full", "w") as full:
            done = subprocess.run(command(*arguments.split()), cwd=folder, stdout=full, stderr=subprocess.PIPE,
                                  text=True, timeout=60)
        assert (done.returncode, done.stderr) == (
            1, "pellucid: cannot write to standard output: No space left on device\n")

    @FULL
    @pytest.mark.parametrize("redirect", ["2>/dev/full", "2>&-", "2> >(head -1 >/dev/null)"])
    def test_standard_error_that_is_broken(self, folder, tmp_path, redirect):
        train = [*command("train", folder / "shapes.npz", "--epochs", "12", "--json")]
        done = subprocess.run(["bash", "-c", f'"$@" {redirect}', "-", *train], cwd=tmp_path, capture_output=True,
                              text=True, timeout=60)
        assert done.returncode == 0 and json.loads(done.stdout)["test"]["count"] == 30
        wrong = subprocess.run(["bash", "-c", '"$@" 2>/dev/full', "-", *command("trian")], timeout=60)
        assert wrong.returncode == 2

    def test_names_that_cannot_be_shown(self, tmp_path):
        images, labels = pictures()
        names = np.array(["\u00e9", "a\nb", "\x1b[31m"])
        np.savez(tmp_path / "odd.npz", images=np.repeat(images, 2, axis=3), labels=labels, classes=names)
        np.savez(tmp_path / "x\ny.npz", images=np.repeat(images[:1], 2, axis=3))
        plain = dict(LC_ALL="C", PYTHONIOENCODING="ascii")
        trained = pellucid("train", "odd.npz", *SHORT, "--out", "r\u00e9\n", cwd=tmp_path, **plain)
        assert trained.returncode == 0, trained.stderr
        assert "run folder     r\\xe9\\n\n" in trained.stdout
        assert "pellucid evaluate" in trained.stdout and "predict" not in trained.stdout  # 2 channels: no picture
        done = pellucid("evaluate", "r\u00e9\n", "odd.npz", cwd=tmp_path, **plain)
        assert [line.split()[0] for line in done.stdout.splitlines()[-5:-2]] == ["\\xe9", "a\\nb", "\\x1b[31m"]
        done = pellucid("predict", "r\u00e9\n", "x\ny.npz", "no\nne.png", cwd=tmp_path, **plain)
        assert done.stdout.startswith("x\\ny.npz[0]: ") and done.stdout.count("\n") == 1, done
        assert done.stderr.startswith("pellucid: no\\nne.png: ") and done.stderr.count("\n") == 1

    def test_shell_quotes_on_one_line(self):
        path = "a b/\u00e9\n'\\\x1b.npz"
        shown = subprocess.run(["bash", "-c", f"printf %s {quoted(path)}"], capture_output=True, timeout=60).stdout
        assert "\n" not in quoted(path) and os.fsdecode(shown) == path


class TestTrain:
    def test_json_is_all_there_is_on_standard_output(self, folder):
        result = json.loads((folder / "trained.json").read_text())
        assert result["run"] == "run" and result["interrupted"] is False
        assert result["test"]["count"] == 30 and result["test_accuracy"] >= 0.9
        model = load(folder / result["model"])
        assert model.record["test"]["accuracy"] == result["test_accuracy"]
        config = json.loads((folder / "run" / "config.json").read_text())
        assert config["command"] == ["pellucid", "train", "shapes.npz", "--epochs", "12", "--out", "run", "--json"]

    def test_people_read_accuracy_folder_and_next_command(self, folder, tmp_path):
        done = pellucid("train", folder / "shapes.npz", *SHORT, "--threads", "1", "--seed", "7", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert re.search(r"test accuracy +\d+\.\d\d% \(\d+ of 30 images", done.stdout)
        assert re.search(r"^run folder +runs/shapes-lenet-1$", done.stdout, re.M)
        assert re.search(r"^epoch 1/4  loss [\d.]+  validation [\d.]+% \(kept\)  [\d,]+ images/s", done.stderr, re.M)
        assert re.search(r"^epoch 4/4 ", done.stderr, re.M)
        following = re.search(r"pellucid (evaluate \S+ \S+)", done.stdout)[1].split()
        again = pellucid(*following, "--json", cwd=tmp_path)
        assert again.returncode == 0, again.stderr
        accuracy = re.search(r"\((\d+) of 30", done.stdout)[1]
        assert json.loads(again.stdout)["correct"] == int(accuracy)

    def test_live_progress_on_a_terminal(self, folder, tmp_path):
        pty = pytest.importorskip("pty", reason="terminals are imitated on Unix only")
        ours, theirs = pty.openpty()
        done = subprocess.run(command("train", folder / "shapes.npz", *SHORT), cwd=tmp_path, stdout=subprocess.PIPE,
                              stderr=theirs, env={**os.environ, "TERM": "xterm", "COLUMNS": "120"}, timeout=120)
        os.close(theirs)
        shown = b""
        try:
            while part := os.read(ours, 65536):
                shown += part
        except OSError:  # how Linux says that the other side is closed
            pass
        os.close(ours)
        assert done.returncode == 0, shown
        assert b"epoch" in shown and b"images/s" in shown and b"left" in shown
        assert b"test accuracy" in done.stdout

    def test_interrupt_keeps_the_best_and_resumes(self, folder, tmp_path):
        process = subprocess.Popen(
            command("train", folder / "shapes.npz", "--epochs", "200", "--out", "a", "--json"), cwd=tmp_path, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for line in process.stderr:
            if line.startswith("epoch "):
                break
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 1, err
        assert "Traceback" not in err
        result = json.loads(out)
        assert result["interrupted"] is True and result["test"] is None and 0 < result["steps"] < 200 * 5
        assert load(tmp_path / "a" / "best.safetensors").classes == CLASSES
        resume = re.search(r"Continue with: pellucid (train --resume \S+)", err)[1].split()
        done = pellucid(*resume, "--json", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["test"]["count"] == 30

    def test_divergence_says_where_and_what_to_try(self, folder, tmp_path):
        done = pellucid("train", folder / "shapes.npz", *SHORT, "--lr", "1e30", "--out", "a", "--json", cwd=tmp_path)
        line = assert_one_line(done)
        assert done.stdout == ""
        assert re.search(r"step \d+", line) and "lower learning rate" in line
        assert "a/last.safetensors" in line
        assert all(np.isfinite(values).all() for values in read(tmp_path / "a" / "last.safetensors")[0].values())

    def test_unwritable_folder_is_said_before_training(self, folder, tmp_path):
        (tmp_path / "runs").write_text("a file where the folder should be")
        done = pellucid("train", folder / "shapes.npz", cwd=tmp_path)
        assert "cannot write into the folder runs" in assert_one_line(done)
        assert "epoch" not in done.stderr

    def test_second_run_into_a_folder(self, folder):
        assert "--resume run" in assert_one_line(pellucid("train", "shapes.npz", "--out", "run", cwd=folder))

    @pytest.mark.parametrize("data, message", [
        ("digit", "did you mean 'digits'?"), ("gone.npz", "gone.npz"), ("bar.png", "one picture is no data set"),
        ("~nobody-of-this-name/x.npz", "write the path in full"),
    ])
    def test_data_that_cannot_be_used(self, folder, data, message):
        done = pellucid("train", data, cwd=folder)
        assert message in assert_one_line(done) and done.stdout == ""

    def test_bad_arrays(self, tmp_path):
        images, labels = pictures(30)
        bad = images / 255
        bad[4, 1, 1] = np.nan
        np.savez(tmp_path / "nan.npz", images=bad, labels=labels)
        np.savez(tmp_path / "names.npz", pictures=images, answers=labels)
        np.savez(tmp_path / "labels.npz", images=images, labels=labels - 1)
        assert "NaN" in assert_one_line(pellucid("train", "nan.npz", cwd=tmp_path))
        assert "images/labels" in assert_one_line(pellucid("train", "names.npz", cwd=tmp_path))
        assert "label" in assert_one_line(pellucid("train", "labels.npz", cwd=tmp_path))
        assert not (tmp_path / "runs").exists()

    def test_traceback_on_request(self, folder):
        done = pellucid("train", "gone.npz", cwd=folder, PELLUCID_TRACEBACK="1")
        assert done.returncode == 1 and "Traceback" in done.stderr


class TestEvaluate:
    def test_counts_the_test_images_of_the_models_own_data(self, folder):
        done = pellucid("evaluate", "run", "shapes.npz", "--json", cwd=folder)
        result = json.loads(done.stdout)
        assert (done.returncode, done.stderr) == (0, "")
        trained = json.loads((folder / "trained.json").read_text())
        assert {k: result[k] for k in trained["test"]} == trained["test"]
        assert [c["name"] for c in result["classes"]] == CLASSES
        assert sum(c["correct"] for c in result["classes"]) == result["correct"]
        assert np.sum(result["confusion"]) == result["count"] == 30

    def test_table(self, folder):
        done = pellucid("evaluate", "run/best.safetensors", "shapes.npz", cwd=folder)
        assert done.returncode == 0, done.stderr
        assert "test images: 30 images" in done.stdout
        assert [line.split()[0] for line in done.stdout.splitlines()[-5:-2]] == CLASSES

    @pytest.mark.parametrize("model, message", [
        ("gone.safetensors", "gone.safetensors"),
        ("broken.png", "broken.png"),
        (".", "has no best.safetensors"),
        ("run/last.safetensors", "best.safetensors"),
    ])
    def test_what_is_no_model(self, folder, model, message):
        assert message in assert_one_line(pellucid("evaluate", model, "shapes.npz", cwd=folder))

    def test_truncated_model(self, folder, tmp_path):
        whole = (folder / "run" / "best.safetensors").read_bytes()
        for size in (0, 7, 100, len(whole) - 1):
            (tmp_path / "m.safetensors").write_bytes(whole[:size])
            assert "m.safetensors" in assert_one_line(pellucid("evaluate", "m.safetensors", "digits", cwd=tmp_path))

    def test_classes_it_does_not_know(self, folder):
        line = assert_one_line(pellucid("evaluate", "run", "digits", cwd=folder))
        assert "does not know the class '0'" in line and "bar, disc, ring" in line


class TestPredict:
    def test_pictures_and_arrays(self, folder):
        done = pellucid("predict", "run", "bar.png", "disc.bmp", "unlabelled.npz", "--json", cwd=folder)
        assert (done.returncode, done.stderr) == (0, "")
        found = json.loads(done.stdout)["predictions"]
        assert [(f["path"], f["index"]) for f in found] == [
            ("bar.png", None), ("disc.bmp", None), *(("unlabelled.npz", i) for i in range(3))]
        assert [f["class"] for f in found] == ["bar", "disc", "bar", "disc", "ring"]
        for f in found:
            assert sum(f["probabilities"].values()) == pytest.approx(1, abs=1e-5)
            assert f["probability"] == max(f["probabilities"].values()) == f["probabilities"][f["class"]]
        expected = load(folder / "run" / "best.safetensors").predict(pictures()[0][:1])[0]
        assert list(found[0]["probabilities"].values()) == sorted(map(float, expected), reverse=True)

    def test_text(self, folder):
        done = pellucid("predict", "run", "bar.png", cwd=folder)
        assert re.fullmatch(r"bar\.png: bar [\d.]+%, \w+ [\d.]+%, \w+ [\d.]+%\n", done.stdout)

    def test_bad_files_are_named_and_the_others_go_on(self, folder):
        paths = ["gone.png", "bar.png", "broken.png", "notes.png", "run", "run/config.json", "disc.bmp", "trained.npz"]
        done = pellucid("predict", "run", *paths, "--json", cwd=folder)
        assert done.returncode == 1 and "Traceback" not in done.stderr
        result = json.loads(done.stdout)
        assert [p["path"] for p in result["predictions"]] == ["bar.png", "disc.bmp"]
        bad = [path for path in paths if path not in ("bar.png", "disc.bmp")]
        said = [line for line in done.stderr.splitlines() if line.startswith("pellucid: ")]
        assert said[0].startswith("pellucid: gone.png: cannot be read: no such file")
        assert [line.count(name) for line, name in zip(said, bad, strict=True)] == [1] * len(bad), said
        assert [f["path"] for f in result["failures"]] == bad
        lines = done.stderr.splitlines()
        assert len(lines) == len(bad)
        for line, path in zip(lines, bad, strict=True):
            assert line.startswith(f"pellucid: {path}")

    def test_starts_without_what_it_does_not_need(self, folder):
        """Half a second from the shell: scikit-learn, rich, safetensors and PyTorch alone take longer to import."""
        code = ("import sys; from pellucid.cli import main\n"
                "try: main(['predict', 'run', 'bar.png'])\n"
                "except SystemExit as e: assert e.code in (0, None)\n"
                "print(*sorted({'sklearn', 'scipy', 'rich', 'torch', 'halide', 'safetensors'} & set(sys.modules)))")
        done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=60)
        assert done.stdout.splitlines()[-1] == "", done.stdout + done.stderr


class TestSummary:
    def test_network_by_name(self, tmp_path):
        done = pellucid("summary", "lenet", "--input", "32x32x3", "--classes", "7", cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        assert "32x32x3" in done.stdout and "conv1" in done.stdout

    def test_json_of_a_model(self, folder):
        result = json.loads(pellucid("summary", "run", "--json", cwd=folder).stdout)
        assert result["input"] == [8, 8, 1] and result["output"] == [3]
        assert result["parameters"] == sum(layer["parameters"] for layer in result["layers"])
        first = result["layers"][0]
        assert (first["name"], first["output"], first["parameters"], first["receptive_field"]) == (
            "conv1", [8, 8, 32], 320, [3, 3])

    def test_unknown_network(self, tmp_path):
        line = assert_one_line(pellucid("summary", "lennet", cwd=tmp_path))
        assert "lenet" in line

    def test_shape_of_a_model_is_its_own(self, folder):
        done = pellucid("summary", "run", "--classes", "4", cwd=folder)
        assert done.returncode == 2 and "a model has its own" in done.stderr
