"""`pellucid evaluate` as a user meets it: its report, its JSON and its table of images."""

import csv
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from shapes_data import CLASSES, pictures
from sklearn import metrics

import pellucid
from pellucid import data
from pellucid.calibration import Calibration
from pellucid.cli import main
from pellucid.data import Pictures
from pellucid.layers import Dense, Flatten
from pellucid.model import Model
from pellucid.network import Network, Sequential
from pellucid.preprocessing import Preprocessing

COUNT = 90


@pytest.fixture
def work(tmp_path, monkeypatch):
    """shapes.npz and a model that is right about three fifths of it."""
    monkeypatch.chdir(tmp_path)
    images, labels = pictures(COUNT)
    np.savez("shapes.npz", images=images, labels=labels, classes=np.array(CLASSES))
    net = Network.build((8, 8, 1), Sequential(Flatten(), Dense(3)))
    Model(net, seed=5, preprocessing=Preprocessing((8, 8, 1), (0.4,), (0.3,)), classes=CLASSES).save("m.safetensors")
    return images, labels


def evaluate(capsys, *options, status=0):
    with pytest.raises(SystemExit) as e:
        main(["evaluate", "m.safetensors", "shapes.npz", *options])
    out, err = capsys.readouterr()
    assert (e.value.code or 0) == status, err
    return out, err


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_table_of_images_and_json_say_the_same(work, capsys):
    images, labels = work
    out, err = evaluate(capsys, "--csv", "images.csv", "--json")
    result, table = json.loads(out), rows("images.csv")
    assert err == "" and len(table) == COUNT == result["count"]
    p = pellucid.load("m.safetensors").predict(images)
    for i, row in enumerate(table):
        assert row["image"] == str(i) and row["true"] == CLASSES[labels[i]]
        assert row["predicted"] == CLASSES[p[i].argmax()]
        assert float(row["probability"]) == pytest.approx(p[i].max(), rel=1e-5)
        assert float(row["probability_of_true"]) == pytest.approx(p[i, labels[i]], rel=1e-5)
        assert float(row["probability_3"]) == pytest.approx(p[i].min(), rel=1e-4) and row["class_4"] == ""
    true, predicted = [r["true"] for r in table], [r["predicted"] for r in table]
    report = metrics.classification_report(true, predicted, output_dict=True, zero_division=0)
    for c in result["classes"]:
        found = [c["precision"] or 0, c["recall"], c["f1"], c["count"]]
        assert found == pytest.approx(list(report[c["name"]].values()))
    assert result["averages"]["macro"]["f1"] == pytest.approx(report["macro avg"]["f1-score"])
    assert result["confusion"] == metrics.confusion_matrix(true, predicted, labels=CLASSES).tolist()
    wrong = [r for r in table if r["true"] != r["predicted"]]
    surest = max(wrong, key=lambda r: float(r["probability"]))
    assert (result["mistakes"][0]["index"], result["mistakes"][0]["file"]) == (int(surest["image"]), None)
    assert result["intervals"]["accuracy"][0] < result["accuracy"] < result["intervals"]["accuracy"][1]


def test_the_report(work, capsys):
    out, _ = evaluate(capsys)
    for text in ("accuracy", "95% interval", "macro F1", "log loss", "calibration error", "Brier", "no calibration",
                 "Most often confused", "Surest mistakes", "image "):
        assert text in out
    assert max(map(len, out.splitlines())) <= 80


def test_the_report_of_a_calibrated_model(work, capsys):
    model = pellucid.load("m.safetensors")
    largest = np.sort(model.predict(work[0]).max(axis=1))
    model.calibration = Calibration(1.0, 99, float(largest[30]), 0.05)
    model.save("m.safetensors")
    out = " ".join(evaluate(capsys)[0].split())
    assert "temperature 1.000, fitted on 99 validation images" in out and "5.0% of all" in out
    assert "(1.7% to 10.0%), here 30, which is 33.3%. Of the others" in out
    refused = json.loads(evaluate(capsys, "--json")[0])["refused"]
    assert refused["count"] == 30 and refused["share"] == pytest.approx(1 / 3)
    model.calibration = Calibration(2.0, 12)
    model.save("m.safetensors")
    assert "12 validation images, too few to set a threshold" in " ".join(evaluate(capsys)[0].split())


