"""What a layer is: the contract every file in this folder fulfils, and the registry that tests it.

A layer is a frozen dataclass of hyperparameters. It knows nothing of arrays until it is asked to
`define` itself (float64, plain loops) or to `lower` itself (compiled kernels). Both return the output and a
function for the backward pass, so that the two passes of a layer stand side by side.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from numbers import Integral
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ..geometry import Window
from .arithmetic import Arithmetic, Index, Uses, grid
from .initialisation import Initialiser

if TYPE_CHECKING:
    from ..engine.builder import Builder
    from ..engine.tensor import Tensor

Shape = tuple[int, ...]  # of one image, without the batch: (H, W, C), (L, C) or (features,)
Gradients = tuple[list[np.ndarray], dict[str, np.ndarray]]  # to each input, to each trainable parameter

LONGEST_LIST = 64  # of values in a layer's field, so that what a file says of a layer stays small

LAYERS: dict[str, type[Layer]] = {}


@dataclass(frozen=True)
class Parameter:
    """An array a layer owns: its shape in PyTorch's layout, how it starts, whether the optimiser moves it."""

    shape: Shape
    init: Initialiser
    trainable: bool = True

    @property
    def size(self) -> int:
        return prod(self.shape)


@dataclass(frozen=True)
class Epilogue:
    """The layers right after one that it computes in the same pass. Nobody else reads what stands between them."""

    norm: tuple[str, Layer] | None = None  # a batch normalisation and its node's name
    residual: Tensor | None = None  # what is added
    relu: bool = False
    pool: bool = False  # 2x2 maxima


ALONE = Epilogue()


