"""Each method against its formula: by PyTorch, by differences, by sums that must come out."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from explain_data import network, planted, trained
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from three_ways import integers, nodes, normals, parameters

import pellucid
from pellucid import explain, zoo
from pellucid.explain.blur import blurred
from pellucid.explain.graph import last_dense, last_map, map_of_last_layer
from pellucid.explain.maps import shared_out, stretched
from pellucid.layers import (
    AdaptiveAvgPool,
    Add,
    AvgPool,
    BatchNorm,
    Concat,
    Conv,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool,
    GlobalMaxPool,
    ReLU,
)

SHAPE = (12, 10, 3)


def made(net, seed=0, data=normals, **more):
    model = pellucid.Model(net, seed=seed, **more)
    model.load_parameters(parameters(net, np.random.default_rng(seed), data))
    return model


def image_of(shape=SHAPE, seed=1, data=normals):
    return data(np.random.default_rng(seed), *shape)


def by_torch(model, image):
    """The map after the last ReLU (1, C, H, W) and the logits of `network`'s networks, in float64."""
    p = {name: torch.tensor(value, dtype=torch.float64) for name, value in model.parameters.items()}
    x = torch.tensor(image, dtype=torch.float64).permute(2, 0, 1)[None].requires_grad_()
    at = F.max_pool2d(F.relu(F.conv2d(x, p["conv1.weight"], p.get("conv1.bias"), padding=1)), 2)
    at = F.relu(F.conv2d(at, p["conv2.weight"], p.get("conv2.bias"), padding=1))
    at.retain_grad()
    return x, at, F.linear(at.amax((2, 3)), p["dense1.weight"], p.get("dense1.bias"))[0]


# Gradients.


def test_gradient_is_pytorchs():
    model, image = made(network(SHAPE, 4)), image_of()
    x, _, logits = by_torch(model, image)
    logits[2].backward()
    np.testing.assert_allclose(explain.gradient(model, image, 2).values, x.grad[0].sum(0), rtol=1e-4, atol=1e-5)


def test_gradient_is_the_slope_of_the_logit():
    """All channels of one pixel moved together; the network is piecewise linear, so that a small step is exact."""
    model, image = made(network(SHAPE, 4)), image_of(seed=2)
    found = explain.gradient(model, image, 1).values
    strongest = np.argsort(-np.abs(found).ravel())[:5]
    for y, x in zip(*np.unravel_index(strongest, found.shape), strict=True):
        ends = np.repeat(image[None], 2, axis=0)
        ends[:, y, x] += np.float32([[2e-3], [-2e-3]])
        high, low = model.logits(ends)[:, 1]
        assert (high - low) / 4e-3 == pytest.approx(found[y, x], rel=0.02)


@pytest.mark.parametrize("pool", [GlobalMaxPool, GlobalAvgPool])
def test_gradient_times_input_adds_up_without_biases(pool):
    model, image = made(network(SHAPE, 4, pool, bias=False)), image_of(seed=3)
    found = explain.gradient_times_input(model, image, 3)
    assert found.values.sum() == pytest.approx(found.score, rel=1e-4)
    assert found.facts["total"] == pytest.approx(found.score, rel=1e-4)
    biased = explain.gradient_times_input(made(network(SHAPE, 4, pool)), image, 3)
    assert abs(biased.facts["total"] - biased.score) > 0.01


@pytest.mark.parametrize("baseline", [None, image_of(seed=20)], ids=["zeros", "an image"])
def test_integrated_gradients_are_complete(baseline):
    model, image = made(network(SHAPE, 4)), image_of(seed=4)
    found = explain.integrated_gradients(model, image, 0, baseline=baseline)
    ends = np.stack([image, np.zeros_like(image) if baseline is None else baseline])
    logits = model.logits(ends)[:, 0]
    assert found.values.sum() == pytest.approx(logits[0] - logits[1], rel=0.011)
    assert found.facts["expected"] == pytest.approx(logits[0] - logits[1], rel=1e-4)
    assert found.facts["total"] == pytest.approx(found.values.sum(), rel=1e-4)
    rough = explain.integrated_gradients(model, image, 0, baseline=baseline, steps=1)
    assert rough.facts["steps"] == 1 and abs(rough.facts["total"] - rough.facts["expected"]) > 0.02


