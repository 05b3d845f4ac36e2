"""`pellucid explain` and `pellucid study` as a user meets them: files, text, JSON, and what is refused."""

import json
import os
import shutil
import signal
import tempfile
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from shapes_data import CLASSES, pictures
from test_files import unprivileged_folder
from test_pages import ExplainedPage

from pellucid import cli_check, data, explain, studies
from pellucid.cli import main
from pellucid.layers import Conv, Dense, Flatten, MaxPool, ReLU
from pellucid.model import Model
from pellucid.network import Network, Sequential
from pellucid.preprocessing import Preprocessing
from pellucid.training.setup import digest, split_digest

IMAGES, LABELS = pictures(60)
CONV = Sequential(Conv(6, 3, padding=1), ReLU(), MaxPool(2), Flatten(), Dense(3))


def model_of(body=CONV, **more):
    more = {"preprocessing": Preprocessing((8, 8, 1), (0.4,), (0.3,)), "classes": CLASSES, **more}
    return Model(Network.build((8, 8, 1), body), seed=3, **more)


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A model, its data, and a picture."""
    monkeypatch.chdir(tmp_path)
    np.savez("shapes.npz", images=IMAGES, labels=LABELS, classes=np.array(CLASSES))
    Image.fromarray(IMAGES[4, ..., 0]).save("ring.png")
    model = model_of()
    model.save("m.safetensors")
    return model


def run(capsys, *arguments, status=0):
    with pytest.raises(SystemExit) as e:
        main(list(map(str, arguments)))
    out, err = capsys.readouterr()
    assert (e.value.code or 0) == status, err
    if status == 1:
        assert out == "" and err.count("\n") == 1 and err.startswith("pellucid: "), err
    return out, err


def fails(capsys, *arguments):
    """The one line of an error, after which the folder holds what it held."""
    before = sorted(os.listdir())
    _, err = run(capsys, *arguments, status=1)
    assert sorted(os.listdir()) == before
    return err


def covered(image, box, outside=False):
    y, x, height, width = box
    part = np.zeros(image.shape[:2], bool)
    part[y:y + height, x:x + width] = True
    return np.where((part ^ outside)[..., None], np.float32(0), image)


def test_page_json_and_pictures_say_what_the_model_says(work, capsys):
    out, _ = run(capsys, "explain", "m.safetensors", "ring.png", "--json")
    told = json.loads(out)
    folder = Path("explained", "ring-1")
    assert told.pop("page") == str(folder / "explanation.html")
    assert json.loads((folder / "explanation.json").read_text()) == told
    assert sorted(os.listdir(folder)) == ["explanation.html", "explanation.json", "pictures"]
    for file in (folder / "pictures").iterdir():
        assert ElementTree.parse(file).getroot().tag == "{http://www.w3.org/2000/svg}svg"

    p = work.predict(IMAGES[4:5])[0]
    best = int(p.argmax())
    assert told["answer"] == told["target"] == CLASSES[best]
    assert told["probabilities"] == pytest.approx(dict(zip(CLASSES, p.tolist(), strict=True)))
    assert told["logit"] == pytest.approx(work.logits(work.preprocessing.apply(IMAGES[4:5]))[0, best], rel=1e-5)
    assert [m["method"] for m in told["maps"]] == list(explain.METHODS)
    for each in told["maps"]:
        found = explain.METHODS[each["method"]](work, IMAGES[4])
        assert each["deletion_area"] == pytest.approx(explain.deletion(work, found).area)
        assert each["insertion_gain"] == pytest.approx(explain.insertion(work, found).gain)

    page = ExplainedPage((folder / "explanation.html").read_text())
    assert f"The model says {CLASSES[best]}, at {p[best]:.1%}" in page.text
    shown = {row[0]: row[1] for table in page.tables for row in table if len(row) == 5}
    for each in told["maps"]:
        name = {"grad_cam": "Grad-CAM", "gradient_times_input": "gradient x input"}.get(
            each["method"], each["method"].replace("_", " "))
        assert shown[name] == f"{each['deletion_area']:.3f}"
    assert "pellucid" in page.text and "shapes" not in page.text


def test_a_part_of_the_image(work, capsys):
    """What is said of a part is what the model answers when it, or all else, is covered."""
    box = [1, 2, 3, 4]
    told = json.loads(run(capsys, "explain", "m.safetensors", "ring.png", "--region", "1,2,3,4", "--method", "gradient",
                          "--target", "bar", "--json")[0])
    region, read = told["region"], work.preprocessing.apply(IMAGES[4:5])[0]
    assert region["box"] == box and not region["found"] and told["target"] == "bar"
    for key, image in (("without", covered(read, box)), ("alone", covered(read, box, outside=True))):
        p = np.exp(work.log_probabilities(image[None])[0])
        assert region[key]["probability"] == pytest.approx(p[CLASSES.index("bar")])
        assert region[key]["answer"] == CLASSES[p.argmax()]
    adds = work.logits(read[None])[0] - work.logits(covered(read, box)[None])[0]
    assert region["adds"] == pytest.approx(dict(zip(CLASSES, adds.tolist(), strict=True)), rel=1e-4, abs=1e-6)
    out, _ = run(capsys, "explain", "m.safetensors", "ring.png", "--region", "1,2,3,4", "--method", "gradient",
                 "--target", "0")
    words = " ".join(out.split())
    assert "Explained here is bar" in words and "rows 1 to 3, columns 2 to 5" in words
    assert f"covered, bar goes from {told['probability']:.1%} to {region['without']['probability']:.1%}" in words


def test_a_number_is_opened(work, capsys):
    out, _ = run(capsys, "explain", "m.safetensors", "ring.png", "--at", "conv1[3,4,0]", "--method", "gradient")
    opened = work.trace(IMAGES[4])["conv1"][3, 4, 0]
    assert str(opened) in out
    told = json.loads(run(capsys, "explain", "m.safetensors", "ring.png", "--at", "conv1[3,4,0]", "--method",
                          "gradient", "--json")[0])
    assert told["at"] == json.loads(json.dumps(opened.to_json())) and len(told["at"]["terms"]) == 9
    assert told["region"]["box"] == [2, 3, 3, 3]  # what the number sees
    page = ExplainedPage(Path(told["page"]).read_text())
    assert "What conv1[3,4,0] is made of" in [text for _, text in page.headings]
    assert told["path"][0]["value"] == pytest.approx(told["logit"], rel=1e-5) and told["path"][-1]["name"] == "input"


def test_output_never_replaces_anything(work, capsys):
    for n in (1, 2):
        out, _ = run(capsys, "explain", "m.safetensors", "shapes.npz:4", "--method", "gradient")
        assert f"explained/shapes-4-{n}/explanation.html" in out and "Next:" in out
    os.mkdir("mine")
    Path("mine/notes.txt").write_text("mine")
    assert "mine is not empty" in fails(capsys, "explain", "m.safetensors", "ring.png", "--out", "mine")
    assert os.listdir("mine") == ["notes.txt"]
    run(capsys, "explain", "m.safetensors", "ring.png", "--out", "new/page", "--method", "gradient")
    assert sorted(os.listdir("new/page")) == ["explanation.html", "explanation.json", "pictures"]


@pytest.mark.parametrize(("arguments", "said"), [
    (["ring.png", "--region", "1,2,3"], "--region is y,x,height,width"),
    (["ring.png", "--region", "a,2,3,4"], "--region is y,x,height,width"),
    (["ring.png", "--method", "magic"], "there is no method 'magic'"),
    (["ring.png", "--at", "conv1[3"], "an address is a name and an index"),
    ([], "Missing argument"),
])
def test_wrong_command_lines(work, capsys, arguments, said):
    before = sorted(os.listdir())
    assert said in " ".join(run(capsys, "explain", "m.safetensors", *arguments, status=2)[1].split())
    assert sorted(os.listdir()) == before


def test_what_cannot_be_explained_is_one_line_and_leaves_nothing(work, capsys):
    Path("bad.png").write_bytes(b"no picture")
    for arguments, said in (
        (["gone.png"], "cannot read gone.png"), (["bad.png"], "bad.png"), (["shapes.npz"], "such as shapes.npz:0"),
        (["ring.png", "--region", "6,6,3,3"], "does not lie within the image"),
        (["ring.png", "--region", "1,1,0,3"], "does not lie within the image"),
        (["ring.png", "--at", "conv9[0,0,0]"], "no layer is called 'conv9'"),
        (["ring.png", "--at", "conv1[8,0,0]"], "conv1 has shape"),
        (["ring.png", "--at", "conv1"], "name one number of it, such as conv1[4,4,3]"),
        (["ring.png", "--target", "star"], "no class is called 'star'"), (["ring.png", "--target", "3"], "from 0 to 2"),
        (["ring.png", "--data", "gone/"], "gone"),
    ):
        assert said in fails(capsys, "explain", "m.safetensors", *arguments)
    assert "no best.safetensors" in fails(capsys, "explain", ".", "ring.png")
    model_of(preprocessing=None).save("raw.safetensors")
    for command in (["explain", "raw.safetensors", "ring.png"], ["study", "raw.safetensors", "shapes.npz"]):
        assert "does not say how pixels become what it reads" in fails(capsys, *command)
    Model(Network.build((40, 2), Sequential(Flatten(), Dense(3))), seed=3, classes=CLASSES,
          preprocessing=Preprocessing((40, 2), (0.4,) * 2, (0.3,) * 2)).save("signal.safetensors")
    for command in (["explain", "signal.safetensors", "ring.png"], ["study", "signal.safetensors", "shapes.npz"]):
        assert "reads signals of 40x2; this command is for models of images" in fails(capsys, *command)
    model_of(Conv(3, 3), classes=None).save("map.safetensors")
    assert "it classifies nothing" in fails(capsys, "explain", "map.safetensors", "ring.png")


def test_a_network_without_maps(work, capsys):
    """What it does not allow is said; the rest is there. Where it was asked for, that is an error."""
    model_of(Sequential(Flatten(), Dense(5), ReLU(), Dense(3))).save("mlp.safetensors")
    out, err = run(capsys, "explain", "mlp.safetensors", "ring.png", "--out", "mlp")
    assert "left out: grad_cam" in err and "page      mlp/explanation.html" in out
    told = json.loads(Path("mlp/explanation.json").read_text())
    assert {"grad_cam", "contributions", "layers", "neighbours"} <= set(told["left_out"])
    assert {"gradient", "occlusion"} <= {m["method"] for m in told["maps"]} and told["path"][-1]["name"] == "input"
    page = ExplainedPage(Path("mlp/explanation.html").read_text())
    assert "Left out" in [text for _, text in page.headings] and "each unit sees the whole image" in page.text
    assert "Grad-CAM" not in [row[0] for table in page.tables for row in table]
    assert "grad_cam" in fails(capsys, "explain", "mlp.safetensors", "ring.png", "--method", "grad_cam")


def test_similar_images_are_those_of_training(work, capsys):
    dataset = data.load("shapes.npz")
    parts = data.split(dataset, 3)
    work.record = {"source": os.path.abspath("shapes.npz"), "data_digest": digest(dataset), "seed": 3,
                   "split_digest": split_digest(parts)}
    work.save("m.safetensors")
    asked = f"shapes.npz:{parts.test.indices[0]}"
    told = json.loads(run(capsys, "explain", "m.safetensors", asked, "--method", "gradient", "--json")[0])
    near = explain.neighbours(work, IMAGES[parts.test.indices[0]], parts.train)
    assert [n["index"] for n in told["neighbours"]] == parts.train.indices[near.indices].tolist()
    assert [n["label"] for n in told["neighbours"]] == [CLASSES[LABELS[n["index"]]] for n in told["neighbours"]]
    assert told["label"] is None
    other = json.loads(run(capsys, "explain", "m.safetensors", asked, "--method", "gradient", "--data", "digits",
                           "--json")[0])
    assert other["neighbours"][0]["label"] in data.load("digits").classes
    np.savez("shapes.npz", images=IMAGES[::-1], labels=LABELS[::-1], classes=np.array(CLASSES))
    told = json.loads(run(capsys, "explain", "m.safetensors", "ring.png", "--method", "gradient", "--json")[0])
    assert told["neighbours"] is None and "does not hold what the model was" in told["left_out"]["neighbours"]
    os.remove("shapes.npz")
    told = json.loads(run(capsys, "explain", "m.safetensors", "ring.png", "--method", "gradient", "--json")[0])
    assert told["neighbours"] is None and "shapes.npz, cannot be read; --data" in told["left_out"]["neighbours"]


def test_the_label_of_the_data_is_told(work, capsys):
    wrong = int(np.flatnonzero(work.predict(IMAGES).argmax(axis=1) != LABELS)[0])
    os.makedirs("photos")
    for i in (wrong, *range(6)):
        os.makedirs(f"photos/{CLASSES[LABELS[i]]}", exist_ok=True)
        Image.fromarray(IMAGES[i, ..., 0]).save(f"photos/{CLASSES[LABELS[i]]}/{i:02}.png")
    files_ = data.load("photos").pictures.files
    index = files_.index(f"{CLASSES[LABELS[wrong]]}/{wrong:02}.png")
    out, _ = run(capsys, "explain", "m.safetensors", f"photos:{index}", "--method", "gradient")
    assert f"That is wrong: the data say {CLASSES[LABELS[wrong]]}." in " ".join(out.split())


@pytest.mark.parametrize("command", [["explain", "m.safetensors", "ring.png"],
                                     ["study", "m.safetensors", "shapes.npz", "--only", "depth"]])
class TestFaults:
    def test_a_full_disk(self, work, capsys, monkeypatch, command):
        write = Path.write_text

        def full(self, text, **more):
            if self.suffix == ".html":
                raise OSError(28, "No space left on device")
            return write(self, text, **more)

        monkeypatch.setattr(Path, "write_text", full)
        for more in ([], ["--out", "new/deep"]):
            assert "the disk is full" in fails(capsys, *command, *more)

    def test_a_folder_that_cannot_be_written_into(self, work, capsys, monkeypatch, command):
        run(capsys, *command)  # so that all is imported before root becomes nobody
        with tempfile.TemporaryDirectory() as folder:
            for file in ("m.safetensors", "ring.png", "shapes.npz"):
                os.chmod(shutil.copy(file, folder), 0o644)
            os.chmod(folder, 0o755)
            monkeypatch.chdir(folder)
            with unprivileged_folder(0o555) as (_, inner):
                assert "permission denied" in fails(capsys, *command, "--out", inner / "new")
                assert "permission denied" in fails(capsys, *command)
                assert not os.listdir(inner)

    def test_ctrl_c(self, work, capsys, monkeypatch, command):
        def interrupt(*_, **__):
            signal.raise_signal(signal.SIGINT)

        monkeypatch.setitem(explain.METHODS, "occlusion", interrupt)
        monkeypatch.setitem(studies.MODEL_STUDIES, "depth", interrupt)
        assert "stopped by Ctrl-C" in fails(capsys, *command)


def test_study(work, capsys):
    out, err = run(capsys, "study", "m.safetensors", "shapes.npz", "--only", "depth", "--only", "sharing", "--images",
                   "7", "--json")
    told = json.loads(out)
    folder = Path("studied", "m-1")
    assert told.pop("page") == str(folder / "study.html") and json.loads((folder / "study.json").read_text()) == told
    chosen = IMAGES[np.linspace(0, 59, 7).round().astype(int)]
    expected = [studies.MODEL_STUDIES[name](work, chosen) for name in ("depth", "sharing")]
    assert [s["study"] for s in told["studies"]] == ["depth", "sharing"] and told["count"] == 7
    assert [s["sentence"] for s in told["studies"]] == [s.sentence for s in expected]
    page = ExplainedPage((folder / "study.html").read_text())
    assert all(s.sentence in page.text and s.claim in page.text for s in expected)
    assert len(os.listdir(folder / "pictures")) == sum(len(s.figures()) for s in expected)
    out, _ = run(capsys, "study", "m.safetensors", "shapes.npz", "--only", "depth")
    assert expected[0].title in out and "studied/m-2/study.html" in out


def test_studies_that_do_not_apply(work, capsys):
    model_of(Sequential(Flatten(), Dense(3))).save("mlp.safetensors")
    out, _ = run(capsys, "study", "mlp.safetensors", "shapes.npz", "--only", "depth", "--only", "sharing")
    assert "depth is left out: " in out and "sharing is left out: " in out
    assert "Not measured" in ExplainedPage(Path("studied/mlp-1/study.html").read_text()).text
    assert "there is no study 'depths'" in run(
        capsys, "study", "m.safetensors", "shapes.npz", "--only", "depths", status=2)[1]
    assert "gone" in fails(capsys, "study", "m.safetensors", "gone")
    assert "asked for were 8x8" in fails(capsys, "study", "m.safetensors", _other_size())


def _other_size():
    np.savez("other.npz", images=np.zeros((4, 9, 9, 1), np.uint8), labels=np.arange(4) % 2)
    return "other.npz"


def test_a_model_from_onnx_is_explained(work, capsys):
    pytest.importorskip("onnx")
    from pellucid.exchange import onnx

    onnx.export(work, Path("m.onnx"), None)
    told = json.loads(run(capsys, "explain", "m.onnx", "ring.png", "--method", "gradient", "--json")[0])
    p = work.predict(IMAGES[4:5])[0]
    assert told["probabilities"] == pytest.approx(dict(zip(CLASSES, p.tolist(), strict=True)), abs=1e-5)


def test_progress_of_what_takes_long(work, capsys, monkeypatch):
    monkeypatch.setattr(cli_check.display, "__defaults__", (0.0,))
    _, err = run(capsys, "explain", "m.safetensors", "ring.png", "--method", "gradient")
    assert "gradient: 0 of 7" in err and "terms: 6 of 7" in err
    _, err = run(capsys, "study", "m.safetensors", "shapes.npz", "--only", "depth")
    assert "studying depth: 0 of 1" in err
