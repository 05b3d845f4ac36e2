"""A problem, the shape of a convolution or a pooling, is one line: `n2 h7 w5 c3 k8 k3x3 s2 p1 d1 g1`.

n images of h rows, w columns and c channels (a signal has a length, `l9`, in place of h and w); k filters, which a
pooling does not have; then `k3x3`, the size of the window, and its stride, padding, dilation and groups. One number
serves both axes, `s2x1` gives one for each; `p1+0x2+3` gives the padding before and after each axis. What is left
out of the last four is 1, or 0 for the padding. Failing tests print their problem; `parse` reads it back.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from hypothesis import strategies as st

from pellucid.geometry import output_size, windows
from pellucid.layers import AvgPool, Conv, MaxPool


@dataclass(frozen=True)
class Problem:
    """One value an axis everywhere; `padding` has a pair (before, after) an axis; no `filters` for a pooling."""

    n: int
    size: tuple[int, ...]
    channels: int
    filters: int | None
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int = 1

    def __str__(self) -> str:
        axes = "hw" if len(self.size) == 2 else "l"
        words = [f"n{self.n}", *(a + str(s) for a, s in zip(axes, self.size, strict=True)), f"c{self.channels}"]
        words += [f"k{self.filters}"] if self.filters else []
        words += ["k" + "x".join(map(str, self.kernel)), "s" + _short(self.stride)]
        sides = [str(b) if b == a else f"{b}+{a}" for b, a in self.padding]
        return " ".join([*words, "p" + _short(sides), "d" + _short(self.dilation), f"g{self.groups}"])

    __repr__ = __str__  # what Hypothesis and pytest print

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one image."""
        return *self.size, self.channels

    @property
    def options(self) -> dict:
        """The keywords of a convolution."""
        return {"stride": self.stride, "padding": self.padding, "dilation": self.dilation, "groups": self.groups}

    @property
    def pool_options(self) -> dict:
        """The keywords of a pooling."""
        return {"stride": self.stride, "padding": self.padding, "dilation": self.dilation}

    @property
    def weight_shape(self) -> tuple[int, ...]:
        return self.filters, self.channels // self.groups, *self.kernel

    @property
    def output(self) -> tuple[int, ...]:
        """Spatial size of the result."""
        return output_size(self.size, windows(self.size, self.kernel, self.stride, self.padding, self.dilation))

    def conv(self, bias: bool = True) -> Conv:
        return Conv(self.filters, self.kernel, self.stride, self.padding, self.dilation, self.groups, bias)

    def pool(self, kind: type[MaxPool] | type[AvgPool]):
        return kind(self.kernel, self.stride, self.padding, self.dilation)


def _short(values) -> str:
    """One value for all axes, or one each."""
    values = list(map(str, values))
    return values[0] if len(set(values)) == 1 else "x".join(values)


