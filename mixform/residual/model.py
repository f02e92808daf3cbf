"""The residual covariance R as a function of its parameters rho.

Var(e) = sigma^2 R, R block-diagonal by subject. The block of a subject is D C D: C the
correlations of the structure, D = diag(exp(eta + w'delta)) relative standard
deviations, eta by stratum and position, delta of the dispersion columns w. The first
eta is zero, because sigma stands for it. With C = L L', the rows of a subject are
whitened as L^-1 D^-1, which makes an ordinary model of the equations.

Parameters are unconstrained: for each stratum its etas and the x of its correlations,
then delta. Derivatives are given in whitened rows, E_a = (D L)^-1 dR_a (D L)^-T.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mixform._typing import Matrix, Stack, Vector
from mixform.design import ResidualPart
from mixform.errors import DesignError, suggest
from mixform.formula import ResidualTerm
from mixform.residual import RESIDUALS, Structure, make_structure
from mixform.residual.batched import cholesky, each, gather, inverse_lower, sum_by
from mixform.residual.independent import Independent
from mixform.residual.layout import Batch, Layout, build_layout

#: Derivative of all correlations by an unconstrained parameter below which it has
#: reached the edge of its range.
EDGE = 1e-5

IID = Structure(name="iid", family=Independent(), heterogeneous=False)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ResidualModel:
    """The residual structure of a design.

    Attributes
    ----------
    structure : its family
    layout : the subjects
    n : number of rows
    eta : for each stratum the place (size,) of its log SDs in rho, -1 for the first;
        one entry where variances are equal
    x : for each stratum the place of its correlation parameters
    delta : the place of the dispersion coefficients
    dispersion_names : of the dispersion columns
    """

    structure: Structure
    layout: Layout
    n: int
    eta: tuple[np.ndarray, ...]
    x: tuple[slice, ...]
    delta: slice
    dispersion_names: tuple[str, ...]

    @property
    def n_parameters(self) -> int:
        """Number r of parameters, sigma not counted."""
        return self.delta.stop

    def start(self) -> Vector:
        """Return parameters (r,) to start from: equal variances."""
        rho = np.zeros(self.n_parameters)
        for x, grid in zip(self.x, self.layout.grids, strict=True):
            if x.stop > x.start:
                rho[x] = self.structure.family.start(grid.size, self.layout.scale)
        return rho

    def started_from(self, rest: Vector) -> Vector:
        """Return `start` with the variances that residuals (n,) have by position."""
        rho = self.start()
        eta: dict[int, float] = {}
        for s, places in enumerate(self.eta):
            squares, counts = np.zeros(len(places)), np.zeros(len(places))
            for batch in self.layout.batches:
                if batch.stratum == s:
                    at = self.places_of(batch)[batch.which]
                    np.add.at(squares, at, rest[batch.rows] ** 2)
                    np.add.at(counts, at, 1.0)
            for place, size in zip(places, np.sqrt(squares / counts), strict=True):
                eta[int(place)] = float(np.log(max(size, 1e-3)))
        for place, value in eta.items():
            if place >= 0:
                rho[place] = value - eta[-1]
        return rho

    def places_of(self, batch: Batch) -> np.ndarray:
        """Return which log SD of its stratum each row of a pattern has, (U, v)."""
        if batch.places is None or not self.structure.heterogeneous:
            return np.zeros(batch.W.shape[:2], dtype=np.int64)
        return batch.places

    def at(self, rho: Vector) -> Residual:
        """Return R at parameters (r,).

        Raises
        ------
        SolverError : a correlation matrix is not positive definite to rounding
        """
        return Residual(self, np.asarray(rho, dtype=np.float64))

    def natural(self, rho: Vector, s: int) -> Vector:
        """Return the natural correlation parameters of stratum s."""
        return self.structure.family.natural(rho[self.x[s]], self.layout.grids[s].size)

    def deviations(self, rho: Vector, s: int) -> Vector:
        """Return the relative SDs of stratum s, one for each log SD."""
        return np.exp(np.append(rho, 0.0)[self.eta[s]])

    def covariance(self, rho: Vector, s: int) -> Matrix:
        """Return R (size, size) over all positions of stratum s, without dispersion."""
        grid = self.layout.grids[s]
        C = self.structure.family.correlation(self.natural(rho, s), grid.D)
        D = np.broadcast_to(self.deviations(rho, s), (grid.size,))
        return np.asarray(C) * np.outer(D, D)


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
            sum_by(
                p.batch.which,
                len(p.L),
                A[p.batch.rows] @ B[p.batch.rows].transpose(0, 2, 1),
            )
            for p in self.patterns
        ]

    def sum_blocks(self, blocks: Sequence[Stack]) -> list[Stack]:
        """Return for each batch the sums (U, v, v) of blocks (N, v, v)."""
        return [
            sum_by(p.batch.which, len(p.L), b)
            for p, b in zip(self.patterns, blocks, strict=True)
        ]

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
            by_sd = 2.0 * np.einsum(
                "uij,ujk,uki->ui", p.L, S_p, p.L_inverse, optimize=True
            )
            np.add.at(out, model.eta[s][model.places_of(p.batch)], by_sd)
            out[model.delta] += np.einsum("ui,uid->d", by_sd, p.batch.W)
            x = model.x[s]
            if x.stop > x.start:
                B = p.L_inverse.transpose(0, 2, 1) @ S_p @ p.L_inverse
                out[x] += self._by_x(p.batch, B)
        return out[:-1]

    def _by_x(self, batch: Batch, B: Stack) -> Vector:
        """Return sum over patterns of tr(dC_x B)."""
        if batch.places is None:
            dC = self._dC(batch)
            return np.einsum("cuij,uij->c", dC, B, optimize=True)
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


def build_residual_model(part: ResidualPart) -> ResidualModel:
    """Return the residual structure of a design.

    Raises
    ------
    DesignError : an option is unknown or has no sense; as `build_layout`
    """
    structure = IID if part.term is None else _structure(part.term)
    layout = build_layout(part, structure)
    names, W = part.dispersion_names, part.dispersion_values
    eta: list[np.ndarray] = []
    x: list[slice] = []
    end = -1  # the first log SD is no parameter
    for grid in layout.grids:
        width = grid.size if structure.heterogeneous else 1
        eta.append(np.arange(end, end + width))
        end += width
        c = len(structure.family.names(grid.labels))
        x.append(slice(end, end + c))
        end += c
    return ResidualModel(
        structure=structure,
        layout=layout,
        n=len(W),
        eta=tuple(eta),
        x=tuple(x),
        delta=slice(end, end + len(names)),
        dispersion_names=names,
    )


def _structure(term: ResidualTerm) -> Structure:
    known = RESIDUALS[term.structure][2]
    options = dict(term.options)
    for name, value in options.items():
        valid = (
            isinstance(value, bool)
            if name == "nugget"
            else isinstance(value, int | float) and value > 0
        )
        if name not in known or not valid:
            raise DesignError(
                f"{term.structure!r} has no option {name}={value!r}.",
                formula=term.source,
                span=term.find(name),
                hint=suggest(name, known, "Options"),
            )
    return make_structure(term.structure, options)
