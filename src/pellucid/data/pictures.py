"""The written rules by which a picture, in whatever format and mode, becomes uint8 pixels of one shape.

Format. Its content decides, not the ending of its name. Of several frames the first counts. Refused, with the reason:
what is damaged or cut off, more than `MOST_PIXELS` (by the header, before anything is decoded), sides of more than
`MOST_ELONGATED` to 1, and real-valued pixels, whose range nobody knows.

Pixels. Turned upright as EXIF (or XMP) says; laid over white where transparent; 16 bits become 8 by dropping the lower
ones; 1 bit becomes 0 and 255; palettes, CMYK and the rest become grey (ITU-R 601 luma) or RGB by Pillow's conversions.

Size. By the filter that Pillow calls bilinear, which averages when it shrinks. `FITS` says what becomes of other
proportions: "crop" scales the shorter side and takes the middle, "letterbox" scales the longer side and pads with
black, "stretch" scales both. And "crop 256", or another number, scales the shorter side to 256 pixels, whatever size is
asked for, and takes the middle of that: what networks trained on ImageNet are used to. Its pixels are those that
torchvision's Resize(256) and CenterCrop give, so it is done to pictures of the right size too, and a JPEG is not
decoded at a part of its size.
"""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

RULES = 2  # to be raised with every change by which a picture gives other pixels; caches of older rules are not used
FITS = ("crop", "letterbox", "stretch")
LONGEST_SHORTER = 4096  # pixels that "crop N" may ask for
SIZES = (32, 48, 64, 96, 128)  # pixels a side, of which one is chosen where pictures have no common size
MOST_PIXELS = 2**28
MOST_ELONGATED = 256
GREY_MODES = ("1", "L", "LA", "La", "I")  # and I;16 in its byte orders
# Those that Pillow decodes itself: its readers of EPS, for one, start other programs.
FORMATS = ("PNG", "JPEG", "BMP", "DIB", "GIF", "TIFF", "WEBP", "PPM", "AVIF", "JPEG2000", "TGA")
ENDINGS = frozenset("""
    .png .apng .jpg .jpeg .jpe .jfif .bmp .dib .gif .tif .tiff .webp .ppm .pgm .pbm .pnm .avif .avifs .jp2 .j2k .tga
    .heic .heif
""".split())

_BOMB = f"by its header it has more than {MOST_PIXELS:,} pixels, the most that are decoded; save it smaller"
_state, _undisturbed = threading.RLock(), False


@contextmanager
def undisturbed() -> Iterator[None]:
    """Pillow with known settings and without warnings, as it was before when the block ends.

    Its settings and Python's warning filters belong to the whole process, hence the lock: one thread decodes at a time.
    """
    from PIL import Image, ImageFile

    global _undisturbed

    with _state:
        if _undisturbed:  # within another such block
            yield
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            before = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
            # Pillow refuses twice the bound, and warns from the bound on; a program may have set another, or none.
            Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = MOST_PIXELS // 2, False
            _undisturbed = True
            try:
                yield
            finally:
                _undisturbed = False
                Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = before


def checked_fit(fit: object, size: tuple[int, int] | None = None) -> str:
    """A way of fitting, where `size` is what it is to lead to. Raises ValueError for one that there is not."""
    if fit in FITS:
        return fit
    number = fit.removeprefix("crop ") if isinstance(fit, str) and len(fit) < 20 else ""
    known = number.isascii() and number.isdecimal() and fit == f"crop {int(number)}"
    if not known or not 1 <= int(number) <= LONGEST_SHORTER:
        raise ValueError(f"fit must be one of {', '.join(FITS)}, or crop with a number of pixels from 1 to "
                         f"{LONGEST_SHORTER} such as \"crop 256\", got {repr(fit)[:100]}")
    if size and int(number) < max(size):
        raise ValueError(f"fit {fit!r} leaves less than the {size[0]}x{size[1]} pixels that are to be taken from it")
    return fit