def test_integrated_gradients_are_means_along_the_line():
    model, image = made(network(SHAPE, 4)), image_of(seed=5)
    total = np.zeros(SHAPE)
    for i in range(10):
        x, _, logits = by_torch(model, image * np.float32((i + 0.5) / 10))
        logits[1].backward()
        total += x.grad[0].permute(1, 2, 0).numpy()
    found = explain.integrated_gradients(model, image, 1, steps=10)
    np.testing.assert_allclose(found.values, (total / 10 * image).sum(axis=-1), rtol=1e-3, atol=1e-4)


def test_integrated_gradients_take_more_steps_where_they_fall_short():
    """A hinge at 0.7577: of 64 middles of equal parts 16 lie above it, 3% too many, of 128 just its share."""
    model = pellucid.Model(nodes((1, 1, 1), ("f", Flatten(), "input"), ("h", Dense(1), "f"), ("r", ReLU(), "h"),
                                 ("fc", Dense(1, bias=False), "r")))
    model.load_parameters({"h.weight": [[1]], "h.bias": [-0.7577], "fc.weight": [[4]]})
    found = explain.integrated_gradients(model, np.ones((1, 1, 1), np.float32), 0)
    assert found.facts["steps"] == 128
    assert found.facts["total"] == pytest.approx(found.facts["expected"], rel=0.01)


# Grad-CAM.


def test_grad_cam_is_the_papers_formula():
    model, image = made(network(SHAPE, 4)), image_of(seed=6)
    for target in range(4):
        _, at, logits = by_torch(model, image)
        logits[target].backward()
        weights = at.grad.mean((2, 3), keepdim=True)
        cam = F.relu((weights * at.detach()).sum(1, keepdim=True))
        found = explain.grad_cam(model, image, target)
        np.testing.assert_allclose(found.positions, cam[0, 0], rtol=1e-4, atol=1e-5)
        large = F.interpolate(cam, SHAPE[:2], mode="bilinear", align_corners=False)[0, 0]
        np.testing.assert_allclose(found.values, large, rtol=1e-4, atol=1e-5)
        assert found.layer == "relu2" and found.values.min() >= 0


def test_grad_cam_of_a_named_layer():
    model, image = made(network(SHAPE, 4)), image_of(seed=7)
    assert explain.grad_cam(model, image, layer="relu1").positions.shape == (12, 10)
    with pytest.raises(ValueError, match="'dense1' gives a vector of 4 features"):
        explain.grad_cam(model, image, layer="dense1")
    with pytest.raises(ValueError, match="no layer is called 'relu9'"):
        explain.grad_cam(model, image, layer="relu9")


# What of the graph is asked.


@pytest.mark.parametrize(("name", "last", "read"), [
    ("lenet", "pool2", None), ("convnet", "gelu6", "gelu6"), ("resnet20", "layer3.2.relu", "layer3.2.relu"),
    ("resnet18", "layer4.1.relu", "layer4.1.relu"), ("vgg11", "features.20", None), ("alexnet", "features.12", None),
])
def test_the_last_map_of_the_zoo(name, last, read):
    net = zoo.build(name)
    assert last_map(net) == last
    assert last_dense(net) == net.output
    if read:
        assert map_of_last_layer(net) == read
    else:
        with pytest.raises(ValueError, match="and not a map through Flatten or a pool"):
            map_of_last_layer(net)


def test_the_last_map_is_one_that_everything_passes_through():
    two = nodes((8, 8, 2), ("c0", Conv(3, 3), "input"), ("a", Conv(3, 3), "c0"), ("b", Conv(3, 1), "c0"),
                ("ga", GlobalAvgPool(), "a"), ("gb", GlobalAvgPool(), "b"), ("cat", Concat(), "ga", "gb"),
                ("fc", Dense(2), "cat"))
    assert last_map(two) == "c0"
    beside = nodes((8, 8, 2), ("a", Conv(3, 3), "input"), ("ga", GlobalAvgPool(), "a"),
                   ("gi", GlobalAvgPool(), "input"), ("cat", Concat(), "ga", "gi"), ("fc", Dense(2), "cat"))
    with pytest.raises(ValueError, match="no layer whose output has positions"):
        last_map(beside)
    late = nodes((8, 8, 2), ("a", Conv(2, 3, padding=1), "input"), ("b", Conv(2, 3, padding=1), "input"),
                 ("sum", Add(), "a", "b"), ("drop", Dropout(0.5), "sum"), ("same", AdaptiveAvgPool(8), "drop"),
                 ("g", GlobalAvgPool(), "same"), ("fc", Dense(2), "g"))
    assert last_map(late) == "sum" == map_of_last_layer(late)
    assert np.ptp(explain.grad_cam(made(late), image_of((8, 8, 2))).values) > 0
    one = nodes((8, 8, 2), ("a", Conv(2, 8), "input"), ("f", Flatten(), "a"), ("fc", Dense(2), "f"))
    with pytest.raises(ValueError, match="no layer whose output has positions"):
        last_map(one)


