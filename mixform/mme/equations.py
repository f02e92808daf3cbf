"""The protocol between the mixed model equations and whoever solves them.

ARRAYS -> LINEAR SYSTEM. A backend is built once per fit from the blocks of Z
(analysis: the pattern and the values of Z'R^-1Z), is factored once per evaluation, and
the factor solves and gives the entries of the inverse that the gradient needs::

    M = Lambda' Z'R^-1Z Lambda + P,   Lambda = blockdiag(I_m (x) T)

Arrays over the q random effects are in Z's column order: block by block, within a block
level by level, within a level coefficient by coefficient. To add a backend: one
module with these methods, one line in `build_equations`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from mixform._typing import AnyArray, Matrix, Stack, Vector


@dataclass(frozen=True, slots=True, eq=False)
class ZBlock:
    """One random term as numbers: row i of Z holds ``design[i]`` at level ``codes[i]``.

    Attributes
    ----------
    codes : (n,) level of each row, 0 to n_levels - 1; every row has one
    design : (n, k) coefficients' covariates, times the square root of the row's weight
    m : number of levels, those without rows allowed; with a loading, of factors
    precision : (m, m) sparse symmetric A^-1 of related levels; None where unrelated
    loading : (n_levels, m) F of levels with covariance F F', which b = (F (x) I_k) u
        makes of m independent factors: those stand in Z's columns, where row i holds
        ``F[codes[i]] (x) design[i]``. Needs the dense backend. None where the factors
        are the levels
    """

    codes: AnyArray
    design: Matrix
    m: int
    precision: Any = None
    loading: Matrix | None = None

    def __post_init__(self) -> None:
        codes = np.ascontiguousarray(self.codes, dtype=np.int32)
        design = np.ascontiguousarray(self.design, dtype=np.float64)
        object.__setattr__(self, "codes", codes)
        object.__setattr__(self, "design", design)
        if design.ndim != 2 or codes.shape != design.shape[:1]:
            raise ValueError(
                f"Codes {codes.shape} and design {design.shape} do not have the same "
                "rows."
            )
        if self.loading is not None and self.loading.shape[1] != self.m:
            raise ValueError(
                f"The loading is {self.loading.shape}, but there are {self.m} factors."
            )
        if codes.size and not 0 <= codes.min() <= codes.max() < self.n_levels:
            raise ValueError(
                f"Codes range from {codes.min()} to {codes.max()}, not within 0 to "
                f"{self.n_levels - 1}."
            )
        if self.precision is not None and self.precision.shape != (self.m, self.m):
            raise ValueError(
                f"The precision is {self.precision.shape}, but there are {self.m} "
                "levels."
            )

    @property
    def k(self) -> int:
        """Number of coefficients of a level."""
        return self.design.shape[1]

    @property
    def q(self) -> int:
        """Number of columns of Z."""
        return self.m * self.k

    @property
    def n_levels(self) -> int:
        """Number of levels of the grouping factor."""
        return self.m if self.loading is None else len(self.loading)

    def at_levels(self, part: AnyArray) -> AnyArray:
        """Return an array (n_levels, ...) of levels from one (m, ...) of factors."""
        if self.loading is None:
            return part
        flat = self.loading @ part.reshape(self.m, -1)
        return flat.reshape(self.n_levels, *part.shape[1:])

    def at_factors(self, part: AnyArray) -> AnyArray:
        """Return the adjoint of `at_levels`: (m, ...) from (n_levels, ...)."""
        if self.loading is None:
            return part
        flat = self.loading.T @ part.reshape(self.n_levels, -1)
        return flat.reshape(self.m, *part.shape[1:])


class Factor(Protocol):
    """M factored at one theta."""

    @property
    def logdet(self) -> float:
        """Log determinant of M."""
        ...

    def solve(self, B: Matrix) -> Matrix:
        """Return M^-1 B for B (q, r)."""
        ...

    def traces(self) -> tuple[Matrix, ...]:
        """Return the level sums of Z'R^-1Z Lambda M^-1, (k, k) for each block.

        Entry (a, b) is the sum over levels l of the entries [(l, a), (l, b)].
        """
        ...

    def inverse_blocks(self) -> tuple[Stack, ...]:
        """Return for each block (n_levels, k, k): its levels' diagonal blocks of M^-1.

        With a loading, of (F (x) I_k) M^-1 (F (x) I_k)'.
        """
        ...

    def crossed_blocks(self, codes: Sequence[AnyArray]) -> Stack:
        """Return (N, K, K) entries of M^-1 for N rows' levels, one in each block.

        K = sum of k; the codes (N,) of each block must be those of rows.
        """
        ...

    def row_quadratics(self) -> Vector:
        """Return the diagonal (n,) of Z Lambda M^-1 Lambda'Z', rows as `Zt_dot`'s."""
        ...


class Equations(Protocol):
    """The pattern and values of Z'R^-1Z, ready to be factored at any theta."""

    name: str

    @property
    def q(self) -> int:
        """Number of columns of Z."""
        ...

    @property
    def flops(self) -> float:
        """Multiplications of one factorisation, estimated."""
        ...

    def revalued(self, blocks: Sequence[ZBlock]) -> Equations:
        """Return the equations of other covariates at the same levels."""
        ...

    def factor(self, T: Sequence[Matrix]) -> Factor:
        """Return M's factor for the blocks' T (k, k each, not needed triangular)."""
        ...

    def Zt_dot(self, W: Matrix) -> Matrix:
        """Return Z'W (q, r) for W (n, r), rows scaled by R^-1/2 as Z's are."""
        ...

    def ZtZ_dot(self, H: Matrix) -> Matrix:
        """Return Z'R^-1Z H for H (q, r)."""
        ...

    def Lambda_dot(
        self, T: Sequence[Matrix], B: Matrix, *, transpose: bool = False
    ) -> Matrix:
        """Return Lambda B, or Lambda' B, for B (q, r)."""
        ...

    def level_sums(self, A: Matrix, B: Matrix) -> tuple[Matrix, ...]:
        """Return for each block the sum over levels of A_l B_l', for A, B (q, r)."""
        ...

    def level_products(self, stacks: Sequence[Stack], a: Vector) -> Matrix:
        """Return (q, t) with columns (I_m (x) S) a_j for each S of each block's stack.

        The stack of block j is (t_j, k, k); its columns are zero in other blocks.
        """
        ...
