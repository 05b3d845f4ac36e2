"""Four views of one convolution: they compute the same numbers, and all look at the same output."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .arrays import largest, shade
from .cells import grid, mark, side, tint
from .example import Example, example
from .images import MARGIN
from .matrix import paint
from .svg import ABOVE, BELOW, LINE, Picture, Sketch, number, text_width, wrap

MOST = 64  # inputs, and outputs
SMALL = 16  # side of a cell without a number
NARROW = 330  # of a panel, at least
SPACE = 28  # between panels

At = tuple[int, int]


def convolution_views(x, w, *, stride=1, padding=0, at=None) -> Picture:
    """A convolution as a sliding window, a template match, a sparse matrix and a dense layer, all at the output `at`.

    x (L,) with w (k,), or x (H, W) with w (kh, kw); `at` is a position i or (row, column), by default that of the
    largest output. A colour is a weight, the same in all four. `stride` and `padding` as in `convolution_step`.
    Raises ValueError for shapes that do not fit, for more than 64 inputs or outputs, and for NaN.
    """
    found, place = example(x, w, at, None, stride, padding, 1)
    inputs, outputs = int(found.inside.sum()), found.output.size
    if len(found.w) > 1 or np.ndim(w) > 2 or max(inputs, outputs) > MOST:
        raise ValueError(f"four views are for one channel and at most {MOST} inputs and outputs, got {len(found.w)} "
                         f"channels, {inputs} inputs and {outputs} outputs; draw.convolution_step draws larger ones")
    views: list[tuple[str, str, Callable]] = [
        ("Sliding window", "The filter lies on a part of the input. The products, added up, are one output.", _window),
        ("Template match", "Each part of the input is compared with the filter: the more alike and the stronger, the "
                           "larger the output.", _template),
        ("Sparse matrix", "Each row is the filter, moved on. One colour is one weight, used again and again; all "
                          "other entries are zero.", _matrix),
        ("Dense layer", "Every line would be a weight of its own. The convolution keeps the coloured ones, and one "
                        "colour is one number.", _dense),
    ]
    panels = [_panel(i, title, words, draw, found, place) for i, (title, words, draw) in enumerate(views, 1)]
    left = max(panels[0][1], panels[2][1])
    rows = [max(p[2] for p in panels[i : i + 2]) for i in (0, 2)]
    sketch = Sketch()
    for i, (panel, _, _) in enumerate(panels):
        sketch.put(panel, MARGIN + (left + SPACE) * (i % 2), MARGIN + (rows[0] + SPACE) * (i // 2))
    width = left + SPACE + max(panels[1][1], panels[3][1])
    return sketch.picture(2 * MARGIN + width, 2 * MARGIN + sum(rows) + SPACE,
                          f"four views of one convolution; output {found.name(place)} is {number(found.output[place])}")


def _panel(i: int, title: str, words: str, draw: Callable, found: Example, at: At) -> tuple[Sketch, float, float]:
    """A view under its heading: the sheet, its width and height."""
    body, sketch = Sketch(), Sketch()
    width, height = draw(body, found, at)
    width = max(width, NARROW)
    sketch.text(0, 13, f"{i}  {title}", "strong", size=14)
    lines = wrap(words, width)
    for k, line in enumerate(lines):
        sketch.text(0, 13 + LINE * (k + 1) + 2, line, "muted")
    top = 13 + LINE * len(lines) + 16
    sketch.put(body, 0, top)
    return sketch, width, top + height


def _window(sketch: Sketch, found: Example, at: At) -> tuple[float, float]:
    """The input with its window, the output below it (a signal) or beside it (an image), and lines between them."""
    cell, (sy, sx), (kh, kw) = side(found.padded, found.w, found.output), found.stride, found.w.shape[1:]
    rows, columns = found.inside.shape
    left = text_width("output") + 10 if found.signal else 0
    x, y = left + at[1] * sx * cell, at[0] * sy * cell
    if found.signal:
        for text, top in (("input", 0.0), ("filter", cell + 8), ("output", 2 * cell + 44)):
            sketch.text(left - 10, top + cell / 2 + 4, text, "muted", anchor="end")
        grid(sketch, left, 0, found.padded[0], cell, owner=found.seen(at), inside=found.inside)
        grid(sketch, x, cell + 8, found.w[0], cell, owner=np.arange(kw)[None])
        mark(sketch, x - 1, -1, kw * cell + 2, 2 * cell + 10)
        first, below = left + (kw - 1) * cell / 2, 2 * cell + 44
        for i, value in enumerate(found.output[0]):
            grid(sketch, first + i * sx * cell, below, np.array([[value]]), cell, bold=(0, 0) if i == at[1] else None)
        here = first + at[1] * sx * cell
        sketch.path([(x, 2 * cell + 9), (here, below - 1)], "mark")
        sketch.path([(x + kw * cell, 2 * cell + 9), (here + cell, below - 1)], "mark")
        mark(sketch, here - 1, below - 1, cell + 2, cell + 2)
        return left + columns * cell, below + cell
    right, top = columns * cell + 70, LINE + 4
    down = top + max((rows - found.output.shape[0]) / 2, 0) * cell
    sketch.text(0, 12, "input" + ("" if found.inside.all() else ", padded with zeros"), "muted")
    hx, hy = right + at[1] * cell, down + at[0] * cell
    for dy, ey in ((0, 0), (kh * cell, cell)):  # first, so that they run behind the numbers
        sketch.path([(x + kw * cell + 1, y + top + dy), (hx - 1, hy + ey)], "mark", stroke_opacity=0.5)
    sketch.text(right, down - 8, "output", "muted")
    grid(sketch, 0, top, found.padded[0], cell, owner=found.seen(at), inside=found.inside)
    grid(sketch, right, down, found.output, cell, bold=at)
    mark(sketch, x - 1, y + top - 1, kw * cell + 2, kh * cell + 2)
    mark(sketch, hx - 1, hy - 1, cell + 2, cell + 2)
    bottom = top + max(rows, found.output.shape[0]) * cell
    sketch.text(0, bottom + 24, "filter", "muted")
    grid(sketch, 50, bottom + 10, found.w[0], cell, owner=np.arange(kh * kw).reshape(kh, kw))
    return right + found.output.shape[1] * cell, bottom + 10 + kh * cell


def _template(sketch: Sketch, found: Example, at: At) -> tuple[float, float]:
    """The part of the input at each position, and how well it answers the filter: a row each, or laid out as the
    output is."""
    cell = side(found.padded, found.w, found.output)
    (kh, kw), (height, width) = found.w.shape[1:], found.output.shape
    owner = np.arange(kh * kw).reshape(kh, kw)
    if found.signal:
        sketch.text(0, cell / 2 + 4, "filter", "muted")
        left = text_width("filter") + 10
        grid(sketch, left, 0, found.w[0], cell, owner=owner)
        answer, bars = left + kw * cell + 24, left + (kw + 1) * cell + 40
        low = min(float(found.output.min()), 0.0)
        per = 100 / (max(float(found.output.max()), 0.0) - low or 1.0)
        for i, value in enumerate(found.output[0]):
            y = (i + 1) * (cell + 4) + 6
            grid(sketch, left, y, found.windows[0, i, 0], cell, owner=owner if i == at[1] else None)
            sketch.text(answer - 12, y + cell / 2 + 4, "→", "muted", anchor="middle")
            grid(sketch, answer, y, np.array([[value]]), cell)
            zero = bars - low * per
            if value:
                sketch.rect(min(zero, zero + value * per), y + cell / 4, abs(value) * per, cell / 2,
                            fill=ABOVE if value > 0 else BELOW)
            sketch.line(zero, y, zero, y + cell)
            if i == at[1]:
                mark(sketch, left - 2, y - 2, answer + cell - left + 4, cell + 4)
        return bars + 100, (width + 1) * (cell + 4) + 6
    sketch.text(0, 12, "filter", "muted")
    grid(sketch, 0, LINE + 4, found.w[0], cell, owner=owner)
    _shades(sketch, 0, LINE + kh * cell + 12, found.w[0], largest(found.w))
    left = kw * cell + 30
    sketch.text(left, 12, "parts of the input, with their outputs", "muted")
    limit, top = largest(found.padded), largest(found.output) or 1.0
    across, down = max(kw * SMALL, text_width("-999")) + 12, kh * SMALL + LINE + 12
    for i, j in np.ndindex(height, width):
        x, y, value = left + j * across, LINE + 6 + i * down, found.output[i, j]
        _shades(sketch, x, y, found.windows[i, j, 0], limit)
        sketch.rect(x, y + kh * SMALL + 2, kw * SMALL, 16, fill=ABOVE if value > 0 else BELOW,
                    fill_opacity=0.5 * abs(value) / top)
        sketch.text(x + kw * SMALL / 2, y + kh * SMALL + 14, number(value), anchor="middle")
        if (i, j) == at:
            mark(sketch, x - 3, y - 3, kw * SMALL + 6, kh * SMALL + 24)
    return max(left + width * across, left + 220), max(LINE + 12 + kh * (cell + SMALL), LINE + 6 + height * down)


def _shades(sketch: Sketch, x: float, y: float, values: np.ndarray, limit: float) -> None:
    """Values (H, W) as small cells without numbers."""
    for (i, j), value in np.ndenumerate(values):
        box = (x + j * SMALL + 0.5, y + i * SMALL + 0.5, SMALL - 1, SMALL - 1)
        sketch.rect(*box, "cell")
        sketch.rect(*box, **shade(value, limit, 1.0), tip=number(value))


def _matrix(sketch: Sketch, found: Example, at: At) -> tuple[float, float]:
    """The matrix under the input, with the output at its right: rows and columns in one line with what they mean."""
    matrix, owner = found.matrix()
    inputs = found.padded[0][found.inside]
    outputs, count = matrix.shape
    row = at[0] * found.output.shape[1] + at[1]
    cell = side(inputs, found.w, found.output) if count <= 12 else max(20, side(inputs, found.w, least=0) - 4)
    if shaded := cell > 26 and count > 12:  # then numbers would take too much room
        cell = SMALL
    wide, size = side(found.output, least=cell), min(12, 0.7 * cell)
    sketch.text(0, 12, "input" if found.signal else "input, row after row", "muted")
    if shaded:
        _shades(sketch, 0, LINE + 2, inputs[None], largest(inputs))
        for j in np.flatnonzero(owner[row] >= 0):
            sketch.rect(j * cell + 0.5, LINE + 2.5, cell - 1, cell - 1, fill=tint(int(owner[row, j])),
                        tip=number(inputs[j]))
    else:
        grid(sketch, 0, LINE + 2, inputs[None], cell, owner=owner[row][None])
    top = LINE + cell + 14
    paint(sketch, 0, top, matrix, owner, cell)
    right = count * cell + 26
    sketch.text(right - 13, top + (row + 0.5) * cell + 5, "=", "strong", anchor="middle")
    sketch.text(right + wide / 2, top - 6, "output", "muted", anchor="middle")
    for i, value in enumerate(found.output.ravel()):
        sketch.rect(right + 0.5, top + i * cell + 0.5, wide - 1, cell - 1, "cell")
        sketch.text(right + wide / 2, top + (i + 0.5) * cell + size / 3, number(value), anchor="middle", size=size)
    mark(sketch, -1, top + row * cell - 1, count * cell + 2, cell + 2)
    mark(sketch, right - 1, top + row * cell - 1, wide + 2, cell + 2)
    return right + wide + 8, top + outputs * cell


def _dense(sketch: Sketch, found: Example, at: At) -> tuple[float, float]:
    """Inputs above, outputs below, and all the lines that a dense layer would have."""
    matrix, owner = found.matrix()
    inputs, outputs = found.padded[0][found.inside], found.output.ravel()
    row = at[0] * found.output.shape[1] + at[1]
    size = 30 if max(len(inputs), len(outputs)) <= 12 else 17
    width = max((max(len(inputs), len(outputs)) - 1) * (size + 8) + size, NARROW)
    high = 130 if len(inputs) <= 12 else 200

    def middle(i: int, count: int) -> float:
        return width / 2 if count == 1 else size / 2 + i * (width - size) / (count - 1)

    def connect(i: int, j: int, kind: str, **more) -> None:
        sketch.line(middle(j, len(inputs)), LINE + size, middle(i, len(outputs)), LINE + high, kind, **more)

    sketch.text(0, 10, f"{len(inputs)} inputs", "muted")
    for i, j in np.argwhere(owner < 0):
        connect(i, j, "grid")
    order = sorted(np.argwhere(owner >= 0).tolist(), key=lambda ij: ij[0] == row)
    for i, j in order:
        connect(i, j, "rule", stroke_width=5 if i == row else 2.5)
        connect(i, j, "", stroke=tint(int(owner[i, j])), stroke_width=3 if i == row else 1.5,
                tip=f"weight {owner[i, j]} is {number(matrix[i, j])}")
    text = 12 if size > 20 and side(inputs, outputs, least=0) - 8 <= size else 9
    fits = max(text_width(number(v), text) for v in (*inputs, *outputs)) <= size + 6
    for values, y, mine in ((inputs, LINE, owner[row]), (outputs, LINE + high, None)):
        for k, value in enumerate(values):
            x = middle(k, len(values)) - size / 2
            weight = -1 if mine is None else int(mine[k])
            sketch.rect(x, y, size, size, "" if weight >= 0 else "cell", rx=size / 2, tip=number(value),
                        **({"fill": tint(weight)} if weight >= 0 else {}))
            if fits:
                sketch.text(x + size / 2, y + size / 2 + text / 3, number(value), "on" if weight >= 0 else "",
                            anchor="middle", size=text)
            if mine is None and k == row:
                sketch.rect(x - 2, y - 2, size + 4, size + 4, "mark", rx=size / 2 + 2)
    bottom = LINE + high + size
    sketch.text(0, bottom + 14, f"{len(outputs)} outputs", "muted")
    dense, shared = len(inputs) * len(outputs), found.w.size
    sketch.text(0, bottom + 34, f"dense layer: {len(inputs)} × {len(outputs)} = {dense} weights, {len(outputs)} biases")
    sketch.text(0, bottom + 34 + LINE, f"convolution: {shared} weights, 1 bias")
    return width, bottom + 40 + LINE
