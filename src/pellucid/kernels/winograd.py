"""3x3 convolution of stride 1 by Winograd's minimal filtering, F(4x4, 3x3), and the gradient to its filters.

A tile of 4x4 outputs costs 36 multiplications for each pair of channels in place of 144: Y = A'[(G g G') . (B' d B)]A
with the 6x6 tile d of the input (Lavin and Gray, "Fast algorithms for convolutional neural networks", 2015). Products
over the channels of some tiles are 36 small matrix products that stay in the caches. The gradient to the filters turns
the same identity round: dg = G'[(sum over tiles of (A dy A') . (B' d B))]G.

Tiles are numbered row by row, image by image. The last ones overhang the map: the caller gives input and
gradient a halo of zeros that wide. A value's terms are added in an order that depends on channels alone, so neither
the batch nor the chunks of tiles change a bit of a convolution. The gradient to the filters is added chunk by chunk;
their size comes from the batch, never from the threads.
"""

import halide as hl

from ..geometry import POINTS, TILES_TOGETHER
from .fixed import bounded, has_products, largest_of_all, paired, product
from .layout import source_filters
from .machine import LANES_OF_BLOCK as BLOCK
from .machine import Machine, Program, blocked, channels, kernel, pin, places, variables
from .pointwise import f32, rectified
from .pool import largest_of
from .transforms import (
    FILTER_GAINS,
    GRADIENT_GAINS,
    INPUT_GAINS,
    a_register,
    by_register,
    filter_gradient,
    filter_transform,
    gains,
    gradient_transform,
    input_transform,
    output_transform,
    shares,
    through_maximum,
    transformed,
)

GUARD = hl.TailStrategy.GuardWithIf
RUNS = 4  # of tiles side by side that a task transforms: some microseconds


@kernel("winograd_filters", False)
@kernel("winograd_filters_int16", True, when=has_products)
def winograd_filters(machine: Machine, integers: bool) -> Program:
    """u(k, c, cb, kb, point) = G g G' of PyTorch's filters times `scale` of the output, zero past the last channel.

    As integers of at most `limit` it is u(2 k + h, c, cb, kb, point) of channel c + 8 h, in steps of `largest(0)`, that
    of the filters, times the point's gain. Flips and the exchange of input and output are strides of the view of w, as
    in `pack_filters`.
    """
    w, factor = source_filters(hl.ImageParam(hl.Float(32), 5, "w")), channels("scale")
    k, c, cb, kb = variables("k c cb kb")
    inputs, outputs = w.dim(2).extent(), w.dim(3).extent()
    i, o = cb * BLOCK + c, kb * BLOCK + k
    taps = hl.Func("taps")
    a, b = variables("a b")
    taps[k, c, cb, kb, a, b] = hl.select(
        (i < inputs) & (o < outputs), w[a, b, hl.min(i, inputs - 1), hl.min(o, outputs - 1), 0] * factor[k, kb], 0.0)
    rows, u = transformed("u", filter_transform, lambda a, b: taps[k, c, cb, kb, a, b], 3, 6, k, c, cb, kb)
    point, task, deep, arguments = u.args()[-1], hl.Var("task"), BLOCK, []
    if integers:
        largest, limit = hl.ImageParam(hl.Float(32), 1, "largest"), hl.Param(hl.Float(32), "limit")
        arguments, deep, exact = [largest, limit], BLOCK // 2, u
        words, u = paired("u", *(exact[k, c + h, cb, kb, point] for h in (0, deep)),
                          limit / bounded(largest[0]) * shares(FILTER_GAINS, point), (k, c, cb, kb, point))
    lane, wide = u.args()[0], BLOCK * BLOCK // deep
    u.bound(lane, 0, wide).bound(c, 0, deep).bound(point, 0, POINTS)
    # Whole blocks at once: the points lie far apart, and half a cache line would leave the cache before the other half.
    u.reorder(lane, point, c, cb, kb).vectorize(lane).unroll(point).fuse(cb, kb, task).parallel(task)
    for f in (rows, taps):
        f.compute_at(u, c).bound_extent(k, BLOCK).vectorize(k, BLOCK).unroll(f.args()[-2]).unroll(f.args()[-1])
        f.unroll(c)
    if integers:
        words.compute_at(u, point).bound_extent(k, BLOCK).vectorize(k)
    out = u.output_buffer()
    out.dim(0).set_bounds(0, wide).set_stride(1)
    out.dim(1).set_bounds(0, deep).set_stride(wide)
    for d in (2, 3):
        out.dim(d).set_min(0)
    return Program([u], [w, factor, *arguments])


