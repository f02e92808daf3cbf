"""The columns of a design and their cross-products, for sums of squares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import csr_array, diags_array

from mixform._typing import Matrix, Vector
from mixform.design import Design, RandomBlock

#: The key of the fixed part among blocks of columns; random terms have 0, 1, ...
FIXED = -1

#: A matrix, dense or sparse.
Block = Any


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """Blocks of columns: an orthonormal basis of X, and Z of each random term.

    Rows are scaled by the root of their weights. A random term has one coefficient, so
    that each row of its Z has one entry and Z'Z is diagonal.

    Attributes
    ----------
    Q : (n, p)
    Z : for each random term (n, m_j) sparse
    cross : by pairs of blocks, their cross-products, sparse between random terms
    within : by term, the terms whose columns it spans, itself among them
    """

    Q: Matrix
    Z: tuple[csr_array, ...]
    cross: dict[tuple[int, int], Block]
    within: tuple[frozenset[int], ...]

    @property
    def keys(self) -> range:
        """The blocks: the fixed part and the random terms."""
        return range(FIXED, len(self.Z))

    def size(self, key: int) -> int:
        """Return the number of columns of a block."""
        return self.Q.shape[1] if key == FIXED else self.Z[key].shape[1]

    @property
    def width(self) -> int:
        """Number of columns in all."""
        return sum(self.size(key) for key in self.keys)

    def squares(self, j: int) -> Vector:
        """Return the squared lengths (m_j,) of the columns of a random term."""
        return self.cross[j, j].diagonal()

    def times(self, key: int, right: Block) -> Matrix:
        """Return a block of columns times a matrix."""
        return np.asarray((self.Q if key == FIXED else self.Z[key]) @ right)

    def products(self, key: int, right: Matrix) -> Matrix:
        """Return the transpose of a block of columns times a matrix."""
        return np.asarray((self.Q if key == FIXED else self.Z[key]).T @ right)


def columns_of(design: Design) -> Columns:
    """Return the columns of a design whose random terms have one coefficient each."""
    Z = tuple(_weighted(design, block) for block in design.blocks)
    Q = design.fixed.Q
    cross: dict[tuple[int, int], Block] = {(FIXED, FIXED): np.eye(Q.shape[1])}
    for j, one in enumerate(Z):
        across = np.asarray(one.T @ Q)
        cross[j, FIXED], cross[FIXED, j] = across, across.T
        for k, other in enumerate(Z[: j + 1]):
            cross[j, k] = csr_array(one.T @ other)
            cross[k, j] = csr_array(cross[j, k].T)
    blocks = design.blocks
    within = tuple(
        frozenset(k for k, other in enumerate(blocks) if k == j or contains(one, other))
        for j, one in enumerate(blocks)
    )
    return Columns(Q=Q, Z=Z, cross=cross, within=within)


def _weighted(design: Design, block: RandomBlock) -> csr_array:
    if design.weights is None:
        return csr_array(block.Z)
    return csr_array(diags_array(np.sqrt(design.weights)) @ block.Z)


def contains(larger: RandomBlock, smaller: RandomBlock) -> bool:
    """Whether the columns of one random term span those of another.

    They do if the levels of the smaller are unions of levels of the larger, with the
    same covariate, however the user wrote it.
    """
    if not np.array_equal(larger.design, smaller.design):
        return False
    pairs = larger.codes * np.int64(smaller.m) + smaller.codes
    return len(np.unique(pairs)) == len(np.unique(larger.codes))
