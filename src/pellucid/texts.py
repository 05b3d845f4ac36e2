"""Texts for people, on a terminal and on a page."""

from __future__ import annotations


def printable(text: str) -> str:
    """A text with control characters, line ends and bytes that are no text as escapes, so that it stays one line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
