"""One output of a convolution, step by step: the window, the filter, the products, their sum."""

from __future__ import annotations

import numpy as np

from .arrays import embed_signed, largest
from .cells import grid, mark, side
from .example import Example, example
from .images import MARGIN, between
from .svg import LINE, Picture, Sketch, clean, number, text_width, wrap

GAP = 34  # between grids, for the sign between them
LARGEST = 12  # rows and columns of an input that is shown in numbers
ROOM = 300  # pixels for its numbers; a larger input is shown in shades, with its window beside
CHANNELS = 6  # of the input that are drawn
TERMS = 32  # written out in the sum


def convolution_step(x, w, at, *, bias=None, stride=1, padding=0, dilation=1) -> Picture:
    """The multiply-adds behind the output at `at`: a position i of a signal, or (row, column) of an image.

    x (L,) with w (k,); x (H, W) with w (kh, kw); x (H, W, C) with one filter w (C, kh, kw); or all filters as layers
    hold them: x (L, C), w (O, C, k) with `at` (i, filter), and x (H, W, C), w (O, C, kh, kw) with `at` (row, column,
    filter), `bias` then (O,). `stride`, `padding` and `dilation` are a number, or one an axis; padding may also be a
    pair an axis. The filter is not flipped. Each weight has a colour, which its element of the window and its product
    share; zeros of the padding are hollow. Of more than six channels those with the largest sums are drawn, and the
    rest is one number. Raises ValueError for shapes that do not fit, a position that does not exist, and NaN.
    """
    found, place = example(x, w, at, bias, stride, padding, dilation)
    sketch = Sketch()
    draw = _signal if found.signal else _plane
    width, bottom = draw(sketch, found, place, bias is not None)
    label = f"output {found.name(place)} of a convolution is {_equation(found, place, bias is not None)[0]}"
    return sketch.picture(width + MARGIN, bottom + MARGIN, label)


def _products(found: Example, at: tuple[int, int]) -> np.ndarray:
    return found.windows[at] * found.w


def _shown(found: Example, at: tuple[int, int]) -> list[int]:
    """The channels that are drawn, in their order."""
    sums = np.abs(_products(found, at).sum((1, 2)))
    return sorted(np.argsort(-sums, kind="stable")[:CHANNELS].tolist())


def _equation(found: Example, at: tuple[int, int], with_bias: bool) -> list[str]:
    """The sum, term by term; of many terms a number for each channel that is drawn, and one for all others."""
    products, window = _products(found, at), found.windows[at]
    if products.size <= TERMS:
        pieces = [f"{_factor(a)} × {_factor(b)}" for a, b in zip(window.ravel(), found.w.ravel(), strict=True)]
    elif len(products) == 1:
        pieces = [f"{_factor(products.sum())} ({products.size} products)"]
    else:
        channels = _shown(found, at)
        pieces = [f"{_factor(products[c].sum())} (channel {c})" for c in channels]
        if rest := _gone(found, channels):
            pieces.append(f"{_factor(products[rest].sum())} ({len(rest)} more channels)")
    if with_bias:
        pieces.append(f"{_factor(found.bias)} (bias)")
    return [f"{number(found.output[at])} = {pieces[0]}", *(f"+ {p}" for p in pieces[1:])]


def _gone(found: Example, channels: list[int]) -> list[int]:
    """The channels that are not drawn."""
    return [c for c in range(len(found.w)) if c not in channels]


def _factor(value: float) -> str:
    return f"({number(value)})" if value < 0 else number(value)


def _write_equation(sketch: Sketch, found: Example, at: tuple[int, int], with_bias: bool, y: float,
                    width: float) -> tuple[float, float]:
    """The sum as lines of text; returns the width and where it ends."""
    lines = wrap(" ".join(_equation(found, at, with_bias)), max(width, 420))
    for i, line in enumerate(lines):
        sketch.text(MARGIN, y + LINE * (i + 1), line)
    return MARGIN + max(map(text_width, lines)), y + LINE * len(lines) + 4


# A signal: rows below each other, with every window where it lies.


