"""Pictures of pixels, charts and networks show what they were given: numbers, colours, positions and sizes."""

import re

import numpy as np
import pytest
from svg_pages import kinds, marks, pixels, points, rgb, rgba, texts

from pellucid import draw, zoo
from pellucid.draw.svg import ABOVE, BELOW

rng = np.random.default_rng(0)


# Pixels.


@pytest.mark.parametrize("shape", [(8, 8), (28, 20, 1), (5, 9, 3)])
def test_an_image_is_its_pixels(shape):
    given_ = rng.integers(0, 256, shape).astype(np.uint8)
    picture = draw.image(given_)
    (m,) = marks(picture, "image")
    np.testing.assert_array_equal(np.asarray(pixels(m)), given_[..., 0] if shape[-1] == 1 else given_)
    width, height = m.box[2] - m.box[0], m.box[3] - m.box[1]
    assert width / height == shape[1] / shape[0] and width % shape[1] == 0
    scaled = marks(draw.image(given_, scale=3), "image")[0].box
    assert scaled[2] - scaled[0] == 3 * shape[1]


def test_a_large_image_is_reduced():
    (m,) = marks(draw.image(rng.integers(0, 256, (1000, 500, 3)).astype(np.uint8)), "image")
    assert pixels(m).size == (224, 448) and m.kind == "smooth"


def test_a_map_is_signed_and_zero_is_the_paper():
    values = np.array([[1.0, 0.5, 0.0], [-1.0, -0.25, np.nan]])
    found = rgba(marks(draw.heatmap(values), "image")[0])
    assert found.shape == (2, 3, 4)
    for place in ((0, 0), (0, 1)):
        np.testing.assert_array_equal(found[place][:3], rgb(ABOVE))
    for place in ((1, 0), (1, 1)):
        np.testing.assert_array_equal(found[place][:3], rgb(BELOW))
    np.testing.assert_allclose(found[..., 3] / 255, [[1, 0.5, 0], [1, 0.25, 150 / 255]], atol=0.01)
    np.testing.assert_array_equal(found[1, 2][:3], [128] * 3)  # missing


def test_the_scale_of_a_map_says_what_its_colours_mean():
    values = np.array([[3.0, -1.0]])
    assert texts(draw.heatmap(values)) == ["-3", "3", "0"]
    assert texts(draw.heatmap(values, limit=2)) == ["-2", "≥ 2", "0"]
    assert texts(draw.heatmap(abs(values))) == ["0", "3"]
    assert texts(draw.heatmap(-abs(values), title="t")) == ["t", "-3", "0"]
    assert texts(draw.heatmap([[1, np.nan]]))[-1] == "missing"
    assert texts(draw.heatmap([[0.0]])) == ["all values are 0"]
    np.testing.assert_allclose(rgba(marks(draw.heatmap(values, limit=2), "image")[0])[0, :, 3], [255, 128], atol=1)


def test_a_map_lies_over_its_image():
    image, values = rng.integers(0, 256, (6, 4, 3)).astype(np.uint8), rng.normal(size=(6, 4))
    below, above, _ = marks(draw.overlay(image, values), "image")
    assert below.box == above.box
    grey = np.asarray(pixels(below)).astype(float)
    luma = image @ np.array([0.299, 0.587, 0.114])
    assert grey.min() >= 110 and np.corrcoef(grey.ravel(), luma.ravel())[0, 1] > 0.999
    np.testing.assert_allclose(rgba(above)[..., 3] / 255, abs(values) / abs(values).max(), atol=0.01)


def test_sizes_of_files():
    noise = rng.integers(0, 256, (64, 224, 224, 3)).astype(np.uint8)  # nothing is harder to compress
    assert len(draw.overlay(noise[0], rng.normal(size=(224, 224))).svg) < 200_000
    assert len(draw.gallery(list(noise[:, :28, :28, 0]), [""] * 64).svg) < 120_000
    large = draw.gallery(list(noise), [""] * 64)
    assert len(large.svg) < 600_000 and {pixels(m).size for m in marks(large, "image")} == {(96, 96)}
    assert len(draw.feature_maps(rng.normal(size=(224, 224, 64))).svg) < 600_000


