"""The zoo: every registered network is tested by existing, and the published ones against PyTorch modules."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from published import MODULES, TORCHVISION, shapes

import pellucid
from pellucid import zoo
from pellucid.layers import Dropout
from pellucid.network import Network

# Trainable parameters and multiply-adds for one image of the size and classes that a network has by itself. Parameters
# of the published ones: by torchvision's documentation, LeNet-5's 60,000 and 840 weights of its output by the paper,
# those on CIFAR-10 by its table 6, to the digits it has.
COUNTS = {
    "alexnet": (61_100_840, 714_188_480), "alexnet2012": (60_965_224, 724_406_816),
    "cifar_resnet18": (11_173_962, 555_422_720), "cifar_vgg": (2_332_106, 171_643_904),
    "convnet": (1_977_098, 151_882_240), "lenet": (421_642, 4_241_152), "lenet5": (60_000 + 840, 328_096),
    "mlp": (13_002, 12_960),
    "plain20": (269_722, 40_551_040), "plain32": (464_154, 68_862_592), "plain44": (658_586, 97_174_144),
    "plain56": (853_018, 125_485_696), "plain110": (1_727_962, 252_887_680),
    "resnet20": (269_722, 40_551_040), "resnet32": (464_154, 68_862_592), "resnet44": (658_586, 97_174_144),
    "resnet56": (853_018, 125_485_696), "resnet110": (1_727_962, 252_887_680),
    "resnet18": (11_689_512, 1_814_073_344), "resnet34": (21_797_672, 3_663_761_408),
    "resnet50": (25_557_032, 4_089_184_256), "resnet101": (44_549_160, 7_801_405_440),
    "resnet152": (60_192_808, 11_513_626_624),
    "vgg11": (132_863_336, 7_609_090_048), "vgg11_bn": (132_868_840, 7_609_090_048),
    "vgg13": (133_047_848, 11_308_466_176), "vgg13_bn": (133_053_736, 11_308_466_176),
    "vgg16": (138_357_544, 15_470_264_320), "vgg16_bn": (138_365_992, 15_470_264_320),
    "vgg19": (143_667_240, 19_632_062_464), "vgg19_bn": (143_678_248, 19_632_062_464),
}
# Table 6 of He et al. 2016: millions of parameters.
MILLIONS = {"resnet20": 0.27, "resnet32": 0.46, "resnet44": 0.66, "resnet56": 0.85, "resnet110": 1.7}
# Sizes to train on here, where those of the network's own would take long.
SMALL = {name: (64, 80, 3) for name in TORCHVISION} | {"alexnet": (64, 72, 3), "alexnet2012": (67, 67, 3)}
NOISE = np.random.default_rng(0).standard_normal(2**20 - 3, np.float32)  # to be repeated: drawing takes longest of all
OURS = {"lenet", "mlp", "convnet", "cifar_vgg"}  # nobody else has published them


def drawn(network: Network) -> dict[str, np.ndarray]:
    """Weights by which values hardly grow or vanish; batch normalisation with statistics unlike those at the start."""
    values = {}
    for name, p in network.parameters().items():
        noise = np.resize(NOISE, p.shape)
        if name.endswith("running_var"):
            noise = 1 + np.tanh(noise) / 2
        elif len(p.shape) == 1:
            noise = noise / 10 + np.float32(name.endswith("weight"))
        else:
            noise *= np.float32((1.5 / np.prod(p.shape[1:])) ** 0.5)
        values[name] = noise
    return values


def as_module(name: str, classes: int, values: dict, **options) -> torch.nn.Module:
    """The published network with these parameters, which it shares. Its names must be the zoo's, counters aside."""
    with torch.device("meta"):
        module = MODULES[name](classes, **options)
    counters = {k: torch.tensor(0) for k in module.state_dict() if k.endswith("num_batches_tracked")}
    module.load_state_dict({k: torch.from_numpy(v) for k, v in values.items()} | counters, assign=True)
    return module.eval()


def nchw(x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 1)))


def test_every_network_has_its_counts_here():
    assert set(zoo.names()) == set(COUNTS)
    assert set(MODULES) == set(COUNTS) - OURS


def test_the_page_has_each_networks_counts():
    page = Path(__file__).resolve().parent.parent / "docs" / "zoo.md"
    row = r"^\| `(\w+)` \| ([\dx]+), (\d+) \| ([\d,]+) \| ([\d,]+) \| \S.* \|$"
    rows = re.findall(row, page.read_text(), re.MULTILINE)
    written = {name: (shape, classes, parameters, macs) for name, shape, classes, parameters, macs in rows}
    expected = {}
    for name, (parameters, macs) in COUNTS.items():
        net = zoo.build(name)
        shape = "x".join(map(str, net.input_shape))
        expected[name] = shape, str(net.output_shape[0]), f"{parameters:,}", f"{macs:,}"
    assert written == expected and len(rows) == len(written)


