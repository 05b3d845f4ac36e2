"""The rules by which pictures become pixels, each by a file that needs it."""

import io
import re
import struct
import warnings
import zlib

import numpy as np
import pytest
from data_helpers import encoded, pixels
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from pellucid.data import pictures
from pellucid.data.pictures import decode, look

COLOURS, GREY = (6, 4, 3), (6, 4, 1)


def read(data, shape=COLOURS, fit="stretch"):
    return decode(data, shape, fit)[0]


def test_pixels_size_and_mode():
    colours = pixels(6, 4, 3)
    found, size, mode = decode(encoded(colours), COLOURS, "crop")
    np.testing.assert_array_equal(found, colours)
    assert found.dtype == np.uint8 and (size, mode) == ((6, 4), "RGB") and look(encoded(colours)) == ((6, 4), "RGB")
    grey = pixels(6, 4)
    np.testing.assert_array_equal(read(encoded(grey)), np.repeat(grey[..., None], 3, 2))
    np.testing.assert_array_equal(read(encoded(grey), GREY), grey[..., None])
    red = np.zeros((6, 4, 3), np.uint8)
    red[..., 0] = 255
    assert np.all(read(encoded(red), GREY) == 76)  # 0.299 of 255


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "WEBP", "PPM", "GIF", "TGA", "JPEG2000"])
def test_formats_without_loss(kind):
    colours = pixels(6, 4, 3) // 128 * 255  # few enough for GIF's palette
    options = {"lossless": True} if kind == "WEBP" else {}
    np.testing.assert_array_equal(read(encoded(colours, kind, **options)), colours)


TURNED = {
    1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1), 6: lambda a: np.rot90(a, -1), 7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_exif_orientation(orientation, kind):
    stored = pixels(4, 6, 3)
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = TURNED[orientation](stored)
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(stored, kind, exif=exif, **options)
    found, size, _ = decode(data, upright.shape, "crop")
    np.testing.assert_array_equal(found, upright)
    assert size == upright.shape[:2] == look(data)[0]


@pytest.mark.parametrize("exif", [b"Exif\0\0junk", b"Exif\0\0II*\0\xff\xff\xff\xff"])
def test_damaged_exif_does_not_spoil_a_picture(exif):
    colours = pixels(6, 4, 3)
    np.testing.assert_array_equal(read(encoded(colours, exif=exif)), colours)


@pytest.mark.parametrize("orientation", [0, 9, 700])
def test_an_orientation_that_is_none(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    colours = pixels(6, 4, 3)
    np.testing.assert_array_equal(read(encoded(colours, exif=exif)), colours)


def test_palettes():
    colours = pixels(6, 4, 3) // 128 * 255
    image = Image.fromarray(colours).convert("P", palette=Image.Palette.ADAPTIVE)
    assert decode(encoded(image), COLOURS, "crop")[2] == "P"
    np.testing.assert_array_equal(read(encoded(image)), colours)
    image.putpixel((0, 0), 0)
    clear = read(encoded(image, transparency=0))
    assert np.all(clear[np.asarray(image) == 0] == 255)
    other = np.asarray(image) != 0
    np.testing.assert_array_equal(clear[other], colours[other])


def test_transparent_pictures_lie_on_white():
    clear = np.zeros((6, 4, 4), np.uint8)
    clear[:, 2:, 3] = 255
    half = np.zeros((6, 4, 2), np.uint8)
    half[..., 1] = 128
    found = read(encoded(clear))
    assert np.all(found[:, :2] == 255) and np.all(found[:, 2:] == 0)
    assert np.all(read(encoded(half), GREY) == 127)  # black, 128/255 opaque, on white
    keyed = np.full((6, 4), 7, np.uint8)
    keyed[0] = 9
    found = read(encoded(keyed, transparency=7), GREY)[..., 0]
    assert np.all(found[0] == 9) and np.all(found[1:] == 255)


def test_16_bits_and_one_bit():
    deep = np.arange(24, dtype=np.uint16).reshape(6, 4) * 2048 + 255
    assert decode(encoded(deep), GREY, "crop")[2].startswith("I")
    np.testing.assert_array_equal(read(encoded(deep), GREY)[..., 0], deep >> 8)
    np.testing.assert_array_equal(read(encoded(deep, "TIFF")), np.repeat((deep >> 8)[..., None], 3, 2))
    np.testing.assert_array_equal(read(encoded(np.eye(6, 4, dtype=bool)), GREY)[..., 0], np.eye(6, 4) * 255)


def test_cmyk():
    ink = pixels(6, 4, 4)
    image = Image.frombytes("CMYK", (4, 6), ink.tobytes())
    found, _, mode = decode(encoded(image, "TIFF"), COLOURS, "crop")
    expected = (255 - ink[..., :3].astype(int)) * (255 - ink[..., 3:].astype(int)) / 255
    assert mode == "CMYK" and np.abs(found - expected).max() <= 1
    white = Image.new("CMYK", (16, 16))
    assert np.all(read(encoded(white, "JPEG", quality=95), (16, 16, 3)) > 250)  # a JPEG's inks may be inverted


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_several_frames_the_first_counts(kind):
    frames = [Image.new("RGB", (4, 6), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    found = read(encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options))
    assert np.all(found == [255, 0, 0])


def test_lab_and_the_like_are_converted():
    image = Image.new("HSV", (4, 6), (0, 0, 200))
    assert np.all(pictures.fitted(image, COLOURS, "crop") == 200)
    assert np.all(pictures.fitted(Image.new("YCbCr", (4, 6), (90, 128, 128)), GREY, "crop") == 90)


# What is refused.

def png(width, height):
    """A PNG whose header claims a size that its few pixels do not have."""
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(999)))


