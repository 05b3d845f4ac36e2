"""Models written for other programs give the same answers there, and come back the same."""

from __future__ import annotations

import errno
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from pellucid import Model, Preprocessing, data, exchange, zoo
from pellucid.calibration import Calibration
from pellucid.exchange import agreement, torch_source
from pellucid.exchange import onnx as onnx_files
from pellucid.exchange.onnx import resizing
from pellucid.layers import (
    GELU,
    LRN,
    AdaptiveAvgPool,
    Affine,
    AvgPool,
    BatchNorm,
    ChannelShuffle,
    Clip,
    Conv,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool,
    GlobalMaxPool,
    LeakyReLU,
    MaxPool,
    Pad,
    PadChannels,
    ReLU,
    ScaledTanh,
    Sigmoid,
    SiLU,
    Softmax,
    TakeChannels,
    Tanh,
)
from pellucid.layers.base import LAYERS
from pellucid.network import Concat, Network, Node, Residual, Sequential
from pellucid.views import KINDS

COLOURS = (12, 10, 3)
EVERYTHING = [  # between them, every kind of layer, and every way of padding
    Sequential(Pad(((1, 0), (0, 2))), Conv(12, 3, padding=((0, 1), (2, 0))), SiLU(), ChannelShuffle(3), LRN(3, 0.5),
               AvgPool(3, 2, 1, count_include_pad=False), Affine(), Clip(-0.5, 6), GELU(), MaxPool(2, 1, dilation=2),
               Concat(Conv(4, 1, bias=False), Conv(6, 3, padding=1)), BatchNorm(), LeakyReLU(0.2), Dropout(0.3),
               GlobalMaxPool(), Dense(7), Softmax()),
    Sequential(Conv(16, 3, stride=2, padding="same", groups=1), BatchNorm(), ReLU(),
               Residual(Sequential(Conv(16, 3, padding=2, dilation=2, groups=16), Tanh())), Sigmoid(), Clip(high=0.7),
               AvgPool((3, 2), 1, ((1, 1), (0, 1))), MaxPool(3, 2, ((1, 0), (2, 2))), Flatten(), Dense(24, bias=False),
               BatchNorm(), ChannelShuffle(4), LRN(5), Affine(), Dense(7)),
    Sequential(Conv(8, 3), ReLU(), GlobalAvgPool(), Dense(7)),
    Sequential(Conv(8, 3, padding=1, trainable=False), ScaledTanh(1.5, 0.7), PadChannels(11), AdaptiveAvgPool((6, 5)),
               TakeChannels(((3, 1, 9), (0, 3, 7))), Conv(4, 3, groups=2), AdaptiveAvgPool((4, 3)), GlobalMaxPool(),
               TakeChannels((3, 3, 0)), PadChannels(5), Dense(7)),
]
NAMES = ["one", "two", "three", "four"]


def pictures(count=40, shape=COLOURS, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), np.uint8)


def model_of(body, seed=1, temperature=1.7, tta="none"):
    images = pictures()
    network = Network.build(COLOURS, body)
    model = Model(network, seed, preprocessing=Preprocessing.from_images(images, fit="letterbox"),
                  classes=[f"class {c}" for c in "abcdefg"], record={"seed": 3, "name": "test"}, tta=tta)
    rng = np.random.default_rng(seed)  # statistics and scales that do something
    values = {name: (rng.uniform(0.5, 1.5, p.shape) if name.endswith(("var", "weight")) and p.ndim == 1
                     else rng.normal(0, 0.5, p.shape) if p.ndim == 1 else p) for name, p in model.parameters.items()}
    model.load_parameters({name: np.asarray(v, np.float32) for name, v in values.items()})
    model.calibration = temperature and Calibration(temperature, 100, 0.3, 0.05)
    return model


def test_every_kind_of_layer_is_written():
    from pellucid.exchange.onnx.exporter import FORMS

    kinds = {name for name, kind in LAYERS.items() if kind.__module__.startswith("pellucid.")}
    assert kinds == set(FORMS) == set(torch_source.FORMS)
    used = {type(n.layer).__name__ for body in EVERYTHING for n in Network.build(COLOURS, body).nodes}
    assert used == kinds


@pytest.mark.parametrize("temperature, tta", [
    (None, "none"), (1.7, "none"), (None, "mirror"), (1.7, "mirror"), (None, "shifts"), (1.7, "shifts")])
