"""The engine's edges: calls that do not fit, threads, taps."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from three_ways import normals

import pellucid
from pellucid import Network
from pellucid import processors as threads
from pellucid.engine.library import KernelError, View, library
from pellucid.engine.parameters import ParameterBuffer
from pellucid.engine.plan import Plan
from pellucid.layers import Conv, ReLU
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
                 "residual": blocked(),
                 "first": np.zeros(1, np.int32), "relu": 0, "rows": 3, "stride_x": 1, "stride_y": 1, "dilation_x": 1,
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


# Taps.


def test_the_input_can_be_tapped_and_an_unknown_name_is_refused():
    network = Network.build((5, 4, 2), Sequential(Conv(3, 3), ReLU()))
    parameters = ParameterBuffer(network.parameters())
    x = normals(np.random.default_rng(0), 2, 5, 4, 2)
    plan = Plan(network, parameters, 2, taps=["input", "conv1"])
    plan.prepare()
    plan.forward(x)
    np.testing.assert_array_equal(plan.value("input"), x)
    with pytest.raises(ValueError, match="no layer is called 'nothing'.*conv1"):
        Plan(network, parameters, 2, taps=["nothing"])
