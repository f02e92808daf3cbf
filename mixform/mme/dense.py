"""Dense backend: LAPACK on the full q x q matrix, for small models.

A model of a few hundred random effects is factored in less time than it takes to set
a sparse solver up. No numba is imported.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.linalg.lapack import dpotrf, dpotri, dpotrs, dtrtrs

from mixform._typing import AnyArray, Matrix, Stack, Vector
from mixform.errors import SolverError
from mixform.mme.equations import ZBlock

#: Arrays of q x q numbers alive at once: Z'Z, Z'Z Lambda, M, its inverse, two copies.
N_ARRAYS = 6


class DenseEquations:
    """Z'R^-1Z as a full matrix.

    Parameters
    ----------
    blocks : the random terms
    full : (n, q) Z, where it is not one level of each block in a row
    """

    name = "dense"

    @staticmethod
    def bytes_for(q: int) -> float:
        """Return the memory that q random effects need."""
        return 8.0 * N_ARRAYS * q * q

    def __init__(self, blocks: Sequence[ZBlock], full: Matrix | None = None) -> None:
        self.blocks = tuple(blocks)
        self.full = full
        sizes = [block.m * block.k for block in blocks]
        self.q = sum(sizes)
        self.starts = [sum(sizes[:j]) for j in range(len(sizes) + 1)]
        self.ZtZ = self._cross_products() if full is None else full.T @ full
        self.P = self._precisions()

    def revalued(self, blocks: Sequence[ZBlock]) -> DenseEquations:
        """Return the equations of other covariates at the same levels."""
        return DenseEquations(blocks)

    @property
    def flops(self) -> float:
        """Multiplications of one factorisation."""
        return self.q**3 / 6.0

    def _cross_products(self) -> Matrix:
        ZtZ = np.empty((self.q, self.q))
        for i, row in enumerate(self.blocks):
            here = slice(self.starts[i], self.starts[i + 1])
            for j, column in enumerate(self.blocks[: i + 1]):
                there = slice(self.starts[j], self.starts[j + 1])
                part = _pair_products(row, column)
                ZtZ[here, there] = part
                if i != j:
                    ZtZ[there, here] = part.T
        return ZtZ

    def _precisions(self) -> Matrix | None:
        if all(block.precision is None for block in self.blocks):
            return None
        P = np.eye(self.q)
        for start, block in zip(self.starts, self.blocks, strict=False):
            if block.precision is not None:
                end = start + block.m * block.k
                relation = np.asarray(block.precision.todense())
                P[start:end, start:end] = np.kron(relation, np.eye(block.k))
        return P

    def times_Lambda(self, B: Matrix, T: Sequence[Matrix]) -> Matrix:
        """Return B Lambda for B (r, q)."""
        out = np.empty_like(B)
        for j, (block, factor) in enumerate(zip(self.blocks, T, strict=True)):
            part = B[:, self.starts[j] : self.starts[j + 1]]
            if block.k == 1:
                product = part * factor[0, 0]
            else:
                product = (part.reshape(-1, block.k) @ factor).reshape(part.shape)
            out[:, self.starts[j] : self.starts[j + 1]] = product
        return out

    def factor(self, T: Sequence[Matrix]) -> DenseFactor:
        """Return the Cholesky factor of M at T.

        Raises
        ------
        SolverError : M is not positive definite: theta is not finite
        """
        ZtZ_Lambda = self.times_Lambda(self.ZtZ, T)
        # (Z'Z Lambda)' Lambda: M is symmetric, so transposing costs nothing.
        M = self.times_Lambda(ZtZ_Lambda.T, T)
        if self.P is None:
            M.flat[:: self.q + 1] += 1.0
        else:
            M += self.P
        lower, info = dpotrf(M.T, lower=1, clean=1, overwrite_a=1)
        if info != 0:
            raise SolverError(
                f"The mixed model equations are not positive definite at T = "
                f"{[np.round(t, 6).tolist() for t in T]} (equation {info}).",
                hint="Rescale the covariates of the random terms, or change start=.",
            )
        return DenseFactor(self, T, ZtZ_Lambda, lower)

    def Zt_dot(self, W: Matrix) -> Matrix:
        """Return Z'W (q, r) for W (n, r), rows scaled by R^-1/2 as Z's are."""
        if self.full is not None:
            return self.full.T @ W
        out = np.empty((self.q, W.shape[1]))
        for result, block in zip(self._split(out), self.blocks, strict=True):
            sums = np.empty((block.n_levels, block.k, W.shape[1]))
            for c in range(block.k):
                weighted = W * block.design[:, [c]]
                for column in range(W.shape[1]):
                    sums[:, c, column] = np.bincount(
                        block.codes, weighted[:, column], block.n_levels
                    )
            result[:] = block.at_factors(sums).reshape(result.shape)
        return out

    def ZtZ_dot(self, H: Matrix) -> Matrix:
        """Return Z'R^-1Z H for H (q, r)."""
        return self.ZtZ @ H

    def Lambda_dot(
        self, T: Sequence[Matrix], B: Matrix, *, transpose: bool = False
    ) -> Matrix:
        """Return Lambda B, or Lambda' B, for B (q, r)."""
        out = np.empty_like(B)
        for part, result, block, factor in zip(
            self._split(B), self._split(out), self.blocks, T, strict=True
        ):
            if block.k == 1:
                np.multiply(part, factor[0, 0], out=result)
            else:
                side = factor.T if transpose else factor
                product = side @ part.reshape(block.m, block.k, -1)
                result[:] = product.reshape(result.shape)
        return out

    def level_sums(self, A: Matrix, B: Matrix) -> tuple[Matrix, ...]:
        """Return for each block the sum over levels of A_l B_l', for A, B (q, r)."""
        sums: list[Matrix] = []
        for left, right, block in zip(
            self._split(A), self._split(B), self.blocks, strict=True
        ):
            k, r = block.k, A.shape[1]
            if k == 1:
                sums.append(np.array([[np.vdot(left, right)]]))
            else:
                crossed = left.reshape(-1, k * r).T @ right.reshape(-1, k * r)
                sums.append(np.einsum("apbp->ab", crossed.reshape(k, r, k, r)))
        return tuple(sums)

    def level_products(self, stacks: Sequence[Stack], a: Vector) -> Matrix:
        """Return (q, t) with columns (I_m (x) S) a_j for each S of each stack."""
        out = np.zeros((self.q, sum(len(stack) for stack in stacks)))
        column = 0
        for part, result, block, stack in zip(
            self._split(a), self._split(out), self.blocks, stacks, strict=True
        ):
            t = len(stack)
            # (m, k) (k, k*t) -> (m*k, t): entry (l, x) is sum_y S[x, y] a[l, y]
            side = stack.transpose(2, 1, 0).reshape(block.k, block.k * t)
            product = part.reshape(block.m, block.k) @ side
            result[:, column : column + t] = product.reshape(len(part), t)
            column += t
        return out

    def _split(self, array: Matrix) -> list[Matrix]:
        """Return views of the blocks' rows."""
        return [
            array[start:end]
            for start, end in zip(self.starts[:-1], self.starts[1:], strict=True)
        ]


