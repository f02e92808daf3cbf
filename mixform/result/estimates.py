"""What users hold: a facade over the Fit, each method one delegating line."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Literal

import numpy as np
import pandas as pd

from mixform._typing import Vector
from mixform.design import Design
from mixform.estimate import Convergence, Fit
from mixform.inference import likelihood, random_effects
from mixform.inference.anova import anova
from mixform.inference.approximation import Approximation, approximate
from mixform.inference.contrast_tests import HypothesisTest, joint_test, t_tests
from mixform.inference.estimability import read_contrast, require_estimable
from mixform.inference.intervals import symmetric_interval
from mixform.inference.leverage import leverage
from mixform.inference.prediction import fitted, predict
from mixform.inference.variance_components import varcorr
from mixform.report import AnovaTable, Summary, anova_table, fit_notes, summarize


class Result:
    """A fitted linear mixed model.

    Printing it shows lmerTest's summary. Coefficients carry formulaic's names; columns
    of X that are combinations of others are there with NaN. Everything that takes work
    is done when it is first asked for, and once.
    """

    def __init__(self, fit: Fit) -> None:
        self._fit = fit
        self._approximations: dict[str, Approximation] = {}

    # The estimates.

    @property
    def params(self) -> pd.Series:
        """Estimated fixed effects, (c,), by coefficient name; NaN if aliased."""
        return self._coefficients["estimate"].rename(None)

    @property
    def bse(self) -> pd.Series:
        """Standard errors of the fixed effects."""
        return self._coefficients["se"].rename(None)

    @property
    def ddf(self) -> pd.Series:
        """Satterthwaite degrees of freedom of the fixed effects."""
        return self._coefficients["df"].rename(None)

    @property
    def tvalues(self) -> pd.Series:
        """T statistics of the fixed effects."""
        return self._coefficients["t_value"].rename(None)

    @property
    def pvalues(self) -> pd.Series:
        """Two-sided p values of the fixed effects."""
        return self._coefficients["p_value"].rename(None)

    def cov_params(self) -> pd.DataFrame:
        """Return the covariance of the fixed effects, (c, c); NaN if aliased."""
        fixed = self._fit.design.fixed
        full = np.full((len(fixed.names), len(fixed.names)), np.nan)
        full[np.ix_(fixed.kept, fixed.kept)] = self._fit.V_beta
        return pd.DataFrame(full, index=fixed.names, columns=fixed.names)

    def conf_int(
        self,
        level: float = 0.95,
        method: Literal["satterthwaite", "wald"] = "satterthwaite",
    ) -> pd.DataFrame:
        """Return confidence intervals of the fixed effects.

        Parameters
        ----------
        level : confidence level in (0, 1)
        method : "satterthwaite" (t quantiles) or "wald" (normal quantiles)

        Returns
        -------
        frame : ``lower, upper`` by coefficient name
        """
        table = self._coefficients
        limits = symmetric_interval(
            table["estimate"].to_numpy(),
            table["se"].to_numpy(),
            table["df"].to_numpy(),
            level=level,
            method=method,
        )
        return pd.DataFrame(limits, index=table.index, columns=["lower", "upper"])

    @property
    def varcorr(self) -> pd.DataFrame:
        """Variance components: ``grp, var1, var2, vcov, sdcor``, as lme4's."""
        return varcorr(self._fit)

    @property
    def sigma(self) -> float:
        """Residual standard deviation."""
        return self._fit.sigma

    @property
    def theta(self) -> Vector:
        """Relative covariance factors, (t,): by term as written, each as lme4's."""
        return self._fit.theta.copy()

    # The random effects.

    def ranef(self) -> pd.DataFrame:
        """Return predicted random effects: ``grp, term, level, estimate, se``.

        se is the standard deviation given beta and the variances (lme4's condVar).
        """
        return random_effects.ranef(self._fit)

    def coef(self) -> dict[str, pd.DataFrame]:
        """Return fixed plus random coefficients of each level, by grouping factor."""
        return random_effects.coef(self._fit)

    # The likelihood.

    @property
    def llf(self) -> float:
        """Log-likelihood that was maximized: restricted under REML."""
        return self._fit.loglik

    @property
    def criterion(self) -> float:
        """The criterion that was minimized: -2 times `llf`, constants included."""
        return self._fit.criterion

    @property
    def deviance(self) -> float:
        """-2 log-likelihood (ML) at the estimates."""
        return likelihood.deviance(self._fit)

    @property
    def aic(self) -> float:
        """`criterion` + 2 `npar`."""
        return likelihood.aic(self._fit)

    @property
    def bic(self) -> float:
        """`criterion` + log(`nobs`) `npar`."""
        return likelihood.bic(self._fit)

    @property
    def nobs(self) -> int:
        """Number of rows in the model."""
        return self._fit.n

    @property
    def npar(self) -> int:
        """Number of parameters: fixed effects, theta, sigma."""
        return self._fit.n_parameters

    @property
    def method(self) -> str:
        """The criterion that was minimized, REML or ML."""
        return self._fit.method

    # Fitted values.

    @property
    def fittedvalues(self) -> pd.Series:
        """X beta + Z b + offset for the rows in the model, with their index."""
        design = self._fit.design
        every = range(len(design.blocks))
        return pd.Series(fitted(self._fit, every), index=design.row_index)

    @property
    def resid(self) -> pd.Series:
        """Response minus `fittedvalues`."""
        fitted_values = self.fittedvalues
        return pd.Series(self._fit.design.y, index=fitted_values.index) - fitted_values

    def leverage(self) -> pd.Series:
        """Return how much each observation determines its own fitted value, (n,)."""
        return pd.Series(leverage(self._fit), index=self._fit.design.row_index)

    def predict(
        self,
        newdata: object = None,
        *,
        random: bool | str | Sequence[str] = True,
        new_levels: Literal["raise", "population", "nan"] = "raise",
    ) -> pd.Series:
        """Predict the response.

        Parameters
        ----------
        newdata : a table with the model's columns, or a path to one; None predicts
            the rows in the model
        random : True uses all random effects, False none (the population mean), names
            of grouping factors or terms use those
        new_levels : for levels of a grouping factor that the fit has not seen:
            "raise" an error, predict with their expectation zero ("population"),
            or "nan"

        Returns
        -------
        Series with the index of newdata; NaN where a needed value is missing
        """
        return predict(self._fit, newdata, random=random, new_levels=new_levels)

    # Tests.

    def anova(self, type: int | str = 3, ddf: str = "satterthwaite") -> AnovaTable:
        """Test each fixed term.

        Parameters
        ----------
        type : 1 (sequential), 2 or 3 (as SAS defines them)
        ddf : method for the denominator degrees of freedom

        Returns
        -------
        frame by term: ``sum_sq, mean_sq, num_df, den_df, f_value, p_value``
        """
        return anova_table(*anova(self._fit, self._approximation(ddf), kind=type))

    def test(
        self, L: object, rhs: object = 0, *, ddf: str = "satterthwaite"
    ) -> HypothesisTest:
        """Test L beta = rhs for an estimable L.

        Parameters
        ----------
        L : matrix (r, c) over the coefficients; a mapping from coefficient names to
            numbers, or from labels to such mappings; or a string of equations,
            ``"trt[T.b] - trt[T.c] = 0"``, joined by commas
        rhs : value, or r values

        Raises
        ------
        InferenceError : L is not estimable; the aliased columns are named
        """
        fixed = self._fit.design.fixed
        matrix, right, labels = read_contrast(L, rhs, fixed.names)
        kept = require_estimable(matrix, fixed)
        return joint_test(kept, right, labels, self._fit, self._approximation(ddf))

    # The search.

    @property
    def convergence(self) -> Convergence:
        """The certificate of the optimum."""
        return self._fit.convergence

    @property
    def converged(self) -> bool:
        """Whether the optimum is certified."""
        return self._fit.convergence.converged

    @property
    def singular(self) -> bool:
        """Whether the covariance of a random term is singular."""
        return bool(self._fit.singular_terms)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know besides the numbers."""
        return tuple(fit_notes(self._fit))

    @property
    def design(self) -> Design:
        """The data in the model: `design.X` (frame), `design.Z` (sparse), terms."""
        return self._fit.design

    @property
    def formula(self) -> str:
        """The formula as written."""
        return self._fit.design.formula.source

    # The printout.

    def summary(self, *, correlation: bool = False) -> Summary:
        """Return the printed model, with text, HTML and LaTeX forms.

        Parameters
        ----------
        correlation : add the correlation of the fixed effects
        """
        return summarize(
            self._fit,
            self._coefficients,
            correlation=correlation,
            ddf_note=self._approximation("satterthwaite").note,
        )

    def __str__(self) -> str:
        return self.summary().as_text()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.summary().as_html()

    def _approximation(self, ddf: str) -> Approximation:
        if ddf not in self._approximations:
            self._approximations[ddf] = approximate(self._fit, ddf)
        return self._approximations[ddf]

    @cached_property
    def _coefficients(self) -> pd.DataFrame:
        fixed = self._fit.design.fixed
        p = len(fixed.kept)
        approximation = self._approximation("satterthwaite")
        table = t_tests(np.eye(p), np.zeros(p), self._fit, approximation)
        table.index = pd.Index([fixed.names[j] for j in fixed.kept])
        return table.reindex(pd.Index(fixed.names)) if fixed.aliased else table
