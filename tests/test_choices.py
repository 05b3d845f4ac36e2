"""What training can be asked for, and does by itself: changes to images, weights of classes, averages, more epochs,
other models' layers, stopping."""

import json

import numpy as np
import pytest
from shapes_data import CLASSES, pictures
from test_fit import assert_same_tensors, interrupt_at, small, tensors

from pellucid import data as datasets
from pellucid import schedules
from pellucid.layers import Dense, GlobalAvgPool
from pellucid.model import Model, load
from pellucid.network import Network, Sequential
from pellucid.optim import SGD
from pellucid.preprocessing import Preprocessing
from pellucid.training import average, recipes
from pellucid.training.augment import Augmentation, cut_out, shift
from pellucid.training.fit import fit
from pellucid.training.step import TrainStep


@pytest.fixture(scope="module")
def data():
    return datasets.to_dataset("shapes", *pictures(), classes=CLASSES)


class TestAugmentation:
    def test_mirrors_each_image_every_other_epoch(self):
        images = np.random.default_rng(0).integers(0, 256, (40, 5, 6, 3), dtype=np.uint8)
        chosen = np.arange(40)
        seen = [Augmentation(mirror=True).of_epoch(7, epoch, 40)(images, chosen) for epoch in (1, 2, 3)]
        turned = [(a[:, :, ::-1] == images).all(axis=(1, 2, 3)) for a in seen]
        kept = [(a == images).all(axis=(1, 2, 3)) for a in seen]
        assert (turned[0] ^ turned[1]).all() and (turned[0] == turned[2]).all() and (turned[0] ^ kept[0]).all()
        assert 5 < turned[0].sum() < 35

    def test_a_reflecting_shift_shows_what_lies_inside_the_border(self):
        row = np.arange(5, dtype=np.uint8).reshape(1, 1, 5, 1).repeat(5, axis=1)
        assert shift(row, np.array([[0, 2]]), reflect=True)[0, 2, :, 0].tolist() == [2, 1, 0, 1, 2]
        assert shift(row, np.array([[0, -1]]), reflect=True)[0, 2, :, 0].tolist() == [1, 2, 3, 4, 3]

    def test_cutout_paints_one_square_with_the_mean(self):
        images = np.random.default_rng(1).integers(0, 200, (30, 9, 7, 2), dtype=np.uint8)
        places = np.random.default_rng(2).random((30, 2))
        for image, place, result in zip(images, places, cut_out(images, places, 3), strict=True):
            y, x = int(place[0] * 9), int(place[1] * 7)
            expected = image.copy()
            expected[max(y - 1, 0):y + 2, max(x - 1, 0):x + 2] = np.rint(image.mean(axis=(0, 1)))
            np.testing.assert_array_equal(result, expected)

    def test_what_is_drawn_does_not_depend_on_the_batch(self):
        images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 1), dtype=np.uint8)
        change = Augmentation(2, True, 3).of_epoch(1, 4, 20)
        whole = change(images, np.arange(20))
        for chosen in (np.array([3, 17]), np.arange(5, 20)):
            np.testing.assert_array_equal(change(images[chosen], chosen), whole[chosen])


class TestClassWeights:
    def test_rare_classes_weigh_more_and_the_mean_over_images_is_one(self):
        labels = np.repeat([0, 1, 2], [90, 10, 40])
        weights, notes = recipes.class_weights(labels, ["a", "b", "c"], None)
        assert np.mean([weights[i] for i in labels]) == pytest.approx(1)
        assert weights[1] / weights[0] == pytest.approx(3) and weights[2] / weights[0] == pytest.approx(1.5)
        said = "'a' has 90 training images, 'b' has 10: rare classes weigh "
        assert notes == [said + "more"]
        assert recipes.class_weights(labels, ["a", "b", "c"], False) == (None, [said + "no more than others, as asked"])
        even = np.repeat([0, 1], [19, 10])
        assert recipes.class_weights(even, ["a", "b"], None) == recipes.class_weights(even, ["a", "b"], False)
        assert recipes.class_weights(even, ["a", "b"], None) == (None, [])
        assert recipes.class_weights(even, ["a", "b"], True)[0] is not None

    def test_a_step_follows_them(self):
        rng = np.random.default_rng(0)
        network = Network.build((2, 2, 3), Sequential(GlobalAvgPool(), Dense(2)))
        x, labels = rng.standard_normal((8, 2, 2, 3), np.float32), np.arange(8) % 2
        ends = []
        for weights in ((1.0, 0.0), (1.0, 1.0)):
            model = Model(network, seed=1)
            TrainStep(model, 8, SGD(0.5), class_weights=weights)(x, labels)
            ends.append(model.parameters["dense1.weight"].copy())
        # Without class 1 the step is half of one on the images of class 0 alone.
        model = Model(network, seed=1)
        TrainStep(model, 4, SGD(0.25))(x[labels == 0], labels[labels == 0])
        np.testing.assert_allclose(ends[0], model.parameters["dense1.weight"], rtol=0, atol=1e-6)
        assert np.abs(ends[0] - ends[1]).max() > 1e-3


