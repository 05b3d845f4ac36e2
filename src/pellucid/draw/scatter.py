"""Named points: what something gives against what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, inf, log10
from xml.sax.saxutils import escape

# Okabe and Ito, "Color universal design", 2008; those that are seen on white and on black.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
WIDTH, HEIGHT = 310, 260  # of a panel, in pixels
LEFT, RIGHT, TOP, BOTTOM = 68, 16, 30, 46  # its margins
STYLE = ("text{font:12px sans-serif;fill:#222}line,path{stroke:#888;fill:none}"
         "@media(prefers-color-scheme:dark){text{fill:#ddd}}")


@dataclass(frozen=True)
class Panel:
    """One scatter plot; each list has a number a name. `x` is above zero, for a logarithmic axis."""

    title: str
    x_label: str
    x: Sequence[float]
    y: Sequence[float]
    spread: Sequence[float]


def scatter(names: Sequence[str], panels: Sequence[Panel], y_label: str, y_percent: bool = True) -> str:
    """Panels side by side with a point a name, in one SVG; a legend stands below.

    Raises ValueError for no names, no panels, lists of other lengths, and x that are not above zero.
    """
    if not names or not panels:
        raise ValueError("a scatter plot needs at least one name and one panel")
    for p in panels:
        if not len(names) == len(p.x) == len(p.y) == len(p.spread):
            raise ValueError(f"{p.title}: expected {len(names)} numbers for x, y and spread, got {len(p.x)}, "
                             f"{len(p.y)} and {len(p.spread)}")
        if min(p.x) <= 0:
            raise ValueError(f"{p.title}: x must be above zero on a logarithmic axis, got {min(p.x)}")
    low, high = _limits([y + side * s for p in panels for y, s in zip(p.y, p.spread, strict=True) for side in (-1, 1)],
                        1.0 if y_percent else inf)
    parts = [part for i, p in enumerate(panels) for part in _panel(p, i * WIDTH, low, high, y_percent)]
    for i, name in enumerate(names):
        y = HEIGHT + 14 + 18 * i
        parts.append(f'<circle cx="{LEFT}" cy="{y - 4}" r="5" fill="{_colour(i)}"/>'
                     f'<text x="{LEFT + 12}" y="{y}">{_text(name)}</text>')
    parts.append(f'<text transform="translate(13 {(TOP + HEIGHT - BOTTOM) / 2:g}) rotate(-90)" '
                 f'text-anchor="middle">{_text(y_label)}</text>')
    width, height = WIDTH * len(panels), HEIGHT + 18 * len(names) + 6
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
            f'height="{height}" role="img"><style>{STYLE}</style>\n' + "\n".join(parts) + "\n</svg>\n")


def _panel(p: Panel, left: int, low: float, high: float, percent: bool) -> list[str]:
    first, last = floor(log10(min(p.x)) - 0.05), ceil(log10(max(p.x)) + 0.05)
    x0, x1, y0, y1 = left + LEFT, left + WIDTH - RIGHT, HEIGHT - BOTTOM, TOP

    def at(x: float, y: float) -> tuple[float, float]:
        return (x0 + (log10(x) - first) / (last - first) * (x1 - x0), y0 + (y - low) / (high - low) * (y1 - y0))

    parts = [f'<path d="M{x0} {y1}V{y0}H{x1}"/>',
             f'<text x="{(x0 + x1) / 2:g}" y="{y1 - 12}" text-anchor="middle">{_text(p.title)}</text>',
             f'<text x="{(x0 + x1) / 2:g}" y="{y0 + 36}" text-anchor="middle">{_text(p.x_label)}</text>']
    for power in range(first, last + 1, max((last - first) // 4, 1)):
        x, _ = at(10.0**power, low)
        parts.append(f'<line x1="{x:.1f}" y1="{y0}" x2="{x:.1f}" y2="{y0 + 4}"/>'
                     f'<text x="{x:.1f}" y="{y0 + 18}" text-anchor="middle">{_short(power)}</text>')
    for i in range(5):
        value = low + (high - low) * i / 4
        _, y = at(1.0, value)
        text = f"{value:.1%}" if percent else f"{value:.3g}"
        parts.append(f'<line x1="{x0 - 4}" y1="{y:.1f}" x2="{x0}" y2="{y:.1f}"/>'
                     f'<text x="{x0 - 7}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
    for i, (x, y, spread) in enumerate(zip(p.x, p.y, p.spread, strict=True)):
        cx, cy = at(x, y)
        if spread:
            (_, top), (_, bottom) = at(x, y + spread), at(x, y - spread)
            parts.append(f'<line x1="{cx:.1f}" y1="{top:.1f}" x2="{cx:.1f}" y2="{bottom:.1f}"/>')
        parts.append(f'<circle cx="{cx:.1f}" cy="{cy:.1f}" r="5" fill="{_colour(i)}"/>')
    return parts


def _limits(values: list[float], most: float) -> tuple[float, float]:
    """The axis for some values, with a twentieth of room on both sides, but not above what there is at most."""
    low, high = min(values), max(values)
    room = (high - low) / 20 or 0.01
    return low - room, max(min(high + room, most), high)


def _short(power: int) -> str:
    """A power of ten: 0.1, 10, 1k, 100M, 10G."""
    if power < 3:
        return f"{10.0**power:g}"
    unit = min(power // 3, 4)
    return f"{10**(power - 3 * unit)}{' kMGT'[unit]}"


def _colour(i: int) -> str:
    return COLOURS[i % len(COLOURS)]


def _text(text: str) -> str:
    """A text as XML holds it, control characters left out."""
    return escape("".join(c for c in text if c.isprintable()))
