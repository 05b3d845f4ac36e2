"""The networks by name. Registering one is all it takes to build, list, train and test it by its name."""

from __future__ import annotations

import inspect
from collections.abc import Callable

from ..layers.base import Shape
from ..network import Network

NETWORKS: dict[str, Callable[..., Network]] = {}


def register(function: Callable[..., Network]) -> Callable[..., Network]:
    """Decorator: the network is called as its function, which takes `input_shape`, `classes` and options."""
    if function.__name__ in NETWORKS:
        raise ValueError(f"two networks are called {function.__name__}")
    NETWORKS[function.__name__] = function
    return function


def names() -> list[str]:
    """The names that `build` knows, sorted."""
    return sorted(NETWORKS)


def require(name: str) -> None:
    """Raise ValueError for a name that `build` does not know."""
    if not isinstance(name, str) or name not in NETWORKS:
        raise ValueError(f"no network is called {name!r}; there are {', '.join(names())}")


def build(name: str, *, input_shape: Shape | None = None, classes: int | None = None, **options) -> Network:
    """The network of that name for images of `input_shape` (H, W, C) and that many classes.

    What is not given is as in the network's source. Raises ValueError for an unknown name or option, and for
    shapes that do not fit, such as an image too small to be pooled that often.
    """
    require(name)
    if classes is not None and (not isinstance(classes, int) or isinstance(classes, bool) or classes < 1):
        raise ValueError(f"classes must be a positive integer, got {classes!r}")
    known = [p for p in inspect.signature(NETWORKS[name]).parameters if p not in ("input_shape", "classes")]
    if unknown := sorted(set(options) - set(known)):
        raise ValueError(f"{name} has no option {', '.join(unknown)}; it has {', '.join(known) or 'none'}")
    given = {k: v for k, v in (("input_shape", input_shape), ("classes", classes)) if v is not None}
    return NETWORKS[name](**given, **options)