REFUSED = {
    "empty": (b"", "empty (0 bytes)"),
    "no image": (b"a text, not a picture\n" * 40, "not an image in a format that is known"),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "not an image in a format"),
    "cut off": (encoded(pixels(200, 200, 3))[:-9000], "cut off"),
    "cut off jpeg": (encoded(pixels(200, 200, 3), "JPEG")[:9000], "cut off"),
    "cut off header": (encoded(pixels(6, 4, 3))[:20], ""),
    "real": (encoded(np.full((6, 4), 0.5, np.float32), "TIFF"), "real numbers"),
    "32 bits": (encoded(np.full((6, 4), 70_000, np.int32), "TIFF"), "70000"),
    "negative": (encoded(np.full((6, 4), -5, np.int32), "TIFF"), "from -5 to -5"),
    "bomb": (png(20_000, 20_000), "more than 268,435,456 pixels"),
    "large bomb": (png(2**31 - 1, 2**31 - 1), "more than 268,435,456 pixels"),
    "narrow": (encoded(np.zeros((1, 100_000), np.uint8)), "100000x1"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    data, text = REFUSED[name]
    with pytest.raises(ValueError) as e:
        read(data)
    assert text in str(e.value) and "\n" not in str(e.value) and len(str(e.value)) < 250
    if name in ("empty", "no image", "postscript", "bomb", "large bomb", "narrow"):
        with pytest.raises(ValueError, match=re.escape(text)):
            look(data)


@pytest.mark.parametrize("bound", [None, 1, 10**12])
def test_pillows_settings_decide_nothing_and_stay(monkeypatch, bound):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", bound)
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    filters = list(warnings.filters)
    for name in ("bomb", "cut off", "cut off jpeg"):
        with pytest.raises(ValueError, match=REFUSED[name][1]):
            read(REFUSED[name][0])
    colours = pixels(6, 4, 3)
    np.testing.assert_array_equal(read(encoded(colours)), colours)
    assert (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES) == (bound, True)
    assert list(warnings.filters) == filters


def test_a_bomb_is_refused_before_memory_is_taken(monkeypatch):
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("was decoded"))
    for name in ("bomb", "large bomb", "narrow"):
        with pytest.raises(ValueError, match=REFUSED[name][1]):
            read(REFUSED[name][0])


def test_a_frame_cannot_hide_a_bomb(monkeypatch):
    """The bound holds for whatever Pillow is about to decode, not for the header alone."""
    monkeypatch.setattr(pictures, "MOST_PIXELS", 20)
    with pytest.raises(ValueError, match="pixels"):
        read(encoded(pixels(6, 4, 3)))
    monkeypatch.setattr(pictures, "MOST_PIXELS", 24)
    read(encoded(pixels(6, 4, 3)))


@settings(max_examples=60, deadline=None)
@given(kind=st.sampled_from(["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"]), seed=st.integers(0, 2**32), data=st.data())
def test_damage_gives_a_picture_or_a_reason(kind, seed, data):
    content = bytearray(encoded(pixels(20, 30, 3, seed=seed), kind))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert read(bytes(content)).shape == COLOURS
    except ValueError as e:
        assert "\n" not in str(e) and str(e)


# Size.


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 40), st.integers(1, 40),
       st.sampled_from(pictures.FITS), st.sampled_from([1, 3]))
@example(27, 3, 13, 1, "crop", 1)  # 27 / 13 * 13 is more than 27
def test_any_size_fits_into_any(height, width, new_height, new_width, fit, channels):
    """A picture of one colour keeps it; only a letterbox has a border, which is black."""
    data = encoded(np.full((height, width, 3), 200, np.uint8))
    found, size, _ = decode(data, (new_height, new_width, channels), fit)
    assert found.shape == (new_height, new_width, channels) and size == (height, width)
    if fit != "letterbox":
        assert np.all(found == 200)
        return
    assert set(np.unique(found)) <= {0, 200}
    rows, columns = (np.count_nonzero((found[..., 0] == 200).any(axis=a)) for a in (1, 0))
    scale = min(new_height / height, new_width / width)
    assert abs(rows - max(height * scale, 1)) <= 0.5 and abs(columns - max(width * scale, 1)) <= 0.5
    assert new_height in (rows, ) or new_width in (columns, )


