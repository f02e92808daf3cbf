"""Kernels that do the same small product in every level of a random term.

Goes in: arrays over the random effects of one term, (m*k, r), level by level. Each is
one pass over memory; as NumPy or BLAS calls these would be m tiny products, or threads
waiting for each other on very thin ones.
"""

from __future__ import annotations

import numpy as np

from mixform._jit import Floats, kernel


@kernel
def multiply_levels(T: Floats, B: Floats, out: Floats) -> None:
    """Write T B_l for the rows B_l (k, r) of each level into `out`, both (m*k, r)."""
    k, r = T.shape[0], B.shape[1]
    for first in range(0, B.shape[0], k):
        for a in range(k):
            for j in range(r):
                out[first + a, j] = T[a, 0] * B[first, j]
            for b in range(1, k):
                for j in range(r):
                    out[first + a, j] += T[a, b] * B[first + b, j]


@kernel
def sum_level_products(A: Floats, B: Floats, k: int) -> Floats:
    """Return the sum over levels of A_l B_l', (k, k), for A and B (m*k, r)."""
    total = np.zeros((k, k))
    for first in range(0, A.shape[0], k):
        for a in range(k):
            for b in range(k):
                partial = 0.0
                for j in range(A.shape[1]):
                    partial += A[first + a, j] * B[first + b, j]
                total[a, b] += partial
    return total


@kernel
def multiply_levels_by_each(stack: Floats, a: Floats, out: Floats) -> None:
    """Write stack[t] a_l for each level and t into columns of `out` (m*k, t)."""
    t, k = stack.shape[0], stack.shape[1]
    for first in range(0, a.size, k):
        for x in range(k):
            for s in range(t):
                partial = 0.0
                for y in range(k):
                    partial += stack[s, x, y] * a[first + y]
                out[first + x, s] = partial
