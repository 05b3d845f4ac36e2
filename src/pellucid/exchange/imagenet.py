"""What networks trained on ImageNet are given, and what their 1,000 answers are called."""

from __future__ import annotations

from importlib.resources import files

from ..layers.base import Shape
from ..preprocessing import Preprocessing

# Of the training images' channels, where white is 1: by these all of torchvision's networks were trained.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIDE, RESIZE = 224, 256  # pixels of the image, and of the picture's shorter side that it is cut from


def classes() -> list[str]:
    """The names of the 1,000 classes of ILSVRC 2012, in the order of their WordNet numbers, as outputs are."""
    return files(__package__).joinpath("imagenet_classes.txt").read_text(encoding="utf-8").splitlines()


def preprocessing(input_shape: Shape = (SIDE, SIDE, 3), resize: int = RESIZE) -> Preprocessing:
    """The preprocessing of torchvision's networks: the shorter side to `resize` pixels, the middle, mean and deviation.

    `resize` holds for images of 224 pixels; for larger and smaller ones it grows and shrinks with them.
    """
    shorter = round(resize * max(input_shape[:2]) / SIDE)
    return Preprocessing(input_shape, MEAN, STD, f"crop {shorter}")
