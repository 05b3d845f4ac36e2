"""The page of `pellucid explain`: one answer, why it was given, and every number on the way from it to a pixel."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .. import draw
from ..draw import Picture
from ..draw.svg import percent
from ..explain.explanation import Explanation
from ..explain.maps import shown as pixels
from ..explain.maps import words
from ..explain.question import empty
from ..model import Model
from ..summary import by
from ..texts import clipped, printable
from .answer import rows_and_columns, said
from .shell import Section, page, render
from .terms import section as numbers

CLASSES = 10  # shown of many

Pictures = dict[str, Picture]


def explanation_page(
    model: Model, e: Explanation, name: str, label: str | None = None, *, facts: Sequence[tuple[str, object]] = (),
    nearest: str = "", foot: str = "",
) -> tuple[str, Pictures]:
    """The page, and its pictures by the name that each has as a file.

    `name` is what the image is called and `label` what the data call it; `facts` are further pairs of what and how much
    for the head; `nearest` says which images were searched for neighbours; `foot` stands at the end.
    """
    pictures: Pictures = {"image": draw.image(pixels(e.image))}
    top = _top(e, label, pictures, facts)
    sections = [_maps(e, pictures), _part(model, e, pictures), *_change(e, pictures), *_near(e, nearest, pictures),
                *_layers(e, pictures), *_numbers(e)]
    if e.missing:
        reasons = {words(part): reason for part, reason in e.missing.items()}
        sections.append(Section("Left out", render("left_out.html", reasons=reasons), anchor="left-out"))
    title = f"Why {clipped(e.classes[e.target])}? {clipped(name, 60)}"
    return page(title, [s for s in sections if s], top=top, foot=foot), pictures


def _top(e: Explanation, label: str | None, pictures: Pictures, facts):
    p = e.answer.probabilities
    ranked = _first(-p, e.target)
    pictures["answer"] = draw.bars([e.classes[i] for i in ranked], p[ranked], title="Probability", percent=True)
    return render("explained/top.html", image=pictures["image"], answer=pictures["answer"], said=said(e, label),
                  facts=[*facts, (f"logit of {clipped(e.classes[e.target])}", f"{e.answer.logits[e.target]:.4g}")])


def _first(values: np.ndarray, target: int) -> list[int]:
    """The `CLASSES` classes of the smallest values; the target, if it is none of these, in place of the last."""
    found = np.argsort(values, kind="stable")[:CLASSES].tolist()
    return found if target in found else [*found[:-1], target]


def _maps(e: Explanation, pictures: Pictures) -> Section | None:
    if not e.maps:
        return None
    below, shown, rows = pixels(e.image), [], []
    for scored in e.maps:
        found, name = scored.map, words(scored.map.method)
        pictures[found.method] = draw.overlay(below, found.values)
        shown.append((name, pictures[found.method], found.note))
        rows.append((name, *(text for curve in (scored.deletion, scored.insertion)
                             for text in (f"{curve.area:.3f}", f"{curve.gain:+.3f}"))))
    for kind, how in (("deletion", "taken away"), ("insertion", "put in")):
        every = [(words(s.map.method), getattr(s, kind)) for s in e.maps]
        pictures[kind] = draw.curves(
            [*((name, c.fractions, c.probabilities) for name, c in every),
             ("random order", every[0][1].fractions, every[0][1].control)],
            x_label="share of the pixels", y_label=f"probability of {clipped(e.classes[e.target])}", percent=True,
            title=f"{kind.capitalize()}: pixels {how}, the map's largest first")
    names = [name for name, *_ in shown]
    shares = [(name, *("" if np.isnan(v) else f"{v:.0%}" for v in row))
              for name, row in zip(names, e.shared, strict=True)]
    return Section(
        "Where it looks",
        render("explained/maps.html", maps=shown, rows=rows, names=names, shares=shares,
               curves=[pictures["deletion"], pictures["insertion"]]),
        f"Orange speaks for {clipped(e.classes[e.target])}, blue against it, each by another method.", "maps")


def _part(model: Model, e: Explanation, pictures: Pictures) -> Section:
    r, target = e.region, clipped(e.classes[e.target])
    y, x, height, width = r.box
    cut = slice(y, y + height), slice(x, x + width)
    covered, alone = e.image.copy(), empty(model, e.image)
    covered[cut], alone[cut] = alone[cut], e.image[cut]
    shown = []
    for name, image, answer in (("the image", e.image, r.whole), ("without the part", covered, r.covered),
                                ("the part alone", alone, r.alone)):
        key = name.replace("the ", "").replace(" ", "-")
        pictures[f"part-{key}"] = draw.image(pixels(image))
        other = "" if answer.best == e.target else (
            f"; the answer is {clipped(e.classes[answer.best])}: {percent(answer.probabilities[answer.best])}")
        shown.append((name, pictures[f"part-{key}"], f"{target}: {percent(answer.probabilities[e.target])}{other}"))
    order = sorted(_first(-np.abs(r.speaks), e.target), key=lambda i: -r.speaks[i])
    pictures["part"] = draw.bars([e.classes[i] for i in order], [float(r.speaks[i]) for i in order],
                                 title="What the part adds to each class's logit")
    rows = [(words(s.map.method), *_share(s.map.values, cut)) for s in e.maps]
    return Section(
        f"Why this part of it is {target}" if r.speaks[e.target] > 0 else "This part of it",
        render("explained/part.html", shown=shown, bars=pictures["part"], rows=rows, where=rows_and_columns(r),
               found=e.found, area=f"{height * width / e.image[..., 0].size:.0%}"), anchor="part")


def _share(values: np.ndarray, cut) -> tuple[str, str]:
    """What of a map's positive, and of its negative values lies in a part."""
    return tuple(f"{side[cut].sum() / side.sum():.0%}" if side.sum() else "" for side in
                 (np.maximum(values, 0), np.maximum(-values, 0)))


