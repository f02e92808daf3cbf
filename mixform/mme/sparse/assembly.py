"""From random terms to M = Lambda' Z'Z Lambda + P, with a pattern that stays.

Goes in: one `ZBlock` per random term. Comes out: `Assembly`, which holds Z'Z by
pairs of terms, the pattern of M's lower triangle and where each pair goes in it, so
that a new theta costs one pass over the pairs.

Columns are those of Z: blocks in the given order, within a block level by level
(column j k + c is coefficient c of level j). Lambda = blockdiag(I_m (x) T_j), and P is
the identity or, for related levels, A^-1 (x) I_k.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import sparse

from mixform._jit import Floats, Ints, Longs
from mixform.mme.equations import ZBlock
from mixform.mme.sparse.crossproduct import (
    add_product,
    add_row_quadratics,
    add_traces,
    fill_rows,
    refill_pair,
    sum_products,
    sum_rows,
    sum_squares,
)

_NO_FLOATS = np.zeros(0)


class _Pair(NamedTuple):
    """Two terms that meet: see `mixform.mme.sparse.crossproduct`."""

    i: int
    j: int
    start: Longs
    level: Ints
    G: Floats
    base: Longs

    @property
    def is_diagonal(self) -> bool:
        return self.i == self.j


@dataclass(frozen=True, slots=True, eq=False)
class Assembly:
    """Z'Z by pairs of terms, and the pattern of M.

    Attributes
    ----------
    firsts : (B + 1,) first column of each block
    ks : (B,) coefficients of each block
    indptr, indices : (q + 1,), (nnz,) lower triangle of M by columns
    lengths : for each block, (m,) entries of the first column of each level
    starts : for each block, (m,) place of the first column of each level
    pairs : terms that meet
    diagonals : for each block, (m,) diagonal of its precision
    values : (nnz,) values of M; the entries of the precision between levels are set,
        the others overwritten by `refill`
    """

    firsts: Longs
    ks: tuple[int, ...]
    indptr: Longs
    indices: Ints
    lengths: tuple[Longs, ...]
    starts: tuple[Longs, ...]
    pairs: tuple[_Pair, ...]
    diagonals: tuple[Floats, ...]
    values: Floats

    @property
    def bytes(self) -> int:
        """Memory of Z'Z, the pattern and the values, in bytes."""
        held = sum(pair.G.nbytes + pair.level.nbytes for pair in self.pairs)
        return held + self.indices.nbytes + self.values.nbytes

    def refill(self, T: Sequence[Floats]) -> Floats:
        """Overwrite the values of M with those at T; return them, (nnz,)."""
        for i, j, start, _, G, base in self.pairs:
            length, diagonal = self.lengths[i], self.diagonals[i]
            refill_pair(
                i == j, start, base, length, G, T[i], T[j], diagonal, self.values
            )
        return self.values

    def multiply(self, H: Floats) -> Floats:
        """Return Z'Z H for H (q, r), C order."""
        out = np.zeros_like(H)
        spans = [
            slice(*span) for span in zip(self.firsts, self.firsts[1:], strict=False)
        ]
        for i, j, start, level, G, _ in self.pairs:
            add_product(
                i == j, start, level, G, H[spans[i]], H[spans[j]], out[spans[i]],
                out[spans[j]],
            )  # fmt: skip
        return out

    def traces(self, T: Sequence[Floats], selected: Floats) -> tuple[Floats, ...]:
        """Return for each block the sum of its diagonal blocks of Z'Z Lambda M^-1.

        They are (k, k), and need only the entries `selected` (nnz,) of M^-1.
        """
        B = tuple(np.zeros((k, k)) for k in self.ks)
        for i, j, start, _, G, base in self.pairs:
            add_traces(
                i == j,
                start,
                base,
                self.lengths[i],
                G,
                T[i],
                T[j],
                selected,
                B[i],
                B[j],
            )
        return B

    def diagonal_blocks(self, selected: Floats) -> tuple[Floats, ...]:
        """Return for each block the (m, k, k) diagonal blocks of `selected`."""
        blocks: list[Floats] = []
        for k, start, length in zip(self.ks, self.starts, self.lengths, strict=True):
            block = np.empty((start.size, k, k))
            for y in range(k):
                for x in range(y, k):
                    entries = selected[start + x + y * length - y * (y + 1) // 2]
                    block[:, x, y] = block[:, y, x] = entries
            blocks.append(block)
        return tuple(blocks)

    def row_quadratics(
        self, blocks: Sequence[ZBlock], T: Sequence[Floats], selected: Floats
    ) -> Floats:
        """Return the diagonal (n,) of Z Lambda M^-1 Lambda'Z'."""
        rows = [block.design @ t for block, t in zip(blocks, T, strict=True)]
        out = np.zeros(len(blocks[0].codes))
        for i, j, start, level, _, base in self.pairs:
            add_row_quadratics(
                i == j,
                start,
                level,
                base,
                self.lengths[i],
                blocks[i].codes,
                rows[i],
                blocks[j].codes,
                rows[j],
                selected,
                out,
            )
        return out

    def locate(self, column: int) -> tuple[int, int, int]:
        """Return (block, level, coefficient) of a column of Z."""
        block = int(np.searchsorted(self.firsts, column, side="right")) - 1
        level, coefficient = divmod(column - int(self.firsts[block]), self.ks[block])
        return block, level, coefficient


def assemble(blocks: Sequence[ZBlock]) -> Assembly:
    """Form Z'Z and the pattern of M; one pass over the rows per pair of terms."""
    ks = tuple(block.k for block in blocks)
    firsts = np.concatenate(([0], np.cumsum([block.q for block in blocks])))
    relations = [_split_precision(block) for block in blocks]
    products: list[list[tuple[int, Longs, Ints, Floats]]] = []
    lengths: list[Longs] = []
    for i, block in enumerate(blocks):
        own: list[tuple[int, Longs, Ints, Floats]] = []
        for j in range(i + 1, len(blocks)):
            other = blocks[j]
            own.append(
                (j, *sum_products(block.codes, block.design, block.m, other.codes,
                                  other.design, other.m))
            )  # fmt: skip
        products.append(own)
        length = block.k * (1 + np.diff(relations[i][1]))
        for j, start, _, _ in own:
            length += ks[j] * np.diff(start)
        lengths.append(length)

    indptr = _column_starts(lengths, ks)
    indices = np.empty(int(indptr[-1]), np.int32)
    values = np.zeros(indices.size)
    starts = tuple(
        indptr[firsts[i] : firsts[i + 1] : k].copy() for i, k in enumerate(ks)
    )
    pairs: list[_Pair] = []
    for i, block in enumerate(blocks):
        k, first, length = block.k, int(firsts[i]), lengths[i]
        own_start, own_level = (
            np.arange(block.m + 1),
            np.arange(block.m, dtype=np.int32),
        )
        for y in range(k):
            for x in range(y, k):
                at = starts[i] + x + y * length - y * (y + 1) // 2
                indices[at] = first + k * own_level + x
        squares = sum_squares(block.codes, block.design, block.m)
        pairs.append(
            _Pair(i, i, own_start, own_level, squares, starts[i] - k * own_start[:-1])
        )
        offset = starts[i] + k
        _, start, level, entries = relations[i]
        base = offset - k * start[:-1]
        fill_rows(start, level, base, length, k, k, first, indices)
        column = np.repeat(np.arange(block.m), np.diff(start))
        at = base[column] + k * np.arange(level.size)
        for c in range(k):
            values[at + c + c * length[column] - c * (c + 1) // 2] = entries
        offset = offset + k * np.diff(start)
        for j, start, level, G in products[i]:
            base = offset - ks[j] * start[:-1]
            fill_rows(start, level, base, length, k, ks[j], int(firsts[j]), indices)
            pairs.append(_Pair(i, j, start, level, G, base))
            offset = offset + ks[j] * np.diff(start)
    return Assembly(
        firsts, ks, indptr, indices, tuple(lengths), starts, tuple(pairs),
        tuple(relation[0] for relation in relations), values,
    )  # fmt: skip


def ZtX(blocks: Sequence[ZBlock], X: Floats) -> Floats:
    """Return Z'X (q, p) for X (n, p), rows scaled as the designs are."""
    X = np.ascontiguousarray(X, dtype=np.float64)
    out = np.zeros((sum(block.q for block in blocks), X.shape[1]))
    first = 0
    for block in blocks:
        sum_rows(block.codes, block.design, X, out[first : first + block.q])
        first += block.q
    return out


def _split_precision(block: ZBlock) -> tuple[Floats, Longs, Ints, Floats]:
    """Return a term's precision as (diagonal, start, level, entries below it)."""
    if block.precision is None:
        start = np.zeros(block.m + 1, np.int64)
        return np.ones(block.m), start, np.zeros(0, np.int32), _NO_FLOATS
    below = sparse.csc_array(sparse.tril(block.precision, -1))
    below.sum_duplicates()
    diagonal = np.asarray(block.precision.diagonal(), dtype=np.float64)
    return (
        diagonal,
        below.indptr.astype(np.int64),
        below.indices.astype(np.int32),
        below.data.astype(np.float64),
    )


def _column_starts(lengths: Sequence[Longs], ks: tuple[int, ...]) -> Longs:
    """Return the column starts of M: a level's columns shrink by one at a time."""
    columns = [
        (length[:, None] - np.arange(k)).ravel()
        for length, k in zip(lengths, ks, strict=True)
    ]
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(np.concatenate(columns))])
