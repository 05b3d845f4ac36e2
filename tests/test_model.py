"""Models: files, copies, questions, and what several threads and processes may do with one."""

import copy
import os
import threading

import numpy as np
import pytest
from three_ways import normals

import pellucid
import pellucid.modelfile
from pellucid import Model, Network, Preprocessing, modelfile
from pellucid.engine.plan import Plan
from pellucid.layers import BatchNorm, Conv, Dense, Flatten, GlobalMaxPool, MaxPool, ReLU, Softmax
from pellucid.modelfile import ModelFileError
from pellucid.network import Sequential


def model(seed=0):
    network = Network.build((6, 6, 2), Sequential(Conv(5, 3), BatchNorm(), ReLU(), MaxPool(2), Flatten(), Dense(3)))
    preprocessing = Preprocessing((6, 6, 2), (0.5, 0.25), (0.25, 0.5))
    return Model(network, seed, preprocessing=preprocessing, classes=["a", "b", "c"])


def test_a_saved_model_answers_with_the_same_bits(tmp_path):
    saved, rng = model(4), np.random.default_rng(0)
    saved.load_parameters({n: np.abs(normals(rng, *p.shape)) for n, p in saved.parameters.items()})
    saved.record["epochs"] = 3
    saved.save(tmp_path / "m.safetensors")
    loaded = pellucid.load(tmp_path / "m.safetensors")
    x = normals(rng, 70, 6, 6, 2)
    np.testing.assert_array_equal(loaded.logits(x), saved.logits(x))
    images = rng.integers(0, 256, (3, 6, 6, 2), np.uint8)
    np.testing.assert_array_equal(loaded.predict(images), saved.predict(images))
    assert (loaded.network, loaded.preprocessing, loaded.classes, loaded.record) == \
           (saved.network, saved.preprocessing, saved.classes, saved.record)
    for name, value in saved.parameters.items():
        np.testing.assert_array_equal(loaded.parameters[name], value)


def test_predict_is_softmax_of_logits_of_preprocessed_images():
    m, images = model(), np.random.default_rng(0).integers(0, 256, (5, 6, 6, 2), np.uint8)
    z = m.logits(m.preprocessing.apply(images)).astype(np.float64)
    p = m.predict(images)
    np.testing.assert_allclose(p, np.exp(z) / np.exp(z).sum(1, keepdims=True), atol=1e-6)
    assert p.dtype == np.float32
    ends = Model(Network.build((6, 6, 2), Sequential(Flatten(), Dense(3), Softmax())), preprocessing=m.preprocessing)
    np.testing.assert_allclose(ends.predict(images).sum(1), 1, atol=1e-6)


def test_parameters_are_read_only_and_loading_takes_effect():
    m, x = model(), normals(np.random.default_rng(0), 2, 6, 6, 2)
    before = m.logits(x)
    with pytest.raises(ValueError, match="read-only"):
        m.parameters["dense1.bias"][...] = 1
    m.load_parameters({n: 2 * p if n == "dense1.weight" else p + 1 if n == "dense1.bias" else p
                       for n, p in m.parameters.items()})
    np.testing.assert_allclose(m.logits(x), 2 * before + 1, atol=1e-5)  # biases begin as zeros
    np.testing.assert_array_equal(m.logits(x[:1]), m.logits(x)[:1])


@pytest.mark.parametrize("change, text", [
    ({"dense1.bias": None}, r"missing \['dense1.bias'\]"),
    ({"other": np.zeros(3)}, r"unknown \['other'\]"),
    ({"dense1.bias": np.zeros(4)}, r"dense1.bias must have shape \(3,\), got \(4,\)"),
    ({"dense1.bias": np.zeros((1, 3))}, r"must have shape"),
])
def test_parameters_that_do_not_fit_change_nothing(change, text):
    m = model()
    before = {n: p.copy() for n, p in m.parameters.items()}
    values = {**{n: p + 1 for n, p in before.items()}, **change}
    with pytest.raises(ValueError, match=text):
        m.load_parameters({n: p for n, p in values.items() if p is not None})
    for name, value in before.items():
        np.testing.assert_array_equal(m.parameters[name], value)


