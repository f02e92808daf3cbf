"""Residuals of the rows, marginal and conditional, raw or divided by a standard error.

    marginal     r_m = y - offset - X beta
    conditional  r_c = r_m - Z b

With the variance parameters taken as known (Gregoire, Schabenberger and Barrett 1995,
J. Stat. Comput. Simul. 53, 137; SAS/STAT User's Guide, PROC MIXED, "Residuals and
Influence Diagnostics")::

    Var(r_m) = V - X (X'V^-1X)^-1 X'      Var(r_c) = R P R

and, because R P is the identity minus the matrix that maps y to the fitted values,
Var(r_c,i) = sigma^2 (1 - h_i) / w_i with the leverage h_i. Diagonals only: no n x n
matrix is formed.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from mixform._typing import Vector
from mixform.errors import InferenceError, suggest
from mixform.estimate import Fit
from mixform.estimate.known import require_free
from mixform.inference.leverage import leverage
from mixform.inference.prediction import fitted, scaled_residuals

KINDS = ("response", "pearson", "scaled", "studentized", "deleted")
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
        "pearson": the standard deviation of the response, given b (sigma / sqrt(w)) or
        not (the root of diag V);
        "scaled": sigma / sqrt(w), as lme4's ``residuals(scaled = TRUE)``; at the
        conditional level the same as "pearson";
        "studentized": their own standard error;
        "deleted": conditional residuals by a standard error whose sigma comes from the
        other rows, the random effects' relative variances held (R's ``rstudent`` in a
        model without them)
    level : "conditional" (y - X beta - Z b) or "marginal" (y - X beta), offset
        subtracted

    Returns
    -------
    Series; NaN where a residual is zero by construction and has no standard error

    Raises
    ------
    InferenceError : unknown kind or level; "deleted" at the marginal level
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
    """Return the diagonal (n,) of V, units of y^2: sum_j z'Sigma_j z + sigma^2 / w."""
    weights = fit.design.weights
    out = np.full(fit.n, fit.sigma**2)
    if weights is not None:
        out /= weights
    return out + sum(random_variances(fit))


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
    Technometrics 19, 15, is the case without random effects). The distance in the
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
    h = leverage(fit)
    rest = _share(h)
    values = scaled_residuals(fit) ** 2 * h / (rest**2 * p)
    return pd.Series(values, index=fit.design.row_index)


def _share(h: Vector) -> Vector:
    """Return 1 - h, NaN where nothing is left."""
    rest = 1.0 - h
    return np.where(rest > LEAST_SHARE, rest, np.nan)


def _conditional(fit: Fit, kind: str) -> Vector:
    if kind == "response":
        return fit.design.y - fitted(fit, range(len(fit.design.blocks)))
    scaled = scaled_residuals(fit)
    if kind in ("pearson", "scaled"):
        return scaled
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


def _marginal(fit: Fit, kind: str) -> Vector:
    if kind == "deleted":
        raise InferenceError(
            "Deleted residuals are conditional ones.",
            hint='Use level="conditional", or kind="studentized".',
        )
    design = fit.design
    values = design.y - fitted(fit, [])
    if kind == "response":
        return values
    weights = np.ones(fit.n) if design.weights is None else design.weights
    if kind == "scaled":
        return values * np.sqrt(weights) / fit.sigma
    variance = marginal_variances(fit)
    if kind == "studentized":
        half = design.fixed.Q @ fit.evaluation.R_inverse
        own = variance - fit.sigma**2 / weights * np.einsum("ij,ij->i", half, half)
        variance = np.where(own > LEAST_SHARE * variance, own, np.nan)
    return values / np.sqrt(variance)