def test_images_of_some_classes_only(work, capsys):
    """One class or two of the model's three; the figures are those of these images alone."""
    images, labels = work
    for kept in ([0], [0, 2]):
        chosen = np.isin(labels, kept)
        names = np.array(CLASSES)[labels[chosen]]
        np.savez("shapes.npz", images=images[chosen], labels=names)
        result = json.loads(evaluate(capsys, "--json")[0])
        p = pellucid.load("m.safetensors").predict(images[chosen]).argmax(axis=1)
        assert result["count"] == chosen.sum() and result["correct"] == (p == labels[chosen]).sum()
        assert result["accuracy"] == pytest.approx(result["correct"] / result["count"])
        for i, c in enumerate(result["classes"]):
            assert c["count"] == (labels[chosen] == i).sum() and (c["recall"] is None) == (i not in kept)
            assert (c["f1"] is None) == (i not in kept)
        out = " ".join(evaluate(capsys)[0].split())
        absent = ", ".join(name for i, name in enumerate(CLASSES) if i not in kept)
        assert f"No image here is of {absent}: no recall and no F1" in out
    np.savez("shapes.npz", images=images, labels=np.array(CLASSES)[labels])
    assert "No image here" not in evaluate(capsys)[0]
    np.savez("shapes.npz", images=images, labels=np.repeat("star", COUNT))
    assert "does not know the class 'star'" in evaluate(capsys, status=1)[1]


@pytest.mark.parametrize("own_test", [False, True])
def test_pictures_are_called_by_their_files(work, capsys, monkeypatch, own_test):
    images, labels = work
    dataset = data.load("shapes.npz")
    names = Pictures(tuple(f"{CLASSES[c]}/{i}.png" for i, c in enumerate(labels)), np.full((COUNT, 2), 8),
                     ("L",) * COUNT)
    dataset = replace(dataset, pictures=names)
    if own_test:
        other = Pictures(tuple("test/" + f for f in names.files), names.sizes, names.modes)
        dataset = replace(dataset, test_images=images, test_labels=labels, test_pictures=other)
    monkeypatch.setattr(data, "load", lambda spec, **options: dataset)
    result = json.loads(evaluate(capsys, "--csv", "images.csv", "--json")[0])
    expected = [("test/" if own_test else "") + f for f in names.files]
    assert [row["image"] for row in rows("images.csv")] == expected
    assert result["mistakes"] and all(m["file"] == expected[m["index"]] for m in result["mistakes"])
    assert result["mistakes"][0]["file"] in evaluate(capsys)[0]


def test_held_out_pictures_are_called_by_their_own_files(work, capsys, monkeypatch):
    """What was held out of the images stands anywhere among them."""
    from pellucid.training.setup import digest, split_digest

    names = Pictures(tuple(f"{i}.png" for i in range(COUNT)), np.full((COUNT, 2), 8), ("L",) * COUNT)
    dataset = replace(data.load("shapes.npz"), pictures=names)
    monkeypatch.setattr(data, "load", lambda spec, **options: dataset)
    parts, model = data.split(dataset, 3), pellucid.load("m.safetensors")
    model.record = {"data_digest": digest(dataset), "seed": 3, "split_digest": split_digest(parts)}
    model.save("m.safetensors")
    evaluate(capsys, "--csv", "images.csv")
    assert [row["image"] for row in rows("images.csv")] == [f"{i}.png" for i in parts.test.indices]


def test_a_table_that_cannot_be_written(work, capsys):
    out, err = evaluate(capsys, "--csv", "gone/a.csv", status=1)
    assert out == "" and err.count("\n") == 1 and "there is no folder" in err
    os.mkdir("folder.csv")
    out, err = evaluate(capsys, "--csv", "folder.csv", status=1)
    assert out == "" and err.count("\n") == 1 and "it is a folder" in err
    assert set(os.listdir()) == {"shapes.npz", "m.safetensors", "folder.csv"}


def test_nothing_is_left_of_a_table_when_the_data_are_bad(work, capsys):
    np.savez("shapes.npz", images=work[0], labels=work[1] - 1)
    old = Path("old.csv")
    old.write_text("mine")
    assert "label" in evaluate(capsys, "--csv", "old.csv", status=1)[1]
    assert old.read_text() == "mine" and set(os.listdir()) == {"shapes.npz", "m.safetensors", "old.csv"}
