"""The engine's edges: calls that do not fit, threads, and models as files of parameters."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from three_ways import normals

import pellucid
from pellucid import Model, Network, Preprocessing
from pellucid import processors as threads
from pellucid.engine.library import KernelError, View, library
from pellucid.engine.parameters import ParameterBuffer
from pellucid.engine.plan import Plan
from pellucid.layers import BatchNorm, Conv, Dense, Flatten, MaxPool, ReLU, Softmax
from pellucid.network import Sequential

SOURCE = str(Path(pellucid.__file__).parents[1])


def blocked(n=2, b=1, y=3, x=4, kind=np.float32):
    return np.zeros((n, b, y, x, 16), kind)


def bind(name, **arguments):
    return library().kernel(name).bind(**arguments)


# Calls that do not fit.


def shrunk(array, axis):
    """The same memory, claimed to be one shorter along an axis."""
    view = View.of(array)
    dims = list(view.dims)
    low, extent, stride = dims[axis]
    dims[axis] = (low, extent - 1, stride)
    return View(view.address, view.dtype, tuple(dims), array)


@pytest.mark.parametrize("axis", range(5))
def test_an_input_that_is_too_small_is_an_exception(axis):
    x, y = blocked() + 1, blocked()
    with pytest.raises(KernelError, match=r"relu: .*x"):
        bind("relu", x=shrunk(x, axis), y=y)()
    assert not y.any()
    bind("relu", x=x, y=y)()
    assert (y == 1).all()


@pytest.mark.parametrize("axis", range(1, 5))
def test_an_input_of_any_argument_is_checked(axis):
    with pytest.raises(KernelError, match="add"):
        bind("add", a=blocked(), b=shrunk(blocked(), axis), y=blocked())()


def test_a_convolution_without_its_halo_is_an_exception():
    x, y = blocked(), blocked()
    arguments = {"w": np.zeros((1, 1, 3, 3, 16, 16), np.float32), "bias": np.zeros((1, 16), np.float32),
                 "first": np.zeros(1, np.int32), "relu": 0, "stride_x": 1, "stride_y": 1, "dilation_x": 1,
                 "dilation_y": 1}
    with pytest.raises(KernelError, match="conv_1"):
        bind("conv_1", x=x, y=y, **arguments)()
    bind("conv_1", x=blocked(y=5, x=6), y=y, **arguments)()


@pytest.mark.parametrize("change", [{"y": None}, {"z": 1}])
def test_names_of_arguments_are_checked(change):
    arguments = {"x": blocked(), "y": blocked(), **change}
    with pytest.raises(KernelError, match="relu takes y, x|relu takes x, y"):
        bind("relu", **{k: v for k, v in arguments.items() if v is not None})


def test_types_and_dimensions_are_checked():
    with pytest.raises(KernelError, match="x must be float32 with 5 dimensions, got float64 with 5"):
        bind("relu", x=blocked(kind=np.float64), y=blocked())
    with pytest.raises(KernelError, match="y must be float32 with 5 dimensions, got float32 with 4"):
        bind("relu", x=blocked(), y=blocked()[0])
    with pytest.raises(KernelError, match="stride"):  # lanes must lie side by side
        bind("relu", x=np.zeros((2, 1, 3, 4, 32), np.float32)[..., ::2], y=blocked())()


def test_memory_that_is_not_there_is_an_exception():
    view = View.of(blocked())
    with pytest.raises(KernelError, match="relu"):
        bind("relu", x=View(0, view.dtype, view.dims), y=blocked())()


def test_an_unknown_kernel():
    with pytest.raises(KernelError, match="no kernel 'nothing'.*rebuild"):
        library().kernel("nothing")


def test_an_error_is_told_to_the_thread_that_made_it():
    found = {}

    def fail(name, call):
        for _ in range(50):
            try:
                call()
            except KernelError as e:
                found.setdefault(name, set()).add(str(e).split(":")[0])

    calls = {"relu": bind("relu", x=shrunk(blocked(), 1), y=blocked()),
             "add": bind("add", a=blocked(), b=shrunk(blocked(), 1), y=blocked())}
    workers = [threading.Thread(target=fail, args=item) for item in calls.items()]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert found == {"relu": {"relu"}, "add": {"add"}}


def test_a_plan_takes_no_images_of_another_shape():
    network = Network.build((4, 4, 3), Conv(2, 3))
    plan = Plan(network, ParameterBuffer(network.parameters()), 2)
    with pytest.raises(ValueError):
        plan.forward(np.zeros((3, 4, 4, 3), np.float32))
    with pytest.raises(ValueError):
        plan.forward(np.zeros((2, 4, 5, 3), np.float32))
    with pytest.raises(KeyError):
        plan.value("nothing")


# Threads.


@pytest.fixture
def fresh(monkeypatch):
    monkeypatch.setattr(threads, "_chosen", None)
    monkeypatch.delenv("PELLUCID_THREADS", raising=False)
    return monkeypatch


def test_threads_are_chosen_by_call_then_environment_then_machine(fresh):
    assert pellucid.threads() == threads.available() >= 1
    fresh.setenv("PELLUCID_THREADS", "3")
    assert pellucid.threads() == 3
    pellucid.set_threads(2)
    assert pellucid.threads() == 2


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", " ", "²"])
def test_a_wrong_environment_is_named(fresh, text):
    fresh.setenv("PELLUCID_THREADS", text)
    with pytest.raises(ValueError, match="PELLUCID_THREADS must be a positive integer"):
        pellucid.threads()


@pytest.mark.parametrize("count", [0, -1, 1.5, "2", None, True])
def test_a_wrong_number_of_threads_is_refused(fresh, count):
    with pytest.raises(ValueError, match="at least 1"):
        pellucid.set_threads(count)
    assert pellucid.threads() == threads.available()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_affinity_is_respected():
    code = ("import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
            "import pellucid; print(pellucid.threads())")
    environment = {k: v for k, v in os.environ.items() if k != "PELLUCID_THREADS"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          env={**environment, "PYTHONPATH": SOURCE})
    assert done.stdout == "1\n", done.stderr


def groups(folder, membership, **limits):
    """A fake cgroup file system; `__` stands for a folder's slash."""
    (folder / "membership").write_text(membership)
    for name, text in limits.items():
        path = folder / "root" / name.replace("__", "/").replace("cpu_max", "cpu.max").replace("cfs", "cpu.cfs")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return threads.cgroup_quota(folder / "root", folder / "membership")


