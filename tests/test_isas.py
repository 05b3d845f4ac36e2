"""Every instruction set this machine can execute computes the same integers; and what a build says when it cannot.

The kernels are built here where the installed ones lack an instruction set. Objects are cached by content, so that
takes about a minute once, and seconds after.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import test_fusion
import test_int16
import test_layers
import test_train_step
import test_winograd
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import CONVS, POOLS, parse
from test_plans import EXACT, everything
from three_ways import agree

from pellucid.engine import library as loader
from pellucid.engine.library import FOLDER, KernelError, Library
from pellucid.kernels import build
from pellucid.layers import AvgPool, MaxPool
from pellucid.network import Network

NATIVE = [name for name, parts in build.ISAS.items() if parts[0] == build.architecture()]
SOURCE = str(Path(loader.__file__).parents[2])


def run(*command, **environment):
    """A fresh Python's outcome; variables set to None are removed."""
    variables = {**os.environ, "PYTHONPATH": SOURCE, **environment}
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=300,
                          env={k: v for k, v in variables.items() if v is not None})


def one_line(text, *parts):
    assert text.count("\n") == 0 and len(text) < 400, text
    for part in parts:
        assert part in text, text


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """A folder with the kernels of all instruction sets that this machine can execute."""
    host = build.host_isa()
    wanted = NATIVE[: NATIVE.index(host) + 1]
    folder = tmp_path_factory.mktemp("kernels")
    build.build(wanted, folder, lambda text: None)
    assert loader.isas(folder) == wanted
    return folder


@pytest.fixture(scope="session")
def kernels(built):
    """Instruction set -> library, for all that this machine can execute."""
    manifest = json.loads((built / "manifest.json").read_text())
    return {isa: Library(built / entry["file"], isa, entry["kernels"]) for isa, entry in manifest.items()}


def test_the_host_has_one_and_a_baseline(kernels):
    assert kernels and set(kernels) <= set(build.ISAS)
    if build.architecture() == "x86-64":
        assert "baseline" in kernels
    assert len({lib.handle._name for lib in kernels.values()}) == len(kernels)


@pytest.mark.parametrize("isa", NATIVE)
def test_integers_exactly(isa, kernels):
    if isa not in kernels:
        pytest.skip(f"this machine cannot execute {isa}")
    for line in CONVS:
        if (p := parse(line)).n:
            agree(Network.build(p.shape, p.conv()), p.n, 0, exact=True, kernels=kernels[isa])
    for line in POOLS:
        if (p := parse(line)).n:
            agree(Network.build(p.shape, p.pool(MaxPool)), p.n, 0, exact=True, kernels=kernels[isa])
            agree(Network.build(p.shape, p.pool(AvgPool)), p.n, 0, exact=False, kernels=kernels[isa])
    for network in EXACT.values():
        agree(network, 3, 0, exact=True, kernels=kernels[isa])


@pytest.mark.parametrize("isa", NATIVE)
@pytest.mark.parametrize("training", [False, True])
def test_a_whole_network(isa, training, kernels):
    if isa not in kernels:
        pytest.skip(f"this machine cannot execute {isa}")
    agree(everything(), 5, 0, exact=False, training=training, tolerance=5e-4, kernels=kernels[isa])


