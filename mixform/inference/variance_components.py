"""Variance components in the user's units, as lme4's VarCorr table."""

from __future__ import annotations

import numpy as np
import pandas as pd

from mixform._typing import Matrix
from mixform.design import random
from mixform.estimate import Fit


def block_labels(fit: Fit) -> tuple[str, ...]:
    """Return a unique label for each random term: its group, numbered if repeated."""
    return random.block_labels(fit.design.blocks)


def covariances(fit: Fit) -> tuple[Matrix, ...]:
    """Return Var(b_level) of each block, (k, k), units of y^2 over the covariates'."""
    return tuple(fit.sigma**2 * T @ T.T for T in fit.T)


def estimates(fit: Fit) -> tuple[Matrix, ...]:
    """Return `covariances`, or where variances come from mean squares what they are.

    Those may be negative; effects and their covariance then take zero.
    """
    if fit.anova is None:
        return covariances(fit)
    return tuple(np.full((1, 1), value) for value in fit.anova.components[:-1])


def varcorr(fit: Fit) -> pd.DataFrame:
    """Return the variance components.

    Returns
    -------
    frame : ``grp, var1, var2, vcov, sdcor``; for each term its variances, then its
        covariances (lower triangle by columns), at last the residual variance. sdcor
        is a standard deviation (NaN of a negative estimate), or for a covariance the
        correlation (NaN if one of the variances is zero).
    """
    rows: list[tuple[str, str | None, str | None, float, float]] = []
    for label, block, Sigma in zip(
        block_labels(fit), fit.design.blocks, estimates(fit), strict=True
    ):
        with np.errstate(invalid="ignore"):  # of a negative estimate there is none
            sd = np.sqrt(np.diag(Sigma))
        for c, name in enumerate(block.columns):
            rows.append((label, name, None, float(Sigma[c, c]), float(sd[c])))
        if block.term.structure == "diag":
            continue
        for c in range(block.k):
            for r in range(c + 1, block.k):
                scale = sd[r] * sd[c]
                correlation = Sigma[r, c] / scale if scale > 0.0 else np.nan
                names = (block.columns[c], block.columns[r])
                rows.append((label, *names, float(Sigma[r, c]), float(correlation)))
    rows.append(("Residual", None, None, fit.sigma**2, fit.sigma))
    return pd.DataFrame(rows, columns=["grp", "var1", "var2", "vcov", "sdcor"])
