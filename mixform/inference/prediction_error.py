"""How far a predicted linear predictor is from the true one: variance and df.

The error of x'beta^ + z'b^ against x'beta + z'b has the variance sigma^2 (x, z)'C^-1
(x, z), C the matrix of Henderson's equations in (beta, b) (Henderson 1975, Biometrics
31, 423), the variance parameters taken as known. With b = Lambda u, M the block of u,
and V = R + Z Lambda Lambda'Z' it is::

    sigma^2 [ z'Lambda M^-1 Lambda'z + a'(X'V^-1X)^-1 a ],   a = x - V_X'Lambda'z,
    V_X = M^-1 Lambda'Z'R^-1X

which holds where a variance is zero. Only entries of M^-1 between levels that meet in a
row are needed: those within a level come from the selected inverse, the others from
solves for the term with fewer levels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import solve_triangular

from mixform._typing import Codes, Matrix, Vector
from mixform.errors import InferenceError
from mixform.estimate import Fit
from mixform.estimate.criterion import Evaluation, evaluate
from mixform.estimate.problem import split_blocks
from mixform.inference.approximation import Approximation, Asymptotic
from mixform.inference.new_residuals import RowErrors
from mixform.inference.satterthwaite import STEP, Satterthwaite
from mixform.mme import few_threads

#: Right-hand sides solved for at a time, and how many numbers they may hold together.
CHUNK = 2000
CHUNK_NUMBERS = 20_000_000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RowPart:
    """What one random term contributes to r rows.

    Attributes
    ----------
    block : position of the term
    codes : (r,) level; negative for levels without data, which add their prior
        variance: -1, -2, ... tell them apart
    design : (r, k) covariates of the coefficients, in the user's units
    """

    block: int
    codes: Codes
    design: Matrix


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PredictedRows:
    """r rows whose linear predictor, or new observation, is predicted.

    Attributes
    ----------
    X : (r, p) estimated columns, unweighted
    parts : the random terms that count
    errors : residuals of the observations; None where the linear predictor is
        predicted
    in_sample : the rows are those of the fit and the parts are all its terms, with
        levels that have data: their quadratics come with the selected inverse
    given : the residuals are predicted too, from correlated ones of the fit
    """

    X: Matrix
    parts: tuple[RowPart, ...]
    errors: RowErrors | None
    in_sample: bool
    given: bool = False

    @property
    def fixed_only(self) -> bool:
        """Whether a contrast of the fixed effects is all that is predicted."""
        return not self.parts and self.errors is None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Spherical:
    """A part on the scale of u: row i is ``values[i]`` at the columns of a level.

    start : first column of the term in Z; codes : (r,); values : (r, k) Lambda'z, zero
    for levels without data
    """

    block: int
    start: int
    codes: Codes
    values: Matrix

    @property
    def n_columns(self) -> int:
        return len(np.unique(self.codes)) * self.values.shape[1]


def standard_errors(
    fit: Fit, rows: PredictedRows, approximation: Approximation
) -> tuple[Vector, Vector]:
    """Return the standard error and the df of each row's prediction error, (r,) each.

    Raises
    ------
    InferenceError : the approximation knows contrasts of the fixed effects only
    """
    if rows.fixed_only:
        return _of_fixed_effects(rows.X, approximation)
    if not isinstance(approximation, Satterthwaite | Asymptotic):
        raise InferenceError(
            f"{approximation.title} is for the fixed effects only, not for random "
            "effects or new observations.",
            hint='Predict with random=False and without interval="prediction", or '
            'use ddf="satterthwaite".',
        )
    with few_threads(fit.evaluation.problem.equations):
        variances = error_variances(fit, fit.evaluation, rows)
        if isinstance(approximation, Asymptotic):
            ddf = np.where(variances > 0.0, np.inf, np.nan)
        elif approximation.variances.V_phi is None:
            ddf = np.full(len(variances), np.nan)
        else:
            ddf = error_ddf(fit, rows, variances, approximation.variances.V_phi)
    return fit.sigma * np.sqrt(variances), ddf


def _of_fixed_effects(X: Matrix, approximation: Approximation) -> tuple[Vector, Vector]:
    ddf = np.full(len(X), np.nan)
    known = np.isfinite(X).all(axis=1)
    if known.any():
        distinct, places = np.unique(X[known], axis=0, return_inverse=True)
        ddf[known] = approximation.t_ddf(distinct)[places.ravel()]
    return np.sqrt(np.einsum("ij,jk,ik->i", X, approximation.V_beta, X)), ddf


def error_variances(fit: Fit, here: Evaluation, rows: PredictedRows) -> Vector:
    """Return the variance of the prediction error of each row, over sigma^2, (r,).

    Parameters
    ----------
    here : the solution at the estimate, or at a theta near it
    """
    if rows.given:
        return given_residuals(fit, here, rows)
    problem = here.problem
    out = np.zeros(len(rows.X))
    if rows.errors is not None:
        out += rows.errors.variances(here)
    if not len(out):
        return out
    left = of_orthonormal(fit, rows.X)
    parts: list[_Spherical] = []
    starts = np.cumsum([0, *(block.q for block in problem.blocks)])
    V = [
        block.at_levels(part)
        for block, part in zip(
            problem.blocks, split_blocks(here.V[:, :-1], problem.blocks), strict=True
        )
    ]
    for part in rows.parts:
        C, T = problem.Z_scales[part.block], here.T[part.block]
        values = part.design @ np.linalg.solve(C, T)
        new = part.codes < 0
        out[new] += np.einsum("ik,ik->i", values[new], values[new])
        values[new] = 0.0
        codes = np.where(new, 0, part.codes)
        for c in range(values.shape[1]):
            left = left - values[:, [c]] * V[part.block][codes, c]
        if np.any(values):
            start = int(starts[part.block])
            parts.append(
                _Spherical(block=part.block, start=start, codes=codes, values=values)
            )
    half = left @ here.R_inverse
    out += np.einsum("ij,ij->i", half, half)
    if rows.in_sample and parts:
        weights = fit.design.weights
        quadratics = here.factor.row_quadratics()
        return out + (quadratics if weights is None else quadratics / weights)
    _add_quadratics(here, parts, out)
    return out


def of_orthonormal(fit: Fit, X: Matrix) -> Matrix:
    """Return rows (r, p) in the columns of Q, X = Q R, which is what is solved for."""
    if not X.shape[1]:
        return X
    R = fit.design.fixed.R
    return solve_triangular(R, X.T, trans="T", check_finite=False).T


def given_residuals(fit: Fit, here: Evaluation, rows: PredictedRows) -> Vector:
    """Return `error_variances` of rows whose residuals are predicted as well.

    With k the covariances over sigma^2 of a residual with those of the fit, it is
    k'R^-1 e plus a part that is independent of everything, of variance c - k'R^-1k.
    Since e = y - X beta - Zb and y is known, the error is that of (x - X'R^-1k, z -
    Z'R^-1k) in the mixed model equations, and of that part.
    """
    errors, problem, whitened = rows.errors, here.problem, here.problem.rows
    assert errors is not None, "observations are predicted"
    assert whitened is not None, "there is a residual structure"
    out = errors.variances(here)
    left = of_orthonormal(fit, rows.X)
    starts = np.cumsum([0, *(block.q for block in problem.blocks)])
    for some in errors.chunks():
        k = errors.whitened(here, some)
        rest, least = out[some] - np.einsum("nr,nr->r", k, k), 1e-12 * out[some]
        Z = np.zeros((problem.equations.q, k.shape[1]))
        for part in rows.parts:
            C, T = problem.Z_scales[part.block], here.T[part.block]
            design, codes = part.design[some], part.codes[some]
            new, values = codes < 0, np.linalg.solve(C.T, design.T).T
            prior = values[new] @ T
            rest[new] += np.einsum("ik,ik->i", prior, prior)
            block, own = problem.blocks[part.block], np.flatnonzero(~new)
            at = np.zeros((block.n_levels, block.k, len(codes)))
            at[codes[own], :, own] = values[own]
            start = starts[part.block]
            Z[start : start + block.q] = block.at_factors(at).reshape(block.q, -1)
        Z -= whitened.Zt_dot(problem.equations, k)
        u = problem.equations.Lambda_dot(here.T, Z, transpose=True)
        half = (left[some] - k.T @ whitened.X - u.T @ here.V[:, :-1]) @ here.R_inverse
        rest += np.einsum("ij,ij->i", half, half)
        rest += np.einsum("qr,qr->r", u, here.factor.solve(u))
        # An observed residual leaves nothing but rounding.
        out[some] = np.where(np.abs(rest) > least, rest, 0.0)
    return out


def _add_quadratics(here: Evaluation, parts: list[_Spherical], out: Vector) -> None:
    """Add the diagonal of Z Lambda M^-1 Lambda'Z' of the rows to out (r,)."""
    if not parts:
        return
    stacks = here.factor.inverse_blocks()
    for part in parts:
        within = stacks[part.block][part.codes]
        out += np.einsum("ia,iab,ib->i", part.values, within, part.values)
    by_size = sorted(parts, key=lambda part: part.n_columns)
    for j, part in enumerate(by_size[:-1]):
        _add_products(here, part, by_size[j + 1 :], out)


def _add_products(
    here: Evaluation, part: _Spherical, others: list[_Spherical], out: Vector
) -> None:
    """Add twice the entries of the quadratics between one term and others to out."""
    k = part.values.shape[1]
    q = here.problem.equations.q
    blocks = here.problem.blocks
    own = blocks[part.block]
    at_once = max(1, min(CHUNK, CHUNK_NUMBERS // q) // k)
    order = np.argsort(part.codes, kind="stable")
    levels, firsts = np.unique(part.codes[order], return_index=True)
    ends = np.append(firsts, len(order))
    for first in range(0, len(levels), at_once):
        some = levels[first : first + at_once]
        rows = order[ends[first] : ends[first + len(some)]]
        units = np.zeros((q, len(some) * k))
        of_levels = np.zeros((own.n_levels, k, len(some), k))
        of_levels[
            some[:, None], np.arange(k), np.arange(len(some))[:, None], np.arange(k)
        ] = 1.0
        units[part.start : part.start + own.q] = own.at_factors(of_levels).reshape(
            own.q, -1
        )
        inverse = here.factor.solve(units)
        places = np.searchsorted(some, part.codes[rows]) * k
        total = np.zeros(len(rows))
        for other in others:
            block = blocks[other.block]
            solved = inverse[other.start : other.start + block.q]
            solved = block.at_levels(solved.reshape(block.m, block.k, -1))
            for a in range(k):
                for b in range(block.k):
                    weights = part.values[rows, a] * other.values[rows, b]
                    total += weights * solved[other.codes[rows], b, places + a]
        out[rows] += 2.0 * total


def error_ddf(
    fit: Fit, rows: PredictedRows, variances: Vector, V_phi: Matrix
) -> Vector:
    """Return Satterthwaite's df of each row's prediction error, (r,).

    df = 2 v^2 / (g'V_phi g), v the variance and g its derivatives by phi = (interior
    theta, sigma): as for contrasts of beta (Giesbrecht and Burns 1985, Biometrics 41,
    477), with the variance of the error in the place of that of the estimate, and the
    same where no random effects are predicted. Central differences of all rows at
    once: two factorisations for each theta.

    Parameters
    ----------
    variances : (r,) `error_variances` at the estimate
    V_phi : (t + 1, t + 1) of `variance_model`, sigma in units of its estimate

    Returns
    -------
    df, NaN where the variance is zero
    """
    problem = fit.evaluation.problem
    free = np.flatnonzero(fit.interior)
    slopes = np.empty((len(free) + 1, len(variances)))
    slopes[-1] = 2.0 * variances
    for slope, k in zip(slopes, free, strict=False):
        step = STEP * max(0.1, abs(float(fit.scaled_theta[k])))
        sides: list[Vector] = []
        for sign in (1.0, -1.0):
            theta = fit.scaled_theta.copy()
            theta[k] += sign * step
            sides.append(error_variances(fit, evaluate(problem, theta), rows))
        slope[:] = (sides[0] - sides[1]) / (2.0 * step)
    of_variance = np.einsum("tr,ts,sr->r", slopes, V_phi, slopes, optimize=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        ddf = 2.0 * variances**2 / of_variance
    return np.where(variances > 0.0, ddf, np.nan)
