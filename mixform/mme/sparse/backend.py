"""The sparse backend: mixed model equations of random terms with many levels.

Goes in: one `ZBlock` per random term and, per evaluation, the matrices T of their
covariances. Comes out: what the criterion and its gradient need of

    M = Lambda' Z'Z Lambda + P

in the order of Z's columns (see `mixform.mme.sparse.assembly`). The dense backend has
the same interface; nothing above knows which one is at work.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np

from mixform._jit import Floats, Ints
from mixform.errors import SolverError
from mixform.mme.equations import ZBlock
from mixform.mme.sparse.assembly import Assembly, ZtX, assemble
from mixform.mme.sparse.cholesky import (
    Factor,
    NotPositiveDefiniteError,
    Symbolic,
    analyze,
)
from mixform.mme.sparse.levels import (
    multiply_levels,
    multiply_levels_by_each,
    sum_level_products,
)
from mixform.mme.sparse.ordering import order_by_size


@dataclass(frozen=True, slots=True)
class Work:
    """What one evaluation costs, known before any is made.

    Attributes
    ----------
    flops : multiplications of one factorization
    nnz_L : entries of the factor
    bytes : memory of Z'Z, M, its factor, its selected inverse and the work space
    """

    flops: float
    nnz_L: int
    bytes: int


class SparseEquations:
    """The equations of a set of random terms, ready to be factored at any theta.

    Parameters
    ----------
    blocks : one per random term; the order of Z's columns follows theirs

    Examples
    --------
    Two levels with two rows each: Z'Z = 2 I, and M = 2 I + I at T = 1.

    >>> codes = np.array([0, 0, 1, 1], np.int32)
    >>> equations = SparseEquations([ZBlock(codes, np.ones((4, 1)), 2)])
    >>> factor = equations.factor([np.ones((1, 1))])
    >>> round(float(np.exp(factor.logdet)), 12)
    9.0
    """

    name = "sparse"

    def __init__(self, blocks: Sequence[ZBlock]) -> None:
        self.blocks = tuple(blocks)
        self.assembly: Assembly = assemble(self.blocks)
        sizes = np.diff(self.assembly.firsts)
        # A wide term eliminated first leaves one dense block, of the narrow ones.
        candidates = ()
        if np.any(np.diff(sizes) > 0):
            candidates = (order_by_size(sizes, sizes),)
        self.symbolic: Symbolic = analyze(
            self.assembly.indptr, self.assembly.indices, candidates
        )

    def revalued(self, blocks: Sequence[ZBlock]) -> SparseEquations:
        """Return the equations of other covariates at the same levels."""
        new = copy(self)
        new.blocks = tuple(blocks)
        new.assembly = assemble(new.blocks)
        return new

    @property
    def q(self) -> int:
        """Number of columns of Z."""
        return self.symbolic.q

    @property
    def flops(self) -> float:
        """Multiplications of one factorization."""
        return self.symbolic.flops

    @property
    def work(self) -> Work:
        """Cost of one evaluation."""
        total = self.symbolic.bytes + self.assembly.bytes
        return Work(self.symbolic.flops, self.symbolic.nnz_L, total)

    def factor(self, T: Sequence[Floats]) -> SparseFactor:
        """Factor M at T, one (k, k) matrix per block, not necessarily triangular.

        Raises
        ------
        SolverError : M is not positive definite; names the term and its T
        """
        T = tuple(np.ascontiguousarray(t, dtype=np.float64) for t in T)
        values = self.assembly.refill(T)
        try:
            return SparseFactor(self, T, self.symbolic.factor(values))
        except NotPositiveDefiniteError as failure:
            block, level, coefficient = self.locate(failure.column)
            raise SolverError(
                f"The mixed model equations are not positive definite in random term "
                f"{block + 1} (level {level + 1}, coefficient {coefficient + 1}) at "
                f"T = {T[block].tolist()}.",
                hint="Rescale the covariates of the random terms, or change start=.",
            ) from failure

    def ZtZ_dot(self, H: Floats) -> Floats:
        """Return Z'Z H for H (q,) or (q, r)."""
        H_2d = np.ascontiguousarray(H, dtype=np.float64).reshape(self.q, -1)
        return self.assembly.multiply(H_2d).reshape(H.shape)

    def Zt_dot(self, W: Floats) -> Floats:
        """Return Z'W (q, r) for W (n, r), rows scaled as Z's are."""
        return ZtX(self.blocks, W)

    def Lambda_dot(
        self, T: Sequence[Floats], B: Floats, *, transpose: bool = False
    ) -> Floats:
        """Return Lambda B, or Lambda' B, for B (q, r)."""
        B = np.ascontiguousarray(B)
        out = np.empty_like(B)
        for part, result, t in zip(self._split(B), self._split(out), T, strict=True):
            side = np.ascontiguousarray(t.T if transpose else t, dtype=np.float64)
            multiply_levels(side, part, result)
        return out

    def level_sums(self, A: Floats, B: Floats) -> tuple[Floats, ...]:
        """Return for each block the sum over levels of A_l B_l', for A, B (q, r)."""
        A, B = np.ascontiguousarray(A), np.ascontiguousarray(B)
        return tuple(
            sum_level_products(left, right, block.k)
            for left, right, block in zip(
                self._split(A), self._split(B), self.blocks, strict=True
            )
        )

    def level_products(self, stacks: Sequence[Floats], a: Floats) -> Floats:
        """Return (q, t) with columns (I_m (x) S) a_j for each S of each stack."""
        out = np.zeros((self.q, sum(len(stack) for stack in stacks)))
        column = 0
        for part, result, stack in zip(
            self._split(np.ascontiguousarray(a)), self._split(out), stacks, strict=True
        ):
            end = column + len(stack)
            multiply_levels_by_each(
                np.ascontiguousarray(stack), part, result[:, column:end]
            )
            column = end
        return out

    def _split(self, array: Floats) -> list[Floats]:
        """Return views of the blocks' rows."""
        firsts = self.assembly.firsts
        return [array[start:end] for start, end in pairwise(firsts)]

    def locate(self, column: int) -> tuple[int, int, int]:
        """Return (block, level, coefficient) of a column of Z."""
        return self.assembly.locate(column)


