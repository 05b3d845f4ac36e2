"""A network as a strip of boxes, as high, deep and thick as what its layers give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, log2

import numpy as np

from .images import MARGIN
from .svg import LINE, Picture, Sketch, clean, number, shorten, text_width

TALL = 140  # the highest box, in pixels
MOST = 8  # pixels for an element of a height
DEPTH, RISE = 0.35, 0.25  # how much of a width goes to the right and up, where it recedes
PITCH = 15  # between boxes, so that the names below them have room
WIDE = 1080  # of a line of boxes
THICK = 600  # of all boxes together, about
NAME = 150  # room for a name
KINDS = (("convolution", ("conv",)), ("dense", ("dense", "linear", "gemm", "matmul")), ("pooling", ("pool",)),
         ("sum or join", ("add", "concat", "merge", "sum")))  # what a box's colour says; other kinds are grey
OTHER = "other layers"


@dataclass(frozen=True)
class _Box:
    names: list[str]
    kinds: list[str]
    size: tuple[int, int, int]  # height, width, channels
    text: str

    @property
    def kind(self) -> int:
        first = self.kinds[0].lower()
        return next((i for i, (_, words) in enumerate(KINDS) if any(w in first for w in words)), len(KINDS))


def architecture(layers: Sequence[tuple[str, str, Sequence[int]]], *, title: str = "") -> Picture:
    """Layers (name, kind, output shape) as boxes in true proportions: height and width on one scale, channels on
    another.

    Shapes are (H, W, C), (L, C) or (F,). Layers that follow each other with the same output are one box, named after
    the first; +2 says that two more are in it, and pointing at it names them. Flattening, which only rearranges, is in
    the box before. The scales stand below, and a box is at least a pixel in each direction. Long networks go on in
    further lines. Raises ValueError for no layers and other shapes.
    """
    rows = [_row(i, layer) for i, layer in enumerate(layers)]
    if not rows:
        raise ValueError("an architecture needs at least one layer of (name, kind, output shape)")
    boxes = []
    for name, kind, size, text in rows:
        if boxes and (boxes[-1].text == text or "flatten" in kind.lower()):
            boxes[-1].names.append(name)
            boxes[-1].kinds.append(kind)
        else:
            boxes.append(_Box([name], [kind], size, text))
    pixel = min(TALL / max(max(b.size[:2]) for b in boxes), MOST)
    channels = _round(sum(b.size[2] for b in boxes) / THICK)
    sketch, lines = Sketch(), _lines(boxes, channels, pixel)
    y: float = MARGIN + (LINE + 4 if title else 0)
    if title:
        sketch.text(MARGIN, 19, title, "strong", room=600)
    width = 0.0
    for line in lines:
        right, y = _strip(sketch, line, y, pixel, channels)
        width = max(width, right)
    right, bottom = _legend(sketch, boxes, len(rows), y, pixel, channels)
    return sketch.picture(max(width, right, text_width(title) * 1.1) + MARGIN, bottom + MARGIN,
                          f"{title or 'a network'} of {len(rows)} layers, from {boxes[0].text} to {boxes[-1].text}")


def _row(i: int, layer: Sequence) -> tuple[str, str, tuple[int, int, int], str]:
    if len(layer) != 3:
        raise ValueError(f"layer {i}: expected (name, kind, output shape), got {len(layer)} parts")
    name, kind, shape = layer
    shape = tuple(shape) if np.ndim(shape) == 1 else ()
    if not 1 <= len(shape) <= 3 or not all(isinstance(v, int | np.integer) and v > 0 for v in shape):
        raise ValueError(f"layer {i}, {clean(name)}: expected an output shape (H, W, C), (L, C) or (F,) of whole "
                         f"numbers from 1, got {layer[2]!r}")
    height, width, channels = ((1, 1), (shape[0], 1), shape[:2])[len(shape) - 1] + (shape[-1],)
    return str(name), str(kind), (height, width, channels), " x ".join(map(str, shape))


def _round(value: float) -> float:
    """Channels to a pixel: the power of two next above, at least a quarter."""
    return max(2.0 ** ceil(log2(value)), 0.25)


def _extent(box: _Box, pixel: float, channels: float) -> tuple[float, float, float]:
    """Pixels of the front's height, of the part that recedes, and of the thickness."""
    return max(box.size[0] * pixel, 1.0), max(box.size[1] * pixel, 1.0), max(box.size[2] / channels, 1.0)


