"""What training chooses where nothing is asked for: mirroring, network, width, size of pictures, optimiser. And that
all of it together resumes to the bit."""

import json
from dataclasses import replace

import numpy as np
import pytest
from shapes_data import CLASSES, pictures
from test_fit import assert_same_tensors, interrupt_at, small

from pellucid import data as datasets
from pellucid import optim, zoo
from pellucid.cli import main
from pellucid.estimator import ImageClassifier
from pellucid.layers import BatchNorm, Conv, Dense, Flatten, GlobalAvgPool, MaxPool, ReLU
from pellucid.model import Model, load
from pellucid.network import Network, Sequential
from pellucid.training import engines, gradients, handedness, measuring, plan, recipes
from pellucid.training.fit import fit


@pytest.fixture(scope="module")
def data():
    return datasets.to_dataset("shapes", *pictures(), classes=CLASSES)


class TestHandedness:
    def test_letters_are_told_from_their_mirror_images_and_noise_is_not(self):
        rng = np.random.default_rng(0)
        stroke = np.zeros((12, 12))
        stroke[2:10, 3] = stroke[9, 3:8] = 200  # an L
        letters = np.clip(stroke + rng.normal(0, 40, (300, 12, 12)), 0, 255).astype(np.uint8)[..., None]
        assert handedness.told_apart(letters) > 0.95
        assert handedness.told_apart(rng.integers(0, 256, (600, 12, 12, 3), dtype=np.uint8)) < 0.6

    def test_nothing_is_said_of_few_images_or_symmetric_ones(self):
        few = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 1), dtype=np.uint8)
        assert handedness.told_apart(few) is None
        for width in (8, 32, 33, 35, 49, 64):  # as whole blocks of pixels, and not
            half = np.random.default_rng(width).integers(0, 256, (50, 9, width // 2, 2), dtype=np.uint8)
            middle = half[:, :, :width % 2]
            assert handedness.told_apart(np.concatenate([half, middle, half[:, :, ::-1]], axis=2)) == 0.5

    def test_what_is_said_is_what_was_asked(self):
        rng = np.random.default_rng(0)
        for count, size, said in ((20, 8, "too few"), (90, 8, "linear classifier"), (90, 7, None)):
            data = datasets.to_dataset("noise", rng.integers(0, 256, (count, size, size, 1)), np.arange(count) % 2)
            notes = " ".join(fit("mlp", data, epochs=1, out=False).setup.notes)
            assert ("mirrored" in notes) == (said is not None) and (said or "") in notes

    def test_digits_are_not_mirrored(self):
        run = fit("lenet", "digits", epochs=1, out=False)
        assert not run.setup.mirror and "not mirrored" in run.setup.notes[0]

    def test_a_mirror_that_is_asked_for_is_not_questioned(self, data):
        run = fit(small(), data, epochs=1, mirror=True, out=False)
        assert run.setup.mirror and "linear classifier" not in " ".join(run.setup.notes) and run.model.tta == "mirror"


class TestRecipes:
    def test_networks_suit_the_images(self):
        names = {shape: recipes.networks(shape, recipes.RECIPES["standard"])[0] for shape in (
            (7, 9, 1), (8, 8, 1), (28, 28, 1), (32, 32, 3), (64, 48, 1))}
        assert [name for name, _ in names.values()] == ["mlp", "lenet", "convnet", "convnet", "convnet"]
        for shape, (name, options) in names.items():
            assert zoo.build(name, input_shape=shape, classes=5, **options).output_shape == (5,)

    @pytest.mark.parametrize("channels, given, expected", [(1, None, 0.1), (3, None, 0.2), (3, 0.0, 0.0)])
    def test_labels_of_colour_images_are_smoothed_more(self, channels, given, expected):
        images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, channels))
        noise = datasets.to_dataset("noise", images, np.arange(40) % 2)
        assert fit("mlp", noise, epochs=1, label_smoothing=given, out=False).setup.label_smoothing == expected

    def test_less_time_gives_a_narrower_network(self, monkeypatch):
        rng = np.random.default_rng(0)
        data = datasets.to_dataset("noise", rng.integers(0, 256, (300, 32, 32, 3), dtype=np.uint8),
                                   np.arange(300) % 2)

        class Enough(Exception):
            pass

        def stop(setup, folder):
            raise Enough(setup)

        widths = []
        for seconds in (1, 30, 1000):
            # As if a multiply-add took a picosecond: the widest network needs 0.4 s a step.
            monkeypatch.setattr("pellucid.training.fit.measure", lambda setup, parts, engine, seconds: plan.Pace(
                sum(setup.network.macs.values()) * 2.6e-9, 0.0, 0.0))
            with pytest.raises(Enough) as chosen:
                fit(data=data, time=seconds, out=False, on_start=stop)
            widths.append(chosen.value.args[0].network.node("conv2").layer.filters)
        assert widths == sorted(widths) and widths[0] == 16 and widths[2] == 64
        assert "width 64" in " ".join(chosen.value.args[0].notes)

    def test_a_wider_network_that_may_fit_is_timed(self, monkeypatch):
        """Width 32 can take only 1.3 times as long as 16, which multiply-adds do not tell."""
        rng = np.random.default_rng(0)
        data = datasets.to_dataset("noise", rng.integers(0, 256, (300, 32, 32, 3), dtype=np.uint8),
                                   np.arange(300) % 2)
        timed = []

        class Enough(Exception):
            pass

        def stop(setup, folder):
            raise Enough(setup)

        def measure(setup, parts, engine, seconds):
            timed.append(setup.network.node("conv2").layer.filters)
            return plan.Pace({16: 1.0, 32: 1.3}[timed[-1]], 0.0, 0.0)

        monkeypatch.setattr("pellucid.training.fit.measure", measure)
        epoch = plan.plan(len(datasets.split(data, 0).train)).epoch_steps
        with pytest.raises(Enough) as chosen:
            fit(data=data, time=epoch * 8, out=False, on_start=stop)
        assert timed == [16, 32] and chosen.value.args[0].network.node("conv2").layer.filters == 32

    def test_time_that_is_reserved_is_not_trained_in(self, data, monkeypatch):
        class Enough(Exception):
            pass

        def stop(setup, folder):
            raise Enough(setup)

        monkeypatch.setattr("pellucid.training.fit.measure", lambda *arguments: plan.Pace(0.01, 0.0, 0.0))
        steps = []
        for reserve in (0.0, 10.0, 1000.0):
            with pytest.raises(Enough) as chosen:
                fit(small(), data, time=100, reserve=reserve, batch_size=16, out=False, on_start=stop)
            steps.append(chosen.value.args[0].plan.steps)
        assert 0.87 < steps[1] / steps[0] < 0.93 and 0.77 < steps[2] / steps[0] < 0.83  # a fifth at most

    def test_effort_is_in_epochs(self, data):
        assert [plan.plan(60_000, effort=effort).epochs for effort in (0.5, 1.0, 3.0)] == [2, 5, 15]
        assert fit(small(), data, recipe="fast", batch_size=64, out=False, patience=0).setup.plan.epochs == 30
        with pytest.raises(ValueError, match="best"):
            fit(small(), data, recipe="worst", out=False)

    @pytest.mark.parametrize("name", ["mirror", "balance", "averaging"])
    @pytest.mark.parametrize("value", ["off", 0, 1])
    def test_yes_and_no_are_nothing_else(self, data, name, value):
        with pytest.raises(ValueError, match=name):
            fit(small(), data, out=False, **{name: value})


