"""`Result`: the fitted model that users hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import pandas as pd

from mixform import storage
from mixform.estimate.refit import refit
from mixform.inference import random_effects, tidy
from mixform.inference.diagnostics import (
    fit_measures,
    influence,
    pca,
    residuals,
    robust,
    vcfun,
)
from mixform.inference.equations import equations
from mixform.inference.model_view import ModelView
from mixform.inference.resampling import simulation
from mixform.inference.resampling.bootstrap import bootstrap
from mixform.inference.resampling.power import power
from mixform.inference.selection import step
from mixform.report import Summary, summarize
from mixform.report.bootstrap import Printed, printed_bootstrap, printed_power
from mixform.report.comparison import Selection
from mixform.report.equations import printed_equations
from mixform.result.estimates import Ddf
from mixform.result.inference import Inference
from mixform.result.plots import Plots

if TYPE_CHECKING:
    from mixform.result.bayes import BayesResult


class Result(Inference):
    """A fitted linear mixed model.

    Printing it shows lmerTest's summary. Coefficients carry formulaic's names; columns
    of X that are combinations of others are there with NaN. Everything that takes work
    is done when it is first asked for, and once.
    """

    # Selection, simulation, refits.

    def step(
        self,
        *,
        alpha_random: float = 0.1,
        alpha_fixed: float = 0.05,
        reduce_random: bool = True,
        reduce_fixed: bool = True,
        keep: Sequence[str] = (),
        ddf: str = "satterthwaite",
        p: Literal["naive", "mixture"] = "naive",
        progress: bool | None = None,
    ) -> Selection:
        """Eliminate random, then fixed terms, the least significant first.

        Parameters
        ----------
        keep : terms that stay
        p : of the random terms: "naive" as lmerTest's, or "mixture"

        Returns
        -------
        the path: ``.random, .fixed, .formula``, and the ``.model`` at its end
        """
        path = step.step(
            self._fit,
            alpha_random=alpha_random,
            alpha_fixed=alpha_fixed,
            reduce_random=reduce_random,
            reduce_fixed=reduce_fixed,
            keep=keep,
            ddf=ddf,
            p=p,
            control=self._control,
            progress=progress,
        )
        return Selection(path, self._like(path.fit))

    def simulate(
        self,
        nsim: int = 1,
        *,
        seed: object = None,
        newdata: object = None,
        use_u: bool | str | Sequence[str] = False,
    ) -> pd.DataFrame:
        """Draw responses from the fitted model, (n, nsim).

        Parameters
        ----------
        newdata : rows to draw for, None for those of the fit
        use_u : True keeps the predicted random effects, False draws new ones; names
            of terms keep those
        """
        return simulation.simulate(
            self._fit, nsim, seed=seed, newdata=newdata, use_u=use_u
        )

    def bootstrap(
        self,
        nsim: int = 1000,
        *,
        statistic: Callable[[Result], Any] | None = None,
        seed: object = None,
        kind: str = "parametric",
        use_u: bool | str | Sequence[str] = False,
        workers: int | Callable[..., Any] = 1,
        progress: bool | None = None,
    ) -> Printed:
        """Refit the model to simulated responses.

        Parameters
        ----------
        statistic : of a refitted Result: a number, array, Series or mapping; None for
            fixed effects, standard deviations and correlations
        workers : processes (through joblib), or a map-like callable; the answer depends
            on the seed only
        """
        return printed_bootstrap(
            bootstrap(
                self._fit,
                nsim,
                statistic=statistic,
                wrap=self._like,
                seed=seed,
                kind=kind,
                use_u=use_u,
                workers=workers,
                progress=progress,
            )
        )

    def power(
        self,
        test: object,
        nsim: int = 1000,
        *,
        params: Mapping[str, float] | None = None,
        newdata: object = None,
        method: str = "satterthwaite",
        alpha: float = 0.05,
        seed: object = None,
        workers: int | Callable[..., Any] = 1,
        progress: bool | None = None,
    ) -> Printed:
        """Find the power of a test by simulation.

        Parameters
        ----------
        test : a fixed term, or a contrast as of `test`
        params : parameters to change, by their names in `bootstrap`
        newdata : a design to simulate for, None for that of the fit
        method : a ddf, or "lr" for a likelihood-ratio test
        """
        return printed_power(
            power(
                self._fit,
                test,
                nsim,
                params=params,
                newdata=newdata,
                method=method,
                alpha=alpha,
                seed=seed,
                workers=workers,
                progress=progress,
            )
        )

    def refit(self, y: object) -> Result:
        """Fit the same model to another response, (n,) or a value for each row."""
        return Result(refit(self._fit, y, control=self._control))

    @overload
    def update(
        self,
        formula: str | None = None,
        *,
        method: Literal["REML", "ML", "ANOVA"] = ...,
        **changes: Any,
    ) -> Result: ...
    @overload
    def update(
        self, formula: str | None = None, *, method: Literal["Bayes"], **changes: Any
    ) -> BayesResult: ...
    def update(
        self,
        formula: str | None = None,
        *,
        progress: bool | None = None,
        **changes: Any,
    ) -> Result | BayesResult:
        """Fit a changed model, or draw from its posterior.

        Parameters
        ----------
        formula : in which ``.`` stands for the old: ``". + x"``, ``". - (1 | g)"``,
            ``"log(.) ~ ."``
        changes : other arguments of `fit`: data, method, weights, ...
        """
        from mixform.result.fitted import fitted  # noqa: PLC0415 - it imports this

        return fitted(self._require_call().changed(formula, **changes), progress)

    def save(self, path: str | Path) -> None:
        """Write the fit and its data to a file for `mixform.load`."""
        storage.save(self._fit, self._call, path)

    # Diagnostics.

    def residuals(
        self,
        kind: Literal[
            "response", "pearson", "scaled", "normalized", "studentized", "deleted"
        ] = "response",
        level: Literal["conditional", "marginal"] = "conditional",
    ) -> pd.Series:
        """Return residuals (n,): of the fitted values, or of X beta ("marginal").

        Pearson residuals are divided by the standard deviation of the response,
        scaled ones by that of the row's residual, normalized ones by R^1/2 (correlated
        residuals made independent), studentized ones by their own; deleted ones are
        studentized without their row.
        """
        return residuals.residuals(self._fit, kind, level)

    def cooks_distance(self) -> pd.Series:
        """Return Cook's distance of each row, the variances held, (n,)."""
        return residuals.cooks_distance(self._fit)

    def influence(
        self,
        group: object = None,
        *,
        refit: bool = False,
        progress: bool | None = None,
    ) -> influence.Influence:
        """Return what leaving out each group (None: each row) changes.

        Parameters
        ----------
        group : a grouping factor by name, or a label for each row
        refit : estimate the variances anew each time
        """
        return influence.influence(
            self._fit, group, refit=refit, control=self._control, progress=progress
        )

    def ranef_without(self, group: object, level: object) -> pd.DataFrame:
        """Return the random effects without the rows of one level, theta held."""
        return influence.ranef_without(self._fit, group, level)

    def r2(self) -> fit_measures.R2:
        """Return the marginal and conditional R^2 of Nakagawa and Schielzeth."""
        return fit_measures.r2(self._fit)

    def icc(self) -> fit_measures.ICC:
        """Return the intraclass correlations, in all and by grouping factor."""
        return fit_measures.icc(self._fit)

    def robust(
        self,
        cluster: object = None,
        *,
        kind: Literal["CR0", "CR2", "CR3"] = "CR2",
        progress: bool | None = None,
    ) -> robust.ClusterRobust:
        """Return the cluster-robust covariance of the fixed effects and its tests.

        Parameters
        ----------
        cluster : a grouping factor or the subject of the residuals by name, or a label
            for each row; None for the outermost
        kind : "CR0" sandwich, "CR2" bias-reduced, "CR3" jackknife
        """
        return robust.robust(self._fit, cluster, kind=kind, progress=progress)

    def vcfun(
        self, expression: str | Mapping[str, str], *, level: float = 0.95
    ) -> vcfun.VarianceFunction | pd.DataFrame:
        """Estimate a function of variance components, with a delta-method error.

        Parameters
        ----------
        expression : of the components by grouping factor, ``Subject[Days]`` where a
            term has several, and ``residual``. ``animal / total()`` is the heritability
            of an animal model, ``cor(animal, trait=("wwg", "pwg"))`` a genetic
            correlation, ``var(animal, age=50) / total(age=50)`` the heritability at an
            age. A mapping from names to expressions gives a frame
        """
        if isinstance(expression, Mapping):
            return vcfun.vcfuns(self._fit, expression, level=level)
        return vcfun.vcfun(self._fit, expression, level=level)

    def cov_varcorr(self) -> pd.DataFrame:
        """Return the asymptotic covariance of the variance components."""
        return vcfun.variance_covariance(self._fit)

    def pca(self) -> pca.RandomComponents:
        """Return principal components of the random effects, and what to drop."""
        return pca.random_components(self._fit)

    def caterpillar(
        self, term: str | Sequence[str] | None = None, level: float = 0.95
    ) -> pd.DataFrame:
        """Return random effects in order with limits, as a caterpillar plot needs."""
        return random_effects.caterpillar(self._fit, term, level)

    def equations(self, *, multiply: bool | None = None) -> Printed:
        """Return Henderson's mixed model equations of a small model.

        Parameters
        ----------
        multiply : both sides by the residual variance, as text books do; None does
            where residuals are independent

        Returns
        -------
        what prints as a text book has it, with frames ``.lhs, .rhs, .solution``
        """
        return printed_equations(equations(self._fit, multiply=multiply))

    # Frames, as broom.mixed's.

    def tidy(
        self,
        effects: str | Sequence[str] = ("fixed", "ran_pars"),
        *,
        scale: Literal["sdcor", "vcov"] = "sdcor",
        conf_int: bool = False,
        level: float = 0.95,
        conf_method: Literal["satterthwaite", "wald"] = "satterthwaite",
    ) -> pd.DataFrame:
        """Return estimates as rows: "fixed", "ran_pars", "ran_vals", "ran_coefs"."""
        return tidy.tidy(
            self._fit,
            self._coefficients,
            effects=effects,
            scale=scale,
            conf_int=conf_int,
            level=level,
            conf_method=conf_method,
        )

    @property
    def model(self) -> ModelView:
        """The fixed part as tools around statsmodels read it."""
        return ModelView(fit=self._fit)

    def glance(self) -> pd.DataFrame:
        """Return the model in one row."""
        return tidy.glance(self._fit)

    def augment(self, data: object = None) -> pd.DataFrame:
        """Return the rows in the model with fitted values, residuals, leverages."""
        return tidy.augment(self._fit, data)

    @property
    def plot(self) -> Plots:
        """Figures: `plot.residuals()`, `qq`, `caterpillar`, `profile`, `means`."""
        return Plots(self)

    # The printout.

    def summary(
        self, *, correlation: bool = False, ddf: Ddf = "satterthwaite"
    ) -> Summary:
        """Return the printed model, with text, HTML and LaTeX forms.

        Parameters
        ----------
        correlation : add the correlation of the fixed effects
        ddf : method of the t tests
        """
        approximation = self._approximation(ddf)
        return summarize(
            self._fit,
            self._tests_by(ddf),
            correlation=correlation,
            approximation=approximation,
        )

    def __str__(self) -> str:
        return self.summary().as_text()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.summary().as_html()