def test_parameters_move_at_their_own_rate():
    network = Network.build((4,), Sequential(first=Dense(20), second=Dense(3)))
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((6, 4), np.float32), np.arange(6) % 3
    model, other = Model(network, seed=0), Model(network, seed=0)
    TrainStep(model, 6, SGD(0.4, momentum=0.9))(x, labels)
    before = {name: value.copy() for name, value in other.parameters.items()}
    step = TrainStep(other, 6, SGD(0.4, momentum=0.9), factors={"first.weight": 0.25, "first.bias": 0.0})
    step(x, labels)
    for name, factor in (("first.weight", 0.25), ("first.bias", 0), ("second.weight", 1), ("second.bias", 1)):
        full, moved = model.parameters[name] - before[name], other.parameters[name] - before[name]
        assert np.abs(full).max() > 1e-4
        np.testing.assert_allclose(moved, factor * full, rtol=0, atol=1e-7)
    with pytest.raises(ValueError, match="third.weight"):
        TrainStep(other, 6, SGD(0.1), factors={"third.weight": 1})
    for wrong in (-1, float("nan"), float("inf"), "a"):
        with pytest.raises(ValueError, match="factor"):
            TrainStep(other, 6, SGD(0.1), factors={"first.weight": wrong})
    for wrong in ("123", [1, "2", 3], [1, -1, 1], [1, np.nan, 1], [1, 1e300, 1], [1, 1]):
        with pytest.raises(ValueError, match="weights"):
            TrainStep(other, 6, SGD(0.1), class_weights=wrong)
    TrainStep(other, 6, SGD(0.1), class_weights=np.array([1.0, 2.0, 0.5]))


class TestAverage:
    def test_is_the_exponential_average_of_what_training_passed(self, data):
        model = Model(small(), seed=0)
        mean = average.Average(model, 10)
        expected = model.parameters["conv1.weight"].astype(np.float64).copy()
        rng = np.random.default_rng(0)
        for step in range(1, 301):
            model.buffer.arrays["conv1.weight"][...] += rng.normal(0, 0.1, (8, 1, 3, 3))
            mean.update(step)
            if step % average.EVERY == 0:
                keep = np.exp(-average.EVERY / min(10, max(step / 10, 1)))
                expected = keep * expected + (1 - keep) * model.parameters["conv1.weight"]
        now = model.parameters["conv1.weight"].copy()
        with mean.in_place():
            np.testing.assert_allclose(model.parameters["conv1.weight"], expected, atol=1e-5)
        np.testing.assert_array_equal(model.parameters["conv1.weight"], now)

    @pytest.mark.parametrize("stop", [123, 200])
    def test_resuming_keeps_it_to_the_bit(self, data, tmp_path, stop):
        settings = dict(epochs=21, batch_size=4, seed=2, patience=0)
        whole = fit(small(True), data, out=tmp_path / "whole", **settings)
        assert whole.setup.averaging == 10
        part = fit(small(True), data, out=tmp_path / "part", progress=interrupt_at(stop), **settings)
        assert part.interrupted and part.steps == stop
        fit(data=data, out=tmp_path / "part", resume=True)
        for name in ("best.safetensors", "last.safetensors"):
            assert_same_tensors(tmp_path / "whole" / name, tmp_path / "part" / name)
        assert any(name.startswith("optimizer.average.") for name in tensors(tmp_path / "part" / "last.safetensors"))