@pytest.fixture(scope="class", params=NATIVE)
def chosen(request, built):
    """Everything runs with this instruction set."""
    if request.param not in loader.isas(built):
        pytest.skip(f"this machine cannot execute {request.param}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loader, "FOLDER", built)
        patch.setenv("PELLUCID_ISA", request.param)
        loader.library.cache_clear()
        yield request.param
    loader.library.cache_clear()


@pytest.mark.usefixtures("chosen")
class TestChosenForEverything:
    """What other tests check with the best instruction set, here with each."""

    def test_it_is_what_runs(self, chosen, built):
        assert loader.library().isa == chosen
        model = test_train_step.model()
        step = test_train_step.TrainStep(model, 2, test_train_step.optim.SGD(0.1))
        assert step._plan.library is loader.library()
        assert Path(loader.library().handle._name).parent == built

    @pytest.mark.parametrize("kind", test_layers.CASES)
    def test_layers_three_ways(self, kind):
        @settings(max_examples=5, deadline=None, database=None)
        @given(data=st.data(), seed=test_layers.seeds)
        def check(data, seed):
            test_layers.test_three_ways_agree.hypothesis.inner_test(kind, data, seed)

        check()

    @pytest.mark.parametrize("n, classes", [(1, 1), (3, 10), (17, 17), (40, 40)])
    def test_cross_entropy_three_ways(self, n, classes):
        for smoothing in (0.0, 0.1):
            test_layers.test_cross_entropy_three_ways.hypothesis.inner_test(n, classes, smoothing, 1.0, True, n)

    def test_winograd(self):
        test_winograd.test_the_bound_holds_for_many_channels(64)
        for training in (False, True):
            test_winograd.test_what_follows_is_computed_along(training)
        test_fusion.test_winograd_and_pooling((7, 10))
        test_winograd.test_three_ways_on_any_map.hypothesis.inner_test(2, 29, 37, 32, 32, 1, 0)

    def test_integers_of_16_bits(self):
        if "int16" not in loader.library().precisions:
            pytest.skip("there are no kernels on integers for this instruction set")
        test_int16.test_the_bound_holds_for_many_channels(64)
        test_int16.test_the_largest_sums_there_can_be_do_not_overflow(32)
        test_int16.test_the_largest_gradients_there_can_be_do_not_overflow()
        maximum = test_int16.test_gradients_through_a_maximum_are_those_of_the_map_between
        maximum.hypothesis.inner_test(1, 7, 9, 33, 70, 0)

    def test_gelu_far_out(self):
        test_layers.test_gelu_far_out()

    def test_a_first_layer_and_its_pooling(self):
        for channels, filters, size in ((1, 32, 3), (3, 20, 5)):
            test_fusion.test_a_first_layer_and_its_pooling.hypothesis.inner_test(
                2, 9, 8, channels, filters, size, 1, True, 7)

    @pytest.mark.parametrize("name", test_train_step.OPTIMISERS)
    def test_ten_steps_are_pytorchs(self, name):
        test_train_step.test_ten_steps_are_pytorchs(name)


def test_all_have_the_same_kernels_but_for_tiles(kernels):
    def stems(lib):
        return {name.rstrip("0123456789") for name in lib.names}

    for lib in kernels.values():
        assert stems(lib) == stems(kernels[build.host_isa()])
        assert min(lib.tiles("conv")) == min(lib.tiles("conv_image")) == 1
        for name in lib.names:
            assert lib.kernel(name).slots


# Choosing one.

SHOW = "from pellucid.engine.library import library; print(library().isa)"


def test_the_environment_chooses():
    usable = loader.isas()
    for isa in usable:
        assert run("-c", SHOW, PELLUCID_ISA=isa).stdout.strip() == isa
    assert run("-c", SHOW, PELLUCID_ISA=None).stdout.strip() == usable[-1]
    assert run("-c", SHOW, PELLUCID_ISA="").stdout.strip() == usable[-1]
    done = run("-c", SHOW, PELLUCID_ISA="mmx")
    assert done.returncode == 1
    one_line(done.stderr.strip().splitlines()[-1], "'mmx'", *usable)


def manifest(folder, **entries):
    (folder / "manifest.json").write_text(json.dumps(entries))
    return folder


def built_for(features, needs):
    file = FOLDER / json.loads((FOLDER / "manifest.json").read_text())[loader.isas()[0]]["file"]
    return {"file": str(file), "features": features, "needs": needs, "kernels": []}


def test_a_build_for_a_better_machine_says_so_in_one_line(tmp_path):
    impossible = [2**64 - 1] * 2
    with pytest.raises(KernelError) as e:
        loader.isas(manifest(tmp_path, avx512=built_for(impossible, ["avx2", "avx512"])))
    one_line(str(e.value), "better machine", "avx512 needs avx2, avx512", "pip install")
    both = manifest(tmp_path, plain=built_for([0, 0], []), avx512=built_for(impossible, ["avx512"]))
    assert loader.isas(both) == ["plain"]


def test_another_architectures_library_is_passed_over(tmp_path):
    (tmp_path / "other.so").write_bytes(b"\x7fELF for something else")
    with pytest.raises(KernelError) as e:
        loader.isas(manifest(tmp_path, arm64={"file": "other.so", "features": [0, 0], "needs": [], "kernels": []}))
    one_line(str(e.value), "arm64 needs another processor")


def test_kernels_that_were_never_compiled(tmp_path):
    with pytest.raises(KernelError) as e:
        loader.isas(tmp_path)
    one_line(str(e.value), "not been compiled", "pip install .")


# Building.


def refused(*arguments, **environment):
    """What the builder says when it cannot build: one line, exit status 1, no traceback."""
    done = run("-m", "pellucid.kernels.build", *arguments, **environment)
    assert done.returncode == 1 and done.stdout == ""
    one_line(done.stderr.rstrip("\n"))
    assert done.stderr.startswith("pellucid: ")
    return done.stderr


def test_a_missing_linker(tmp_path):
    text = refused("--out", str(tmp_path / "out"), PATH=str(tmp_path), CC=None)
    assert "no linker" in text and "cc, gcc, clang" in text and "install" in text
    assert "looked for nonsense" in refused("--out", str(tmp_path / "out"), CC="nonsense")
    assert not (tmp_path / "out").exists()


def test_a_linker_that_fails(tmp_path):
    assert "linking" in refused("--out", str(tmp_path), CC="false")
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_instruction_set(tmp_path):
    assert "mmx" in refused("--isa", "mmx", "--out", str(tmp_path))
    assert build.chosen_isas("all") == list(build.ISAS)
    assert build.chosen_isas("avx2,baseline") == ["baseline", "avx2"]
    assert build.chosen_isas("host") == [build.host_isa()]


def test_a_wheel_is_for_one_architecture():
    with pytest.raises(build.BuildError, match="one architecture"):
        build.platform_tag(["arm64", "avx2"])
    assert build.platform_tag(NATIVE)


def test_objects_come_from_the_cache_the_second_time(kernels, tmp_path):
    said = []
    written = build.build([build.host_isa()], tmp_path, said.append)
    assert len(said) == 1 and "ready" in said[0]
    assert [p.name for p in written][-1] == "manifest.json" and all(p.is_file() for p in written)
    entry = json.loads(written[-1].read_text())[build.host_isa()]
    assert set(entry["kernels"]) == kernels[build.host_isa()].names


def test_objects_are_named_by_all_that_makes_them(monkeypatch, tmp_path):
    def keys():
        return {(t, isa): build.key(t, isa, "linux") for t in build.TOPICS for isa in build.ISAS}

    before = keys()
    assert len(set(before.values())) == len(before)
    for path in build.HERE.glob("*.py"):
        (tmp_path / path.name).write_text(path.read_text())
    monkeypatch.setattr(build, "HERE", tmp_path)
    assert keys() == before
    with open(tmp_path / "conv.py", "a") as f:
        f.write("# other\n")
    changed = {made[0] for made, value in keys().items() if value != before[made]}
    assert changed == {"conv", "conv_pool", "conv_weight", "matrix"}  # and what is built on it
    with open(tmp_path / "machine.py", "a") as f:
        f.write("# other\n")
    assert not set(keys().values()) & set(before.values())


def test_the_build_reads_sources_only():
    """The package runs without Halide: nothing but the builder imports it."""
    done = run("-c", "import sys; sys.modules['halide'] = None\n"
                     "import numpy as np, pellucid\n"
                     "print(pellucid.ops.conv(np.ones((1, 2, 2, 1)), np.ones((1, 1, 2, 2))).item())")
    assert done.stdout.strip() == "4.0", done.stderr
