"""What a dense layer does not share with a convolution: the gradient to its weight, in PyTorch's layout at once."""

import halide as hl

from .machine import LANES_OF_BLOCK as BLOCK
from .machine import Machine, Program, blocked, kernel, variables

GUARD = hl.TailStrategy.GuardWithIf


@kernel("dense_grad_weight")
def dense_grad_weight(machine: Machine) -> Program:
    """dw(p, c, k) = the sum over the batch of dy(k, n, 0, kb, 0) x(c, n, 0, p + positions cb, 0), channels in full.

    `positions` is the number of pixels of the map that is read.
    """
    columns = machine.half()  # output channels in a register tile
    x, dy = blocked("x"), blocked("dy")
    positions = hl.Param(hl.Int(32), "positions")
    k, c, p, cb, kb = variables("k c p cb kb")
    total, out = hl.Func("total"), hl.Func("dw")

    # The algorithm.
    r = hl.RDom([(0, dy.dim(1).extent())], "r")
    total[c, k, p, cb, kb] = 0.0
    total[c, k, p, cb, kb] += dy[k, r, 0, kb, 0] * x[c, r, 0, positions * cb + p, 0]
    out[p, c, k] = total[c % BLOCK, k % BLOCK, p, c / BLOCK, k / BLOCK]

    # The schedule. One task a pair of channel blocks, for all positions: what it writes for a filter is one run.
    c_task, k_task, ko, task = variables("c_task k_task ko task")
    (out.split(c, c_task, c, BLOCK, GUARD).split(k, k_task, k, BLOCK, GUARD).reorder(p, c, k, c_task, k_task)
        .fuse(c_task, k_task, task).parallel(task))
    total.compute_at(out, task).bound_extent(k, BLOCK).bound_extent(c, BLOCK).vectorize(c, BLOCK)
    (total.update().split(k, ko, k, columns).reorder(c, k, r, ko, p, cb, kb).vectorize(c, BLOCK).unroll(k))
    o = out.output_buffer()
    for q, dims in ((x, (1, 3)), (dy, (1, 3)), (o, (0, 1, 2))):
        for d in dims:
            q.dim(d).set_min(0)
    return Program([out], [x, dy, positions])
