"""How long a zip of pictures takes to load: the first time, when they are decoded, and after, from the cache.

    python benchmarks/decoding.py ZIP [--jpeg] [--runs 3] [--json]

Each load is a process of its own; times are wall time from start to exit, medians, and the cache is empty at first.
With --jpeg the pictures are copied as JPEGs of quality 95 before, and those are loaded.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

from machine import described, record_header, teller
from PIL import Image

from pellucid.data.pictures import is_picture

LOAD = """
import sys
from pellucid import data
found = data.load(sys.argv[1])
print(len(found.images) + (len(found.test_images) if found.has_test else 0))
"""


def copied(source: str, target: Path) -> Path:
    """The pictures of a zip as JPEGs in another one, under the same names but for their ends."""
    with zipfile.ZipFile(source) as read, zipfile.ZipFile(target, "w") as written:
        for name in filter(is_picture, read.namelist()):
            jpeg = io.BytesIO()
            Image.open(io.BytesIO(read.read(name))).save(jpeg, "JPEG", quality=95)
            written.writestr(str(Path(name).with_suffix(".jpg")), jpeg.getvalue())
    return target


def loaded(source: str | Path, cache: str) -> tuple[float, int]:
    """The seconds that a process takes to load pictures, and how many they are."""
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", LOAD, str(source)], capture_output=True, text=True,
                          env={**os.environ, "PELLUCID_CACHE": cache})
    if done.returncode:
        sys.exit(done.stderr)
    return time.perf_counter() - start, int(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("zip", metavar="ZIP")
    parser.add_argument("--jpeg", action="store_true", help="load a copy in JPEGs")
    parser.add_argument("--runs", type=int, default=3, help="(default 3)")
    parser.add_argument("--json", action="store_true", help="one JSON record; the table goes to standard error")
    options = parser.parse_args()
    record, tell, seconds = record_header("decoding", ["numpy", "pillow"]), teller(options.json), []
    tell(f"{described(record)}, medians of {options.runs} runs")
    with tempfile.TemporaryDirectory() as folder:
        source = copied(options.zip, Path(folder, "jpegs.zip")) if options.jpeg else options.zip
        for _ in range(options.runs):
            with tempfile.TemporaryDirectory() as cache:
                (first, count), (again, _) = loaded(source, cache), loaded(source, cache)
                seconds.append((first, again))
    first, again = map(statistics.median, zip(*seconds, strict=True))
    tell(f"{count:,} {'JPEGs' if options.jpeg else 'pictures'} of {Path(options.zip).name}: {first:.1f} s, "
         f"then {again:.2f} s")
    if options.json:
        print(json.dumps({**record, "pictures": count, "jpeg": options.jpeg, "seconds": seconds}))


if __name__ == "__main__":
    main()
