"""Template matching: a filter is a small picture, and a convolution says where in the image it is found."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..explain.maps import shown
from ..geometry import Window
from ..layers import Conv
from ..model import Model
from ..network import INPUT
from ..training.plan import whole
from .layers import convolution, some, up_to
from .matches import Match, blocks, cut, strongest
from .result import Study, checked, model_study, pictured

if TYPE_CHECKING:
    from ..draw import Picture

MOST_DRAWN = 12  # filters in the figure of patches


@dataclass(frozen=True)
class Filter:
    """A filter's number, the images that answer it most, each at its best place, and how alike filter and windows are
    there, and at places taken at random in the same images: the mean cosine of the angle between them."""

    number: int
    matches: tuple[Match, ...]
    cosine: float
    elsewhere: float


@dataclass(frozen=True, eq=False)
class Templates(Study):
    """`filters` of a layer, and what of `images` images answers each most: `patches[filter][match]` is its window,
    uint8 (h, w, C). `weight` is (O, I / groups, kh, kw); `first` says that it reads the image itself."""

    name, title = "templates", "Template matching"
    claim = "A filter is a template: where the image looks like it, the answer is large."

    layer: str
    kernel: str
    images: int
    first: bool
    filters: tuple[Filter, ...]
    weight: np.ndarray = pictured()
    patches: tuple[tuple[np.ndarray, ...], ...] = pictured()

    @property
    def cosine(self) -> float:
        """Of all filters to their windows."""
        return float(np.mean([f.cosine for f in self.filters]))

    @property
    def elsewhere(self) -> float:
        """Of all filters to windows taken at random."""
        return float(np.mean([f.elsewhere for f in self.filters]))

    @property
    def sentence(self) -> str:
        best = max(self.filters, key=lambda f: f.cosine)
        reads = "the image" if self.first else "the layer before"
        return (f"Among {self.images:,} images, the {len(best.matches)} windows of {reads} that answer a filter of "
                f"{self.layer} ({self.kernel}) most have a cosine of {self.cosine:.2f} to it on average over "
                f"{len(self.filters):,} filters; windows at places taken at random in the same images have "
                f"{self.elsewhere:.2f}. Filter {best.number} finds what looks most like it, at {best.cosine:.2f}.")

    def to_json(self) -> dict:
        return {**super().to_json(), "cosine": self.cosine, "elsewhere": self.elsewhere}

    def figures(self) -> list[Picture]:
        from .. import draw

        spatial = self.weight if self.weight.ndim == 4 else self.weight[:, :, None]
        pictures = [draw.filters(spatial, title=f"{self.layer}: {self.kernel}")]
        drawn, images, captions = some(self.filters, MOST_DRAWN), [], []
        for f in drawn:
            images.append(shown(in_colours(self.weight[f.number])))
            captions.append(f"{self.layer}\nfilter {f.number}")
            images += map(shown, self.patches[f.number])
            captions += [f"{m.value:.3g}\nimage {m.image}" for m in f.matches]
        pictures.append(draw.gallery(images, captions, columns=1 + len(drawn[0].matches)))
        return pictures


@model_study("templates")
def templates(model: Model, images: np.ndarray, layer: str | None = None, *, count: int = 9) -> Templates:
    """For each filter of a convolution, by default the first, its picture and the `count` windows that answer it most.

    The answer is the layer's value, before any activation; no two windows are from one image. Memory is bounded however
    many images there are. Raises ValueError for images that do not fit, a layer that is no convolution or values that
    are not finite, DoesNotApply for a network without convolutions.
    """
    images, count = checked(model, images), whole("count", count, 1)
    node = convolution(model.network, layer)
    part, conv = up_to(model, node.name), node.layer
    shape = model.network.shapes[node.inputs[0]]
    weight = model.parameters[f"{node.name}.weight"].copy()
    found = strongest(part, images, [node.name], count)[node.name]
    cosines = _cosines(part, images, node.inputs[0], conv, weight, found)
    return Templates(
        node.name, f"{len(weight)} filters of {conv.kernel_text(shape)}", len(images), node.inputs[0] == INPUT,
        tuple(Filter(i, tuple(matches), *cosines[i]) for i, matches in enumerate(found)), weight,
        tuple(tuple(cut(model, images[m.image], m.window) for m in matches) for matches in found))


def in_colours(weight: np.ndarray) -> np.ndarray:
    """A filter (C, kh, kw) as a picture (kh, kw, C) of what it looks for: zero is grey, its largest weight black or
    white in its channel. Of channels that are no colours `shown` takes the mean."""
    scaled = 127.5 * (1 + weight / (np.abs(weight).max() or 1.0))
    return np.moveaxis(np.rint(scaled).astype(np.uint8), 0, -1)


def _cosines(model: Model, images: np.ndarray, source: str, conv: Conv, weight: np.ndarray,
             found: list[list[Match]]) -> list[tuple[float, float]]:
    """For each filter the mean cosine to the windows of its matches, and to windows elsewhere in the same images."""
    size, each = model.network.output_shape[:-1], len(weight) // conv.groups
    axes = conv.windows({**model.network.shapes, INPUT: model.network.input_shape}[source])
    rng, wanted = np.random.default_rng(0), defaultdict(list)
    for number, matches in enumerate(found):
        for m in matches:
            wanted[m.image].append((number, m.place, tuple(rng.integers(0, size).tolist())))
    chosen, sums = sorted(wanted), np.zeros((len(weight), 2))
    for first, values in blocks(model, images[chosen], [source]):
        for image, x in zip(chosen[first:first + len(values[source])], values[source], strict=True):
            for number, *places in wanted[image]:
                group = slice(number // each * weight.shape[1], (number // each + 1) * weight.shape[1])
                for which, place in enumerate(places):
                    sums[number, which] += _cosine(weight[number], window_at(x[..., group], axes, place))
    return [tuple((total / len(matches)).tolist()) for total, matches in zip(sums, found, strict=True)]


def window_at(x: np.ndarray, axes: tuple[Window, ...], place: tuple[int, ...]) -> np.ndarray:
    """What a convolution multiplies its filter with at a place of a map (H, W, C): (C, kh, kw), zeros for padding."""
    taken = np.zeros((*(w.size for w in axes), x.shape[-1]), x.dtype)
    inside = [[(tap, i) for tap, i in enumerate(w.inputs(p)) if 0 <= i < n]
              for w, p, n in zip(axes, place, x.shape[:-1], strict=True)]
    if all(inside):
        taps, sources = zip(*(zip(*axis, strict=True) for axis in inside), strict=True)
        taken[np.ix_(*taps)] = x[np.ix_(*sources)]
    return np.moveaxis(taken, -1, 0)


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    """The cosine of the angle between two arrays; 0 where one is all zeros."""
    norms = np.sqrt(np.float64(np.vdot(a, a)) * np.vdot(b, b))
    return float(np.vdot(a, b) / norms) if norms else 0.0