class DenseFactor:
    """M = lower lower' at one theta."""

    def __init__(
        self,
        equations: DenseEquations,
        T: Sequence[Matrix],
        ZtZ_Lambda: Matrix,
        lower: Matrix,
    ) -> None:
        self._equations = equations
        self._T = T
        self._ZtZ_Lambda = ZtZ_Lambda
        self._lower = lower

    @property
    def logdet(self) -> float:
        """Log determinant of M."""
        return 2.0 * float(np.log(self._lower.diagonal()).sum())

    def solve(self, B: Matrix) -> Matrix:
        """Return M^-1 B for B (q, r)."""
        if B.size == 0:
            return np.zeros_like(B)
        return dpotrs(self._lower, B, lower=1)[0]

    def _inverse(self) -> Matrix:
        """Return M^-1 (q, q), both triangles."""
        if self._equations.q == 0:
            return np.empty((0, 0))
        lower, info = dpotri(self._lower, lower=1)
        assert info == 0, "dpotri failed on a valid Cholesky factor"
        inverse = lower + lower.T
        inverse.flat[:: self._equations.q + 1] *= 0.5
        return inverse

    def traces(self) -> tuple[Matrix, ...]:
        """Return the level sums of Z'R^-1Z Lambda M^-1, (k, k) for each block.

        Entry (a, b) is the sum over levels l of the entries [(l, a), (l, b)].
        """
        equations = self._equations
        inverse = self._inverse()
        traces: list[Matrix] = []
        for j, block in enumerate(equations.blocks):
            here = slice(equations.starts[j], equations.starts[j + 1])
            left, right = self._ZtZ_Lambda[here], inverse[here]
            if block.k == 1:
                traces.append(np.array([[np.vdot(left, right)]]))
            else:
                shape = (block.m, block.k, equations.q)
                left = left.reshape(shape).transpose(1, 0, 2).reshape(block.k, -1)
                right = right.reshape(shape).transpose(1, 0, 2).reshape(block.k, -1)
                traces.append(left @ right.T)
        return tuple(traces)

    def inverse_blocks(self) -> tuple[Stack, ...]:
        """Return for each block (m, k, k): its levels' diagonal blocks of M^-1."""
        equations = self._equations
        inverse = self._inverse()
        stacks: list[Stack] = []
        for j, block in enumerate(equations.blocks):
            here = slice(equations.starts[j], equations.starts[j + 1])
            shape = (block.m, block.k, block.m, block.k)
            own = inverse[here, here].reshape(shape)
            if block.loading is None:
                levels = np.arange(block.m)
                stacks.append(own[levels, :, levels, :])
            else:
                half = block.at_levels(own)  # (n_levels, k, m, k)
                stacks.append(np.einsum("lafb,lf->lab", half, block.loading))
        return tuple(stacks)

    def crossed_blocks(self, codes: Sequence[AnyArray]) -> Stack:
        """Return (N, K, K) entries of M^-1 for N rows' levels, one in each block."""
        equations, inverse = self._equations, self._inverse()
        for block, start in _last_first(equations):
            inverse = _between_levels(inverse, block, start)
        sizes = [block.n_levels * block.k for block in equations.blocks]
        places = np.column_stack(
            [
                start + code[:, None] * block.k + np.arange(block.k)
                for start, block, code in zip(
                    np.cumsum([0, *sizes]), equations.blocks, codes, strict=False
                )
            ]
        )
        return inverse[places[:, :, None], places[:, None, :]]

    def row_blocks(self, groups: Sequence[AnyArray]) -> list[Stack]:
        """Return blocks (N, v, v) of Z Lambda M^-1 Lambda'Z', Z full, rows (N, v)."""
        equations = self._equations
        assert equations.full is not None, "Z is full"
        ZLambda = equations.times_Lambda(equations.full, self._T)
        half = dtrtrs(self._lower, ZLambda.T, lower=1)[0].T
        return [half[rows] @ half[rows].transpose(0, 2, 1) for rows in groups]

    def row_quadratics(self) -> Vector:
        """Return the diagonal (n,) of Z Lambda M^-1 Lambda'Z', rows as `Zt_dot`'s."""
        equations, inverse = self._equations, self._inverse()
        if equations.full is not None:
            ZLambda = equations.times_Lambda(equations.full, self._T)
            return np.einsum("iq,iq->i", ZLambda @ inverse, ZLambda)
        for block, start in _last_first(equations):
            inverse = _between_levels(inverse, block, start)
        rows = [b.design @ t for b, t in zip(equations.blocks, self._T, strict=True)]
        sizes = [block.n_levels * block.k for block in equations.blocks]
        starts = np.cumsum([0, *sizes])
        places = [
            start + block.codes[:, None] * block.k + np.arange(block.k)
            for start, block in zip(starts, equations.blocks, strict=False)
        ]
        out = np.zeros(len(rows[0]) if rows else 0)
        for left, here in zip(rows, places, strict=True):
            for right, there in zip(rows, places, strict=True):
                entries = inverse[here[:, :, None], there[:, None, :]]
                out += np.einsum("ia,iab,ib->i", left, entries, right)
        return out