def parse(line: str) -> Problem:
    """The inverse of `str`. Raises ValueError for a line that is not a problem."""
    found: dict[str, list[str]] = {}
    for word in line.split():
        if not re.fullmatch(r"[nhwlcksdg]\d+(x\d+)*|p\d+(\+\d+)?(x\d+(\+\d+)?)*", word):
            raise ValueError(f"{word!r} is not part of a problem such as n2 h7 w5 c3 k8 k3x3 s2 p1 d1 g1")
        found.setdefault(word[0], []).append(word[1:])
    kernels = found.pop("k", [])
    if not kernels or len(kernels) > 2 or any(len(v) > 1 for v in found.values()):
        raise ValueError(f"a problem has one size k3x3, perhaps filters k8 before it, and all else once; got {line!r}")
    one = {key: values[0] for key, values in found.items()}
    size = (one.pop("l"),) if "l" in one else (one.pop("h"), one.pop("w"))
    axes = len(size)

    def spread(text: str) -> list[str]:
        parts = text.split("x")
        if len(parts) not in (1, axes):
            raise ValueError(f"{text!r} does not fit {axes} axes in {line!r}")
        return parts * (axes // len(parts))

    def numbers(text: str) -> tuple[int, ...]:
        return tuple(map(int, spread(text)))

    padding = tuple((int(p.split("+")[0]), int(p.split("+")[-1])) for p in spread(one.get("p", "0")))
    filters = int(kernels[0]) if len(kernels) == 2 else None
    return Problem(int(one["n"]), tuple(map(int, size)), int(one["c"]), filters, numbers(kernels[-1]),
                   numbers(one.get("s", "1")), padding, numbers(one.get("d", "1")), int(one.get("g", "1")))


CONVS = [  # corners that drawing might miss
    "n2 h7 w5 c3 k8 k3x3 s2 p1 d1 g1",
    "n1 h1 w1 c1 k1 k1x1",
    "n2 h1 w1 c17 k17 k3x3 p1",  # one pixel in padding
    "n3 h1 w1 c3 k5 k3x3 s2 p2",
    "n2 h5 w7 c1 k17 k3x2 p1+0x0+1",
    "n1 h6 w9 c17 k33 k3x3 p1",
    "n2 h9 w8 c2 k3 k2x1 s5x4",  # stride larger than the filter
    "n2 h2 w3 c2 k3 k3x2 s1x2 p5+7x6+4",  # padding larger than the image
    "n1 h9 w11 c4 k4 k3x2 s1x2 p2+0x0+3 d3x4 g2",
    "n2 h7 w6 c17 k17 k3x3 s2 p1 g17",  # depthwise
    "n2 h5 w6 c5 k15 k2x3 s1x2 p1 g5",  # depthwise with a multiplier
    "n2 h6 w5 c34 k36 k3x3 p1 g2",  # groups that end inside a block of 16
    "n1 h5 w5 c48 k48 k3x3 p1 g3",
    "n1 h4 w4 c96 k6 k1x1 g3",
    "n3 l11 c3 k4 k4 s3 p2+1 d2",
    "n2 l17 c17 k17 k5 p2 g17",
    "n1 h3 w41 c1 k2 k3x3 p1",  # wide rows: every tile of columns
    "n65 h4 w4 c3 k5 k3x3 p1",
    "n2 h12 w12 c3 k4 k11x11 s4 p2",  # as AlexNet begins
    "n0 h4 w4 c2 k2 k3x3 p1",
]
POOLS = [
    "n2 h7 w5 c3 k3x3 s2 p1",
    "n2 h8 w8 c17 k2x2 s2",
    "n1 h7 w7 c33 k3x3 s2",
    "n2 h1 w1 c1 k1x1",
    "n2 h1 w1 c3 k3x3 p1",
    "n2 h9 w8 c2 k2x1 s5x4",
    "n1 h6 w9 c4 k4x2 s1x3 p3+1x0+1",
    "n1 h20 w21 c2 k17x18 s3",  # more than 256 places
    "n2 h9 w11 c17 k3x2 s2x1 p2 d2x3",
    "n1 h20 w5 c3 k3 s1 p3+2x0+1 d7x1",
    "n2 l13 c16 k3 s2 p4 d4",
    "n3 l11 c5 k4 s3 p2+1",
    "n0 h4 w4 c2 k2x2 s2",
]


@st.composite
def problems(draw, pooling: bool = False, exact_mean: bool = False, least: int = 0) -> Problem:
    """One or two axes of 1 to 9; windows to 4; strides past the window; padding past the image.

    A pooling's padding is smaller than its window, and its axes at least as long as its taps lie apart. `exact_mean`
    asks for windows of 1, 2, 4, 8 or 16 places, so that means of integers are exact; `least` is the smallest batch.
    """
    axes = draw(st.sampled_from((1, 2, 2)))

    def per_axis(values):
        return tuple(draw(values) for _ in range(axes))

    kernel = per_axis(st.sampled_from((1, 2, 4)) if exact_mean else st.integers(1, 4))
    dilation = per_axis(st.sampled_from((1, 1, 2, 3)))
    stride = per_axis(st.sampled_from((1, 1, 2, 2, 3, 5)))
    padding = []
    for k, d in zip(kernel, dilation, strict=True):
        most = d * (k - 1) if pooling else draw(st.sampled_from((0, 2, 9)))
        before = draw(st.integers(0, most))
        padding.append((before, draw(st.one_of(st.just(before), st.integers(0, most)))))
    size = tuple(  # at least one output
        max(draw(st.integers(1, 9)), d * (k - 1) + 1 - sum(p), d if pooling else 1)
        for k, d, p in zip(kernel, dilation, padding, strict=True))
    if pooling:
        channels, filters, groups = draw(st.sampled_from((1, 2, 3, 16, 17, 33))), None, 1
    else:
        groups = draw(st.sampled_from((1, 1, 1, 2, 3, 17)))
        channels = groups * draw(st.sampled_from((1, 2, 3, 16, 17, 33) if groups == 1 else (1, 2, 5)))
        # At most 31 where there may be 32 channels: more may run by Winograd's algorithm, which is not exact.
        filters = groups * draw(st.sampled_from((1, 2, 3, 16, 17, 31) if groups == 1 else (1, 2, 5)))
    n = draw(st.integers(least, 3))
    return Problem(n, size, channels, filters, kernel, stride, tuple(padding), dilation, groups)
