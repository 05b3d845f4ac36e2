"""The PyTorch engine: every layer and optimiser has its counterpart, and whole runs are the native engine's."""

import json
import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from shapes_data import CLASSES, pictures
from test_layers import CASES, seeds
from test_train_step import FULL, OPTIMISERS
from three_ways import STEP, Results, by_definition, compare, normals, parameters, trainable, within

import pellucid
from pellucid import Diverged, Model, Network, Preprocessing, TrainStep, optim, schedules, zoo
from pellucid import data as datasets
from pellucid.cli import main
from pellucid.engine import library as loader
from pellucid.layers import BatchNorm, Conv, Dense, Dropout, Flatten, GlobalAvgPool, MaxPool, ReLU
from pellucid.layers.base import LAYERS, Layer
from pellucid.network import Node, Residual, Sequential
from pellucid.torch_engine import device_of, precision_of
from pellucid.torch_modules import COUNTERPARTS, NetworkModule, unmatched
from pellucid.training import engines
from pellucid.training import torch_step as torch_steps
from pellucid.training.batches import batches
from pellucid.training.fit import fit
from pellucid.training.torch_step import TorchStep

SGD = optim.SGD(0.01, momentum=0.9, nesterov=True, weight_decay=5e-4)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Threads that wait for each other on a busy machine take more time than such small networks."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data():
    return datasets.to_dataset("shapes", *pictures(), classes=CLASSES)


# Layers.


def test_every_layer_and_every_optimiser_has_a_counterpart():
    assert not unmatched()
    assert len(COUNTERPARTS) == len([k for k in LAYERS.values() if k.__module__.startswith("pellucid.")])
    assert {kind.__name__ for kind in torch_steps.OPTIMISERS} == {
        name for name, kind in optim.OPTIMISERS.items() if kind.__module__.startswith("pellucid.")}


def test_a_layer_without_a_counterpart_would_be_seen(monkeypatch):
    monkeypatch.delitem(COUNTERPARTS, "Conv")
    assert unmatched() == {"Conv"}


def by_module(network, values, x, dy, training) -> Results:
    """As the functions of `three_ways`, by the engine's module in float64."""
    module = NetworkModule(network).double().train(training)
    assert set(module.state_dict()) == set(values)
    module.load_state_dict({name: torch.tensor(v, dtype=torch.float64) for name, v in values.items()})
    module.dropped_by(STEP, 0)
    tensor = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    y = module(tensor)
    learned = {n: p for n, p in module.named_parameters() if p.requires_grad}
    dx, *grads = torch.autograd.grad(y, [tensor, *learned.values()], torch.tensor(dy, dtype=torch.float64))
    statistics = {n: t.numpy() for n, t in module.state_dict().items() if n not in trainable(network)}
    return Results({network.output: y.detach().numpy()}, dx.numpy(),
                   {n: g.numpy() for n, g in zip(learned, grads, strict=True)}, statistics)


@pytest.mark.parametrize("kind", sorted(CASES))
@settings(max_examples=8, deadline=None)
@given(data=st.data(), seed=seeds)
def test_modules_are_the_layers_definitions(kind, data, seed):
    case = data.draw(CASES[kind])
    rng = np.random.default_rng(seed)
    values = parameters(case.network, rng)
    x, dy = normals(rng, case.n, *case.network.input_shape), normals(rng, case.n, *case.network.output_shape)
    for training in (False, True) if case.trains else (False,):
        expected = by_definition(case.network, values, x, dy, training=training)
        compare(by_module(case.network, values, x, dy, training), expected, within(1e-9))


def test_a_layer_it_does_not_know_is_refused_by_name():
    class Unheard(Layer):
        pass

    network = Network((4, 4, 1), (Node("odd1", Unheard()),))
    del LAYERS["Unheard"]
    with pytest.raises(ValueError, match="layer 'odd1': Unheard has no counterpart in PyTorch here; there are .*Add,"):
        NetworkModule(network)


@pytest.mark.parametrize("name", ["train", "a.weight"])
def test_names_that_pytorch_has_no_room_for(name):
    nodes = (Node("a", Dense(4)), Node(name, Dense(4), ("a",)))
    with pytest.raises(ValueError, match=f"layer '{name}': .*another"):
        NetworkModule(Network((3,), nodes))


