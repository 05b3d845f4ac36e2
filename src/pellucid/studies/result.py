"""What every study returns, and the list of those that a model and images are enough for."""

from __future__ import annotations

import dataclasses
import textwrap
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ..explain import taps
from ..model import READ, Model

if TYPE_CHECKING:
    from ..draw import Picture

MODEL_STUDIES: dict[str, Callable[..., Study]] = {}  # by name, in the order in which they are best read


class DoesNotApply(ValueError):
    """The claim is about something that this network or these images do not have. The message is one line."""


@dataclass(frozen=True, eq=False)
class Study(ABC):
    """What was found. A subclass is a frozen dataclass of numbers; fields made by `pictured` only serve the figures.

    `name` and `title` say which study it is, and `claim` what the lecture says.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    claim: ClassVar[str]

    @property
    @abstractmethod
    def sentence(self) -> str:
        """What was found, in words, from the numbers."""

    @abstractmethod
    def figures(self) -> list[Picture]:
        """What was found, in pictures."""

    def to_json(self) -> dict:
        """The study as dicts, lists, strings and numbers: its name, the claim, the sentence and all numbers."""
        return {"study": self.name, "title": self.title, "claim": self.claim, "sentence": self.sentence, **_json(self)}

    def __str__(self) -> str:
        return "\n".join([f"{self.title}. {self.claim}", textwrap.fill(self.sentence, 80)])

    def _repr_html_(self) -> str:
        from html import escape

        return f"<p>{escape(self.sentence)}</p>" + "".join(picture.svg for picture in self.figures())


def pictured():
    """A field of arrays that is drawn and not written as JSON."""
    return field(repr=False, metadata={"json": False})


def model_study(name: str):
    """Decorator: a function (model, images, **options) -> Study, listed in `MODEL_STUDIES`."""

    def listed(function):
        MODEL_STUDIES[name] = function
        return function

    return listed


def checked(model: Model, images: np.ndarray) -> np.ndarray:
    """The images as `taps` reads them, none copied. Raises ValueError unless there are some, which fit and are finite
    numbers."""
    if not isinstance(model, Model):
        raise ValueError(f"a study needs a pellucid.Model, got {type(model).__name__}")
    images = taps.as_read(model, images)
    if not len(images):
        raise ValueError("a study needs at least 1 image, got 0")
    for first in range(0, len(images), READ):
        require_finite(images[first:first + READ], "the images")
    return images


def require_finite(values: np.ndarray, what: str) -> None:
    """Raise ValueError for values that are not finite numbers."""
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ValueError(f"{what} hold values that are not finite numbers (NaN or infinite); nothing can be measured "
                         "with them")


def times(ratio: float) -> str:
    """How many times, in words: 455 or 0.11."""
    return f"{ratio:,.0f}" if ratio >= 10 else f"{ratio:.2g}"


def _json(value):
    if dataclasses.is_dataclass(value):
        kept = [f.name for f in dataclasses.fields(value) if f.metadata.get("json", True)]
        return {name: _json(getattr(value, name)) for name in kept}
    if isinstance(value, dict):
        return {str(k): _json(v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [_json(v) for v in value]
    if isinstance(value, np.ndarray | np.generic):
        return _json(value.tolist())
    if isinstance(value, float) and not np.isfinite(value):
        return None  # JSON has no other
    return value
