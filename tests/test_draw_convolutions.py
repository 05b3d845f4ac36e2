"""Pictures of convolutions show what was multiplied: the window, the products, their sum, and the matrix."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from svg_pages import kinds, marks, rgb, rgba, texts

from pellucid import draw, ops, reference
from pellucid.draw.cells import tint
from pellucid.draw.example import example
from pellucid.draw.svg import ABOVE, BELOW, number

rng = np.random.default_rng(0)
IMAGE = np.array([[3, 3, 2, 1, 0], [0, 0, 1, 3, 1], [3, 1, 2, 2, 3], [2, 0, 0, 2, 2], [2, 0, 0, 0, 1]])
FILTER = np.array([[0, 1, 2], [2, 2, 0], [0, 1, 2]])


def within(inner, outer, slack=3):
    return all(a >= b - slack for a, b in zip(inner[:2], outer[:2], strict=True)) and all(
        a <= b + slack for a, b in zip(inner[2:], outer[2:], strict=True))


@st.composite
def convolutions(drawn):
    """Input and filters as layers hold them, options, and a number to choose the position by."""
    axes, channels = drawn(st.integers(1, 2)), drawn(st.integers(1, 3))

    def each(least, most):
        return tuple(drawn(st.integers(least, most)) for _ in range(axes))

    kernel, stride, dilation = each(1, 3), each(1, 3), each(1, 2)
    padding = tuple((drawn(st.integers(0, 2)), drawn(st.integers(0, 2))) for _ in range(axes))
    size = tuple(max(n, d * (k - 1) + 1) for n, d, k in zip(each(1, 7), dilation, kernel, strict=True))
    values = np.random.default_rng(drawn(st.integers(0, 999)))
    x, w = values.integers(-5, 6, (*size, channels)), values.integers(-3, 4, (2, channels, *kernel))
    return x, w, {"stride": stride, "padding": padding, "dilation": dilation}, drawn(st.integers(0, 10**6))


@settings(max_examples=60, deadline=None)
@given(convolutions())
def test_a_step_is_what_the_definition_gives(case):
    x, w, options, place = case
    expected = reference.conv(x[None], w, [2, -3], **options)[0]
    at = np.unravel_index(place % expected.size, expected.shape)
    found, where = example(x, w, at, [2, -3], **options)
    np.testing.assert_array_equal(found.output.reshape(expected.shape[:-1]), expected[..., at[-1]])
    picture = draw.convolution_step(x, w, at, bias=[2, -3], **options)
    (answer,) = [t for t in kinds(picture, "text", "strong") if t.text not in "×=→"]
    assert answer.text == number(expected[at])
    assert any(within(answer.box, m.box) for m in kinds(picture, "rect", "mark"))
    products = found.windows[where] * found.w
    assert texts(picture).count(number(products.ravel()[0])) >= 1
    terms = " ".join(texts(picture)).partition(f"{number(expected[at])} = ")[2].replace("×", "*")
    assert eval(re.sub(r"\((bias|channel \d|\d+ products)\)", "", terms)) == expected[at]


def test_the_lecture_step_by_step():
    picture = draw.convolution_step([0, 1, 0, 1, 1], [-1, 1], 2)
    assert texts(picture) == ["input", "filter", "products", "0", "1", "0", "1", "1", "×", "-1", "0", "×", "1", "1",
                              "output", "1", "-1", "1", "0", "sum", "1 = 0 × (-1) + 1 × 1"]
    window, answer = kinds(picture, "rect", "mark")
    seen = [t.text for t in marks(picture, "text") if within(t.box, window.box, 0)]
    assert seen == ["0", "1"] and sum(within(t.box, answer.box, 0) for t in marks(picture, "text")) == 1
    picture = draw.convolution_step(IMAGE, FILTER, (0, 1), stride=2, padding=1)
    window, answer = kinds(picture, "rect", "mark")
    seen = [t.text for t in marks(picture, "text") if within(t.box, window.box, 0)]
    assert seen == ["0", "0", "0", "3", "2", "1", "0", "1", "3"]  # three of them padding, which is hollow
    hollow = [m for m in kinds(picture, "rect", "hollow") if within(m.box, window.box, 0)]
    assert len(hollow) == 3 and len(kinds(picture, "rect", "hollow")) == 7 * 7 - 25
    assert [t for t in texts(picture) if " = " in t] == [
        "17 = 0 × 0 + 0 × 1 + 0 × 2 + 3 × 2 + 2 × 2 + 1 × 0 + 0 × 0 + 1 × 1 + 3 × 2"]
    assert {"input 5 x 5, padded", "filter 3 x 3", "output 3 x 3", "sum"} <= set(texts(picture))


def test_a_step_of_many_channels_adds_up():
    x, w = rng.normal(size=(5, 5, 20)), rng.normal(size=(20, 3, 3))
    picture = draw.convolution_step(x, w, (1, 2))
    sums = (x[1:4, 2:5].transpose(2, 0, 1) * w).sum((1, 2))
    shown = [int(t.split()[1]) for t in texts(picture) if t.startswith("channel ")]
    assert shown == sorted(np.argsort(-abs(sums))[:6].tolist())
    rest = sums.sum() - sums[shown].sum()
    assert f"14 more channels with smaller sums add {number(rest)}" in texts(picture)
    assert kinds(picture, "text", "strong")[-1].text == number(sums.sum())
    said = " ".join(texts(picture)).partition(" = ")[2].replace("(-", "-")
    for i, value in ((f"channel {c}", sums[c]) for c in shown):
        assert re.search(rf"{re.escape(number(value))}\)? \({i}\)", said)
    assert re.search(rf"{re.escape(number(rest))}\)? \(14 more channels\)", said)
    large = draw.convolution_step(IMAGE, np.ones((6, 6)), (0, 0), padding=1)
    assert texts(large)[-1] == f"{IMAGE.sum()} = {IMAGE.sum()} (36 products)"


def tints(found):
    """The marks with a weight's colour, by weight."""
    return {k: [m for m in found if m.element.get("fill") == tint(k)] for k in range(9)}