@dataclass(frozen=True, eq=False)
class SparseFactor:
    """M factored at one theta.

    Attributes
    ----------
    equations : Z'Z and the pattern
    T : for each block, (k, k)
    factor : Cholesky factor of M
    """

    equations: SparseEquations
    T: tuple[Floats, ...]
    factor: Factor

    @property
    def logdet(self) -> float:
        """log|M|."""
        return self.factor.logdet

    def solve(self, B: Floats) -> Floats:
        """Return M^-1 B for B (q,) or (q, r)."""
        return self.factor.solve(B)

    def half_solve(self, B: Floats) -> Floats:
        """Return a matrix whose cross-product is B'M^-1 B, for B (q,) or (q, r)."""
        return self.factor.half_solve(B)

    @cached_property
    def selected(self) -> Floats:
        """Entries (nnz,) of M^-1 on the pattern of M."""
        return self.factor.selected_inverse()

    def traces(self) -> tuple[Floats, ...]:
        """Return for each block B (k, k), the part of the gradient that M^-1 gives.

        ``B[a, b]`` is the sum over levels l of entry ((l, a), (l, b)) of
        Z'Z Lambda M^-1, so that d log|M| = 2 sum(dT * B) for a change dT of T.
        """
        return self.equations.assembly.traces(self.T, self.selected)

    def inverse_blocks(self) -> tuple[Floats, ...]:
        """Return for each block the (m, k, k) diagonal blocks of M^-1, by level."""
        return self.equations.assembly.diagonal_blocks(self.selected)

    def crossed_blocks(self, codes: Sequence[Ints]) -> Floats:
        """Return (N, K, K) entries of M^-1 for N rows' levels, one in each block.

        By polarization of quadratic forms in unit vectors, of which the selected
        inverse has all that is needed.
        """
        ks = [block.k for block in self.equations.blocks]
        K, n = sum(ks), len(codes[0])
        out = np.empty((n, K, K))
        for a in range(K):
            out[:, a, a] = self._quadratics(codes, np.eye(K)[a])
        for a in range(K):
            for b in range(a):
                both = self._quadratics(codes, np.eye(K)[a] + np.eye(K)[b])
                crossed = (both - out[:, a, a] - out[:, b, b]) / 2.0
                out[:, a, b] = out[:, b, a] = crossed
        return out

    def _quadratics(self, codes: Sequence[Ints], unit: Floats) -> Floats:
        n, start = len(codes[0]), 0
        blocks: list[ZBlock] = []
        for block, code in zip(self.equations.blocks, codes, strict=True):
            design = np.tile(unit[start : start + block.k], (n, 1))
            blocks.append(replace(block, codes=code, design=design))
            start += block.k
        identity = tuple(np.eye(block.k) for block in blocks)
        assembly = self.equations.assembly
        return assembly.row_quadratics(blocks, identity, self.selected)

    def row_quadratics(self) -> Floats:
        """Return the diagonal (n,) of Z Lambda M^-1 Lambda'Z'."""
        equations = self.equations
        return equations.assembly.row_quadratics(
            equations.blocks, self.T, self.selected
        )
