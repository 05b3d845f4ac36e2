"""Why a network answers as it does: every value it computes, and what moved it.

Each method is a file and a function `method(model, image, target=None, **own)`. Those in `METHODS` give a `Map` over
the image; which number they explain, and on what they compute, stands in `question`.
"""

from __future__ import annotations

from collections.abc import Callable

from .grad_cam import grad_cam
from .gradient import gradient
from .gradient_times_input import gradient_times_input
from .maps import Map
from .occlusion import occlusion

METHODS: dict[str, Callable[..., Map]] = {
    method.__name__: method for method in (gradient, gradient_times_input, grad_cam, occlusion)
}

__all__ = ["METHODS", "Map", "grad_cam", "gradient", "gradient_times_input", "occlusion"]
