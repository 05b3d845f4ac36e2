"""Tensors with channels, feature maps and filters: many planes of numbers, on one scale."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .arrays import PALE, embed, embed_signed, numbers, reduced
from .cells import grid, side
from .images import MARGIN, between, draw_scale, finish, heading, limited
from .svg import LINE, Picture, Sketch, number, text_width

TILE, GAP = 64, 10  # of a map in a grid, in pixels
COLUMNS = 8
LARGEST = 8  # rows and columns of a tensor that is shown in numbers, on up to
FEW = 4  # channels
STACK, SHIFT = 160, 14  # a stacked plane's longer side, and how far the next one is moved
FILTER = 44  # the longer side of a filter


def tensor(values, *, title: str = "", limit: float | None = None, most: int = 16) -> Picture:
    """A tensor (H, W, C) as its channels, one behind the other, channel 0 in front.

    A small one, of up to 8 x 8 and 4 channels, shows its numbers, the channels side by side. Of more than `most`
    channels some at equal distances are drawn. Colours and `limit` as in `heatmap`. Raises ValueError for other
    arrays and infinite values.
    """
    found = numbers("values", values, 3)
    limit = limited(limit, found)
    height, width, count = found.shape
    shown = _spread(count, _most(most))
    sketch = Sketch()
    top = heading(sketch, title)
    if numbered := max(height, width) <= LARGEST and count <= min(FEW, most):
        cell = side(found)
        for k, c in enumerate(shown):
            left = MARGIN + k * (width * cell + 20)
            sketch.text(left, top + 12, f"channel {c}", "muted")
            grid(sketch, left, top + LINE + 4, found[..., c], cell, limit=limit)
        right, bottom = count * (width * cell + 20) - 20, top + LINE + 4 + height * cell
    else:
        right, bottom = _stack(sketch, found, shown, limit, top)
    words = f"height {height}, width {width}, {count} channel{'s' * (count != 1)}"
    if len(shown) < count:
        words += f", {len(shown)} of them drawn"
    sketch.text(MARGIN, bottom + LINE + 2, words, "muted")
    bottom, room = draw_scale(sketch, MARGIN, bottom + LINE + 14, found, limit, max(right, 160),
                              PALE if numbered else None)
    return finish(sketch, max(right, room, text_width(words)), bottom, title, f"{title or 'a tensor'}: {words}")


def _stack(sketch: Sketch, found: np.ndarray, shown: list[int], limit: float, top: float) -> tuple[float, float]:
    """Planes from the last one to the first, each moved to the left and down; returns where they end."""
    height, width = found.shape[:2]
    scale = STACK / max(height, width)
    wide, high = max(width * scale, 2), max(height * scale, 2)
    shift = min(SHIFT, 160 / max(len(shown), 1))
    for k in reversed(range(len(shown))):
        x, y = MARGIN + k * shift, top + (len(shown) - 1 - k) * shift
        sketch.rect(x, y, wide, high, "paper")
        sketch.rect(x, y, wide, high, "cell")
        sketch.pixels(x, y, wide, high, embed_signed(found[..., shown[k]], limit), tip=f"channel {shown[k]}")
        sketch.rect(x, y, wide, high, "rule")
    far = (len(shown) - 1) * shift
    sketch.text(MARGIN + far + wide + 6, top + 12, f"channel {shown[-1]}", "muted")
    if len(shown) > 1:
        sketch.text(MARGIN + wide + far + 6, top + far + high, "channel 0 in front", "muted")
    return far + wide + 6 + text_width("channel 0 in front"), top + far + high


def feature_maps(maps, *, names: Sequence[str] | None = None, title: str = "", most: int = 64,
                 limit: float | None = None) -> Picture:
    """The channels of a layer's answer (H, W, C) side by side on one scale, each with its name, by default its number.

    Of more than `most` those with the largest values are drawn, in their order. It says how many are 0 everywhere.
    Colours and `limit` as in `heatmap`. Raises ValueError for other arrays, infinite values and too few or many names.
    """
    found = numbers("maps", maps, 3)
    names = [str(c) for c in range(found.shape[2])] if names is None else list(names)
    if len(names) != found.shape[2]:
        raise ValueError(f"names: expected one for each of {found.shape[2]} channels, got {len(names)}")
    limit = limited(limit, found)
    count = found.shape[2]
    strength = np.nan_to_num(np.abs(found)).max((0, 1))
    shown = sorted(np.argsort(-strength, kind="stable")[: _most(most)].tolist())
    sketch = Sketch()
    top = heading(sketch, title)
    words = f"{count} channel{'s' * (count != 1)} of {found.shape[0]} x {found.shape[1]}"
    if len(shown) < count:
        words += f"; the {len(shown)} with the largest values are drawn"
    if idle := int((strength == 0).sum()):
        words += f"; {idle} {'is' if idle == 1 else 'are'} 0 everywhere"
    sketch.text(MARGIN, top + 12, words, "muted")
    wide, high = _fit(found.shape[1], found.shape[0], TILE)
    columns, top = min(COLUMNS, len(shown)), top + LINE + 6
    for k, c in enumerate(shown):
        x, y = MARGIN + k % columns * (wide + GAP), top + k // columns * (high + LINE + 4)
        plane = found[..., c]
        tip = f"channel {names[c]}: {between(plane)}"
        sketch.rect(x, y, wide, high, "cell", tip=tip)
        sketch.pixels(x, y, wide, high, embed_signed(reduced(plane, wide, high), limit), tip=tip)
        sketch.text(x + wide / 2, y + high + 12, names[c], "muted", anchor="middle", size=10)
    bottom = top + -(-len(shown) // columns) * (high + LINE + 4) + 4
    right = columns * (wide + GAP) - GAP
    bottom, room = draw_scale(sketch, MARGIN, bottom, found, limit, min(max(right, 160), 320))
    return finish(sketch, max(right, room, text_width(words)), bottom, title, f"{title or 'feature maps'}: {words}")


def filters(weight, *, title: str = "", most: int = 64, limit: float | None = None) -> Picture:
    """A convolution's filters (O, I, kh, kw), the layout of its `weight`.

    Filters on 3 channels are shown in their colours, grey being zero. Others are shown plane by plane: a row a filter,
    a column an input channel, or where there is one channel only, in a grid. Of more than `most` filters or 16 input
    channels some at equal distances are drawn. `limit` as in `heatmap`. Raises ValueError for other arrays.
    """
    found = numbers("weight", weight, 4, missing=False)
    limit = limited(limit, found)
    outs, ins, kh, kw = found.shape
    shown = _spread(outs, _most(most))
    sketch = Sketch()
    top = heading(sketch, title)
    words = f"{outs} filter{'s' * (outs != 1)} of {kh} x {kw} on {ins} channel{'s' * (ins != 1)}"
    if len(shown) < outs:
        words += f"; {len(shown)} at equal distances are drawn"
    wide, high = _fit(kw, kh, FILTER)
    planes = [0] if ins in (1, 3) else _spread(ins, 16)
    if ins not in (1, 3):
        words += f"; a row is a filter, a column one of {len(planes)} input channels" if len(planes) < ins else (
            "; a row is a filter, a column an input channel")
    sketch.text(MARGIN, top + 12, words, "muted")
    top += LINE + 6
    columns = min(2 * COLUMNS, len(shown)) if len(planes) == 1 else len(planes)
    label = 0.0
    if len(planes) > 1:
        label = text_width(str(shown[-1])) + 8
        for k, c in enumerate(planes):
            sketch.text(MARGIN + label + k * (wide + 4) + wide / 2, top + 10, str(c), "muted", anchor="middle", size=10)
        top += LINE
    step = high + (LINE if len(planes) == 1 else 4)
    for k, (o, i) in enumerate((o, i) for o in shown for i in planes):
        x, y = MARGIN + label + k % columns * (wide + 4), top + k // columns * step
        tip = f"filter {o}" + (f", channel {i}" if len(planes) > 1 else "")
        if ins == 3:
            colours = 0.5 + 0.5 * np.clip(found[o] / limit if limit else found[o], -1, 1)
            sketch.pixels(x, y, wide, high, embed(np.rint(colours * 255).astype(np.uint8).transpose(1, 2, 0)), tip=tip)
        else:
            plane = found[o, i]
            sketch.rect(x, y, wide, high, "cell")
            sketch.pixels(x, y, wide, high, embed_signed(plane, limit), tip=f"{tip}: {between(plane)}")
        if len(planes) == 1:
            sketch.text(x + wide / 2, y + high + 11, str(o), "muted", anchor="middle", size=10)
        elif k % columns == 0:
            sketch.text(MARGIN, y + high / 2 + 4, str(o), "muted", size=10)
    bottom = top + -(-len(shown) * len(planes) // columns) * step + 4
    right = label + columns * (wide + 4) - 4
    if ins == 3:
        scale = f"grey is 0; full red, green or blue is {number(limit)}, none of it is {number(-limit)}"
        sketch.text(MARGIN, bottom + 12, scale, "muted")
        bottom, room = bottom + LINE, text_width(scale)
    else:
        bottom, room = draw_scale(sketch, MARGIN, bottom, found, limit, min(max(right, 160), 320))
    return finish(sketch, max(right, room, text_width(words)), bottom, title, f"{title or 'filters'}: {words}")


def _most(most: int) -> int:
    if int(most) != most or most < 1:
        raise ValueError(f"most: expected a whole number from 1, got {most!r}")
    return int(most)


def _spread(count: int, most: int) -> list[int]:
    """All of `count` places, or `most` of them at equal distances, the first and the last among them."""
    if count <= most:
        return list(range(count))
    return [round(k * (count - 1) / max(most - 1, 1)) for k in range(most)]


def _fit(width: int, height: int, longest: int) -> tuple[float, float]:
    scale = longest / max(width, height)
    return max(width * scale, 3), max(height * scale, 3)