def test_the_four_views_show_the_same_window_at_the_same_time():
    picture = draw.convolution_views(IMAGE, FILTER, at=(1, 0))
    titles = [m for m in marks(picture, "text") if m.element.get("font-size") == "14"]
    assert [t.text for t in titles] == ["1  Sliding window", "2  Template match", "3  Sparse matrix", "4  Dense layer"]
    right, below = titles[1].box[0] - 5, titles[2].box[1] - 5
    panels = [[m for m in marks(picture) if (m.box[0] >= right, m.box[1] >= below) == place]
              for place in ((False, False), (True, False), (False, True), (True, True))]
    window, template, matrix, dense = panels
    # Sliding window: the marked part of the input holds the weights' colours in their order, the marked output the sum.
    frames = [m for m in window if m.tag == "rect" and m.kind == "mark"]
    inside = [m for m in window if m.tag == "text" and within(m.box, frames[0].box, 0)]
    assert [m.text for m in inside] == ["0", "0", "1", "3", "1", "2", "2", "0", "0"]
    assert [m.text for m in window if m.tag == "text" and within(m.box, frames[1].box, 0)] == ["10"]
    assert all(sum(within(m.box, frames[0].box, 0) for m in found) == 1 for found in tints(window).values())
    # Template match: the marked part has the marked output.
    (frame,) = [m for m in template if m.kind == "mark"]
    assert [m.text for m in template if m.tag == "text" and within(m.box, frame.box, 0)] == ["10"]
    # Sparse matrix: entries of a colour are one weight, nine times; the marked row holds each once.
    entries = [m for m in matrix if m.tip.startswith("output ")]
    for k, mine in tints(entries).items():
        assert len(mine) == 9 and {m.tip.partition(": ")[2] for m in mine} == {f"weight {k} is {FILTER.ravel()[k]}"}
    row = [m for m in matrix if m.kind == "mark"]
    shown = [m.text for m in matrix if m.tag == "text" and within(m.box, row[0].box, 0)]
    assert shown == [str(v) for v in FILTER.ravel()]
    assert [m.text for m in matrix if m.tag == "text" and within(m.box, row[1].box, 0)] == ["10"]
    # Dense layer: a line for each pair, the kept ones once more in colour; both counts.
    lines = [m for m in dense if m.tag == "line"]
    assert len([m for m in lines if m.kind == "grid"]) == 25 * 9 - 81
    coloured = [m for m in lines if m.element.get("stroke")]
    assert len(coloured) == 81
    assert sum(m.element.get("stroke-width") == "3" for m in coloured) == 9
    assert {"dense layer: 25 × 9 = 225 weights, 9 biases", "convolution: 9 weights, 1 bias"} <= {
        m.text for m in dense if m.tag == "text"}