def test_images_of_a_gallery_end_where_their_frame_is():
    picture = draw.gallery([np.full((5, 10, 3), 255, np.uint8), np.zeros((9, 9), np.uint8)], ["", "b"])
    boxes = [m.box for m in marks(picture, "image")]
    paper, *frames = marks(picture, "rect")
    assert [m.box for m in frames] == boxes and len(boxes) == 2


def test_a_large_map_is_reduced_to_means_of_what_is_there():
    values = np.zeros((900, 450))
    values[:450] = 2
    values[450:] = np.where(np.arange(450) % 2, np.nan, -1)
    (m, _) = marks(draw.heatmap(values), "image")
    found = rgba(m)
    assert found.shape[:2] == (450, 225)
    np.testing.assert_array_equal(found[100, 50], [*rgb(ABOVE), 255])
    np.testing.assert_allclose(found[400, 50], [*rgb(BELOW), 128], atol=1)


def test_a_gallery_in_rows():
    images = [np.full((2 + i, 4), 10 * i, np.uint8) for i in range(5)]
    captions = [f"first {i}\nsecond {i}" for i in range(5)]
    picture = draw.gallery(images, captions, columns=2, links=["#a", None] * 2 + ["b"])
    found = marks(picture, "image")
    assert [m.href for m in found] == ["#a", None, "#a", None, "b"]
    for i, m in enumerate(found):
        np.testing.assert_array_equal(np.asarray(pixels(m)), images[i])
        assert (m.box[2] - m.box[0]) / (m.box[3] - m.box[1]) == pytest.approx(4 / (2 + i), rel=0.05)
        lines = [t for t in marks(picture, "text") if t.text.endswith(f" {i}")]
        assert [t.text for t in lines] == [f"first {i}", f"second {i}"] and m.box[3] <= lines[0].box[1] + 3
        assert abs(sum(lines[0].box[::2]) - sum(m.box[::2])) < 2  # centred below
    centres = [((m.box[0] + m.box[2]) / 2, (m.box[1] + m.box[3]) / 2) for m in found]
    assert centres[0][0] == centres[2][0] == centres[4][0] < centres[1][0]
    assert centres[0][1] == centres[1][1] < centres[2][1]


def test_feature_maps_share_a_scale():
    maps = np.stack([np.full((3, 3), v) for v in (1.0, -2.0, 0.0, 4.0)], 2)
    picture = draw.feature_maps(maps, most=3)
    found = marks(picture, "image")[:3]
    assert [t for t in texts(picture) if t.isdigit()] == ["0", "1", "3", "4", "0"]  # three channels, and the scale
    np.testing.assert_allclose([rgba(m)[0, 0, 3] / 255 for m in found], [0.25, 0.5, 1], atol=0.01)
    assert "4 channels of 3 x 3; the 3 with the largest values are drawn; 1 is 0 everywhere" in texts(picture)
    named = draw.feature_maps(maps, names=["a", "b", "7: +1", "d"], most=3)
    assert [t for t in texts(named) if t in ("a", "b", "7: +1", "d")] == ["a", "b", "d"]
    assert [m.tip.split(":")[0] for m in marks(named, "image")[:3]] == ["channel a", "channel b", "channel d"]
    with pytest.raises(ValueError, match="names: expected one for each of 4 channels, got 3"):
        draw.feature_maps(maps, names=list("abc"))
    means = rgba(marks(draw.feature_maps(np.kron([[1.0, 0.5], [0, 0.25]], np.ones((64, 64)))[..., None]), "image")[0])
    assert means.shape[:2] == (64, 64)
    np.testing.assert_allclose(means[[0, 0, -1], [0, -1, -1], 3] / 255, [1, 0.5, 0.25], atol=0.01)