# Steps.

# Shapes, and how far losses may be apart: in a deep network rounding takes a value or two to the other side of a ReLU,
# and with it a part of the gradients of all layers before.
ZOO = {"lenet": ((16, 16, 1), 2e-4), "convnet": ((16, 16, 3), 5e-3), "cifar_resnet18": ((16, 16, 3), 5e-3),
       "mlp": ((8, 8, 1), 2e-4)}


def steps(network, optimizer=SGD, batch=8, **options):
    """A native step and PyTorch's, from the same weights."""
    models = [Model(network, 3) for _ in range(2)]
    return [kind(model, batch, optimizer, seed=5, **options)
            for kind, model in zip((TrainStep, TorchStep), models, strict=True)]


def batch(network, n=8, seed=0):
    rng = np.random.default_rng(seed)
    return normals(rng, n, *network.input_shape), rng.integers(0, network.output_shape[0], n)


def agree(pair, count, tolerance=2e-4):
    """Losses, parameters, gradients and the optimiser's state stay together over some steps; the latter two where
    the tolerance is low."""
    native, other = pair
    for i in range(count):
        x, labels = batch(native.model.network, native.batch_size, i)
        assert other(x, labels) == pytest.approx(native(x, labels), rel=tolerance, abs=tolerance)
        assert other.lr == native.lr
    pairs = [(native.model.parameters, other.model.parameters)]
    if tolerance < 1e-3:
        pairs += [(native.gradients(), other.gradients()), (native.state(), other.state())]
    for ours, theirs in pairs:
        assert ours.keys() == theirs.keys()
        for name, value in ours.items():
            within(10 * tolerance)(name, theirs[name], value)
    within(50 * tolerance)("logits", other.model.logits(x), native.model.logits(x))


@pytest.mark.parametrize("name", ZOO)
def test_steps_of_networks_of_the_zoo_are_the_native_ones(name):
    shape, tolerance = ZOO[name]
    network = zoo.build(name, input_shape=shape, classes=4, **({"width": 16} if name == "convnet" else {}))
    agree(steps(network, optim.SGD(0.002, momentum=0.9, nesterov=True, weight_decay=5e-4), label_smoothing=0.1,
                class_weights=[0.5, 1.0, 2.0, 1.5]), 3, tolerance)


@pytest.mark.parametrize("optimizer", [*(ours for ours, _ in OPTIMISERS.values()), optim.Muon(0.05)], ids=str)
def test_steps_of_every_optimiser(optimizer):
    """With layers that learn slower, and dropout."""
    network = Network.build((6, 6, 3), FULL)
    agree(steps(network, optimizer, label_smoothing=0.1, factors={"conv1.weight": 0.1, "conv1.bias": 0.0}), 6, 5e-5)


def test_a_schedule_sets_the_rate():
    agree(steps(Network.build((6, 6, 3), FULL), optim.SGD(schedules.Cosine(0.01, steps=5))), 5, 5e-5)


def test_dropout_drops_what_the_native_one_drops():
    network = Network.build((40,), Sequential(Dropout(0.5), Dense(3), Dropout(0.2)))
    agree(steps(network, optim.SGD(0.1)), 4, 1e-6)
    first, second = steps(network, optim.SGD(0.0)), steps(network, optim.SGD(0.0))
    second[1].seed = 6
    assert first[1](*batch(network)) != pytest.approx(second[1](*batch(network)), rel=1e-3)


def test_uint8_images_are_preprocessed():
    pre = Preprocessing((6, 6, 3), (0.5, 0.4, 0.3), (0.25, 0.5, 0.2))
    images = np.random.default_rng(0).integers(0, 256, (8, 6, 6, 3), np.uint8)
    network, labels = Network.build((6, 6, 3), FULL), np.arange(8) % 4
    a, b = (TorchStep(Model(network, preprocessing=pre), 8, SGD)(x, labels) for x in (images, pre.apply(images)))
    assert a == pytest.approx(b, abs=1e-6)
    assert a == pytest.approx(TrainStep(Model(network, preprocessing=pre), 8, SGD)(images, labels), abs=1e-5)


