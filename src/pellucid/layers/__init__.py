"""The kinds of layers, one file each. To add one, write its file and import it here; the tests find it by themselves.

A layer is a frozen dataclass that knows its shapes, its parameters, its definition and its kernels; see `base.Layer`.
"""

from .activation import GELU, LeakyReLU, ReLU, Sigmoid, SiLU, Softmax, Tanh
from .base import LAYERS, Layer, Parameter, Shape
from .conv import Conv
from .dense import Dense, Flatten
from .dropout import Dropout
from .merge import Add, Concat
from .norm import BatchNorm
from .pool import AvgPool, GlobalAvgPool, GlobalMaxPool, MaxPool

__all__ = [
    "GELU", "LAYERS", "Add", "AvgPool", "BatchNorm", "Concat", "Conv", "Dense", "Dropout", "Flatten", "GlobalAvgPool",
    "GlobalMaxPool", "Layer", "LeakyReLU", "MaxPool", "Parameter", "ReLU", "Shape", "SiLU", "Sigmoid", "Softmax",
    "Tanh",
]
