"""The rows of a model with a residual structure, whitened at its parameters rho.

R^-1/2 times the rows of X, y and Z makes a model with independent residuals. Where
the rows of each subject share their levels, Z keeps its shape: whitening mixes the
covariates of one level. Where they do not (a spatial field with plots of many
varieties), or levels load on factors, Z becomes a full matrix, and the equations are
solved densely.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from mixform._typing import Matrix, Stack, Vector
from mixform.errors import DesignError
from mixform.mme import DenseEquations, Equations, Factor, ZBlock
from mixform.mme.backends import require_memory
from mixform.mme.dense import DenseFactor
from mixform.residual.evaluated import Residual
from mixform.residual.model import ResidualModel


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rows:
    """The rows of the scaled problem; weights are in them already.

    Attributes
    ----------
    model : residual structure
    base : (n, p + 1) [X, y], X orthonormal before whitening
    blocks : the blocks of Z
    full : (n, q) Z before whitening, where levels change within a subject or load on
        factors; else None
    here : R at rho; None before it was whitened
    W : (n, p + 1) whitened [X, y]
    Z : whitened, as blocks, or as a full matrix
    """

    model: ResidualModel
    base: Matrix
    blocks: tuple[ZBlock, ...]
    full: Matrix | None
    here: Residual | None = None
    W: Matrix | None = None
    Z: Matrix | tuple[ZBlock, ...] = ()

    @property
    def residual(self) -> Residual:
        """R at rho."""
        assert self.here is not None, "whitened rows"
        return self.here

    @property
    def X(self) -> Matrix:
        """Whitened X, (n, p)."""
        assert self.W is not None, "whitened rows"
        return self.W[:, :-1]

    def at(self, rho: Vector) -> Rows:
        """Return the rows whitened at rho (r,)."""
        here = self.model.at(rho)
        parts = [self.base, *(block.design for block in self.blocks)]
        if self.full is not None:
            parts = [self.base, self.full]
        white = here.whiten(np.column_stack(parts))
        width = self.base.shape[1]
        Z: Matrix | tuple[ZBlock, ...] = white[:, width:]
        if self.full is None:
            ends = np.cumsum([width, *(block.k for block in self.blocks)]).tolist()
            Z = tuple(
                replace(block, design=white[:, a:b])
                for block, a, b in zip(self.blocks, ends[:-1], ends[1:], strict=True)
            )
        return replace(self, here=here, W=white[:, :width], Z=Z)

    def equations(self, old: Equations) -> Equations:
        """Return the equations of the whitened Z, analyzed as the old ones were."""
        if isinstance(self.Z, tuple):
            return old.revalued(self.Z)
        return DenseEquations(self.blocks, self.Z)

    def Z_dot(self, B: Matrix) -> Matrix:
        """Return whitened Z B, (n, c) for B (q, c)."""
        if not isinstance(self.Z, tuple):
            return self.Z @ B
        out = np.zeros((len(self.base), B.shape[1]))
        start = 0
        for block in self.Z:
            part = B[start : start + block.q].reshape(block.m, block.k, -1)
            out += np.einsum("nk,nkc->nc", block.design, part[block.codes])
            start += block.q
        return out

    def Zt_dot(self, equations: Equations, A: Matrix) -> Matrix:
        """Return whitened Z' A, (q, c) for A (n, c)."""
        if isinstance(self.Z, tuple):
            return equations.Zt_dot(A)
        return self.Z.T @ A

    def hat_blocks(self, factor: Factor, T: tuple[Matrix, ...]) -> list[Stack]:
        """Return for each batch (N, v, v): blocks of Z Lambda M^-1 Lambda'Z'."""
        if not self.blocks:
            return [
                np.zeros((len(b.rows), b.rows.shape[1], b.rows.shape[1]))
                for b in self.model.layout.batches
            ]
        out: list[Stack] = []
        if not isinstance(self.Z, tuple):
            assert isinstance(factor, DenseFactor), "a full Z is solved densely"
            return factor.row_blocks([b.rows for b in self.model.layout.batches])
        design = np.column_stack(
            [block.design @ t for block, t in zip(self.Z, T, strict=True)]
        )
        for batch in self.model.layout.batches:
            codes = [block.codes[batch.rows[:, 0]] for block in self.blocks]
            A = design[batch.rows]
            S = factor.crossed_blocks(codes)
            out.append(A @ S @ A.transpose(0, 2, 1))
        return out


def build_rows(model: ResidualModel, base: Matrix, blocks: tuple[ZBlock, ...]) -> Rows:
    """Return the rows of a problem, not yet whitened.

    Raises
    ------
    SolverError : levels change within subjects, and the full Z does not fit in memory
    """
    nested = all(
        block.loading is None
        and bool(np.all(block.codes[batch.rows] == block.codes[batch.rows[:, :1]]))
        for block in blocks
        for batch in model.layout.batches
    )
    full = None if nested else _full(blocks)
    return Rows(model=model, base=base, blocks=blocks, full=full)


def _full(blocks: tuple[ZBlock, ...]) -> Matrix:
    n, q = len(blocks[0].codes), sum(block.q for block in blocks)
    require_memory(
        8.0 * 3 * n * q,
        f"{n} residuals correlated across the levels of random terms ({q} effects)",
    )
    out = np.zeros((n, q))
    start = 0
    rows = np.arange(n)[:, None]
    for block in blocks:
        if block.loading is None:
            places = start + block.codes[:, None] * block.k + np.arange(block.k)
            out[rows, places] = block.design
        else:
            own = block.loading[block.codes][:, :, None] * block.design[:, None, :]
            out[:, start : start + block.q] = own.reshape(n, block.q)
        start += block.q
    return out


def require_dense(rows: Rows, backend: str) -> str:
    """Return the backend that the rows can be solved with.

    Raises
    ------
    DesignError : sparse equations were asked for, of a full Z
    """
    if rows.full is None:
        return backend
    if backend in ("sparse", "cg"):
        raise DesignError(
            "The residual structure correlates rows of different levels, which makes "
            "Z full.",
            hint=f'Leave control backend="{backend}" out.',
        )
    return "dense"
