"""What pointwise kernels share: the loops, and exp and its relatives to within a few units in the last place.

Halide's own `exp` returns 0 for NaN and errs by 5 ulp; its `tanh` calls the C library once a lane. These are made of
additions, multiplications, rounding, comparisons and bit operations only, so they vectorise on every instruction set.
Expressions that use them must be wrapped in `strict`, else rounding steps are simplified away; but not `normal`, which
errs by more. The polynomials are weighted least-squares fits, iterated towards equal ripples, of the functions named
beside them.
"""

from __future__ import annotations

from math import log as ln
from math import pi, sqrt

import halide as hl

from .machine import LANES_OF_BLOCK as BLOCK

strict = hl.strict_float  # IEEE semantics for a whole expression: no reassociation, and NaN compares false
f32 = hl.f32

LOG2_E = f32(1 / ln(2))
LN2_HIGH = f32(355 / 512)  # ln 2 in two parts: multiples of the first are exact in float32
LN2_LOW = f32(ln(2) - 355 / 512)
HALF_ROOT = 0x3F3504F3  # the bits of sqrt(1/2)
ROUND = f32(1.5 * 2**23)  # adding it leaves an integer in the low bits of the sum
# (exp(r) - 1 - r) / r^2 for |r| <= ln(2) / 2; with it exp errs by 3e-9.
EXP = [0.499999934, 0.166665206, 0.0416683881, 0.00836871702, 0.00138145985]
# 2^f for |f| <= 1/2; errs by 2e-8.
EXP2 = [1.0, 0.693147203, 0.240226479, 0.0555033247, 0.00961843737, 0.0013398875, 0.00015353361]
# (tanh(x) / x - 1) / x^2 as a polynomial in x^2 for |x| <= TANH_SMALL; with it tanh errs by 5e-9.
TANH = [-0.333332819, 0.133314422, -0.0537397143, 0.0206390847, -0.00570498415]
TANH_SMALL = f32(0.625)
# P(Z > t) exp(t^2 / 2) / s as a polynomial in s = 1 / (1 + TAIL_SCALE t) for 0 <= t <= 14.5; errs by 2e-8.
TAIL = [0.0840984728, 0.0852152363, 0.071240363, 0.117780895, -0.0747968746, 0.318258735, -0.299618188, 0.266726172,
        -0.0689048184]
TAIL_SCALE = f32(27 / 128)
TAIL_END = f32(12.9)  # beyond, P(Z > t) is below 2.3e-38 and 0 here
SQRT_2_PI = f32(1 / sqrt(2 * pi))

VECTORS_OF_TASK = 2048  # blocks of 16 channels that one parallel task writes at least


def rectified(value, relu):
    """max(value, 0) where `relu` is not 0, else the value. A comparison, so that NaN stays NaN."""
    least = hl.select(relu != 0, f32(0), f32(float("-inf")))  # once a kernel, not once a value
    return hl.select(strict(value < least), f32(0), value)


