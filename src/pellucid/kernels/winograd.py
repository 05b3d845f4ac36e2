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
from .layout import source_filters
from .machine import LANES_OF_BLOCK as BLOCK
from .machine import Machine, Program, blocked, channels, kernel, pin, places, variables
from .pointwise import f32, rectified
from .pool import largest_of

GUARD = hl.TailStrategy.GuardWithIf
RUNS = 4  # of tiles side by side that a task transforms: some microseconds


def input_transform(d):
    """B' d for six values."""
    a, b, c, e = d[4] - 4 * d[2], d[3] - 4 * d[1], d[4] - d[2], 2 * (d[3] - d[1])
    return [4 * d[0] - 5 * d[2] + d[4], a + b, a - b, c + e, c - e, 4 * d[1] - 5 * d[3] + d[5]]


def output_transform(m):
    """A' m for six values."""
    s, d, t, e = m[1] + m[2], m[1] - m[2], m[3] + m[4], m[3] - m[4]
    return [m[0] + s + t, d + 2 * e, s + 4 * t, d + 8 * e + m[5]]


def gradient_transform(d):
    """A d for four values."""
    s, e, a, b = d[0] + d[2], d[1] + d[3], d[0] + 4 * d[2], 2 * d[1] + 8 * d[3]
    return [d[0], s + e, s - e, a + b, a - b, d[3]]


def filter_transform(g):
    """G g for three values."""
    s, e = (g[0] + g[2]) * f32(-1 / 6), g[1] * f32(1 / 6)
    t, d = g[0] * f32(1 / 24) + g[2] * f32(1 / 6), g[1] * f32(1 / 12)
    return [g[0] * f32(1 / 4), s - e, s + e, t + d, t - d, g[2]]


def filter_gradient(u):
    """G' u for six values."""
    s, d, t, e = u[1] + u[2], u[2] - u[1], u[3] + u[4], u[3] - u[4]
    return [u[0] * f32(1 / 4) - s * f32(1 / 6) + t * f32(1 / 24), d * f32(1 / 6) + e * f32(1 / 12),
            (t - s) * f32(1 / 6) + u[5]]


def transformed(name: str, transform, read, size: int, width: int, *at):
    """(rows' pass, both passes) of a 2-D transform from `size` x `size` values to `width` x `width`.

    They are functions of (*at, column, row) and of (*at, row * width + column). `read(column, row)` is the value at a
    place of the tile, in terms of the variables `at`.
    """
    i, j, point = variables("i j point")
    rows, whole = hl.Func(name + "_rows"), hl.Func(name)
    rows[(*at, i, j)] = hl.mux(j, [hl.mux(i, transform([read(a, b) for a in range(size)])) for b in range(size)])
    whole[(*at, point)] = hl.mux(point / width, transform([rows[(*at, point % width, b)] for b in range(size)]))
    return rows, whole


def by_register(stage: hl.Func, machine: Machine, *unrolled: hl.Var) -> hl.Var:
    """A tile's transform, unrolled: one register of channels after another, so that its values fit in the registers.

    Returns the variable that counts the registers of a block, just outside the unrolled loops.
    """
    lane, register, within = stage.args()[0], hl.Var("register"), hl.Var("within")
    stage.split(lane, register, within, machine.lanes).reorder(within, *unrolled, register).vectorize(within)
    for v in unrolled:
        stage.unroll(v)
    return register


def a_register(stage: hl.Func, machine: Machine, consumer: hl.Func, at: hl.Var) -> None:
    """The first pass of a transform: for the register of channels that the second is at."""
    stage.compute_at(consumer, at).bound_extent(stage.args()[0], machine.lanes).vectorize(stage.args()[0])
    for v in stage.args()[-2:]:
        stage.unroll(v)


