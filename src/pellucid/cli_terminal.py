"""Saying things on a terminal: results, errors in one line, and streams that may be closed, full or broken."""

from __future__ import annotations

import contextlib
import json
import os
import sys

import typer

from .texts import printable


class Unwritten(Exception):
    """Standard output cannot be written to; the cause says why."""


def flush_or_drop(stream) -> OSError | None:
    """Flush a stream. Where that fails, what it holds is dropped, so that Python's end does not try it again."""
    try:
        if stream is not None:
            stream.flush()
    except OSError as e:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
        return e
    return None


def fail(message: str) -> None:
    """Say what is wrong and end with status 1."""
    say(f"pellucid: {message}")
    raise typer.Exit(1)


def one_line(error: Exception) -> str:
    """An error as one line. What is not an error of use is a fault of ours, and says so."""
    text = printable(" ".join(str(error).split()))
    if isinstance(error, RuntimeError) and "home directory" in text:
        return "whose home a path with ~ means cannot be told; write the path in full"
    if isinstance(error, MemoryError):
        return text or "there is not enough memory; use smaller images, fewer of them, or a smaller --batch-size"
    if isinstance(error, ImportError):
        return f"{text}; install it with pip, or install pellucid again"
    if isinstance(error, ValueError | OSError) and text:
        return text
    return f"internal error, {type(error).__name__}: {text}; PELLUCID_TRACEBACK=1 shows where. Please report it"


def say(text: str) -> None:
    """A line for people, on standard error where there is one: who closed it does not want to know."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):
            print(text, file=sys.stderr, flush=True)


def show(text: str) -> None:
    """A result, on standard output. Raises Unwritten."""
    try:
        print(text, flush=True)
    except OSError as e:
        raise Unwritten from e


def show_json(value: dict) -> None:
    show(json.dumps(value, allow_nan=False))
