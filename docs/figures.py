"""Draws the figures of the documentation: `python docs/figures.py` writes docs/figures anew.

A page that shows figures/NAME.svg saves NAME.svg in its own Python blocks.
"""

from __future__ import annotations

import os
import re
from contextlib import chdir
from pathlib import Path

DOCS = Path(__file__).resolve().parent
FIGURE = re.compile(r"\]\((figures/[^)]+\.svg)\)")


def pages() -> list[Path]:
    """The pages with figures."""
    return [page for page in sorted(DOCS.glob("*.md")) if FIGURE.search(page.read_text())]


def shown(page: Path) -> set[str]:
    """The names of a page's figures."""
    return {Path(link).name for link in FIGURE.findall(page.read_text())}


def draw(page: Path, folder: str | os.PathLike) -> None:
    """Run the Python of a page in a folder, where it saves its figures."""
    blocks = re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    with chdir(folder):
        exec(compile("\n".join(blocks), str(page), "exec"), {"__name__": "__main__"})


if __name__ == "__main__":
    figures = DOCS / "figures"
    figures.mkdir(exist_ok=True)
    for figure in figures.glob("*.svg"):
        figure.unlink()
    for page in pages():
        draw(page, figures)
