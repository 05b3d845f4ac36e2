"""Scaling, pictures of every mode, JSON; and what is refused."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pellucid.data.pictures import FITS
from pellucid.preprocessing import LEAST_STD, Preprocessing

RGB = Preprocessing((4, 6, 3), (0.5, 0.25, 0.0), (0.5, 0.125, 1.0))
GREY = Preprocessing((4, 6, 1), (0.0,), (1.0,))


def pixels(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def test_apply_is_its_formula():
    images = pixels(5, 4, 6, 3)
    result = RGB.apply(images)
    assert result.dtype == np.float32 and result.shape == images.shape
    np.testing.assert_allclose(result, (images / 255 - np.array(RGB.mean)) / np.array(RGB.std), rtol=3e-7, atol=3e-7)


def test_apply_takes_grey_images_without_a_channel_axis():
    images = pixels(3, 4, 6)
    assert np.array_equal(GREY.apply(images), GREY.apply(images[..., None]))
    assert GREY.apply(images[:0]).shape == (0, 4, 6, 1)


def test_apply_does_not_depend_on_the_batch():
    images = pixels(7, 4, 6, 3)
    assert np.array_equal(RGB.apply(images)[3:4], RGB.apply(images[3:4]))


@pytest.mark.parametrize(("images", "message"), [
    (pixels(5, 6, 4, 3), r"expected images of shape \(N, 4, 6, 3\), got \(5, 6, 4, 3\)"),
    (pixels(4, 6, 3), r"got \(4, 6, 3\)"),
    (pixels(5, 4, 6), r"got \(5, 4, 6\)"),
    (pixels(5, 4, 6, 3).astype(np.float32), "expected uint8 .*float32"),
    (np.uint8(3), r"got \(\)"),
])
def test_apply_refuses(images, message):
    with pytest.raises(ValueError, match=message):
        RGB.apply(images)


def test_from_images_gives_zero_mean_and_unit_deviation():
    images = pixels(50, 8, 9, 3)
    images[..., 1] //= 4
    made = Preprocessing.from_images(images)
    assert made.input_shape == (8, 9, 3)
    np.testing.assert_allclose(made.mean, images.mean((0, 1, 2)) / 255, rtol=1e-12)
    np.testing.assert_allclose(made.std, images.std((0, 1, 2)) / 255, rtol=1e-12)
    result = made.apply(images).astype(float)
    np.testing.assert_allclose(result.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(result.std((0, 1, 2)), 1, atol=1e-5)


def test_a_constant_channel_is_not_divided_by_zero():
    images = np.full((3, 4, 5), 200, np.uint8)
    made = Preprocessing.from_images(images)
    assert made.std == (LEAST_STD,) and made.input_shape == (4, 5, 1)
    np.testing.assert_allclose(made.apply(images), 0, atol=1e-4)


@pytest.mark.parametrize("images", [
    np.zeros((0, 4, 4, 1), np.uint8), np.zeros((3, 4, 4, 1)), np.zeros((4, 4), np.uint8),
    np.zeros((2, 0, 4, 1), np.uint8), np.zeros((2, 4, 4, 0), np.uint8),
])
def test_from_images_refuses(images):
    with pytest.raises(ValueError, match="images"):
        Preprocessing.from_images(images)


# Pictures.


def test_prepare_keeps_a_picture_of_the_right_size_and_colours():
    colours = pixels(4, 6, 3)
    assert np.array_equal(RGB.prepare(Image.fromarray(colours)), colours)
    grey = pixels(4, 6)
    assert np.array_equal(GREY.prepare(Image.fromarray(grey)), grey[..., None])
    assert np.array_equal(RGB.prepare(Image.fromarray(grey)), np.repeat(grey[..., None], 3, 2))
    red = np.zeros((4, 6, 3), np.uint8)
    red[..., 0] = 255
    assert np.all(GREY.prepare(Image.fromarray(red)) == 76)  # 0.299 of 255


def test_prepare_averages_when_it_shrinks():
    checks = np.zeros((40, 60), np.uint8)
    checks[::2, ::2] = checks[1::2, 1::2] = 255
    inner = GREY.prepare(Image.fromarray(checks))[1:-1, 1:-1]
    assert inner.min() > 110 and inner.max() < 145
    assert inner.shape == (2, 4, 1)


def test_prepare_puts_transparent_pictures_on_white():
    clear = np.zeros((4, 6, 4), np.uint8)
    clear[:, 3:, 3] = 255
    result = RGB.prepare(Image.fromarray(clear))
    assert np.all(result[:, :3] == 255) and np.all(result[:, 3:] == 0)


def test_prepare_reads_16_bits_palettes_and_one_bit():
    deep = np.arange(24, dtype=np.uint16).reshape(4, 6) * 2048
    assert np.array_equal(GREY.prepare(Image.fromarray(deep))[..., 0], deep >> 8)
    assert np.array_equal(GREY.prepare(Image.fromarray(deep.astype(np.int32)))[..., 0], deep >> 8)
    colours = pixels(4, 6, 3) // 128 * 255
    palette = Image.fromarray(colours).convert("P", palette=Image.Palette.ADAPTIVE)
    assert np.array_equal(RGB.prepare(palette), colours)
    bits = Image.fromarray(np.eye(4, 6, dtype=bool))
    assert np.array_equal(GREY.prepare(bits)[..., 0], np.eye(4, 6) * 255)


@pytest.mark.parametrize(("fit", "columns"), [("crop", [0, 0, 0, 0]), ("stretch", [255, 0, 0, 255])])
def test_prepare_fits_as_it_says(fit, columns):
    wide = np.zeros((10, 40), np.uint8)
    wide[:, :10] = wide[:, 30:] = 255
    found = Preprocessing((4, 4, 1), (0.0,), (1.0,), fit).prepare(Image.fromarray(wide))[..., 0]
    assert np.abs(found - np.array(columns, int)).max() < 40
    boxed = Preprocessing((4, 4, 1), (0.0,), (1.0,), "letterbox").prepare(Image.fromarray(wide))[..., 0]
    assert not boxed[0].any() and not boxed[2:].any() and boxed[1].any()


def test_prepare_turns_a_picture_upright():
    colours = pixels(6, 4, 3)
    image = Image.fromarray(colours)
    image.getexif()[0x0112] = 6  # to be shown turned clockwise by a quarter
    assert np.array_equal(RGB.prepare(image), np.rot90(colours, -1))


@pytest.mark.parametrize(("image", "shape", "message"), [
    (Image.fromarray(np.full((4, 6), 0.5, np.float32)), (4, 6, 1), "real numbers"),
    (Image.fromarray(np.full((4, 6), -5, np.int32)), (4, 6, 1), "from -5 to -5"),
    (Image.fromarray(np.full((4, 6), 70_000, np.int32)), (4, 6, 1), "70000"),
    (Image.new("L", (6, 4)), (4, 6, 2), r"not \(4, 6, 2\)"),
    (Image.new("L", (6, 4)), (24,), r"not \(24,\)"),
])
def test_prepare_refuses(image, shape, message):
    with pytest.raises(ValueError, match=message):
        Preprocessing(shape, (0.0,) * shape[-1], (1.0,) * shape[-1]).prepare(image)


# JSON.

means, stds = st.floats(-3, 3), st.floats(0.01, 10)


@settings(max_examples=50)
@given(st.integers(1, 4), st.sampled_from((*FITS, "crop 3", "crop 256")), st.data())
def test_json_both_ways(channels, fit, data):
    mean = tuple(data.draw(means) for _ in range(channels))
    std = tuple(data.draw(stds) for _ in range(channels))
    made = Preprocessing((3, 2, channels), mean, std, fit)
    assert Preprocessing.from_json(json.loads(json.dumps(made.to_json()))) == made


GOOD = {"input_shape": [2, 2, 1], "mean": [0.5], "std": [0.25]}


@pytest.mark.parametrize("change", [
    {"mean": [0.5, 0.5]}, {"mean": []}, {"mean": ["0.5"]}, {"mean": [True]}, {"mean": [float("nan")]}, {"mean": 0.5},
    {"mean": [10**400]}, {"std": [0]}, {"std": [-1.0]}, {"std": [float("inf")]}, {"std": [None]}, {"std": "1"},
    {"input_shape": [2, 2]}, {"input_shape": [2.0, 2, 1]}, {"input_shape": [0, 2, 1]}, {"input_shape": []},
    {"input_shape": [2**20, 2**20, 1]}, {"extra": 1}, {"fit": "squash"}, {"fit": None}, {"fit": ["crop"]}, {"fit": ""},
    {"fit": "crop 1"}, {"fit": "crop -9"}, {"fit": "crop 5000"}, {"fit": "crop  9"}, {"fit": "crop ٣"},
    {"fit": "crop 09"}, {"fit": "crop " * 99},
])  # fmt: skip
def test_damaged_json_is_refused(change):
    assert Preprocessing.from_json(GOOD).std == (0.25,)
    assert Preprocessing.from_json(GOOD).fit == "stretch"  # models of before there was a choice
    with pytest.raises(ValueError):
        Preprocessing.from_json({**GOOD, **change})


@pytest.mark.parametrize("data", [None, [], "x", {}, {"mean": [0.5]}, 3])
def test_json_that_is_no_preprocessing(data):
    with pytest.raises(ValueError, match="exactly the lists"):
        Preprocessing.from_json(data)
