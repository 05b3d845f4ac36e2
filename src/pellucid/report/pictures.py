"""Photographs in a page: small, and no more of them than a page can hold."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..evaluation import Evaluation
from ..texts import clipped

SIDE = 96  # pixels of the longer side that are kept at most
LOSSLESS = 48  # up to here as PNG, which shows every pixel; larger ones as JPEG
MOST, MOST_BYTES = 600, 4_000_000  # pictures in an album, and what they take as text
CAPTION = 28  # characters


def thumbnail(image: np.ndarray, side: int = SIDE) -> np.ndarray:
    """An image (H, W, C), uint8, as (h, w) grey or (h, w, 3), with sides of at most so many pixels."""
    from PIL import Image

    pixels = image if image.shape[2] in (1, 3) else image.mean(axis=2, keepdims=True).astype(np.uint8)
    picture = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    picture.thumbnail((side, side))
    return np.asarray(picture)


def data_uri(image: np.ndarray) -> str:
    """Pixels as `thumbnail` gives them, as an address that holds them."""
    from PIL import Image

    file, lossless = io.BytesIO(), max(image.shape[:2]) <= LOSSLESS
    Image.fromarray(image).save(file, *(["PNG"] if lossless else ["JPEG"]), quality=80)
    kind = "png" if lossless else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


@dataclass(frozen=True)
class Shown:
    """A picture of a gallery: its address, its size in a page, and what it is, in words."""

    src: str
    width: int
    height: int
    pixelated: bool
    name: str
    note: str


class Album:
    """The pictures of a page, until there are MOST of them or they take MOST_BYTES."""

    def __init__(self):
        self.count = self.bytes = 0
        self._known: dict[tuple[int, int], str] = {}

    def take(self, result: Evaluation, places: Sequence[int], notes: Sequence[str]) -> list[Shown]:
        """The images at some places of an evaluation, or the first of them, as far as there is room."""
        shown = []
        for place, note in zip(places, notes, strict=True):
            if result.images is None or result.images.dtype != np.uint8 or result.images.ndim != 4:
                break  # what was given preprocessed is no picture any more
            if self.count >= MOST or self.bytes >= MOST_BYTES:
                break
            shown.append(self._shown(result, int(place), note))
        return shown

    def _shown(self, result: Evaluation, place: int, note: str) -> Shown:
        pixels = thumbnail(result.images[place])
        src = data_uri(pixels)
        self.count, self.bytes = self.count + 1, self.bytes + len(src)
        height, width = pixels.shape[:2]
        larger = max(SIDE // max(height, width), 1)
        return Shown(src, width * larger, height * larger, larger > 1, name_of(result, place), note)


def name_of(result: Evaluation, place: int) -> str:
    """What an image is called: its file, or its number in the data set."""
    told = result.answer(place)
    return f"image {told['index']}" if told["file"] is None else clipped(told["file"], CAPTION)
