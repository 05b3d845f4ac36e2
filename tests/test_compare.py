"""Networks side by side: the same budget and images, what is kept of them, and gradients at each layer."""

import csv
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from shapes_data import saved

from pellucid import Model, TrainStep, optim, zoo
from pellucid import data as datasets
from pellucid.cli_compare import table
from pellucid.draw.scatter import HEIGHT, LEFT, TOP, WIDTH, Panel, scatter
from pellucid.engine.library import library
from pellucid.training.compare import Comparison, Result, compare
from pellucid.training.fit import fit


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("data"), size=12)


@pytest.fixture(scope="module")
def compared(shapes, tmp_path_factory):
    out = tmp_path_factory.mktemp("compared")
    return compare(["mlp", "lenet"], shapes, epochs=3, seeds=2, gradients=True, out=out), out


def test_each_run_is_the_one_that_fit_makes(compared, shapes):
    made, _ = compared
    assert [(r.network, r.seed) for r in made.results] == [("mlp", 0), ("lenet", 0), ("mlp", 1), ("lenet", 1)]
    for result in made.results[1::2]:
        run = fit("lenet", shapes, epochs=3, seed=result.seed, out=False)
        assert (result.test_accuracy, result.validation_accuracy) == (
            run.test_accuracy, run.best["validation_accuracy"])
        assert (result.epochs, result.steps) == (3, run.steps)
        network = zoo.build("lenet", input_shape=(12, 12, 1), classes=3)
        assert (result.parameters, result.macs) == (network.parameter_count, sum(network.macs.values()))


def test_means_and_deviations(compared):
    made, _ = compared
    rows = made.table()
    assert [row["network"] for row in rows] == ["mlp", "lenet"]
    for row in rows:
        mine = [r.test_accuracy for r in made.results if r.network == row["network"]]
        assert row["test_accuracy"] == pytest.approx(sum(mine) / 2)
        assert row["test_accuracy_deviation"] == pytest.approx(abs(mine[0] - mine[1]) / 2**0.5)
    once = Comparison("x", ["a"], "", [Result("a", 0, 1, 1, 0.5, 0.5, 1, 1, 1.0, None)])
    assert once.table()[0]["test_accuracy_deviation"] is None


def test_files(compared):
    made, out = compared
    with open(out / "compare.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["network"], int(r["seed"]), float(r["test_accuracy"])) for r in rows] == [
        (r.network, r.seed, r.test_accuracy) for r in made.results]
    with open(out / "gradients.csv", newline="") as file:
        gradients = list(csv.DictReader(file))
    assert len(gradients) == sum(len(r.gradients) for r in made.results)
    assert sorted(p.name for p in out.iterdir()) == [
        "compare.csv", "compare.svg", "gradients-end.svg", "gradients-start.svg", "gradients.csv", "lenet-0", "lenet-1",
        "mlp-0", "mlp-1"]
    for when, picture in made.gradient_pictures().items():
        assert (out / f"gradients-{when}.svg").read_text() == picture.svg
    assert (out / "compare.svg").read_text() == made.svg()
    assert (out / "lenet-1" / "best.safetensors").is_file()