@kernel("winograd", False, False)
@kernel("winograd_pool", True, False)
@kernel("winograd_int16", False, True, when=has_products)
@kernel("winograd_pool_int16", True, True, when=has_products)
@kernel("winograd_unpool_int16", False, True, True, when=has_products)
def winograd(machine: Machine, pool: bool, integers: bool, unpool: bool = False) -> Program:
    """y = act(bias + conv(x, w) + residual) with u = G w G'; x's position (0, 0) is under the first tap.

    With `pool`, y.0 = act(bias + the largest of 2x2 values of conv(x, w)) and y.1 says which it was, row by row.

    With `integers`, products are of u as `winograd_filters` gives it and of B' d B as integers of at most `limit`. The
    scale is that of the image's `largest(n)` times the point's gain; `unit` is what one product counts where both
    largest values are 1. With `unpool`, x is the gradient to the largest of each 2x2 of a map and `index` says where
    they were; x's position (0, 0) is diagonally before that of the first tap, which is one before a 2x2.

    A task transforms `rows` rows of tiles of `images` images, multiplies and transforms back, for `out_blocks` blocks
    of output channels.
    """
    vectors = machine.pair
    tiles = machine.most(vectors)
    x, bias, residual = blocked("x"), channels("bias"), blocked("residual")
    u = hl.ImageParam(hl.Int(16) if integers else hl.Float(32), 5, "u")
    largest, largest_w = (hl.ImageParam(hl.Float(32), 1, n) for n in ("largest", "largest_w"))
    limit, unit = (hl.Param(hl.Float(32), n) for n in ("limit", "unit"))
    tiles_x, tiles_y, rows, images, out_blocks, relu = scalars = [
        hl.Param(hl.Int(32), n) for n in ("tiles_x", "tiles_y", "rows", "images", "out_blocks", "relu")]
    c, k, q, v, group, cb, kb, pair, point, tx, ty, n, X, Y = variables("c k q v group cb kb pair point tx ty n X Y")

    # The algorithm. q counts the tiles of a register tile and v its blocks of output channels.
    t = group * tiles + q
    at, column, row, image = places(t, (q, group), tiles_x, tiles_y, x)
    index = blocked("index", hl.UInt(8))
    read = through_maximum(x, index, c, column, row, cb, image, 1) if unpool else (
        lambda a, b: x[c, 4 * column + a, 4 * row + b, cb, image])
    v_rows, V = transformed("V", input_transform, read, 6, 6, c, q, cb, group)
    acc, M, out, output = hl.Func("acc"), hl.Func("M"), hl.Func("y"), hl.min(pair * vectors + v, u.dim(3).max())
    spot = V.args()[-1]
    if integers:
        half, exact = BLOCK // 2, V
        words, V = paired("V", *(exact[c + h, q, cb, group, spot] for h in (0, half)),
                          limit / bounded(largest[image]) * shares(INPUT_GAINS, spot), (c, q, cb, group, spot))
        r = hl.RDom([(0, 2), (0, half), (0, u.dim(2).extent())], "r")
        acc[k, v, q, group, pair, point] = 0
        acc[k, v, q, group, pair, point] += product(
            u[2 * k + r.x, r.y, r.z, output, point], V[2 * r.y + r.x, q, r.z, group, point])
    else:
        r = hl.RDom([(0, BLOCK), (0, u.dim(2).extent())], "r")
        acc[k, v, q, group, pair, point] = 0.0
        acc[k, v, q, group, pair, point] += u[k, r.x, r.y, output, point] * V[r.x, q, r.y, group, point]
    M[k, v, q, group, pair, point] = acc[k, v, q, group, pair, point]
    tile = tx + tiles_x * (ty + tiles_y * n)
    enlarged = [a * b for a, b in zip(gains(INPUT_GAINS), gains(FILTER_GAINS), strict=True)]

    def multiplied(a, b):
        value = M[k, kb % vectors, tile % tiles, tile / tiles, kb / vectors, a + 6 * b]
        return hl.cast(hl.Float(32), value) * f32(enlarged[a + 6 * b]) if integers else value

    y_rows, tile_of_y = transformed("tile", output_transform, multiplied, 6, 4, k, tx, ty, n, kb)
    step = unit * bounded(largest_w[0]) * bounded(largest[n]) if integers else f32(1)
    side = 2 if pool else 4  # of a tile of results
    if pool:
        most, place = largest_of([hl.Expr(tile_of_y[
            k, X / 2, Y / 2, n, kb, 2 * (X % 2) + p % 2 + 4 * (2 * (Y % 2) + p // 2)]) for p in range(4)])
        out[k, X, Y, kb, n] = (rectified(most * step + bias[k, kb], relu), place)
    else:
        value = tile_of_y[k, X / 4, Y / 4, n, kb, X % 4 + 4 * (Y % 4)] * step
        out[k, X, Y, kb, n] = rectified(value + bias[k, kb] + residual[k, X, Y, kb, n], relu)

    # The schedule.
    xi, yi, k_task, ty_task, n_task, task = variables("xi yi k_task ty_task n_task task")
    (out.bound(k, 0, BLOCK).split(X, tx, xi, side, GUARD).split(Y, ty, yi, side, GUARD)
        .split(ty, ty_task, ty, rows, GUARD).split(n, n_task, n, images, GUARD).split(kb, k_task, kb, out_blocks, GUARD)
        .reorder(k, xi, yi, tx, ty, n, kb, k_task, ty_task, n_task))
    register = by_register(out, machine, xi, yi)
    out.fuse(k_task, ty_task, task).fuse(task, n_task, task).parallel(task)
    for f in (y_rows, tile_of_y):
        a_register(f, machine, out, register)
        for one in f.args()[1:5]:
            f.bound_extent(one, 1)
    (M.compute_at(out, task).bound_extent(k, BLOCK).bound_extent(v, vectors).bound_extent(q, tiles)
        .bound_extent(point, POINTS).reorder_storage(k, v, q, point, pair, group)
        .reorder(k, v, q, group, pair, point).vectorize(k, BLOCK).unroll(v).unroll(q))
    acc.compute_at(M, group).bound_extent(k, BLOCK).bound_extent(v, vectors).vectorize(k, BLOCK).unroll(v).unroll(q)
    if integers:
        acc.update().reorder(r.x, k, v, q, r.y, r.z).atomic().vectorize(r.x).vectorize(k, BLOCK)
    else:
        acc.update().reorder(k, v, q, r.x, r.y).vectorize(k, BLOCK)
    acc.update().unroll(v).unroll(q).unroll(r.y if integers else r.x, 2 if integers else 4)
    at.compute_at(out, task).bound_extent(q, tiles)
    lane = V.args()[0]
    (V.compute_at(out, task).bound_extent(lane, BLOCK).bound_extent(q, tiles).bound_extent(spot, POINTS)
        .reorder_storage(lane, q, spot, cb, group).reorder(lane, spot, q, cb, group))
    if integers:  # both halves of a block at once: a word has a number of each
        V.vectorize(lane).unroll(spot)
        words.compute_at(V, spot).bound_extent(c, BLOCK // 2).vectorize(c)
        a_register(v_rows, machine, V, q, machine.vectors)
    else:
        a_register(v_rows, machine, V, by_register(V, machine, spot))

    y, *others = out.output_buffers()
    pin(y)
    for other in others:  # outputs of one function share their bounds; only the first may fix them
        other.dim(0).set_stride(1)
    deep = BLOCK // 2 if integers else BLOCK
    u.dim(0).set_bounds(0, BLOCK * BLOCK // deep).set_stride(1)
    u.dim(1).set_bounds(0, deep).set_stride(BLOCK * BLOCK // deep)
    u.dim(4).set_bounds(0, POINTS)
    for p in (largest, largest_w):
        p.dim(0).set_min(0)
    for p, dims in ((u, (2, 3)), (x, (3, 4)), (index, (3, 4)), (residual, (1, 2, 3, 4)), (y, (1, 2, 3, 4)),
                    (bias, (1,))):
        for d in dims:
            p.dim(d).set_min(0)
    return Program([out], [x, u, bias, *([] if pool else [residual]), *scalars,
                           *([largest, largest_w, limit, unit] if integers else []), *([index] if unpool else [])])


@kernel("winograd_grad_weight", False)
@kernel("winograd_grad_weight_int16", True, when=has_products)
@kernel("winograd_unpool_grad_weight_int16", True, True, when=has_products)
def winograd_grad_weight(machine: Machine, integers: bool, unpool: bool = False) -> Program:
    """du(k, c, cb, kb, point) = the sum over tiles of (A dy A') . (B' d B).

    There are `chunks` chunks of `groups` times 8 tiles. All threads transform a chunk, then multiply it: a task has one
    point and `out_blocks` blocks of output channels. The number of chunks is the caller's and does not come from the
    threads.

    With `integers`, products are of integers of at most `limit` of x and `limit_dy` of dy, and the scales are those of
    the largest of all images. With `unpool`, dy is the gradient to the largest of each 2x2 of the map and `index` says
    where they were.
    """
    columns = machine.half()  # input channels in a register tile
    x, dy = blocked("x"), blocked("dy")
    largest, largest_dy = (hl.ImageParam(hl.Float(32), 1, n) for n in ("largest", "largest_dy"))
    limit, limit_dy = (hl.Param(hl.Float(32), n) for n in ("limit", "limit_dy"))
    tiles_x, tiles_y, groups, chunks, out_blocks = scalars = [
        hl.Param(hl.Int(32), n) for n in ("tiles_x", "tiles_y", "groups", "chunks", "out_blocks")]
    c, k, q, group, cb, kb, point, chunk = variables("c k q group cb kb point chunk")

    # The algorithm. Tiles past the last image count nothing.
    t = group * TILES_TOGETHER + q
    at, column, row, image = places(t, (q, group), tiles_x, tiles_y, x)
    v_rows, V = transformed("V", input_transform, lambda a, b: x[c, 4 * column + a, 4 * row + b, cb, image], 6, 6,
                            c, q, group, cb)
    there = t < tiles_x * tiles_y * x.dim(4).extent()
    index = blocked("index", hl.UInt(8))
    read = through_maximum(dy, index, k, column, row, kb, image, 0) if unpool else (
        lambda a, b: dy[k, 4 * column + a, 4 * row + b, kb, image])
    z_rows, Z = transformed("Z", gradient_transform, lambda a, b: hl.select(there, read(a, b), 0.0), 4, 6,
                            k, q, group, kb)
    spot, rc = V.args()[-1], hl.RDom([(0, chunks)], "rc")
    acc, du = hl.Func("acc"), hl.Func("du")
    du[k, c, cb, kb, point] = 0.0
    if integers:
        scales, which = hl.Func("scales"), hl.Var("which")
        most = [bounded(largest_of_all(value, x.dim(4).extent())) for value in (largest, largest_dy)]
        scales[which] = hl.mux(which, [limit / most[0], limit_dy / most[1], most[0] / limit * (most[1] / limit_dy)])
        v_words, V = paired("V", *(V[c, 2 * q + h, group, cb, spot] for h in (0, 1)),
                            scales[0] * shares(INPUT_GAINS, spot), (c, q, group, cb, spot))
        z_words, Z = paired("Z", *(Z[k, 2 * q + h, group, kb, spot] for h in (0, 1)),
                            scales[1] * shares(GRADIENT_GAINS, spot), (k, q, group, kb, spot))
        rt = hl.RDom([(0, 2), (0, TILES_TOGETHER // 2), (0, groups)], "rt")
        one = rt.y, chunk * groups + rt.z
        acc[k, c, cb, kb, point, chunk] = 0
        acc[k, c, cb, kb, point, chunk] += product(Z[2 * k + rt.x, *one, kb, point], V[2 * c + rt.x, *one, cb, point])
        enlarged = [a * b for a, b in zip(gains(INPUT_GAINS), gains(GRADIENT_GAINS), strict=True)]
        du[k, c, cb, kb, point] += hl.cast(hl.Float(32), acc[k, c, cb, kb, point, rc.x]) * (
            scales[2] * hl.mux(point, [f32(gain) for gain in enlarged]))
    else:
        rt = hl.RDom([(0, TILES_TOGETHER), (0, groups)], "rt")
        one = rt.x, chunk * groups + rt.y
        acc[k, c, cb, kb, point, chunk] = 0.0
        acc[k, c, cb, kb, point, chunk] += Z[k, *one, kb, point] * V[c, *one, cb, point]
        du[k, c, cb, kb, point] += acc[k, c, cb, kb, point, rc.x]

    # The schedule.
    co, k_task, task, spread, run = variables("co k_task task spread run")
    du.bound(k, 0, BLOCK).bound(c, 0, BLOCK).bound(point, 0, POINTS).vectorize(k, BLOCK).parallel(point)
    (du.update().split(c, co, c, columns).split(kb, k_task, kb, out_blocks, GUARD)
        .reorder(k, c, co, cb, kb, k_task, point, rc.x).vectorize(k, BLOCK).unroll(c)
        .fuse(k_task, point, task).parallel(task))
    acc.compute_at(du, co).bound_extent(k, BLOCK).bound_extent(c, columns).vectorize(k, BLOCK).unroll(c)
    if integers:
        scales.compute_root().bound(which, 0, 3)
        acc.update().reorder(rt.x, k, c, rt.y, rt.z).atomic().vectorize(rt.x).vectorize(k, BLOCK)
    else:
        acc.update().reorder(k, c, rt.x, rt.y).vectorize(k, BLOCK)
    acc.update().unroll(c).unroll(rt.y if integers else rt.x, 2 if integers else 4)
    at.compute_at(du, rc.x).bound_extent(q, TILES_TOGETHER)
    together = 2 if integers else 1  # tiles in a number's place
    for rows, whole, words in ((v_rows, V, v_words if integers else None), (z_rows, Z, z_words if integers else None)):
        lane, *_, block, spot = whole.args()
        # Memory is taken once a call, not once a chunk. `bound` makes the unrolled spots constants.
        (whole.compute_at(du, rc.x).hoist_storage_root().bound_extent(lane, together * BLOCK)
            .bound_extent(q, TILES_TOGETHER // together).bound(spot, 0, POINTS)
            .reorder_storage(lane, q, group, spot, block).reorder(lane, spot, q, group, block))
        a_register(rows, machine, whole, by_register(whole, machine, spot, numbers=together))
        if words:
            words.compute_at(whole, spot).bound_extent(words.args()[0], machine.lanes).vectorize(words.args()[0])
        rows.bound_extent(q, together)
        whole.fuse(group, block, spread).split(spread, task, run, RUNS, GUARD).parallel(task)

    out = pin(du.output_buffer())
    out.dim(1).set_bounds(0, BLOCK).set_stride(BLOCK)
    for p in (x, dy, index):
        p.dim(1).set_stride(BLOCK)  # constant distances between the 36 values that a transform reads
    for p in (largest, largest_dy):
        p.dim(0).set_min(0)
    for p, dims in ((x, (3, 4)), (dy, (3, 4)), (index, (3, 4)), (out, (2, 3))):
        for d in dims:
            p.dim(d).set_min(0)
    return Program([du], [x, dy, *scalars, *([largest, largest_dy, limit, limit_dy] if integers else []),
                          *([index] if unpool else [])])


@kernel("winograd_filter_gradient")
def winograd_filter_gradient(machine: Machine) -> Program:
    """dw = G' du G in PyTorch's layout: (tap in the row, row, input, output)."""
    du = pin(hl.ImageParam(hl.Float(32), 5, "du"))
    k, kb, ci, o = variables("k kb ci o")
    dw = hl.Func("dw")
    rows, taps = transformed("taps", filter_gradient, lambda a, b: du[k, ci % BLOCK, ci / BLOCK, kb, a + 6 * b], 6, 3,
                             k, ci, kb)
    tap = taps.args()[-1]
    dw[tap, ci, o] = taps[o % BLOCK, ci, o / BLOCK, tap]

    oo, at, task = variables("oo at task")
    (dw.bound(tap, 0, 9).split(o, oo, o, BLOCK, GUARD).reorder(tap, o, ci, oo).unroll(tap).fuse(ci, oo, at)
        .split(at, task, at, 8, GUARD).parallel(task))
    (taps.compute_at(dw, at).bound_extent(k, BLOCK).bound_extent(ci, 1).bound_extent(kb, 1).bound_extent(tap, 9))
    rows.bound_extent(ci, 1).bound_extent(kb, 1)
    a_register(rows, machine, taps, by_register(taps, machine, tap))
    out = dw.output_buffer()
    out.dim(0).set_bounds(0, 9)
    for d in (1, 2):
        out.dim(d).set_min(0)
    for d in (2, 3):
        du.dim(d).set_min(0)
    du.dim(1).set_bounds(0, BLOCK).set_stride(BLOCK)
    du.dim(4).set_bounds(0, POINTS)
    return Program([dw], [du])
