"""Linear functions of the fixed effects at each draw: means, slopes, contrasts.

L comes from the marginal means of any fit; with the posterior mean and covariance of
beta in the place of the estimates, their values are posterior means and standard
deviations exactly. Limits and probabilities are of the draws L beta + offset.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from mixform._typing import Matrix, Vector
from mixform.errors import InferenceError
from mixform.estimate.bayes.posterior import Posterior
from mixform.inference.approximation import Asymptotic
from mixform.inference.estimability import read_contrast, require_estimable
from mixform.inference.intervals import require_level
from mixform.inference.means import mean_contrasts, means, slopes
from mixform.inference.means.linear_estimates import LinearEstimates, opening_notes
from mixform.inference.means.means import MeansOptions
from mixform.inference.posterior.draws import (
    at_means,
    covariance_of,
    credible_limits,
    deviations,
    summarized,
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PosteriorEstimates:
    """L beta + offset at each draw, one for each row of L.

    Attributes
    ----------
    estimates : L, labels and what else describes the rows; posterior mean and SD
    beta : (E, p) draws of the fixed effects
    method : of credible limits
    """

    estimates: LinearEstimates
    beta: Matrix
    method: str

    def draws(self, *, shown: bool = True) -> Matrix:
        """Return the draws (E, r); NaN for rows that are not estimable.

        Parameters
        ----------
        shown : on the scale of the table, else on that of the model
        """
        e = self.estimates
        known = np.isfinite(e.estimate)
        L = e.L[known][:, e.fit.design.fixed.kept]
        out = np.full((len(self.beta), len(e.L)), np.nan)
        out[:, known] = self.beta @ L.T + e.offset[known]
        if not shown or e.scale is None or not e.on_data_scale:
            return out
        return e.scale.ratios(out) if e.ratios else e.scale.limits(out)

    def frame(
        self,
        *,
        limits: bool,
        direction: bool,
        null: float = 0.0,
        level: float | None = None,
        method: str | None = None,
    ) -> tuple[pd.DataFrame, tuple[str, ...]]:
        """Return a table of the estimates and notes on how it was made.

        Parameters
        ----------
        limits : add ``lower, upper``
        direction : add ``pd``, the probability of direction: the larger of those that
            the row is above and below ``null`` (Makowski et al. 2019, Front. Psychol.
            10, 2767)
        null : on the scale of the model
        level, method : instead of those of the estimates

        Raises
        ------
        InferenceError : null is no finite number; as `credible_limits`
        """
        e = self.estimates
        level = e.level if level is None else level
        method = self.method if method is None else method
        if not np.isfinite(null):
            raise InferenceError(f"The null value is {null}, not a finite number.")
        values, table = self.draws(), e.labels.copy()
        table[e.shown_as] = values.mean(axis=0) if e.on_data_scale else e.estimate
        table["se"] = deviations(values) if e.on_data_scale else e.se
        notes: list[str] = []
        if limits:
            table["lower"], table["upper"] = credible_limits(values, level, method)
            kind = "equal tails" if method == "eti" else "highest density"
            notes.append(f"Credible limits of level {level:g} ({kind})")
        if direction:
            above = probability_above(self.draws(shown=False), null)
            table["pd"] = np.maximum(above, 1.0 - above)
            notes.append(
                f"pd: probability of direction, of being on one side of {null:g}"
            )
        return table, (*opening_notes(e, notes), *e.notes)


def probability_above(values: Matrix, null: float | Vector) -> Vector:
    """Return P(value > null), (c,), of draws (S, c); draws at null count half."""
    share = np.mean((values > null) + 0.5 * (values == null), axis=0)
    return np.where(np.isnan(values).any(axis=0), np.nan, share)


def emmeans(
    posterior: Posterior,
    specs: object,
    *,
    by: object = None,
    options: MeansOptions | None = None,
    method: str = "eti",
) -> PosteriorEstimates:
    """Return marginal means at each draw; arguments as of `means.emmeans`."""
    found = means.emmeans(
        at_means(posterior), _judged(posterior), specs, by=by, options=options
    )
    return PosteriorEstimates(estimates=found, beta=posterior.beta, method=method)


def marginal_slopes(
    posterior: Posterior,
    x: str,
    *,
    specs: object = None,
    by: object = None,
    options: MeansOptions | None = None,
    method: str = "eti",
) -> PosteriorEstimates:
    """Return the slope of a covariate at each draw; arguments as of `slopes.slopes`."""
    fit, judged = at_means(posterior), _judged(posterior)
    found = slopes.slopes(fit, judged, x, specs=specs, by=by, options=options)
    return PosteriorEstimates(estimates=found, beta=posterior.beta, method=method)


def contrast(
    means_of: PosteriorEstimates,
    contrasts: object,
    *,
    by: object = None,
    ref: object = None,
    level: float | None = None,
) -> PosteriorEstimates:
    """Return contrasts at each draw, within groups; as `mean_contrasts.contrast`."""
    found = mean_contrasts.contrast(
        means_of.estimates, contrasts, adjust="none", by=by, ref=ref, level=level
    )
    return replace(means_of, estimates=found)


def contrast_posterior(
    posterior: Posterior,
    L: object,
    rhs: object = 0,
    *,
    level: float = 0.95,
    method: str = "eti",
) -> pd.DataFrame:
    """Return the posterior of L beta, and on which side of rhs it lies.

    Returns
    -------
    frame by row : ``estimate, se, lower, upper`` of L beta, ``rhs``, ``prob_above`` =
        P(L beta > rhs)

    Raises
    ------
    InferenceError : L cannot be read, or is not estimable
    """
    require_level(level)
    fixed = posterior.fit.design.fixed
    matrix, right, labels = read_contrast(L, rhs, fixed.names)
    values = posterior.beta @ require_estimable(matrix, fixed).T
    table = summarized(values, list(labels), level, method)
    return table.assign(rhs=right, prob_above=probability_above(values, right))


def _judged(posterior: Posterior) -> Asymptotic:
    """Return the posterior covariance in the place of that of estimates."""
    return Asymptotic(V_beta=covariance_of(posterior.beta))
