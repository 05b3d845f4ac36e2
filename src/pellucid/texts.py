"""Texts for people, on a terminal and on a page."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence

NAME = 16  # characters of a class's name in a sentence


def printable(text: str) -> str:
    """A text with control characters, line ends and bytes that are no text as escapes, so that it stays one line."""
    if text.isprintable():  # soon seen, even of a text as long as a picture
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def clipped(name: str, width: int = NAME) -> str:
    """A name of at most so many characters; what is left out is in the middle, since many names differ at the end."""
    text, end = printable(name), width // 3
    return text if len(text) <= width else f"{text[:width - 3 - end]}...{text[-end:]}"


def called(name: str) -> str:
    """A class's name within a sentence, in quotation marks: many are numbers, or words of the sentence."""
    return f"“{clipped(name)}”"


def number(count: int, noun: str, nouns: str | None = None) -> str:
    """1 epoch, 2 epochs; 2 of what the plural is, where it does not end in s alone."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {nouns or noun + 's'}"


def listed(names: Sequence[str]) -> str:
    """a; a and b; a, b and c."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def quoted(path: object) -> str:
    """A path as the shell takes it, on one line."""
    text = str(path)
    if text.isprintable():
        return shlex.quote(text)
    plain = "".join(chr(b) if 32 <= b < 127 and chr(b) not in "\\'" else f"\\x{b:02x}" for b in os.fsencode(text))
    return f"$'{plain}'"
