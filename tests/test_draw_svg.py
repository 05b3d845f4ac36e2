"""What pictures share: colours that can be told apart, texts that can be read, plain numbers, axes."""

import re
from itertools import combinations
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pellucid.draw import arrays, axes, svg

PAPERS = (0, 1)  # light, dark


def linear(colour):
    """sRGB to linear light (IEC 61966-2-1)."""
    c = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def over(colour, opacity, below):
    """A colour that covers a share of another one, as browsers mix them."""
    mixed = [round(opacity * int(colour[i : i + 2], 16) + (1 - opacity) * int(below[i : i + 2], 16)) for i in (1, 3, 5)]
    return "#" + "".join(f"{c:02x}" for c in mixed)


def contrast(a, b):
    """WCAG 2's ratio of relative luminances."""
    dark, light = sorted(float(linear(c) @ [0.2126, 0.7152, 0.0722]) for c in (a, b))
    return (light + 0.05) / (dark + 0.05)


# Machado, Oliveira and Fernandes, "A physiologically-based model for simulation of color vision deficiency", 2009.
VISIONS = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}


def oklab(light):
    """Björn Ottosson's perceptual space, 2020, in which a distance of 0.02 is about what can just be seen."""
    cones = np.cbrt(np.clip(light, 0, 1) @ np.array([
        [0.4122214708, 0.2119034982, 0.0883024619], [0.5363325363, 0.6806995451, 0.2817188376],
        [0.0514459929, 0.1073969566, 0.6299787005]]))
    return cones @ np.array([
        [0.2104542553, 1.9779984951, 0.0259040371], [0.793617785, -2.428592205, 0.7827717662],
        [-0.0040720468, 0.4505937099, -0.808675766]])


def difference(a, b, vision):
    a, b = (oklab(np.array(VISIONS[vision]) @ linear(colour)) for colour in (a, b))
    return float(np.linalg.norm(a - b))


def test_the_measures_know_black_from_white():
    assert contrast("#000000", "#ffffff") == pytest.approx(21) and contrast("#123456", "#123456") == 1
    assert difference("#000000", "#ffffff", "normal") == pytest.approx(1, abs=1e-3)
    red, green = "#c00000", "#007000"
    assert difference(red, green, "deuteranopia") < 0.1 < 0.3 < difference(red, green, "normal")


@pytest.mark.parametrize("mode", PAPERS, ids=["light", "dark"])
class TestContrast:
    def test_of_texts(self, mode):
        for ground in (svg.PAPER[mode], svg.CELL[mode]):
            assert contrast(svg.INK[mode], ground) >= 7
            assert contrast(svg.MUTED[mode], ground) >= 4.5

    def test_of_numbers_in_cells(self, mode):
        for tint in svg.TINTS:
            assert contrast(svg.INK[0], tint) >= 4.5  # dark text on both papers
        for value in (-1.0, 1.0):
            shade = arrays.shade(value, 1.0)
            ground = over(shade["fill"], shade["fill_opacity"], svg.CELL[mode])
            assert contrast(svg.INK[mode], ground) >= 4.5, ground

    def test_of_what_is_no_text(self, mode):
        for colour in (*(pair[mode] for pair in svg.SERIES), svg.MARK[mode], svg.ABOVE, svg.BELOW, svg.RULE[mode]):
            assert contrast(colour, svg.PAPER[mode]) >= 3, colour


@pytest.mark.parametrize("vision", VISIONS)
class TestColoursAreToldApart:
    @pytest.mark.parametrize("mode", PAPERS, ids=["light", "dark"])
    def test_series(self, mode, vision):
        colours = [pair[mode] for pair in svg.SERIES]
        assert min(difference(a, b, vision) for a, b in combinations(colours, 2)) > 0.14

    def test_weights_of_a_filter(self, vision):
        assert min(difference(a, b, vision) for a, b in combinations(svg.TINTS[:9], 2)) > 0.065
        assert min(difference(a, b, vision) for a, b in combinations(svg.TINTS, 2)) > 0.05

    def test_signs(self, vision):
        assert difference(svg.ABOVE, svg.BELOW, vision) > 0.14


class TestNumbers:
    @pytest.mark.parametrize(("value", "text"), [
        (0, "0"), (-0.0, "0"), (3, "3"), (-12, "-12"), (123456789, "123456789"), (1e12, "1e12"), (0.1 + 0.2, "0.3"),
        (-2.0 / 3, "-0.667"), (1234.56, "1235"), (12.345, "12.3"), (0.00012345, "0.000123"), (0.0000999, "9.99e-5"),
        (9.999, "10"), (999999.7, "1e6"), (1234567.8, "1.23e6"), (-1.5e-9, "-1.5e-9"), (float("nan"), "–"),
    ])
    def test_plain(self, value, text):
        assert svg.number(value) == text

    @given(st.floats(-1e300, 1e300))
    def test_a_number_is_what_it_says(self, value):
        text = svg.number(value)
        assert re.fullmatch(r"-?\d+(\.\d*[1-9])?(e-?\d+)?", text)
        assert float(text) == pytest.approx(value, rel=5.001e-3, abs=1e-320)

    @pytest.mark.parametrize(("value", "text"), [
        (0, "0"), (950, "950"), (1500, "1.5k"), (999.9, "1k"), (25_557_032, "25.6M"), (4.1e9, "4.1G"), (0.1, "0.1"),
        (999_999, "1M"), (3e15, "3000T"), (-12_000, "-12k"),
    ])
    def test_short(self, value, text):
        assert svg.short(value) == text

    @pytest.mark.parametrize(("value", "text"), [
        (0, "0%"), (1, "100%"), (0.931, "93.1%"), (0.9996, ">99.9%"), (0.9994, "99.9%"), (0.0004, "<0.1%"),
        (float("nan"), "–"),
    ])
    def test_percent(self, value, text):
        assert svg.percent(value) == text


