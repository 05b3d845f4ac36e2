"""Optimiser steps over flat vectors, in place, each in one pass over memory.

A program's output is one Func of several values, which Halide numbers in the call: `momentum_sgd.0` holds the
parameters, `momentum_sgd.1` the state (`sgd` alone has no number, having no state). They are read and written. What
changes from step to step is read from the buffer `rates`. `pellucid.optim` knows the arguments of each.
"""

from __future__ import annotations

import halide as hl

from ..geometry import UPDATE as CHUNK
from .machine import Machine, Program, kernel

F32 = hl.Float(32)


def in_place(machine: Machine, name: str, formula, values: int, scalars: list[str]) -> Program:
    """`values` vectors v become formula(g, rates, scalars, v), number by number."""
    g, rates = hl.ImageParam(F32, 1, "g"), hl.ImageParam(F32, 1, "rates")
    parameters = [hl.Param(F32, scalar) for scalar in scalars]
    i, vector, chunk = hl.Var("i"), hl.Var("vector"), hl.Var("chunk")
    state = hl.Func(name)

    # The algorithm. Halide computes all values of an element before it writes the first.
    state[i] = (hl.undef(F32),) * values if values > 1 else hl.undef(F32)
    old = [state[i][number] for number in range(values)] if values > 1 else [state[i]]
    new = formula(g[i], rates, parameters, old)
    state[i] = tuple(new) if values > 1 else new[0]

    # The schedule.
    guard = hl.TailStrategy.GuardWithIf
    (state.update().split(i, chunk, i, CHUNK, guard).split(i, vector, i, 2 * machine.lanes, guard)
        .vectorize(i).parallel(chunk))
    for buffer in state.output_buffers():
        buffer.set_host_alignment(4 * machine.lanes)  # Halide loads what it updates as if it were aligned: check it
    return Program([state], [g, rates, *parameters])


@kernel("chunk_sums")
def chunk_sums(machine: Machine) -> Program:
    """sums(chunk) = the sum of a chunk of g, which is not finite if a number in it is not: few to look at, not all."""
    g = hl.ImageParam(F32, 1, "g")
    chunk, lane = hl.Var("chunk"), hl.Var("lane")
    r = hl.RDom([(0, CHUNK // machine.lanes)], "r")
    lanes, total = hl.Func("lanes"), hl.Func("total")
    at = chunk * CHUNK + r * machine.lanes + lane
    end = g.dim(0).extent()
    lanes[lane, chunk] = hl.f32(0)
    lanes[lane, chunk] += hl.select(at < end, g[hl.min(at, end - 1)], hl.f32(0))
    all_lanes = hl.RDom([(0, machine.lanes)], "all_lanes")
    total[chunk] = hl.f32(0)
    total[chunk] += lanes[all_lanes, chunk]
    out = hl.Func("sums")
    out[chunk] = total[chunk]
    total.compute_at(out, chunk)
    lanes.compute_at(out, chunk).vectorize(lane, machine.lanes)
    lanes.update().reorder(lane, r).vectorize(lane, machine.lanes)
    out.parallel(chunk)
    g.dim(0).set_min(0)
    out.output_buffer().dim(0).set_min(0)
    return Program([out], [g])


@kernel("sgd")
def sgd(machine: Machine) -> Program:
    """p -= lr (g + weight_decay p). rates: lr."""

    def formula(g, rates, scalars, old):
        (decay,), (p,) = scalars, old
        return [p - rates[0] * (g + decay * p)]

    return in_place(machine, "sgd", formula, 1, ["weight_decay"])


@kernel("momentum_sgd", False)
@kernel("nesterov_sgd", True)
def momentum_sgd(machine: Machine, nesterov: bool) -> Program:
    """d = g + weight_decay p; m = momentum m + d; p -= lr m, or with Nesterov's look-ahead lr (d + momentum m).

    (Sutskever et al., "On the importance of initialization and momentum in deep learning", 2013, in the form
    torch.optim.SGD gives it: the rate multiplies the step, not the gradient.) rates: lr.
    """

    def formula(g, rates, scalars, old):
        (decay, momentum), (p, m) = scalars, old
        d = g + decay * p
        m = momentum * m + d
        return [p - rates[0] * (d + momentum * m if nesterov else m), m]

    name = "nesterov_sgd" if nesterov else "momentum_sgd"
    return in_place(machine, name, formula, 2, ["weight_decay", "momentum"])


@kernel("adam")
def adam(machine: Machine) -> Program:
    """d = g + weight_decay p; m = beta1 m + rest1 d; v = beta2 v + rest2 d^2; p = keep p - rate m / (root v + eps).

    (Kingma and Ba, "Adam", 2015.) `rest1` is 1 - beta1, given apart because float32 cannot subtract 0.999 from 1 to
    more than four digits. rates: `rate`, lr corrected for the first moment's bias; `root`, 1 / square root of the
    second's correction, which multiplies the square root of v; `keep`, 1 - lr times the decoupled decay (Loshchilov
    and Hutter, "Decoupled weight decay regularization", 2019), 1 without.
    """

    def formula(g, rates, scalars, old):
        (decay, beta1, rest1, beta2, rest2, eps), (p, m, v) = scalars, old
        d = g + decay * p
        m = beta1 * m + rest1 * d
        v = beta2 * v + rest2 * d * d
        return [rates[2] * p - rates[0] * m / (hl.sqrt(v) * rates[1] + eps), m, v]

    return in_place(machine, "adam", formula, 3, ["weight_decay", "beta1", "rest1", "beta2", "rest2", "eps"])
