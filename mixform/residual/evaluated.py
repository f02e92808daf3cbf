"""R at one set of parameters: whitening, determinant and derivatives.

Derivatives are in whitened rows, E_a = (D L)^-1 dR_a (D L)^-T, with D the relative
standard deviations and L L' the correlations of a subject.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from mixform._typing import Matrix, Stack, Vector
from mixform.residual.batched import cholesky, each, gather, inverse_lower, sum_by
from mixform.residual.layout import Batch

if TYPE_CHECKING:
    from mixform.residual.model import ResidualModel

#: Derivative of all correlations by an unconstrained parameter below which it has
#: reached the edge of its range.
EDGE = 1e-5


@dataclass(frozen=True, slots=True, eq=False)
class _Pattern:
    """Matrices of one batch: C = L L', relative SDs D (U, v)."""

    batch: Batch
    L: Stack
    L_inverse: Stack
    D: Matrix


@dataclass(frozen=True, eq=False)
class Residual:
    """R at one set of parameters.

    Attributes
    ----------
    model : the structure
    rho : (r,) parameters
    """

    model: ResidualModel
    rho: Vector

    @cached_property
    def patterns(self) -> tuple[_Pattern, ...]:
        """Factors of all batches."""
        model, rho = self.model, self.rho
        grids: dict[int, Matrix] = {}
        out: list[_Pattern] = []
        for batch in model.layout.batches:
            s = batch.stratum
            r = model.natural(rho, s)
            if batch.D is not None:
                C = model.structure.family.correlation(r, batch.D)
            else:
                assert batch.places is not None, "positions or distances"
                if s not in grids:
                    D = model.layout.grids[s].D
                    grids[s] = np.asarray(model.structure.family.correlation(r, D))
                C = gather(grids[s], batch.places)
            L = cholesky(C, model.structure.name, r)
            log_D = np.log(model.deviations(rho, s))[model.places_of(batch)]
            D = np.exp(log_D + batch.W @ rho[model.delta])
            out.append(_Pattern(batch, L, inverse_lower(L), D))
        return tuple(out)

    @cached_property
    def logdet(self) -> float:
        """log|R|."""
        total = 0.0
        for pattern in self.patterns:
            logs = np.log(np.diagonal(pattern.L, axis1=1, axis2=2)) + np.log(pattern.D)
            counts = np.bincount(pattern.batch.which, minlength=len(logs))
            total += 2.0 * float(counts @ logs.sum(axis=1))
        return total

    def whiten(self, A: Matrix) -> Matrix:
        """Return R^-1/2 A for A (n, c), row by row within subjects."""
        out = np.empty(A.shape)
        for p in self.patterns:
            rows, which = p.batch.rows, p.batch.which
            scaled = A[rows] / p.D[which][..., None]
            out[rows] = each(p.L_inverse, which, scaled)
        return out

    def color(self, A: Matrix) -> Matrix:
        """Return R^1/2 A for A (n, c): `whiten` undone."""
        out = np.empty(A.shape)
        for p in self.patterns:
            rows, which = p.batch.rows, p.batch.which
            out[rows] = each(p.L, which, A[rows]) * p.D[which][..., None]
        return out

    def color_transposed(self, A: Matrix) -> Matrix:
        """Return the transpose of R^1/2 times A (n, c)."""
        out = np.empty(A.shape)
        for p in self.patterns:
            rows, which = p.batch.rows, p.batch.which
            scaled = A[rows] * p.D[which][..., None]
            out[rows] = each(p.L, which, scaled, True)
        return out

    def block_sums(self, A: Matrix, B: Matrix) -> list[Stack]:
        """Return for each batch the sums (U, v, v) of A_i B_i' over its subjects."""
        return [
            _summed(p, A[p.batch.rows] @ B[p.batch.rows].transpose(0, 2, 1))
            for p in self.patterns
        ]

    def sum_blocks(self, blocks: Sequence[Stack]) -> list[Stack]:
        """Return for each batch the sums (U, v, v) of blocks (N, v, v)."""
        return [_summed(p, b) for p, b in zip(self.patterns, blocks, strict=True)]

    def counts(self) -> list[Stack]:
        """Return for each batch the sums (U, v, v) of identity matrices."""
        return [
            np.bincount(p.batch.which, minlength=len(p.L))[:, None, None]
            * np.eye(p.L.shape[1])
            for p in self.patterns
        ]

    def traces(self, S: Sequence[Stack]) -> Vector:
        """Return sum over patterns of tr(E_a S), for symmetric S (U, v, v); (r,)."""
        model = self.model
        out = np.zeros(model.n_parameters + 1)  # a last one for the SD that is fixed
        for p, S_p in zip(self.patterns, S, strict=True):
            s = p.batch.stratum
            by_sd = 2.0 * (p.L @ S_p * p.L_inverse.transpose(0, 2, 1)).sum(axis=2)
            places = model.eta[s][model.places_of(p.batch)]
            out += np.bincount(  # the fixed SD, place -1, is the last one
                places.ravel() % len(out), by_sd.ravel(), minlength=len(out)
            )
            out[model.delta] += by_sd.ravel() @ p.batch.W.reshape(by_sd.size, -1)
            x = model.x[s]
            if x.stop > x.start:
                B = p.L_inverse.transpose(0, 2, 1) @ S_p @ p.L_inverse
                out[x] += self._by_x(p.batch, B)
        return out[:-1]

    def _by_x(self, batch: Batch, B: Stack) -> Vector:
        """Return sum over patterns of tr(dC_x B)."""
        if batch.places is None:
            dC = self._dC(batch)
            return dC.reshape(len(dC), -1) @ B.ravel()
        dC_grid = self._dC_grid[batch.stratum]
        size = dC_grid.shape[-1]
        where = batch.places[:, :, None] * size + batch.places[:, None, :]
        G = np.bincount(where.ravel(), B.ravel(), size * size)
        return dC_grid.reshape(len(dC_grid), -1) @ G

    @cached_property
    def _dC_grid(self) -> tuple[Stack, ...]:
        """dC/dx over the positions of each stratum, (c, size, size)."""
        model = self.model
        return tuple(
            self._chain(s, model.structure.family.derivatives(
                model.natural(self.rho, s), grid.D
            ))
            for s, grid in enumerate(model.layout.grids)
        )  # fmt: skip

    def _chain(self, s: int, dC: Stack) -> Stack:
        model = self.model
        size = model.layout.grids[s].size
        J = model.structure.family.jacobian(self.rho[model.x[s]], size)
        return np.tensordot(J.T, dC, axes=1)

    def _dC(self, batch: Batch) -> Stack:
        """dC/dx (c, U, v, v) of a batch."""
        if batch.places is not None:
            return gather(self._dC_grid[batch.stratum], batch.places)
        batches = self.model.layout.batches
        return next(
            dC
            for b, dC in zip(batches, self._dC_by_distance, strict=True)
            if b is batch
        )

    @cached_property
    def _dC_by_distance(self) -> tuple[Stack, ...]:
        """dC/dx (c, U, v, v) of all batches."""
        return tuple(self._at_distances(batch) for batch in self.model.layout.batches)

    def _at_distances(self, batch: Batch) -> Stack:
        assert batch.D is not None, "positions or distances"
        family, s = self.model.structure.family, batch.stratum
        return self._chain(
            s, family.derivatives(self.model.natural(self.rho, s), batch.D)
        )

    def at_edge(self) -> np.ndarray:
        """Return which parameters (r,) are at the edge of their range.

        Correlations that no longer change with their unconstrained parameter have
        reached a limit, such as zero or one.
        """
        return self.sensitivity < EDGE

    @cached_property
    def sensitivity(self) -> Vector:
        """Largest derivative of a correlation by each parameter, (r,); inf for SDs."""
        model = self.model
        largest = np.full(model.n_parameters, np.inf)
        for x in model.x:
            largest[x] = 0.0
        for s, dC in enumerate(self._dC_grid):
            largest[model.x[s]] = np.abs(dC).max(axis=(1, 2), initial=0.0)
        for batch in model.layout.batches:
            if batch.D is not None:
                x = model.x[batch.stratum]
                here = np.abs(self._dC(batch)).max(axis=(1, 2, 3), initial=0.0)
                largest[x] = np.maximum(largest[x], here)
        return largest

    def products(self, A: Matrix) -> Stack:
        """Return E_a A for each parameter, (r, n, c) for A (n, c)."""
        model = self.model
        out = np.zeros((model.n_parameters + 1, *A.shape))
        for p in self.patterns:
            rows, which, s = p.batch.rows, p.batch.which, p.batch.stratum
            here = A[rows]
            up, down = each(p.L, which, here), each(p.L_inverse, which, here, True)
            places = model.eta[s][model.places_of(p.batch)][which]  # (N, v)
            W = p.batch.W[which]
            for a in np.unique(places):
                share = (places == a)[..., None]
                out[a][rows] += self._by_sd(p, share * up, share * down)
            for j, a in enumerate(range(model.delta.start, model.delta.stop)):
                share = W[..., [j]]
                out[a][rows] += self._by_sd(p, share * up, share * down)
            x = model.x[s]
            if x.stop > x.start:
                for a, dC in zip(
                    range(x.start, x.stop), self._dC(p.batch), strict=True
                ):
                    inner = each(dC, which, down)
                    out[a][rows] += each(p.L_inverse, which, inner)
        return out[:-1]

    def _by_sd(self, p: _Pattern, up: Stack, down: Stack) -> Stack:
        """L^-1 d L A + L' d L^-T A, of d L A and d L^-T A."""
        which = p.batch.which
        return each(p.L_inverse, which, up) + each(p.L, which, down, True)


def _summed(p: _Pattern, blocks: Stack) -> Stack:
    """Return (U, v, v) sums of the blocks (N, v, v) of a batch by pattern."""
    return sum_by(p.batch.which, len(p.L), blocks)
