"""Pictures of any size to the network's, within a graph: by the filter and the rules of `pellucid.data.pictures`.

Pillow's bilinear filter weighs the pixels that it reads by a triangle around the centre of the one that it makes, as
wide as the scale where it shrinks, in multiples of 2^-22. So an axis is resized by a matrix, which the graph computes
from the picture's size, and Pillow's result is two matrix products, each rounded to whole levels, columns first. In
float64 they are exact. (Newer versions of Pillow take the rows of tall pictures first, and a crop's box is rounded to
float32: by that a pixel may differ by one level. ONNX's own `Resize` cannot cut a box between pixels and does not
round.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ...data.pictures import FITS

if TYPE_CHECKING:
    from .exporter import Writer

STEPS = 2**22  # of Pillow's weights, from 0 to 1
PIXELS = "resize/upright/out"  # the value that holds the result


def resize(w: Writer, images: str, size: tuple[int, int], fit: str) -> str:
    """`images` (N, H, W, C), uint8, as (N, *size, C): the whole numbers that Pillow gives, as float64."""
    m = Arithmetic(w)
    pixels = m("Cast", images, to=w.onnx.TensorProto.DOUBLE)
    shape = w.add("Shape", [images], "resize/shape")
    rows, columns = (m("Cast", w.add("Gather", [shape, w.constant(f"resize/axis{axis}", axis, np.int64)],
                                     f"resize/size{axis}"), to=w.onnx.TensorProto.DOUBLE) for axis in (1, 2))
    if fit in FITS:
        boxes = {"crop": cropped, "letterbox": letterboxed, "stretch": stretched}[fit](m, (rows, columns), size)
    else:
        boxes = scaled(m, (rows, columns), size, int(fit.removeprefix("crop ")))
    by_rows, by_columns = (matrix(m, n, target, *box)
                           for n, target, box in zip((rows, columns), size, boxes, strict=True))
    x = rounded(w, w.add("MatMul", [by_columns, pixels], "resize/columns"))
    x = w.add("Transpose", [x], "resize/turned", perm=[0, 2, 1, 3])
    x = rounded(w, w.add("MatMul", [by_rows, x], "resize/rows"))
    return w.add("Transpose", [x], "resize/upright", PIXELS, perm=[0, 2, 1, 3])


class Arithmetic:
    """Nodes in float64: positions of thousands of pixels need more digits than float32 has."""

    def __init__(self, w: Writer):
        self.w, self.count = w, 0

    def __call__(self, operator: str, *inputs, **attributes) -> str:
        """A node; inputs that are numbers become constants."""
        self.count += 1
        name = f"resize/{operator.lower()}{self.count}"
        given = [v if isinstance(v, str) else self.w.constant(f"{name}/{i}", np.asarray(v, np.float64), np.float64)
                 for i, v in enumerate(inputs)]
        return self.w.add(operator, given, name, **attributes)

    def float32(self, value: str) -> str:
        """A value rounded to float32."""
        return self("Cast", self("Cast", value, to=self.w.onnx.TensorProto.FLOAT), to=self.w.onnx.TensorProto.DOUBLE)


# What part of a picture becomes what part of the result, for rows and for columns: (pixels of the picture to a pixel of
# the result, the first of them, the first pixel of the result, the number of its pixels).


def stretched(m: Arithmetic, picture, size):
    return [(m("Div", n, target), 0, 0, target) for n, target in zip(picture, size, strict=True)]


def cropped(m: Arithmetic, picture, size):
    scale, made = m("Min", *(m("Div", n, target) for n, target in zip(picture, size, strict=True))), []
    for n, target in zip(picture, size, strict=True):
        length = m("Mul", scale, target)
        first = m("Div", m("Max", m("Sub", n, length), 0), 2)
        first, end = (m.float32(v) for v in (first, m("Min", m("Add", first, length), n)))  # Pillow's box is of those
        made.append((m("Div", m("Sub", end, first), target), first, 0, target))
    return made


def letterboxed(m: Arithmetic, picture, size):
    scale = m("Min", *(m("Div", target, n) for n, target in zip(picture, size, strict=True)))
    made = []
    for n, target in zip(picture, size, strict=True):
        inner = m("Max", m("Round", m("Mul", n, scale)), 1)
        made.append((m("Div", n, inner), 0, m("Floor", m("Div", m("Sub", target, inner), 2)), inner))
    return made


def scaled(m: Arithmetic, picture, size, shorter: int):
    """First to a shorter side of so many pixels, then the middle of that."""
    least, made = m("Min", *picture), []
    for n, target in zip(picture, size, strict=True):
        whole = m("Floor", m("Div", m("Mul", n, shorter), least))
        skipped = m("Round", m("Div", m("Sub", whole, target), 2))
        made.append((m("Div", n, whole), 0, m("Sub", 0, skipped), whole))
    return made


def matrix(m: Arithmetic, n: str, target: int, scale, offset, first, count) -> str:
    """The weights (target, n) by which an axis of `n` pixels becomes one of `target`."""
    made = m("Sub", np.arange(target)[:, None], first)
    centres = m("Add", m("Mul", m("Add", made, 0.5), scale), offset)
    reads = m("Add", m("Range", 0, n, 1), 0.5)
    distance = m("Div", m("Abs", m("Sub", reads, centres)), m("Max", scale, 1))
    weights = m("Max", m("Sub", 1, distance), 0)
    axes = m.w.constant(f"resize/axes{m.count}", [1], np.int64)
    total = m("Max", m.w.add("ReduceSum", [weights, axes], f"resize/total{m.count}", keepdims=1), 1e-9)
    inside = m("And", m("GreaterOrEqual", made, 0), m("Less", made, count))
    kept = m("Mul", m("Div", weights, total), m("Cast", inside, to=m.w.onnx.TensorProto.DOUBLE))
    return m("Div", m("Floor", m("Add", m("Mul", kept, STEPS), 0.5)), STEPS)


def rounded(w: Writer, x: str) -> str:
    """To whole levels, halves upwards."""
    half = w.constant(f"{x}/half", np.asarray(0.5), np.float64)
    return w.add("Floor", [w.add("Add", [x, half], f"{x}/raised")], f"{x}/rounded")
