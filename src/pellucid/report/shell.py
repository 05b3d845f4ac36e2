"""The frame of every page: one HTML text without scripts, which needs no other file and no network.

Texts are escaped where they are put in, whatever they hold; only `Markup` (what `render` gives) and pictures go in as
they are. A page is refused scripts, and anything from elsewhere, by its own content security policy.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from ..texts import clipped, printable

__all__ = ["Markup", "Section", "page", "render", "section"]


@dataclass(frozen=True)
class Section:
    """A part of a page under a heading of its own, which the page's contents link to as `#anchor`.

    `body` is HTML as `render` gives it; a text is a paragraph. `lead` says in a sentence what is to be seen.
    """

    title: str
    body: Markup | str
    lead: str = ""
    anchor: str = ""

    def __post_init__(self):
        object.__setattr__(self, "anchor", self.anchor or re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-"))


def page(title: str, sections: Sequence[Section], *, top: Markup | str = "", foot: Markup | str = "") -> str:
    """A whole page: `top` stands below the title, before the contents; `foot` at the end. Both as a `Section.body`.

    Raises ValueError where two sections have one anchor, or one has none.
    """
    anchors = [section.anchor for section in sections]
    if wrong := [a for a in anchors if not a or anchors.count(a) > 1]:
        raise ValueError(f"each section of a page needs an anchor of its own, got {wrong[0]!r} twice or empty")
    return str(render("page.html", title=title, sections=sections, top=top, foot=foot))


def render(template: str, **values: object) -> Markup:
    """A template of the folder `templates`, filled in. `parts.html` there holds what many need: tables, figures.

    Raises jinja2.UndefinedError for a value that the template uses and was not given.
    """
    return Markup(_environment().get_template(template).render(values))


def section(title: str, anchor: str, template: str, **values: object) -> Section:
    """A section whose body is a template, filled in."""
    return Section(title, render(template, **values), anchor=anchor)


@functools.cache
def _environment() -> Environment:
    folder = Path(__file__).with_name("templates")
    environment = Environment(loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined,
                              trim_blocks=True, lstrip_blocks=True, finalize=_shown)
    environment.globals["style"] = Markup((folder / "style.css").read_text(encoding="utf-8"))
    environment.tests["markup"] = lambda value: isinstance(value, Markup)
    environment.filters |= {"svg": lambda picture: Markup(picture.svg), "clipped": clipped, "options": _options}
    return environment


def _options(text: str) -> Markup:
    """A text in which options of the command line, as --size, are set as code."""
    return Markup(re.sub(r"--[a-z][a-z-]*", r"<code>\g<0></code>", str(escape(printable(text)))))


def _shown(value: object) -> object:
    """What stands for a value in a page: characters that HTML does not allow become escapes."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value