@pytest.mark.parametrize("call, text", [
    (lambda m: m.logits(np.zeros((2, 6, 6, 2))), "float32"),
    (lambda m: m.logits(np.zeros((2, 6, 5, 2), np.float32)), r"\(N, 6, 6, 2\)"),
    (lambda m: m.logits(np.zeros((6, 6, 2), np.float32)), r"\(N, 6, 6, 2\)"),
    (lambda m: m.predict(np.zeros((2, 6, 6, 2), np.float32)), "uint8"),
    (lambda m: Model(m.network).predict(np.zeros((2, 6, 6, 2), np.uint8)), "preprocessing"),
    (lambda m: Model(m.network, classes=["a"]), "3 outputs, but 1"),
    (lambda m: Model(m.network, preprocessing=Preprocessing((5, 5, 2), (0, 0), (1, 1))), "5, 5, 2"),
])
def test_what_a_model_refuses(call, text):
    with pytest.raises(ValueError, match=text):
        call(model())


def test_a_seed_decides_each_parameter_by_its_name():
    one, same, other = model(1), model(1), model(2)
    np.testing.assert_array_equal(one.parameters["conv1.weight"], same.parameters["conv1.weight"])
    assert not np.array_equal(one.parameters["conv1.weight"], other.parameters["conv1.weight"])
    longer = Model(Network.build((6, 6, 2), Sequential(Conv(5, 3), Conv(5, 1), Flatten(), Dense(3))), 1)
    np.testing.assert_array_equal(longer.parameters["conv1.weight"], one.parameters["conv1.weight"])


