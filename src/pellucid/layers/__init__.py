"""The kinds of layers, one file each. To add one, write its file and import it here; the tests find it by themselves.

A layer is a frozen dataclass that knows its shapes, its parameters, its definition and its kernels; see `base.Layer`.
"""

from .activation import GELU, Clip, LeakyReLU, ReLU, ScaledTanh, Sigmoid, SiLU, Softmax, Tanh
from .affine import Affine
from .base import LAYERS, Layer, Parameter, Shape
from .channels import PadChannels, TakeChannels
from .conv import Conv
from .dense import Dense, Flatten
from .dropout import Dropout
from .lrn import LRN
from .merge import Add, Concat
from .norm import BatchNorm
from .pool import AdaptiveAvgPool, AvgPool, GlobalAvgPool, GlobalMaxPool, MaxPool
from .rearrange import ChannelShuffle, Pad

__all__ = [
    "GELU", "LAYERS", "LRN", "AdaptiveAvgPool", "Add", "Affine", "AvgPool", "BatchNorm", "ChannelShuffle", "Clip",
    "Concat", "Conv", "Dense", "Dropout", "Flatten", "GlobalAvgPool", "GlobalMaxPool", "Layer", "LeakyReLU", "MaxPool",
    "Pad", "PadChannels", "Parameter", "ReLU", "ScaledTanh", "Shape", "SiLU", "Sigmoid", "Softmax", "TakeChannels",
    "Tanh",
]
