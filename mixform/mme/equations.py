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

from mixform._typing import Codes, Matrix, Stack


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ZBlock:
    """One random term as numbers: row i of Z holds ``design[i]`` at level ``codes[i]``.

    Attributes
    ----------
    codes : (n,) level of each row, 0 to m - 1
    design : (n, k) covariates of the coefficients, rows scaled by R^-1/2
    m, k : number of levels, and of coefficients of a level
    precision : (m, m) sparse inverse relationship of the levels; None if independent
    """

    codes: Codes
    design: Matrix
    m: int
    k: int
    precision: Any = None


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
        """Return for each block (m, k, k): its levels' diagonal blocks of M^-1."""
        ...


class Equations(Protocol):
    """The pattern and values of Z'R^-1Z, ready to be factored at any theta."""

    name: str
    q: int

    def factor(self, T: Sequence[Matrix]) -> Factor:
        """Return M's factor for the blocks' T (k, k each, not needed triangular)."""
        ...

    def ZtZ_dot(self, H: Matrix) -> Matrix:
        """Return Z'R^-1Z H for H (q, r)."""
        ...


def apply_blocks(
    T: Sequence[Matrix], blocks: Sequence[ZBlock], B: Matrix, *, transpose: bool
) -> Matrix:
    """Return Lambda B, or Lambda' B, for B (q, r)."""
    out = np.empty_like(B)
    start = 0
    for block, factor in zip(blocks, T, strict=True):
        end = start + block.m * block.k
        if block.k == 1:
            np.multiply(B[start:end], factor[0, 0], out=out[start:end])
        else:
            side = factor.T if transpose else factor
            shape = (block.m, block.k, B.shape[1])
            product = side @ B[start:end].reshape(shape)
            out[start:end] = product.reshape(end - start, B.shape[1])
        start = end
    return out


def Zt_dot(blocks: Sequence[ZBlock], W: Matrix) -> Matrix:
    """Return Z'W (q, r) for W (n, r), whose rows are scaled by R^-1/2 as Z's are."""
    parts: list[Matrix] = []
    for block in blocks:
        sums = np.empty((block.m, block.k, W.shape[1]))
        for c in range(block.k):
            weighted = W * block.design[:, [c]]
            for j in range(W.shape[1]):
                sums[:, c, j] = np.bincount(
                    block.codes, weights=weighted[:, j], minlength=block.m
                )
        parts.append(sums.reshape(block.m * block.k, W.shape[1]))
    return np.concatenate(parts) if parts else np.empty((0, W.shape[1]))


def Z_dot(blocks: Sequence[ZBlock], b: Matrix) -> Matrix:
    """Return Z b (n,) for b (q,)."""
    start = 0
    total = np.zeros(len(blocks[0].codes) if blocks else 0)
    for block in blocks:
        end = start + block.m * block.k
        effects = b[start:end].reshape(block.m, block.k)[block.codes]
        total += np.einsum("ij,ij->i", block.design, effects)
        start = end
    return total