class TestOptimizer:
    @pytest.mark.parametrize("body, muon", [
        (Sequential(Conv(4, 3), BatchNorm(), ReLU(), Conv(4, 3), MaxPool(2), BatchNorm(), Flatten(), Dense(3)), True),
        (Sequential(Conv(4, 3, trainable=False), ReLU(), Conv(4, 3), BatchNorm(), Flatten(), Dense(3)), True),
        (Sequential(Conv(4, 3), ReLU(), BatchNorm(), Flatten(), Dense(3)), False),
        (Sequential(Conv(4, 3), BatchNorm(), Conv(4, 3), Flatten(), Dense(3)), False),
        (Sequential(Flatten(), Dense(4), BatchNorm(), Dense(3)), False),
    ])
    def test_muon_is_for_convolutions_that_are_normalised(self, body, muon):
        network, made = Network.build((8, 8, 1), body), plan.Plan(128, 10, 400)
        found = recipes.optimizer(network, made)
        assert isinstance(found, optim.Muon if muon else optim.SGD)
        assert isinstance(recipes.optimizer(network, made, new=False), optim.SGD)
        highest = max(recipes.optimizer(network, made, 0.07).rate(step) for step in range(400))
        assert highest == pytest.approx(0.07, rel=1e-3)

    def test_of_networks_of_the_zoo(self):
        chosen = {name: type(recipes.optimizer(zoo.build(name, input_shape=(32, 32, 3)), plan.Plan(16, 9, 90)))
                  for name in ("convnet", "resnet20", "cifar_vgg", "lenet", "vgg11")}
        assert chosen == {"convnet": optim.Muon, "resnet20": optim.Muon, "cifar_vgg": optim.Muon, "lenet": optim.SGD,
                          "vgg11": optim.SGD}

    def test_muon_goes_with_the_root_of_the_batch(self):
        network = zoo.build("convnet")
        rates = [recipes.optimizer(network, plan.Plan(batch, 9, 90)).rate(0) for batch in (8, 128, 512)]
        assert rates == pytest.approx([recipes.MUON_LR / 8, recipes.MUON_LR / 2, recipes.MUON_LR])

    def test_biases_of_normalisations_learn_faster_under_muon_and_the_head_begins_small(self, data):
        network = zoo.build("convnet", input_shape=(8, 8, 1), classes=3, width=4)
        setup = fit(network, data, epochs=1, batch_size=32, out=False).setup
        assert setup.optimizer.others == recipes.OTHERS
        assert setup.factors == {f"{node.name}.bias": pytest.approx(recipes.BIAS_RATE / 4) for node in network.nodes
                                 if isinstance(node.layer, BatchNorm)}
        model, small = Model(network, 0), Model(network, 0)
        images = np.random.default_rng(0).integers(0, 255, (50, 8, 8, 1), dtype=np.uint8)
        for one, biases in ((model, 1.0), (small, setup.biases)):
            one.preprocessing = setup.preprocessing
            recipes.initialise(one, images, biases)
        for name, values in model.parameters.items():
            factor = recipes.HEAD if name == "dense1.weight" else 1
            np.testing.assert_allclose(small.parameters[name], factor * values, rtol=1e-6)

    def test_but_not_under_an_optimiser_that_is_given(self, data):
        network = zoo.build("convnet", input_shape=(8, 8, 1), classes=3, width=4)
        setup = fit(network, data, epochs=1, batch_size=60, optimizer=optim.Muon(0.1), out=False).setup
        assert setup.biases == 1 and setup.factors == {}

    @pytest.mark.parametrize("end", [
        [Flatten(), Dense(5), ReLU(), Dense(3)],  # most parameters may be in the first
        [Conv(3, 3), BatchNorm(), GlobalAvgPool()],  # nothing makes the gradients small
    ])
    def test_nor_where_the_last_layer_is_not_the_only_dense_one(self, end):
        network, made = Network.build((8, 8, 1), Sequential(Conv(4, 3), BatchNorm(), *end)), plan.Plan(512, 10, 400)
        chosen = recipes.optimizer(network, made)
        assert chosen == optim.Muon(chosen.lr) and recipes.bias_rate(network, chosen, made) == 1

    def test_gradients_before_training_are_those_of_the_run(self, data):
        network = zoo.build("convnet", input_shape=(8, 8, 1), classes=3, width=4)
        run = fit(network, data, epochs=1, batch_size=32, out=False)
        usual = gradients.of_run(replace(run.setup, biases=1.0), run.parts.train, run.model)
        for one, other in zip(gradients.of_run(run.setup, run.parts.train, run.model), usual, strict=True):
            ratio = one.start / other.start
            assert (0.5 < ratio < 2) if one.layer == "dense1" else ratio < 0.3