def is_picture(name: str) -> bool:
    """Whether a file's name ends as pictures' names do."""
    dot = name.rfind(".")
    return dot > 0 and name[dot:].lower() in ENDINGS


def is_grey(mode: str) -> bool:
    """Whether pictures of this mode of Pillow's hold no colours."""
    return mode in GREY_MODES or mode.startswith("I;")


def decode(data: bytes, shape: tuple[int, ...], fit: str) -> tuple[np.ndarray, tuple[int, int], str]:
    """The bytes of a file as uint8 pixels of `shape` (H, W, 1 or 3); with the upright (height, width) and mode it had.

    Raises ValueError, in one line, for what the rules refuse.
    """
    with undisturbed(), _reasons():
        with _opened(data) as image:
            mode = image.mode
            pixels, size = _fitted(image, shape, fit)
            return pixels, size, mode


def fitted(image: Image, shape: tuple[int, ...], fit: str) -> np.ndarray:
    """`decode` for a picture that Pillow has opened. To give the same, a JPEG must not have been loaded yet."""
    with undisturbed(), _reasons():
        return _fitted(image, shape, fit)[0]


def original(data: bytes, channels: int) -> np.ndarray:
    """The bytes of a file as upright uint8 pixels (H, W, `channels`) of the size that they have, 1 or 3 channels.

    Raises ValueError, in one line, for what the rules refuse.
    """
    with undisturbed(), _reasons():
        with _opened(data) as image:
            image.load()
            image = _eight_bits(_upright(image), "L" if channels == 1 else "RGB")
            return np.array(image, np.uint8).reshape(image.height, image.width, channels)


def look(data: bytes) -> tuple[tuple[int, int], str]:
    """The upright (height, width) and the mode of a picture, by the beginning of its file. Raises ValueError."""
    with undisturbed(), _reasons():
        with _opened(data) as image:
            # Only what stands before the pixels: the rest of the file may not be here.
            orientation = _orientation(image) if {"exif", "xmp"} & set(image.info) else 1
            height, width = _checked_size(image)
            return ((width, height) if orientation > 4 else (height, width)), image.mode


@contextmanager
def _reasons() -> Iterator[None]:
    """Whatever a damaged file makes Pillow raise becomes a ValueError of one line."""
    from PIL import Image, UnidentifiedImageError

    try:
        yield
    except UnidentifiedImageError:
        raise ValueError("not an image in a format that is known; save it as PNG or JPEG") from None
    except Image.DecompressionBombError:
        raise ValueError(_BOMB) from None
    except MemoryError:
        raise ValueError("too large for this machine's memory; save it smaller") from None
    except Exception as e:  # SyntaxError, struct.error, IndexError, OSError, ...: no list of them would be complete
        if isinstance(e, ValueError) and e.args and isinstance(e.args[0], _Refusal):
            raise ValueError(str(e)) from None
        cause = " ".join(str(e).split())[:120] or type(e).__name__
        raise ValueError(f"damaged or cut off ({cause}); replace it") from None


class _Refusal(str):
    """A reason that we give, and that is not one of Pillow's."""


def _refuse(reason: str) -> ValueError:
    return ValueError(_Refusal(reason))


def _opened(data: bytes) -> Image:
    from PIL import Image

    if not data:
        raise _refuse("the file is empty (0 bytes); replace it")
    Image.init()  # does nothing but the first time
    image = Image.open(io.BytesIO(data), formats=[name for name in FORMATS if name in Image.OPEN])
    _checked_size(image)
    return image


def _checked_size(image: Image) -> tuple[int, int]:
    """(height, width). Raises ValueError for what must not, or need not, be decoded."""
    width, height = image.size
    if width < 1 or height < 1:
        raise _refuse(f"it has no pixels: its size is {width}x{height}")
    if width * height > MOST_PIXELS:
        raise _refuse(_BOMB)
    if max(width, height) > MOST_ELONGATED * min(width, height):
        raise _refuse(f"{width}x{height} pixels are no picture's proportions, at most {MOST_ELONGATED} to 1 are taken; "
                      "cut it")
    return height, width