class TestMoreEpochs:
    def test_a_finished_run_goes_on_under_a_schedule_of_its_own(self, data, tmp_path):
        first = fit(small(), data, epochs=4, seed=1, out=tmp_path / "a")
        more = fit(data=data, out=tmp_path / "a", resume=True, epochs="+3")
        assert more.epochs == 7 and more.steps == first.steps // 4 * 7 and not more.interrupted
        assert [row["epoch"] for row in more.history] == list(range(1, 8))
        rates = [row["lr"] for row in more.history]
        assert rates[3] < rates[4] > rates[6] and max(rates[4:]) < max(rates[:4])
        config = json.loads((tmp_path / "a" / "config.json").read_text())
        assert config["epochs"] == 7 and config["result"]["test"] == more.test
        again = fit(data=data, out=tmp_path / "a", resume=True)  # nothing left
        assert again.steps == more.steps and again.test == more.test

    def test_and_resumes_to_the_same_bits(self, data, tmp_path):
        for name in ("whole", "part"):
            fit(small(), data, epochs=2, seed=1, out=tmp_path / name)
        whole = fit(data=data, out=tmp_path / "whole", resume=True, epochs="+2")
        fit(data=data, out=tmp_path / "part", resume=True, epochs="+2", progress=interrupt_at(whole.steps - 3))
        fit(data=data, out=tmp_path / "part", resume=True)
        assert_same_tensors(tmp_path / "whole" / "last.safetensors", tmp_path / "part" / "last.safetensors")

    @pytest.mark.parametrize("epochs", [5, "5", "+0", "+x", "-3", True])
    def test_other_numbers_are_refused(self, data, tmp_path, epochs):
        fit(small(), data, epochs=1, out=tmp_path / "a")
        with pytest.raises(ValueError, match="epochs"):
            fit(data=data, out=tmp_path / "a", resume=True, epochs=epochs)

    def test_the_schedule_is_data(self):
        cycle = schedules.OneCycle(0.4, 10)
        rate = schedules.InTurn(((cycle, 10), (0.1, 5), (cycle, 10)))
        assert [rate(s) for s in (0, 9, 10, 14, 15, 24)] == [cycle(0), cycle(9), 0.1, 0.1, cycle(0), cycle(9)]
        assert rate.last_begins == 15
        assert schedules.from_json(json.loads(json.dumps(rate.to_json()))) == rate
        for wrong in ((), 5, [(0.1, 0)], [(0.1,)], [("x", 1)], [({"kind": "x"}, 1)]):
            with pytest.raises(ValueError):
                schedules.InTurn(wrong)

    def test_again_and_again(self, data, tmp_path):
        """Each time a part more, and none inside another: a file may not be nested deeply."""
        fit(small(), data, epochs=1, out=tmp_path / "a")
        for _ in range(3):
            run = fit(data=data, out=tmp_path / "a", resume=True, epochs="+1")
        assert run.epochs == 4 and len(run.setup.optimizer.lr.parts) == 4
        assert load(tmp_path / "a" / "best.safetensors").record["steps"] == run.steps

    def test_an_epoch_that_time_cut_short_is_filled_up(self, data, tmp_path):
        short = fit(small(), data, time=1e-3, batch_size=4, out=tmp_path / "a")
        assert short.steps == 1
        longer = fit(data=data, out=tmp_path / "a", resume=True, epochs="+2")
        assert [row["step"] for row in longer.history] == [20, 40, 60]
        assert [row["epoch"] for row in longer.history] == [1, 2, 3]
        losses = []
        for name in ("b", "c"):  # the loss of the whole epoch, though a part of it was trained before
            fit(small(), data, time=1e-3, batch_size=4, out=tmp_path / name)
            run = fit(data=data, out=tmp_path / name, resume=True, epochs="+2",
                      progress=lambda p: losses.append(p.loss) if p.step == 20 else None)
            assert losses[-1] == run.history[0]["train_loss"] == longer.history[0]["train_loss"]


