"""The definitions: what the lecture writes on the board, in plain loops and float64.

Slow on purpose, and the judge of everything fast: compiled kernels and PyTorch must agree with what stands
here. Images are `N, H, W, C` (batch, row, column, channel), signals `N, L, C`, feature vectors `N, F`. Filters
are `O, I / groups, kh, kw` or `O, I / groups, k`; dense weights `O, I`.

A function's gradient stands below it: `dy` is the derivative of some scalar loss to the function's output `y`,
and what returns (`dx`, `dw`, ...) is the derivative of the same loss to each of its arguments.
"""

from .convolution import conv, conv_grad_bias, conv_grad_input, conv_grad_weight, conv_matrix
from .dense import dense, dense_grad, flatten, unflatten
from .loss import cross_entropy, cross_entropy_grad, softmax, softmax_grad
from .merging import (
    add,
    channel_shuffle,
    concat,
    pad,
    pad_channels,
    pad_grad,
    split,
    take_channels,
    take_channels_grad,
)
from .normalisation import batch_moments, batch_norm, batch_norm_grad, batch_norm_inference_grad, lrn, lrn_grad
from .pointwise import (
    clip,
    clip_grad,
    dropout,
    dropout_grad,
    gelu,
    gelu_grad,
    leaky_relu,
    leaky_relu_grad,
    relu,
    relu_grad,
    scaled_tanh,
    scaled_tanh_grad,
    sigmoid,
    sigmoid_grad,
    silu,
    silu_grad,
    tanh,
    tanh_grad,
)
from .pooling import (
    adaptive_avg_pool,
    adaptive_avg_pool_grad,
    avg_pool,
    avg_pool_grad,
    global_avg_pool,
    global_avg_pool_grad,
    global_max_pool,
    global_max_pool_grad,
    max_pool,
    max_pool_grad,
)

__all__ = [
    "adaptive_avg_pool", "adaptive_avg_pool_grad", "add", "avg_pool", "avg_pool_grad", "batch_moments", "batch_norm",
    "batch_norm_grad", "batch_norm_inference_grad", "channel_shuffle", "clip", "clip_grad", "concat", "conv",
    "conv_grad_bias", "conv_grad_input", "conv_grad_weight", "conv_matrix", "cross_entropy", "cross_entropy_grad",
    "dense", "dense_grad", "dropout", "dropout_grad", "flatten", "gelu", "gelu_grad", "global_avg_pool",
    "global_avg_pool_grad", "global_max_pool", "global_max_pool_grad", "leaky_relu", "leaky_relu_grad", "lrn",
    "lrn_grad", "max_pool", "max_pool_grad", "pad", "pad_channels", "pad_grad", "relu", "relu_grad", "scaled_tanh",
    "scaled_tanh_grad", "sigmoid", "sigmoid_grad", "silu", "silu_grad", "softmax", "softmax_grad", "split",
    "take_channels", "take_channels_grad", "tanh", "tanh_grad", "unflatten",
]