class TestTTA:
    @pytest.mark.parametrize("options, expected", [
        ({"mirror": True}, "mirror"), ({"mirror": False}, "none"), ({"mirror": True, "tta": False}, "none"),
        ({"mirror": False, "tta": True}, "mirror"), ({"mirror": False, "tta": "shifts"}, "shifts"),
        ({"mirror": True, "recipe": "best"}, "shifts"), ({"mirror": False, "recipe": "best"}, "none"),
        ({"mirror": True, "recipe": "best", "tta": "mirror"}, "mirror"),
        ({"mirror": True, "recipe": "best", "shift": 0}, "mirror"),
        ({"mirror": True, "shift": 0, "tta": "shifts"}, "shifts")])
    def test_goes_with_mirroring_unless_asked(self, data, options, expected, tmp_path):
        run = fit(small(), data, epochs=1, out=tmp_path / "run", **options)
        assert run.model.tta == run.setup.tta == expected
        more = fit(data=data, out=tmp_path / "run", resume=True, epochs="+1")
        assert more.model.tta == expected == load(tmp_path / "run" / "best.safetensors").tta

    def test_the_command_line(self, monkeypatch, tmp_path):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(SystemExit) as ended:
            main(["train", "digits", "--epochs", "1", "--tta", "shifts", "--out", "run"])
        assert ended.value.code == 0 and load("run/best.safetensors").tta == "shifts"

    def test_an_unknown_one_is_refused_before_anything_is_read(self, capsys):
        with pytest.raises(ValueError, match="tta must be one of none, mirror, shifts, got 'no'"):
            fit(data="no such folder", tta="no")
        with pytest.raises(SystemExit) as ended:
            main(["train", "no such folder", "--tta", "no"])
        assert ended.value.code == 2 and "--tta must be one of none, mirror, shifts" in capsys.readouterr().err

    @pytest.mark.parametrize("old, expected", [(True, "mirror"), (False, "none")])
    def test_older_runs_resume(self, data, old, expected, tmp_path):
        fit(small(), data, epochs=3, batch_size=16, tta=old, out=tmp_path / "run", progress=interrupt_at(4))
        config = tmp_path / "run" / "config.json"
        settings = json.loads(config.read_text())
        assert settings["tta"] == expected
        config.write_text(json.dumps({**settings, "tta": old}))
        run = fit(data=data, out=tmp_path / "run", resume=True)
        assert not run.interrupted and run.model.tta == run.setup.tta == expected

    @pytest.mark.parametrize("tta, times", [("none", 1), ("mirror", 1), ("shifts", 5)])
    def test_the_plan_allows_for_all_views_in_the_test(self, data, tta, times):
        run = fit(small(), data, epochs=1, tta=tta, out=False)
        pace = measuring.measure(run.setup, run.parts, engines.choose(), 0.05)
        validation, test = len(run.parts.validation), len(run.parts.test)
        assert pace.end / pace.epoch == pytest.approx(times * (validation + test) / validation)

    def test_shifts_do_not_choose_the_epoch(self, data, monkeypatch):
        """Validation after each epoch would take five times as long."""
        asked, real = [], Model._scores
        monkeypatch.setattr(Model, "_scores", lambda model, images: asked.append(len(images)) or real(model, images))
        parts = fit(small(), data, epochs=3, mirror=True, tta="shifts", out=False).parts
        # After each epoch, for the calibration, and in the test.
        assert sum(asked) == (3 * 2 + 10) * len(parts.validation) + 10 * len(parts.test)


