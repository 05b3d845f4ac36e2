"""The strongest path: from the target's score, or any other number, down to a pixel, a number at a time.

Each number is opened into the terms it was made of; the path goes on with the term that pushes most in the direction
wanted: up for the score, and down for a number that has a negative weight on the way to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from ..layers.arithmetic import Index
from ..layers.base import as_image
from ..model import Model
from ..network import INPUT
from .question import ask
from .region import Box
from .terms import Terms

WIDTH, DEPTH = 3, 2  # the strongest terms beside the path that are opened too, and how far down
MOST = 1000  # numbers that are opened in all
PASSED = 3  # numbers, about, that pass on one other, on the way from one sum to the next

Key = tuple[str, Index]


@dataclass(frozen=True, eq=False)
class Opened:
    """One number with its terms, and those of its terms that are opened as well, by their place among them."""

    terms: Terms
    below: dict[int, Opened] = field(default_factory=dict)

    @property
    def key(self) -> Key:
        return self.terms.name, self.terms.index

    @cached_property
    def strength(self) -> np.ndarray:
        """How much each term pushes the number: what was read times the number's derivative to it, (n,)."""
        return self.terms.arithmetic.x * self.terms.arithmetic.derivative

    @cached_property
    def order(self) -> list[int]:
        """The terms from the strongest down."""
        return np.argsort(-np.abs(self.strength), kind="stable").tolist()

    @property
    def is_read(self) -> bool:
        """Whether no layer made it: it is what the network reads."""
        return self.terms.name == INPUT

    @property
    def passes_on(self) -> bool:
        """Whether it depends on one number alone, as after a ReLU."""
        return np.count_nonzero(self.strength) == 1

    @property
    def seen(self) -> Box | None:
        """What it sees of the image: first row, first column, rows, columns. None for padding alone."""
        size = as_image(self.terms.trace.model.network.input_shape)[:2]
        spans = self.terms.field
        sides = [range(n) for n in size] if spans is None else [span.clipped for span in spans]
        rows, columns = sides if len(sides) == 2 else (range(1), *sides)  # a signal is one row high
        return (rows[0], columns[0], len(rows), len(columns)) if rows and columns else None

    def everything(self) -> Iterator[Opened]:
        """Itself and all that is opened below."""
        yield self
        for each in self.below.values():
            yield from each.everything()


@dataclass(frozen=True, eq=False)
class Path:
    """The numbers on the way, each from the one before; `taken` are the terms followed, one fewer.

    `rises` says whether it follows what raises the first number, or what lowers it. `ends` says, where the path does
    not reach the image, why.
    """

    steps: list[Opened]
    taken: list[int]
    rises: bool = True
    ends: str = ""


def strongest_path(model: Model, image: np.ndarray, target: int | str | None = None, *, at: str | None = None,
                   width: int = WIDTH, depth: int = DEPTH) -> Path:
    """The path from the target's logit up, or from the number `at`, as in conv1[3,4,0], to its own side of zero.

    `width` more terms of each number are opened, `depth` levels down, numbers that pass on one other not counted. Where
    that were more than about `MOST` numbers, fewer levels are. Raises ValueError for a number that there is not and for
    what cannot be asked about (`question.ask`).
    """
    question = ask(model, image, target)
    trace = model.trace(question.image)
    first = trace.at(at) if at is not None else trace[trace.logits][question.target]
    if not isinstance(first, Terms):
        wanted = ",".join(str(n // 2) for n in first.shape)
        raise ValueError(f"{at!r} is a layer of {len(first.shape)} axes; name one number of it, such as "
                         f"{first.name}[{wanted}]")
    rises = at is None or first.value >= 0
    steps, taken, sign, ends = [Opened(first)], [], 1.0 if rises else -1.0, ""
    while not steps[-1].is_read:
        last = steps[-1]
        pushes = sign * last.strength
        i = int(pushes.argmax()) if pushes.max() > 0 else int(np.abs(pushes).argmax())
        if not last.strength[i]:
            ends = f"nothing that {last.terms.address} is made of moves it: each term is zero, or cut off"
            break
        sign *= np.sign(last.terms.arithmetic.derivative[i])
        taken.append(i)
        steps.append(Opened(last.terms[i].source))
    sums = sum(not step.passes_on for step in steps)
    while depth and PASSED * sums * sum(width**i for i in range(depth + 1)) > MOST:
        depth -= 1
    known = {step.key for step in steps}
    for step, i in zip(steps, [*taken, None], strict=True):
        _open_below(step, i, known, width, depth)
    return Path(steps, taken, rises, ends)


def _open_below(opened: Opened, taken: int | None, known: set[Key], width: int, depth: int) -> None:
    if opened.is_read or not depth:
        return
    for i in [i for i in opened.order if i != taken and opened.strength[i]][:width]:
        term = opened.terms[i]
        key = term.name, term.index
        if key not in known and len(known) < MOST:
            known.add(key)
            opened.below[i] = below = Opened(term.source)
            _open_below(below, None, known, width, depth - (not below.passes_on))
