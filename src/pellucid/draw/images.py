"""Pictures of pixels: an image, a map of signed values, a map over its image, and many images side by side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .arrays import embed, embed_signed, largest, numbers, pixels_of, reduced
from .svg import LINE, Picture, Sketch, clean, number, text_width

MARGIN = 8
SIDE = 224  # of an image that is enlarged, at least, and of a map, in pixels
MOST = 448  # the longer side of any
THUMB, GAP = 96, 12  # of a gallery
BAR = 8  # height of a scale


def image(image, *, title: str = "", scale: float | None = None) -> Picture:
    """An image, uint8 (H, W), (H, W, 1) or (H, W, 3), `scale` times as large; pixels stay squares when enlarged.

    Without `scale` small images are enlarged by a whole number to about 224 pixels, large ones reduced to 448.
    Raises ValueError for other arrays and for a scale that is not above zero.
    """
    found = pixels_of("image", image)
    width, height = _shown(found, scale)
    sketch = Sketch()
    top = heading(sketch, title)
    sketch.pixels(MARGIN, top, width, height, embed(found, (width, height)), smooth=width < found.shape[1])
    sketch.rect(MARGIN, top, width, height, "rule")  # where a white image ends on white paper
    return finish(sketch, width, top + height, title, title or f"an image of {_size(found)} pixels")


def heatmap(values, *, title: str = "", limit: float | None = None) -> Picture:
    """A map of signed values (H, W): orange above zero, blue below, the paper is zero and grey is missing (NaN).

    `limit` is the absolute value of the strongest colour, by default the largest there is; values beyond it have that
    colour too, and the scale says so. Raises ValueError for other arrays, infinite values and a limit not above zero.
    """
    found, limit = _map(values, limit)
    width, height = _shown(found, None)
    sketch = Sketch()
    top = heading(sketch, title)
    sketch.rect(MARGIN, top, width, height, "cell", tip=_range(found))
    sketch.pixels(MARGIN, top, width, height, embed_signed(reduced(found, width, height), limit), tip=_range(found))
    bottom, room = draw_scale(sketch, MARGIN, top + height + 8, found, limit, width)
    return finish(sketch, max(width, room), bottom, title, f"{title or 'a map'}: {_range(found)}")


def overlay(image, values, *, title: str = "", limit: float | None = None) -> Picture:
    """A map of signed values (H, W) over its image of the same height and width, which is shown in pale grey.

    Colours and `limit` as in `heatmap`. Raises ValueError as `image` and `heatmap` do, and where the sizes differ.
    """
    below = pixels_of("image", image)
    found, limit = _map(values, limit)
    if found.shape != below.shape[:2]:
        raise ValueError(f"values: expected the image's size {below.shape[:2]}, got {found.shape}; resize one of them")
    width, height = _shown(below, None)
    sketch = Sketch()
    top = heading(sketch, title)
    sketch.pixels(MARGIN, top, width, height, embed(pale(below), (width, height)), smooth=width < found.shape[1])
    sketch.pixels(MARGIN, top, width, height, embed_signed(reduced(found, width, height), limit), tip=_range(found))
    bottom, room = draw_scale(sketch, MARGIN, top + height + 8, found, limit, width)
    return finish(sketch, max(width, room), bottom, title, f"{title or 'a map over its image'}: {_range(found)}")


def gallery(images: Sequence, captions: Sequence[str], *, columns: int = 8,
            links: Sequence[str | None] | None = None) -> Picture:
    """Images, uint8 as `image` takes them, in rows of `columns`, each above its caption.

    A caption may have several lines; what is too long is shortened and can be read by pointing at it. `links` opens
    something from an image, None nothing. Large images are reduced. Raises ValueError for no images, lists of other
    lengths, what `image` refuses and links that would run.
    """
    images, captions = list(images), [str(c) for c in captions]
    links = [None] * len(images) if links is None else list(links)
    if not images:
        raise ValueError("a gallery needs at least one image")
    if not len(images) == len(captions) == len(links):
        raise ValueError(f"expected a caption and a link for each of {len(images)} images, got {len(captions)} "
                         f"captions and {len(links)} links")
    if int(columns) != columns or columns < 1:
        raise ValueError(f"columns: expected a whole number from 1, got {columns!r}")
    sketch, columns = Sketch(), min(int(columns), len(images))
    lines = [c.split("\n") if c else [] for c in captions]
    y = MARGIN
    for start in range(0, len(images), columns):
        row = range(start, min(start + columns, len(images)))
        for i in row:
            _thumb(sketch, MARGIN + (i - start) * (THUMB + GAP), y, f"images[{i}]", images[i], lines[i], links[i])
        y += THUMB + LINE * max(len(lines[i]) for i in row) + GAP
    return sketch.picture(2 * MARGIN + columns * (THUMB + GAP) - GAP, y, f"{len(images)} images with their captions")


def _thumb(sketch: Sketch, x: float, y: float, name: str, image, caption: list[str], link: str | None) -> None:
    found = pixels_of(name, image)
    height, width = found.shape[:2]
    factor = THUMB / max(height, width)
    factor = max(int(factor), 1) if factor >= 1 else factor
    wide, high = max(round(width * factor), 1), max(round(height * factor), 1)
    with sketch.linked(link):
        sketch.pixels(x + (THUMB - wide) / 2, y + (THUMB - high) / 2, wide, high, embed(found, (wide, high)),
                      tip=clean("\n".join(caption)))
        # Where a white image ends on white paper, and what a link marks.
        sketch.rect(x + (THUMB - wide) / 2, y + (THUMB - high) / 2, wide, high, "rule", pointer_events="none")
    for i, line in enumerate(caption):
        sketch.text(x + THUMB / 2, y + THUMB + LINE * (i + 1) - 3, line, "muted" if i else "", anchor="middle",
                    room=THUMB)


# What other pictures use too.


def heading(sketch: Sketch, title: str) -> float:
    """Write the title, and say where there is room below it."""
    if not title:
        return MARGIN
    sketch.text(MARGIN, 19, title, "strong", room=600)
    return MARGIN + 20


def finish(sketch: Sketch, width: float, bottom: float, title: str, label: str) -> Picture:
    """The picture with room for the title and what is drawn: `width` pixels from the margin on, down to `bottom`."""
    needed = min(text_width(clean(title)) * 1.1, 620) if title else 0  # the title is bold
    return sketch.picture(max(width, needed) + 2 * MARGIN, bottom + MARGIN, label)


def pale(image: np.ndarray) -> np.ndarray:
    """An image in light shades of grey, (H, W), on which colours show."""
    grey = image if image.ndim == 2 else image @ np.array([0.299, 0.587, 0.114])
    return np.rint(110 + np.asarray(grey, np.float64) * (255 - 110) / 255).astype(np.uint8)


def _map(values, limit: float | None) -> tuple[np.ndarray, float]:
    found = numbers("values", values, 2)
    return found, limited(limit, found)


def limited(limit: float | None, values: np.ndarray) -> float:
    """The absolute value of the strongest colour: as given, or the largest there is."""
    if limit is None:
        return largest(values)
    if not 0 < float(limit) < np.inf:
        raise ValueError(f"limit: expected a number above zero, got {limit!r}")
    return float(limit)


def _size(found: np.ndarray) -> str:
    return f"{found.shape[0]} x {found.shape[1]}"


def _shown(found: np.ndarray, scale: float | None) -> tuple[int, int]:
    """The width and height that an array of pixels is shown with."""
    height, width = found.shape[:2]
    longer = max(height, width)
    if scale is None:
        scale = MOST / longer if longer > MOST else max(SIDE // longer, 1)
    elif not 0 < scale < np.inf:
        raise ValueError(f"scale: expected a number above zero, got {scale!r}")
    return max(round(width * scale), 1), max(round(height * scale), 1)


def between(values: np.ndarray) -> str:
    """The smallest and the largest value that is there, in words."""
    there = values[~np.isnan(values)]
    return f"{number(there.min())} to {number(there.max())}" if there.size else "no values"


def _range(values: np.ndarray) -> str:
    gone = int(np.isnan(values).sum())
    return f"{_size(values)} values, {between(values)}" + (f", {gone} missing" if gone else "")


def draw_scale(sketch: Sketch, x: float, y: float, values: np.ndarray, limit: float, width: float,
               opacity: float | None = None) -> tuple[float, float]:
    """Draw which colours, of which `opacity`, mean which values; returns where it ends, downwards, and the width it
    needs."""
    there = values[~np.isnan(values)]
    low = -limit if there.size and there.min() < 0 else 0.0
    high = limit if there.size and there.max() > 0 else 0.0
    if low == high:
        text = "all values are 0" if there.size else "no value is there"
        sketch.text(x, y + 12, text, "muted")
        return y + 16, text_width(text)
    left = ("≤ " if there.min() < low else "") + number(low)
    right = ("≥ " if there.max() > high else "") + number(high)
    long = max(width, text_width(left) + text_width(right) + 40)
    steps = np.linspace(low, high, 2 * 63 + 1)[None]
    sketch.rect(x, y, long, BAR, "cell")
    sketch.pixels(x, y, long, BAR, embed_signed(steps, limit), smooth=True, opacity=opacity)
    sketch.text(x, y + BAR + 14, left, "muted")
    sketch.text(x + long, y + BAR + 14, right, "muted", anchor="end")
    if low and high:
        sketch.text(x + long / 2, y + BAR + 14, "0", "muted", anchor="middle")
    bottom = y + BAR + 18
    if there.size < values.size:
        sketch.rect(x, bottom + 3, 10, 10, fill="#808080", fill_opacity=0.59)
        sketch.text(x + 16, bottom + 12, "missing", "muted")
        bottom += LINE + 2
    return bottom, long
