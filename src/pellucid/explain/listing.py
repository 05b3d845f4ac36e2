"""How a number's terms are shown: as a table in text or HTML, of bounded length, or as JSON."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from html import escape
from math import isfinite, isnan

import numpy as np

from ..layers.arithmetic import UNWARNED, Index

MOST = 16  # rows of a table


def address(name: str, index: Index) -> str:
    """How a number is called: conv1[3,4,0]."""
    return f"{name}[{','.join(map(str, index))}]"


def checked_index(index, shape: tuple[int, ...], what: str) -> Index:
    """The index as a tuple of integers. Raises ValueError for one that an array of that shape does not have."""
    parts = index if isinstance(index, tuple | list) else (index,)
    whole = all(isinstance(i, int | np.integer) and not isinstance(i, bool) for i in parts)
    if not whole or len(parts) != len(shape) or not all(0 <= i < n for i, n in zip(parts, shape, strict=True)):
        wanted = ", ".join(f"0 to {n - 1}" for n in shape)
        got = ", ".join(map(str, parts)) if whole else repr(index)[:60]
        raise ValueError(f"{what} has shape {shape}, so that an index is {wanted}; got {got}")
    return tuple(map(int, parts))


def number(value: float) -> str:
    """In six digits, as many as float32 can tell apart."""
    return f"{value + 0.0:.6g}"  # no sign before 0


def distance(total: float, value: float) -> str:
    """How far the engine's number is from the sum shown, for the end of a table."""
    if total == value or isnan(total) and isnan(value):
        return "The engine's float32 value is the same"
    return f"The engine's float32 value is {abs(total - value):.2g} away"


def finite(value: float) -> float | None:
    """As JSON has it, which knows no infinity."""
    return float(value) if isfinite(value) else None


class Listing(ABC):
    """A number and its terms. Subclasses say what a term is; this shows them.

    Up to `MOST` terms stand in the order in which they are computed. Of more, the largest (without sign) come first,
    and one row says how many are left out and what they add up to.
    """

    title: str
    headings: tuple[str, ...]  # of the cells of a term; the last is that of the number which is added up
    summed = True  # or compared, by size with sign

    @property
    @abstractmethod
    def numbers(self) -> np.ndarray:
        """What is added up or compared, one number a term."""

    def facts(self) -> list[str]:
        """What is to be said before the table."""
        return []

    @abstractmethod
    def cells(self, i: int) -> tuple[str, ...]:
        """A term, under all headings but the last."""

    def closing(self) -> list[tuple[str, float]]:
        """What follows the terms: texts and numbers, to the value."""
        return []

    def after(self) -> list[str]:
        """What is to be said after the table."""
        return []

    @abstractmethod
    def item(self, i: int) -> dict:
        """A term as JSON."""

    @abstractmethod
    def head(self) -> dict:
        """What is said of the number besides its terms, as JSON."""

    def __len__(self) -> int:
        return len(self.numbers)

    def __iter__(self) -> Iterator:
        return (self[i] for i in range(len(self)))

    @abstractmethod
    def __getitem__(self, i: int):
        """A term."""

    def largest(self, most: int | None = None) -> list[int]:
        """The terms that are shown where at most so many are, in the order they are shown in."""
        if most is None or len(self) <= most:
            return list(range(len(self)))
        size = np.abs(self.numbers) if self.summed else self.numbers
        return np.argsort(-size, kind="stable")[:most].tolist()

    def left_out(self, shown: Sequence[int]) -> np.ndarray:
        """The numbers that are not shown."""
        return np.delete(self.numbers, shown)

    def rest(self, shown: Sequence[int]) -> tuple[str, float] | None:
        """How many numbers are not shown, in words, and what they are together; None where all are."""
        rest = self.left_out(shown)
        verb = "together" if self.summed else "at most"
        return (f"{len(rest):,} more, {verb}", self._together(rest)) if len(rest) else None

    def text(self, most: int | None = MOST) -> str:
        """The table with at most so many terms; None for all."""
        rows, cut = self._rows(most)
        widths = [max(map(len, column)) for column in zip(self.headings, *rows, strict=True)]
        lines = []
        for row in (self.headings, *rows) if rows else ():
            cells = (f"{c:<{w}}" if left else f"{c:>{w}}"
                     for c, w, left in zip(row, widths, self._left(), strict=True))
            lines.append("  " + "  ".join(cells).rstrip())
        return "\n".join([self.title, *self.facts(), *lines, *cut, *self.after()])

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        return f"<{self.title}, {len(self)} terms>"

    def _repr_html_(self) -> str:
        rows, cut = self._rows(MOST)

        def line(tag: str, row: Sequence[str]) -> str:
            cells = (f'<{tag} style="padding: 0 .5em; text-align: {"left" if left else "right"}">{escape(cell)}</{tag}>'
                     for cell, left in zip(row, self._left(), strict=True))
            return f"<tr>{''.join(cells)}</tr>"

        body = "".join(line("td", row) for row in rows)
        table = ("<table style='font-variant-numeric: tabular-nums'>"
                 f"<thead>{line('th', self.headings)}</thead><tbody>{body}</tbody></table>") if rows else ""
        before, after = ("".join(f"<div>{escape(text)}</div>" for text in texts)
                         for texts in (self.facts(), [*cut, *self.after()]))
        return f"<div><strong>{escape(self.title)}</strong>{before}{table}{after}</div>"

    def to_json(self, most: int | None = None) -> dict:
        """All of it, or the largest terms, as dicts, lists, texts and numbers; None for a number that is not finite."""
        shown = self.largest(most)
        rest = self.left_out(shown)
        return {**self.head(), "terms": [self.item(i) for i in shown],
                "left_out": {"count": len(rest), "sum" if self.summed else "largest": finite(self._together(rest))},
                "steps": [{"text": text, "value": finite(value)} for text, value in self.closing()]}

    @np.errstate(**UNWARNED)
    def _together(self, rest: np.ndarray) -> float:
        if self.summed:
            return float(rest.sum())
        return float(rest.max()) if len(rest) else 0.0

    def _left(self) -> list[bool]:
        """Which columns are texts."""
        return [i == 0 or heading in ("weight", "met") for i, heading in enumerate(self.headings)]

    def _rows(self, most: int | None) -> tuple[list[tuple[str, ...]], list[str]]:
        """The rows of the table, and what is said if it is cut."""
        shown = self.largest(most)
        rows = [(*self.cells(i), number(self.numbers[i])) for i in shown]
        rest, empty, cut = self.rest(shown), ("",) * (len(self.headings) - 2), []
        if rest:
            rows.append((rest[0], *empty, number(rest[1])))
            cut = [f"Shown are the {len(shown)} largest of {len(self):,} terms."]
        rows += [(text, *empty, number(value)) for text, value in self.closing()]
        return rows, cut