# Contributions.


ENDS = {
    "flatten": [("f", Flatten())],
    "average": [("f", GlobalAvgPool())],
    "maximum": [("f", GlobalMaxPool())],
    "to one, flattened": [("a", AdaptiveAvgPool(1)), ("f", Flatten()), ("d", Dropout(0.3))],
    "pooled, flattened": [("a", AvgPool(4)), ("f", Flatten())],
}


def ending(parts, bias=True):
    chain = [("c", Conv(6, 3, padding=1)), ("r", ReLU()), *parts, ("fc", Dense(3, bias))]
    named = [(name, layer, before) for (name, layer), before in zip(chain, ["input", *(n for n, _ in chain)],
                                                                    strict=False)]
    return nodes((4, 4, 2), *named)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("parts", ENDS.values(), ids=ENDS)
def test_contributions_add_up_exactly(parts, bias):
    """On integers, with means over 16 positions: to the last bit."""
    model, image = made(ending(parts, bias), data=integers), image_of((4, 4, 2), data=integers)
    for target in range(3):
        found = explain.contributions(model, image, target)
        own = float(model.parameters["fc.bias"][target]) if bias else 0.0
        assert found.facts == {"total": found.score - own, "bias": own}
        assert found.values.sum() == found.facts["total"] and found.layer == "r"


def test_contributions_are_the_class_activation_map():
    """Zhou et al.: the sum over channels of weight times activation; the mean over positions is the logit's."""
    model, image = made(ending(ENDS["average"])), image_of((4, 4, 2), seed=8)
    at = explain.taps.values(model, image[None], ["r"])["r"][0]
    cam = at @ model.parameters["fc.weight"][1]
    np.testing.assert_allclose(explain.contributions(model, image, 1).positions, cam / 16, rtol=1e-4, atol=1e-5)


def test_contributions_through_maxima_stand_where_the_maxima_are():
    model, image = made(ending(ENDS["maximum"])), image_of((4, 4, 2), seed=9)
    at, weight = explain.taps.values(model, image[None], ["r"])["r"][0], model.parameters["fc.weight"][2]
    expected = np.zeros((4, 4))
    for channel, share in enumerate(weight):
        y, x = np.unravel_index(at[..., channel].argmax(), (4, 4))
        expected[y, x] += share * at[y, x, channel]
    np.testing.assert_allclose(explain.contributions(model, image, 2).positions, expected, rtol=1e-4, atol=1e-5)


def test_contributions_of_a_linear_classifier_are_its_products():
    model = made(zoo.build("mlp", input_shape=(5, 4, 2), classes=3, hidden=()), data=integers)
    image = image_of((5, 4, 2), data=integers)
    found = explain.contributions(model, image, 1)
    weight = model.parameters["dense1.weight"][1].reshape(2, 5, 4).transpose(1, 2, 0)  # PyTorch's order
    np.testing.assert_array_equal(found.values, (weight * image).sum(axis=-1))
    assert found.layer == "input"


def test_contributions_of_a_pool_that_comes_last():
    net = nodes((4, 4, 2), ("c", Conv(3, 3, padding=1), "input"), ("g", GlobalAvgPool(), "c"))
    model, image = made(net, data=integers), image_of((4, 4, 2), data=integers)
    at = explain.taps.values(model, image[None], ["c"])["c"][0]
    found = explain.contributions(model, image, 2)
    np.testing.assert_array_equal(found.positions, at[..., 2] / 16)
    assert found.positions.sum() == found.score


