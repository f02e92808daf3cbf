"""The residual covariance by its natural parameters, pattern by pattern.

The block of a subject is D C D, with D^2 = tau_i exp(2 w'delta): tau the variance of
each position (or one), relative to its estimate, C of natural correlation parameters.
Derivatives are given in whitened rows, E = (D L)^-1 dR (D L)^-T with C = L L', where D
and the scale of tau cancel. The derivatives by all tau add up to R.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mixform._typing import AnyArray, Codes, Matrix, Stack, Vector
from mixform.residual.layout import Batch
from mixform.residual.model import Residual, ResidualModel


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Natural:
    """Where the natural parameters of a residual structure stand among all (r + 1,).

    Attributes
    ----------
    tau : for each stratum the variances of its positions, or of all
    r : for each stratum its correlation parameters
    delta : dispersion coefficients
    """

    tau: tuple[slice, ...]
    r: tuple[slice, ...]
    delta: slice

    @property
    def size(self) -> int:
        """Number of parameters."""
        return self.delta.stop


def natural_places(model: ResidualModel) -> Natural:
    """Return the places of the natural parameters, one more than rho has."""
    tau: list[slice] = []
    r: list[slice] = []
    end = 0
    for eta, x in zip(model.eta, model.x, strict=True):
        tau.append(slice(end, end + len(eta)))
        r.append(slice(tau[-1].stop, tau[-1].stop + x.stop - x.start))
        end = r[-1].stop
    width = model.delta.stop - model.delta.start
    return Natural(tau=tuple(tau), r=tuple(r), delta=slice(end, end + width))


def natural_slopes(residual: Residual) -> Vector:
    """Return derivatives (r + 1,) of natural parameters by unconstrained ones.

    Of each by its own; one for all but those of correlations.
    """
    model = residual.model
    places = natural_places(model)
    out = np.ones(places.size)
    for s, (x, grid) in enumerate(zip(model.x, model.layout.grids, strict=True)):
        J = model.structure.family.jacobian(residual.rho[x], grid.size)
        out[places.r[s]] = np.diag(J)
    return out


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pattern:
    """One batch of subjects with U patterns, at the estimate.

    Attributes
    ----------
    batch : the subjects
    places : (U, v) which variance of the stratum each row has
    L, L_inverse : (U, v, v) Cholesky factor of C
    D : (U, v) relative SDs
    r : natural correlation parameters of the stratum
    """

    batch: Batch
    places: Codes
    L: Stack
    L_inverse: Stack
    D: Matrix
    r: AnyArray


def patterns_of(residual: Residual) -> Iterator[Pattern]:
    """Yield the patterns of all batches."""
    model = residual.model
    for p in residual.patterns:
        yield Pattern(
            batch=p.batch,
            places=model.places_of(p.batch),
            L=p.L,
            L_inverse=p.L_inverse,
            D=p.D,
            r=model.natural(residual.rho, p.batch.stratum),
        )


def derivative_blocks(
    model: ResidualModel, places: Natural, p: Pattern
) -> tuple[Codes, Stack]:
    """Return the parameters (a,) of a pattern, and E (a, U, v, v) by each of them."""
    s = p.batch.stratum
    tau, r, delta = places.tau[s], places.r[s], places.delta
    out: list[Stack] = []
    for i in range(tau.stop - tau.start):
        half = (p.L_inverse * (0.5 * (p.places == i))[:, None, :]) @ p.L
        out.append(half + half.transpose(0, 2, 1))
    if r.stop > r.start:
        down = p.L_inverse.transpose(0, 2, 1)
        out += [p.L_inverse @ dC @ down for dC in by_correlations(model, p)]
    for j in range(delta.stop - delta.start):
        half = (p.L_inverse * p.batch.W[:, None, :, j]) @ p.L
        out.append(half + half.transpose(0, 2, 1))
    which = [np.arange(part.start, part.stop) for part in (tau, r, delta)]
    return np.concatenate(which), np.array(out)


def by_correlations(model: ResidualModel, p: Pattern) -> Stack:
    """Return dC/dr, (c, U, v, v)."""
    family, batch = model.structure.family, p.batch
    if batch.D is not None:
        return family.derivatives(p.r, batch.D)
    return at_places(family.derivatives(p.r, model.layout.grids[batch.stratum].D), p)


def at_places(grid: Stack, p: Pattern) -> Stack:
    """Return (..., U, v, v) entries of matrices over all positions."""
    places = p.batch.places
    assert places is not None, "positions or distances"
    return grid[..., places[:, :, None], places[:, None, :]]


def spread(M: Stack, which: Codes, A: Matrix, rows: Codes) -> Matrix:
    """Return M A (N, v, c) of each subject, M (U, v, v) by pattern, A (n, c)."""
    return M[0] @ A[rows] if len(M) == 1 else M[which] @ A[rows]
