"""What holds for every picture: a table has examples of each public function, and one without an example fails."""

import inspect
import re
from functools import cache
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
from svg_pages import SVG, marks, texts

from pellucid import draw
from pellucid.draw.svg import MUTED, STYLE

rng = np.random.default_rng(0)
GREY, COLOURS = (rng.integers(0, 256, shape).astype(np.uint8) for shape in ((9, 7), (40, 60, 3)))
SIGNED = rng.normal(size=(9, 7))
GAPS = np.where(rng.random((9, 7)) < 0.2, np.nan, SIGNED)
IMAGE = np.array([[3, 3, 2, 1, 0], [0, 0, 1, 3, 1], [3, 1, 2, 2, 3], [2, 0, 0, 2, 2], [2, 0, 0, 0, 1]])
FILTER = np.array([[0, 1, 2], [2, 2, 0], [0, 1, 2]])
BINS = [(i / 10, (i + 1) / 10, 3 * i, (i + 0.5) / 10 if i else None, i / 9 if i else None) for i in range(10)]


def counts(n):
    found = rng.poisson(0.3 if n < 20 else 0.03, (n, n))
    found[np.arange(n), np.arange(n)] = rng.poisson(50, n)
    return found


def deep(t, blocks=40):
    """A long network: the shape changes at every other layer."""
    rows = [(f"{t}input", "Input", (64, 48, 3))]
    for i in range(blocks):
        side = 64 >> (4 * i // blocks)
        rows += [(f"{t}block{i}.conv{k}", "Conv", (side, side, 32 * (1 + k % 2))) for k in range(3)]
        rows.append((f"{t}block{i}.relu", "ReLU", rows[-1][2]))
    return [*rows, (f"{t}pool", "GlobalAvgPool", (64,)), (f"{t}fc", "Dense", (10,))]


# Functions of a text that is put wherever the picture takes one.
EXAMPLES = {
    "architecture": [
        lambda t: draw.architecture(deep(t), title=t),
        lambda t: draw.architecture([(f"{t}a", t, (784,)), (f"{t}b", "Dense", (16,)), ("c", "Dense", (10,))]),
        lambda t: draw.architecture([(f"{t}{i}", "Conv", (20, 1 + i)) for i in range(3)], title=t),
    ],
    "bars": [
        lambda t: draw.bars([f"{t}a", "b", "c", "d"], [1.5, -2.25, 0, np.nan], title=t),
        lambda t: draw.bars([t], [-1e-7]),
        lambda t: draw.bars([t or "x", "y"], [np.nan, np.nan]),
    ],
    "confusion": [
        lambda t: draw.confusion([[50, 3], [0, 1240]], [f"{t}no", "yes"], links=[["#a", None], [None, "b.html"]]),
        lambda t: draw.confusion(counts(10), [f"{t}class {i}" for i in range(10)]),
        lambda t: draw.confusion(counts(100), [f"{t}{i}" for i in range(100)], links=[["#x"] * 100] * 100),
        lambda t: draw.confusion(np.zeros((1, 1)), [t]),
        lambda t: draw.confusion(counts(130), [t] * 130),
    ],
    "convolution_step": [
        lambda t: draw.convolution_step([0, 1, 0, 1, 1], [-1, 1], 2),
        lambda t: draw.convolution_step(IMAGE, FILTER, (1, 0), stride=2, padding=1, bias=1),
        lambda t: draw.convolution_step(rng.normal(size=(11, 2)), rng.normal(size=(4, 2, 3)), (1, 3), dilation=2),
        lambda t: draw.convolution_step(rng.normal(size=(7, 7, 40)), rng.normal(size=(40, 3, 3)), (4, 4)),
        lambda t: draw.convolution_step(rng.normal(size=(60, 40)), rng.normal(size=(5, 5)), (55, 35)),
        lambda t: draw.convolution_step(rng.normal(size=(9, 9, 3)) * 1e5, rng.normal(size=(3, 1, 1)), (8, 8), bias=-1),
        lambda t: draw.convolution_step(rng.normal(size=(6, 6)), rng.normal(size=(2, 2)), (0, 5),
                                        padding=((1, 0), (0, 1))),
        lambda t: draw.convolution_step(np.ones((12, 1)), [[-1.5]], (11, 0)),
    ],
    "convolution_views": [
        lambda t: draw.convolution_views([0, 1, 0, 1, 1], [-1, 1]),
        lambda t: draw.convolution_views([0, 1, -1, 1, 1], [-1, 1], at=0, padding=1, stride=2),
        lambda t: draw.convolution_views(IMAGE, FILTER),
        lambda t: draw.convolution_views(IMAGE, FILTER, stride=2, padding=1, at=(2, 2)),
        lambda t: draw.convolution_views(rng.normal(size=(8, 8)), rng.normal(size=(2, 3))),
        lambda t: draw.convolution_views(rng.normal(size=12), rng.normal(size=5)),
        lambda t: draw.convolution_views(np.zeros((1, 1)), [[0.0]]),
    ],
    "curves": [
        lambda t: draw.curves([(f"{t}train", [1, 2, 3], [3, 2, 1.5]), (f"{t}val", [1, 2, 3], [3, np.nan, 2])],
                              x_label=f"{t}epoch", y_label=f"{t}loss", title=t),
        lambda t: draw.curves([(f"{t}{i}", [1, 10, 1000], [0.5, 0.9, 0.99], [0.1, 0.05, 0]) for i in range(30)],
                              x_label="images", y_label="accuracy", percent=True, log_x=True),
        lambda t: draw.curves([(t, [2], [5])], x_label="x", y_label="y"),
        lambda t: draw.curves([(t, [0, 1], [np.nan, np.nan])], x_label="x", y_label="y"),
        lambda t: draw.curves([(t, [0, 1e9], [-1e-9, 1e-9])], x_label="x", y_label="y"),
    ],
    "feature_maps": [
        lambda t: draw.feature_maps(np.maximum(rng.normal(size=(14, 10, 70)), 0) * (np.arange(70) % 7 > 0), title=t),
        lambda t: draw.feature_maps(GAPS[..., None], title=t),
        lambda t: draw.feature_maps(rng.normal(size=(150, 150, 2))),
    ],
    "filters": [
        lambda t: draw.filters(rng.normal(size=(20, 3, 7, 7)), title=t),
        lambda t: draw.filters(rng.normal(size=(6, 1, 5, 3)), title=t),
        lambda t: draw.filters(rng.normal(size=(100, 40, 3, 3)), most=10),
        lambda t: draw.filters(np.zeros((1, 2, 1, 1))),
    ],
    "gallery": [
        lambda t: draw.gallery([GREY, COLOURS, GREY[..., None]], [f"{t}one\n{t}two", "", t],
                               links=["a.html", None, "#x"]),
        lambda t: draw.gallery([GREY] * 20, [f"{t}{i}" for i in range(20)], columns=3),
    ],
    "heatmap": [
        lambda t: draw.heatmap(SIGNED, title=t), lambda t: draw.heatmap(GAPS, title=t, limit=0.5),
        lambda t: draw.heatmap(np.zeros((1, 1))), lambda t: draw.heatmap(np.full((2, 2), np.nan)),
        lambda t: draw.heatmap(-abs(SIGNED) * 1e-9), lambda t: draw.heatmap(rng.normal(size=(2, 600))),
    ],
    "image": [
        lambda t: draw.image(GREY, title=t), lambda t: draw.image(COLOURS, scale=0.5),
        lambda t: draw.image(np.zeros((600, 700, 1), np.uint8), title=t),
    ],
    "overlay": [lambda t: draw.overlay(GREY, GAPS, title=t), lambda t: draw.overlay(COLOURS, np.zeros((40, 60)))],
    "reliability": [lambda t: draw.reliability(BINS), lambda t: draw.reliability([(0, 1, 0, None, None)])],
    "scatter": [
        lambda t: draw.scatter([f"{t}{i}" for i in range(9)], [
            draw.Panel(f"{t}parameters", t or "x", 10.0 ** np.arange(9), np.linspace(0.9, 0.99, 9), [0.01] * 9)] * 2,
            f"{t}accuracy"),
        lambda t: draw.scatter(["a"], [draw.Panel("p", "x", [3], [1e6], [0])], "y", y_percent=False),
    ],
    "sparse_matrix": [
        lambda t: draw.sparse_matrix([[-1, 1, 0], [0, -1, 1]], [[0, 1, -1], [-1, 0, 1]]),
        lambda t: draw.sparse_matrix(np.eye(30) / 3, np.arange(30) * np.eye(30, dtype=int) + np.eye(30, dtype=int) - 1),
        lambda t: draw.sparse_matrix(np.eye(1000), np.eye(1000, dtype=int) - 1),
    ],
    "tensor": [
        lambda t: draw.tensor(rng.integers(0, 9, (5, 4, 3)), title=t), lambda t: draw.tensor(np.ones((1, 1, 1))),
        lambda t: draw.tensor(rng.normal(size=(14, 9, 64)), title=t), lambda t: draw.tensor(GAPS[..., None] / 3),
    ],
}
CASES = [pytest.param(make, id=f"{name}-{i}") for name, makes in EXAMPLES.items() for i, make in enumerate(makes)]
HOSTILE = "</text><script>alert(1)</script>&\"'<a href='javascript:x'>\x00\x1b\u202e\ud800\n "
LONG = "a class with a rather long name, in Größe 5 and 大きい, " * 3
every = pytest.mark.parametrize("make", CASES)


def again(make, text=""):
    """The picture, from the same random numbers each time."""
    global rng
    rng = np.random.default_rng(1)
    return make(text)


drawn = cache(again)


def test_every_public_function_has_examples():
    functions = {name for name in draw.__all__ if inspect.isfunction(getattr(draw, name))}
    assert functions == set(EXAMPLES) and set(draw.__all__) - functions == {"Panel", "Picture"}
    for name in functions:
        assert getattr(draw, name).__doc__, name
        assert "Raises ValueError" in getattr(draw, name).__doc__, name


@every
def test_a_picture_is_whole_and_says_its_size(make):
    picture = drawn(make)
    tree = ElementTree.fromstring(picture.svg)
    assert tree.tag == f"{SVG}svg" and picture.svg == str(picture) == picture._repr_html_()
    assert (tree.get("width"), tree.get("height")) == (str(picture.width), str(picture.height))
    assert tree.get("viewBox") == f"0 0 {picture.width} {picture.height}"
    assert tree.get("aria-label")
    paper = tree.find(f"{SVG}rect")
    assert (paper.get("class"), paper.get("width"), paper.get("height")) == ("paper", *map(str, (
        picture.width, picture.height)))
    opens = tree.find(f".//{SVG}a") is not None
    assert tree.get("role") == ("group" if opens else "img")
    assert not re.search(r"\b(nan|inf|None|np\.)\b", re.sub(r"base64,\S+", "", picture.svg))


@every
def test_nothing_in_a_picture_reaches_another_in_the_same_page(make):
    svg = drawn(make).svg
    assert svg.count("<style>") == 1 and f"<style>{STYLE}</style>" in svg
    tree = ElementTree.fromstring(svg)
    assert not [e for e in tree.iter() if e.get("id") or e.get("style")]
    assert "url(" not in svg and "<script" not in svg and "http" not in svg.replace("http://www.w3.org/2000/svg", "")


def test_the_style_holds_inside_pictures_only():
    light, dark = STYLE.split("@media screen and (prefers-color-scheme:dark)")
    for rules in (light, dark[1:-1]):
        selectors = re.findall(r"([^{}]+)\{[^{}]*\}", rules)
        assert selectors and all(s == ".pellucid" or s.startswith(".pellucid ") for s in selectors)
        assert "".join(f"{s}{{{b}}}" for s, b in re.findall(r"([^{}]+)\{([^{}]*)\}", rules)) == rules
    assert MUTED[0] in light and MUTED[1] in dark and "<" not in STYLE


@every
def test_the_same_input_gives_the_same_bytes(make):
    assert again(make).svg == drawn(make).svg


@every
@pytest.mark.parametrize("text", ["", LONG], ids=["short", "long"])
def test_everything_is_inside_and_no_text_lies_on_another(make, text):
    """By estimated widths, which are rather too wide."""
    picture = drawn(make, text)
    found = marks(picture)
    for m in found:
        left, top, right, bottom = m.box
        assert left >= -0.5 and top >= -0.5, m
        assert right <= picture.width + 0.5 and bottom <= picture.height + 0.5, m
    boxes = np.array([m.box for m in found if m.tag == "text" and m.text]).reshape(-1, 4)
    over = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:]) - np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    np.fill_diagonal(over[..., 0], -1)
    clash = np.argwhere((over > 1.5).all(2))
    words = [m.text for m in found if m.tag == "text" and m.text]
    assert not len(clash), [(words[i], words[j]) for i, j in clash[:5]]


