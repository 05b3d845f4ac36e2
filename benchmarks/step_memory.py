"""Memory that training takes: by how much the largest resident size of a fresh process grows in a few steps.

    python benchmarks/step_memory.py {pellucid,"pytorch default","pytorch channels_last"} NETWORK BATCH THREADS

Prints bytes. `train_step.py` runs it, once for each rival. Everything counts that comes after the imports and the
images: parameters, gradients, the optimiser's state, activations, and what a library keeps for itself. Linux only.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import torch
import torch._dynamo  # the first step of an optimiser imports it  # noqa: F401
from steps import MODES, data, our_step, torch_step
from torch_networks import NETWORKS

import pellucid
from pellucid.engine.library import library

STEPS = 3
PROCESS = Path("/proc/self")


def largest() -> int:
    """The largest resident size so far, in bytes."""
    return int(re.search(r"VmHWM:\s+(\d+) kB", (PROCESS / "status").read_text())[1]) << 10


def main(rival: str, name: str, batch: str, threads: str) -> None:
    torch.set_num_threads(int(threads))
    pellucid.set_threads(int(threads))
    if rival == "pellucid":
        library()  # it also changes how the process keeps freed memory, which is not the peer's
    images, labels = data(name, int(batch))
    (PROCESS / "clear_refs").write_text("5")  # the largest size is that of now: importing may have taken more
    before = largest()
    if rival == "pellucid":
        ours = our_step(name, int(batch))

        def step():
            ours(images, labels)
    else:
        step = torch_step(NETWORKS[name](images.shape[-1], 10), images, labels, MODES[rival])
    for _ in range(STEPS):
        step()
    print(largest() - before)


if __name__ == "__main__":
    main(*sys.argv[1:])