def _signal(sketch: Sketch, found: Example, at: tuple[int, int], with_bias: bool) -> tuple[float, float]:
    channels, place = _shown(found, at), at[1]
    products, window = _products(found, at), found.windows[at]
    cell = side(found.padded, found.w, products, found.output)
    left = MARGIN + text_width("channel 999 products" if len(found.w) > 1 else "products") + 10
    start = left + place * found.stride[1] * cell
    reach = (found.dilation[1] * (found.w.shape[2] - 1) + 1) * cell
    y: float = MARGIN
    for c in channels:
        name = f"channel {c} " if len(found.w) > 1 else ""
        rows = (("input", y), ("filter", y + cell + 14), ("products", y + 2 * cell + 20))
        for text, top in rows:
            sketch.text(left - 10, top + cell / 2 + 4, (name if text == "input" else "") + text, "muted", anchor="end")
        grid(sketch, left, y, found.padded[c], cell, owner=found.seen(at), inside=found.inside)
        mark(sketch, start - 1, y - 1, reach + 2, cell + 2)
        for k in range(found.w.shape[2]):
            across = start + k * found.dilation[1] * cell
            sketch.text(across + cell / 2, y + cell + 11, "×", "muted", anchor="middle")
            grid(sketch, across, rows[1][1], found.w[c, :, k : k + 1], cell, owner=np.array([[k]]),
                 tips=np.array([[f"weight {k}"]]))
            grid(sketch, across, rows[2][1], products[c, :, k : k + 1], cell, owner=np.array([[k]]),
                 tips=np.array([[f"{number(window[c, 0, k])} × {number(found.w[c, 0, k])}"]]))
        y = rows[2][1] + cell + 12
    y += _rest(sketch, found, at, channels, left, y)
    y += 14
    centre = start + reach / 2
    sketch.path([(start + 3, y - 22), (centre, y - 4), (start + reach - 3, y - 22)], "mark")
    words = "sum + bias" if with_bias else "sum"
    sketch.text(left - 10, y + cell / 2 + 4, "output", "muted", anchor="end")
    first = left + (reach - cell) / 2
    for i, value in enumerate(found.output[0]):
        grid(sketch, first + i * found.stride[1] * cell, y, np.array([[value]]), cell,
             bold=(0, 0) if i == place else None)
    here = first + place * found.stride[1] * cell
    mark(sketch, here - 1, y - 1, cell + 2, cell + 2)
    sketch.text(max(start, left) + reach + 6, y - 8, words, "muted")
    right = max(left + found.padded.shape[2] * cell, start + reach + 6 + text_width(words))
    wide, bottom = _write_equation(sketch, found, at, with_bias, y + cell + 4, right - MARGIN)
    return max(right, wide), bottom


def _rest(sketch: Sketch, found: Example, at: tuple[int, int], channels: list[int], x: float, y: float) -> float:
    """A line about channels that are not drawn; returns its height."""
    gone = _gone(found, channels)
    if not gone:
        return 0
    rest = _products(found, at)[gone].sum()
    sketch.text(x, y + 12, f"{len(gone)} more channels with smaller sums add {number(rest)}", "muted")
    return LINE + 4


# An image: input, filter and products side by side, a row a channel, and the output to the right.