@pytest.mark.parametrize("name", COUNTS)
def test_counts(name):
    net = zoo.build(name)
    assert (net.parameter_count, sum(net.macs.values())) == COUNTS[name]
    if name in MILLIONS:
        assert round(net.parameter_count / 1e6, 1 if name == "resnet110" else 2) == MILLIONS[name]


@pytest.mark.parametrize("name", MODULES)
def test_names_and_shapes_are_the_modules(name):
    with torch.device("meta"):
        expected = shapes(MODULES[name](1000))
    assert {k: p.shape for k, p in zoo.build(name, classes=1000).parameters().items()} == expected


@pytest.mark.parametrize("name", zoo.names())
def test_a_network_trains_saves_and_agrees(name, tmp_path):
    """JSON, logits, a training step and a file; logits and loss are also those of the published PyTorch module."""
    net = zoo.build(name, input_shape=SMALL.get(name), classes=3)
    assert net.output_shape == (3,)
    assert Network.from_json(json.loads(json.dumps(net.to_json()))) == net
    model, values = pellucid.Model(net, seed=None), drawn(net)
    model.load_parameters(values)
    rng = np.random.default_rng(1)
    images, labels = rng.standard_normal((2, *net.input_shape), np.float32), np.array([0, 2])
    module = as_module(name, 3, values) if name in MODULES and name != "alexnet2012" else None
    if module:
        check_logits(model, module, images)
    if name in TORCHVISION:  # the same weights read images of any size
        large = pellucid.Model(zoo.build(name, classes=3), seed=None)
        large.load_parameters(values)
        check_logits(large, module, rng.standard_normal((1, 224, 224, 3), np.float32))
        del large
    if net.parameter_count < 3e6:
        model.save(tmp_path / "m.safetensors")
        again = pellucid.load(tmp_path / "m.safetensors")
        assert again.network == net
        np.testing.assert_array_equal(again.logits(images), model.logits(images))
    loss = pellucid.TrainStep(model, batch_size=2, optimizer=pellucid.optim.SGD(lr=0.01))(images, labels)
    trained = [k for k, p in net.parameters().items() if p.trainable]
    for k in (trained[0], trained[-1]):
        assert not np.array_equal(model.parameters[k], values[k]) and np.isfinite(model.parameters[k]).all()
    if module and not any(isinstance(n.layer, Dropout) for n in net.nodes):
        with torch.inference_mode():
            expected = F.cross_entropy(module.train()(nchw(images)), torch.tensor(labels)).item()
        # Statistics of few values, 110 layers deep: PyTorch in float32 differs by 2e-3 from itself in float64.
        assert loss == pytest.approx(expected, rel=5e-3 if name == "plain110" else 2e-4)
    assert np.isfinite(loss)


def check_logits(model, module, images):
    with torch.inference_mode():
        expected = module(nchw(images)).numpy().astype(np.float64)
    got = model.logits(images)
    assert np.abs(got - expected).max() <= 1e-4 * np.abs(expected).max() and expected.std() > 0


@pytest.mark.parametrize("side", [227, 224])
def test_the_network_of_2012_reads_both_sizes(side):
    net = zoo.build("alexnet2012", input_shape=(side, side, 3), classes=5)
    assert net.shapes["conv1"] == (55, 55, 96)
    model = pellucid.Model(net, seed=None)
    model.load_parameters(values := drawn(net))
    # Large values, so that the normalisation does something.
    images = 30 * np.random.default_rng(3).standard_normal((1, side, side, 3), np.float32)
    check_logits(model, as_module("alexnet2012", 5, values, side=side).eval(), images)


def test_lenet5_has_the_papers_counts():
    """Section II-B: trainable parameters of each layer, and the connections of all (multiplications and biases)."""
    net = zoo.build("lenet5")
    counts = {}
    for name, count in net.parameter_counts.items():
        counts[name.partition(".")[0]] = counts.get(name.partition(".")[0], 0) + count
    assert list(counts.values()) == [156, 0, 12, 0, 1516, 0, 32, 0, 48_120, 0, 0, 10_164, 0, 840]
    biases = sum(np.prod(net.shapes[n.name]) for n in net.nodes if "bias" in n.layer.parameters(*net.input_shapes(n)))
    summed = 3 * (14 * 14 * 6 + 5 * 5 * 16)  # the paper counts all four pixels of a mean
    assert sum(net.macs.values()) + biases + summed == 340_908


@pytest.mark.parametrize(("shape", "border"), [((32, 32, 1), 0), ((28, 28, 1), 2), ((29, 30, 1), None),
                                               ((40, 33, 3), 0)])
def test_lenet5_gives_small_images_a_border(shape, border):
    net = zoo.build("lenet5", input_shape=shape)
    assert net.shapes["c5"][:2] == tuple(max(n - 28, 4) // 4 for n in shape[:2])
    assert border is None or net.node("c1").layer.padding == ((border, border),) * 2
    with pytest.raises(ValueError, match="at least 28 pixels a side, got \\(27, 40, 1\\)"):
        zoo.build("lenet5", input_shape=(27, 40, 1))