def _change(e: Explanation, pictures: Pictures) -> list[Section]:
    if e.change is None:
        return []
    shown, unmoved = [], []
    for kind, change in e.change.changes.items():
        if change is None:
            unmoved.append(f"{kind.capitalize()}: none of {e.change.searched[kind]} changes the answer.")
            continue
        pictures[f"change-{kind}"] = draw.image(pixels(change.image))
        shown.append((f"{change.text}", pictures[f"change-{kind}"],
                      f"makes it {clipped(change.answer_name)}, at {percent(change.probability)}"))
    return [Section("What would change the answer", render("explained/change.html", shown=shown, unmoved=unmoved),
                    "The smallest shift, covered square and blur, of all that were tried, after which the answer is "
                    "another.", "change")]


def _near(e: Explanation, nearest: str, pictures: Pictures) -> list[Section]:
    if e.near is None:
        return []
    names = e.near.names or [""] * len(e.near.images)
    pictures["neighbours"] = draw.gallery(
        [pixels(image) for image in e.near.images],
        [f"{name}\ndistance {d:.3g}".strip() for name, d in zip(names, e.near.distances, strict=True)])
    lead = (f"Of {e.near.searched:,} images ({printable(nearest)}) those whose values in {e.near.layer} are nearest to "
            f"this one's; half of all are further than {e.near.typical:.3g}.")
    return [Section("What it is like", render(
        "explained/near.html", picture=pictures["neighbours"], same=not e.near.distances[0]), lead, "near")]


def _layers(e: Explanation, pictures: Pictures) -> list[Section]:
    if not e.layers:
        return []
    shown = []
    for layer in e.layers:
        key = f"layer-{layer.name}"
        pictures[key] = draw.feature_maps(
            layer.maps, title=f"{layer.name}: {layer.kind}, {by(layer.shape)}",
            names=[f"{channel}: {share:+.2g}" for channel, share in zip(layer.channels, layer.influence, strict=True)])
        sees = "each position sees the whole image" if layer.field is None else (
            f"a position sees {by(layer.field)} pixels")
        shown.append((pictures[key], f"{len(layer.channels)} of {layer.shape[-1]} channels; {sees}."))
    return [Section("The image, layer by layer", render("explained/layers.html", shown=shown),
                    f"In each layer the channels that move the logit of {clipped(e.classes[e.target])} most, the "
                    "strongest first, each with its number and what it adds to the logit, to first order.", "layers")]


def _numbers(e: Explanation) -> list[Section]:
    lead = ("Every number the network computes is made of others. Open one to see its terms; each links to the number "
            "that it was made from.")
    found = [numbers(e.path, e.image, "From the answer to a pixel", lead, "numbers")]
    if e.asked:
        found.insert(0, numbers(e.asked, e.image, f"What {e.asked.steps[0].terms.address} is made of", lead, "at"))
    return found
