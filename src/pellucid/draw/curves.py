"""Curves: one number against another, for several series."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .arrays import numbers
from .axes import apart, frame, left_of, spanned
from .images import MARGIN, finish, heading
from .svg import LINE, SERIES, Picture, Sketch, clean, shorten, text_width

WIDTH, HEIGHT = 400, 220  # of the plot itself
LABELS = 170  # at most, of names beside the curves
DASHES = (None, "6 3", "2 2", "8 3 2 3")  # tell apart series of the same colour
FEW = 25  # points up to which each gets a dot


def curves(series: Sequence[tuple], *, x_label: str, y_label: str, title: str = "", percent: bool = False,
           log_x: bool = False) -> Picture:
    """Lines through points, each with its name at its end.

    `series` are (name, xs, ys) or (name, xs, ys, spreads), joined in the order of x; a spread is drawn as a band of
    that much on either side, or of two numbers that much below and above. NaN in ys is missing: a gap in the line.
    `percent` writes y as per cent, and leaves no room below 0% and above 100%; `log_x` makes x logarithmic.
    Raises ValueError for no series, lists of other lengths, infinite values, negative spreads, and x that is not above
    zero on a logarithmic axis.
    """
    lines = [_series(i, s, log_x) for i, s in enumerate(series)]
    if not lines:
        raise ValueError("curves need at least one series of (name, xs, ys)")
    xs = np.concatenate([x for _, x, _, _ in lines])
    ends = np.concatenate([end for _, _, y, s in lines for end in (y - s[:, 0], y + s[:, 1])])
    ends = ends[~np.isnan(ends)]
    low, high = (ends.min(), ends.max()) if ends.size else (0.0, 1.0)
    sketch = Sketch()
    top = heading(sketch, title) + 4
    height = max(HEIGHT, LINE * len(lines))
    y = spanned(low, high, top + height, top, least=min(0.0, low) if percent else None,
                most=max(1.0, high) if percent else None, as_percent=percent)
    left = left_of(y.ticks())
    x = spanned(xs.min(), xs.max(), left, left + WIDTH, room=0.02, log=log_x)
    frame(sketch, x, y, x_label, y_label)
    for i, (name, x_values, y_values, spreads) in enumerate(lines):
        edges = np.concatenate([y_values - spreads[:, 0], y_values + spreads[:, 1]]) if spreads.any() else []
        _line(sketch, i, name, [x(v) for v in x_values], [v if np.isnan(v) else y(v) for v in y_values],
              [y(v) for v in edges])
    width = _names(sketch, lines, x, y)
    said = ", ".join(clean(name) for name, *_ in lines)
    return finish(sketch, x.end + width - MARGIN, top + height + 38, title,
                  f"{title or y_label} against {x_label}: {said}")


def colour(i: int) -> str:
    """The class of the i-th series."""
    return f"s{i % len(SERIES)}"


def _series(i: int, given: tuple, log_x: bool) -> tuple[str, np.ndarray, np.ndarray, np.ndarray]:
    if not 3 <= len(given) <= 4:
        raise ValueError(f"series {i}: expected (name, xs, ys) or (name, xs, ys, spreads), got {len(given)} parts")
    name = str(given[0])
    x, y = numbers(f"{name}: xs", given[1], 1, missing=False), numbers(f"{name}: ys", given[2], 1)
    spread = numbers(f"{name}: spreads", given[3], (1, 2)) if len(given) == 4 else np.zeros(len(y))
    spread = np.stack([spread, spread], axis=1) if spread.ndim == 1 else spread
    if not len(x) == len(y) == len(spread):
        raise ValueError(f"{name}: expected as many ys and spreads as xs, got {len(x)} xs, {len(y)} ys and "
                         f"{len(spread)} spreads")
    if spread.shape[1] != 2:
        raise ValueError(f"{name}: expected a spread or two for each point, got {spread.shape[1]}")
    if log_x and x.min() <= 0:
        raise ValueError(f"{name}: x must be above zero on a logarithmic axis, got {x.min():g}")
    if (spread < 0).any():
        raise ValueError(f"{name}: spreads must not be negative, got {spread.min():g}")
    if np.isnan(y).all():
        name += ": no values"
    order = np.argsort(x, kind="stable")
    return name, x[order], y[order], np.nan_to_num(spread[order])


def _line(sketch: Sketch, i: int, name: str, xs: list[float], ys: list[float], band: list[float]) -> None:
    kind, count = colour(i), len(xs)
    for run in _runs(ys):
        if band:
            edge = [(xs[k], band[k]) for k in run] + [(xs[k], band[count + k]) for k in reversed(run)]
            sketch.path(edge, kind, closed=True, fill="currentColor", fill_opacity=0.15)
        if len(run) > 1:
            sketch.path([(xs[k], ys[k]) for k in run], kind, fill="none", stroke="currentColor", stroke_width=2,
                        stroke_linejoin="round", stroke_dasharray=DASHES[i // len(SERIES) % len(DASHES)], tip=name)
        if len(run) == 1 or count <= FEW:
            for k in run:
                sketch.circle(xs[k], ys[k], 2.5, kind)


def _runs(ys: list[float]) -> list[list[int]]:
    """The places of values that follow each other without one missing between them."""
    runs: list[list[int]] = [[]]
    for k, value in enumerate(ys):
        if np.isnan(value):
            runs.append([])
        else:
            runs[-1].append(k)
    return [run for run in runs if run]


def _names(sketch: Sketch, lines: list, x, y) -> float:
    """The name of each curve where it ends, moved apart where they would overlap; returns the width they take."""
    ends = []
    for _, _, values, _ in lines:
        there = values[~np.isnan(values)]
        ends.append(y(there[-1]) if there.size else y.start)
    for i, place in enumerate(apart(ends, LINE, y.end, y.start)):
        sketch.path([(x.end + 2, ends[i]), (x.end + 10, place), (x.end + 22, place)], colour(i), fill="none",
                    stroke="currentColor", stroke_width=2,
                    stroke_dasharray=DASHES[i // len(SERIES) % len(DASHES)])
        sketch.text(x.end + 27, place + 4, lines[i][0], room=LABELS)
    return 27 + max(text_width(shorten(clean(name), LABELS)) for name, *_ in lines)
