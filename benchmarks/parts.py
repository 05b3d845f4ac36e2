"""Which parts of the recipe pay: test accuracy of `convnet` after a few epochs with all of them, and without each.

    python benchmarks/parts.py DATA [--width 16] [--epochs 4] [--seeds 1] [--json]

DATA is what `pellucid train` takes, in colour or grey; it should bring its own test images. Without whitening the first
layer is trained from random filters; without Muon all parameters move by SGD with Nesterov momentum under one cycle, at
the rate that `pellucid.fit` gives it; without a small head the last layer begins as large as others, and all that is no
filter has one rate; without mirroring neither training images nor answers are mirrored; without test-time augmentation
the same model answers from the image alone, and "from moved images too" as `--tta shifts` has it; without alternation
images are mirrored at random; without rounded products all is computed in float32. Beside each mean accuracy stands the
difference.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from unittest import mock

import numpy as np
from machine import described, record_header, teller

import pellucid
from pellucid import data, evaluation, optim
from pellucid.network import Network, Node
from pellucid.training import augment, plan, recipes

PARTS = ("everything", "without test-time augmentation", "from moved images too", "without whitening", "without Muon",
         "without a small head", "without mirroring", "without alternation", "without label smoothing",
         "without averaged weights", "without rounded products")


def accuracies(dataset: data.Dataset, width: int, epochs: int, seed: int) -> dict[str, float]:
    """The test accuracy of each variant."""
    parts = data.split(dataset, seed)
    made = plan.plan(len(parts.train), epochs=epochs)
    network = pellucid.zoo.build("convnet", input_shape=dataset.input_shape, classes=len(dataset.classes), width=width)
    first, *rest = network.nodes
    plain = Network(network.input_shape, (
        Node(first.name, replace(first.layer, init="he", trainable=True), first.inputs), *rest), network.output)

    def run(network: Network, **options) -> pellucid.Model:
        return pellucid.fit(network, dataset, epochs=epochs, seed=seed, out=False, **{"mirror": True, **options}).model

    def accuracy(model: pellucid.Model, tta: str | None = None) -> float:
        return evaluation.evaluate(model, parts.test.images, parts.test.labels, tta=tta).accuracy

    model = run(network)
    found = {"everything": accuracy(model)}
    found["without test-time augmentation"] = accuracy(model, tta="none")
    found["from moved images too"] = accuracy(model, tta="shifts")
    found["without whitening"] = accuracy(run(plain))
    found["without Muon"] = accuracy(run(network, optimizer=recipes.optimizer(network, made, new=False)))
    found["without a small head"] = accuracy(run(network, optimizer=optim.Muon(recipes.optimizer(network, made).lr)))
    found["without mirroring"] = accuracy(run(network, mirror=False))
    with mock.patch.object(augment.Augmentation, "of_epoch", mirrored_at_random(augment.Augmentation.of_epoch)):
        found["without alternation"] = accuracy(run(network))
    found["without label smoothing"] = accuracy(run(network, label_smoothing=0.0))
    found["without averaged weights"] = accuracy(run(network, averaging=False))
    found["without rounded products"] = accuracy(run(network, precision="float32"))
    return found


def mirrored_at_random(of_epoch):
    """`Augmentation.of_epoch` with half of the images, drawn anew each epoch, mirrored once more."""
    def changed(self, seed: int, epoch: int, count: int):
        change = of_epoch(self, seed, epoch, count)
        again = np.random.default_rng((seed, epoch, 99)).integers(0, 2, count) == 1

        def mirrored(images: np.ndarray, chosen: np.ndarray) -> np.ndarray:
            images = change(images, chosen)
            return np.where(again[chosen, None, None, None], images[:, :, ::-1], images)

        return mirrored

    return changed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", metavar="DATA")
    parser.add_argument("--width", type=int, default=16, help="of convnet (default 16)")
    parser.add_argument("--epochs", type=int, default=4, help="(default 4)")
    parser.add_argument("--seeds", type=int, default=1, help="runs of each variant (default 1)")
    parser.add_argument("--json", action="store_true", help="one JSON record; the table goes to standard error")
    options = parser.parse_args()
    record, tell = record_header("parts", ["numpy"]), teller(options.json)
    tell(f"{described(record)}; {options.epochs} epochs of convnet, width {options.width}")
    dataset = data.load(options.data)
    runs = [accuracies(dataset, options.width, options.epochs, seed) for seed in range(options.seeds)]
    means = {part: float(np.mean([run[part] for run in runs])) for part in PARTS}
    for part, mean in means.items():
        tell(f"{part:34}{mean:8.2%}{100 * (mean - means[PARTS[0]]):+8.2f}")
    if options.json:
        print(json.dumps({**record, "width": options.width, "epochs": options.epochs, "runs": runs, "means": means}))


if __name__ == "__main__":
    main()
