"""Tests, marginal means and intervals of a fitted model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import pandas as pd

from mixform.inference import anova, intervals, mean_squares
from mixform.inference.approximation import DDF
from mixform.inference.contrast_tests import HypothesisTest, joint_test
from mixform.inference.estimability import read_contrast, require_estimable
from mixform.inference.means import joint_tests, means, slopes
from mixform.inference.means.means import MeansOptions
from mixform.inference.profile import profile
from mixform.inference.resampling.bootstrap import bootstrap
from mixform.inference.selection import drop1, ranova
from mixform.report import AnovaTable, anova_table
from mixform.report.comparison import ComparisonTable, comparison_table
from mixform.report.mean_squares import MeanSquaresTable, mean_squares_table
from mixform.report.means import Means, MeansTable, means_table
from mixform.report.profile import ProfileReport
from mixform.result.estimates import Ddf
from mixform.result.general_linear import GeneralLinear

Weights = Literal["equal", "proportional", "cells", "outer", "flat"]


class Inference(GeneralLinear):
    """The third part of `Result`: tests, marginal means, intervals.

    Wherever ``ddf`` is asked for it is "satterthwaite", "kenward-roger", "asymptotic",
    or what `Result.robust` returns. "kenward-roger-linear" leaves out the second
    derivatives of V, "kenward-roger-observed" takes the observed information of the
    variance parameters, as SAS and mmrm do; "kenward-roger-linear-observed" does both.
    """

    # Tests of the fixed effects.

    def anova(self, type: int | str = 3, ddf: Ddf = "satterthwaite") -> AnovaTable:
        """Test each fixed term.

        Parameters
        ----------
        type : 1 (sequential), 2 or 3 (as SAS defines them)
        ddf : method for the denominator degrees of freedom

        Returns
        -------
        frame by term: ``sum_sq, mean_sq, num_df, den_df, f_value, p_value``
        """
        table = anova.anova(self._fit, self._approximation(ddf), kind=type)
        return anova_table(*table)

    def mean_squares(self) -> MeanSquaresTable:
        """Return the mean squares of a fit by analysis of variance.

        Returns
        -------
        frame by source: ``num_df, sum_sq, mean_sq``, and of the test against its error
        term ``den_df, f_value, p_value``; ``.expectations`` are the coefficients of the
        variances
        """
        return mean_squares_table(mean_squares.mean_squares(self._fit))

    def test(
        self, L: object, rhs: object = 0, *, ddf: Ddf = "satterthwaite"
    ) -> HypothesisTest:
        """Test L beta = rhs for an estimable L; dependent rows count once.

        Parameters
        ----------
        L : matrix (r, c) over the coefficients; a mapping from coefficient names to
            numbers, or from labels to such mappings; or a string of equations,
            ``"trt[T.b] - trt[T.c] = 0"``, joined by commas
        rhs : value, or r values
        ddf : "kenward-roger" also says how much larger its standard errors are

        Returns
        -------
        what prints estimates with t tests, their covariance and F, with ``.table,
        .covariance, .f_value, .num_df`` (the rank of L) ``.den_df, .p_value, .method``

        Raises
        ------
        InferenceError : L is not estimable; says what changes it
        """
        fixed = self._fit.design.fixed
        matrix, right, labels = read_contrast(L, rhs, fixed.names)
        kept = require_estimable(matrix, fixed, labels)
        return joint_test(kept, right, labels, self._fit, self._approximation(ddf))

    def drop1(
        self,
        test: Literal["F", "lrt"] = "F",
        *,
        ddf: str = "satterthwaite",
        progress: bool | None = None,
    ) -> ComparisonTable:
        """Test each fixed term that no other contains; "lrt" by ML refits, with AIC."""
        return comparison_table(
            *drop1.drop1(
                self._fit, test=test, ddf=ddf, control=self._control, progress=progress
            )
        )

    # Marginal means and slopes.

    def emmeans(
        self,
        specs: object,
        *,
        by: object = None,
        at: Mapping[str, object] | None = None,
        weights: Weights | Mapping[str, object] = "equal",
        type: Literal["link", "response"] = "link",
        adjust: str | None = None,
        level: float = 0.95,
        ddf: Ddf = "satterthwaite",
    ) -> Means:
        """Return estimated marginal means.

        Parameters
        ----------
        specs : a variable of the fixed part, several ("a:b" or a list), "1" for the
            overall mean, or "a | b" for those of a by b
        by : variables that make groups, within which means are compared
        at : values of variables, instead of the mean of covariates and all levels
        weights : how factors are averaged over
        type : "response" transforms log, sqrt, ... of the response back
        adjust : of limits for several means, see `Means.conf_int`
        """
        options = MeansOptions(
            at=at, weights=weights, type=type, adjust=adjust, level=level
        )
        approximation = self._approximation(ddf)
        return Means(
            means.emmeans(self._fit, approximation, specs, by=by, options=options)
        )

    def slopes(
        self,
        x: str,
        specs: object = None,
        *,
        by: object = None,
        at: Mapping[str, object] | None = None,
        weights: Weights | Mapping[str, object] = "equal",
        adjust: str | None = None,
        level: float = 0.95,
        ddf: Ddf = "satterthwaite",
    ) -> Means:
        """Return slopes of the covariate x at its mean; arguments as of `emmeans`."""
        options = MeansOptions(at=at, weights=weights, adjust=adjust, level=level)
        approximation = self._approximation(ddf)
        return Means(
            slopes.slopes(
                self._fit, approximation, x, specs=specs, by=by, options=options
            )
        )

    def joint_tests(
        self,
        *,
        by: object = None,
        at: Mapping[str, object] | None = None,
        ddf: Ddf = "satterthwaite",
    ) -> MeansTable:
        """Test main effects and interactions of equally weighted marginal means."""
        approximation = self._approximation(ddf)
        return means_table(
            *joint_tests.joint_tests(self._fit, approximation, by=by, at=at)
        )

    # Tests of the random effects, selection.

    def ranova(
        self, *, reduce_terms: bool = True, progress: bool | None = None
    ) -> ComparisonTable:
        """Test each random term by a likelihood ratio.

        Parameters
        ----------
        reduce_terms : whether a term with several coefficients loses them one by one

        Returns
        -------
        frame : ``npar, llf, aic, lrt, num_df, p_value, p_mixture``; p_mixture counts
            that a variance of zero is on the boundary
        """
        return comparison_table(
            *ranova.ranova(
                self._fit,
                reduce_terms=reduce_terms,
                control=self._control,
                progress=progress,
            )
        )

    # Intervals and profiles.

    def conf_int(
        self,
        level: float = 0.95,
        method: str = "satterthwaite",
        *,
        parameters: str | Sequence[str] | None = None,
        nsim: int = 1000,
        seed: object = None,
        progress: bool | None = None,
    ) -> pd.DataFrame:
        """Return confidence intervals.

        Parameters
        ----------
        level : confidence level in (0, 1)
        method : "satterthwaite" or "kenward-roger" and its variants (t quantiles) and
            "wald" (normal) of the fixed effects; "profile" and "bootstrap" of all
            parameters
        parameters : which of them, by name; None for all
        nsim, seed : of the bootstrap (percentile limits)

        Returns
        -------
        frame : ``lower, upper`` by name; profiles add ``reason`` for what is missing
        """
        if method == "profile":
            found = profile.profile_interval(
                self._fit, parameters, level, progress=progress
            )
            return found[["lower", "upper", "reason"]]
        if method == "bootstrap":
            draws = bootstrap(self._fit, nsim, seed=seed, progress=progress)
            return intervals.chosen_rows(draws.conf_int(level), parameters)
        table = self._tests_by(method if method in DDF else "satterthwaite")
        limits = intervals.symmetric_interval(
            table["estimate"].to_numpy(),
            table["se"].to_numpy(),
            table["df"].to_numpy(),
            level=level,
            method=method,
        )
        frame = pd.DataFrame(limits, index=table.index, columns=["lower", "upper"])
        if method == "wald" and self._fit.design.residual is not None:
            errors = self.residual_parameters(level)[["lower", "upper"]]
            frame = pd.concat([frame, errors])
        return intervals.chosen_rows(frame, parameters)

    def profile(
        self,
        parameters: str | Sequence[str] | None = None,
        *,
        level: float = 0.99,
        progress: bool | None = None,
    ) -> ProfileReport:
        """Profile the criterion that was minimized.

        Parameters
        ----------
        parameters : coefficients, ``sd(g: x)``, ``cor(g: x, z)``, ``sigma``; None for
            all
        level : up to which confidence level the curves reach
        """
        return ProfileReport(
            profile.profile(
                self._fit, parameters=parameters, level=level, progress=progress
            )
        )
