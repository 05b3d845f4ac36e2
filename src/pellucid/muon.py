"""Muon's step for the filters of a convolution: along the orthogonal matrix that is nearest to the gradient.

Only matrix products, which NumPy's BLAS computes, one thread a layer: the order in which numbers are added does not
depend on the number of threads. (Where the BLAS is one that `threadpoolctl` does not know, such as Apple's, that is as
the BLAS has it.)
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from math import sqrt
from threading import Lock

import numpy as np

from . import processors

# Of a polynomial p with p(p(p(x))) near 1 for x from about 0.1 to 1; after few steps a value is not 1 but from 0.7 to
# 1.2, which is near enough.
CUBIC = 3.4445, -4.7750, 2.0315
TINY = np.float32(1e-7)
TOGETHER = 3  # iterations, the default of `optim.Muon`

_LIMIT = Lock()  # the number of BLAS's threads is one for the whole process


class Muon:
    """The steps of some layers' filters. Nothing is allocated after it is made.

    `filters`: for each layer the weights, the gradient and the momentum, float32 arrays of shape (O, I / groups, ...)
    in place, which a step reads and writes, and the factor of its learning rate.
    """

    def __init__(self, filters: list[tuple[np.ndarray, np.ndarray, np.ndarray, float]], momentum: float,
                 iterations: int):
        self._layers = sorted((_Layer(*layer, np.float32(momentum), iterations) for layer in filters),
                              key=lambda layer: -layer.weight.size)
        self._threads = min(processors.threads(), len(self._layers))
        self._pool = ThreadPoolExecutor(self._threads) if self._threads > 1 else None
        self._blas = None

    def __call__(self, lr: float) -> None:
        """One step."""
        if self._blas is None:
            from threadpoolctl import ThreadpoolController  # looks for libraries, when all are loaded

            self._blas = ThreadpoolController().select(user_api="blas")
        with _LIMIT, self._blas.limit(limits=1):
            for _ in (self._pool.map if self._pool else map)(lambda layer: layer.step(lr), self._layers):
                pass


class _Layer:
    """The filters of one layer as a matrix (rows, columns), and memory to compute in."""

    def __init__(self, weight, gradient, momentum_buffer, factor: float, momentum: np.float32, iterations: int):
        rows = len(weight)
        self.weight, self.gradient, self.buffer = (a.reshape(rows, -1) for a in (weight, gradient, momentum_buffer))
        self.factor, self.momentum, self.iterations = factor, momentum, iterations
        self.norm = np.float32(sqrt(rows))
        side = min(self.weight.shape)
        self.direction, self.spare = np.empty_like(self.weight), np.empty_like(self.weight)
        self.squares = np.empty((5, side, side), np.float32)

    def step(self, lr: float) -> None:
        w, x, m = self.weight, self.direction, self.buffer
        m *= self.momentum
        m += self.gradient
        np.multiply(m, self.momentum, out=x)
        x += self.gradient
        if not lr * self.factor:  # what is not to move keeps its norm, too
            return
        orthogonalise(x, self.iterations, self.spare, self.squares)
        w *= self.norm / max(np.float32(np.linalg.norm(w)), TINY)
        x *= np.float32(lr * self.factor)
        w -= x


def orthogonalise(x: np.ndarray, iterations: int, spare: np.ndarray, squares: np.ndarray) -> None:
    """Bring a float32 matrix near U V' of its singular value decomposition U S V', in place.

    First |x| = 1 by the root of the sum of squares, so that no singular value is above 1; then, each time,
    x = (a + b x x' + c (x x')^2) x, which moves each singular value s to a s + b s^3 + c s^5 and leaves U and V.
    (Newton-Schulz iteration with the coefficients of Jordan et al., "Muon", 2024.) As these factors are polynomials of
    one x x', the product of some of them is computed before x is multiplied with it; of TOGETHER at most, because
    rounding grows with each. `spare` is as large as x, `squares` are five matrices as large as the smaller of x x' and
    x' x.
    """
    a, b, c = map(np.float32, CUBIC)
    wide = x.shape[0] <= x.shape[1]
    gram, squared, factor, product, other = squares
    x /= max(np.float32(np.linalg.norm(x)), TINY)
    for iteration in range(iterations):
        first = iteration % TOGETHER == 0
        if first:
            np.matmul(x, x.T, out=gram) if wide else np.matmul(x.T, x, out=gram)
        else:  # the x x' of the next x
            np.matmul(factor, gram, out=squared)
            np.matmul(squared, factor, out=gram)
        np.matmul(gram, gram, out=squared)
        np.multiply(gram, b, out=factor)
        squared *= c
        factor += squared
        factor.flat[::len(factor) + 1] += a
        if first:
            product[...] = factor
        else:
            np.matmul(factor, product, out=other)
            product, other = other, product
        if (iteration + 1) % TOGETHER == 0 or iteration + 1 == iterations:
            np.matmul(product, x, out=spare) if wide else np.matmul(x, product, out=spare)
            x[...] = spare
