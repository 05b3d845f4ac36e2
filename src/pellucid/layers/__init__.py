"""The kinds of layers, one file each. To add one, write its file and import it here; the tests find it by themselves.

A layer is a frozen dataclass that knows its shapes, its parameters, its definition and its kernels; see `base.Layer`.
"""

from .activation import GELU, LeakyReLU, ReLU, ScaledTanh, Sigmoid, SiLU, Softmax, Tanh
from .base import LAYERS, Layer, Parameter, Shape
from .channels import PadChannels, TakeChannels
from .conv import Conv
from .dense import Dense, Flatten
from .dropout import Dropout
from .lrn import LRN
from .merge import Add, Concat
from .norm import BatchNorm
from .pool import AdaptiveAvgPool, AvgPool, GlobalAvgPool, GlobalMaxPool, MaxPool

__all__ = [
    "GELU", "LAYERS", "LRN", "AdaptiveAvgPool", "Add", "AvgPool", "BatchNorm", "Concat", "Conv", "Dense", "Dropout",
    "Flatten", "GlobalAvgPool", "GlobalMaxPool", "Layer", "LeakyReLU", "MaxPool", "PadChannels", "Parameter", "ReLU",
    "ScaledTanh", "Shape", "SiLU", "Sigmoid", "Softmax", "TakeChannels", "Tanh",
]