@pytest.mark.parametrize("body", EVERYTHING, ids=NAMES)
def test_onnx_runtime_and_pytorch_give_the_models_answers(body, temperature, tta, tmp_path):
    model, images = model_of(body, temperature=temperature, tta=tta), pictures(seed=5)
    expected = model.predict(images)
    assert len({int(c) for c in expected.argmax(axis=1)}) > 1 or np.ptp(expected[:, 0]) > 1e-3  # it tells them apart
    for export, name in ((onnx_files.export, "m.onnx"), (torch_source.export, "m.py")):
        found = export(model, tmp_path / name, ("noise", images))
        assert (found.images, found.agreed) == (40, 40) and found.difference < 1e-5
        alone = export(model, tmp_path / f"unchecked_{name}")
        assert alone is None
        assert (tmp_path / name).read_bytes() == (tmp_path / f"unchecked_{name}").read_bytes().replace(
            b"unchecked_", b"")
    answer = onnx_files.session(tmp_path / "m.onnx")
    np.testing.assert_allclose(answer(images), expected, atol=1e-5)


def test_views_of_larger_images_move_by_more(tmp_path):
    images = pictures(3, (64, 70, 3))
    network = Network.build((64, 70, 3), Sequential(Conv(4, 3, stride=2), ReLU(), GlobalMaxPool(), Dense(4)))
    model = Model(network, 5, preprocessing=Preprocessing.from_images(images), tta="shifts")
    assert np.abs(model.predict(images) - np.exp(model.log_probabilities(images, tta="mirror"))).max() > 1e-3
    for export, name in ((onnx_files.export, "m.onnx"), (torch_source.export, "m.py")):
        assert export(model, tmp_path / name, ("noise", images)).difference < 1e-5