def test_crop_takes_the_middle():
    strips = np.zeros((10, 40, 3), np.uint8)
    strips[:, 15:25] = 255
    assert np.all(read(encoded(strips), (10, 10, 3), "crop") == 255)
    assert np.all(read(encoded(strips.swapaxes(0, 1)), (10, 10, 3), "crop") == 255)
    wide = read(encoded(strips), (10, 10, 3), "letterbox")
    assert np.all(wide[:4] == 0) and np.all(wide[7:] == 0) and wide[4:6, 4:6].min() > 200
    squeezed = read(encoded(strips), (10, 10, 3), "stretch")
    assert squeezed[:, 4:6].min() > 240 and np.all(squeezed[:, [0, 1, 8, 9]] == 0)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 30), st.integers(1, 30), st.integers(30, 40))
def test_crop_with_a_number_is_what_torchvision_does(width, height, new_width, new_height, shorter):
    """Resize(shorter), then CenterCrop, by their rules for pictures: integers cut off, halves to even ones."""
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8)
    picture = Image.fromarray(pixels)
    if width <= height:
        picture = picture.resize((shorter, int(shorter * height / width)), Image.Resampling.BILINEAR)
    else:
        picture = picture.resize((int(shorter * width / height), shorter), Image.Resampling.BILINEAR)
    top, left = round((picture.height - new_height) / 2.0), round((picture.width - new_width) / 2.0)
    expected = picture.crop((left, top, left + new_width, top + new_height))
    got = pictures.fitted(Image.fromarray(pixels), (new_height, new_width, 3), f"crop {shorter}")
    np.testing.assert_array_equal(got, np.asarray(expected))


def test_crop_with_a_number_decodes_a_jpeg_whole():
    pixels = np.random.default_rng(0).integers(0, 256, (400, 300, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95)
    whole = Image.open(io.BytesIO(file.getvalue())).convert("RGB").resize((60, 80), Image.Resampling.BILINEAR)
    got = pictures.decode(file.getvalue(), (40, 50, 3), "crop 60")[0]
    np.testing.assert_array_equal(got, np.asarray(whole.crop((5, 20, 55, 60))))


def test_crop_with_a_number_makes_no_bomb_of_a_strip():
    with pytest.raises(ValueError, match="scaled for 'crop 4096' it would have 4,096x1,044,480 pixels"):
        pictures.fitted(Image.new("L", (1, 255)), (9, 9, 1), "crop 4096")


def test_shrinking_averages():
    checks = np.zeros((60, 60), np.uint8)
    checks[::2, ::2] = checks[1::2, 1::2] = 255
    inner = read(encoded(checks), (6, 6, 1), "crop")[1:-1, 1:-1]
    assert inner.min() > 110 and inner.max() < 145


def test_large_jpegs_are_decoded_smaller():
    """What that changes is small: the pixels are close to those of the whole picture, shrunk."""
    y, x = np.mgrid[:512, :640]
    waves = np.stack([np.sin(x / 30), np.cos(y / 25), np.sin((x + y) / 40)], -1)
    image = Image.fromarray(np.rint(127.5 + 120 * waves).astype(np.uint8))
    data = encoded(image, "JPEG", quality=95)
    found, size, _ = decode(data, (32, 40, 3), "crop")
    opened = Image.open(io.BytesIO(data))
    opened.draft(None, (80, 80))
    assert opened.size[0] < 640 and size == (512, 640)
    whole = np.asarray(image.resize((40, 32), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(found - whole).max() <= 6


@pytest.mark.parametrize(("shape", "fit", "text"), [
    ((6, 4, 2), "crop", r"not \(6, 4, 2\)"), ((24,), "crop", r"not \(24,\)"), (COLOURS, "squash", "'squash'"),
])
def test_shapes_and_fits_refused(shape, fit, text):
    with pytest.raises(ValueError, match=text):
        decode(encoded(pixels(6, 4, 3)), shape, fit)


def test_names_of_pictures():
    assert all(map(pictures.is_picture, ("a.png", "b.JPG", "c.d.jpeg", "e.tif", "f.WebP", "g.heic")))
    assert not any(map(pictures.is_picture, ("a", ".png", "Thumbs.db", "a.txt", "a.png.zip", "desktop.ini", "b.npz")))
    assert all(map(pictures.is_grey, ("1", "L", "LA", "I", "I;16", "I;16B")))
    assert not any(map(pictures.is_grey, ("RGB", "P", "RGBA", "CMYK", "PA")))
