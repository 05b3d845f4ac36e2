"""Two processes that train together, as `torchrun` starts them: the result of one, and one that is lost."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from shapes_data import CLASSES, pictures

from pellucid import data as datasets
from pellucid import distributed
from pellucid.distributed import ALONE, Lost, Processes
from pellucid.layers import BatchNorm, Conv, Dense, Dropout, Flatten, MaxPool, ReLU
from pellucid.model import load
from pellucid.network import Network, Sequential
from pellucid.training import engines, restart
from pellucid.training.fit import fit
from pellucid.training.run import RunFolder
from pellucid.training.torch_step import TorchStep

LINUX = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds processes in Linux's /proc")
SCALARS = ("train_loss", "validation_loss", "validation_accuracy")


def torchrun(*program, restarts=0, cwd) -> subprocess.Popen:
    options = ["--standalone", "--nproc-per-node", "2", "--max-restarts", str(restarts)]
    return subprocess.Popen([sys.executable, "-m", "torch.distributed.run", *options, *map(str, program)], cwd=cwd,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL,
                            env={**os.environ, "PELLUCID_THREADS": "1", "OMP_NUM_THREADS": "1"})


def ended(process, status=0) -> tuple[str, str]:
    try:
        out, err = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == status, err
    return out, err


def small():
    return Network.build((8, 8, 1), Sequential(
        Conv(8, 3, padding=1), BatchNorm(), ReLU(), MaxPool(2), Conv(8, 3, padding=1), BatchNorm(), ReLU(), Flatten(),
        Dropout(0.3), Dense(3)))


def data():
    return datasets.to_dataset("shapes", *pictures(), classes=CLASSES)


SETTINGS = {"epochs": 4, "batch_size": 7, "seed": 2, "lr": 0.02, "patience": 0}  # two processes do not divide seven


@pytest.fixture(scope="module")
def alone():
    """The run of one process."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    run = fit(small(), data(), out=False, engine="torch", device="cpu", **SETTINGS)
    torch.set_num_threads(before)
    return run


def test_a_batch_is_shared_out_evenly():
    for count, batch in ((2, 7), (3, 3), (64, 1000), (1, 5)):
        parts = [Processes(rank, count).part(batch) for rank in range(count)]
        assert [p.start for p in parts[1:]] == [p.stop for p in parts[:-1]]
        sizes = [p.stop - p.start for p in parts]
        assert sum(sizes) == batch and max(sizes) - min(sizes) <= 1 <= min(sizes)
    assert ALONE.main and ALONE.part(9) == slice(0, 9) and not ALONE.any(False) and ALONE.share({"a": 1}) == {"a": 1}


def test_fewer_images_than_processes_are_refused():
    from pellucid import Model, optim

    with pytest.raises(ValueError, match="batch of 3 is too small for 4 processes"):
        TorchStep(Model(small()), 3, optim.SGD(0.1), processes=Processes(0, 4))


TOGETHER = """
import json, sys
sys.path.insert(0, {tests!r})
import numpy as np
from pellucid import distributed
from pellucid.training.fit import fit
from test_distributed import SETTINGS, data, small

p = distributed.join()
said = {{"total": p.total(p.rank + 0.5), "any": [p.any(p.rank == 1), p.any(False)], "share": p.share([p.rank, "x"])}}
mine = np.arange(7.0)[p.part(7)].reshape(-1, 1)
said["joined"] = p.joined(mine, 7).ravel().tolist()
p.copy(copied := np.full(3, float(p.rank)))
said["copied"] = copied.tolist()
try:
    with p.agreeing():
        if p.rank == 1:
            raise OSError("the disk is on fire")
except Exception as e:
    said["error"] = f"{{type(e).__name__}}: {{e}}"
p.require_same("data", {{"a": 1}})
try:
    p.require_same("data", p.rank)
except ValueError as e:
    said["differ"] = str(e)
run = fit(small(), data(), out={out!r}, device="cpu", **SETTINGS)
said["history"], said["test"], said["folder"] = run.history, run.test, run.folder is not None
with open(f"{{p.rank}}.json", "w") as file:
    json.dump(said, file)
"""


def test_two_processes_are_one(alone, tmp_path):
    """The same losses, weights and answers, with batch normalisation, dropout and uneven parts of a batch."""
    program = TOGETHER.format(tests=str(Path(__file__).parent), out=str(tmp_path / "run"))
    (tmp_path / "together.py").write_text(program)
    _, err = ended(torchrun("together.py", cwd=tmp_path))
    said = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    for rank, s in enumerate(said):
        assert (s["total"], s["any"], s["share"]) == (2.0, [True, False], [0, "x"])
        assert s["joined"] == list(range(7)) and s["copied"] == [0, 0, 0]
        assert s["error"] == ("OSError: the disk is on fire" if rank else
                              "ValueError: process 1 of 2: the disk is on fire")
        assert "2 processes do not have the same data" in s["differ"]
    assert [s["folder"] for s in said] == [True, False]
    columns = [[[row[k] for k in SCALARS] for row in s["history"]] for s in said]
    assert columns[0] == columns[1] and said[0]["test"] == said[1]["test"]
    np.testing.assert_allclose(columns[0], [[row[k] for k in SCALARS] for row in alone.history], rtol=1e-4, atol=1e-4)
    assert said[0]["test"]["correct"] == alone.test["correct"]
    together = load(tmp_path / "run" / "best.safetensors")
    for name, value in alone.model.parameters.items():
        np.testing.assert_allclose(together.parameters[name], value, rtol=1e-3, atol=2e-4, err_msg=name)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["processes"] == 2


# Commands.