def _lines(boxes: list[_Box], channels: float, pixel: float) -> list[list[_Box]]:
    lines: list[list[_Box]] = [[]]
    taken = 0.0
    for box in boxes:
        needed = max(PITCH, _extent(box, pixel, channels)[2] + 7)
        if lines[-1] and taken + needed > WIDE:
            lines.append([])
            taken = 0.0
        lines[-1].append(box)
        taken += needed
    return lines


def _strip(sketch: Sketch, boxes: list[_Box], y: float, pixel: float, channels: float) -> tuple[float, float]:
    """One line of boxes with their sizes above and their names below; returns where it ends."""
    sizes = [_extent(b, pixel, channels) for b in boxes]
    half = max(high / 2 + deep * RISE / 2 for high, deep, _ in sizes)
    axis, below = y + half + 2, y + 2 * half + 10
    names = below + max(text_width(b.text, 10) for b in boxes) + 10
    x, right = MARGIN + sizes[0][1] * DEPTH / 2 + 4, 0.0
    for box, (high, deep, thick) in zip(boxes, sizes, strict=True):
        left = x - deep * DEPTH / 2
        _box(sketch, box, left, axis - high / 2 + deep * RISE / 2, high, deep, thick)
        more = len(box.names) - 1
        label = shorten(clean(box.names[0]), NAME, 10) + (f" +{more}" if more else "")
        sketch.text(x + thick / 2 + 4, below, box.text, "muted", anchor="end", turned=True, size=10)
        sketch.text(x + thick / 2 + 4, names, label, anchor="end", turned=True, size=10, tip=_tip(box))
        right = max(right, left + thick + deep * DEPTH, x + thick / 2 + 8)
        x += max(PITCH, thick + 7)
    longest = max(text_width(shorten(clean(b.names[0]), NAME, 10) + " +99", 10) for b in boxes)
    return right, names + longest + 12


def _tip(box: _Box) -> str:
    inside = ", ".join(f"{n} ({k})" for n, k in zip(box.names[:8], box.kinds[:8], strict=True))
    return f"{box.text}: {inside}" + (f" and {len(box.names) - 8} more" if len(box.names) > 8 else "")


def _box(sketch: Sketch, box: _Box, x: float, y: float, high: float, deep: float, thick: float) -> None:
    """A box whose front's upper left corner is at x, y; its width recedes to the right and up."""
    dx, dy = deep * DEPTH, -deep * RISE
    kind = f"s{box.kind}" if box.kind < len(KINDS) else "muted"
    faces = {
        1.0: [(x, y), (x + thick, y), (x + thick, y + high), (x, y + high)],
        0.75: [(x, y), (x + dx, y + dy), (x + thick + dx, y + dy), (x + thick, y)],
        0.55: [(x + thick, y), (x + thick + dx, y + dy), (x + thick + dx, y + high + dy), (x + thick, y + high)],
    }
    for strength, points in faces.items():
        sketch.path(points, "paper", closed=True)
        sketch.path(points, kind, closed=True, fill="currentColor", fill_opacity=strength, stroke="currentColor",
                    stroke_width=0.5, tip=_tip(box) if strength == 1.0 else "")


def _legend(sketch: Sketch, boxes: list[_Box], layers: int, y: float, pixel: float,
            channels: float) -> tuple[float, float]:
    """Colours and scales; returns where they end."""
    x: float = MARGIN
    used = sorted({b.kind for b in boxes})
    for kind in used:
        text = KINDS[kind][0] if kind < len(KINDS) else OTHER
        sketch.rect(x, y, 11, 11, f"s{kind}" if kind < len(KINDS) else "muted", fill="currentColor")
        sketch.text(x + 16, y + 10, text, "muted")
        x += 16 + text_width(text) + 18
    right = x
    highest = max(max(b.size[:2]) for b in boxes)
    texts = [f"height and width: {number(highest * pixel)} pixels for {highest}, the width receding; thickness: "
             + (f"1 pixel for {channels:g} channels" if channels > 1 else f"{number(1 / channels)} "
                f"pixel{'s' * (channels < 1)} for a channel")]
    hidden = layers - len(boxes)
    if hidden:
        texts.append(f"{layers} layers in {len(boxes)} boxes: {hidden} that keep the shape, or only flatten it, are "
                     "counted after a +")
    for i, text in enumerate(texts):
        sketch.text(MARGIN, y + 28 + LINE * i, text, "muted")
        right = max(right, MARGIN + text_width(text))
    return right, y + 30 + LINE * (len(texts) - 1)


