"""A convolution small enough to be drawn: its arrays, the window at every position, and what it answers there.

The filter is not flipped. All is NumPy's own slicing, so that a picture shows what was really multiplied.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from .arrays import numbers


@dataclass(frozen=True)
class Example:
    """One filter on one input. A signal is an image of one row.

    `padded` (C, H, W) has the zeros around the input, `inside` (H, W) is False on them; `w` (C, kh, kw); `windows`
    (oh, ow, C, kh, kw); `output` (oh, ow); `first` are row and column of `padded` where the window at (0, 0) begins,
    and `stride` and `dilation` are (rows, columns).
    """

    padded: np.ndarray
    inside: np.ndarray
    w: np.ndarray
    bias: float
    windows: np.ndarray
    output: np.ndarray
    stride: tuple[int, int]
    dilation: tuple[int, int]
    signal: bool

    def seen(self, at: tuple[int, int]) -> np.ndarray:
        """For each element of `padded` which weight of a channel the window at `at` puts on it, -1 for none: (H, W)."""
        owner = np.full(self.inside.shape, -1)
        (y, x), (sy, sx), (dy, dx) = at, self.stride, self.dilation
        kh, kw = self.w.shape[1:]
        owner[y * sy : y * sy + dy * (kh - 1) + 1 : dy, x * sx : x * sx + dx * (kw - 1) + 1 : dx] = (
            np.arange(kh * kw).reshape(kh, kw))
        return owner

    def matrix(self) -> tuple[np.ndarray, np.ndarray]:
        """The matrix of one channel and the weight that each entry is, -1 for none: (outputs, inputs), padding left
        out."""
        rows = [self.seen(at)[self.inside] for at in np.ndindex(self.output.shape)]
        owner = np.stack(rows)
        return np.where(owner < 0, 0.0, self.w[0].ravel()[owner]), owner

    def name(self, at: tuple[int, int]) -> str:
        """A position as the reader counts it."""
        return str(at[1]) if self.signal else f"{at[0]}, {at[1]}"


def example(x, w, at, bias, stride, padding, dilation) -> tuple[Example, tuple[int, int]]:
    """The example and the position, checked; `at` None is where the output is largest.

    x (L,) with w (k,); x (H, W) with w (kh, kw); x (H, W, C) with one filter w (C, kh, kw); or, with all filters,
    x (L, C) and w (O, C, k), `at` (place, filter), x (H, W, C) and w (O, C, kh, kw), `at` (row, column, filter), and
    `bias` (O,). Raises ValueError for anything else, for NaN, and for a position that does not exist.
    """
    x, w = numbers("x", x, (1, 2, 3), missing=False), numbers("w", w, (1, 2, 3, 4), missing=False)
    forms = {(1, 1): "signal", (2, 2): "plane", (3, 3): "image", (2, 3): "signals", (3, 4): "images"}
    form = forms.get((x.ndim, w.ndim))
    if form is None:
        raise ValueError(f"x has shape {x.shape} and w {w.shape}; expected x (L,) and w (k,), (H, W) and (kh, kw), "
                         "(H, W, C) and (C, kh, kw), (L, C) and (O, C, k), or (H, W, C) and (O, C, kh, kw)")
    signal, several = form.startswith("signal"), form.endswith("s")
    axes = 1 if signal else 2
    place = None if at is None else _whole("at", at, axes + several, 0)
    if several:
        chosen = 0 if place is None else place[-1]
        if chosen >= len(w):
            raise ValueError(f"at: there is no filter {chosen}, w has {len(w)} from 0 on")
        w, place = w[chosen], place and place[:-1]
        bias = bias if bias is None or np.ndim(bias) == 0 else numbers("bias", bias, 1, missing=False)[chosen]
    if form in ("signal", "plane"):
        x, w = x[..., None], w[None]
    if signal:
        x, w = x[None], w[:, None]
    x = np.moveaxis(x, -1, 0)
    if len(w) != len(x):
        raise ValueError(f"x has {len(x)} channels and the filter {len(w)}; they must have as many")
    bias = 0.0 if bias is None else float(numbers("bias", bias, 0, missing=False))
    steps, gaps = (_pair(name, v, axes, 1) for name, v in (("stride", stride), ("dilation", dilation)))
    sides = _padding(padding, axes)
    padded = np.pad(x, ((0, 0), *sides))
    inside = np.pad(np.ones(x.shape[1:], bool), sides)
    reach = [d * (k - 1) + 1 for d, k in zip(gaps, w.shape[1:], strict=True)]
    if any(r > n for r, n in zip(reach, inside.shape, strict=True)):
        raise ValueError(f"the filter spans {_sizes(reach, axes)} elements and the padded input has "
                         f"{_sizes(inside.shape, axes)}; give a larger input or more padding")
    windows = sliding_window_view(padded, reach, (1, 2))[:, :: steps[0], :: steps[1], :: gaps[0], :: gaps[1]]
    windows = np.moveaxis(windows, 0, 2)
    output = np.einsum("yxcij,cij->yx", windows, w) + bias
    found = Example(padded, inside, w, bias, windows, output, steps, gaps, signal)
    if place is None:
        return found, tuple(int(i) for i in np.unravel_index(output.argmax(), output.shape))
    place = (0,) * (2 - axes) + tuple(place)
    if any(p >= n for p, n in zip(place, output.shape, strict=True)):
        raise ValueError(f"at: there is no position {found.name(place)}, the output has {_sizes(output.shape, axes)} "
                         "from 0 on")
    return found, place


def _sizes(shape, axes: int) -> str:
    return " x ".join(map(str, shape[2 - axes :]))


def _whole(name: str, value, count: int, least: int) -> tuple[int, ...]:
    """`count` whole numbers, or one for all of them where `count` is 1."""
    given = np.atleast_1d(np.asarray(value, dtype=object))
    if given.shape != (count,) or not all(
            isinstance(v, int | np.integer) and not isinstance(v, bool) and v >= least for v in given):
        numbers_ = "a whole number" if count == 1 else f"{count} whole numbers"
        raise ValueError(f"{name}: expected {numbers_} from {least}, got {value!r}")
    return tuple(int(v) for v in given)


def _pair(name: str, value, axes: int, least: int) -> tuple[int, int]:
    """(rows, columns) of a setting that is one number for all axes or one an axis; a signal has one row."""
    given = _whole(name, value, axes if np.ndim(value) else 1, least)
    return (1, *given) if axes == 1 else given * (2 if len(given) == 1 else 1)


def _padding(value, axes: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Zeros ((above, below), (left, right)) of one number, one an axis, or a pair an axis."""
    if isinstance(value, str):
        raise ValueError(f"padding: expected a whole number, one an axis, or a pair an axis, got {value!r}")
    if np.ndim(value) == 2 and len(value) == axes:
        pairs = tuple(_whole("padding", p, 2, 0) for p in value)
    else:
        given = _whole("padding", value, axes if np.ndim(value) else 1, 0)
        pairs = tuple((p, p) for p in given * (axes if len(given) == 1 else 1))
    return ((0, 0), *pairs) if axes == 1 else pairs