class TestTexts:
    @given(st.text(max_size=20))
    def test_any_text_becomes_a_line_that_xml_holds(self, text):
        sketch = svg.Sketch()
        sketch.text(1, 2, text)
        tree = ElementTree.fromstring(sketch.picture(9, 9, text).svg.encode())
        assert (tree.find("{http://www.w3.org/2000/svg}text").text or "") == svg.clean(text)
        assert tree.get("aria-label", "") == svg.clean(text)

    @given(st.text(max_size=60), st.floats(0, 300))
    def test_shortened_texts_fit_and_keep_both_ends(self, text, room):
        short = svg.shorten(text, room)
        if svg.text_width(text) <= room:
            assert short == text
        else:
            head, _, tail = short.rpartition("…") if len(short) > 2 else (short[:-1], "", "")
            assert text.startswith(head) and text.endswith(tail)
            assert svg.text_width(short) <= room or len(short) <= 2

    def test_wrapped_texts_keep_their_words(self):
        text = "the filter lies on a part of the input " * 4
        lines = svg.wrap(text, 150)
        assert " ".join(lines).split() == text.split() and len(lines) > 3
        assert all(svg.text_width(line) <= 150 for line in lines)

    def test_a_wide_text_is_wider(self):
        assert svg.text_width("iii") < svg.text_width("nnn") < svg.text_width("WWW") < svg.text_width("大大大大")
        assert svg.text_width("e\u0301") == svg.text_width("e")

    @pytest.mark.parametrize("link", ["#part", "a/b.html?x=1&y=2", "https://example.org/", "data:image/png;base64,AA==",
                                      "../x.html", "HTTP://x", "c%3A.html", "a b/c d.html"])
    def test_links_that_open_something(self, link):
        assert svg.href(link) == link

    @pytest.mark.parametrize("link", ["javascript:alert(1)", " jAvaScript:x", "java\tscript:x", "vbscript:x",
                                      "data:text/html,x", "\x01javascript:x", "data:,image/",
                                      "java\u200bscript:x", "java\u2028script:x", "\u00a0javascript:x"])
    def test_links_that_would_run(self, link):
        with pytest.raises(ValueError, match="a link may be a path"):
            svg.href(link)


class TestAxes:
    def test_values_that_differ_by_rounding_only_are_one(self):
        axis = axes.spanned(1.0, 1.0 + 1e-15, 0, 100)
        assert axis(1.0) == pytest.approx(50) and 2 <= len(axis.ticks()) <= 8

    @example(99_600.0, 500.0, 5)  # 100k and 100.1k
    @example(-1_000_300.0, 500.0, 5)
    @given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.integers(2, 10))
    def test_ticks_are_round_within_and_few(self, low, span, most):
        axis = axes.Axis(low, low + span, 0, 100)
        ticks = axis.ticks(most)
        assert len(ticks) <= most + 1
        values = np.array([v for v, _ in ticks])
        assert all(low - 1e-6 * span <= v <= low + span * (1 + 1e-6) for v in values)
        if len(values) > 1:
            step = values[1] - values[0]
            np.testing.assert_allclose(np.diff(values), step, rtol=1e-6)
            assert f"{step:.3e}"[0] in "125" and f"{step:.3e}"[2:4] == "00"
        for value, text in ticks:
            if "k" not in text and "M" not in text:
                assert float(text) == pytest.approx(value, abs=1e-6 * span)
        assert len({text for _, text in ticks}) == len(ticks)

    @given(st.floats(1e-6, 1e6), st.floats(1.01, 1e9))
    def test_logarithmic_ticks(self, low, factor):
        axis = axes.Axis(low, low * factor, 10, 110, log=True)
        ticks = axis.ticks(6)
        assert 1 <= len(ticks) <= 6 and len({t for _, t in ticks}) == len(ticks)
        assert all(low * (1 - 1e-6) <= v <= low * factor * (1 + 1e-6) for v, _ in ticks)
        assert axis(low) == pytest.approx(10) and axis(low * factor) == pytest.approx(110)
        assert axis(low * factor**0.5) == pytest.approx(60, abs=1e-3)

    @given(st.lists(st.floats(0, 100), min_size=1, max_size=12))
    def test_names_are_moved_apart_and_stay_in_order(self, wanted):
        found = axes.apart(wanted, 8, 0, 100)
        order = sorted(range(len(wanted)), key=lambda i: wanted[i])
        placed = [found[i] for i in order]
        assert all(b - a >= 8 - 1e-6 for a, b in zip(placed, placed[1:], strict=False))
        assert -1e-6 <= placed[0] and placed[-1] <= 100 + 1e-6
        if all(abs(a - b) >= 8 for a, b in combinations(wanted, 2)):
            assert found == pytest.approx(wanted)
