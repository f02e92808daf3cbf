"""What users hold after `lm_list`: a regression of each subject."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd

from mixform.call import Call, warn_of
from mixform.design import Design
from mixform.estimate.subjects import SubjectFits
from mixform.inference import subjects
from mixform.report.layout import Summary
from mixform.report.two_stage import summarize_subjects
from mixform.result.plots import SubjectPlots
from mixform.result.result import Result
from mixform.result.second_stage import SecondStage, StageComparison
from mixform.result.stages import BetweenFormula, estimate_between, fit_both


class LmList:
    """A least squares regression of each subject: the first of two stages.

    Frames have a row for each subject, in the order of the levels. Standard errors use
    the pooled residual variance unless ``pool=False`` was asked for.
    """

    def __init__(self, fits: SubjectFits, call: Call, notes: tuple[str, ...]) -> None:
        self._fits, self._call, self._notes = fits, call, notes

    @property
    def coefficients(self) -> pd.DataFrame:
        """Estimates, (m, k)."""
        return subjects.by_subject(self._fits, self._fits.coefficients.copy())

    @property
    def bse(self) -> pd.DataFrame:
        """Standard errors, (m, k)."""
        return subjects.by_subject(self._fits, subjects.standard_errors(self._fits))

    @property
    def tvalues(self) -> pd.DataFrame:
        """T statistics, (m, k)."""
        return subjects.by_subject(self._fits, subjects.t_statistics(self._fits)[0])

    @property
    def pvalues(self) -> pd.DataFrame:
        """Two-sided p values, (m, k)."""
        return subjects.by_subject(self._fits, subjects.t_statistics(self._fits)[1])

    @property
    def sigma(self) -> float:
        """Pooled residual standard deviation; NaN without degrees of freedom."""
        return float(np.sqrt(self._fits.pooled_variance))

    @property
    def df_resid(self) -> int:
        """Residual degrees of freedom of all subjects together."""
        return self._fits.pooled_df

    @property
    def sigmas(self) -> pd.Series:
        """Residual standard deviation of each subject by itself."""
        values = np.sqrt(self._fits.own_variances)
        return subjects.of_subjects(self._fits, values, "sigma")

    @property
    def rss(self) -> pd.Series:
        """Residual sum of squares of each subject."""
        return subjects.of_subjects(self._fits, self._fits.rss.copy(), "rss")

    @property
    def r2(self) -> pd.Series:
        """R squared of each subject; about zero in a formula without intercept."""
        return subjects.of_subjects(self._fits, self._fits.r2, "r2")

    @property
    def counts(self) -> pd.Series:
        """Number of rows of each subject."""
        return subjects.of_subjects(self._fits, self._fits.counts.copy(), "rows")

    @property
    def nobs(self) -> int:
        """Number of rows of all subjects together."""
        return len(self._fits.design.y)

    @property
    def formula(self) -> str:
        """The formula as given."""
        return self._fits.design.formula.source

    @property
    def design(self) -> Design:
        """The rows and columns that were used."""
        return self._fits.design

    @property
    def notes(self) -> tuple[str, ...]:
        """Which rows and subjects were left out, and why."""
        return self._notes

    @property
    def fittedvalues(self) -> pd.Series:
        """Each subject's regression at its rows, with their index."""
        return subjects.predict(self._fits, None)

    @property
    def resid(self) -> pd.Series:
        """Response minus `fittedvalues`."""
        fitted = self.fittedvalues
        return pd.Series(self._fits.design.y, index=fitted.index) - fitted

    def predict(self, newdata: object = None) -> pd.Series:
        """Predict with each subject's own regression.

        Parameters
        ----------
        newdata : a table with the covariates and the subject; None for the rows used

        Returns
        -------
        Series with the index of newdata; NaN where a needed value is missing

        Raises
        ------
        InferenceError : a subject without a regression
        """
        return subjects.predict(self._fits, newdata)

    def conf_int(self, level: float = 0.95) -> pd.DataFrame:
        """Return ``estimate, lower, upper`` by subject and coefficient."""
        return subjects.confidence_limits(self._fits, level)

    def cov(self, subject: object) -> pd.DataFrame:
        """Return the covariance of one subject's coefficients, (k, k)."""
        return subjects.covariance(self._fits, subject)

    def second_stage(
        self,
        between: BetweenFormula = "~ 1",
        *,
        correct: Literal["moment", "reml", "ml"] = "moment",
        D: object = None,
        sigma: float | None = None,
    ) -> SecondStage:
        """Regress the coefficients on covariates of the subjects.

        The model is beta_i^ = W_i beta + u_i + error_i, Var(u_i) = D, Var(error_i) =
        sigma^2 (Z_i'Z_i)^-1 = S_i, taken as known. Least squares of each coefficient
        with the naive D, that holds the errors as well; and generalized least squares
        with Var(beta_i^) = D + S_i, wherever all of these are positive definite.
        Standard errors of either take the variances as known; t tests have m - q
        degrees of freedom, exact for subjects with the same times.

        Parameters
        ----------
        between : ``"~ trt"`` for all coefficients, or ``{"Intercept": "~ trt"}``, where
            those not named have ``"~ 1"``
        correct : D for generalized least squares: "moment", the naive one less the mean
            of S_i, unbiased and shown as it is if that is no covariance matrix; "reml"
            or "ml", which never leave the covariance matrices
        D, sigma : variances to use in place of estimates, (k, k) and a number

        Raises
        ------
        FormulaError, DesignError : of a formula; a covariate that varies in a subject
        InferenceError : no degrees of freedom for sigma; D is no symmetric matrix
        """
        record = estimate_between(
            self._fits, self._call, between, correct, D=D, sigma=sigma
        )
        return SecondStage(record, self._notes)

    def single_stage(
        self,
        between: BetweenFormula = "~ 1",
        *,
        method: Literal["REML", "ML"] = "REML",
    ) -> Result:
        """Fit both stages as one mixed model, y_i = Z_i W_i beta + Z_i u_i + e_i.

        Parameters
        ----------
        between : as in `second_stage`
        method : "REML" or "ML"

        Returns
        -------
        what `fit` returns; its ``formula`` is the one that both stages make

        Raises
        ------
        FormulaError, DesignError : as `second_stage`; the products of the two formulas
            cannot be written as one
        """
        # The mixed model needs no residual variance of the first stage.
        none = bool(np.isnan(self._fits.variances).any())
        record = estimate_between(
            self._fits, self._call, between, sigma=0.0 if none else None
        )
        fit, call, _ = fit_both(record, self._call, method)
        warn_of(fit)
        return Result(fit, call)

    def compare(
        self,
        between: BetweenFormula = "~ 1",
        *,
        correct: Literal["moment", "reml", "ml"] = "moment",
    ) -> StageComparison:
        """Set two stages, naive and by generalized least squares, beside one (REML).

        Raises
        ------
        FormulaError, DesignError : as `second_stage` and `single_stage`
        """
        second = self.second_stage(between, correct=correct)
        fit, call, places = fit_both(second._record, self._call, "REML")
        warn_of(fit)
        return StageComparison(second, Result(fit, call), places)

    @property
    def plot(self) -> SubjectPlots:
        """Figures: `plot.intervals()`, `residuals`, `qq`."""
        return SubjectPlots(self)

    def summary(self) -> Summary:
        """Return the regressions as printed, with text, HTML and LaTeX forms."""
        return summarize_subjects(self._fits, self._notes)

    def __str__(self) -> str:
        return self.summary().as_text()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.summary().as_html()