@pytest.fixture
def shapes(tmp_path):
    images, labels = pictures()
    np.savez(tmp_path / "shapes.npz", images=images, labels=labels, classes=np.array(CLASSES))
    return tmp_path


def train(*more):
    return ["-m", "pellucid", "train", "shapes.npz", "--net", "mlp", "--batch-size", "3", "--patience", "0",
            "--out", "run", "--lr", "0.01", *more]


def rows(folder):
    try:
        with open(folder / "metrics.csv", newline="") as file:
            return list(csv.DictReader(file))
    except FileNotFoundError:
        return []


def wait_for_rows(process, folder, count):
    end = time.monotonic() + 240
    while len(rows(folder)) < count:
        assert process.poll() is None and time.monotonic() < end, process.communicate()[1]
        time.sleep(0.02)


def workers(process) -> list[int]:
    """The processes that torchrun has started, by rank."""
    return sorted(map(int, Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()))


@LINUX
def test_a_lost_worker_costs_the_steps_since_the_last_checkpoint(shapes):
    process = torchrun(*train("--epochs", "60", "--json"), restarts=1, cwd=shapes)
    wait_for_rows(process, shapes / "run", 1)
    os.kill(workers(process)[1], signal.SIGKILL)
    out, err = ended(process)
    (line,) = out.splitlines()
    result = json.loads(line)
    assert (result["epochs"], result["interrupted"]) == (60, False)
    sessions = err.split("images to train on")[1:]
    assert len(sessions) == 2, err  # it was started twice
    resumed_at = int(re.search(r"epoch (\d+)/60", sessions[1])[1])
    assert resumed_at > 1
    whole = fit("mlp", shapes / "shapes.npz", batch_size=3, patience=0, lr=0.01, epochs=60, out=False, engine="torch")
    kept = [[float(row[k]) for k in SCALARS] for row in rows(shapes / "run")]
    np.testing.assert_allclose(kept, [[row[k] for k in SCALARS] for row in whole.history], rtol=5e-3, atol=5e-3)


@LINUX
def test_ctrl_c_saves_once_and_the_other_engine_goes_on(shapes):
    process = torchrun(*train("--epochs", "2000"), cwd=shapes)
    wait_for_rows(process, shapes / "run", 1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode != 0
    assert err.count("Stopped after step") == 1 and err.count("Continue with: pellucid train --resume run") == 1, err
    config = json.loads((shapes / "run" / "config.json").read_text())
    assert config["result"]["interrupted"] is True

    def stop(p):
        os.kill(os.getpid(), signal.SIGINT)

    run = fit(out=shapes / "run", resume=True, engine="native", progress=stop)
    assert run.steps == config["result"]["steps"] + 1
    assert sorted(p.name for p in (shapes / "run").iterdir()) == [
        "best.safetensors", "config.json", "last.safetensors", "metrics.csv", "report.html", "seen.safetensors"]


def test_an_error_is_one_line_of_one_process(tmp_path):
    out, err = ended(torchrun("-m", "pellucid", "train", "nothing.npz", "--out", "run", cwd=tmp_path), status=1)
    (line,) = [line for line in err.splitlines() if line.startswith("pellucid: ")]
    assert "nothing.npz" in line and out == ""
    assert not (tmp_path / "run").exists()


def test_an_error_of_another_process_and_one_of_ones_own(monkeypatch):
    """What PyTorch says where a connection ends becomes one line, which the main process alone shows."""
    for name, value in (("TORCHELASTIC_RUN_ID", "x"), ("RANK", "1")):
        monkeypatch.setenv(name, value)
    with pytest.raises(Lost, match=r"process 1 of 2 has lost another one.*\(Connection closed by peer\)") as lost:
        with Processes(1, 2).talking():
            raise RuntimeError("Connection closed by peer\nframe #0: ...")
    assert "\n" not in str(lost.value)
    with pytest.raises(torch.OutOfMemoryError) as full, Processes(1, 2).talking():
        raise torch.OutOfMemoryError("no memory")
    with pytest.raises(RuntimeError, match="mine"), ALONE.talking():
        raise RuntimeError("mine")
    shared = ValueError("all have it")
    for error in (lost.value, full.value):
        distributed.only_here(error)
    assert [distributed.speaks(e) for e in (shared, lost.value, full.value)] == [False, False, True]
    monkeypatch.setenv("RANK", "0")
    assert all(distributed.speaks(e) for e in (shared, lost.value, full.value))


def test_what_several_processes_cannot_do(tmp_path, monkeypatch):
    assert restart.found(ALONE, tmp_path, ["a"], 9.0) is None  # without torchrun all is as ever
    for name, value in (("TORCHELASTIC_RUN_ID", "x"), ("RANK", "0"), ("WORLD_SIZE", "2"),
                        ("TORCHELASTIC_MAX_RESTARTS", "1")):
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="give the number of epochs"):
        restart.found(Processes(0, 2), tmp_path, None, 9.0)
    with pytest.raises(ValueError, match="--out"):
        restart.found(Processes(0, 2), None, None, None)
    with pytest.raises(ValueError, match="training in 2 processes needs the engine torch"):
        engines.choose("native")


def test_a_run_goes_on_where_its_folder_has_the_same_command(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    folder, command = RunFolder(tmp_path), ["pellucid", "train", "digits"]
    assert restart.found(ALONE, tmp_path, command, None) is None
    folder.write_config({"command": command})
    assert restart.found(ALONE, tmp_path, command, None) is False
    folder.last.write_bytes(b"state")
    assert restart.found(ALONE, tmp_path, command, None) is True
    assert restart.found(ALONE, tmp_path, [*command, "--seed", "1"], None) is None
    assert restart.found(ALONE, tmp_path, None, None) is None