def test_writing_to_the_model_reaches_the_device():
    native, other = steps(Network.build((6, 6, 3), FULL))
    x, labels = batch(native.model.network)
    for step in (native, other):
        step(x, labels)
        step.model.load_parameters({n: v * np.float32(0.5) for n, v in step.model.parameters.items()})
    assert other(x, labels) == pytest.approx(native(x, labels), abs=1e-5)


def test_a_step_that_is_not_finite_changes_nothing():
    _, step = steps(Network.build((6, 6, 3), FULL))
    x, labels = batch(step.model.network)
    step(x, labels)
    before, state = {n: v.copy() for n, v in step.model.parameters.items()}, step.state()
    x[2, 1, 1, 0] = np.nan
    with pytest.raises(Diverged, match="step 2: the loss"):
        step(x, labels)
    assert step.steps == 1
    for old, now in ((before, step.model.parameters), (state, step.state())):
        for name, value in old.items():
            np.testing.assert_array_equal(now[name], value, name)


def test_a_gradient_that_is_not_finite():
    model = Model(Network.build((2,), Sequential(Dense(2), Dense(2))))
    model.load_parameters({"dense1.weight": np.array([[1, -1], [1, -1]]), "dense1.bias": np.zeros(2),
                           "dense2.weight": np.array([[10, 0], [0, 0]]), "dense2.bias": np.zeros(2)})
    with pytest.raises(Diverged, match="the gradient is not a finite number"):
        TorchStep(model, 3, optim.SGD(0.1))(np.full((3, 2), 3e38, np.float32), np.array([1, 1, 1]))


@pytest.mark.parametrize("change, text", [
    ({"batch_size": 0}, "batch_size"), ({"optimizer": type("Own", (optim.SGD,), {})(0.1)}, "has no Own; it has SGD"),
    ({"factors": {"nothing": 1.0}}, "nothing"), ({"class_weights": [1.0, 2.0]}, "2 class weights"),
])
def test_what_cannot_be_trained_is_refused(change, text):
    try:
        with pytest.raises(ValueError, match=text):
            TorchStep(**{"model": Model(Network.build((6, 6, 3), FULL)), "batch_size": 8, "optimizer": SGD, **change})
    finally:
        optim.OPTIMISERS.pop("Own", None)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision_learns_the_same_with_less(precision):
    """On the CPU, where it gains nothing; the code is that of GPUs, which were not there to run it."""
    network = Network.build((8, 8, 3), Sequential(Conv(16, 3), BatchNorm(), ReLU(), GlobalAvgPool(), Dense(4)))
    exact, mixed = (TorchStep(Model(network, 1), 16, SGD, precision=p) for p in ("float32", precision))
    seen = []
    mixed.copy.module.get_submodule("conv1").register_forward_hook(lambda m, i, y: seen.append(y.dtype))
    pairs = [(exact(*b), mixed(*b)) for b in (batch(network, 16, 0) for _ in range(12))]
    assert set(seen) == {getattr(torch, precision)}
    assert {v.dtype for v in mixed.model.parameters.values()} == {np.dtype(np.float32)}
    assert all(abs(a - b) < 0.1 for a, b in pairs) and any(a != b for a, b in pairs)
    assert pairs[-1][1] < pairs[0][1] - 0.05


# Whole runs.


def small():
    """Without biases before normalisation, whose gradients are rounding alone."""
    return Network.build((8, 8, 1), Sequential(
        Conv(8, 3, padding=1, bias=False), BatchNorm(), ReLU(),
        Residual(Sequential(Conv(8, 3, padding=1, bias=False), BatchNorm())), ReLU(),
        MaxPool(2), Flatten(), Dropout(0.2), Dense(3)))


def curve(run):
    return [[row[k] for k in ("train_loss", "validation_loss", "validation_accuracy")] for row in run.history]


@pytest.mark.parametrize("first, second", [("native", "torch"), ("torch", "native")])
@pytest.mark.parametrize("epochs, optimizer", [(20, optim.SGD(0.002, momentum=0.9)), (3, optim.Adam(0.002))],
                         ids=["averaged", "adam"])