def _plane(sketch: Sketch, found: Example, at: tuple[int, int], with_bias: bool) -> tuple[float, float]:
    channels, products, window = _shown(found, at), _products(found, at), found.windows[at]
    rows, across = found.inside.shape
    large = max(rows, across) > LARGEST or side(found.padded) * across > ROOM or rows * len(channels) > 3 * LARGEST
    cell = side(window if large else found.padded, found.w, products)
    kh, kw = found.w.shape[1:]
    high, wide = kh * cell, kw * cell
    factors = np.array([[[f"{number(a)} × {number(b)}" for a, b in zip(*rows, strict=True)]
                         for rows in zip(*planes, strict=True)] for planes in zip(window, found.w, strict=True)])
    room = max(cell, max(text_width(clean(t), 9) for t in factors.ravel()) + 8, 38)  # a product with its factors
    small = 160 / max(rows, across) if large else cell
    in_wide, in_high = across * small, rows * small
    columns, x = [], float(MARGIN)
    titles = {"input": f"input {_size(found.inside.sum(1).max(), found.inside.sum(0).max())}"
                       + ("" if found.inside.all() else ", padded"),
              "window": "its window", "filter": f"filter {_size(kw, kh)}", "products": "products"}
    for name, taken in (("input", in_wide), *([("window", wide)] if large else []), ("filter", wide),
                        ("products", kw * room)):
        columns.append((name, x))
        sketch.text(x, MARGIN + 12, titles[name], "muted")
        x += max(taken, text_width(titles[name])) + GAP
    y = MARGIN + LINE + 4
    places = dict(columns)
    top = y
    answer = LINE + (160 + LINE if max(found.output.shape) > LARGEST else len(found.output) * side(found.output))
    for c in channels:
        tall = max(in_high, high, kh * room, answer if len(channels) == 1 else 0)
        if len(found.w) > 1:
            sketch.text(MARGIN, y + 12, f"channel {c}", "muted")
            y += LINE + 2
        _input(sketch, found, c, at, places["input"], y + (tall - in_high) / 2, small, large)
        middle = y + (tall - high) / 2
        owner = np.arange(kh * kw).reshape(kh, kw)
        if large:
            inside = found.inside[found.seen(at) >= 0].reshape(kh, kw)
            grid(sketch, places["window"], middle, window[c], cell, owner=owner, inside=inside)
        grid(sketch, places["filter"], middle, found.w[c], cell, owner=owner)
        grid(sketch, places["products"], y + (tall - kh * room) / 2, products[c], room, owner=owner, texts=factors[c])
        for left, sign in ((places["filter"], "×"), (places["products"], "=")):
            sketch.text(left - GAP / 2, y + tall / 2 + 5, sign, "strong", anchor="middle", size=16)
        y += tall + 14
    y += _rest(sketch, found, at, channels, places["products"], y - 8)
    y = max(y, top + answer)
    right = _output(sketch, found, at, with_bias, x, top, y - 14)
    end, bottom = _write_equation(sketch, found, at, with_bias, y, right - MARGIN)
    return max(right, end), bottom


def _size(width: int, height: int) -> str:
    return f"{height} x {width}"


def _input(sketch: Sketch, found: Example, c: int, at: tuple[int, int], x: float, y: float, cell: float,
           large: bool) -> None:
    if large:
        height, width = found.inside.shape
        sketch.rect(x, y, width * cell, height * cell, "cell")
        sketch.pixels(x, y, width * cell, height * cell, embed_signed(found.padded[c], largest(found.padded)),
                      tip=between(found.padded[c]))
    else:
        grid(sketch, x, y, found.padded[c], cell, owner=found.seen(at), inside=found.inside)
    kh, kw = found.w.shape[1:]
    mark(sketch, x + at[1] * found.stride[1] * cell - 1, y + at[0] * found.stride[0] * cell - 1,
         (found.dilation[1] * (kw - 1) + 1) * cell + 2, (found.dilation[0] * (kh - 1) + 1) * cell + 2)


def _output(sketch: Sketch, found: Example, at: tuple[int, int], with_bias: bool, x: float, top: float,
            bottom: float) -> float:
    """The output with its cell marked, halfway down; returns where it ends to the right."""
    height, width = found.output.shape
    words = "sum + bias" if with_bias else "sum"
    middle, room = (top + bottom) / 2, text_width(words) + 24
    sketch.text(x - GAP + room / 2, middle + 5, "→", "strong", anchor="middle", size=16)
    sketch.text(x - GAP + room / 2, middle - 12, words, "muted", anchor="middle")
    x += room - GAP
    if max(height, width) > LARGEST:
        cell = 160 / max(height, width)
        y = max(middle - height * cell / 2, top)
        sketch.rect(x, y, width * cell, height * cell, "cell")
        sketch.pixels(x, y, width * cell, height * cell, embed_signed(found.output, largest(found.output)),
                      tip=between(found.output))
        sketch.text(x, y + height * cell + LINE, f"at {found.name(at)}: {number(found.output[at])}")
    else:
        cell = side(found.output)
        y = max(middle - height * cell / 2, top)
        grid(sketch, x, y, found.output, cell, bold=at)
    mark(sketch, x + at[1] * cell - 1, y + at[0] * cell - 1, cell + 2, cell + 2)
    sketch.text(x, y - 8, f"output {_size(width, height)}", "muted")
    return x + max(width * cell, text_width(f"output {_size(width, height)}"))
