"""How much of the variance a model explains: R^2 and intraclass correlations.

    R2 marginal     = v_f / (v_f + v_r + v_e)
    R2 conditional  = (v_f + v_r) / (v_f + v_r + v_e)
    ICC adjusted    = v_r / (v_r + v_e)
    ICC unadjusted  = v_r / (v_f + v_r + v_e)

v_f the variance of X beta over the rows, v_r the mean over the rows of z'Sigma z,
summed over the random terms, v_e the mean over the rows of the residual variance
sigma^2 / w, of a residual structure its diagonal
(Nakagawa and Schielzeth 2013, Methods Ecol. Evol. 4, 133; Johnson 2014, Methods Ecol.
Evol. 5, 944, for random slopes; Nakagawa, Johnson and Schielzeth 2017, J. R. Soc.
Interface 14, 20170213, for the intraclass correlations). The offset is no effect: it is
subtracted from the response and counts nowhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from mixform.errors import InferenceError
from mixform.estimate import Fit
from mixform.inference.diagnostics.residuals import random_variances, residual_variances
from mixform.inference.least_squares import least_squares


@dataclass(frozen=True, slots=True, kw_only=True)
class R2:
    """Share of the variance that is explained.

    Attributes
    ----------
    marginal : by the fixed effects; conditional : by fixed and random effects
    fixed, random, residual : the variances behind them, units of y^2; NaN for a model
        without random effects, whose R^2 is that of least squares
    adjusted : R^2 of least squares adjusted for its degrees of freedom; NaN with
        random effects or a residual structure
    """

    marginal: float
    conditional: float
    fixed: float
    random: float
    residual: float
    adjusted: float = np.nan

    def __str__(self) -> str:
        if not np.isnan(self.adjusted):
            return f"R2 {self.marginal:.4f}, adjusted {self.adjusted:.4f}"
        return f"R2 marginal {self.marginal:.4f}, R2 conditional {self.conditional:.4f}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ICC:
    """Intraclass correlations.

    Attributes
    ----------
    adjusted : of the random effects to what the fixed effects leave
    unadjusted : of the random effects to all
    by_group : ``adjusted, unadjusted`` for each grouping factor; they add up
    """

    adjusted: float
    unadjusted: float
    by_group: pd.DataFrame

    def __str__(self) -> str:
        head = f"ICC adjusted {self.adjusted:.4f}, unadjusted {self.unadjusted:.4f}"
        if len(self.by_group) < 2:
            return head
        return f"{head}\n{self.by_group.to_string(float_format='{:.4f}'.format)}"

    __repr__ = __str__


def r2(fit: Fit) -> R2:
    """Return the marginal and the conditional R^2.

    Without random effects both are the coefficient of determination of (weighted)
    least squares, about the mean if the fixed effects can express a constant, else
    about zero. With a residual structure the residual variance is averaged over the
    rows; correlations of residuals count nowhere.
    """
    plain = least_squares(fit)
    if plain is not None:
        return R2(
            marginal=plain.rsquared,
            conditional=plain.rsquared,
            fixed=np.nan,
            random=np.nan,
            residual=np.nan,
            adjusted=plain.rsquared_adj,
        )
    fixed, residual = _fixed(fit), _residual(fit)
    random = float(sum(_by_factor(fit).values()))
    total = fixed + random + residual
    return R2(
        marginal=fixed / total,
        conditional=(fixed + random) / total,
        fixed=fixed,
        random=random,
        residual=residual,
    )


def icc(fit: Fit) -> ICC:
    """Return the intraclass correlations, overall and by grouping factor.

    Raises
    ------
    InferenceError : the model has no random effects
    """
    if not fit.design.blocks:
        raise InferenceError(
            "Intraclass correlations need a random effect; the model has none.",
            hint="Add one, e.g. (1 | subject).",
        )
    variances = pd.Series(_by_factor(fit))
    random, residual, fixed = float(variances.sum()), _residual(fit), _fixed(fit)
    without, total = random + residual, fixed + random + residual
    return ICC(
        adjusted=random / without,
        unadjusted=random / total,
        by_group=pd.DataFrame(
            {"adjusted": variances / without, "unadjusted": variances / total}
        ),
    )


def _fixed(fit: Fit) -> float:
    return float(np.var(fit.design.fixed.X @ fit.beta, ddof=1))


def _residual(fit: Fit) -> float:
    return float(np.mean(residual_variances(fit)))


def _by_factor(fit: Fit) -> dict[str, float]:
    out: dict[str, float] = {}
    for block, variances in zip(fit.design.blocks, random_variances(fit), strict=True):
        label = block.term.group_label
        out[label] = out.get(label, 0.0) + float(np.mean(variances))
    return out
