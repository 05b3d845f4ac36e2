"""What `check` finds in a data set, and the few lines of it that training begins with."""

import json
from dataclasses import replace

import numpy as np
import pytest
from photos_data import photos, sound

from pellucid.cli_check import report as text
from pellucid.data import DataError, Dataset, Pictures, load, split
from pellucid.data.check import SEVERITIES, brief, check


def found(data):
    """The findings by kind, checked for what holds of all."""
    findings = check(data).findings
    severities = [SEVERITIES.index(f.severity) for f in findings]
    assert severities == sorted(severities)
    for f in findings:
        assert f.advice.endswith(".") and "\n" not in f.text + f.advice and f.text not in f.advice
    kinds = {f.kind: f for f in findings}
    assert len(kinds) == len(findings)
    return kinds


def names(finding):
    return [item.names for item in finding.items]


def with_files(data, size=(16, 16), mode="RGB"):
    def of(count, part):
        return Pictures(tuple(f"{part}/{i}.png" for i in range(count)), np.full((count, 2), size, np.int32),
                        (mode,) * count)
    tests = of(len(data.test_labels), "test") if data.has_test else None
    return replace(data, pictures=of(len(data.labels), "train"), test_pictures=tests)


def darker(image):
    return (image * 0.8).astype(np.uint8)


@pytest.mark.parametrize("data", [sound(), sound(72, 24), sound(90, validation=np.arange(0, 24)),
                                  with_files(sound(72, 24))])
def test_sound_data(data):
    report = check(data)
    assert report.findings == ()
    assert brief(data, split(data)) == []
    assert "Nothing was found" in text(report)


# Figures.

def test_counts_of_parts():
    assert check(sound(72)).counts == {"ant": {"all": 24}, "bee": {"all": 24}, "cat": {"all": 24}}
    both = check(sound(90, 25, validation=np.arange(0, 28))).counts
    assert both == {"ant": {"training": 20, "validation": 10, "test": 9},
                    "bee": {"training": 21, "validation": 9, "test": 8},
                    "cat": {"training": 21, "validation": 9, "test": 8}}


def test_sizes_and_modes():
    data = with_files(sound(72, 24))
    sizes, modes = data.pictures.sizes.copy(), ["L", "P", *["RGB"] * 70]
    sizes[3], sizes[8] = (90, 20), (12, 14)
    report = check(replace(data, pictures=replace(data.pictures, sizes=sizes, modes=tuple(modes))))
    assert report.sizes == {"smallest": (12, 14), "median": (16, 16), "largest": (90, 20)}
    assert report.modes == {"RGB": 94, "L": 1, "P": 1}
    assert report.shape == (16, 16, 3)
    assert check(sound()).sizes == check(sound()).modes == {}


# Findings.

def test_files_that_cannot_be_used():
    data = replace(sound(), left_out=(("a/b.png", "it is empty"), ("c.gif", "not a picture")))
    kinds = found(data)
    assert set(kinds) == {"unreadable"} and kinds["unreadable"].severity == "warning"
    assert [(i.names, i.note) for i in kinds["unreadable"].items] == [
        (("a/b.png",), "it is empty"), (("c.gif",), "not a picture")]


def test_equal_images():
    data = with_files(sound(90, 24, validation=np.arange(0, 24)))
    images, tests = data.images.copy(), data.test_images.copy()
    images[33] = images[30]  # one class, one part
    images[43] = images[45] = images[50]  # classes 1, 0, 2
    images[27], images[4] = tests[3], images[61]  # across parts, with one label
    kinds = found(replace(data, images=images))
    assert set(kinds) == {"exact-labels", "exact-parts", "exact-within"}
    assert names(kinds["exact-within"]) == [("train/30.png", "train/33.png")]
    assert kinds["exact-within"].severity == "note"
    assert names(kinds["exact-labels"]) == [("train/43.png", "train/45.png", "train/50.png")]
    assert kinds["exact-labels"].items[0].note == "ant, bee, cat" and kinds["exact-labels"].severity == "serious"
    assert names(kinds["exact-parts"]) == [("train/4.png", "train/61.png"), ("train/27.png", "test/3.png")]
    assert [i.note for i in kinds["exact-parts"].items] == ["training, validation", "training, test"]


def test_images_that_look_alike():
    data = sound(72, 24)
    images, tests = data.images.copy(), data.test_images.copy()
    images[3], images[10], tests[5] = darker(images[9]), darker(images[20]), darker(images[2])
    images[21] = images[9]
    kinds = found(replace(data, images=images, test_images=tests))
    assert set(kinds) == {"exact-within", "near-within", "near-labels", "near-parts"}
    assert names(kinds["exact-within"]) == [("image 9", "image 21")]
    assert names(kinds["near-within"]) == [("image 3", "image 9", "image 21")]
    assert names(kinds["near-labels"]) == [("image 10", "image 20")]
    assert names(kinds["near-parts"]) == [("image 2", "test image 5")]