@kernel("winograd_filters")
def winograd_filters(machine: Machine) -> Program:
    """u(k, c, cb, kb, point) = G g G' of PyTorch's filters times `scale` of the output, zero past the last channel.

    Flips and the exchange of input and output are strides of the view of w, as in `pack_filters`.
    """
    w, scale = source_filters(hl.ImageParam(hl.Float(32), 5, "w")), channels("scale")
    k, c, cb, kb = variables("k c cb kb")
    inputs, outputs = w.dim(2).extent(), w.dim(3).extent()
    i, o = cb * BLOCK + c, kb * BLOCK + k
    taps = hl.Func("taps")
    a, b = variables("a b")
    taps[k, c, cb, kb, a, b] = hl.select(
        (i < inputs) & (o < outputs), w[a, b, hl.min(i, inputs - 1), hl.min(o, outputs - 1), 0] * scale[k, kb], 0.0)
    rows, u = transformed("u", filter_transform, lambda a, b: taps[k, c, cb, kb, a, b], 3, 6, k, c, cb, kb)
    point, task = u.args()[-1], hl.Var("task")
    u.bound(k, 0, BLOCK).bound(c, 0, BLOCK).bound(point, 0, POINTS)
    # Whole blocks at once: the points lie far apart, and half a cache line would leave the cache before the other half.
    u.reorder(k, point, c, cb, kb).vectorize(k, BLOCK).unroll(point).fuse(cb, kb, task).parallel(task)
    for f in (rows, taps):
        f.compute_at(u, c).bound_extent(k, BLOCK).vectorize(k, BLOCK).unroll(f.args()[-2]).unroll(f.args()[-1])
    out = pin(u.output_buffer())
    out.dim(1).set_bounds(0, BLOCK).set_stride(BLOCK)
    for d in (2, 3):
        out.dim(d).set_min(0)
    return Program([u], [w, scale])


