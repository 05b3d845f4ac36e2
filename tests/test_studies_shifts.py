"""Equivariance and invariance: networks of which it is known, and the definitions computed another way."""

import numpy as np
import pytest
from test_studies import RNG, made
from three_ways import integers, nodes, normals

import pellucid
from pellucid import reference, studies, zoo
from pellucid.explain import taps
from pellucid.layers import Add, AvgPool, Conv, Dense, Flatten, GlobalMaxPool, MaxPool, ReLU
from pellucid.studies.shifts import Distance, moved
from pellucid.studies.variants import variants


def test_images_move_and_repeat_their_rim():
    x = np.arange(6).reshape(1, 2, 3, 1)
    assert moved(x, 1, 1)[0, ..., 0].tolist() == [[0, 0, 1], [3, 3, 4]]
    assert moved(x, 0, 1)[0, ..., 0].tolist() == [[0, 1, 2], [0, 1, 2]]
    assert moved(x, 1, 9)[0, ..., 0].tolist() == [[0, 0, 0], [3, 3, 3]]


def test_distances_by_hand():
    rng = RNG(0)
    maps, others = rng.standard_normal((2, 400, 5, 3)) * (1, 5, 0.1) + (7, 0, -1)
    for by_place in (False, True):
        d = Distance(by_place)
        for part in range(0, 400, 150):
            d.add(maps[part:part + 150], others[part:part + 150])
        axes = 0 if by_place else (0, 1)
        variance = 2 * others.var(axis=axes).mean()
        assert d.value == pytest.approx(np.sqrt(np.square(maps - others).mean() / variance))
        assert d.value == pytest.approx(1, 0.1)  # they have nothing to do with each other
    same, flat = Distance(), Distance()
    assert same.value is None
    same.add(np.ones((2, 3)), np.ones((2, 3)))
    flat.add(np.zeros((2, 3)), np.ones((2, 3)))
    assert same.value == 0 and flat.value is None


def errors(found, side):
    return {layer.layer: getattr(layer, side) for layer in found.layers}


def test_without_padding_and_strides_maps_follow_exactly_everywhere():
    model = made((14, 13, 2), Conv(3, 3), ReLU(), Conv(4, (2, 3), dilation=2), MaxPool(3, 1), data=integers)
    found = studies.equivariance(model, integers(RNG(1), 5, 14, 13, 2), shifts=3)
    assert [v.name for v in found.variants] == ["as it is", "without pooling"]  # there is nothing else to take away
    for measured in found.variants:
        assert len(measured.layers) >= 2 and measured.flips is None and measured.agreement is None
        for layer in measured.layers:
            assert layer.inside == layer.everywhere == (0, 0, 0) and all(layer.whole)
    assert "maps follow exactly away from all borders and over the whole map" in found.sentence


def test_curves_are_drawn_of_layers_of_which_something_is_known():
    model = made((8, 8, 1), Conv(2, 3, padding=1), ReLU(), Conv(2, 7, padding=3))
    found = studies.equivariance(model, normals(RNG(8), 4, 8, 8, 1), shifts=2)
    first, last = found.variants[0].layers
    assert last.inside == (None, None) and None not in first.inside + last.everywhere
    inside, everywhere = (figure.svg for figure in found.figures()[:2])
    assert "Away from all borders" in inside and "conv1" in inside and "conv2" not in inside
    assert "conv1" in everywhere and "conv2" in everywhere


def test_padding_is_seen_at_the_borders_only():
    model = made((16, 15, 2), Conv(3, 3, padding=1), ReLU(), Conv(4, 5, padding="same"), data=integers)
    found = studies.equivariance(model, integers(RNG(2), 5, 16, 15, 2), shifts=3)
    padded, unpadded = found.variants
    assert unpadded.name == "without padding" and "follow exactly away from all borders" in found.sentence
    for layer in padded.layers:
        assert layer.inside == (0, 0, 0) and min(layer.everywhere) > 0.05
    assert errors(unpadded, "everywhere") == {"conv1": (0, 0, 0), "conv2": (0, 0, 0)}