def test_tiny_classes_and_those_that_cannot_be_split():
    data = sound(72)
    keep = np.array([i for i in range(72) if i % 3 or i < 6])  # two images of the first class
    tiny = replace(data, images=data.images[keep], labels=data.labels[keep])
    kinds = found(tiny)
    assert set(kinds) == {"split", "tiny", "imbalance"}
    assert kinds["split"].severity == "serious" and "class 'ant' has 2 images" in kinds["split"].text
    assert [(i.names, i.note) for i in kinds["tiny"].items] == [(("ant",), "2 images")]
    assert found(replace(data, labels=np.repeat(np.arange(3, dtype=np.int32), (20, 32, 20)))) == {}
    assert "tiny" in found(replace(data, labels=np.repeat(np.arange(3, dtype=np.int32), (19, 32, 21))))


def test_classes_without_images():
    data = sound(72)
    ant = data.labels == 0
    alone = Dataset("d", data.images[ant], data.labels[ant], ["ant", "bee", "cat"], partial=True)
    kinds = found(alone)
    assert set(kinds) == {"empty"} and kinds["empty"].severity == "serious"
    assert names(kinds["empty"]) == [("bee",), ("cat",)] and kinds["empty"].text == "2 classes without an image"
    assert "Training stops" in kinds["empty"].advice
    assert check(alone).counts == {"ant": {"all": 24}, "bee": {"all": 0}, "cat": {"all": 0}}
    assert "bee      0" in text(check(alone))
    one = found(replace(alone, classes=["ant"]))
    assert set(one) == {"one-class"} and one["one-class"].severity == "serious"
    both = Dataset("d", data.images[ant], data.labels[ant], ["ant", "bee"], data.images[~ant][:9],
                   np.ones(9, np.int32), partial=True)
    kinds = found(both)
    assert {kind: names(kinds[kind]) for kind in ("empty", "missing-test")} == {
        "empty": [("bee",)], "missing-test": [("ant",)]}
    assert kinds["empty"].text == "1 class without a training image"
    for data, message in ((alone, "has 0 images"), (replace(alone, classes=["ant"]), "found 1 class")):
        with pytest.raises(DataError, match=message):
            split(data)


def test_imbalance():
    def of(counts):
        return Dataset("d", photos(sum(counts), (8, 8, 1)), np.repeat(np.arange(2, dtype=np.int32), counts), ["x", "y"])

    assert found(of((199, 20))) == {}
    kinds = found(of((200, 20)))
    assert set(kinds) == {"imbalance"} and names(kinds["imbalance"]) == [("y",)]
    assert "200 training images of 'x'" in kinds["imbalance"].text


def test_parts_that_do_not_fit():
    data = sound(72, 90)
    assert set(found(data)) == {"large-test"}
    without = np.flatnonzero(data.test_labels != 1)[:24]
    kinds = found(replace(data, test_images=data.test_images[without], test_labels=data.test_labels[without]))
    assert set(kinds) == {"missing-test"} and names(kinds["missing-test"]) == [("bee",)]
    assert kinds["missing-test"].severity == "serious"


def test_shares_that_differ_by_chance_are_no_finding():
    """Of a fair draw of 60 from 240 images, in a hundred draws."""
    rng = np.random.default_rng(0)
    images = photos(240, (4, 4, 1))
    labels = rng.choice(3, 240, p=[0.6, 0.3, 0.1]).astype(np.int32)
    from pellucid.data.check import _unlike

    for _ in range(100):
        chosen = np.isin(np.arange(240), rng.choice(240, 60, replace=False))
        assert not list(_unlike(*(np.bincount(labels[m], minlength=3) for m in (~chosen, chosen))))
    turned = np.sort(labels)  # the same images, the first 60 for validation
    shares = found(Dataset("d", images, turned, list("abc"), validation=np.arange(60)))["shares-validation"]
    assert names(shares) == [("a",), ("b",)]
    assert shares.items[0].note == "41.1% of the training images, 100.0% of these"


def test_images_of_a_single_colour():
    data = sound(72, 24)
    images, tests = data.images.copy(), data.test_images.copy()
    images[4], tests[9] = (0, 200, 7), 255
    images[5] = (0, 200, 7)
    images[5, 15, 15, 2] = 8  # not quite
    kinds = found(replace(data, images=images, test_images=tests))
    assert set(kinds) == {"plain"} and names(kinds["plain"]) == [("image 4",), ("test image 9",)]


def test_pictures_that_are_enlarged():
    data = with_files(sound(72, 24))
    small, tests = data.pictures.sizes.copy(), data.test_pictures.sizes.copy()
    small[7], small[8], small[9], tests[2] = (7, 7), (8, 7), (7, 40), (3, 5)
    data = replace(data, pictures=replace(data.pictures, sizes=small),
                   test_pictures=replace(data.test_pictures, sizes=tests))
    kinds = found(data)
    assert set(kinds) == {"small"} and names(kinds["small"]) == [("train/7.png",), ("test/2.png",)]