class Tags(HTMLParser):
    """The tags that a browser would see in a page."""

    def __init__(self):
        super().__init__()
        self.found = set()

    def handle_starttag(self, tag, attributes):
        self.found.add(tag)
        assert not any(name.startswith("on") for name, _ in attributes)
        assert not any((value or "").strip().startswith("javascript") for _, value in attributes)


@every
def test_given_texts_are_texts(make):
    """Whatever they hold: they are read as they are, and add no element."""
    plain, hostile = drawn(make, "t"), drawn(make, HOSTILE)
    ElementTree.fromstring(hostile.svg.encode())
    page = Tags()
    page.feed(hostile.svg)
    assert page.found <= {"svg", "style", "rect", "text", "title", "g", "image", "path", "line", "circle", "a"}
    for char in "\x00\x1b\u202e\ud800":
        assert char not in hostile.svg
    if plain.svg != drawn(make, "").svg:  # it takes texts, so they must be there
        tree = ElementTree.fromstring(hostile.svg)
        whole = [*texts(hostile), *(e.text or "" for e in tree.iter(f"{SVG}title")), tree.get("aria-label")]
        assert any("<script>alert(1)</script>" in text for text in whole)


def test_pictures_are_saved_whole_or_not_at_all(tmp_path):
    picture = draw.image(GREY)
    picture.save(tmp_path / "grey.svg")
    assert (tmp_path / "grey.svg").read_text() == picture.svg
    with pytest.raises(OSError, match="there is no folder"):
        picture.save(tmp_path / "none" / "grey.svg")


