"""A run that is killed with SIGKILL, as a power cut would, again and again: it ends as one that never was."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
from shapes_data import CLASSES, pictures
from test_fit import assert_same_tensors, timeless

# The first save is made before the first step, later ones once a second: kills meet each stage of those.
DELAYS = 0.0, 0.35, 1.0, 1.07


def train(folder, *arguments):
    return subprocess.Popen([sys.executable, "-m", "pellucid", "train", *arguments], cwd=folder, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def killed(process, last, delay):
    """Kill it so many seconds after it has saved; whether it was still running."""
    before, end = (last.stat().st_mtime_ns if last.exists() else 0), time.monotonic() + 120
    while process.poll() is None and not (last.exists() and last.stat().st_mtime_ns > before):
        assert time.monotonic() < end
        time.sleep(0.002)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return process.returncode == -signal.SIGKILL


def finish(process):
    _, err = process.communicate(timeout=240)
    assert process.returncode == 0, err


def test_resuming_after_any_kill_gives_the_bits_of_an_unbroken_run(tmp_path):
    images, labels = pictures()
    np.savez(tmp_path / "shapes.npz", images=images, labels=labels, classes=np.array(CLASSES))
    new = ("shapes.npz", "--net", "lenet", "--epochs", "400", "--batch-size", "4", "--patience", "0", "--no-report",
           "--out")
    finish(train(tmp_path, *new, "whole"))
    last, kills = tmp_path / "part" / "last.safetensors", 0
    for delay in DELAYS:
        started = last.exists()
        kills += killed(train(tmp_path, *(("--resume", "part", "--no-report") if started else (*new, "part"))), last,
                        delay)
    assert kills >= 2  # a quick machine may have come to the end
    finish(train(tmp_path, "--resume", "part", "--no-report"))
    for name in ("last.safetensors", "best.safetensors"):
        assert_same_tensors(tmp_path / "whole" / name, tmp_path / "part" / name)
    assert timeless(tmp_path / "whole") == timeless(tmp_path / "part")
    assert sorted(os.listdir(tmp_path / "whole")) == sorted(
        name for name in os.listdir(tmp_path / "part") if not name.endswith(".tmp"))
