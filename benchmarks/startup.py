"""What a person waits for before anything happens: the import, and one image from the shell.

    python benchmarks/startup.py [--runs 15] [--json]

Each run is a process of its own; times are wall time from start to exit, medians. The model is a lenet for 8x8 images
with its first weights (what it answers does not matter here), the image an 80x80 PNG. The start of Python itself is
measured beside them, since it is in each.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from machine import described, interleaved, medians, record_header, teller
from PIL import Image

import pellucid


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model, image = Path(folder) / "m.safetensors", Path(folder) / "i.png"
        network = pellucid.zoo.build("lenet", input_shape=(8, 8, 1), classes=10)
        pellucid.Model(network, preprocessing=pellucid.Preprocessing((8, 8, 1), (0.5,), (0.25,))).save(model)
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 80), np.uint8)).save(image)
        commands = {
            "python": ["-c", "pass"],
            "import pellucid": ["-c", "import pellucid"],
            "pellucid predict, one image": ["-m", "pellucid", "predict", str(model), str(image)],
        }

        def start(arguments):
            return lambda: subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)

        seconds = medians(interleaved({name: start(a) for name, a in commands.items()}, options.runs))
    record = {**record_header("startup", ["numpy", "pillow", "typer"]), "runs": options.runs,
              "seconds": {name: round(s, 3) for name, s in seconds.items()}}
    tell = teller(options.json)
    tell(f"{described(record)}, medians of {options.runs} runs")
    for name, s in seconds.items():
        tell(f"  {name:30} {s:.3f} s")
    if options.json:
        print(json.dumps(record))


if __name__ == "__main__":
    main()
