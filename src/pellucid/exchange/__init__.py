"""Models from elsewhere and for elsewhere: ONNX files in and out, PyTorch modules out.

`load` opens every kind of model file there is, and is what commands use.
"""

from __future__ import annotations

import os
from pathlib import Path

from .. import model as models

ONNX = ".onnx"


def load(path: str | os.PathLike) -> models.Model:
    """The model in a file: one that Pellucid saved (.safetensors), or an ONNX graph (.onnx).

    It is checked completely before anything is allocated; nothing in it is executed. An ONNX graph that Pellucid did
    not export brings no preprocessing and no class names: `exchange.onnx.load` and `pellucid import` give it both.
    Raises OSError for a file that cannot be read, ModelFileError, in one line, for one that is no complete, consistent
    model, and ImportError where the package `onnx` is needed and not installed.
    """
    if Path(path).suffix.lower() == ONNX:
        from . import onnx

        return onnx.load(path)
    return models.load(path)