def test_log_probabilities_are_those_of_a_network_with_or_without_softmax():
    images = np.random.default_rng(0).integers(0, 256, (9, 6, 6, 2), np.uint8)
    bare = model()
    body = Sequential(Conv(5, 3), BatchNorm(), ReLU(), MaxPool(2), Flatten(), Dense(3), Softmax())
    ended = Model(Network.build((6, 6, 2), body), None, preprocessing=bare.preprocessing, classes=bare.classes)
    ended.load_parameters(bare.parameters)
    expected = bare.log_probabilities(images)
    np.testing.assert_allclose(np.exp(expected).sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_allclose(ended.log_probabilities(images), expected, atol=1e-5)
    np.testing.assert_allclose(bare.log_probabilities(bare.preprocessing.apply(images)), expected, atol=1e-5)
    labels = np.arange(9) % 3
    losses = [pellucid.evaluation.evaluate(m, images, labels).log_loss for m in (bare, ended)]
    assert abs(losses[0] + expected[np.arange(9), labels].mean()) < 1e-12 and abs(losses[0] - losses[1]) < 1e-5


def test_tta_is_the_mean_with_the_mirror_image(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (5, 6, 6, 2), np.uint8)
    one = model(2)
    both = Model(one.network, 2, preprocessing=one.preprocessing, classes=one.classes, tta="mirror")
    mirrored = images[:, :, ::-1]
    z = sum(one.logits(one.preprocessing.apply(x)).astype(np.float64) for x in (images, mirrored)) / 2
    np.testing.assert_allclose(both.predict(images), np.exp(z) / np.exp(z).sum(1, keepdims=True), atol=1e-6)
    np.testing.assert_array_equal(both.predict(images), both.predict(mirrored))
    assert not np.array_equal(one.predict(images), one.predict(mirrored))
    both.save(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(pellucid.load(tmp_path / "m.safetensors").predict(images), both.predict(images))
    np.testing.assert_array_equal(copy.deepcopy(both).predict(images), both.predict(images))
    both.tta = False
    np.testing.assert_array_equal(both.predict(images), one.predict(images))
    with pytest.raises(ValueError, match="tta"):
        Model(Network.build((6,), Dense(3)), tta="mirror")
    with pytest.raises(ValueError, match="tta must be one of none, mirror, shifts, got 'no'"):
        Model(one.network, tta="no")


@pytest.mark.parametrize("height, width, channels, by", [(5, 8, 2, 1), (70, 64, 1, 2)])
def test_tta_by_shifts_is_the_mean_over_moved_images_too(height, width, channels, by, tmp_path):
    network = Network.build((height, width, channels), Sequential(Conv(5, 3), ReLU(), GlobalMaxPool(), Dense(3)))
    images = np.random.default_rng(1).integers(0, 256, (3, height, width, channels), np.uint8)
    plain = Model(network, 4, preprocessing=Preprocessing.from_images(images))
    moved = Model(network, 4, preprocessing=plain.preprocessing, tta="shifts")
    expected = np.zeros((3, 3))
    for down, right, weight in [(0, 0, 4), (by, by, 1), (by, -by, 1), (-by, by, 1), (-by, -by, 1)]:
        # Reflected at the outermost row and column, which are not repeated.
        rows = [min(abs(y - down), 2 * (height - 1) - (y - down)) for y in range(height)]
        columns = [min(abs(x - right), 2 * (width - 1) - (x - right)) for x in range(width)]
        for x in (images[:, rows][:, :, columns], images[:, rows][:, :, columns[::-1]]):
            expected += weight / 16 * plain.logits(plain.preprocessing.apply(x))
    given = moved.log_probabilities(images)
    np.testing.assert_allclose(given - given[:, :1], expected - expected[:, :1], atol=1e-5)
    np.testing.assert_allclose(moved.log_probabilities(plain.preprocessing.apply(images)), given, atol=1e-6)
    if channels == 1:
        np.testing.assert_array_equal(moved.log_probabilities(images[..., 0]), given)
    with pytest.raises(ValueError, match="tta 'shifts' is of images"):
        Model(Network.build((1, 6, 2), Sequential(GlobalMaxPool(), Dense(3))), tta="shifts")
    for none in ("none", False):
        np.testing.assert_array_equal(moved.log_probabilities(images, tta=none), plain.log_probabilities(images))
    with pytest.raises(ValueError, match="tta must be one of none, mirror, shifts, got 'Mirror'"):
        plain.log_probabilities(images, tta="Mirror")
    with pytest.raises(ValueError, match="tta 'mirror' is of images"):
        Model(Network.build((6,), Dense(3)), 0).log_probabilities(np.zeros((2, 6), np.float32), tta="mirror")
    moved.save(tmp_path / "m.safetensors")
    assert pellucid.load(tmp_path / "m.safetensors").tta == "shifts"


@pytest.mark.parametrize("text, tta", [("true", "mirror"), ("false", "none"), ('"shifts"', "shifts")])
def test_older_files_say_whether_there_is_tta(text, tta, tmp_path):
    one = model()
    modelfile.write(tmp_path / "m.safetensors", one.parameters, {**one.metadata(), "tta": text})
    assert pellucid.load(tmp_path / "m.safetensors").tta == tta


@pytest.mark.parametrize("text", ["1", '"all"', "null", "[]"])
def test_an_unknown_tta_in_a_file_is_refused(text, tmp_path):
    one = model()
    modelfile.write(tmp_path / "m.safetensors", one.parameters, {**one.metadata(), "tta": text})
    with pytest.raises(ModelFileError, match="m.safetensors: tta must be one of none, mirror, shifts"):
        pellucid.load(tmp_path / "m.safetensors")


def test_a_model_that_classifies_nothing_says_so(tmp_path):
    images, maps = np.zeros((1, 6, 6, 2), np.uint8), Network.build((6, 6, 2), Conv(3, 3))
    with pytest.raises(ValueError, match="a map of shape"):
        Model(maps, preprocessing=model().preprocessing).predict(images)
    with pytest.raises(ValueError, match="no preprocessing"):
        Model(model().network).predict(images)
    with pytest.raises(ValueError, match="same name"):
        Model(maps, classes=["a", "b", "a"])


def test_a_file_of_weights_that_are_no_numbers_is_refused(tmp_path):
    broken = model()
    broken.load_parameters({n: np.full_like(v, np.nan) if n == "dense1.bias" else v
                            for n, v in broken.parameters.items()})
    broken.save(tmp_path / "m.safetensors")
    with pytest.raises(pellucid.modelfile.ModelFileError, match="dense1.bias.*not finite"):
        pellucid.load(tmp_path / "m.safetensors")


def test_more_memory_than_there_is(monkeypatch):
    monkeypatch.setattr("pellucid.processors.memory", lambda: 1000.0)
    with pytest.raises(MemoryError, match="smaller batch"):
        model().logits(np.zeros((1, 6, 6, 2), np.float32))


def rebuilt(original):
    """A copy from what an object says of itself, as programs that send objects to other processes make it."""
    function, arguments = original.__reduce__()
    return function(*arguments)


@pytest.mark.parametrize("copied", [copy.deepcopy, rebuilt])
def test_a_copy_is_a_model_of_its_own(copied):
    original, x = model(1), normals(np.random.default_rng(0), 3, 6, 6, 2)
    original.record["epochs"] = 3
    before = original.logits(x)
    other = copied(original)
    np.testing.assert_array_equal(other.logits(x), before)
    assert (other.network, other.classes, other.record) == (original.network, original.classes, original.record)
    other.load_parameters({name: 2 * value for name, value in original.parameters.items()})
    np.testing.assert_array_equal(original.logits(x), before)
    assert not np.array_equal(other.logits(x), before)


def test_large_images_are_computed_a_few_at_a_time(monkeypatch):
    asked, x = model(), normals(np.random.default_rng(0), 70, 6, 6, 2)
    expected = asked.logits(x)
    assert set(asked._plans) == {64, 4, 1}  # 70 = 64 + 4 + 1 + 1
    monkeypatch.setattr("pellucid.model.MEMORY", 8 * sum(asked.network.activation_bytes.values()))
    frugal = model()
    np.testing.assert_array_equal(frugal.logits(x), expected)
    assert set(frugal._plans) == {4, 1}


def test_filters_are_packed_once_for_all_batches():
    asked, x = model(), normals(np.random.default_rng(0), 5, 6, 6, 2)
    before = asked.logits(x)
    four, one = asked._plans[4], asked._plans[1]
    assert four.prepared is one.prepared and four.prepared.array.nbytes > 0
    asked.load_parameters({name: -value for name, value in asked.parameters.items()})
    after = asked.logits(x)
    assert not np.array_equal(after, before)
    fresh = model()
    fresh.load_parameters(dict(asked.parameters))
    np.testing.assert_array_equal(fresh.logits(x), after)


@pytest.mark.parametrize("other", [model(1), Model(Network.build((6, 6, 2), Conv(40, 3)))])
def test_plans_of_other_parameters_share_nothing(other):
    asked = model()
    asked.logits(np.zeros((1, 6, 6, 2), np.float32))
    with pytest.raises(ValueError, match="one network and its parameters"):
        Plan(other.network, other.buffer, 1, prepared=asked._plans[1].prepared)


def test_threads_may_share_a_model():
    asked, x = model(), normals(np.random.default_rng(0), 40, 6, 6, 2)
    expected, wrong = asked.logits(x), []

    def ask(part):
        for _ in range(20):
            if not np.array_equal(asked.logits(x[part]), expected[part]):
                wrong.append(part)

    threads = [threading.Thread(target=ask, args=(slice(10 * i, 10 * i + 10),)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")  # which is what is tested
def test_a_fork_while_another_thread_computes():
    asked, x = model(), normals(np.random.default_rng(0), 40, 6, 6, 2)
    expected, stop, wrong = asked.logits(x), threading.Event(), []

    def ask():
        while not stop.is_set():
            if not np.array_equal(asked.logits(x), expected):
                wrong.append(1)

    asker = threading.Thread(target=ask)
    asker.start()
    try:
        for _ in range(10):
            child = os.fork()
            if not child:
                os._exit(0 if np.array_equal(asked.logits(x), expected) else 1)
            assert os.waitpid(child, 0)[1] == 0
    finally:
        stop.set()
        asker.join()
    assert not wrong
