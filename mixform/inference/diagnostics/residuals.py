"""Residuals of the rows, marginal and conditional, raw or divided by a standard error.

    marginal     r_m = y - offset - X beta
    conditional  r_c = r_m - Z b

With the variance parameters taken as known (Gregoire, Schabenberger and Barrett 1995,
J. Stat. Comput. Simul. 53, 137; SAS/STAT User's Guide, PROC MIXED, "Residuals and
Influence Diagnostics")::

    Var(r_m) = V - X (X'V^-1X)^-1 X'      Var(r_c) = R P R

and, because R P is the identity minus the matrix that maps y to the fitted values,
Var(r_c,i) = sigma^2 (1 - h_i) / w_i with the leverage h_i; with a residual structure it
is sigma^2 (R P R)_ii. Diagonals only: no n x n matrix is formed.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from mixform._typing import Vector
from mixform.errors import InferenceError, suggest
from mixform.estimate import Fit
from mixform.estimate.known import require_free
from mixform.inference.leverage import leverage
from mixform.inference.new_residuals import own_errors
from mixform.inference.prediction import (
    fitted,
    normalized_residuals,
    scaled_residuals,
)
from mixform.inference.row_diagonals import RowDiagonals, row_diagonals

KINDS = ("response", "pearson", "scaled", "normalized", "studentized", "deleted")
LEVELS = ("conditional", "marginal")

#: A residual with less than this share of its row's variance is zero by construction.
LEAST_SHARE = 1e-10


def residuals(
    fit: Fit, kind: str = "response", level: str = "conditional"
) -> pd.Series:
    """Return residuals of the rows in the model, with their index.

    Parameters
    ----------
    kind : what they are divided by.
        "response": nothing;
        "pearson": the standard deviation of the response, given b (sigma / sqrt(w),
        with a residual structure sigma sqrt(R_ii / w)) or not (the root of diag V);
        "scaled": that given b, as lme4's ``residuals(scaled = TRUE)``; at the
        conditional level the same as "pearson";
        "normalized": R^1/2, as nlme's: scaled residuals less what the earlier ones of
        the subject predict; conditional only;
        "studentized": their own standard error;
        "deleted": what is left of the row when all others predict it, by a standard
        error whose sigma comes from them, the relative variances held (R's
        ``rstudent`` in a model without random effects)
    level : "conditional" (y - X beta - Z b) or "marginal" (y - X beta), offset
        subtracted

    Returns
    -------
    Series; NaN where a residual is zero by construction and has no standard error

    Raises
    ------
    InferenceError : unknown kind or level; "deleted" or "normalized" at the marginal
        level
    """
    for value, known, name in ((kind, KINDS, "kind"), (level, LEVELS, "level")):
        if value not in known:
            raise InferenceError(
                f"Unknown {name} of residuals {value!r}.",
                hint=suggest(str(value), known, "Choices"),
            )
    values = _conditional(fit, kind) if level == "conditional" else _marginal(fit, kind)
    return pd.Series(values, index=fit.design.row_index)


def marginal_variances(fit: Fit) -> Vector:
    """Return the diagonal (n,) of V, units of y^2: sum_j z'Sigma_j z + Var(e)."""
    return residual_variances(fit) + sum(random_variances(fit))


def residual_variances(fit: Fit) -> Vector:
    """Return Var(e) of the rows, (n,): sigma^2 / w, times R_ii of a structure."""
    return fit.sigma**2 * own_errors(fit).variances(fit.evaluation)


def random_variances(fit: Fit) -> list[Vector]:
    """Return for each random term the variance of z'b of each row, (n,), units of y^2.

    z'Sigma z, times A_ii of a related level i.
    """
    out: list[Vector] = []
    for block, T in zip(fit.design.blocks, fit.T, strict=True):
        half = block.design @ T
        variance = fit.sigma**2 * np.einsum("ij,ij->i", half, half)
        if block.relation is not None:
            variance *= block.relation.diagonal[block.codes]
        out.append(variance)
    return out