def test_gradients_are_those_of_a_training_step(compared, shapes):
    made, _ = compared
    result = made.results[1]
    run = fit("lenet", shapes, epochs=3, seed=0, out=False)
    network, parts = run.setup.network, datasets.split(datasets.load(shapes), 0)
    model = Model(network, 0, preprocessing=run.setup.preprocessing)
    size = run.setup.plan.batch_size
    step = TrainStep(model, size, optim.SGD(0.0), label_smoothing=0.1, class_weights=run.setup.class_weights,
                         precision=library().precisions[0])
    norms = []
    for i in range(min(4, len(parts.train) // size)):
        step(parts.train.images[i * size:(i + 1) * size], parts.train.labels[i * size:(i + 1) * size])
        norms.append(np.sqrt(sum(float((g.astype(np.float64)**2).sum()) for n, g in step.gradients().items()
                                 if n.startswith("conv1."))))
    first = result.gradients[0]
    assert (first.layer, first.kind, first.depth) == ("conv1", "Conv", 1)
    assert first.start == pytest.approx(np.mean(norms), rel=1e-5)
    assert first.end != pytest.approx(first.start, rel=1e-2) and first.end > 0
    counts = {n: c for n, c in network.parameter_counts.items() if c}
    assert {g.layer: g.parameters for g in result.gradients} == counts
    assert [g.depth for g in result.gradients] == list(range(1, len(counts) + 1))


def test_the_table_says_all_of_it(compared):
    made, _ = compared
    text = table(made)
    lines = text.splitlines()
    assert lines[0].endswith("shapes.npz, 3 epochs for each network")
    assert lines[3].startswith("mlp") and f"{made.results[0].parameters:,}" in lines[3] and "±" in lines[3]
    assert text.count("norm of the gradient at each layer") == 4
    assert len({len(line) for line in lines[2:5]}) == 1  # columns


SVG = "{http://www.w3.org/2000/svg}"


def test_the_picture_puts_points_where_their_numbers_are():
    panels = [Panel("parameters", "number", [10, 1000, 1e5], [0.5, 0.9, 0.7], [0.0, 0.02, 0.0])]
    tree = ElementTree.fromstring(scatter(["a", "b <&>", "c"], panels, "accuracy").svg)
    points = [(float(c.get("cx")), float(c.get("cy"))) for c in tree.iter(f"{SVG}circle")][:3]
    (ax, ay), (bx, by), (cx, cy) = points
    assert bx - ax == pytest.approx(cx - bx, abs=0.2) and ax < bx  # logarithmic
    assert (ay - cy) / (ay - by) == pytest.approx(0.5, abs=0.01) and by < ay  # upwards
    assert all(LEFT < x < WIDTH and TOP <= y < HEIGHT for x, y in points)
    assert [c.findtext(f"{SVG}title") for c in tree.iter(f"{SVG}circle")][:3] == ["a", "b <&>", "c"]
    texts = [t.text for t in tree.iter(f"{SVG}text")]
    assert {"a", "b <&>", "c", "parameters", "accuracy", "1k"} <= set(texts)
    bars = [line for line in tree.iter(f"{SVG}line") if float(line.get("x1")) == float(line.get("x2")) == bx]
    assert any(float(line.get("y1")) < by < float(line.get("y2")) for line in bars)
    for wrong in ([], [replace(panels[0], x=[0, 1, 2])], [replace(panels[0], y=[1])]):
        with pytest.raises(ValueError):
            scatter(["a", "b", "c"], wrong, "accuracy")


def test_the_picture_of_a_comparison(compared):
    made, _ = compared
    tree = ElementTree.fromstring(made.svg())
    assert len(list(tree.iter(f"{SVG}circle"))) == 2 * 3 + 2  # two networks in three panels, and their legend


@pytest.mark.parametrize("arguments, text", [
    ({"networks": ["mlp", "nothing"]}, "no network is called 'nothing'"), ({"networks": ["mlp", "mlp"]}, "each once"),
    ({"networks": []}, "names of networks"), ({"epochs": 2, "time": 3}, "not both"), ({"seeds": 0}, "seeds"),
    ({"epochs": 0}, "epochs"), ({"networks": ["mlp", "vgg16"]}, "vgg|small|empty"),
])
def test_what_cannot_be_compared_is_refused_before_anything_is_trained(arguments, text, shapes):
    def progress(*_):
        raise AssertionError("it trains")

    with pytest.raises(ValueError, match=text):
        compare(**{"networks": ["mlp"], "data": shapes, "progress": progress, **arguments})


def test_a_folder_with_something_in_it_is_refused(shapes, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="not empty"):
        compare(["mlp"], shapes, epochs=1, out=tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_ctrl_c_keeps_what_is_done(shapes, tmp_path):
    def progress(network, seed, p):
        if (network, seed, p.step) == ("lenet", 0, 2):
            os.kill(os.getpid(), signal.SIGINT)

    made = compare(["mlp", "lenet"], shapes, epochs=1, seeds=2, out=tmp_path / "c", progress=progress)
    assert made.interrupted and [(r.network, r.seed) for r in made.results] == [("mlp", 0)]
    assert len((tmp_path / "c" / "compare.csv").read_text().splitlines()) == 2


def command(*arguments, cwd):
    return subprocess.run([sys.executable, "-m", "pellucid", "compare", *arguments], cwd=cwd, capture_output=True,
                          text=True, timeout=120, stdin=subprocess.DEVNULL)


def test_the_command(shapes, tmp_path):
    done = command("mlp", "lenet", "--data", str(shapes), "--epochs", "1", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert [n["network"] for n in result["networks"]] == ["mlp", "lenet"] and not result["interrupted"]
    assert "lenet, seed 0" in done.stderr and not list(tmp_path.iterdir())
    for wrong, text in ((("mlp", "mlp", "--data", "digits"), "twice"), (("mlp",), "--data"),
                        (("mlp", "--data", "digits", "--epochs", "1", "--time", "1s"), "not both")):
        done = command(*wrong, cwd=tmp_path)
        assert done.returncode == 2 and text in done.stderr, done.stderr
    done = command("mlp", "noth\ning", "--data", "digits", cwd=tmp_path)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and done.stderr.startswith("pellucid: ")