def test_strides_are_followed_in_whole_moves_and_without_them_in_all():
    model = made((24, 24, 1), Conv(3, 3), ReLU(), MaxPool(2), Conv(4, 3), AvgPool(2), data=integers)
    model.load_parameters({n: 4 * v for n, v in model.parameters.items()})  # means stay integers
    as_it_is, dense, unpooled = studies.equivariance(model, integers(RNG(3), 6, 24, 24, 1), shifts=4).variants
    inside = errors(as_it_is, "inside")
    assert inside["conv1"] == (0, 0, 0, 0)
    for name, stride in (("pool1", 2), ("conv2", 2), ("pool2", 4)):
        for shift, error in enumerate(inside[name], 1):
            assert (error == 0) == (shift % stride == 0), (name, shift)
    assert {v.layer: v.whole for v in as_it_is.layers}["pool2"] == (False, False, False, True)
    assert dense.name == "without strides" and set(errors(dense, "inside").values()) == {(0, 0, 0, 0)}
    assert unpooled.name == "without pooling" and errors(unpooled, "inside")["pool2"][0] > inside["pool2"][0]


# With padding, position p sees 2p - 1 to 2p + 1 of 9: 1 to 3 lie inside. Without, it sees 2p to 2p + 2: by one pixel
# position 0 sees the repeated one.
@pytest.mark.parametrize("padding, first", [(1, 2), (0, 1)])
def test_an_error_by_its_definition(padding, first):
    """One layer of stride 2, moved by 1 and by 2, on all positions and inside, from its map alone."""
    model = made((9, 2), Conv(3, 3, stride=2, padding=padding))
    images = normals(RNG(4), 7, 9, 2)
    (layer,) = studies.equivariance(model, images, shifts=2).variants[0].layers

    def value(x):
        return reference.conv(x, model.parameters["conv1.weight"], model.parameters["conv1.bias"], stride=2,
                              padding=padding)

    def apart(moved, still):
        return np.sqrt(np.square(moved - still).mean() / (2 * still.var(axis=(0, 1)).mean()))

    still, by = value(images), [value(np.concatenate([images[:, :1]] * d + [images[:, :-d]], axis=1)) for d in (1, 2)]
    assert layer.everywhere[0] == pytest.approx(min(apart(by[0], still), apart(by[0][:, 1:], still[:, :-1])), rel=1e-5)
    assert layer.everywhere[1] == pytest.approx(apart(by[1][:, 1:], still[:, :-1]), rel=1e-5)
    assert layer.inside[0] == pytest.approx(min(apart(by[0][:, 1:4], still[:, 1:4]),
                                                apart(by[0][:, first:4], still[:, first - 1:3])), rel=1e-5)
    assert layer.inside[1] < 1e-6 and layer.whole == (False, True)


def test_without_strides_the_model_is_among_the_values():
    network = nodes((21, 17, 2), ("c", Conv(4, 3, stride=2, padding=1), "input"), ("r", ReLU(), "c"),
                    ("a", Conv(4, 3, padding=1, groups=2), "r"), ("s", Add(), "a", "r"), ("p", MaxPool(3, 2, 1), "s"),
                    ("d", Conv(3, 2), "p"), ("g", GlobalMaxPool(), "d"), ("f", Dense(2), "g"))
    model, images = pellucid.Model(network, seed=1), normals(RNG(5), 3, 21, 17, 2)
    changed = {v.name: v for v in variants(model)}
    assert list(changed) == ["as it is", "without padding", "without strides", "without pooling"]
    dense = changed["without strides"]
    assert dense.whole and changed["without pooling"].whole
    own, all_ = taps.values(model, images, ["p", "d"]), taps.values(dense.model, images, ["p", "d"])
    for name in ("p", "d"):
        np.testing.assert_allclose(all_[name][:, ::4, ::4][:, :4, :4], own[name][:, :4, :4], rtol=1e-4, atol=1e-5)


def test_a_head_that_does_not_fit_is_cut_off():
    lenet = pellucid.Model(zoo.build("lenet", input_shape=(16, 16, 1), classes=3), seed=0)
    for v in variants(lenet)[1:3]:
        assert not v.whole and v.model.network.output == "pool2"
    tight = pellucid.Model(zoo.build("lenet", input_shape=(8, 8, 1), classes=3), seed=0)
    unpadded = variants(tight)[1]
    assert unpadded.model.network.output == "conv2"  # of 8 are left 6, 3 and 1
    summed = pellucid.Model(nodes((6, 6, 1), ("c", Conv(1, 3, padding=1), "input"), ("s", Add(), "c", "input"),
                                  ("d", Conv(1, 3, padding=1), "s")), seed=0)
    unpadded = variants(summed)[1]
    assert unpadded.model.network.output == "c"


