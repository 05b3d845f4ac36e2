"""What is asked: why this model gives this class for this image.

**Which number is explained.** The target's logit for the image as it is given. Where a network ends in a softmax it is
what the softmax reads: a probability also moves when another class's score does. Test-time augmentation (`tta`) means
the logits of several views; a map stands over one image, so the others are left out, and so is the temperature of a
calibration, which scales all maps alike. The target by default, and everything that asks for an answer or a
probability, is what `Model.predict` gives, both included.

Methods compute on the image as the network reads it, preprocessing included, in float32. Zero there is the mean colour
of the training images, for a model with preprocessing.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral
from weakref import WeakKeyDictionary

import numpy as np

from ..model import Model
from ..network import INPUT, Network, brief
from . import taps
from .graph import logits

BATCH = 64  # changed copies of an image that are held at a time
BROKEN = "the network's parameters or the image's values are too large, or no numbers"

_bare: WeakKeyDictionary[Model, tuple[int, Model]] = WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class Question:
    """A model, an image of its size as it was given, and a class."""

    model: Model
    image: np.ndarray
    target: int

    @cached_property
    def bare(self) -> Model:
        """The model, its output being logits."""
        return without_softmax(self.model)

    @cached_property
    def read(self) -> np.ndarray:
        """The image as the network reads it, float32."""
        return as_float(self.model, self.image)

    @cached_property
    def score(self) -> float:
        """The number explained."""
        return float(self.scores(self.read[None])[0])

    def scores(self, images: np.ndarray) -> np.ndarray:
        """The target's logit for other images as the network reads them: (N,) float32."""
        output = self.bare.network.output
        return taps.values(self.bare, images, [output])[output][:, self.target]

    def gradients(self, images: np.ndarray, names: Collection[str] = (INPUT,)) -> dict[str, np.ndarray]:
        """The gradients of the target's logit to some taps, for images as the network reads them."""
        chosen = np.zeros(self.bare.network.output_shape, np.float32)
        chosen[self.target] = 1
        return taps.gradients(self.bare, images, chosen, names)

    def baseline(self, image: np.ndarray | None) -> np.ndarray:
        """An image that stands for "nothing there", as the network reads it; zeros for None."""
        return np.zeros_like(self.read) if image is None else as_float(self.model, checked(self.model, image))


def ask(model: Model, image: np.ndarray, target: int | str | None) -> Question:
    """The question, checked. Raises ValueError for an image, a target or a model that cannot be asked about, and where
    the score is no finite number."""
    require_pixels(model)
    image = checked(model, image)
    question = Question(model, image, chosen(model, image, target))
    if not np.isfinite(question.score):
        name = model.classes[question.target]
        raise ValueError(f"the logit of {name!r} for this image is {question.score}; {BROKEN}")
    return question


def require_pixels(model: Model) -> None:
    """Raise ValueError unless the model tells classes of images or signals apart."""
    model.require_classes()
    if len(model.network.input_shape) == 1:
        raise ValueError("only what has pixels, images and signals, can be explained by them; this network reads "
                         f"vectors of {model.network.input_shape[0]} features")


def checked(model: Model, image: np.ndarray) -> np.ndarray:
    """One image of the network's shape; uint8 grey ones may come as (H, W). Raises ValueError for another."""
    image, shape = np.asarray(image), model.network.input_shape
    if image.dtype == np.uint8:
        model.require_preprocessing()
        if shape[-1] == 1 and image.shape == shape[:-1]:
            image = image[..., None]
    elif image.dtype != np.float32:
        raise ValueError(f"expected a uint8 or float32 image, got {image.dtype}")
    if image.shape != shape:
        raise ValueError(f"expected one image of shape {shape}, got {image.shape}; Preprocessing.prepare resizes "
                         "pictures")
    if not np.isfinite(image).all():
        raise ValueError("the image has values that are not finite numbers")
    return image


def chosen(model: Model, image: np.ndarray, target: int | str | None) -> int:
    """The class asked about, by number or name; for None the model's answer. Raises ValueError where there is none."""
    if target is None:
        found = model.log_probabilities(image[None])[0]
        if np.isnan(found).any():
            raise ValueError(f"the model gives no answer for this image, its probabilities are not numbers; {BROKEN}")
        return int(found.argmax())
    if isinstance(target, str):
        if target not in model.classes:
            raise ValueError(f"no class is called {target!r}; there are {', '.join(model.classes[:12])}"
                             + f" and {len(model.classes) - 12} more" * (len(model.classes) > 12))
        return model.classes.index(target)
    if not isinstance(target, Integral) or isinstance(target, bool) or not 0 <= target < len(model.classes):
        raise ValueError(f"the target must be a class's name, or its number from 0 to {len(model.classes) - 1}, got "
                         f"{brief(target)}")
    return int(target)


def as_float(model: Model, image: np.ndarray) -> np.ndarray:
    """An image that was checked, as the network reads it."""
    return model.preprocessing.apply(image[None])[0] if image.dtype == np.uint8 else image


def empty(model: Model, image: np.ndarray) -> np.ndarray:
    """An image like this one that the network reads as zero: the mean colour of the training images."""
    if image.dtype != np.uint8:
        return np.zeros_like(image)
    mean = np.rint(np.array(model.preprocessing.mean) * 255).clip(0, 255).astype(np.uint8)
    return np.broadcast_to(mean, image.shape).copy()


def without_softmax(model: Model) -> Model:
    """The model itself, or one with the same parameters that stops before the softmax at the end of its network.

    Raises ValueError where there is nothing but a softmax.
    """
    network = model.network
    if (before := logits(network)) == network.output:
        return model
    version, bare = _bare.get(model, (None, None))
    if version != model.version:
        if before == INPUT:
            raise ValueError("this network is a softmax alone: it has no logits to explain")
        kept = Network(network.input_shape, tuple(n for n in network.nodes if n.name != network.output), before)
        bare = bare or Model(kept, None, preprocessing=model.preprocessing, classes=model.classes)
        bare.load_parameters(model.parameters)
        _bare[model] = model.version, bare
    return bare