def _orientation(image: Image) -> int:
    """1 to 8 as EXIF defines it; 1, upright, where nothing readable says otherwise."""
    try:
        value = image.getexif().get(0x0112, 1)
    except Exception:  # a damaged note about a picture does not make the picture unusable
        return 1
    return value if value in range(1, 9) else 1


def _fitted(image: Image, shape: tuple[int, ...], fit: str) -> tuple[np.ndarray, tuple[int, int]]:
    if len(shape) != 3 or shape[2] not in (1, 3):
        raise _refuse(f"a picture becomes an array of shape (H, W, 1) or (H, W, 3), not {tuple(shape)}")
    try:
        checked_fit(fit, shape[:2])
    except ValueError as e:
        raise _refuse(str(e)) from None
    height, width, channels = shape
    size = _checked_size(image)
    # A JPEG is decoded at an eighth, a quarter or half of its size, if that leaves twice what is asked for.
    if fit in FITS:
        image.draft(None, (2 * max(height, width),) * 2)
    image.load()
    turned = _orientation(image) > 4
    image = _resized(_eight_bits(_upright(image), "L" if channels == 1 else "RGB"), width, height, fit)
    return np.array(image, np.uint8).reshape(shape), size[::-1] if turned else size


def _upright(image: Image) -> Image:
    """A loaded picture, turned as its orientation says."""
    from PIL.Image import Transpose as turn

    turns = {
        2: turn.FLIP_LEFT_RIGHT, 3: turn.ROTATE_180, 4: turn.FLIP_TOP_BOTTOM, 5: turn.TRANSPOSE,
        6: turn.ROTATE_270, 7: turn.TRANSVERSE, 8: turn.ROTATE_90,
    }
    orientation = _orientation(image)
    return image.transpose(turns[orientation]) if orientation > 1 else image


def _eight_bits(image: Image, mode: str) -> Image:
    """In mode L or RGB."""
    from PIL import Image as pillow

    if image.mode == mode and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.size and not 0 <= values.min() <= values.max() <= 65535:
            raise _refuse(f"its values reach from {values.min()} to {values.max()}; at most 16 bits are read")
        image = pillow.fromarray((values >> 8).astype(np.uint8))
    elif image.mode == "F":
        raise _refuse("it holds real numbers, whose range is unknown; save it with 8 or 16 bits")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = pillow.alpha_composite(pillow.new("RGBA", image.size, "white"), image)
    return image.convert(mode)


def _resized(image: Image, width: int, height: int, fit: str) -> Image:
    from PIL import Image as pillow

    bilinear = pillow.Resampling.BILINEAR
    if fit not in FITS:
        shorter = int(fit.removeprefix("crop "))
        scaled = tuple(shorter * n // min(image.size) for n in image.size)
        if scaled[0] * scaled[1] > MOST_PIXELS:
            raise _refuse(f"scaled for {fit!r} it would have {scaled[0]:,}x{scaled[1]:,} pixels, at most "
                          f"{MOST_PIXELS:,} are made; cut it")
        left, top = (round((n - m) / 2) for n, m in zip(scaled, (width, height), strict=True))
        image = image if image.size == scaled else image.resize(scaled, bilinear)
        return image.crop((left, top, left + width, top + height))
    if image.size == (width, height):
        return image
    if fit == "crop":
        scale = min(image.width / width, image.height / height)
        # Rounding may make the box larger than the picture by a last digit.
        left, top = max(image.width - width * scale, 0) / 2, max(image.height - height * scale, 0) / 2
        box = (left, top, min(left + width * scale, image.width), min(top + height * scale, image.height))
        return image.resize((width, height), bilinear, box=box)
    if fit == "letterbox":
        scale = min(width / image.width, height / image.height)
        inner = max(round(image.width * scale), 1), max(round(image.height * scale), 1)
        whole = pillow.new(image.mode, (width, height))
        whole.paste(image.resize(inner, bilinear), ((width - inner[0]) // 2, (height - inner[1]) // 2))
        return whole
    return image.resize((width, height), bilinear)
