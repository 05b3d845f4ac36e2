"""Moving numbers between PyTorch's layouts, images as they come, and the engine's blocks of 16 channels."""

import halide as hl

from .machine import LANES_OF_BLOCK as BLOCK
from .machine import Machine, Program, blocked, channels, kernel, pin, variables


def source_filters(p):
    """Filters as the optimiser holds them, seen as (i, j, input of the group, output of the group, group)."""
    p.dim(0).set_stride(hl.Expr())  # any: flipped filters run backwards
    for d in range(5):
        p.dim(d).set_min(0)
    return p


@kernel("pack_filters")
def pack_filters(machine: Machine) -> Program:
    """w(k, c, i, j, cb, kb) from PyTorch's filters times `scale` of the output, zero outside the group and past the
    last channel.

    Input channels are stored `inner` to a block. Flips, every-other-tap selections and the
    exchange of input and output are strides of the source's view, so the backward pass uses this program too.
    """
    w, scale = source_filters(hl.ImageParam(hl.Float(32), 5, "w")), channels("scale")
    first = hl.ImageParam(hl.Int(32), 1, "first")
    k, c, i, j, cb, kb = variables("k c i j cb kb")
    out = hl.Func("packed")
    inputs, outputs, groups = w.dim(2).extent(), w.dim(3).extent(), w.dim(4).extent()
    inner = hl.Param(hl.Int(32), "inner")

    output = kb * BLOCK + k
    group = hl.select(groups == 1, 0, output / outputs)
    # `first` shifts the band as the convolution does; see conv.py.
    local = (hl.select(groups == 1, 0, first[kb]) + cb) * inner + c - group * inputs
    valid = (group < groups) & (output - group * outputs < outputs) & (local >= 0) & (local < inputs)
    out[k, c, i, j, cb, kb] = hl.select(valid, w[
        i, j, hl.clamp(local, 0, inputs - 1), hl.clamp(output - group * outputs, 0, outputs - 1),
        hl.clamp(group, 0, groups - 1)] * scale[k, kb], 0.0)

    task = hl.Var("task")
    out.reorder(k, i, j, c, cb, kb).vectorize(k, BLOCK).fuse(cb, kb, task)
    out.parallel(task, 4, hl.TailStrategy.GuardWithIf)
    out.specialize(groups == 1)
    o = pin(out.output_buffer())
    for d in range(1, 6):
        o.dim(d).set_min(0)
    first.dim(0).set_min(0)
    return Program([out], [w, scale, first, inner])


@kernel("unpack_filters")
def unpack_filters(machine: Machine) -> Program:
    """PyTorch's layout from packed filters: the inverse of `pack_filters`, for gradients."""
    packed = pin(hl.ImageParam(hl.Float(32), 6, "packed"))
    first = hl.ImageParam(hl.Int(32), 1, "first")
    i, j, ci, o, g, task = variables("i j ci o g task")
    out = hl.Func("dw")
    inputs, outputs, groups = (hl.Param(hl.Int(32), v) for v in ("inputs", "outputs", "groups"))
    inner = packed.dim(1).extent()

    output, channel = g * outputs + o, g * inputs + ci
    kb = hl.clamp(output / BLOCK, 0, packed.dim(5).max())
    band = channel / inner - hl.select(groups == 1, 0, first[hl.clamp(kb, 0, first.dim(0).max())])
    out[i, j, ci, o, g] = packed[
        output % BLOCK, hl.clamp(channel % inner, 0, inner - 1), i, j, hl.clamp(band, 0, packed.dim(4).max()), kb]

    # An output channel is one lane of the source: its neighbours share cache lines, so they form one task.
    oo = hl.Var("oo")
    (out.split(o, oo, o, BLOCK, hl.TailStrategy.GuardWithIf).reorder(i, j, o, ci, oo, g)
        .fuse(oo, g, task).parallel(task))
    out.specialize((groups == 1) & (inner == BLOCK))
    source_filters(out.output_buffer())
    for d in range(1, 6):
        packed.dim(d).set_min(0)
    first.dim(0).set_min(0)
    return Program([out], [packed, first, inputs, outputs, groups])