def test_progress_goes_through_all_images():
    calls = []
    check(sound(72, 24), lambda *call: calls.append(call))
    assert [call for call in calls if call[1] == call[2]] == [
        ("comparing images", 96, 96), ("looking for empty images", 96, 96)]


# In words.

def test_the_report_in_words():
    data = replace(with_files(sound(72, 24), (40, 30)),
                   left_out=tuple((f"bad {i}\n.png", "truncated") for i in range(13)), name="my\nphotos")
    images = data.images.copy()
    images[30:42:3] = images[30]
    images[42:69:3] = images[42]
    lines = text(check(replace(data, images=images))).splitlines()
    assert lines[0] == "my\\nphotos: 96 images in 3 classes, 16x16x3 (height x width x channels)"
    assert lines[1] == "pictures (height x width): from 40x30, half up to 40x30, to 40x30; 96 RGB"
    assert lines[3:8] == ["class  training  test", "ant          24     8", "bee          24     8",
                          "cat          24     8", "total        72    24"]
    assert [line for line in lines if line.startswith(SEVERITIES)] == [
        "warning: 13 files cannot be used", "note: 2 groups of equal images in one class and part"]
    assert lines.index("    bad 9\\n.png: truncated") + 1 == lines.index("    and 3 more")
    assert lines[-3:] == [
        "    train/30.png = train/33.png = train/36.png = train/39.png: ant",
        "    train/42.png = train/45.png = train/48.png = train/51.png = train/54.png = train/57.png = ...: ant",
        "    and 3 more"]
    assert all(len(line) <= 100 for line in lines if not line.startswith("    "))


def test_the_report_as_json_holds_all():
    data = replace(sound(), left_out=tuple((f"{i}.png", "truncated") for i in range(300)))
    value = json.loads(json.dumps(check(data).to_json()))
    assert value["shape"] == [16, 16, 3] and value["counts"]["bee"] == {"all": 24}
    assert [f["kind"] for f in value["findings"]] == ["unreadable"]
    assert [i["names"] for i in value["findings"][0]["items"]] == [[f"{i}.png"] for i in range(300)]


def test_brief():
    data = sound(90, 24, validation=np.arange(0, 24))
    images = data.images.copy()
    images[30] = images[33] = images[36]
    images[40] = images[43]
    images[50], images[51], images[52] = data.test_images[1], data.test_images[2], images[0]
    data = replace(data, images=images, left_out=tuple((f"{i}.png", "truncated") for i in range(12)))
    assert brief(data, split(data)) == [
        "left out 12 files that cannot be used: " + "; ".join(f"{i}.png (truncated)" for i in range(10))
        + "; and 2 more",
        "left out 2 images of which the test set holds a copy",
        "left out 1 training image of which the validation set holds a copy",
        "kept 5 images together that are copies of one another or belong together (2 groups, each in one part)",
        "1 image stands in two classes as copies: image 0 = image 52; pellucid data check DATA shows all",
    ]
    images = data.images.copy()
    for i in (60, 64, 68):  # each beside one of the next class
        images[i + 1] = images[i]
    data = with_files(replace(data, images=images, left_out=(), notes=("read with care",)))
    lines = brief(data, split(data))
    assert lines[0] == "read with care"
    assert lines[-1] == ("4 images stand in two classes as copies: train/0.png = train/52.png, "
                         "train/60.png = train/61.png, ...; pellucid data check DATA shows all")


def test_brief_names_classes_of_few_images_and_parts_that_do_not_fit():
    images = photos(215, (8, 8, 1))
    data = Dataset("d", images[:205], np.repeat(np.arange(3, dtype=np.int32), (100, 90, 15)), ["x", "y", "z"],
                   test_images=images[205:], test_labels=np.repeat(np.arange(2, dtype=np.int32), 5))
    assert brief(data, split(data)) == [
        "1 class without a test image: z", "1 class of fewer than 20 images: z (15 images)"]
    many = Dataset("d", images[:60], np.arange(60, dtype=np.int32) % 12, [f"c{i}" for i in range(12)])
    assert brief(many, split(many)) == ["12 classes of fewer than 20 images: "
                                        + ", ".join(f"c{i} (5 images)" for i in range(10)) + ", ..."]


def test_brief_leaves_imbalance_to_those_who_weigh_classes():
    images = photos(230, (8, 8, 1))
    data = Dataset("d", images, np.repeat(np.arange(2, dtype=np.int32), (210, 20)), ["x", "y"])
    assert brief(data, split(data)) == []
    digits = load("digits")
    assert brief(digits, split(digits)) == []
