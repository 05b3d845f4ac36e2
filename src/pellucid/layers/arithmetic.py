"""What one number of a layer's output is made of, in the form that all layers share.

A layer's `terms` says it for inference, beside its `define`: the numbers it reads, what each contributes, and the steps
from there to the value. Everything is computed in float64 from the float32 numbers that the layer really read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import NamedTuple

import numpy as np

from ..geometry import Window

Index = tuple[int, ...]  # of a number: (y, x, channel), (x, channel) or (feature,); of a parameter, as it is stored

UNIT = 2.0**-24  # the largest relative error of one float32 operation
SMALLEST = 2.0**-126  # less than that may be computed as 0
OTHERS = 16  # operations that the bound allows for besides one a term: exponentials and roots take several
PADDING = -1  # in place of the number of an input
UNWARNED = {"divide": "ignore", "over": "ignore", "invalid": "ignore"}  # what is not finite is shown as it is


class Step(NamedTuple):
    """A number between the terms and the value: given, and then perhaps a parameter's, or computed."""

    text: str
    value: float
    parameter: str = ""
    index: Index = ()


@dataclass(frozen=True, eq=False)
class Arithmetic:
    """One number, from what it reads to its value. Arrays have a row for each number read, in scan order.

    `of` says which of the layer's inputs it stands in (PADDING: none), `at` where there, `x` what it is (0 in padding).
    `terms` are what is added up, or compared where there is a `winner`; `factors` are what x is multiplied with for
    that, if it is, and `weights` the parameter's name and where in it each factor stands. `derivative` is that of the
    value to each x. The last of the `steps` is the value.

    `magnitude` is what float32's rounding errors are relative to: the sum of the absolute terms for a sum. `share` is
    the error besides, as a share of the layer's largest output: Winograd's algorithm has one.
    """

    of: np.ndarray
    at: np.ndarray
    x: np.ndarray
    terms: np.ndarray
    derivative: np.ndarray
    steps: tuple[Step, ...]
    magnitude: float
    text: str = "product"  # what a term is
    factors: np.ndarray | None = None
    weights: tuple[str, np.ndarray] | None = None
    winner: int | None = None
    share: float = 0.0

    @property
    def value(self) -> float:
        return self.steps[-1].value

    @property
    def bound(self) -> float:
        """How far what float32 computes may be from the value, `share` left out."""
        return rounding(len(self.terms), self.magnitude)


@dataclass(frozen=True, eq=False)
class Uses:
    """Where one number of a parameter is used: a row for each output that it is in.

    `outputs` are their indices, `derivative` theirs to the number; `at` says which number of the input that is, where
    it is one (it may lie in the padding), and `text` what of it the derivative is.
    """

    outputs: np.ndarray
    derivative: np.ndarray
    at: np.ndarray | None = None
    text: str = "x"


def rounding(terms: int, magnitude: float) -> float:
    """How far the sum of so many terms in float32, in any order, may be from the exact one.

    It is off by at most one unit of rounding a term, relative to the sum of the absolute terms (Higham, "Accuracy and
    stability of numerical algorithms", 2002, section 4.2), and nearly certainly by a small multiple of their root only
    (Higham and Mary, "A new approach to probabilistic rounding error analysis", 2019).
    """
    return (min(terms, 4 * sqrt(terms)) + OTHERS) * (UNIT * magnitude + SMALLEST)


# Where numbers stand.