class TestPatience:
    def test_training_stops_when_validation_stalls(self, data, tmp_path):
        # At a rate of zero no epoch is better than the first.
        assert not fit(small(), data, epochs=3, patience=2, optimizer=SGD(0.0), out=False).stopped  # all were trained
        run = fit(small(), data, epochs=9, patience=2, optimizer=SGD(0.0), out=tmp_path / "a")
        assert run.epochs == 3 and run.stopped and not run.interrupted and run.test is not None
        assert run.to_json()["stopped_early"]
        again = fit(data=data, out=tmp_path / "a", resume=True)
        assert again.stopped and again.epochs == 3
        longer = fit(data=data, out=tmp_path / "a", resume=True, epochs="+1")
        assert longer.epochs == 4 and not longer.stopped
        longer = fit(data=data, out=tmp_path / "a", resume=True, epochs="+5")
        assert longer.epochs == 6 and longer.stopped  # stalls again, two epochs after

    def test_zero_waits_for_ever(self, data):
        assert fit(small(), data, epochs=15, patience=0, optimizer=SGD(0.0), out=False).epochs == 15


class TestBeginning:
    def test_all_layers_but_the_last_are_those_of_the_other_model(self, data, tmp_path):
        first = fit(small(True), data, epochs=3, out=tmp_path / "a")
        x, labels = pictures(60, seed=9)
        other = datasets.to_dataset("two", x, (labels > 0).astype(int), classes=["bar", "round"])
        begun = []
        run = fit(data=other, init=tmp_path / "a" / "best.safetensors", epochs=1, lr=1e-6, out=tmp_path / "b",
                  on_start=lambda setup, folder: begun.append(setup))
        model, old = load(tmp_path / "b" / "best.safetensors"), first.model
        assert model.classes == ["bar", "round"] and model.preprocessing == old.preprocessing
        np.testing.assert_allclose(model.parameters["conv1.weight"], old.parameters["conv1.weight"], atol=1e-4)
        assert model.parameters["dense1.weight"].shape[0] == 2
        assert begun[0].factors == {name: 0.1 for name in ("conv1.weight", "conv1.bias", "bn1.weight",
                                                           "bn1.bias")} and begun[0].fresh == ["dense1"]
        assert run.setup.network_name == "finetuned"

    def test_resumes_to_the_same_bits(self, data, tmp_path):
        fit(small(), data, epochs=1, out=tmp_path / "a")
        settings = dict(data=data, init=tmp_path / "a" / "best.safetensors", epochs=3, seed=4)
        fit(out=tmp_path / "whole", **settings)
        fit(out=tmp_path / "part", progress=interrupt_at(7), **settings)
        fit(data=data, out=tmp_path / "part", resume=True)
        assert_same_tensors(tmp_path / "whole" / "last.safetensors", tmp_path / "part" / "last.safetensors")

    def test_what_cannot_be_begun_from_is_said(self, data, tmp_path):
        path = tmp_path / "m.safetensors"
        network = Network.build((8, 8, 1), GlobalAvgPool())
        Model(network, preprocessing=Preprocessing((8, 8, 1), (0.5,), (0.5,))).save(path)
        with pytest.raises(ValueError, match="GlobalAvgPool.*dense"):
            fit(data=data, init=path, out=False)
        Model(small()).save(path)
        with pytest.raises(ValueError, match="preprocessing"):
            fit(data=data, init=path, out=False)
        with pytest.raises(ValueError, match="not both"):
            fit(small(), data, init=path, out=False)


def test_a_run_can_be_resumed_from_before_its_first_step(data, tmp_path):
    class Killed(BaseException):
        pass

    def kill(*_):
        raise Killed

    with pytest.MonkeyPatch.context() as patch:  # as a kill would leave it: nothing more is saved
        patch.setattr("pellucid.training.trainer.Trainer._epoch", kill)
        patch.setattr("pellucid.training.trainer.Trainer._best", kill)
        with pytest.raises(Killed):
            fit(small(), data, epochs=2, seed=5, out=tmp_path / "part")
    fit(data=data, out=tmp_path / "part", resume=True)
    fit(small(), data, epochs=2, seed=5, out=tmp_path / "whole")
    assert_same_tensors(tmp_path / "whole" / "last.safetensors", tmp_path / "part" / "last.safetensors")