FLAT = rng.normal(size=(3, 4))
REFUSED = [
    (lambda: draw.image(FLAT), r"image: expected uint8 pixels, got float64 in shape \(3, 4\)"),
    (lambda: draw.image([[1, 2], [3]]), r"image: expected uint8 pixels, got \[\[1, 2\], \[3\]\]"),
    (lambda: draw.image(np.zeros((0, 4), np.uint8)), r"nothing to draw in shape \(0, 4\)"),
    (lambda: draw.image(np.zeros((4, 4, 2), np.uint8)), r"\(H, W\), \(H, W, 1\) or \(H, W, 3\), got \(4, 4, 2\)"),
    (lambda: draw.image(GREY, scale=0), "scale: expected a number above zero, got 0"),
    (lambda: draw.heatmap(FLAT[0]), r"values: expected 2 axes, got shape \(4,\)"),
    (lambda: draw.heatmap([["a"]]), "values: expected an array of numbers"),
    (lambda: draw.heatmap([[1, np.inf]]), "values: 1 of 2 values are infinite"),
    (lambda: draw.bars(["a", "b"], [1.5e308, -1.5e308]), "values: 2 of 2 values are infinite or beyond"),
    (lambda: draw.heatmap(FLAT, limit=-1), "limit: expected a number above zero, got -1"),
    (lambda: draw.overlay(GREY, FLAT), r"values: expected the image's size \(9, 7\), got \(3, 4\)"),
    (lambda: draw.gallery([], []), "a gallery needs at least one image"),
    (lambda: draw.gallery([GREY], []), "a caption and a link for each of 1 images, got 0 captions and 1 links"),
    (lambda: draw.gallery([GREY, FLAT], ["", ""]), r"images\[1\]: expected uint8"),
    (lambda: draw.gallery([GREY], [""], columns=0), "columns: expected a whole number from 1, got 0"),
    (lambda: draw.gallery([GREY], [""], links=["java\nscript:alert(1)"]), "a link may be a path"),
    (lambda: draw.bars([], []), "at least one name"),
    (lambda: draw.bars(["a"], [1, 2]), "a value for each of 1 names, got 2"),
    (lambda: draw.curves([], x_label="", y_label=""), "at least one series"),
    (lambda: draw.curves([("a", [1])], x_label="", y_label=""), "series 0: expected .* got 2 parts"),
    (lambda: draw.curves([("a", [1], [1, 2])], x_label="", y_label=""), "a: expected as many ys .* 1 xs, 2 ys"),
    (lambda: draw.curves([("a", [np.nan], [1])], x_label="", y_label=""), "a: xs: 1 of 1 values are NaN"),
    (lambda: draw.curves([("a", [0], [1])], x_label="", y_label="", log_x=True), "a: x must be above zero"),
    (lambda: draw.curves([("a", [1], [1], [-1])], x_label="", y_label=""), "a: spreads must not be negative"),
    (lambda: draw.curves([("a", [1], [1], [[1, 2, 3]])], x_label="", y_label=""), "a: expected a spread or two"),
    (lambda: draw.confusion(FLAT, ["a"]), r"a row and a column for each of 1 classes, got shape \(3, 4\)"),
    (lambda: draw.confusion([[-1]], ["a"]), "counts must not be negative, got -1"),
    (lambda: draw.confusion([[np.nan]], ["a"]), "matrix: 1 of 1 values are NaN"),
    (lambda: draw.confusion([[1]], ["a"], totals=([1, 2], [1])), "totals: expected a number for each of 1 rows, got"),
    (lambda: draw.confusion([[3]], ["a"], totals=([3], [2])), "totals: column 0 holds 3 and its total is 2"),
    (lambda: draw.confusion([[1]], ["a"], links=[]), "links: expected 1 rows of 1"),
    (lambda: draw.confusion([[1]], ["a"], links=[["data:text/html,x"]]), "a link may be a path"),
    (lambda: draw.reliability([]), "bins"),
    (lambda: draw.reliability([(0, 1)]), "rows of low, high, count, confidence and accuracy, got rows of 2"),
    (lambda: draw.reliability([(0, 1, 3, None, 0.5)]), "confidence and accuracy where the count is not 0"),
    (lambda: draw.reliability([(0, 1, 3, 1.5, 0.5)]), "shares between 0 and 1"),
    (lambda: draw.tensor(FLAT), r"values: expected 3 axes, got shape \(3, 4\)"),
    (lambda: draw.tensor(FLAT[..., None], most=0), "most: expected a whole number from 1, got 0"),
    (lambda: draw.feature_maps(FLAT), "maps: expected 3 axes"),
    (lambda: draw.filters(FLAT), "weight: expected 4 axes"),
    (lambda: draw.filters(np.full((1, 1, 1, 1), np.nan)), "weight: 1 of 1 values are NaN"),
    (lambda: draw.sparse_matrix(FLAT, [[0]]), r"owner: expected the matrix's shape \(3, 4\), got \(1, 1\)"),
    (lambda: draw.sparse_matrix([[1]], [[0.5]]), "owner: expected whole numbers, -1 for no weight, got float64"),
    (lambda: draw.sparse_matrix([[0, 2]], [[-1, -1]]), r"matrix\[0, 1\] is 2 but owner says that no weight is there"),
    (lambda: draw.architecture([]), "at least one layer"),
    (lambda: draw.architecture([("a", "b")]), "layer 0: expected .* got 2 parts"),
    (lambda: draw.architecture([("a", "b", (0, 1))]), r"layer 0, a: expected an output shape .* got \(0, 1\)"),
    (lambda: draw.architecture([("a", "b", 5)]), "layer 0, a: expected an output shape .* got 5"),
    (lambda: draw.convolution_step(FLAT, FLAT[0], 0), r"x has shape \(3, 4\) and w \(4,\); expected"),
    (lambda: draw.convolution_step([1, np.nan], [1], 0), "x: 1 of 2 values are NaN"),
    (lambda: draw.convolution_step([1, 2], [1], 2), "there is no position 2, the output has 2 from 0 on"),
    (lambda: draw.convolution_step(IMAGE, FILTER, (0, 3)), "no position 0, 3, the output has 3 x 3"),
    (lambda: draw.convolution_step(IMAGE, FILTER, 1), "at: expected 2 whole numbers from 0, got 1"),
    (lambda: draw.convolution_step([1, 2], [1], -1), "at: expected a whole number from 0, got -1"),
    (lambda: draw.convolution_step([1, 2], [1, 2, 3], 0), "the filter spans 3 elements and the padded input has 2"),
    (lambda: draw.convolution_step([1, 2], [1], 0, stride=0), "stride: expected a whole number from 1, got 0"),
    (lambda: draw.convolution_step([1, 2], [1], 0, stride=(1, 1)), "stride: expected a whole number from 1"),
    (lambda: draw.convolution_step([1, 2], [1], 0, padding="same"), "padding: expected .* got 'same'"),
    (lambda: draw.convolution_step(FLAT[..., None], np.ones((2, 1, 1)), (0, 0)), "x has 1 channels and the filter 2"),
    (lambda: draw.convolution_step(FLAT[..., None], np.ones((2, 1, 1, 1)), (0, 0, 2)), "there is no filter 2, w has 2"),
    (lambda: draw.convolution_views(np.zeros((9, 9)), [[1]]), "at most 64 inputs and outputs, got 1 channels, 81"),
    (lambda: draw.convolution_views(np.zeros((3, 3, 2)), np.ones((2, 1, 1))), "for one channel"),
    (lambda: draw.scatter([], [], "y"), "at least one name and one panel"),
    (lambda: draw.scatter(["a"], [draw.Panel("p", "x", [1], [np.nan], [0])], "y"), "p: y: 1 of 1 values are NaN"),
]


@pytest.mark.parametrize(("call", "message"), REFUSED, ids=range(len(REFUSED)))
def test_wrong_input_is_refused_in_one_line(call, message):
    with pytest.raises(ValueError, match=message) as refused:
        call()
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 250