def test_views_look_at_the_largest_output_by_default():
    picture = draw.convolution_views([0, 1, -1, 1, 1], [-1, 1])
    assert "four views of one convolution; output 2 is 2" in picture.svg
    assert "dense layer: 5 × 4 = 20 weights, 4 biases" in texts(picture)
    signed = [m.element.get("fill") for m in marks(picture, "rect") if m.element.get("fill") in (ABOVE, BELOW)]
    assert signed == [ABOVE, BELOW, ABOVE]  # the bars of 1, -2, 2 and 0; all other colours are weights


@settings(max_examples=30, deadline=None)
@given(convolutions())
def test_the_matrix_of_the_views_is_that_of_the_layer(case):
    x, w, options, _ = case
    x, w = x[..., 0], w[0, 0]
    matrix, owner = example(x, w, None, None, **options)[0].matrix()
    np.testing.assert_array_equal(matrix, reference.conv_matrix(w[None, None], x.shape, **options))
    np.testing.assert_array_equal((owner >= 0) * matrix, matrix)


def test_a_sparse_matrix_in_cells_and_in_pixels():
    w = np.array([[[-2.0, 3.0]]])
    matrix = ops.conv_matrix(w, 5)
    owner = np.where(matrix == -2, 0, np.where(matrix == 3, 1, -1))
    picture = draw.sparse_matrix(matrix, owner)
    assert texts(picture) == ["-2", "3"] * 4 + ["4 x 5 matrix: 4 outputs, 5 inputs",
                                               "8 of 20 entries are weights, 2 different ones"]
    found = tints(marks(picture))
    for k in (0, 1):
        assert [round(m.box[0] + m.box[1]) for m in found[k]] == sorted({round(m.box[0] + m.box[1]) for m in found[k]})
        assert len(found[k]) == 4
    assert found[1][0].box[:2] == pytest.approx([found[0][1].box[0], found[0][0].box[1]])  # beside, and one row up
    owner = np.full((1000, 1700), -1)
    owner[np.arange(1000), np.arange(1000)] = 4
    picture = draw.sparse_matrix(owner >= 0, owner)
    shown = rgba(marks(picture, "image")[0])
    assert shown.shape == (334, 567, 4) and "a pixel is 3 x 3 entries" in " ".join(texts(picture))
    assert (shown[..., 3] == 255).sum() == 334
    np.testing.assert_array_equal(shown[7, 7], [*rgb(tint(4)), 255])


def test_parts_of_the_input_are_shaded_by_the_input_alone():
    """Whatever the size of the weights, a template match shows what is in the image."""
    x, w = np.arange(10, 26).reshape(4, 4), 1000 * np.array([[1, 2], [3, 4]])
    brightest = [m.element.get("fill-opacity") for m in marks(draw.convolution_views(x, w), "rect") if m.tip == "25"]
    assert "1" in brightest and set(brightest) <= {"1", None}