def test_flips_and_agreement_are_counted():
    """A model that answers whether the first pixel is bright: it answers otherwise once the image moves into it."""
    weight = np.zeros((2, 16))
    weight[0, 0], weight[1, 1] = 1, 1  # the first pixel against the second
    images = np.zeros((10, 4, 4, 1), np.float32)
    images[:6, 0, 1] = 1   # answer 1; by one pixel to the right both are 0: answer 0
    images[6:, 0, 0] = 1   # answer 0; moved they are equal: answer 0
    model = made((4, 4, 1), Conv(1, (1, 2), padding=((0, 0), (0, 1))), Flatten(), Dense(2, bias=False),
                 conv1_weight=[[[[1, 0]]]], conv1_bias=[0], dense1_weight=weight)
    found = studies.equivariance(model, images, shifts=1)
    own, unpadded = found.variants
    assert own.flips == (6 / 10 / 2,)  # down the first row repeats, and so does the answer
    assert own.agreement == 1 and unpadded.flips is None and unpadded.agreement is None
    assert "30.0% get another answer at 1 pixel" in found.sentence


def test_large_variants_are_left_out(monkeypatch):
    from importlib import import_module

    model = made((16, 16, 1), Conv(4, 3, padding=1), MaxPool(2), Conv(4, 3, padding=1), GlobalMaxPool(), Dense(2))
    work = 9 * 20 * sum(model.network.macs.values())
    monkeypatch.setattr(import_module("pellucid.studies.equivariance"), "WORK", work)
    images = normals(RNG(6), 30, 16, 16, 1)
    own, unpadded, dense, _ = studies.equivariance(model, images).variants
    assert own.images == 20 and unpadded.layers
    assert 8 <= dense.images < 20  # fewer
    monkeypatch.setattr(import_module("pellucid.studies.equivariance"), "WORK", work // 20)
    found = studies.equivariance(model, images)
    own, unpadded, dense, _ = found.variants
    assert own.images == unpadded.images == 8
    assert not dense.layers and dense.note.startswith("left out: it takes ") and "ithout strides" not in found.sentence
    assert found.figures()


@pytest.mark.parametrize("layer, define", [
    (MaxPool(2), lambda x: reference.max_pool(x, 2)),
    (MaxPool(3, 1, 1), lambda x: reference.max_pool(x, 3, stride=1, padding=1)),
    (AvgPool(2), lambda x: reference.avg_pool(x, 2)),
    (GlobalMaxPool(), lambda x: x.max(axis=(1, 2))),
], ids=lambda v: type(v).__name__)
def test_invariance_is_what_the_definition_predicts(layer, define):
    images = RNG(7).integers(-90, 90, (9, 8, 6, 2)).astype(np.float32)
    model = made((8, 6, 2), layer, *([] if isinstance(layer, GlobalMaxPool) else [Flatten()]), Dense(2))
    (found,) = studies.invariance(model, images, shifts=3).layers
    for shift in (1, 2, 3):
        for got, f in ((found.before[shift - 1], np.float64), (found.after[shift - 1], define)):
            still, change = f(np.float64(images)), 0
            for axis in (1, 2):
                filled = np.concatenate([images.take([0] * shift, axis), images.take(range(images.shape[axis] - shift),
                                                                                     axis)], axis)
                change += np.square(f(np.float64(filled)) - still).mean() / 2
            assert got == pytest.approx(np.sqrt(change / (2 * still.var(axis=0).mean())), rel=1e-6)


def test_pooling_takes_away_a_shift_within_its_windows():
    """Bright pixels on even places stay in their window when they move by one."""
    images = np.zeros((5, 8, 8, 1), np.float32)
    for image, (y, x) in zip(images, [(0, 2), (2, 4), (4, 0), (6, 6), (2, 2)], strict=True):
        image[y, x] = 1
    model = made((8, 8, 1), MaxPool(2), Flatten(), Dense(2))
    images[:, :, 0] = images[:, 0] = 0  # nothing is repeated at the rim
    (found,) = studies.invariance(model, images, shifts=2).layers
    assert found.after[0] == 0 < found.before[0] and found.after[1] > 0
    assert "0% after it: less" in studies.invariance(model, images).sentence
    blank = studies.invariance(model, np.zeros((2, 8, 8, 1), np.float32))
    assert blank.layers[0].after == (0, 0, 0, 0) and "nothing can be said" in blank.sentence