def _last_first(equations: DenseEquations) -> list[tuple[ZBlock, int]]:
    pairs = zip(equations.blocks, equations.starts, strict=False)
    return list(pairs)[::-1]


def _between_levels(inverse: Matrix, block: ZBlock, start: int) -> Matrix:
    """Return M^-1 with the levels of a block in the place of its factors."""
    if block.loading is None:
        return inverse
    end = start + block.q
    for _ in range(2):  # rows, then columns: M^-1 is symmetric
        part = inverse[start:end].reshape(block.m, -1)
        levels = block.at_levels(part).reshape(-1, inverse.shape[1])
        inverse = np.concatenate([inverse[:start], levels, inverse[end:]]).T
    return inverse


def _pair_products(row: ZBlock, column: ZBlock) -> Matrix:
    """Return Z_i' Z_j, (q_i, q_j)."""
    products = _level_products(row, column)
    if row.loading is None and column.loading is None:
        return products.reshape(row.q, column.q)
    left = row.at_factors(products).reshape(row.q, column.n_levels, column.k)
    right = column.at_factors(np.ascontiguousarray(left.transpose(1, 2, 0)))
    return right.reshape(column.q, row.q).T


def _level_products(row: ZBlock, column: ZBlock) -> AnyArray:
    """Return Z_i' Z_j without loadings, by counting pairs of levels.

    Returns
    -------
    (n_levels_i, k_i, n_levels_j, k_j)
    """
    same = row is column
    cells = row.codes if same else row.codes * column.n_levels + column.codes
    n_cells = row.n_levels if same else row.n_levels * column.n_levels
    out = np.zeros((row.n_levels, row.k, column.n_levels, column.k))
    levels = np.arange(row.n_levels)
    for a in range(row.k):
        for c in range(column.k):
            products = row.design[:, a] * column.design[:, c]
            sums = np.bincount(cells, weights=products, minlength=n_cells)
            if same:
                out[levels, a, levels, c] = sums
            else:
                out[:, a, :, c] = sums.reshape(row.n_levels, column.n_levels)
    return out