def test_a_run_crosses_between_engines_both_ways(epochs, optimizer, first, second, data, tmp_path):
    """Stopped by Ctrl-C in the middle of an epoch and resumed by the other engine, it is the unbroken run."""
    settings = {"epochs": epochs, "optimizer": optimizer, "seed": 1, "batch_size": 4, "patience": 0}

    def stop(p):
        if p.step == 27:
            os.kill(os.getpid(), signal.SIGINT)

    whole = fit(small(), data, out=False, engine="native", **settings)
    assert bool(whole.setup.averaging) == (epochs == 20)
    half = fit(small(), data, out=tmp_path / "a", engine=first, progress=stop, **settings)
    assert half.interrupted and half.steps == 27
    run = fit(out=tmp_path / "a", data=data, resume=True, engine=second)
    assert not run.interrupted
    np.testing.assert_allclose(curve(run), curve(whole), rtol=2e-3, atol=2e-3)
    for name, value in whole.model.parameters.items():
        within(2e-3)(name, run.model.parameters[name], value)


def test_a_resumed_run_keeps_its_engine(data, tmp_path):
    fit(small(), data, epochs=1, out=tmp_path / "a", engine="torch", device="cpu", precision="float32")
    chosen = engines.again(tmp_path / "a", None, None, None)
    assert (chosen.device.type, chosen.precision) == ("cpu", "float32")
    assert isinstance(engines.again(tmp_path / "a", "native", None, None), engines.Native)
    for name, asked in ((None, "bfloat16"), ("torch", None), (None, "float32")):
        chosen = engines.again(tmp_path / "a", name, None, asked)
        assert (chosen.device.type, chosen.precision) == ("cpu", asked or "float32")
    assert engines.again(tmp_path / "a", None, None, "int16") == engines.Native("int16")
    model = pellucid.load(tmp_path / "a" / "best.safetensors")
    assert model.record["engine"] == "torch"


@pytest.mark.parametrize("name", [None, "native"])
def test_a_resumed_run_keeps_its_precision(data, tmp_path, name):
    fit(small(), data, epochs=1, out=tmp_path / "a", precision="float32")
    assert engines.again(tmp_path / "a", name, None, None) == engines.Native("float32")
    assert engines.again(tmp_path / "a", name, None, "int16") == engines.Native("int16")
    fit(small(), data, epochs=1, out=tmp_path / "b")
    assert engines.again(tmp_path / "b", name, None, None) == engines.Native("int16")
    config = tmp_path / "b" / "config.json"
    config.write_text(config.read_text().replace('"int16"', "null"))  # as runs were kept that knew no other
    assert engines.again(tmp_path / "b", name, None, None) == engines.Native("float32")
    config.write_text(config.read_text().replace('"precision": null', '"precision": "int7"'))
    with pytest.raises(ValueError, match="config.json: no precision is called 'int7'"):
        engines.again(tmp_path / "b", name, None, None)


def test_int16_without_kernels_is_not_pytorchs(monkeypatch):
    def none(*_):
        raise loader.NoKernels("no kernels here")

    monkeypatch.setattr(engines, "compiled", lambda: False)
    monkeypatch.setattr(engines, "library", none)
    with pytest.raises(loader.NoKernels):
        engines.choose(None, None, "int16")
    assert isinstance(engines.choose(None, None, "float32"), engines.Torch)


def test_batches_made_ahead_are_the_same_batches(data):
    settings = {"epochs": 3, "seed": 1, "out": False, "batch_size": 9, "mirror": True, "cutout": 2}
    plain = fit(small(), data, engine="torch", **settings)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(engines, "choose", lambda *_: engines.Torch(torch.device("cpu"), "float32", ahead=3))
        assert curve(fit(small(), data, engine="torch", **settings)) == curve(plain)


def test_batches_left_early_leave_no_threads(data):
    part = datasets.split(data, 0).train
    made = batches(part, lambda images, chosen: images, np.arange(40).reshape(10, 4), ahead=3)
    np.testing.assert_array_equal(next(made)[1], part.labels[:4])
    assert any(t.name.startswith("batches") for t in threading.enumerate())
    made.close()
    assert not any(t.name.startswith("batches") for t in threading.enumerate())
    failing = batches(part, lambda images, chosen: 1 / 0, [np.arange(2)], ahead=2)
    with pytest.raises(ZeroDivisionError):
        next(failing)


