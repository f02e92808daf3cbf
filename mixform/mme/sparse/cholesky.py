"""Sparse Cholesky factorization as callers use it: analyze once, factor many times.

Goes in: a symmetric positive definite matrix M (q, q) as the lower triangle of its
pattern, by columns, and values in that order. Comes out: log-determinant, solutions and
the entries of M^-1 on the pattern, all in the caller's order of columns. This module
knows nothing of mixed models.

    symbolic = analyze(indptr, indices)
    factor = symbolic.factor(values)
    factor.logdet, factor.solve(B), factor.selected_inverse()

Memory of a factor that is no longer referred to is used again by the next one.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field

import numpy as np

from mixform._jit import Floats, Ints, Longs
from mixform.mme.sparse.numeric import factor_panels
from mixform.mme.sparse.selected_inverse import invert_panels
from mixform.mme.sparse.symbolic import Structure, build_structure
from mixform.mme.sparse.triangular import solve_lower, solve_upper


class NotPositiveDefiniteError(ArithmeticError):
    """A pivot was not positive.

    Attributes
    ----------
    column : column of M, in the caller's order, at which factorization stopped
    """

    def __init__(self, column: int) -> None:
        self.column = column
        super().__init__(f"The matrix is not positive definite (column {column}).")

    def __reduce__(self) -> tuple[type[NotPositiveDefiniteError], tuple[int]]:
        return (type(self), (self.column,))


@dataclass(frozen=True, slots=True, eq=False)
class _Workspace:
    """Arrays to be used again: panels that no factor holds, and the update stack."""

    free_panels: list[Floats] = field(default_factory=list[Floats])
    free_work: list[Floats] = field(default_factory=list[Floats])


def _take(free: list[Floats], size: int) -> Floats:
    """Return an array of `size` from `free`, which loses it, or a new one."""
    return free.pop() if free else np.empty(size)


@dataclass(frozen=True, slots=True, eq=False)
class Symbolic:
    """The analyzed pattern of a symmetric matrix.

    Attributes
    ----------
    structure : layout of the factor
    indptr : (q + 1,) column starts of the input
    nnz_L : entries of the factor, without the zeros that supernodes store
    flops : multiplications of one factorization, without those on stored zeros
    natural : whether columns are eliminated in the order given
    """

    structure: Structure
    indptr: Longs
    nnz_L: int
    flops: float
    natural: bool
    _workspace: _Workspace = field(default_factory=_Workspace)

    @property
    def q(self) -> int:
        """Number of columns."""
        return self.indptr.size - 1

    @property
    def perm(self) -> Longs:
        """Elimination order (q,): step j eliminates column ``perm[j]``."""
        return self.structure.perm

    @property
    def bytes(self) -> int:
        """Memory of one factor, one selected inverse and the work space, in bytes."""
        entries = 2 * int(self.structure.panel_start[-1])
        entries += int(self.structure.update_start[-1]) + self._buffer_size
        return 8 * (entries + 2 * self.structure.where.size)

    @property
    def _buffer_size(self) -> int:
        panels = np.diff(self.structure.first) * self.structure.below
        return int(panels.max(initial=0))

    def factor(self, values: Floats) -> Factor:
        """Factor the matrix with these values.

        Parameters
        ----------
        values : (nnz,) entries of the lower triangle, in the order of the pattern

        Raises
        ------
        NotPositiveDefiniteError : with the column at which it showed
        """
        structure, workspace = self.structure, self._workspace
        values = np.ascontiguousarray(values, dtype=np.float64)
        if values.shape != structure.where.shape:
            raise ValueError(
                f"The pattern has {structure.where.size} entries, "
                f"but {values.size} values were given."
            )
        panels = _take(workspace.free_panels, int(structure.panel_start[-1]))
        work = _take(workspace.free_work, int(structure.update_start[-1]))
        failed, logdet = factor_panels(structure, values, panels, work)
        workspace.free_work.append(work)
        if failed >= 0:
            workspace.free_panels.append(panels)
            raise NotPositiveDefiniteError(int(structure.perm[failed]))
        factor = Factor(self, panels, float(logdet))
        weakref.finalize(factor, workspace.free_panels.append, panels)
        return factor


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Factor:
    """A Cholesky factor L of M: ``P M P' = L L'``, with P the elimination order.

    Attributes
    ----------
    symbolic : the analyzed pattern
    panels : its numbers, one dense block per supernode
    logdet : log|M|
    """

    symbolic: Symbolic
    panels: Floats
    logdet: float

    def solve(self, B: Floats) -> Floats:
        """Return M^-1 B for B (q,) or (q, r)."""
        X = self._ordered(B)
        buffer = self._buffer(X)
        solve_lower(self.symbolic.structure, self.panels, X, buffer)
        solve_upper(self.symbolic.structure, self.panels, X, buffer)
        if self.symbolic.natural:
            return X.reshape(B.shape)
        result = np.empty_like(X)
        result[self.symbolic.perm] = X
        return result.reshape(B.shape)

    def half_solve(self, B: Floats) -> Floats:
        """Return L^-1 P B for B (q,) or (q, r); its cross-product is B'M^-1 B.

        Rows are in the order of elimination.
        """
        X = self._ordered(B)
        solve_lower(self.symbolic.structure, self.panels, X, self._buffer(X))
        return X.reshape(B.shape)

    def selected_inverse(self) -> Floats:
        """Return the entries (nnz,) of M^-1 on the analyzed pattern, in its order."""
        symbolic = self.symbolic
        structure, workspace = symbolic.structure, symbolic._workspace
        inverse = _take(workspace.free_panels, self.panels.size)
        work = _take(workspace.free_work, int(structure.update_start[-1]))
        buffer = np.empty(symbolic._buffer_size)
        invert_panels(structure, self.panels, inverse, work, buffer)
        selected = inverse[structure.where]
        workspace.free_panels.append(inverse)
        workspace.free_work.append(work)
        return selected

    def diagonal_inverse(self) -> Floats:
        """Return the diagonal (q,) of M^-1."""
        return self.selected_inverse()[self.symbolic.indptr[:-1]]

    def _ordered(self, B: Floats) -> Floats:
        """Return a copy of B as a matrix (q, r), rows in elimination order."""
        q = self.symbolic.q
        if B.shape[0] != q:
            raise ValueError(f"Right-hand sides have {B.shape[0]} rows, not q = {q}.")
        X = np.asarray(B, dtype=np.float64).reshape(q, -1)
        if self.symbolic.natural:
            return np.array(X, order="C")
        return np.ascontiguousarray(X[self.symbolic.perm])

    def _buffer(self, X: Floats) -> Floats:
        """Return room for the rows below the largest supernode."""
        return np.empty((int(self.symbolic.structure.below.max(initial=0)), X.shape[1]))


def analyze(
    indptr: Longs, indices: Ints, candidates: tuple[Longs, ...] = ()
) -> Symbolic:
    """Analyze the pattern of a symmetric matrix.

    Parameters
    ----------
    indptr, indices : (q + 1,), (nnz,) lower triangle by columns, rows ascending within
        each, with the whole diagonal
    candidates : orderings (q,) to consider besides the natural one and approximate
        minimum degree; the one with the least modeled time is taken

    Examples
    --------
    An arrow of three columns with diagonal 2 and last row 1, whose determinant is 4.

    >>> symbolic = analyze(np.array([0, 2, 4, 5]), np.array([0, 2, 1, 2, 2], np.int32))
    >>> factor = symbolic.factor(np.array([2.0, 1.0, 2.0, 1.0, 2.0]))
    >>> round(float(np.exp(factor.logdet)), 12), symbolic.nnz_L
    (4.0, 5)
    """
    indptr = np.ascontiguousarray(indptr, dtype=np.int64)
    indices = np.ascontiguousarray(indices, dtype=np.int32)
    if indptr.size == 1:
        raise ValueError("The matrix has no columns.")
    if np.any(np.diff(indptr) < 1) or np.any(
        indices[indptr[:-1]] != np.arange(indptr.size - 1)
    ):
        raise ValueError("Every column must begin with its diagonal entry.")
    structure, nnz, flops = build_structure(indptr, indices, candidates)
    natural = bool(np.all(np.diff(structure.perm) == 1))
    return Symbolic(structure, indptr, nnz, flops, natural)