def test_filters_in_colour_and_plane_by_plane():
    weight = np.zeros((2, 3, 1, 2))
    weight[1, :, 0, 1] = 1, -1, 0.5
    found = marks(draw.filters(weight), "image")
    np.testing.assert_array_equal(np.asarray(pixels(found[0])), np.full((1, 2, 3), 128))
    np.testing.assert_array_equal(np.asarray(pixels(found[1]))[0, 1], [255, 0, 191])
    weight = rng.normal(size=(4, 5, 3, 3))
    planes = marks(draw.filters(weight), "image")[:20]
    for k, m in enumerate(planes):
        np.testing.assert_allclose(rgba(m)[..., 3] / 255, abs(weight[k // 5, k % 5]) / abs(weight).max(), atol=0.01)
    assert len({m.box[1] for m in planes}) == 4 and len({m.box[0] for m in planes}) == 5
    some = draw.filters(rng.normal(size=(10, 40, 1, 1)), most=4)
    assert "10 filters of 1 x 1 on 40 channels; 4 at equal distances are drawn; a row is a filter, a column one of " \
           "16 input channels" in texts(some)


def test_a_tensor_in_numbers_or_in_stacked_planes():
    values = rng.integers(-9, 10, (3, 2, 2))
    shown = [t for t in texts(draw.tensor(values)) if re.fullmatch(r"-?\d+", t)]
    assert shown[:12] == [str(v) for c in range(2) for v in values[..., c].ravel()]
    (scale,) = marks(draw.tensor(values), "image")
    strongest = max(float(m.element.get("fill-opacity", 0)) for m in marks(draw.tensor(values), "rect"))
    assert float(scale.element.get("opacity")) == strongest  # the colours of the cells are those of the scale
    picture = draw.tensor(rng.normal(size=(10, 20, 30)), most=4)
    planes = [m for m in marks(picture, "image") if m.tip.startswith("channel")]
    assert [m.tip for m in planes] == [f"channel {c}" for c in (29, 19, 10, 0)]  # the last one is drawn first
    assert all((m.box[2] - m.box[0]) / (m.box[3] - m.box[1]) == 2 for m in planes)
    assert planes[0].box[0] > planes[-1].box[0] and planes[0].box[1] < planes[-1].box[1]
    assert "height 10, width 20, 30 channels, 4 of them drawn" in texts(picture)


# Charts.


def lines_of(picture):
    """The corners of each curve, by name."""
    return {m.tip: points(m) for m in marks(picture, "path") if m.tip}


def test_curves_are_in_proportion():
    xs, ys = [0, 1, 4], [10, 30, 20]
    a = lines_of(draw.curves([("a", xs, ys)], x_label="x", y_label="y"))["a"]
    np.testing.assert_allclose((a[:, 0] - a[0, 0]) / (a[2, 0] - a[0, 0]), [0, 0.25, 1], atol=1e-3)
    np.testing.assert_allclose((a[:, 1] - a[0, 1]) / (a[1, 1] - a[0, 1]), [0, 1, 0.5], atol=1e-3)
    assert a[1, 1] < a[0, 1]  # upwards
    a = lines_of(draw.curves([("a", [1, 10, 1000], ys)], x_label="x", y_label="y", log_x=True))["a"]
    np.testing.assert_allclose((a[:, 0] - a[0, 0]) / (a[2, 0] - a[0, 0]), [0, 1 / 3, 1], atol=1e-3)


def test_ticks_stand_where_their_numbers_are():
    picture = draw.curves([("a", [0, 10], [0.5, 0.9])], x_label="x", y_label="y", percent=True)
    a = lines_of(picture)["a"]
    per = (a[1, 1] - a[0, 1]) / 0.4
    ticks = [t for t in kinds(picture, "text", "muted") if t.text.endswith("%")]
    assert len(ticks) >= 4
    for t in ticks:
        middle = float(t.element.get("y")) - 4
        assert middle == pytest.approx(a[0, 1] + per * (float(t.text[:-1]) / 100 - 0.5), abs=0.05)


def test_missing_values_are_gaps_and_spreads_are_bands():
    picture = draw.curves([("a", [1, 2, 3, 4, 5], [1, 2, np.nan, 2, 1], [0.5, 0.5, 0.5, 0, 0])], x_label="", y_label="")
    pieces = [points(m) for m in marks(picture, "path") if m.tip == "a"]
    assert [len(p) for p in pieces] == [2, 2]
    assert len(marks(picture, "circle")) == 4
    band = [points(m) for m in marks(picture, "path") if m.element.get("fill-opacity")][0]
    (x1, y1), (x2, y2) = pieces[0]
    per = y1 - y2  # for 1
    np.testing.assert_allclose(band, [[x1, y1 + per / 2], [x2, y2 + per / 2], [x2, y2 - per / 2], [x1, y1 - per / 2]],
                               atol=0.02)
    none = draw.curves([("a", [1, 2], [1, 2]), ("b", [1, 2], [np.nan] * 2)], x_label="", y_label="")
    assert {"a", "b: no values"} <= set(texts(none))
    uneven = draw.curves([("a", [2, 1], [2, 1], [[0.25, 0], [0.5, 1]])], x_label="", y_label="")  # below and above
    band, = [points(m) for m in marks(uneven, "path") if m.element.get("fill-opacity")]
    (x1, y1), (x2, y2) = next(points(m) for m in marks(uneven, "path") if m.tip == "a")
    per = y1 - y2
    np.testing.assert_allclose(band, [[x1, y1 + per / 2], [x2, y2 + per / 4], [x2, y2], [x1, y1 - per]], atol=0.02)


def test_each_curve_has_its_name_at_its_end():
    ends = {"first": 3.0, "second": 1.0, "third": 2.0}
    picture = draw.curves([(n, [0, 1], [2, v]) for n, v in ends.items()], x_label="x", y_label="y")
    names = [m for m in marks(picture, "text") if m.text in ends]
    lines = lines_of(picture)
    for m in names:
        assert float(m.element.get("y")) - 4 == pytest.approx(lines[m.text][1, 1], abs=0.05)
    kinds_ = {m.tip: (m.kind, m.element.get("stroke-dasharray")) for m in marks(picture, "path") if m.tip}
    many = draw.curves([(str(i), [0, 1], [i, i]) for i in range(24)], x_label="", y_label="")
    assert len(set(kinds_.values())) == 3
    assert len({(m.kind, m.element.get("stroke-dasharray")) for m in marks(many, "path") if m.tip}) == 24


def test_bars_are_as_long_as_their_numbers():
    picture = draw.bars(["a", "b", "c", "d"], [2, -1, 0, np.nan])
    found = [m for m in marks(picture, "rect") if m.element.get("fill") in (ABOVE, BELOW)]
    assert [m.element.get("fill") for m in found] == [ABOVE, BELOW]
    lengths = [m.box[2] - m.box[0] for m in found]
    assert lengths[0] == pytest.approx(2 * lengths[1], abs=0.03) and found[0].box[0] == pytest.approx(found[1].box[2])
    assert [t for t in texts(picture)] == ["a", "2", "b", "-1", "c", "0", "d", "–"]
    # Nearly all is not all.
    assert texts(draw.bars(["a", "b"], [0.9997, 0.0003], percent=True)) == ["a", ">99.9%", "b", "<0.1%"]


def test_reliability_puts_claims_against_truth():
    rows = [(0.0, 0.5, 10, 0.4, 0.6), (0.5, 1.0, 40, 0.9, 0.7)]
    picture = draw.reliability(rows)
    low, high = marks(picture, "circle")
    (x1, y1), (x2, y2) = (((m.box[0] + m.box[2]) / 2, (m.box[1] + m.box[3]) / 2) for m in (low, high))
    assert (x2 - x1) / (y1 - y2) == pytest.approx(0.5 / 0.1, rel=1e-3)  # both axes are as long
    assert [m.element.get("stroke") for m in marks(picture, "line") if m.element.get("stroke-width") == "3"] == [
        ABOVE, BELOW, BELOW, ABOVE]  # too little, too much; and the legend
    bars = [m for m in marks(picture, "rect") if m.tip]
    assert (bars[1].box[3] - bars[1].box[1]) / (bars[0].box[3] - bars[0].box[1]) == pytest.approx(4)
    assert high.tip == "50.0% to 100%: 40 images, 90.0% claimed, 70.0% right"
    diagonal = next(m for m in marks(picture, "line") if m.element.get("stroke-dasharray"))
    assert diagonal.box[2] - diagonal.box[0] == diagonal.box[3] - diagonal.box[1]


def test_confusion_in_numbers():
    counts = np.array([[8, 2, 0], [1, 7, 2], [0, 0, 0]])
    links = [[f"#{i}{j}" if counts[i, j] else None for j in range(3)] for i in range(3)]
    picture = draw.confusion(counts, ["ant", "bee", "cat"], links=links)
    cells = [m for m in marks(picture, "text") if re.fullmatch(r"\d", m.text)]
    assert [int(m.text) for m in cells] == counts.ravel().tolist()
    assert [m.href for m in cells] == [link for row in links for link in row]
    rows = np.array([m.box[1] for m in cells]).reshape(3, 3)
    columns = np.array([m.box[0] + m.box[2] for m in cells]).reshape(3, 3)
    assert (rows == rows[:, :1]).all() and (np.diff(rows[:, 0]) > 0).all()
    np.testing.assert_allclose(columns, np.broadcast_to(columns[0], (3, 3)), atol=0.1)
    assert (np.diff(columns[0]) > 0).all()
    shown = texts(picture)
    assert [t for t in shown if re.fullmatch(r"[\d.]+%|–", t)] == ["80.0%", "88.9%", "70.0%", "77.8%", "–", "0%"]
    assert {"ant", "bee", "cat", "recall", "precision", "true class", "answer"} <= set(shown)
    shades = [m for m in marks(picture, "rect") if m.element.get("fill-opacity") and m.tip]
    strength = np.array([float(m.element.get("fill-opacity")) for m in shades]).reshape(3, 3)
    assert [m.element.get("fill") for m in shades[:2]] == [BELOW, ABOVE]
    np.testing.assert_allclose(strength / 0.55, [[0.8**0.5, 1, 0], [0.5**0.5, 0.7**0.5, 1], [0, 0, 0]], atol=0.01)
    assert "mistakes: 0%" in shown and "20.0% of the true class" in shown
    assert shades[1].tip == "ant, taken for bee: 2 (20.0%)"
    assert [float(m.element.get("opacity")) for m in marks(picture, "image")] == [strength.max()] * 2  # the legend


def test_a_part_of_a_confusion_matrix_keeps_the_shares_of_the_whole():
    whole = np.array([[8, 2, 10], [1, 7, 2], [0, 3, 5]])
    picture = draw.confusion(whole[:2, :2], ["ant", "bee"], totals=(whole.sum(1)[:2], whole.sum(0)[:2]))
    rates = [t for t in texts(picture) if re.fullmatch(r"[\d.]+%|–", t)]
    assert rates == ["40.0%", "88.9%", "70.0%", "58.3%"]
    assert "ant, taken for bee: 2 (10.0%)" in {m.tip for m in marks(picture)}


def test_confusion_of_many_classes():
    counts = np.diag(np.full(100, 50.0))
    counts[3, 7], counts[90, 2] = 50, 5
    links = [[f"#{i}-{j}" for j in range(100)] for i in range(100)]
    picture = draw.confusion(counts, [f"c{i}" for i in range(100)], links=links)
    opening = [m for m in marks(picture, "rect") if m.href]
    assert sorted(m.href for m in opening) == sorted(f"#{i}-{j}" for i, j in np.argwhere(counts))
    image = marks(picture, "image")[0]
    assert not [t for t in texts(picture) if t.isdigit()] and {"c0", "c99", "right: 0%"} <= set(texts(picture))
    cell = (image.box[2] - image.box[0]) / 100
    words = marks(picture, "text")
    for m in opening:
        i, j = map(int, m.href[1:].split("-"))
        np.testing.assert_allclose(m.box[:2], [image.box[0] + j * cell, image.box[1] + i * cell], atol=0.01)
        name = next(t for t in words if t.text == f"c{i}" and t.box[2] < image.box[0])
        assert m.box[1] <= (name.box[1] + name.box[3]) / 2 <= m.box[3]
    assert not any(m.element.get("opacity") for m in marks(picture, "image"))
    found = rgba(image)
    np.testing.assert_allclose(found[[3, 90, 0], [7, 2, 0], 3] / 255, [1, (5 / 55 / 0.5) ** 0.5, 1], atol=0.01)


# Networks.


def boxes(picture):
    """Width and height of each box's front, and how far it recedes."""
    fronts = [m for m in marks(picture, "path") if m.tip]
    sides = [m for m in marks(picture, "path") if m.element.get("fill-opacity") == "0.55"]
    return [(*(np.ptp(points(f), 0)), np.ptp(points(s)[:, 0])) for f, s in zip(fronts, sides, strict=True)]


def test_boxes_have_true_proportions():
    shapes = [(64, 32, 16), (32, 32, 64), (16, 8, 128), (256,)]
    picture = draw.architecture([(f"l{i}", "Conv", s) for i, s in enumerate(shapes)])
    found = np.array(boxes(picture))
    np.testing.assert_allclose(found[:, 0] / found[0, 0], [1, 4, 8, 16], rtol=0.01)
    np.testing.assert_allclose(found[:3, 1] / found[0, 1], [1, 0.5, 0.25], rtol=0.01)
    np.testing.assert_allclose(found[:3, 2] / found[0, 2], [1, 1, 0.25], rtol=0.01)
    said = " ".join(texts(picture))
    pixels_, size = re.search(r"height and width: (\d+) pixels for (\d+)", said).groups()
    assert found[0, 1] / 64 == pytest.approx(int(pixels_) / int(size))
    per = float(re.search(r"thickness: ([\d.]+) pixels? for a channel", said)[1])
    assert found[0, 0] == pytest.approx(16 * per)


@pytest.mark.parametrize("name", ["resnet50", "vgg16", "lenet"])
def test_networks_keep_every_layer(name):
    net = zoo.build(name, input_shape=(224, 224, 3), classes=1000)
    rows = [(n.name, type(n.layer).__name__, net.shapes[n.name]) for n in net.nodes]
    picture = draw.architecture(rows, title=name)
    fronts = [m for m in marks(picture, "path") if m.tip]
    labels = [m.text for m in marks(picture, "text") if m.element.get("font-size") == "10" and "muted" not in m.kind]
    inside = [int(label.partition(" +")[2] or 0) + 1 for label in labels]
    assert len(labels) == len(fronts) and sum(inside) == len(rows)
    first = np.cumsum([0, *inside[:-1]])
    assert [label.partition(" +")[0] for label in labels] == [rows[i][0] for i in first]
    said = " ".join(texts(picture))
    if len(rows) > len(fronts):
        assert f"{len(rows)} layers in {len(fronts)} boxes: {len(rows) - len(fronts)} that keep the shape" in said
    for i, m in zip(first, fronts, strict=True):
        assert m.tip.startswith(" x ".join(map(str, rows[i][2])) + f": {rows[i][0]} ({rows[i][1]})")
    assert {"convolution", "dense", "pooling"} <= set(texts(picture))