@kernel("input_u8", hl.UInt(8))
@kernel("input_f32", hl.Float(32))
def load(machine: Machine, kind) -> Program:
    """y(c, x, y, b, n) = image(channel, x, y, n) * scale(channel) + shift(channel), zero past the last channel."""
    image = hl.ImageParam(kind, 4, "image")
    scale, shift = hl.ImageParam(hl.Float(32), 1, "scale"), hl.ImageParam(hl.Float(32), 1, "shift")
    c, x, y, b, n = variables("c x y b n")
    out = hl.Func("y")
    inner = hl.Param(hl.Int(32), "inner")
    count = image.dim(0).extent()
    channel = b * inner + c
    safe = hl.clamp(channel, 0, count - 1)
    value = hl.cast(hl.Float(32), image[safe, x, y, n]) * scale[safe] + shift[safe]
    out[c, x, y, b, n] = hl.select(channel < count, value, 0.0)
    task = hl.Var("task")
    out.fuse(b, n, task).parallel(task, 4, hl.TailStrategy.GuardWithIf)
    # One channel, rows in one run: the commonest first layer.
    o = out.output_buffer()
    grey = (count == 1) & (inner == 1) & (o.dim(0).extent() == 1) & (o.dim(1).stride() == 1)
    out.specialize(grey).vectorize(x, 8, hl.TailStrategy.GuardWithIf)
    o.dim(0).set_min(0).set_stride(1)
    for p in (image, scale, shift):
        p.dim(0).set_min(0).set_stride(1)
    return Program([out], [image, scale, shift, inner])


@kernel("store_f32")
def store(machine: Machine) -> Program:
    """out(channel, x, y, n) = x(c, x, y, b, n): an activation as N, H, W, C."""
    x = blocked("x")
    c, X, Y, n = variables("c X Y n")
    out = hl.Func("out")
    out[c, X, Y, n] = x[c % BLOCK, X, Y, c / BLOCK, n]
    out.parallel(n)
    o = out.output_buffer()
    o.dim(0).set_min(0).set_stride(1)
    x.dim(3).set_min(0)
    return Program([out], [x])


@kernel("copy_blocks")
def copy_blocks(machine: Machine) -> Program:
    """y = x, between activations whose dimensions are laid out in another order."""
    x = blocked("x")
    c, X, Y, b, n, task = variables("c X Y b n task")
    out = hl.Func("y")
    out[c, X, Y, b, n] = x[c, X, Y, b, n]
    # Images innermost: a dense layer wants each block of all images together.
    out.vectorize(c, BLOCK).reorder(c, n, X, Y, b).fuse(Y, b, task).parallel(task)
    pin(out.output_buffer())
    return Program([out], [x])


@kernel("clear")
def clear(machine: Machine) -> Program:
    """y = 0."""
    c, X, Y, b, n, task = variables("c X Y b n task")
    out = hl.Func("y")
    out[c, X, Y, b, n] = 0.0
    out.vectorize(c, BLOCK).fuse(b, n, task).parallel(task)
    pin(out.output_buffer())
    return Program([out], [])


def flatten_index(shape, channel):
    """(x, y, channel of the map) behind a feature, in PyTorch's order: channel, then row, then column."""
    width, height = shape
    return channel % width, (channel / width) % height, channel / (width * height)


@kernel("flatten")
def flatten(machine: Machine) -> Program:
    """y(c, b, n): the map x as a feature vector in PyTorch's order (C, H, W), spare lanes zero."""
    x = hl.ImageParam(hl.Float(32), 5, "x")  # blocks of 16, or an image as it comes
    inner, count = x.dim(0).extent(), hl.Param(hl.Int(32), "features")
    c, b, n, task = variables("c b n task")
    out = hl.Func("y")
    column, row, ch = flatten_index((x.dim(1).extent(), x.dim(2).extent()), hl.min(b * BLOCK + c, count - 1))
    ch = hl.clamp(ch, 0, x.dim(3).extent() * inner - 1)
    out[c, b, n] = hl.select(b * BLOCK + c < count, x[ch % inner, column, row, ch / inner, n], 0.0)
    out.reorder(c, b, n).parallel(n)
    pin(out.output_buffer())
    for d in range(4):
        x.dim(d).set_min(0)
    return Program([out], [x, count])


@kernel("unflatten")
def unflatten(machine: Machine) -> Program:
    """x(c, x, y, b, n): a feature vector as a map of `channels` channels, spare lanes zero."""
    v = pin(hl.ImageParam(hl.Float(32), 3, "y"))
    count, width, height = (hl.Param(hl.Int(32), p) for p in ("channels", "width", "height"))
    c, X, Y, b, n = variables("c X Y b n")
    out = hl.Func("x")
    channel = b * BLOCK + c
    feature = (channel * height + Y) * width + X
    safe = hl.clamp(feature, 0, v.dim(1).extent() * BLOCK - 1)
    out[c, X, Y, b, n] = hl.select(channel < count, v[safe % BLOCK, safe / BLOCK, n], 0.0)
    out.parallel(n)
    pin(out.output_buffer())
    v.dim(1).set_min(0)
    return Program([out], [v, count, width, height])
