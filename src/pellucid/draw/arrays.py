"""Arrays as pictures need them: checked, and turned into pixels that stand inside an SVG.

NaN is a missing value where values are measured (maps, curves, bars, calibration), and is drawn as missing. Infinite
values are refused everywhere, NaN wherever arithmetic is shown.
"""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Sequence

import numpy as np

from .svg import ABOVE, BELOW

MOST = 1e300  # larger numbers overflow when they are subtracted
HALF = 127  # colours of a map on either side of zero
PALE = 0.55  # opacity at most of a colour with a number on it, so that this can be read


def numbers(name: str, values, axes: int | Sequence[int], missing: bool = True) -> np.ndarray:
    """`values` as float64. Raises ValueError where they are no numbers, are empty, have other than `axes` axes, are
    infinite, or are NaN although none may be `missing`."""
    axes = (axes,) if isinstance(axes, int) else axes
    try:
        found = np.asarray(values)
        if found.dtype.kind not in "biufO":
            raise TypeError
        found = found.astype(np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{name}: expected an array of numbers, got {_brief(values)}") from None
    if found.ndim not in axes:
        raise ValueError(f"{name}: expected {' or '.join(map(str, axes))} axes, got shape {found.shape}")
    if not found.size:
        raise ValueError(f"{name}: there is nothing to draw in shape {found.shape}")
    if large := int((np.abs(found) > MOST).sum()):
        raise ValueError(f"{name}: {large} of {found.size} values are infinite or beyond {MOST:g}; give finite ones"
                         + (", and NaN for what is missing" if missing else ""))
    if not missing and np.isnan(found).any():
        raise ValueError(f"{name}: {np.isnan(found).sum()} of {found.size} values are NaN; give numbers")
    return found


def pixels_of(name: str, image) -> np.ndarray:
    """A uint8 image as (H, W) or (H, W, 3); one channel is (H, W). Raises ValueError for anything else."""
    try:
        found = np.asarray(image)
    except ValueError:  # rows of different lengths
        found = np.empty(0, object)
    if found.dtype != np.uint8:
        got = _brief(image) if found.dtype == object else f"{found.dtype} in shape {found.shape}"
        raise ValueError(f"{name}: expected uint8 pixels, got {got}")
    if found.ndim == 3 and found.shape[2] == 1:
        found = found[..., 0]
    if found.ndim not in (2, 3) or found.ndim == 3 and found.shape[2] != 3:
        raise ValueError(f"{name}: expected shape (H, W), (H, W, 1) or (H, W, 3), got {np.shape(image)}")
    if not found.size:
        raise ValueError(f"{name}: there is nothing to draw in shape {found.shape}")
    return found


def _brief(value) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def embed(image: np.ndarray, size: tuple[int, int] | None = None) -> str:
    """A link that holds the image: as PNG, exactly; or shown smaller than it is, (width, height), as JPEG."""
    from PIL import Image

    picture, file = Image.fromarray(image), io.BytesIO()
    if size is not None and (size[0] < picture.width or size[1] < picture.height):
        picture.resize((max(size[0], 1), max(size[1], 1)), Image.Resampling.BOX).save(file, "JPEG", quality=88)
        return "data:image/jpeg;base64," + b64encode(file.getvalue()).decode()
    picture.save(file, "PNG", optimize=True)
    return "data:image/png;base64," + b64encode(file.getvalue()).decode()


def rgb(colour: str) -> list[int]:
    """The numbers of a colour such as #ff8000."""
    return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]


def largest(values: np.ndarray) -> float:
    """The largest absolute value that is not missing; 0 where there is none."""
    sizes = np.abs(values[~np.isnan(values)])
    return float(sizes.max()) if sizes.size else 0.0


def embed_signed(values: np.ndarray, limit: float) -> str:
    """A link that holds a map (H, W) as PNG: the colour is the sign, opacity the share of `limit`; grey is missing."""
    from PIL import Image

    with np.errstate(invalid="ignore", over="ignore"):
        share = np.nan_to_num(np.clip(values / limit, -1, 1)) if limit else np.zeros(values.shape)
    index = np.rint(share * HALF).astype(np.int16) + HALF
    index[np.isnan(values)] = 2 * HALF + 1
    palette = [rgb(BELOW)] * HALF + [rgb(ABOVE)] * (HALF + 1) + [[128, 128, 128]]
    opacity = [round(255 * abs(i - HALF) / HALF) for i in range(2 * HALF + 1)] + [150]
    used, places = np.unique(index, return_inverse=True)  # a small map needs a small palette
    picture = Image.fromarray(places.reshape(values.shape).astype(np.uint8))
    picture.putpalette([value for i in used for value in palette[i]])
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True, transparency=bytes(opacity[i] for i in used))
    return "data:image/png;base64," + b64encode(file.getvalue()).decode()


def reduced(plane: np.ndarray, wide: float, high: float) -> np.ndarray:
    """A map (H, W) with more values than it is shown with pixels, as means over blocks of those that are there."""
    block = int(max(plane.shape[0] // high, plane.shape[1] // wide, 1))
    if block == 1:
        return plane
    rows, columns = (-(-n // block) for n in plane.shape)
    padded = np.full((rows * block, columns * block), np.nan)
    padded[: plane.shape[0], : plane.shape[1]] = plane
    blocks = padded.reshape(rows, block, columns, block)
    count = (~np.isnan(blocks)).sum((1, 3))
    return np.divide(np.nansum(blocks, (1, 3)), count, out=np.full(count.shape, np.nan), where=count > 0)


def shade(value: float, limit: float, most: float = PALE) -> dict[str, object]:
    """The fill of a cell with a number on it: as `embed_signed`, but paler."""
    share = min(abs(value) / limit, 1.0) if limit and value == value else 0.0
    return {"fill": ABOVE if value > 0 else BELOW, "fill_opacity": round(share * most, 3)}
