"""The posterior of parameters, random effects and predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Literal

import pandas as pd

from mixform.call import Call
from mixform.design import Design
from mixform.estimate.bayes.posterior import Posterior
from mixform.inference.posterior import estimates, functions, prediction, simulation
from mixform.inference.posterior.draws import at_means
from mixform.inference.posterior.functions import PosteriorFunction
from mixform.inference.prediction import fitted
from mixform.inference.random_effects import coef

#: Credible limits: equal tails, or the shortest interval.
Limits = Literal["eti", "hdi"]


class BayesEstimates:
    """The first part of `BayesResult`: parameters, random effects, predictions."""

    def __init__(self, posterior: Posterior, call: Call | None = None) -> None:
        self._posterior = posterior
        self._call = call

    # The parameters.

    @property
    def params(self) -> pd.Series:
        """Posterior means of the fixed effects, (c,), by name; NaN if aliased."""
        return self._coefficients["estimate"].rename(None)

    @property
    def bse(self) -> pd.Series:
        """Posterior standard deviations of the fixed effects."""
        return self._coefficients["se"].rename(None)

    def cov_params(self) -> pd.DataFrame:
        """Return the posterior covariance of the fixed effects, (c, c)."""
        return estimates.coefficient_covariance(self._posterior)

    def variance_parameters(
        self, level: float = 0.95, method: Limits = "eti"
    ) -> pd.DataFrame:
        """Return standard deviations and correlations: ``estimate, se, lower, upper``.

        By name: ``sd(g: x)``, ``cor(g: x, z)``, ``sigma``.
        """
        return estimates.variance_parameters(self._posterior, level, method)

    @property
    def varcorr(self) -> pd.DataFrame:
        """Variance components ``grp, var1, var2, vcov, sdcor``: means of each column.

        vcov is the posterior mean of the (co)variance, sdcor that of the standard
        deviation or correlation.
        """
        return estimates.varcorr(self._posterior)

    @property
    def sigma(self) -> float:
        """Posterior mean of the residual standard deviation."""
        return float(self._posterior.sigma.mean())

    def conf_int(
        self,
        level: float = 0.95,
        method: Limits = "eti",
        *,
        parameters: str | Sequence[str] | None = None,
    ) -> pd.DataFrame:
        """Return credible limits of fixed effects, SDs and correlations.

        Parameters
        ----------
        level : in (0, 1)
        method : "eti", equal tails, or "hdi", the shortest interval
        parameters : which of them, by name; None for all
        """
        return estimates.conf_int(self._posterior, level, method, parameters)

    # The random effects.

    def ranef(self, level: float = 0.95, method: Limits = "eti") -> pd.DataFrame:
        """Return random effects: ``grp, term, level, estimate, se, lower, upper``."""
        return estimates.ranef(self._posterior, level, method)

    def coef(self) -> dict[str, pd.DataFrame]:
        """Return fixed plus random coefficients of each level, by grouping factor."""
        return coef(at_means(self._posterior))

    def caterpillar(
        self, term: str | Sequence[str] | None = None, level: float = 0.95
    ) -> pd.DataFrame:
        """Return random effects in order with limits, as a caterpillar plot needs."""
        return estimates.caterpillar(self._posterior, term, level)

    # Fitted values, predictions.

    @property
    def fittedvalues(self) -> pd.Series:
        """Posterior mean of X beta + Z b + offset for the rows in the model."""
        design = self.design
        values = fitted(at_means(self._posterior), range(len(design.blocks)))
        return pd.Series(values, index=design.row_index)

    @property
    def resid(self) -> pd.Series:
        """Response minus `fittedvalues`."""
        values = self.fittedvalues
        return pd.Series(self.design.y, index=values.index) - values

    def predict(
        self,
        newdata: object = None,
        *,
        random: bool | str | Sequence[str] = True,
        new_levels: Literal["raise", "population", "nan"] = "raise",
        se: bool = False,
        interval: Literal["confidence", "prediction"] | None = None,
        level: float = 0.95,
        method: Limits = "eti",
        draws: bool = False,
        seed: object = 0,
    ) -> pd.Series | pd.DataFrame:
        """Predict the response.

        Parameters
        ----------
        newdata, random, interval : as of `Result.predict`
        new_levels : "raise", or "population": levels that the fit has not seen have
            effects with mean zero, drawn from their distribution at each draw; or "nan"
        se : add posterior standard deviations
        level, method : of the limits
        draws : return the draws (E, n): of the linear predictor, or with interval
            "prediction" of new observations
        seed : of effects of new levels and of residuals that are drawn

        Returns
        -------
        Series of posterior means with the index of newdata; with se or interval a
        frame ``estimate, se``, and ``lower, upper``; with draws a frame with a row for
        each draw
        """
        if draws:
            return prediction.predict_draws(
                self._posterior,
                newdata,
                random=random,
                new_levels=new_levels,
                interval=interval,
                seed=seed,
            )
        if not se and interval is None:
            return prediction.predict(
                self._posterior, newdata, random=random, new_levels=new_levels
            )
        return prediction.predict_frame(
            self._posterior,
            newdata,
            random=random,
            new_levels=new_levels,
            interval=interval,
            level=level,
            method=method,
            seed=seed,
        )

    def simulate(
        self,
        nsim: int = 1,
        *,
        seed: object = None,
        newdata: object = None,
        use_u: bool | str | Sequence[str] = False,
    ) -> pd.DataFrame:
        """Draw data sets from the posterior predictive distribution, (n, nsim).

        Parameters
        ----------
        nsim : number of data sets, each with the parameters of another draw
        newdata : rows to draw for, None for those of the fit
        use_u : True keeps the random effects of the draw, False draws new ones; names
            of terms keep those
        """
        return simulation.simulate(
            self._posterior, nsim, seed=seed, newdata=newdata, use_u=use_u
        )

    # Functions of the variances.

    def vcfun(
        self,
        expression: str | Mapping[str, str],
        *,
        level: float = 0.95,
        method: Limits = "eti",
    ) -> PosteriorFunction | pd.DataFrame:
        """Evaluate a function of the variance components at each draw.

        Parameters
        ----------
        expression : as of `Result.vcfun`, ``"animal / total()"``; a mapping from names
            to expressions gives a frame
        """
        if isinstance(expression, Mapping):
            return functions.vcfuns(
                self._posterior, expression, level=level, method=method
            )
        return functions.vcfun(self._posterior, expression, level=level, method=method)

    def r2(self, level: float = 0.95, method: Limits = "eti") -> pd.DataFrame:
        """Return the marginal and conditional R^2 of Nakagawa and Schielzeth."""
        return functions.r2(self._posterior, level=level, method=method)

    def icc(self, level: float = 0.95, method: Limits = "eti") -> pd.DataFrame:
        """Return the intraclass correlations, in all and by grouping factor."""
        return functions.icc(self._posterior, level=level, method=method)

    @property
    def design(self) -> Design:
        """The data in the model: `design.X` (frame), `design.Z` (sparse), terms."""
        return self._posterior.fit.design

    @cached_property
    def _coefficients(self) -> pd.DataFrame:
        return estimates.coefficients(self._posterior)
