"""What the commands say: results as text for people, and the layers of a network as data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .processors import threads
from .summary import by
from .texts import number, printable, quoted
from .training.plan import spoken
from .training.progress import percent

if TYPE_CHECKING:
    from .network import Network
    from .training.result import Run
    from .training.setup import Setup


def start(setup: Setup, folder: Path | None) -> str:
    """What is about to be trained, on what, for how long, where."""
    plan, split = setup.plan, setup.split
    where = f"; in {printable(str(folder))}" if folder else ""
    return (
        f"{printable(setup.data)}: {split['train']:,} images to train on, {split['validation']:,} for validation, "
        f"{split['test']:,} for the test; {by(setup.network.input_shape)} in {len(setup.classes)} classes\n"
        f"{setup.network_name}: {setup.network.parameter_count:,} parameters; {number(plan.epochs, 'epoch')} of "
        f"{number(plan.epoch_steps, 'step')} of {number(plan.batch_size, 'image')}; "
        f"{number(threads(), 'thread')}{where}"
        + "".join(f"\n{printable(note)}" for note in setup.notes)
    )


def finished(run: Run, report: Path | None) -> str:
    """How good the best weights are, where everything is, what to do next."""
    model, data = quoted(run.folder / "best.safetensors"), quoted(run.setup.source or run.setup.data)
    shape = run.setup.network.input_shape
    written = f"report         {printable(str(report))}\n" if report else ""
    most = run.higher
    pictures = len(shape) == 3 and shape[2] in (1, 3)  # else no picture file holds such an image
    return (
        f"test accuracy  {percent(run.test_accuracy)} ({run.test['correct']:,} of {run.test['count']:,} images that "
        "training never saw)\n"
        f"validation     {percent(run.best['validation_accuracy'])} in epoch {run.best['epoch']} of {run.epochs}"
        + (f"; {percent(most['validation_accuracy'])} in epoch {most['epoch']} may be chance" if most else "")
        + (f"; stopped, for {number(run.setup.patience, 'epoch')} brought nothing higher" if run.stopped else "")
        + "\n"
        f"time           {spoken(run.seconds)}\n"
        f"run folder     {printable(str(run.folder))}\n{written}\n"
        f"Next:  pellucid evaluate {model} {data}"
        + "".join(f"\n       pellucid {command} {model} IMAGE.png" for command in ("predict", "explain") if pictures)
    )


def interrupted(run: Run, report: Path | None) -> str:
    """What Ctrl-C left, and how to go on."""
    written = f"How good they are by the validation images: {printable(str(report))}\n" if report else ""
    return (
        f"Stopped after step {run.steps:,} of {run.setup.plan.steps:,}. The best weights so far "
        f"({percent(run.best['validation_accuracy'])} in validation) are in "
        f"{printable(str(run.folder / 'best.safetensors'))}\n{written}"
        f"Continue with: pellucid train --resume {quoted(run.folder)}"
    )


def layers(network: Network) -> dict:
    """The table of `Network.summary` as data; memory in bytes of float32, for one image."""
    counts, macs = network.parameter_counts, network.macs
    memory, fields = network.activation_bytes, network.receptive_fields
    return {
        "input": list(network.input_shape),
        "output": list(network.output_shape),
        "parameters": network.parameter_count,
        "macs": sum(macs.values()),
        "layers": [
            {
                "name": node.name, "kind": type(node.layer).__name__, "inputs": list(node.inputs),
                "output": list(network.shapes[node.name]),
                "kernel": node.layer.kernel_text(*network.input_shapes(node)),
                "parameters": counts[node.name], "macs": macs[node.name], "memory": memory[node.name],
                "receptive_field": fields[node.name] and [field.size for field in fields[node.name]],
            }
            for node in network.nodes
        ],
    }
