"""The figures of the documentation are what its code draws."""

import re
import runpy
from pathlib import Path

import numpy as np
import pytest
from svg_pages import marks, rgba

from pellucid.draw import Picture

DOCS = Path(__file__).resolve().parents[1] / "docs"
FIGURES = runpy.run_path(str(DOCS / "figures.py"))
PAGES = FIGURES["pages"]()


def without_pixels(svg):
    return re.sub(r"base64,[^\"]*", "", svg)


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_figures_are_what_the_page_draws(page, tmp_path):
    FIGURES["draw"](page, tmp_path)
    assert {path.name for path in tmp_path.glob("*.svg")} == FIGURES["shown"](page)
    for path in tmp_path.glob("*.svg"):
        drawn, kept = (p.read_text() for p in (path, DOCS / "figures" / path.name))
        remedy = f"{path.name} is not what {page.name} draws: run python docs/figures.py"
        assert without_pixels(drawn) == without_pixels(kept), remedy
        for a, b in zip(*(marks(Picture(svg, 0, 0), "image") for svg in (drawn, kept)), strict=True):
            # How pixels are compressed depends on Pillow's version, and a rounding on the machine.
            np.testing.assert_allclose(rgba(a).astype(int), rgba(b), atol=3, err_msg=remedy)


def test_no_figure_is_left_over():
    assert PAGES
    assert {p.name for p in (DOCS / "figures").iterdir()} == set().union(*(FIGURES["shown"](p) for p in PAGES))
