"""The integers of convolution: windows, padding, output sizes, receptive fields, multiply-adds.

No arrays here. Every other file asks this one where a window lies; nothing else writes the output-size
formula. Dilation 1 is dense. One multiply-add (MAC) is one multiplication and one addition: two FLOPs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from numbers import Integral

BLOCK = 16  # the engine stores channels in blocks of 16: two AVX2 registers, one AVX-512 register

# What compiled kernels and those who call them must agree on, besides.
TILE, POINTS = 4, 36  # Winograd's F(4x4, 3x3): outputs of a tile along an axis, values of a transformed tile
TILES_TOGETHER = 8  # tiles that lie side by side while the gradient to Winograd's filters is added up
MOST_ROUTED = 64  # channels of a layer whose backward pass begins from its pooled map
UPDATE = 16384  # values of a parallel task of an optimiser's step; fixed, so that threads change no result

Padding = int | str | Sequence  # 1 | "same" | (1, 2) per axis | ((1, 0), (2, 2)) per side


@dataclass(frozen=True)
class Window:
    """A window that slides along one axis.

    `size` taps, `dilation` apart, moved by `stride`; `before` and `after` zeros are added to the axis.
    """

    size: int
    stride: int = 1
    before: int = 0
    after: int = 0
    dilation: int = 1

    def __post_init__(self):
        for name, least in (("size", 1), ("stride", 1), ("before", 0), ("after", 0), ("dilation", 1)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                label = {"before": "padding", "after": "padding"}.get(name, name)
                raise ValueError(f"{label} must be an integer of at least {least}, got {value!r}")

    @property
    def reach(self) -> int:
        """Positions from the first tap to the last, both counted: d(k - 1) + 1."""
        return self.dilation * (self.size - 1) + 1

    def output_size(self, n: int) -> int:
        """Positions the window takes on an axis of `n`: floor((n + p - d(k-1) - 1) / s) + 1, at least 0."""
        return max((n + self.before + self.after - self.reach) // self.stride + 1, 0)

    def start(self, position: int) -> int:
        """Input index under the first tap at an output position; negative inside the padding."""
        return position * self.stride - self.before

    def inputs(self, position: int) -> range:
        """Input indices under the taps at an output position, padding included (below 0 or past the end)."""
        first = self.start(position)
        return range(first, first + self.reach, self.dilation)

    def outputs(self, index: int, n: int) -> list[int]:
        """Output positions that have a tap on an input index, on an axis of `n`: who reads it."""
        moved = [index + self.before - tap * self.dilation for tap in reversed(range(self.size))]
        return [m // self.stride for m in moved if m % self.stride == 0 and 0 <= m // self.stride < self.output_size(n)]

    def always_sees(self, n: int) -> bool:
        """Whether at every position at least one tap lies on an axis of `n`, as pooling needs: padding has no value."""
        padding = max(self.before, self.after)
        return padding < self.reach and (padding == 0 or self.dilation <= n)

    def rounded_up(self, n: int) -> Window:
        """The window with as much padding after an axis of `n` as makes its output size round up, where it rounds down.

        No position begins past the axis' last element for that (what PyTorch and ONNX call `ceil_mode`).
        """
        over = n + self.before + self.after - self.reach
        last = -(-over // self.stride) * self.stride  # where the last window begins, counted from the padding
        if last >= n + self.before or over % self.stride == 0:
            return self
        return replace(self, after=last + self.reach - n - self.before)

    def overhang(self, n: int) -> tuple[int, int]:
        """Zeros really read before and after an axis of `n` (a stride may leave some padding unread)."""
        if self.output_size(n) == 0:
            return 0, 0
        last = self.start(self.output_size(n) - 1) + self.reach - 1
        return self.before, max(last - (n - 1), 0)

    def transposed(self, n: int) -> list[TransposedPhase]:
        """The convolutions of stride 1 that together give the gradient to an input axis of `n`.

        Input positions that agree modulo the stride meet the same taps, so each residue is a convolution
        of the output's gradient with every `step`-th tap, flipped. (Dumoulin and Visin, "A guide to
        convolution arithmetic for deep learning", 2016, section 4.)
        """
        phases = []
        for residue in range(min(self.stride, n)):
            taps = [i for i in range(self.size) if (residue + self.before - i * self.dilation) % self.stride == 0]
            step = taps[1] - taps[0] if len(taps) > 1 else 1
            # Taps run backwards: the last tap reads the earliest position of the gradient.
            start = (residue + self.before - taps[-1] * self.dilation) // self.stride if taps else 0
            phases.append(TransposedPhase(
                first=residue, count=-(-(n - residue) // self.stride), taps=tuple(reversed(taps)),
                start=start, dilation=step * self.dilation // self.stride if len(taps) > 1 else 1,
            ))
        return phases


@dataclass(frozen=True)
class TransposedPhase:
    """Input positions `first`, `first + stride`, ... (`count` of them) and the taps that reach them.

    Position number q is the sum over m of tap `taps[m]` times the gradient at `start + q + m * dilation`.
    """

    first: int
    count: int
    taps: tuple[int, ...]
    start: int
    dilation: int


def per_axis(value: int | Sequence[int], axes: int, what: str = "value") -> tuple[int, ...]:
    """`3` -> `(3, 3)`: one integer for every axis. Raises ValueError when the count is wrong."""
    if _is_integer(value):
        return (int(value),) * axes
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value) == axes:
        if all(map(_is_integer, value)):
            return tuple(map(int, value))
    raise ValueError(f"{what} must be an integer or {axes} integers, got {value!r}")


def _is_integer(value) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def windows(
    input_size: Sequence[int],
    size: int | Sequence[int],
    stride: int | Sequence[int] = 1,
    padding: Padding = 0,
    dilation: int | Sequence[int] = 1,
) -> tuple[Window, ...]:
    """One `Window` an axis.

    `padding` is one integer, one integer an axis, a pair (before, after) an axis, or "same": as much as makes
    the output ceil(n / stride) long, the odd one after (what PyTorch does for stride 1 and TensorFlow for all).
    Raises ValueError for anything else.
    """
    axes = len(input_size)
    sizes, strides = per_axis(size, axes, "size"), per_axis(stride, axes, "stride")
    dilations = per_axis(dilation, axes, "dilation")
    for name, values in (("size", sizes), ("stride", strides), ("dilation", dilations)):
        if min(values) < 1:
            raise ValueError(f"{name} must be at least 1, got {values}")
    if padding == "same":
        sides = []
        for n, k, s, d in zip(input_size, sizes, strides, dilations, strict=True):
            total = max((-(-n // s) - 1) * s + d * (k - 1) + 1 - n, 0)
            sides.append((total // 2, total - total // 2))
    elif _is_integer(padding):
        sides = [(int(padding), int(padding))] * axes
    elif isinstance(padding, Sequence) and not isinstance(padding, str) and len(padding) == axes:
        sides = [per_axis(p, 2, "padding") for p in padding]
    else:
        raise ValueError(
            f'padding must be an integer, "same", one integer for each of {axes} axes, or a pair (before, after) '
            f"for each, got {padding!r}"
        )
    return tuple(
        Window(k, s, before, after, d)
        for k, s, d, (before, after) in zip(sizes, strides, dilations, sides, strict=True)
    )


def output_size(input_size: Sequence[int], axes: Sequence[Window]) -> tuple[int, ...]:
    """Output positions along each axis."""
    return tuple(w.output_size(n) for n, w in zip(input_size, axes, strict=True))


def parts(n: int, count: int) -> list[range]:
    """An axis of `n` in `count` parts that cover it, as even as can be; neighbours overlap by one where they must.

    Part i is floor(i n / count) up to ceil((i + 1) n / count), as in PyTorch's adaptive pooling. Where there are more
    parts than positions, parts repeat them.
    """
    return [range(i * n // count, -(-(i + 1) * n // count)) for i in range(count)]


def covering(spans: Sequence[range]) -> Window:
    """The smallest window that slides over `parts`, one a position, and covers each."""
    n, count = spans[-1].stop, len(spans)
    candidates = []
    for stride in {max(n // count, 1), -(-n // count)}:
        first = min(span.start - i * stride for i, span in enumerate(spans))
        size = max(span.stop - i * stride for i, span in enumerate(spans)) - first
        candidates.append(Window(size, stride, before=-first))
    return min(candidates, key=lambda w: (w.size, w.stride))


@dataclass(frozen=True)
class ReceptiveField:
    """What one position of a layer sees of the network's input, along one axis.

    Position o covers the `size` input positions from `offset + o * stride` on; `offset` is negative where
    the first window begins in the padding. (Araujo, Norris and Sim, "Computing receptive fields of
    convolutional neural networks", Distill 2019.)
    """

    size: int = 1
    stride: int = 1
    offset: int = 0

    def through(self, window: Window) -> ReceptiveField:
        """The field after one more sliding window."""
        return ReceptiveField(
            size=self.size + (window.reach - 1) * self.stride,
            stride=self.stride * window.stride,
            offset=self.offset - window.before * self.stride,
        )

    def union(self, other: ReceptiveField) -> ReceptiveField:
        """The smallest field that holds both, where two branches meet. Raises ValueError if strides differ."""
        if self.stride != other.stride:
            raise ValueError(f"branches with strides {self.stride} and {other.stride} do not line up")
        start = min(self.offset, other.offset)
        return ReceptiveField(max(self.offset + self.size, other.offset + other.size) - start, self.stride, start)

    def covers(self, position: int) -> range:
        """Input positions behind one position, padding included."""
        start = self.offset + position * self.stride
        return range(start, start + self.size)


def conv_macs(output_size: Sequence[int], filters: int, kernel_size: Sequence[int], channels: int, groups: int) -> int:
    """Multiply-adds of one convolution of one image, padding counted like any other input, bias not counted."""
    return prod(output_size) * filters * prod(kernel_size) * (channels // groups)


def blocks(channels: int) -> int:
    """Blocks of `BLOCK` that hold so many channels."""
    return -(-channels // BLOCK)


def channel_bands(outputs: int, inputs: int, groups: int) -> tuple[list[int], int]:
    """Grouped convolution in blocks: (first input block for each block of outputs, input blocks in every band).

    The output channels of a block belong to one or more groups; its band spans those groups' inputs.
    """
    ends = []
    for low in range(0, outputs, BLOCK):
        high = min(low + BLOCK, outputs) - 1
        first = low * groups // outputs * (inputs // groups)
        last = (high * groups // outputs + 1) * (inputs // groups) - 1
        ends.append((first // BLOCK, last // BLOCK))
    width = max(last - first + 1 for first, last in ends)
    return [min(first, blocks(inputs) - width) for first, _ in ends], width
