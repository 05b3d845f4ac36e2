"""The backward passes of a convolution of stride 1 and the 2x2 pooling after it, from the pooled map.

Of the gradient to the map between them three values in four are zero: the maximum of each 2x2 passes all of its
gradient on. The sums here run over the one place in four that is not: a quarter of the multiply-adds, and no map
stored. Which place that is a byte says, of which two bits are read: whatever it holds, nothing outside is touched.
"""

import halide as hl

from ..geometry import MOST_ROUTED as MOST
from .machine import LANES_OF_BLOCK as BLOCK
from .machine import Machine, Program, blocked, kernel, pin, variables

TAPS = 3  # the filters' height and width: their sums fill the registers
NOWHERE = 4  # beside the places 0 to 3 of a 2x2


@kernel("conv_pool_grad_weight")
def conv_pool_grad_weight(machine: Machine) -> Program:
    """dw(c, k, i, j, kb, cb) = sum of dy(k, x, y, kb, n) x(c, x' + i, y' + j, cb, n), where (x', y') is the place of
    the 2x2 that held the maximum: (2 x, 2 y) + index.

    The input comes as x(c + 16 x + row y, 0, cb, n), where row is the stride of its second dimension. Every `images`
    images are added up by themselves; that number is the caller's and does not come from the threads, so the order of
    the sum is fixed.
    """
    wide = machine.lanes_of(TAPS**2)
    x, dy, index = hl.ImageParam(hl.Float(32), 4, "x"), blocked("dy"), blocked("index", hl.UInt(8))
    row, images = x.dim(1).stride(), hl.Param(hl.Int(32), "images")
    c, k, v, vo, i, j, cb, kb, n, p, part = variables("c k v vo i j cb kb n p part")
    width, height, batch = (dy.dim(d).extent() for d in (1, 2, 4))

    # The algorithm. Images past the last count nothing.
    r, rn = hl.RDom([(0, width * height)], "r"), hl.RDom([(0, images)], "rn")
    rp = hl.RDom([(0, (batch + images - 1) / images)], "rp")
    rn.where(part * images + rn.x < batch)
    passed, one, total, out = (hl.Func(f) for f in ("passed", "one", "total", "dw"))
    px, py, image = p % width, hl.min(p / width, height - 1), hl.min(n, hl.max(batch - 1, 0))
    held = hl.i32(index[k, px, py, kb, image] & hl.u8(3))
    passed[k, p, kb, n] = (BLOCK * (2 * px + held % 2) + row * (2 * py + held / 2), dy[k, px, py, kb, image])
    place, value = (passed[k, r, kb, n][item] for item in range(2))
    place = hl.unsafe_promise_clamped(place, 0, BLOCK * (2 * width - 1) + row * (2 * height - 1))
    one[v, i, j, vo, k, kb, cb, n] = 0.0
    one[v, i, j, vo, k, kb, cb, n] += value * x[place + BLOCK * i + row * j + wide * vo + v, 0, cb, image]
    total[v, i, j, vo, k, kb, cb, part] = 0.0
    total[v, i, j, vo, k, kb, cb, part] += one[v, i, j, vo, k, kb, cb, part * images + rn.x]
    out[c, k, i, j, kb, cb] = 0.0
    out[c, k, i, j, kb, cb] += total[c % wide, i, j, c / wide, k, kb, cb, rp.x]

    # The schedule. An image's sums over all places stay in registers; a block of it is read once for all filters.
    task = hl.Var("task")
    out.bound(c, 0, BLOCK).bound(k, 0, BLOCK).bound(i, 0, TAPS).bound(j, 0, TAPS)
    for stage in (out, out.update()):
        stage.fuse(kb, cb, task).parallel(task).vectorize(c, wide)
    total.compute_root().vectorize(v)
    total.bound_extent(v, wide).bound_extent(i, TAPS).bound_extent(j, TAPS).bound_extent(vo, BLOCK // wide)
    (total.update().reorder(v, i, j, vo, k, kb, rn.x, cb, part).fuse(cb, part, task).parallel(task)
        .vectorize(v).unroll(i).unroll(j))
    passed.compute_at(total, kb).vectorize(k, BLOCK)
    one.compute_at(total, vo).vectorize(v).unroll(i).unroll(j)
    one.update().reorder(v, i, j, r).vectorize(v).unroll(i).unroll(j)

    pin(out.output_buffer()).dim(1).set_bounds(0, BLOCK).set_stride(BLOCK)
    for q, dims in ((dy, (1, 2, 3, 4)), (index, (1, 2, 3, 4)), (x, (0, 1, 2, 3)), (out.output_buffer(), (4, 5))):
        for d in dims:
            q.dim(d).set_min(0)
    return Program([out], [x, dy, index, images])


@kernel("conv_pool_grad_input")
def conv_pool_grad_input(machine: Machine) -> Program:
    """dx(c, x, y, cb, n) = the sum of dy(k, x', y', kb, n) w(i + 3 j, c, k) over the taps (i, j) of the windows at
    the places that held the maxima, (2 x', 2 y') + index; 0 where `relu` and x(c, x, y, cb, n) is not positive.

    The window at (x', y') begins at (x' + start_x, y' + start_y) of the input, which is `width` wide. For each 2x2 the
    output channels, MOST of them or fewer, are listed by which of its places theirs was: the sums over a list stay in
    registers and are added to memory once. Gradients of zero are in no list.
    """
    wide = machine.lanes_of(TAPS**2)
    w, dy, index, x = hl.ImageParam(hl.Float(32), 3, "w"), blocked("dy"), blocked("index", hl.UInt(8)), blocked("x")
    start_x, start_y, width, relu = scalars = [
        hl.Param(hl.Int(32), name) for name in ("start_x", "start_y", "width", "relu")]
    c, k, v, vo, i, j, m, a, X, Y, at, cb, n = variables("c k v vo i j m a X Y at cb n")
    columns, rows, last = dy.dim(1).extent(), dy.dim(2).extent(), dy.dim(3).max()

    # The algorithm. A list holds its length, then its channels.
    taps, values, places, lists, one, total, out = (
        hl.Func(f) for f in ("taps", "values", "places", "lists", "one", "total", "dx"))
    channel = cb * BLOCK + vo * wide + v
    there = (channel < w.dim(1).extent()) & (k < w.dim(2).extent())
    taps[v, i, j, k, vo, cb] = hl.select(
        there, w[i + TAPS * j, hl.min(channel, w.dim(1).max()), hl.min(k, w.dim(2).max())], 0.0)
    here = k % BLOCK, X, Y, hl.min(k / BLOCK, last), n
    values[k, X, Y, n] = hl.select(k / BLOCK <= last, dy[here], 0.0)
    places[k, X, Y, n] = hl.select(values[k, X, Y, n] == 0.0, hl.u8(NOWHERE), index[here] & hl.u8(3))
    rk, rm = hl.RDom([(0, MOST)], "rk"), hl.RDom([(0, MOST)], "rm")
    place = hl.unsafe_promise_clamped(hl.i32(places[rk, X, Y, n]), 0, NOWHERE)
    lists[m, a, X, Y, n] = hl.undef(hl.UInt(8))
    lists[0, a, X, Y, n] = hl.u8(0)
    count = hl.Expr(lists[0, place, X, Y, n])
    lists[hl.scatter([0, hl.unsafe_promise_clamped(hl.i32(count), 0, MOST - 1) + 1]), place, X, Y, n] = hl.gather(
        [count + hl.u8(1), hl.u8(rk)])

    rm.where(rm < hl.i32(lists[0, a, X, Y, n]))
    which = hl.unsafe_promise_clamped(hl.i32(lists[rm + 1, a, X, Y, n]), 0, MOST - 1)
    one[v, i, j, a, X, Y, vo, cb, n] = 0.0
    one[v, i, j, a, X, Y, vo, cb, n] += values[which, X, Y, n] * taps[v, i, j, which, vo, cb]
    r = hl.RDom([(0, TAPS), (0, TAPS), (0, 4), (0, columns), (0, rows)], "r")
    i_, j_, a_, x_, y_ = (r[d] for d in range(5))
    row = hl.max(2 * columns + TAPS - 1, width - start_x)
    total[v, at, vo, cb, n] = 0.0
    total[v, 2 * x_ + a_ % 2 + i_ + row * (2 * y_ + a_ / 2 + j_), vo, cb, n] += one[v, i_, j_, a_, x_, y_, vo, cb, n]
    out[c, X, Y, cb, n] = hl.select((relu == 0) | (x[c, X, Y, cb, n] > 0.0), total[
        c % wide, X - start_x + row * (Y - start_y), c / wide, cb, n], 0.0)

    # The schedule.
    out.bound(c, 0, BLOCK).vectorize(c, wide).parallel(n)
    taps.compute_root().vectorize(v).parallel(cb)
    for f in (values, places):
        f.compute_at(out, n).vectorize(k, BLOCK)
    lists.compute_at(out, n)
    total.compute_at(out, cb).vectorize(v)
    total.update().reorder(v, i_, j_, a_, x_, y_, vo, cb, n).vectorize(v).unroll(i_).unroll(j_)
    one.compute_at(total, a_).vectorize(v).unroll(i).unroll(j)
    one.update().reorder(v, i, j, rm).vectorize(v).unroll(i).unroll(j)
    for f, extents in ((taps, ((v, wide), (i, TAPS), (j, TAPS), (k, MOST), (vo, BLOCK // wide))),
                       (values, ((k, MOST),)), (places, ((k, MOST),)), (lists, ((m, MOST + 1), (a, NOWHERE + 1))),
                       (total, ((v, wide), (vo, BLOCK // wide))), (one, ((v, wide), (i, TAPS), (j, TAPS)))):
        for d, extent in extents:
            f.bound_extent(d, extent)
    for q, dims in ((dy, (1, 2, 3, 4)), (index, (1, 2, 3, 4)), (w, (0, 1, 2)), (x, (1, 2, 3, 4)),
                    (pin(out.output_buffer()), (1, 2, 3, 4))):
        for d in dims:
            q.dim(d).set_min(0)
    return Program([out], [w, dy, index, x, *scalars])