@pytest.mark.parametrize("tta", KINDS)
@pytest.mark.parametrize("body", EVERYTHING, ids=NAMES)
def test_what_was_exported_comes_back_the_same(body, tta, tmp_path):
    model, images = model_of(body, tta=tta), pictures(seed=6)
    onnx_files.export(model, tmp_path / "m.onnx")
    back = exchange.load(tmp_path / "m.onnx")
    assert back.network == model.network
    np.testing.assert_array_equal(back.predict(images), model.predict(images))
    assert (back.classes, back.preprocessing, back.calibration, back.record, back.tta) == (
        model.classes, model.preprocessing, model.calibration, model.record, tta)
    assert {n: a.tolist() for n, a in back.parameters.items()} == {n: a.tolist() for n, a in model.parameters.items()}
    back.save(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(exchange.load(tmp_path / "m.safetensors").predict(images), model.predict(images))


@pytest.mark.parametrize("size", [3, (7, 3), (20, 2), (5, 8)])
def test_parts_that_differ_in_size_are_means_all_the_same(size, tmp_path):
    model = model_of(Sequential(Conv(4, 3), AdaptiveAvgPool(size), Flatten(), Dense(7)))
    found = onnx_files.export(model, tmp_path / "m.onnx", ("noise", pictures()))
    assert found.agreed == 40 and found.difference < 1e-5


@pytest.mark.parametrize("shape", [(9, 5), (12,)])
def test_signals_and_features_go_both_ways(shape, tmp_path):
    body = Sequential(Conv(6, 3, padding=1), MaxPool(2), AdaptiveAvgPool(3), AvgPool(
        2, 1, ((2, 2),), dilation=3, count_include_pad=False), ReLU(), Flatten(), Dense(3)) if len(shape) > 1 else \
        Sequential(Dense(8), BatchNorm(), Tanh(), Dense(3))
    model = Model(Network.build(shape, body), 2)
    x = np.random.default_rng(3).standard_normal((5, *shape), np.float32)
    onnx_files.export(model, tmp_path / "m.onnx")
    expected = np.exp(model.log_probabilities(x))
    np.testing.assert_allclose(onnx_files.session(tmp_path / "m.onnx")(x), expected, atol=1e-6)
    back = exchange.load(tmp_path / "m.onnx")
    np.testing.assert_array_equal(back.logits(x), model.logits(x))


def test_networks_of_the_zoo_go_both_ways(tmp_path):
    for name in zoo.names():
        network = zoo.build(name, classes=10)
        if network.parameter_count > 3_000_000 or len(network.nodes) > 100:  # deeper ones have the same layers
            continue
        shape = network.input_shape
        model = Model(network, 0, preprocessing=Preprocessing.from_images(pictures(8, shape)))
        found = onnx_files.export(model, tmp_path / f"{name}.onnx", ("noise", pictures(8, shape)))
        assert found.images == 8  # and they agree, or it would have raised
        assert exchange.load(tmp_path / f"{name}.onnx").network == network


@pytest.mark.parametrize("fit", ["crop", "crop 16", "crop 23", "letterbox", "stretch"])
@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_of_any_size_are_resized_in_the_graph_as_pillow_does(fit, channels, tmp_path):
    """The network is the picture itself: each output is a pixel, so that a pixel that differs is seen."""
    shape = (9, 14, channels)
    size = int(np.prod(shape))
    rng = np.random.default_rng(2)
    model = Model(Network.build(shape, Sequential(Flatten(), Dense(size, bias=False))), 0,
                  preprocessing=Preprocessing(shape, (0.0,) * channels, (1 / 25.5,) * channels, fit))
    model.load_parameters({"dense1.weight": np.eye(size, dtype=np.float32)})
    onnx_files.export(model, tmp_path / "m.onnx")
    answer = onnx_files.session(tmp_path / "m.onnx")
    for height, width in ((9, 14), (18, 28), (40, 31), (5, 6), (9, 200), (333, 21), (1, 7), (10, 15)):
        pixels = rng.integers(0, 256, (height, width, channels), np.uint8)
        picture = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
        prepared = model.preprocessing.prepare(picture)
        made = np.log(answer(pixels[None])[0])  # a tenth of the pixels, but for what all have in common
        seen = (made - made.min()).reshape(channels, *shape[:2]).transpose(1, 2, 0) * 10
        expected = prepared.astype(float) - prepared.min()
        # Of tall pictures Pillow may resize the rows first, and of crops it rounds the box: then each pixel, and the
        # least, may differ by one.
        most = 0.02 if height <= width and fit != "crop" else 2.02
        np.testing.assert_allclose(seen, expected, rtol=0, atol=most, err_msg=f"{height}x{width}")


def test_a_state_dict_that_pytorch_reads_strictly(tmp_path):
    model = model_of(EVERYTHING[1])
    torch_source.export(model, tmp_path / "net.py")
    state = load_file(tmp_path / "net.safetensors")
    torch.testing.assert_close(state["conv1.weight"], torch.tensor(model.parameters["conv1.weight"]))
    sys.path.insert(0, str(tmp_path))
    try:
        import net
    finally:
        sys.path.remove(str(tmp_path))
        sys.modules.pop("net", None)
    assert net.CLASSES == model.classes
    images = pictures(4)
    with torch.inference_mode():
        np.testing.assert_allclose(net.load()(torch.from_numpy(images)).numpy(), model.predict(images), atol=1e-5)


def test_layers_may_be_called_anything(tmp_path):
    """As every attribute of PyTorch's modules and of what is written, and as each other's parameters."""
    taken = [name for name in dir(torch.nn.Module()) if not name.startswith("__")]
    names = ["torch", "F", "nn", "self", "x", "images", "prepare", "scores", "MEAN", "load", "Path", "class", "1", "_",
             "a.b", "a_b", "pad_weight", "pad", "pad_bias", *taken]
    layers = {name: (Conv(2, 1), Affine(), AvgPool(3, 1, ((0, 1), (2, 0)), count_include_pad=False),
                     MaxPool(3, 1, ((1, 0), (0, 2))), BatchNorm())[i % 5] for i, name in enumerate(names)}
    layers |= {"pad": Affine(), "pad_weight": Conv(2, 1), "pad_bias": BatchNorm()}
    nodes = [Node(name, layer, (before,)) for (name, layer), before in zip(
        layers.items(), ("input", *layers), strict=False)]
    shape = (70, 70, 3)
    network = Network(shape, (*nodes, Node("end", GlobalAvgPool(), (names[-1],))), "end")
    model = Model(network, 0, preprocessing=Preprocessing.from_images(pictures(2, shape)))
    assert torch_source.export(model, tmp_path / "m.py", ("noise", pictures(2, shape))).agreed == 2


@pytest.mark.parametrize("counted", [False, True])
@pytest.mark.parametrize("padding", [0, ((1, 2), (0, 2))])
def test_pooling_of_taps_that_lie_apart(counted, padding, tmp_path):
    """Padded by as many places as there are taps, too."""
    pool = AvgPool((3, 2), (1, 2), padding, dilation=(2, 3), count_include_pad=counted)
    most = MaxPool((2, 1), (1, 1), (2, 0), dilation=(3, 1))
    model = model_of(Sequential(Conv(4, 3), pool, most, Flatten(), Dense(7)))
    for export, name in ((onnx_files.export, "m.onnx"), (torch_source.export, "m.py")):
        assert export(model, tmp_path / name, ("noise", pictures())).agreed == 40


def test_a_module_is_written_with_its_weights_or_not_at_all(tmp_path, monkeypatch):
    model = model_of(EVERYTHING[2])
    for place, name in ((torch_source.modelfile, "write"), (torch_source.Path, "write_text")):
        with monkeypatch.context() as changed:
            changed.setattr(place, name, full)
            with pytest.raises(OSError, match="disk is full"):
                torch_source.export(model, tmp_path / "m.py")
        assert list(tmp_path.iterdir()) == []


def full(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


# What is not the same is not put there.


def test_other_answers_are_an_error_and_nothing_is_written(tmp_path, monkeypatch):
    model = model_of(EVERYTHING[2])
    other = model_of(EVERYTHING[2], seed=9)
    (tmp_path / "m.onnx").write_text("old")
    true = agreement.compare
    monkeypatch.setattr(agreement, "compare", lambda model, *rest, **more: true(other, *rest, **more))
    for export, name in ((onnx_files.export, "m.onnx"), (torch_source.export, "m.py")):
        with pytest.raises(ValueError, match="does not give the model's answers: on 40 images of noise"):
            export(model, tmp_path / name, ("noise", pictures()))
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]
    assert (tmp_path / "m.onnx").read_text() == "old"


def test_nan_is_no_agreement():
    with pytest.raises(ValueError, match="differs by nan"):
        agreement.Agreement("noise", 4, float("nan"), 4).require("it")


def test_images_to_compare_on_come_from_the_run_or_are_asked_for():
    digits = data.load("digits")
    network = zoo.build("lenet", input_shape=(8, 8, 1), classes=10)
    model = Model(network, 0, preprocessing=Preprocessing.from_images(digits.images), record={"source": "digits"})
    name, images = agreement.images_for(model)
    assert name == "digits" and images.shape == (512, 8, 8, 1) and images.dtype == np.uint8
    model.record = {}
    with pytest.raises(ValueError, match="--check DATA"):
        agreement.images_for(model)
    assert len(agreement.images_for(model, "digits")[1]) == 512


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of pictures of many sizes, one of them lying on its side; one class has none for testing."""
    root, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(4)
    for i, (height, width) in enumerate([(9, 14), (40, 31), (31, 40), (9, 14), (60, 200), (21, 21), (18, 28)]):
        picture = Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))
        path = root / ("train" if i else "test") / "ab"[i % 2] / (f"{i}.jpg" if i % 3 == 1 else f"{i}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        exif = Image.Exif()
        exif[0x0112] = 6 if i == 4 else 1
        picture.save(path, exif=exif)
    return root


@pytest.mark.parametrize("fit", ["crop", "crop 14", "crop 23", "letterbox", "stretch"])
@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_are_compared_as_they_are(fit, channels, photos, tmp_path, monkeypatch):
    shape = (9, 14, channels)
    network = Network.build(shape, Sequential(Conv(8, 3), ReLU(), Flatten(), Dense(3)))
    model = Model(network, 0, record={"source": str(photos)},
                  preprocessing=Preprocessing(shape, (0.5,) * channels, (0.2,) * channels, fit))
    name, images = agreement.images_for(model, originals=True)
    assert sorted(image.shape for image in images) == sorted(
        (*size, channels) for size in [(40, 31), (31, 40), (9, 14), (200, 60), (21, 21), (18, 28)])
    found = onnx_files.export(model, tmp_path / "m.onnx", (name, images))
    assert (found.images, found.agreed) == (6, 6) and found.difference < 1e-5 and found.levels <= 1
    prepared = agreement.images_for(model)[1]  # for what leaves resizing to others
    assert prepared.shape == (6, *shape)
    assert torch_source.export(model, tmp_path / "m.py", (name, prepared)).agreed == 6
    again = onnx_files.export(model, tmp_path / "again.onnx", (name, prepared))  # arrays: pictures of the right size
    assert again.images == 6 and again.levels <= 1
    monkeypatch.setattr(resizing, "STEPS", 2**4)  # weights of too few digits
    with pytest.raises(ValueError, match="does not resize pictures as the model does: on 6 images"):
        onnx_files.export(model, tmp_path / "wrong.onnx", (name, images))
    assert not (tmp_path / "wrong.onnx").exists()


def test_very_large_pictures_are_not_taken_to_compare_on(photos, monkeypatch):
    model = Model(zoo.build("lenet", input_shape=(32, 32, 3), classes=2), 0, record={"source": str(photos)},
                  preprocessing=Preprocessing((32, 32, 3), (0.5,) * 3, (0.2,) * 3, "crop"))
    monkeypatch.setattr(agreement, "LARGEST", 500)
    assert sorted(image.shape[:2] for image in agreement.images_for(model, originals=True)[1]) == [(9, 14), (21, 21)]
    monkeypatch.setattr(agreement, "MOST_PIXELS", 500)
    assert len(agreement.images_for(model, originals=True)[1]) == 1
    monkeypatch.setattr(agreement, "LARGEST", 50)
    assert agreement.images_for(model, originals=True)[1].shape == (6, 32, 32, 3)


def test_without_the_packages_it_says_what_to_install(tmp_path, monkeypatch):
    model = model_of(EVERYTHING[2])
    onnx_files.export(model, tmp_path / "m.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match=r"need the package onnxruntime: pip install 'pellucid\[onnx\]'"):
        onnx_files.export(model, tmp_path / "n.onnx", ("noise", pictures()))
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"need the package onnx: pip install 'pellucid\[onnx\]'"):
        exchange.load(tmp_path / "m.onnx")
