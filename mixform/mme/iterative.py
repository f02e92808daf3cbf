"""The iterative backend: conjugate gradients for equations too large to factor.

Goes in: one `ZBlock` per random term. Comes out: solutions of

    M = Lambda' Z'Z Lambda + P

by preconditioned conjugate gradients (Hestenes and Stiefel 1952; SciPy's ``cg``), the
preconditioner being the inverse of the diagonal blocks of each level (Stranden and
Lidauer 1999, J. Dairy Sci. 82, 2779). There is no determinant and no entry of the
inverse, so that variances have to be given.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np
from scipy.sparse import block_diag, csr_array, eye_array, hstack, kron
from scipy.sparse.linalg import LinearOperator, cg

from mixform._typing import AnyArray, Matrix, Stack, Vector
from mixform.errors import SolverError
from mixform.mme.equations import ZBlock

#: Relative residual |M x - r| / |r| at which the iteration ends.
TOLERANCE = 1e-10

#: Iterations after which it gives up.
MOST = 5000


def _no_inverse() -> NoReturn:
    raise SolverError(
        "This needs determinants or entries of the inverse of the mixed model "
        "equations; conjugate gradients give solutions only.",
        hint='Fit with control={"backend": "sparse"}, if memory allows.',
    )


class IterativeEquations:
    """The equations of a set of random terms, to be solved without a factorisation.

    Parameters
    ----------
    blocks : one per random term; the order of Z's columns follows theirs
    """

    name = "cg"
    flops = 0.0

    def __init__(self, blocks: Sequence[ZBlock]) -> None:
        self.blocks = tuple(blocks)
        self.Z: Any = hstack([_columns(block) for block in blocks], format="csr")
        self.ZtZ: Any = (self.Z.T @ self.Z).tocsr()

    @property
    def q(self) -> int:
        """Number of columns of Z."""
        return self.Z.shape[1]

    def revalued(self, blocks: Sequence[ZBlock]) -> IterativeEquations:
        """Return the equations of other covariates at the same levels."""
        return IterativeEquations(blocks)

    def factor(self, T: Sequence[Matrix]) -> IterativeSolver:
        """Return what solves the equations at T, one (k, k) matrix per block."""
        return IterativeSolver(self, T)

    def Zt_dot(self, W: Matrix) -> Matrix:
        """Return Z'W (q, r) for W (n, r), rows scaled as Z's are."""
        return self.Z.T @ W

    def ZtZ_dot(self, H: Matrix) -> Matrix:
        """Return Z'Z H for H (q, r)."""
        return self.ZtZ @ H

    def Lambda_dot(
        self, T: Sequence[Matrix], B: Matrix, *, transpose: bool = False
    ) -> Matrix:
        """Return Lambda B, or Lambda' B, for B (q, r)."""
        out = np.empty_like(B)
        start = 0
        for block, t in zip(self.blocks, T, strict=True):
            end = start + block.q
            part = B[start:end].reshape(block.m, block.k, -1)
            side = t.T if transpose else t
            out[start:end] = (side @ part).reshape(block.q, -1)
            start = end
        return out

    def level_sums(self, A: Matrix, B: Matrix) -> tuple[Matrix, ...]:
        """Refuse: a part of derivatives."""
        _no_inverse()

    def level_products(self, stacks: Sequence[Stack], a: Vector) -> Matrix:
        """Refuse: a part of derivatives."""
        _no_inverse()


class IterativeSolver:
    """M at one T, never factored.

    Attributes
    ----------
    logdet : log|M|, not known: NaN
    residual : largest |M x - r| / |r| of the right-hand sides solved so far
    iterations : of all of them
    """

    logdet = np.nan

    def __init__(self, equations: IterativeEquations, T: Sequence[Matrix]) -> None:
        self.residual, self.iterations = 0.0, 0
        Lambda: Any = block_diag(
            [
                kron(eye_array(block.m), np.asarray(t))
                for block, t in zip(equations.blocks, T, strict=True)
            ],
            format="csr",
        )
        P: Any = block_diag(
            [
                kron(
                    eye_array(block.m) if block.precision is None else block.precision,
                    eye_array(block.k),
                )
                for block in equations.blocks
            ],
            format="csr",
        )
        self.M: Any = csr_array(Lambda.T @ equations.ZtZ @ Lambda + P)
        self._inverses = _inverse_diagonal_blocks(self.M, equations.blocks)
        self._places = np.cumsum([0, *(block.q for block in equations.blocks)])

    def solve(self, B: Matrix) -> Matrix:
        """Return M^-1 B for B (q, r).

        Raises
        ------
        SolverError : the iteration does not end
        """
        q = self.M.shape[0]
        preconditioner = LinearOperator((q, q), matvec=self._precondition)
        out = np.zeros_like(B)
        for j in range(B.shape[1]):
            right = np.ascontiguousarray(B[:, j])
            size = float(np.linalg.norm(right))
            if size == 0.0:
                continue
            x, info = cg(
                self.M,
                right,
                rtol=TOLERANCE,
                maxiter=MOST,
                M=preconditioner,
                callback=self._count,
            )
            rest = float(np.linalg.norm(self.M @ x - right)) / size
            if info != 0:
                raise SolverError(
                    f"Conjugate gradients stopped after {MOST} iterations at a "
                    f"relative residual of {rest:.2g}.",
                    hint="Rescale the covariates, or factor the equations: "
                    'control={"backend": "sparse"}.',
                )
            self.residual = max(self.residual, rest)
            out[:, j] = x
        return out

    def _count(self, _: Vector) -> None:
        self.iterations += 1

    def _precondition(self, r: Vector) -> Vector:
        out = np.empty(len(self.M.indptr) - 1)
        for inverse, start, end in zip(
            self._inverses, self._places[:-1], self._places[1:], strict=True
        ):
            part = r.ravel()[start:end].reshape(len(inverse), -1)
            out[start:end] = np.einsum("mab,mb->ma", inverse, part).ravel()
        return out

    def traces(self) -> tuple[Matrix, ...]:
        """Refuse: entries of the inverse."""
        _no_inverse()

    def inverse_blocks(self) -> tuple[Stack, ...]:
        """Refuse: entries of the inverse."""
        _no_inverse()

    def crossed_blocks(self, codes: Sequence[AnyArray]) -> Stack:
        """Refuse: entries of the inverse."""
        _no_inverse()

    def row_quadratics(self) -> Vector:
        """Refuse: entries of the inverse."""
        _no_inverse()


def _columns(block: ZBlock) -> csr_array:
    """Return the columns of Z of a term, (n, m k)."""
    n = len(block.codes)
    places = block.codes[:, None].astype(np.int64) * block.k + np.arange(block.k)
    starts = np.arange(0, n * block.k + 1, block.k)
    return csr_array((block.design.ravel(), places.ravel(), starts), shape=(n, block.q))


def _inverse_diagonal_blocks(M: Any, blocks: Sequence[ZBlock]) -> list[Stack]:
    """Return for each term the inverses (m, k, k) of its levels' blocks of M."""
    diagonals = {d: M.diagonal(d) for d in range(max(block.k for block in blocks))}
    out: list[Stack] = []
    start = 0
    for block in blocks:
        stack = np.empty((block.m, block.k, block.k))
        for a in range(block.k):
            for b in range(a, block.k):
                entries = diagonals[b - a][start + a : start + block.q : block.k]
                stack[:, a, b] = stack[:, b, a] = entries[: block.m]
        out.append(np.linalg.inv(stack))
        start += block.q
    return out
