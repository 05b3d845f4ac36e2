"""Local response normalisation: each value divided by a power of the energy of its channel's neighbours.

Windows run over the channels, across blocks of 16: rows of a block are copied with the channels they need side by side,
so that a window's terms are vectors that overlap.
"""

from __future__ import annotations

import halide as hl

from .machine import LANES_OF_BLOCK as BLOCK
from .machine import Machine, Program, blocked, kernel, pin, variables
from .pointwise import f32, over_rows, power, strict


class Response:
    """The parts of the formula as functions of (channel, x, y, n); 0 for channels that there are not.

    `stages` are those to be scheduled, in the order in which they are computed.
    """

    def __init__(self):
        self.x = blocked("x")
        self.size, self.count = hl.Param(hl.Int(32), "size"), hl.Param(hl.Int(32), "channels")
        self.alpha, self.beta, self.k = (hl.Param(hl.Float(32), name) for name in ("alpha", "beta", "k"))
        self.stages: list[hl.Func] = []
        self.at = variables("ch x y n")
        self.energy = self.window_sum("energy", lambda ch, *at: self.read(self.x, ch, *at) * self.read(self.x, ch, *at))

    @property
    def scalars(self) -> list:
        return [self.size, self.alpha, self.beta, self.k, self.count]

    def exists(self, channel):
        return (channel >= 0) & (channel < self.count)

    def read(self, activation, channel, X, Y, n):
        """The value of a channel, 0 for one that there is not."""
        block = hl.clamp(channel / BLOCK, activation.dim(3).min(), activation.dim(3).max())
        return hl.select(self.exists(channel), activation[channel % BLOCK, X, Y, block, n], f32(0))

    def base(self, *at):
        """k + alpha times the sum of squares over the window."""
        return self.k + self.alpha * self.energy[at]

    def function(self, name: str, value) -> hl.Func:
        """value(channel, x, y, n), stored for a row."""
        f = hl.Func(name)
        f[self.at] = strict(value(*self.at))
        self.stages.append(f)
        return f

    def window_sum(self, name: str, term) -> hl.Func:
        """The sum of term(channel, x, y, n) over the `size` channels around each."""
        terms, total = self.function(name + "_terms", term), hl.Func(name)
        r = hl.RDom([(0, self.size)], name + "_window")
        ch, *rest = self.at
        total[self.at] = f32(0)
        total[self.at] += terms[ch + r.x - self.size / 2, *rest]
        total.update().reorder(ch, r.x, *rest).vectorize(ch, BLOCK)
        self.stages.append(total)
        return total

    def schedule(self, out: hl.Func, order: list[hl.Var]) -> None:
        """All stages by rows of a block of channels, their channels in vectors that begin where blocks do."""
        over_rows(out.bound(order[0], 0, BLOCK), order, pin(out.output_buffer()).dim(1).extent())
        for stage in self.stages:
            stage.compute_at(out, hl.Var("t")).align_bounds(self.at[0], BLOCK).vectorize(self.at[0], BLOCK)


@kernel("lrn")
def lrn(machine: Machine) -> Program:
    """y = x (k + alpha * sum of x^2 over the window)^-beta; spare lanes 0."""
    of, y = Response(), hl.Func("y")
    order = c, X, Y, b, n = variables("c x y b n")

    # The algorithm.
    at = b * BLOCK + c, X, Y, n
    y[order] = strict(of.read(of.x, *at) * power(of.base(*at), -of.beta))

    # The schedule.
    of.schedule(y, order)
    return Program([y], [of.x, *of.scalars])


@kernel("lrn_grad")
def lrn_grad(machine: Machine) -> Program:
    """dx = dy s^-beta - 2 alpha beta x * sum over the window of dy x s^(-beta - 1); spare lanes 0.

    s is what `lrn` takes the power of. A channel stands in the windows of those that stand in its own.
    """
    of, dy, dx = Response(), blocked("dy"), hl.Func("dx")
    order = c, X, Y, b, n = variables("c x y b n")

    # The algorithm.
    factor = of.function("factor", lambda *at: power(of.base(*at), -of.beta))
    through = of.window_sum("through", lambda *at: of.read(dy, *at) * of.read(of.x, *at) * factor[at] / of.base(*at))
    at = b * BLOCK + c, X, Y, n
    direct = of.read(dy, *at) * factor[at]
    dx[order] = strict(direct - f32(2) * of.alpha * of.beta * of.read(of.x, *at) * through[at])

    # The schedule.
    of.schedule(dx, order)
    return Program([dx], [of.x, dy, *of.scalars])