def polynomial(x, coefficients):
    """By Horner's rule, the constant coefficient first."""
    value = f32(coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        value = value * x + f32(coefficient)
    return value


def power_of_two(k):
    """2^k for an integer expression in [-126, 127]."""
    return hl.reinterpret(hl.Float(32), hl.cast(hl.UInt(32), k + 127) << 23)


def exp(x):
    """exp(x), to 1 ulp. 0 below -104, infinity above 89.

    exp(x) = 2^k exp(r) with k the integer nearest x / ln 2 (Tang, "Table-driven implementation of the exponential
    function in IEEE floating-point arithmetic", 1989, without the table).
    """
    x = hl.select(x > f32(89), f32(89), hl.select(x < f32(-104), f32(-104), x))  # NaN stays
    shifted = x * LOG2_E + ROUND
    k = shifted - ROUND
    r = x - k * LN2_HIGH - k * LN2_LOW
    mantissa = f32(1) + (r + r * r * polynomial(r, EXP))
    k = hl.reinterpret(hl.Int(32), shifted) - hl.reinterpret(hl.Int(32), ROUND)
    half = k >> 1  # two factors, so that results below 2^-126 and near the largest float32 come out right
    return mantissa * power_of_two(half) * power_of_two(k - half)


def log(x):
    """The natural logarithm of a positive number, to 2 ulp; NaN stays.

    x = 2^k m with m between sqrt(1/2) and sqrt(2); ln m is a series in (m - 1) / (m + 1), which is at most 0.172.
    """
    bits = hl.reinterpret(hl.Int(32), x) - hl.i32(HALF_ROOT)
    k = hl.cast(hl.Float(32), bits >> 23)
    m = hl.reinterpret(hl.Float(32), (bits & hl.i32(0x7FFFFF)) + hl.i32(HALF_ROOT))
    t = (m - f32(1)) / (m + f32(1))
    series = f32(2) * t + t * t * t * polynomial(t * t, [2 / 3, 2 / 5, 2 / 7, 2 / 9, 2 / 11])
    return hl.select(hl.is_nan(x), x, k * LN2_HIGH + (series + k * LN2_LOW))


def power(x, y):
    """x^y for positive x."""
    return exp(y * log(x))


def sigmoid(x):
    """1 / (1 + exp(-x)), from exp(-|x|), which cannot overflow."""
    e = exp(-hl.abs(x))
    return hl.select(x >= f32(0), f32(1), e) / (f32(1) + e)


def sigmoid_slope(x):
    """s(x) s(-x), the derivative of the sigmoid, without the cancellation in 1 - s."""
    e = exp(-hl.abs(x))
    d = f32(1) / (f32(1) + e)
    return e * d * d


def tanh(x):
    """(1 - e) / (1 + e) with e = exp(-2|x|); near 0, where that cancels, a polynomial."""
    magnitude = hl.abs(x)
    e = exp(f32(-2) * magnitude)
    large = (f32(1) - e) / (f32(1) + e)
    square = x * x
    small = x + x * square * polynomial(square, TANH)
    return hl.select(magnitude < TANH_SMALL, small, hl.select(x < f32(0), -large, large))


def tanh_slope(x):
    """1 - tanh(x)^2 = 4 e / (1 + e)^2 with e = exp(-2|x|)."""
    e = exp(f32(-2) * hl.abs(x))
    d = f32(1) / (f32(1) + e)
    return f32(4) * e * d * d


def normal(x):
    """(P(Z > t), density at t) of a standard normal Z, with t = |x|.

    Far out both keep their digits: they err by 1e-6 of themselves at t = 5, 1e-5 at most. Not for `strict`, so that
    multiplications and additions are fused: that halves the time. NaN may be lost; who uses it multiplies by x.
    """
    t = hl.abs(x)
    beyond = t > TAIL_END
    t = hl.min(t, TAIL_END)
    z = t * t * f32(-0.5 / ln(2))  # exp(-t^2 / 2) = 2^z, and 2^z = 2^k 2^(z - k) with k the nearest integer
    k = hl.round(z)
    e = hl.select(beyond, f32(0), power_of_two(hl.cast(hl.Int(32), k)) * polynomial(z - k, EXP2))
    s = f32(1) / (f32(1) + TAIL_SCALE * t)
    return e * (s * polynomial(s, TAIL)), e * SQRT_2_PI


def tree(operation, values):
    """Combine a list in pairs, then pairs of pairs: a fixed order, and short chains of rounding."""
    while len(values) > 1:
        values = [operation(*values[i : i + 2]) if i + 1 < len(values) else values[i] for i in range(0, len(values), 2)]
    return values[0]


def over_rows(stage, order: list[hl.Var], columns):
    """The loops of a blocked output (or its update): channels in vectors, rows of all blocks and images in tasks.

    `columns` is the number of columns in a row. Nothing is computed twice, so an output may be an input.
    """
    c, x, y, b, n = order
    t, task = hl.Var("t"), hl.Var("task")
    rows = hl.max(VECTORS_OF_TASK / hl.max(columns, 1), 1)
    return (stage.reorder(c, x, y, b, n).vectorize(c, BLOCK, hl.TailStrategy.GuardWithIf).fuse(y, b, t).fuse(t, n, t)
            .split(t, task, t, rows, hl.TailStrategy.GuardWithIf).parallel(task))