def beside(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Every row of `a` followed by every row of `b`: (m, p), (n, q) -> (m n, p + q)."""
    return np.hstack([np.repeat(a, len(b), axis=0), np.tile(b, (len(a), 1))])


def grid(*axes: Sequence[int]) -> np.ndarray:
    """Every combination of one number of each axis, the last one fastest: (n, axes)."""
    return np.stack(np.meshgrid(*map(np.asarray, axes), indexing="ij"), -1).reshape(-1, len(axes)).astype(int)


def everywhere(shape: Sequence[int], channel: int) -> np.ndarray:
    """The indices of a channel's numbers: (positions, axes)."""
    return grid(*map(range, shape[:-1]), (channel,))


def under(axes: Sequence[Window], position: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """The taps of a window at an output position, and the input positions under them, padding included: (n, axes)."""
    return (grid(*(range(w.size) for w in axes)),
            grid(*(w.inputs(o) for w, o in zip(axes, position, strict=True))))


def inside(at: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Which rows are indices of an array of that shape."""
    return ((at >= 0) & (at < np.array(shape))).all(axis=1)


def read(x: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of `x` at some indices, float64, 0 outside; and 0 or PADDING for each."""
    known = inside(at, x.shape)
    found = np.zeros(len(at))
    found[known] = x[tuple(at[known].T)]
    return found, np.where(known, 0, PADDING)


# The forms that most layers have.


def dot(parameters: dict[str, np.ndarray], x: np.ndarray, at: np.ndarray, weights: np.ndarray, bias: Index, *,
        share: float = 0.0) -> Arithmetic:
    """Numbers times weights, and the bias if there is one."""
    numbers, of = read(x, at)
    factors = parameters["weight"][tuple(weights.T)].astype(np.float64)
    terms = numbers * factors
    total, magnitude = float(terms.sum()), float(np.abs(terms).sum())
    steps = [Step("sum of the products", total)]
    if "bias" in parameters:
        added = float(parameters["bias"][bias])
        steps += [Step("bias", added, "bias", bias), Step("sum + bias", total + added)]
        magnitude += abs(added)
    return Arithmetic(of, at, numbers, terms, factors, tuple(steps), magnitude, factors=factors,
                      weights=("weight", weights), share=share)


def mean(x: np.ndarray, at: np.ndarray, padding: bool = True) -> Arithmetic:
    """The mean of some numbers, those in the padding counted as zeros or not at all."""
    numbers, of = read(x, at)
    counted = (of != PADDING) | padding
    factors = counted / counted.sum()
    terms = numbers * factors
    return Arithmetic(of, at, numbers, terms, factors, (Step(f"sum of {counted.sum()} equal shares", terms.sum()),),
                      float(np.abs(terms).sum()), "share", factors=factors)


def largest(x: np.ndarray, at: np.ndarray) -> Arithmetic:
    """The largest of some numbers, the first of equal ones; padding never wins."""
    numbers, of = read(x, at)
    known = np.flatnonzero(of != PADDING)
    winner = int(known[np.argmax(numbers[known])])
    return Arithmetic(of, at, numbers, numbers, (np.arange(len(at)) == winner).astype(float),
                      (Step("the largest", float(numbers[winner])),), 0.0, "candidate", winner=winner)


def added(index: Index, *inputs: np.ndarray) -> Arithmetic:
    """The sum of what several inputs have at one index."""
    at, ones = np.array([index] * len(inputs)), np.ones(len(inputs))
    numbers = np.array([x[index] for x in inputs], np.float64)
    return Arithmetic(np.arange(len(inputs)), at, numbers, numbers, ones, (Step("sum", float(numbers.sum())),),
                      float(np.abs(numbers).sum()), "branch")


def copied(x: np.ndarray, index: Sequence[int], of: int = 0, text: str = "the same number") -> Arithmetic:
    """One number as it is; 0 if it lies in the padding."""
    at = np.array([index])
    numbers, known = read(x, at)
    if known[0] == PADDING:
        text, of = "padding", PADDING
    return Arithmetic(np.array([of]), at, numbers, numbers, np.ones(1), (Step(text, float(numbers[0])),), 0.0, "value")


def function(x: np.ndarray, index: Index, steps: Sequence[Step], derivative: float, magnitude: float) -> Arithmetic:
    """A function of the number at the same index."""
    at = np.array([index])
    numbers, of = read(x, at)
    return Arithmetic(of, at, numbers, numbers, np.array([derivative], float), tuple(steps), magnitude, "value")
