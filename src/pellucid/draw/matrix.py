"""A layer as the matrix it multiplies by: which entries are the same weight, and which are zero."""

from __future__ import annotations

import numpy as np

from .arrays import embed, numbers, rgb
from .cells import side, tint
from .images import MARGIN, finish
from .svg import LINE, TINTS, Picture, Sketch, number, text_width

NUMBERS = 40  # rows or columns up to which entries are cells, with their numbers where there is room
MOST = 800  # the longer side of a larger matrix, in pixels


def sparse_matrix(matrix, owner) -> Picture:
    """A matrix (outputs, inputs) whose entries are coloured by the weight they share, with nothing where there is none.

    `owner` (outputs, inputs) holds whole numbers: which weight an entry is, -1 for none. Small matrices show their
    numbers; of large ones several entries may share a pixel, which the picture says: it has the colour of the first of
    them that is a weight. Raises ValueError for other shapes, NaN, and entries other than 0 that are no weight.
    """
    matrix = numbers("matrix", matrix, 2, missing=False)
    owner = _owner(owner, matrix)
    sketch, rows, columns = Sketch(), *matrix.shape
    weights, entries = len(np.unique(owner[owner >= 0])), int((owner >= 0).sum())
    top = MARGIN + 2 * LINE + 2
    if max(rows, columns) <= NUMBERS:
        cell = min(side(matrix), 48) if max(rows, columns) <= 16 else 20
        paint(sketch, MARGIN, top, matrix, owner, cell)
        width, height, said = columns * cell, rows * cell, ""
    else:
        block = -(-max(rows, columns) // MOST)
        pixels = _pixels(owner, block)
        scale = max(MOST // max(pixels.shape[:2]), 1)
        height, width = (n * scale for n in pixels.shape[:2])
        sketch.pixels(MARGIN, top, width, height, embed(pixels))
        sketch.rect(MARGIN, top, width, height, "rule")
        said = f"; a pixel is {block} x {block} entries" if block > 1 else ""
    first = f"{rows} x {columns} matrix: {rows} outputs, {columns} inputs"
    second = f"{entries:,} of {matrix.size:,} entries are weights, {weights:,} different ones{said}"
    sketch.text(MARGIN, MARGIN + 12, first)
    sketch.text(MARGIN, MARGIN + 12 + LINE, second, "muted")
    return finish(sketch, max(width, text_width(first), text_width(second)), top + height, "", f"{first}; {second}")


def paint(sketch: Sketch, x: float, y: float, matrix: np.ndarray, owner: np.ndarray, cell: float) -> None:
    """The entries as cells: a weight's in its colour, with its number where there is room; the others are empty."""
    room = cell + 2 >= side(matrix, least=0)
    for (i, j), value in np.ndenumerate(matrix):
        mine = int(owner[i, j])
        box = (x + j * cell + 0.5, y + i * cell + 0.5, cell - 1, cell - 1)
        if mine < 0:
            sketch.rect(*box, "cell")
            continue
        sketch.rect(*box, fill=tint(mine), tip=f"output {i}, input {j}: weight {mine} is {number(value)}")
        if room:
            sketch.text(x + (j + 0.5) * cell, y + (i + 0.5) * cell + 4, number(value), "on", anchor="middle",
                        size=min(12, cell * 0.6))


def _owner(owner, matrix: np.ndarray) -> np.ndarray:
    found = np.asarray(owner)
    if found.shape != matrix.shape:
        raise ValueError(f"owner: expected the matrix's shape {matrix.shape}, got {found.shape}")
    if found.dtype.kind not in "iu":
        raise ValueError(f"owner: expected whole numbers, -1 for no weight, got {found.dtype}")
    astray = (found < 0) & (matrix != 0)
    if astray.any():
        i, j = np.argwhere(astray)[0]
        raise ValueError(f"matrix[{i}, {j}] is {number(matrix[i, j])} but owner says that no weight is there")
    return found


def _pixels(owner: np.ndarray, block: int) -> np.ndarray:
    """A pixel for each `block` x `block` entries: (H, W, 4)."""
    rows, columns = (-(-n // block) for n in owner.shape)
    padded = np.full((rows * block, columns * block), -1, np.int64)
    padded[: owner.shape[0], : owner.shape[1]] = owner
    blocks = padded.reshape(rows, block, columns, block).swapaxes(1, 2).reshape(rows, columns, -1)
    first = np.take_along_axis(blocks, (blocks >= 0).argmax(2)[..., None], 2)[..., 0]
    colours = np.array([[*rgb(t), 255] for t in TINTS] + [[0] * 4], np.uint8)
    return colours[np.where(first >= 0, first % len(TINTS), len(TINTS))]