def test_a_scikit_learn_classifier_learns_as_train_does():
    """A network that moves by Muon, with the rates and the beginning that belong to it."""
    images, labels = pictures(400, size=16, seed=3)
    images = np.repeat(images, 3, axis=3)
    network = zoo.build("convnet", input_shape=(16, 16, 3), classes=3, width=8)
    trained = ImageClassifier(network, epochs=12, random_state=0).fit(images[:300], labels[:300])
    assert trained.score(images[300:], labels[300:]) > 0.8


@pytest.mark.parametrize("stop", [3, 9])
def test_what_is_chosen_by_itself_resumes_to_the_bit(tmp_path, stop):
    """Whitening, Muon, averaging and test-time augmentation together."""
    images, labels = pictures(300, size=16, seed=3)
    data = datasets.to_dataset("few", np.repeat(images, 3, axis=3), labels, classes=CLASSES)
    network = zoo.build("convnet", input_shape=(16, 16, 3), classes=3, width=4)
    settings = dict(epochs=40, batch_size=64, mirror=True, seed=2, patience=0)
    whole = fit(network, data, **settings, out=tmp_path / "whole")
    assert isinstance(whole.setup.optimizer, optim.Muon) and whole.setup.tta == "mirror"
    fit(network, data, **settings, out=tmp_path / "parts", progress=interrupt_at(stop))
    fit(data=data, out=tmp_path / "parts", resume=True)
    for name in ("best.safetensors", "last.safetensors"):
        assert_same_tensors(tmp_path / "whole" / name, tmp_path / "parts" / name)