def cooks_distance(fit: Fit) -> pd.Series:
    """Return Cook's distance of each row in the model, as lme4's ``cooks.distance``.

    D_i = r_i^2 h_i / (p (1 - h_i)^2), r the conditional Pearson residual, h the
    leverage in the fitted values, random effects included: how far beta and u move
    together when row i is left out and the variance parameters are held, d'C~ d /
    (p sigma^2) with the matrix C~ of the mixed model equations (Cook 1977,
    Technometrics 19, 15, is the case without random effects). With a residual
    structure that is ((Py)_i / P_ii)^2 (R^-1 - P)_ii / (p sigma^2). The distance in the
    fixed effects alone is that of `influence`.

    Raises
    ------
    InferenceError : there are no fixed effects
    """
    p = len(fit.beta)
    if p == 0:
        raise InferenceError(
            "Cook's distance needs a fixed effect; the model has none."
        )
    if fit.design.residual is not None:
        # Row i left out is a parameter for it alone, estimated as (Py)_i / P_ii.
        of = row_diagonals(fit)
        P = np.where(_outside(of), of.P, np.nan)
        sigma2 = (fit.sigma / fit.evaluation.problem.y_scale) ** 2
        values = (of.Py / P) ** 2 * (of.R_inverse - of.P) / (sigma2 * p)
        return pd.Series(values, index=fit.design.row_index)
    h = leverage(fit)
    rest = _share(h)
    values = scaled_residuals(fit) ** 2 * h / (rest**2 * p)
    return pd.Series(values, index=fit.design.row_index)


def _share(h: Vector) -> Vector:
    """Return 1 - h, NaN where nothing is left."""
    rest = 1.0 - h
    return np.where(rest > LEAST_SHARE, rest, np.nan)


def _outside(of: RowDiagonals) -> np.ndarray:
    """Return which residuals are not zero by construction, (n,)."""
    return of.RPR > LEAST_SHARE * of.R


def _conditional(fit: Fit, kind: str) -> Vector:
    if kind == "response":
        return fit.design.y - fitted(fit, range(len(fit.design.blocks)))
    if kind == "normalized":
        return normalized_residuals(fit)
    scaled = scaled_residuals(fit)
    if kind in ("pearson", "scaled"):
        return scaled
    if fit.design.residual is not None:
        return _structured(fit, kind, scaled)
    rest = _share(leverage(fit))
    if kind == "studentized":
        return scaled / np.sqrt(rest)
    # Without row i, r^2 falls by e_i^2 / (1 - h_i), in a mixed model as in least
    # squares: P without a row is P - P_i P_i' / P_ii.
    require_free(fit, "A deleted residual")
    residual_df = fit.evaluation.problem.residual_df
    with np.errstate(divide="ignore", invalid="ignore"):
        sigma2 = (residual_df - scaled**2 / rest) / (residual_df - 1)
        return scaled / np.sqrt(np.where(sigma2 > 0.0, sigma2, np.nan) * rest)


def _structured(fit: Fit, kind: str, scaled: Vector) -> Vector:
    """Return studentized or deleted residuals under a residual structure."""
    of = row_diagonals(fit)
    outside = _outside(of)
    if kind == "studentized":
        return scaled * np.sqrt(of.R / np.where(outside, of.RPR, np.nan))
    require_free(fit, "A deleted residual")
    here = fit.evaluation
    residual_df = here.problem.residual_df
    alone = of.Py / np.sqrt(np.where(outside, of.P, np.nan))
    with np.errstate(divide="ignore", invalid="ignore"):
        sigma2 = (here.r2 - alone**2) / (residual_df - 1)
        return alone / np.sqrt(np.where(sigma2 > 0.0, sigma2, np.nan))


def _marginal(fit: Fit, kind: str) -> Vector:
    if kind in ("deleted", "normalized"):
        raise InferenceError(
            f"{kind.capitalize()} residuals are conditional ones.",
            hint='Use level="conditional", or kind="studentized".',
        )
    design = fit.design
    values = design.y - fitted(fit, [])
    if kind == "response":
        return values
    if kind == "scaled":
        return values / np.sqrt(residual_variances(fit))
    variance = marginal_variances(fit)
    if kind == "studentized":
        X = design.fixed.X
        own = variance - np.einsum("ij,jk,ik->i", X, fit.V_beta, X)
        variance = np.where(own > LEAST_SHARE * variance, own, np.nan)
    return values / np.sqrt(variance)