@pytest.mark.parametrize(("last", "named"), [
    ([("n", BatchNorm()), ("fc", Dense(3))], "'n' .BatchNorm."), ([("fc", Dense(3)), ("r2", ReLU())], "'r2' .ReLU."),
])
def test_contributions_without_an_exact_map_are_refused(last, named):
    chain = [("c", Conv(4, 3)), ("g", GlobalAvgPool()), *last]
    net = nodes((4, 4, 2), *((n, layer, before) for (n, layer), before in
                             zip(chain, ["input", *(n for n, _ in chain)], strict=False)))
    with pytest.raises(ValueError, match=named) as refused:
        explain.contributions(made(net), image_of((4, 4, 2)))
    assert "\n" not in str(refused.value)


# Occlusion.


@pytest.mark.parametrize("options", [{}, {"size": 3, "stride": 2}, {"size": 5, "stride": 5}, {"size": 12}])
def test_occlusion_is_what_covering_costs(options):
    model, image = made(network(SHAPE, 4)), image_of(seed=10)
    baseline = image_of(seed=11)
    found = explain.occlusion(model, image, 1, baseline=baseline, **options)
    size = options.get("size", 2)
    stride = options.get("stride", max(size // 2, 1))
    total, count = np.zeros(SHAPE[:2]), np.zeros(SHAPE[:2])
    tops, lefts = ({min(i, max(n - size, 0)) for i in range(0, n, stride)} for n in SHAPE[:2])
    for y in tops:
        for x in lefts:
            covered = image.copy()
            covered[y:y + size, x:x + size] = baseline[y:y + size, x:x + size]
            total[y:y + size, x:x + size] += found.score - model.logits(covered[None])[0, 1]
            count[y:y + size, x:x + size] += 1
    np.testing.assert_allclose(found.values, total / count, rtol=1e-4, atol=1e-5)
    assert found.facts["squares"] == len(tops) * len(lefts)


def test_squares_that_do_not_fit_are_refused():
    model, image = made(network(SHAPE, 4)), image_of()
    for options, message in (({"size": 0}, "size must be an integer from 1 to 12, got 0"), ({"size": 13}, "got 13"),
                             ({"size": 2.5}, "got 2.5"), ({"size": 4, "stride": 5}, "stride .* from 1 to 4, got 5"),
                             ({"baseline": np.zeros((3, 3, 3), np.float32)}, "one image of shape")):
        with pytest.raises(ValueError, match=message):
            explain.occlusion(model, image, **options)
    for steps in (0, True, 1.5, 10**6):
        with pytest.raises(ValueError, match="steps must be an integer from 1 to 100,000"):
            explain.integrated_gradients(model, image, steps=steps)


# From a layer's positions to pixels.


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 30), st.integers(1, 30), st.integers(0, 10))
def test_positions_over_pixels(h, w, height, width, seed):
    values = np.random.default_rng(seed).standard_normal((h, w))
    shared = shared_out(values, (height, width))
    assert shared.shape == (height, width)
    assert shared.sum() == pytest.approx(values.sum(), abs=1e-9)
    if height % h == 0 and width % w == 0:
        cells = shared.reshape(h, height // h, w, width // w)
        np.testing.assert_allclose(cells.sum(axis=(1, 3)), values, atol=1e-9)
        assert np.ptp(cells, axis=(1, 3)).max() < 1e-9
    if height >= h and width >= w:
        expected = F.interpolate(torch.tensor(values)[None, None], (height, width), mode="bilinear",
                                 align_corners=False)[0, 0]
        np.testing.assert_allclose(stretched(values, (height, width)), expected, atol=1e-6)


def test_blurring_keeps_what_is_even_and_the_type():
    even = np.full((9, 7, 3), 130, np.uint8)
    np.testing.assert_array_equal(blurred(even, 2), even)
    dot = np.zeros((21, 21, 2), np.float32)
    dot[10, 10, 1] = 1
    found = blurred(dot, 2.0)
    y, x = np.indices((21, 21)) - 10
    np.testing.assert_allclose(found[..., 1], np.exp(-(y**2 + x**2) / 8) / (8 * np.pi), atol=1e-4)
    assert not found[..., 0].any() and blurred(np.ones((5, 2), np.float32), 1).shape == (5, 2)


def test_methods_agree_where_one_patch_decides():
    """Maps that say how much a pixel adds rank the pixels alike on the planted images, better than by chance."""
    images, _, _ = planted(8, seed=4)
    found = [[method(trained(), image).values.ravel() for image in images]
             for method in (explain.gradient_times_input, explain.integrated_gradients)]
    assert np.mean([spearmanr(a, b).statistic for a, b in zip(*found, strict=True)]) > 0.5
