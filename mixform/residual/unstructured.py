"""Every pair of positions has its own correlation: ``us``."""

from __future__ import annotations

from typing import Literal

import numpy as np

from mixform._typing import AnyArray, Matrix, Stack, Vector


class AnyCorrelation:
    """All correlations free, pairs in the order (2, 1), (3, 1), (3, 2), (4, 1), ...

    The search moves in the rows of a Cholesky factor of unit length: row i is (x_i1,
    ..., x_i,i-1, 1) over its length.
    """

    kind: Literal["order", "integer", "distance"] = "order"
    linear = True

    def names(self, labels: tuple[str, ...]) -> tuple[str, ...]:
        rows, columns = np.tril_indices(len(labels), -1)
        return tuple(
            f"rho({labels[j]},{labels[i]})" for i, j in zip(rows, columns, strict=True)
        )

    def start(self, size: int, scale: float) -> Vector:
        return self.internal(np.full(size * (size - 1) // 2, 0.3), size)

    def natural(self, x: Vector, size: int) -> Vector:
        L, _ = _rows(x, size)
        return (L @ L.T)[np.tril_indices(size, -1)]

    def internal(self, r: Vector, size: int) -> Vector:
        L = np.linalg.cholesky(self.correlation(r, np.empty((size, size))))
        return (L / L.diagonal()[:, None])[np.tril_indices(size, -1)]

    def jacobian(self, x: Vector, size: int) -> Matrix:
        L, lengths = _rows(x, size)
        rows, columns = np.tril_indices(size, -1)
        c = len(x)
        dL = np.zeros((c, size))  # of row i, by x_ij
        dL[np.arange(c), columns] = 1.0
        dL -= L[rows] * L[rows, columns][:, None]
        dL /= lengths[rows][:, None]
        out = np.zeros((c, c))
        with_others = dL @ L.T  # (c, size): d C[i, m], m not i
        for a in range(c):
            own = (rows == rows[a]) | (columns == rows[a])
            other = np.where(rows == rows[a], columns, rows)
            out[own, a] = with_others[a, other[own]]
        return out

    def correlation(self, r: Vector, D: AnyArray) -> Stack:
        size = D.shape[-1]
        C = np.eye(size)
        rows, columns = np.tril_indices(size, -1)
        C[rows, columns] = C[columns, rows] = r
        return C

    def derivatives(self, r: Vector, D: AnyArray) -> Stack:
        rows, columns = np.tril_indices(D.shape[-1], -1)
        out = np.zeros((len(r), *D.shape))
        pairs = np.arange(len(r))
        out[pairs, rows, columns] = out[pairs, columns, rows] = 1.0
        return out

    def second_derivatives(self, r: Vector, D: AnyArray) -> Stack:
        return np.zeros((len(r), len(r), *D.shape))


def _rows(x: Vector, size: int) -> tuple[Matrix, Vector]:
    """Return the Cholesky factor (size, size), and the lengths its rows had."""
    L = np.eye(size)
    L[np.tril_indices(size, -1)] = x
    lengths = np.sqrt(np.einsum("ij,ij->i", L, L))
    return L / lengths[:, None], lengths
