"""Numbers as integers of 16 bits, which x86 multiplies and adds up two at a time: twice as many as float32 numbers.

A number is scaled so that the largest there can be becomes the largest integer, and rounded to the nearest. Scales come
from the largest absolute values, which the kernels here find. As integers, floats without their sign are ordered as
they are, with NaN above infinity: what is not finite makes all that is scaled by it so.
"""

import halide as hl

from .machine import LANES_OF_BLOCK as BLOCK
from .machine import Machine, Program, blocked, kernel, variables
from .pointwise import ROUND, f32

# Largest values are taken to lie between. Below, steps are no finer; above, where transforms may overflow, infinite.
TINIEST, HUGEST = 1e-30, 1e36


def has_products(machine: Machine) -> bool:
    """Whether the machine has an instruction for sums of two products (x86: pmaddwd)."""
    return machine.name != "arm64"


def bounded(largest):
    """The largest value that numbers are scaled by, and results scaled back. NaN stays NaN."""
    infinite = hl.reinterpret(hl.Float(32), hl.Expr(0x7F800000))
    return hl.select(largest < f32(TINIEST), f32(TINIEST), largest > f32(HUGEST), infinite, largest)


def paired(name: str, low, high, step, at: tuple):
    """`low * step` and `high * step`, expressions of the variables `at`, as integers side by side: (the function of
    `at` that packs both in a word, the integers, of which dimension 0 is twice as long)."""
    words, integers, lane = hl.Func(name + "_words"), hl.Func(name), hl.Var("lane")
    low, high = (hl.reinterpret(hl.Int(32), value * step + ROUND) for value in (low, high))
    words[at] = (low & 0xFFFF) | (high << 16)
    integers[(lane, *at[1:])] = hl.extract_bits(hl.Int(16), words[(lane / 2, *at[1:])], 16 * (lane % 2))
    return words, integers


def product(a, b):
    """Of two integers of 16 bits, in 32."""
    return hl.cast(hl.Int(32), a) * hl.cast(hl.Int(32), b)


def magnitude(value):
    """A float without its sign, as an integer."""
    return hl.reinterpret(hl.Int(32), value) & 0x7FFFFFFF


def largest_of_all(values, count):
    """The largest of so many largest values."""
    r, whole = hl.RDom([(0, count)], "images"), hl.Func("largest_of_all")
    whole[()] = 0
    whole[()] = hl.max(whole[()], magnitude(values[r]))
    whole.compute_root()
    return hl.reinterpret(hl.Float(32), whole[()])


@kernel("largest", when=has_products)
def largest(machine: Machine) -> Program:
    """y(n) = the largest absolute value in image n, NaN where there is one."""
    x = blocked("x")
    c, n = variables("c n")
    lanes, whole, y = hl.Func("lanes"), hl.Func("whole"), hl.Func("y")
    r = hl.RDom([(0, x.dim(1).extent()), (0, x.dim(2).extent()), (0, x.dim(3).extent())], "r")
    lanes[c, n] = 0
    lanes[c, n] = hl.max(lanes[c, n], magnitude(x[c, r.x, r.y, r.z, n]))
    rc = hl.RDom([(0, BLOCK)], "rc")
    whole[n] = 0
    whole[n] = hl.max(whole[n], lanes[rc, n])
    y[n] = hl.reinterpret(hl.Float(32), whole[n])

    y.parallel(n)
    whole.compute_at(y, n)
    lanes.compute_at(y, n).bound_extent(c, BLOCK).vectorize(c)
    lanes.update().reorder(c, r.x, r.y, r.z).vectorize(c)
    y.output_buffer().dim(0).set_min(0)
    for d in range(1, 5):
        x.dim(d).set_min(0)
    return Program([y], [x])


@kernel("largest_filter", when=has_products)
def largest_filter(machine: Machine) -> Program:
    """y(0) = the largest absolute value of a row of numbers, NaN where there is one."""
    w = hl.ImageParam(hl.Float(32), 1, "w")
    c, one = variables("c one")
    lanes, whole, y = hl.Func("lanes"), hl.Func("whole"), hl.Func("y")
    count = w.dim(0).extent()
    blocks = count / BLOCK
    r = hl.RDom([(0, blocks)], "r")
    lanes[c] = 0
    lanes[c] = hl.max(lanes[c], magnitude(w[BLOCK * r + c]))
    rc, rest = hl.RDom([(0, BLOCK)], "rc"), hl.RDom([(0, count - BLOCK * blocks)], "rest")
    whole[one] = 0
    whole[one] = hl.max(whole[one], lanes[rc])
    whole[one] = hl.max(whole[one], magnitude(w[BLOCK * blocks + rest]))
    y[one] = hl.reinterpret(hl.Float(32), whole[one])

    whole.compute_root()
    lanes.compute_root().bound_extent(c, BLOCK).vectorize(c)
    lanes.update().vectorize(c)
    w.dim(0).set_min(0)
    y.output_buffer().dim(0).set_bounds(0, 1)
    return Program([y], [w])
