"""What `predict` says, image by image, so that a large folder is never held in memory."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from .cli_terminal import one_line, printable, say, show
from .files import csv_file
from .texts import number

SHOWN = 3  # classes an image for people, where they do not say how many
INTERVAL = 5.0  # seconds between lines about how far it is

Sink = Callable[[dict], object]


def report(results: Iterator, about: dict, *, as_json: bool, csv: str | None, top: int | None, classes: int) -> int:
    """Print or write what `predict_files` yields as it comes, and say what failed; returns the number of failures.

    `about` stands at the head of the JSON. `top` is the number of classes an image, None for 3 (in JSON: all).
    """
    failures, count = [], 0
    kept = min(top or SHOWN, classes)
    tick = _ticker(shown=as_json or csv is not None or not _is_terminal(sys.stdout))
    with contextlib.ExitStack() as stack:
        sinks = [stack.enter_context(_csv_sink(csv, kept))] if csv is not None else []
        if as_json:
            sinks.append(_json_sink(about, top))
        elif csv is None:
            sinks.append(lambda found: show(prediction(found, kept)))
        for found in results:
            if isinstance(found, dict):
                count += 1
                for sink in sinks:
                    sink(found)
            else:
                failures.append({"path": found[0], "error": one_line(found[1])})
                say(f"pellucid: {_failure(*found)}")
            tick(count)
    if as_json:
        if not count:
            show(_head(about))
        show(f'], "failures": {json.dumps(failures)}}}')
    if csv is not None:
        say(f"{number(count, 'image')} written to {printable(csv)}")
    return len(failures)


def prediction(found: dict, top: int) -> str:
    """One image: the most probable classes, and whether it is refused as none of them."""
    where = found["path"] if found["index"] is None else f"{found['path']}[{found['index']}]"
    ranked = list(found["probabilities"].items())[:top]
    refused = "none of these; nearest " if found["rejected"] else ""
    return f"{printable(where)}: {refused}" + ", ".join(f"{printable(name)} {share:.1%}" for name, share in ranked)


def _failure(path: str, error: Exception) -> str:
    """What is wrong with a file, its name once and in front."""
    text, name = one_line(error), printable(" ".join(path.split()))
    for whole, short in ((f"{name}: ", ""), (f"cannot read {name}: ", "cannot be read: ")):
        if text.startswith(whole):
            text = short + text.removeprefix(whole)
    return f"{printable(path)}: {text}"


def _json_sink(about: dict, top: int | None) -> Sink:
    """One JSON object, an image a line."""
    begun = False

    def write(found: dict) -> None:
        nonlocal begun
        if top is not None:
            found = {**found, "probabilities": dict(list(found["probabilities"].items())[:top])}
        show(("," if begun else _head(about) + "\n") + json.dumps(found, allow_nan=False))
        begun = True

    return write


def _head(about: dict) -> str:
    return json.dumps(about)[:-1] + ', "predictions": ['


@contextmanager
def _csv_sink(path: str, top: int) -> Iterator[Sink]:
    ranked = [f"{what}_{k}" for k in range(1, top + 1) for what in ("class", "probability")]
    with csv_file(path, ["path", "index", "rejected", *ranked]) as write:
        yield lambda found: write(_row(found, top))


def _row(found: dict, top: int) -> Sequence:
    index = "" if found["index"] is None else found["index"]
    ranked = list(found["probabilities"].items())[:top]
    return [found["path"], index, int(found["rejected"]), *(value for pair in ranked for value in pair)]


def _ticker(shown: bool) -> Callable[[int], None]:
    """What says now and then on standard error how many images are done."""
    began = last = time.monotonic()

    def tick(count: int) -> None:
        nonlocal last
        now = time.monotonic()
        if shown and now - last >= INTERVAL:
            last = now
            say(f"{number(count, 'image')}  {count / (now - began):,.0f} images/s")

    return tick


def _is_terminal(stream) -> bool:
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # it is closed
        return False