@kernel("winograd", False)
@kernel("winograd_pool", True)
def winograd(machine: Machine, pool: bool) -> Program:
    """y = act(bias + conv(x, w) + residual) with u = G w G'; x's position (0, 0) is under the first tap.

    With `pool`, y.0 = act(bias + the largest of 2x2 values of conv(x, w)) and y.1 says which it was, row by row.

    A task transforms `rows` rows of tiles of `images` images, multiplies and transforms back, for `out_blocks` blocks
    of output channels.
    """
    vectors = machine.pair
    tiles = machine.most(vectors)
    x, bias, residual = blocked("x"), channels("bias"), blocked("residual")
    u = pin(hl.ImageParam(hl.Float(32), 5, "u"))
    tiles_x, tiles_y, rows, images, out_blocks, relu = scalars = [
        hl.Param(hl.Int(32), n) for n in ("tiles_x", "tiles_y", "rows", "images", "out_blocks", "relu")]
    c, k, q, v, group, cb, kb, pair, point, tx, ty, n, X, Y = variables("c k q v group cb kb pair point tx ty n X Y")

    # The algorithm. q counts the tiles of a register tile and v its blocks of output channels.
    t = group * tiles + q
    at, column, row, image = places(t, (q, group), tiles_x, tiles_y, x)
    v_rows, V = transformed("V", input_transform, lambda a, b: x[c, 4 * column + a, 4 * row + b, cb, image], 6, 6,
                            c, q, cb, group)
    r = hl.RDom([(0, BLOCK), (0, u.dim(2).extent())], "r")
    acc, M, out = hl.Func("acc"), hl.Func("M"), hl.Func("y")
    acc[k, v, q, group, pair, point] = 0.0
    acc[k, v, q, group, pair, point] += (
        u[k, r.x, r.y, hl.min(pair * vectors + v, u.dim(3).max()), point] * V[r.x, q, r.y, group, point])
    M[k, v, q, group, pair, point] = acc[k, v, q, group, pair, point]
    tile = tx + tiles_x * (ty + tiles_y * n)
    y_rows, tile_of_y = transformed(
        "tile", output_transform,
        lambda a, b: M[k, kb % vectors, tile % tiles, tile / tiles, kb / vectors, a + 6 * b], 6, 4, k, tx, ty, n, kb)
    side = 2 if pool else 4  # of a tile of results
    if pool:
        largest, place = largest_of([hl.Expr(tile_of_y[
            k, X / 2, Y / 2, n, kb, 2 * (X % 2) + p % 2 + 4 * (2 * (Y % 2) + p // 2)]) for p in range(4)])
        out[k, X, Y, kb, n] = (rectified(largest + bias[k, kb], relu), place)
    else:
        value = tile_of_y[k, X / 4, Y / 4, n, kb, X % 4 + 4 * (Y % 4)]
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
    acc.update().reorder(k, v, q, r.x, r.y).vectorize(k, BLOCK).unroll(v).unroll(q).unroll(r.x, 4)
    at.compute_at(out, task).bound_extent(q, tiles)
    spot = V.args()[-1]
    (V.compute_at(out, task).bound_extent(c, BLOCK).bound_extent(q, tiles).bound_extent(spot, POINTS)
        .reorder_storage(c, q, spot, cb, group).reorder(c, spot, q, cb, group))
    a_register(v_rows, machine, V, by_register(V, machine, spot))

    y, *index = out.output_buffers()
    pin(y)
    for other in index:  # outputs of one function share their bounds; only the first may fix them
        other.dim(0).set_stride(1)
    u.dim(1).set_bounds(0, BLOCK).set_stride(BLOCK)
    u.dim(4).set_bounds(0, POINTS)
    for p, dims in ((u, (2, 3)), (x, (3, 4)), (residual, (1, 2, 3, 4)), (y, (1, 2, 3, 4)), (bias, (1,))):
        for d in dims:
            p.dim(d).set_min(0)
    return Program([out], [x, u, bias, *([] if pool else [residual]), *scalars])


@kernel("winograd_grad_weight")
def winograd_grad_weight(machine: Machine) -> Program:
    """du(k, c, cb, kb, point) = the sum over tiles of (A dy A') . (B' d B).

    There are `chunks` chunks of `groups` times 8 tiles. All threads transform a chunk, then multiply it: a task has one
    point and `out_blocks` blocks of output channels. The number of chunks is the caller's and does not come from the
    threads.
    """
    columns = machine.half()  # input channels in a register tile
    x, dy = blocked("x"), blocked("dy")
    tiles_x, tiles_y, groups, chunks, out_blocks = scalars = [
        hl.Param(hl.Int(32), n) for n in ("tiles_x", "tiles_y", "groups", "chunks", "out_blocks")]
    c, k, q, group, cb, kb, point, chunk = variables("c k q group cb kb point chunk")

    # The algorithm. Tiles past the last image count nothing.
    t = group * TILES_TOGETHER + q
    at, column, row, image = places(t, (q, group), tiles_x, tiles_y, x)
    v_rows, V = transformed("V", input_transform, lambda a, b: x[c, 4 * column + a, 4 * row + b, cb, image], 6, 6,
                            c, q, group, cb)
    there = t < tiles_x * tiles_y * x.dim(4).extent()
    z_rows, Z = transformed("Z", gradient_transform, lambda a, b: hl.select(
        there, dy[k, 4 * column + a, 4 * row + b, kb, image], 0.0), 4, 6, k, q, group, kb)
    rt, rc = hl.RDom([(0, TILES_TOGETHER), (0, groups)], "rt"), hl.RDom([(0, chunks)], "rc")
    acc, du = hl.Func("acc"), hl.Func("du")
    one = rt.x, chunk * groups + rt.y
    acc[k, c, cb, kb, point, chunk] = 0.0
    acc[k, c, cb, kb, point, chunk] += Z[k, *one, kb, point] * V[c, *one, cb, point]
    du[k, c, cb, kb, point] = 0.0
    du[k, c, cb, kb, point] += acc[k, c, cb, kb, point, rc.x]

    # The schedule.
    co, k_task, task, spread, run = variables("co k_task task spread run")
    du.bound(k, 0, BLOCK).bound(c, 0, BLOCK).bound(point, 0, POINTS).vectorize(k, BLOCK).parallel(point)
    (du.update().split(c, co, c, columns).split(kb, k_task, kb, out_blocks, GUARD)
        .reorder(k, c, co, cb, kb, k_task, point, rc.x).vectorize(k, BLOCK).unroll(c)
        .fuse(k_task, point, task).parallel(task))
    acc.compute_at(du, co).bound_extent(k, BLOCK).bound_extent(c, columns).vectorize(k, BLOCK).unroll(c)
    acc.update().reorder(k, c, rt.x, rt.y).vectorize(k, BLOCK).unroll(c).unroll(rt.x, 4)
    at.compute_at(du, rc.x).bound_extent(q, TILES_TOGETHER)
    for rows, whole in ((v_rows, V), (z_rows, Z)):
        lane, *_, block, spot = whole.args()
        # Memory is taken once a call, not once a chunk. `bound` makes the unrolled spots constants.
        (whole.compute_at(du, rc.x).hoist_storage_root().bound_extent(lane, BLOCK).bound_extent(q, TILES_TOGETHER)
            .bound(spot, 0, POINTS).reorder_storage(lane, q, group, spot, block)
            .reorder(lane, spot, q, group, block))
        a_register(rows, machine, whole, by_register(whole, machine, spot))
        whole.fuse(group, block, spread).split(spread, task, run, RUNS, GUARD).parallel(task)

    out = pin(du.output_buffer())
    out.dim(1).set_bounds(0, BLOCK).set_stride(BLOCK)
    for p in (x, dy):
        p.dim(1).set_stride(BLOCK)  # constant distances between the 36 values that a transform reads
    for p, dims in ((x, (3, 4)), (dy, (3, 4)), (out, (2, 3))):
        for d in dims:
            p.dim(d).set_min(0)
    return Program([du], [x, dy, *scalars])


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
