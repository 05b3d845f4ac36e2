"""A page as files: the HTML, its pictures for other uses, and its numbers."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..draw import Picture


def write_page(folder: Path, name: str, html: str, pictures: Mapping[str, Picture], numbers: dict) -> None:
    """`name`.html and `name`.json in the folder, and pictures/NAME.svg for each picture there."""
    (folder / "pictures").mkdir()
    for each, picture in pictures.items():
        (folder / "pictures" / f"{each}.svg").write_text(picture.svg, encoding="utf-8")
    (folder / f"{name}.json").write_text(json.dumps(numbers, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    (folder / f"{name}.html").write_text(html, encoding="utf-8")


def default_folder(kind: str, about: str) -> Path:
    """KIND/NAME in the working directory, NAME being the end of what the page is about, as a file may be called: three
    for a/three.png, digits-17 for digits:17."""
    name, _, number = os.path.basename(os.path.normpath(about)).partition(":")
    name = name if os.path.isdir(about) else Path(name).stem
    text = re.sub(r"[^A-Za-z0-9_.-]+", "-", "-".join(filter(None, (name, number))))
    return Path(kind, text[:60].strip("-.") or "page")