def test_images_of_less_than_8_pixels_are_too_small_for_a_convnet():
    with pytest.raises(ValueError, match="8 pixels"):
        zoo.build("convnet", input_shape=(7, 20, 3))
    with pytest.raises(ValueError, match="8 pixels"):
        zoo.build("convnet", input_shape=())
    for width in (0, "64", True):
        with pytest.raises(ValueError, match="width"):
            zoo.build("convnet", width=width)
    assert zoo.build("convnet", input_shape=(8, 8, 1)).output_shape == (10,)


def test_less_time_gives_smaller_pictures(tmp_path, monkeypatch):
    """As if every step took a time that goes by its pixels: 64x64 is too slow for the narrowest network, 48x48 not."""
    from PIL import Image

    monkeypatch.setenv("PELLUCID_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(24):
            pixels = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{number}.png")
    monkeypatch.setattr("pellucid.training.fit.measure", lambda setup, parts, engine, seconds: plan.Pace(
        15.0 if setup.network.input_shape[0] == 64 else 0.01, 0.0, 0.0))
    seen = []
    run = fit(data=tmp_path / "photos", time=60, out=False, seed=1, patience=1, on_start=lambda s, _: seen.append(s))
    assert run.setup.network.input_shape == (48, 48, 3) and len(seen) == 1
    asked = fit(data=tmp_path / "photos", time=30, size=64, out=False, patience=1)
    assert asked.setup.network.input_shape == (64, 64, 3)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_few_pictures_are_learned(seed):
    """The default rate on a small folder. Validation may be bad on the way, where the rate is high; not at the end."""
    images, labels = pictures(100, size=32, seed=3)
    data = datasets.to_dataset("few", np.repeat(images, 3, axis=3), labels, classes=CLASSES)
    run = fit(data=data, epochs=12, out=False, recipe="fast", seed=seed)
    assert run.setup.network_name == "convnet" and run.setup.plan.batch_size == 16
    assert run.history[-1]["validation_loss"] < 0.7 * np.log(3)
    assert run.test_accuracy > 0.8