class Layer:
    """Base of all layers. Subclasses are frozen dataclasses; defining one registers it under its name."""

    inputs: ClassVar[int | None] = 1  # how many inputs it takes; None for two or more
    short: ClassVar[str] = ""  # the stem of automatic names: conv1, conv2, ...

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        LAYERS[cls.__name__] = cls
        cls.short = cls.__dict__.get("short") or cls.__name__.lower()

    def __post_init__(self):
        for f in dataclasses.fields(self):
            object.__setattr__(self, f.name, plain(getattr(self, f.name)))

    # What follows from shapes alone.

    def output_shape(self, *shapes: Shape) -> Shape:
        """Shape of the output for the given input shapes. Raises ValueError if they do not fit."""
        return shapes[0]

    def parameters(self, *shapes: Shape) -> dict[str, Parameter]:
        """The arrays the layer owns, by PyTorch's names, in PyTorch's order."""
        return {}

    def macs(self, *shapes: Shape) -> int:
        """Multiply-adds for one image. Only products with a weight are counted."""
        return 0

    def windows(self, shape: Shape) -> tuple[Window, ...] | None:
        """The sliding window along each spatial axis; None when every output sees the whole input."""
        return tuple(Window(1) for _ in shape[:-1])

    def kernel_text(self, *shapes: Shape) -> str:
        """The hyperparameters in a few characters, for tables: `3x3 s2 p1`."""
        return ""

    def reads_image(self, shape: Shape) -> bool:
        """Whether `lower` takes an image of this shape as it comes, its few channels side by side, not in blocks."""
        return False

    # How it computes.

    def define(
        self, parameters: dict[str, np.ndarray], *inputs: np.ndarray, training: bool = False, seed: int = 0
    ) -> tuple[np.ndarray, Callable[[np.ndarray], Gradients]]:
        """The definition in float64: the output, and a function from its gradient to all other gradients.

        Layers that keep running statistics update them in `parameters` when training.
        """
        raise TypeError(f"{type(self).__name__} has no definition")

    def terms(self, index: Index, parameters: dict[str, np.ndarray], *inputs: np.ndarray) -> Arithmetic:
        """What the output at an index is made of, at inference. The inputs are those of one image, without the batch.

        The index is one of `output_shape`'s.
        """
        raise TypeError(f"{type(self).__name__} does not say what a number of it is made of")

    def readers(self, index: Index, of: int, *shapes: Shape) -> np.ndarray:
        """Indices of outputs, a row each, among which are all that read the number at `index` of input number `of`."""
        shape, axes = shapes[of], self.windows(shapes[of])
        if axes is None:
            return grid(*map(range, self.output_shape(*shapes)))
        return grid(*(w.outputs(i, n) for w, i, n in zip(axes, index[:-1], shape[:-1], strict=True)), index[-1:])

    def derivatives(
        self, index: Index, of: int, parameters: dict[str, np.ndarray], *inputs: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The outputs that read the number at `index` of input number `of`, a row each, and the derivative of each."""
        outputs, derivatives = [], []
        for output in self.readers(index, of, *(x.shape for x in inputs)):
            made = self.terms(tuple(output.tolist()), parameters, *inputs)
            mine = (made.of == of) & (made.at == np.array(index)).all(axis=1)
            if mine.any():
                outputs.append(output)
                derivatives.append(made.derivative[mine].sum())
        axes = len(self.output_shape(*(x.shape for x in inputs)))
        return np.array(outputs, int).reshape(-1, axes), np.array(derivatives, float)

    def uses(self, name: str, index: Index, parameters: dict[str, np.ndarray], x: np.ndarray) -> Uses:
        """The outputs that the number at `index` of a trainable parameter is in, at inference."""
        raise TypeError(f"{type(self).__name__} does not say where it uses {name}")

    def fuses(self, b: Builder, followers: list[Layer], *inputs: Tensor) -> int:
        """How many of the layers that follow `lower(..., after=...)` takes along, where nobody else reads between."""
        return 0

    def lower(self, b: Builder, *inputs: Tensor) -> tuple[Tensor, Callable[[Tensor], list[Tensor | None]]]:
        """Emit the kernel calls of the forward pass into `b`.

        Returns the output and a function that emits the backward pass: given the output's gradient it writes
        the gradients of the parameters and returns that of each input (None where `b` needs none), and last that of
        a residual it has taken along.
        """
        raise TypeError(f"{type(self).__name__} has no kernels")

    # As data.

    def to_json(self) -> dict:
        """The fields that differ from their defaults."""
        fields = {}
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            if value != f.default:
                fields[f.name] = value
        return fields


def from_json(kind: str, fields: dict) -> Layer:
    """The layer of that kind. Raises ValueError for an unknown kind or field, or a value that does not fit."""
    if not isinstance(kind, str) or kind not in LAYERS:
        raise ValueError(f"unknown layer {kind!r}; known are {', '.join(sorted(LAYERS))}")
    known = {f.name for f in dataclasses.fields(LAYERS[kind])}
    if unknown := set(fields) - known:
        raise ValueError(f"{kind} has no field {', '.join(sorted(map(repr, unknown)))}")
    try:
        return LAYERS[kind](**fields)
    except (TypeError, ValueError) as e:
        raise ValueError(f"{kind}: {e}") from e


def plain(value):
    """Lists as tuples and numpy's integers as Python's, all the way down, so that layers compare, hash and save."""
    if isinstance(value, list | tuple):
        return tuple(map(plain, value))
    return int(value) if isinstance(value, Integral) and not isinstance(value, bool) else value


def require_spatial(name: str, shape: Shape) -> None:
    """Raise ValueError unless `shape` has one or two spatial axes and channels."""
    if len(shape) not in (2, 3):
        raise ValueError(f"{name} needs an input of shape (H, W, C) or (L, C), got {shape}")


def leading(followers: list[Layer], *kinds: str) -> int:
    """How many layers at the head of a list are of these kinds, in this order; each kind may be missing."""
    count = 0
    while count < len(followers) and (kind := type(followers[count]).__name__) in kinds:
        kinds = kinds[kinds.index(kind) + 1:]
        count += 1
    return count


def halves(followers: list[Layer]) -> bool:
    """Whether the next layer takes 2x2 maxima and leaves none out but a last odd row and column."""
    pool = followers[0] if followers else None
    return (type(pool).__name__ == "MaxPool" and pool.size in (2, (2, 2)) and pool.stride in (None, 2, (2, 2))
            and pool.padding in (0, (0, 0), ((0, 0), (0, 0))) and pool.dilation in (1, (1, 1)))


def epilogue_gradient(b: Builder, y: Tensor, dy: Tensor, relu: bool, bias: bool) -> Tensor:
    """Emit the backward pass of what follows a weighted sum in its own kernel: ReLU, then bias.

    Writes the bias' gradient; returns the gradient of the bare sum.
    """
    if relu and not y.masked:
        masked = b.like(dy)
        b.call("relu_grad", y=y, dy=dy, dx=masked)
        dy = masked
    if bias:
        b.call("channel_sum", dy=dy, dbias=b.gradient("bias"))
    return dy


def window_text(axes: tuple[Window, ...]) -> str:
    """Windows in a few characters: size, then stride s, padding p and dilation d where they do something."""

    def part(letter: str, values: list, default: int) -> str:
        if all(v == default for v in values):
            return ""
        return f" {letter}{values[0]}" if len(set(values)) == 1 else f" {letter}{'x'.join(map(str, values))}"

    sides = [w.before if w.before == w.after else f"{w.before}+{w.after}" for w in axes]
    return ("x".join(str(w.size) for w in axes) + part("s", [w.stride for w in axes], 1) + part("p", sides, 0)
            + part("d", [w.dilation for w in axes], 1))


def as_image(shape: Shape) -> tuple[int, int, int]:
    """(H, W, C) for every shape: a signal is one row high, a feature vector one pixel."""
    return (1,) * (3 - len(shape)) + tuple(shape)