@pytest.mark.parametrize("membership, limits, expected", [
    ("0::/a/b\n", {"a__b__cpu_max": "150000 100000\n"}, 1.5),
    ("0::/a/b\n", {"a__b__cpu_max": "max 100000\n", "a__cpu_max": "300000 100000\n", "cpu_max": "max\n"}, 3.0),
    ("0::/a/b\n", {"a__b__cpu_max": "400000 100000\n", "a__cpu_max": "50000 100000\n"}, 0.5),
    ("0::/a\n", {"a__cpu_max": "max 100000\n"}, None),
    ("0::/\n", {"cpu_max": "200000\n"}, 2.0),
    ("0::/a\n", {}, None),
    ("5:cpu,cpuacct:/x\n4:memory:/x\n", {"cpu__x__cfs_quota_us": "250000\n", "cpu__x__cfs_period_us": "100000\n"}, 2.5),
    ("5:cpu:/x\n", {"cpu__cfs_quota_us": "-1\n", "cpu__cfs_period_us": "100000\n"}, None),
    ("5:memory:/x\n", {"cpu__x__cfs_quota_us": "250000\n", "cpu__x__cfs_period_us": "100000\n"}, None),
])
def test_limits_of_control_groups(tmp_path, membership, limits, expected):
    assert groups(tmp_path, membership, **limits) == expected


def test_a_system_without_control_groups(tmp_path):
    assert threads.cgroup_quota(tmp_path, tmp_path / "nothing") is None


@pytest.mark.parametrize("quota, expected", [(None, 4), (0.5, 1), (1.5, 2), (3.0, 3), (100.0, 4)])
def test_the_lesser_of_affinity_and_limit(fresh, quota, expected):
    fresh.setattr(threads.os, "sched_getaffinity", lambda _: set(range(4)), raising=False)
    fresh.setattr(threads, "cgroup_quota", lambda: quota)
    assert threads.available.__wrapped__() == expected


# Models.


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
