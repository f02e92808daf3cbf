"""What users hold of a second stage, and of two stages beside the mixed model."""

from __future__ import annotations

from functools import cached_property
from typing import Literal

import numpy as np
import pandas as pd

from mixform._typing import Matrix
from mixform.errors import DesignError, suggest
from mixform.inference import two_stage
from mixform.report.layout import Summary
from mixform.report.two_stage import summarize_comparison, summarize_second_stage
from mixform.result.result import Result


class SecondStage:
    """The coefficients of subjects regressed on covariates: the second of two stages.

    Tables are indexed by coefficient and covariate.
    """

    def __init__(self, record: two_stage.TwoStage, notes: tuple[str, ...]) -> None:
        self._record, self._notes = record, notes

    @cached_property
    def naive(self) -> pd.DataFrame:
        """Least squares: ``estimate, se, df, t_value, p_value``."""
        return two_stage.coefficient_table(self._record, self._record.moments.naive)

    @cached_property
    def gls(self) -> pd.DataFrame:
        """Generalized least squares, as `naive`; NaN if a D + S_i is not definite."""
        return two_stage.coefficient_table(self._record, self._record.gls)

    @property
    def D_naive(self) -> pd.DataFrame:
        """Covariance of the residuals of `naive`, (k, k), over m - q."""
        return self._frame(self._record.moments.D_naive)

    @property
    def D_moment(self) -> pd.DataFrame:
        """`D_naive` less the mean sampling covariance: unbiased, perhaps indefinite."""
        return self._frame(self._record.moments.D)

    @property
    def D(self) -> pd.DataFrame:
        """The covariance of u_i that `gls` uses, (k, k)."""
        return self._frame(self._record.D)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out, and where D is no covariance matrix."""
        return (*self._notes, *two_stage.notes_of(self._record))

    def cov_params(self, estimator: Literal["gls", "naive"] = "gls") -> pd.DataFrame:
        """Return the covariance of the estimates of "gls" or "naive", (q, q)."""
        record, index = self._record, self._record.index
        chosen = {"gls": record.gls, "naive": record.moments.naive}
        estimate = chosen[_estimator(estimator)]
        q = record.between.width
        values = np.full((q, q), np.nan) if estimate is None else estimate.V_beta
        return pd.DataFrame(values.copy(), index=index, columns=index)

    def conf_int(
        self,
        level: float = 0.95,
        estimator: Literal["gls", "naive"] = "gls",
    ) -> pd.DataFrame:
        """Return ``lower, upper`` of "gls" or "naive", t intervals."""
        chosen = {"gls": self.gls, "naive": self.naive}[_estimator(estimator)]
        return two_stage.limits_table(chosen, level)

    def summary(self) -> Summary:
        """Return the second stage as printed, with text, HTML and LaTeX forms."""
        return summarize_second_stage(self._record, self._notes)

    def __str__(self) -> str:
        return self.summary().as_text()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.summary().as_html()

    def _frame(self, D: Matrix) -> pd.DataFrame:
        return two_stage.covariance_frame(D.copy(), self._record.fits)


class StageComparison:
    """Two stages and one, of the same formulas and subjects.

    Attributes
    ----------
    frame : ``naive, naive_se, gls, gls_se, mixed, mixed_se`` by coefficient and
        covariate
    D : ``naive, gls, mixed``: variances and covariances of the coefficients, and of
        the residual
    second_stage, model : the `SecondStage` and the mixed model, a `Result`
    """

    def __init__(self, second: SecondStage, model: Result, places: list[int]) -> None:
        mixed = (
            model.params.to_numpy()[places],
            model.bse.to_numpy()[places],
        )
        self.second_stage, self.model = second, model
        self.frame, self.D = two_stage.three_ways(second._record, model._fit, mixed)

    @property
    def formula(self) -> str:
        """The formula of the mixed model."""
        return self.model.formula

    @property
    def notes(self) -> tuple[str, ...]:
        """Of the second stage, and of the mixed model."""
        return (*self.second_stage.notes, *self.model.notes)

    def summary(self) -> Summary:
        """Return the comparison as printed, with text, HTML and LaTeX forms."""
        heading = ["Two stages and one", f"Mixed model (REML): {self.formula}"]
        return summarize_comparison(self.frame, self.D, heading, self.notes)

    def __str__(self) -> str:
        return self.summary().as_text()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.summary().as_html()


def _estimator(name: str) -> str:
    if name not in {"gls", "naive"}:
        raise DesignError(
            f"Unknown estimator {name!r}.",
            hint=suggest(str(name), ("gls", "naive"), "Choices"),
        )
    return name