def test_commands_answer_by_the_engine_that_is_asked_for(data, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    np.savez("shapes.npz", images=data.images, labels=data.labels, classes=np.array(CLASSES))
    fit(small(), "shapes.npz", epochs=2, out="run")
    answers = []
    for options in ([], ["--engine", "torch"], ["--device", "cpu"]):
        for command in (["evaluate", "run", "shapes.npz"], ["predict", "run", "shapes.npz"]):
            with pytest.raises(SystemExit) as end:
                main([*command, "--json", *options])
            assert end.value.code == 0
            answers.append(json.loads(capsys.readouterr().out))
    for evaluated, predicted in ((answers[2], answers[3]), (answers[4], answers[5])):
        assert evaluated["log_loss"] == pytest.approx(answers[0]["log_loss"], abs=1e-5)
        assert evaluated["accuracy"] == answers[0]["accuracy"] and predicted.keys() == answers[1].keys()
    with pytest.raises(SystemExit) as end:
        main(["evaluate", "run", "shapes.npz", "--device", "cuda:99"])
    assert end.value.code == 1 and "no GPU number 99" in capsys.readouterr().err


# What is not there.


@pytest.mark.parametrize("arguments, text", [
    (("wrong",), "native, torch"), (("native", "cpu"), "native engine .* device cpu"),
    (("native", None, "bfloat16"), "native engine .* precision bfloat16"), (("torch", "cpu", "float8"), "float32, bf"),
    (("torch", "tpu"), "cpu, cuda"), ((None, "cuda:99"), "no GPU number 99"),
    (("torch", None, "int16"), "int16 is of the engine nat"), ((None, "cpu", "int16"), "int16 is of the engine nat"),
])
def test_engines_that_are_not_there(arguments, text):
    with pytest.raises(ValueError, match=text) as e:
        engines.choose(*arguments)
    assert "\n" not in str(e.value)


def test_devices(monkeypatch):
    assert device_of("cpu").type == "cpu" and precision_of(None, device_of("cpu")) == "float32"
    assert isinstance(engines.choose(None, None, None), engines.Native)
    assert engines.choose(None, "cpu").device.type == "cpu"
    for major, expected in ((9, "bfloat16"), (8, "bfloat16"), (7, "float16"), (6, "float32")):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, m=major: (m, 0))
        assert precision_of(None, torch.device("cuda")) == expected
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ValueError, match="no GPU by Metal"):
        device_of("mps")


def without(module: str, kernels: bool, code: str) -> subprocess.CompletedProcess:
    """Run code in a process in which a module is not installed, and maybe no kernels are."""
    start = f"import sys; sys.modules[{module!r}] = None\n" if module else ""
    if not kernels:
        start += "import pathlib; from pellucid.engine import library as l; l.FOLDER = pathlib.Path('nowhere')\n"
    return subprocess.run([sys.executable, "-c", start + code], capture_output=True, text=True, timeout=120)


TRAIN = "from pellucid.cli import main; main(['train', 'digits', '--epochs', '1', '--out', 'r', *{!r}])"


@pytest.mark.parametrize("kernels, options", [(True, ["--engine", "torch"]), (True, ["--device", "cuda"]),
                                              (False, [])])
def test_without_pytorch_one_line_says_how_to_get_it(kernels, options, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = without("torch", kernels, TRAIN.format(options))
    assert done.returncode == 1 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("pellucid: ") and "pip install 'pellucid[torch]'" in line
    assert not list(tmp_path.iterdir())


def test_without_kernels_pytorch_runs_instead(monkeypatch, tmp_path, data):
    x = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1), np.uint8)
    trained = fit(small(), data, epochs=1, tta="shifts", out=tmp_path / "a").model
    expected = trained.predict(x)
    loader.library.cache_clear()
    with monkeypatch.context() as patched:
        patched.setattr(loader, "FOLDER", tmp_path / "nowhere")
        assert isinstance(engines.choose(), engines.Torch)
        np.testing.assert_allclose(pellucid.load(tmp_path / "a" / "best.safetensors").predict(x), expected, atol=1e-5)
        assert fit(small(), data, epochs=1, out=False).test["count"] == 30
    assert isinstance(engines.choose(), engines.Native)


def test_importing_the_trainer_does_not_import_pytorch():
    done = without("", True, "import pellucid.training.fit, pellucid.cli, sys; print('torch' in sys.modules)")
    assert done.stdout == "False\n", done.stderr
