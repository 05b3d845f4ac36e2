"""Why a network answers as it does: every value it computes, and what moved it.

Each method is a file and a function `method(model, image, target=None, **own)`. Those in `METHODS` give a `Map` over
the image; which number they explain, and on what they compute, stands in `question`.
"""

from __future__ import annotations

from collections.abc import Callable

from .contributions import contributions
from .grad_cam import grad_cam
from .gradient import gradient
from .gradient_times_input import gradient_times_input
from .integrated_gradients import integrated_gradients
from .maps import Map
from .neighbours import Neighbours, neighbours
from .occlusion import occlusion
from .scores import Curve, deletion, insertion
from .smallest_change import Change, SmallestChange, smallest_change

METHODS: dict[str, Callable[..., Map]] = {
    method.__name__: method
    for method in (gradient, gradient_times_input, integrated_gradients, grad_cam, occlusion, contributions)
}

__all__ = [
    "METHODS", "Change", "Curve", "Map", "Neighbours", "SmallestChange", "contributions", "deletion", "grad_cam",
    "gradient", "gradient_times_input", "insertion", "integrated_gradients", "neighbours", "occlusion",
    "smallest_change",
]
