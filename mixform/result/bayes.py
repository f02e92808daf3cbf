"""`BayesResult`: the posterior of a model that users hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from mixform._typing import Vector
from mixform.errors import InferenceError, MixformError
from mixform.estimate.bayes.resolved import Priors
from mixform.inference.means.means import MeansOptions
from mixform.inference.posterior import estimates, inference_data, linear
from mixform.inference.posterior.refusals import refuse_attribute
from mixform.report import Summary
from mixform.report.posterior import (
    PosteriorMeans,
    posterior_notes,
    summarize_posterior,
)
from mixform.result.bayes_estimates import BayesEstimates, Limits
from mixform.result.inference import Weights
from mixform.result.result import Result


class BayesResult(BayesEstimates):
    """Draws from the posterior of a linear mixed model.

    Estimates are posterior means, standard errors are posterior standard deviations,
    and limits are credible. Printing it shows them with R-hat and effective sample
    sizes. `reml` is the same model by REML, for what a posterior has not.

    Options of the sampler, ``control={"draws": 1000}`` of `fit`: draws, tune, chains,
    cores, seed, target_accept, effects; see `mixform.estimate.bayes.options.Sampling`.
    """

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # of pickle, copy, IPython: not of a model
            raise AttributeError(name)
        refuse_attribute(name, [n for n in dir(type(self)) if not n.startswith("_")])

    # Functions of the fixed effects.

    def emmeans(
        self,
        specs: object,
        *,
        by: object = None,
        at: Mapping[str, object] | None = None,
        weights: Weights | Mapping[str, object] = "equal",
        type: Literal["link", "response"] = "link",
        level: float = 0.95,
        method: Limits = "eti",
    ) -> PosteriorMeans:
        """Return marginal means; arguments as of `Result.emmeans`."""
        options = MeansOptions(at=at, weights=weights, type=type, level=level)
        return PosteriorMeans(
            linear.emmeans(
                self._posterior, specs, by=by, options=options, method=method
            )
        )

    def slopes(
        self,
        x: str,
        specs: object = None,
        *,
        by: object = None,
        at: Mapping[str, object] | None = None,
        weights: Weights | Mapping[str, object] = "equal",
        level: float = 0.95,
        method: Limits = "eti",
    ) -> PosteriorMeans:
        """Return slopes of the covariate x at its mean; arguments as of `emmeans`."""
        options = MeansOptions(at=at, weights=weights, level=level)
        return PosteriorMeans(
            linear.marginal_slopes(
                self._posterior, x, specs=specs, by=by, options=options, method=method
            )
        )

    def test(
        self,
        L: object,
        rhs: object = 0,
        *,
        level: float = 0.95,
        method: Limits = "eti",
    ) -> pd.DataFrame:
        """Return the posterior of L beta, and the probability that it is above rhs.

        Parameters
        ----------
        L, rhs : as of `Result.test`

        Returns
        -------
        frame by row : ``estimate, se, lower, upper, rhs, prob_above``

        Raises
        ------
        InferenceError : L is not estimable; the aliased columns are named
        """
        return linear.contrast_posterior(
            self._posterior, L, rhs, level=level, method=method
        )

    # The draws.

    @cached_property
    def posterior(self) -> Any:
        """ArviZ InferenceData of the draws, for ``arviz.summary``, ``loo``, plots."""
        return self.inference_data()

    def inference_data(
        self,
        *,
        log_likelihood: bool | None = None,
        posterior_predictive: bool = False,
        seed: object = 0,
    ) -> Any:
        """Return ArviZ InferenceData.

        Parameters
        ----------
        log_likelihood : of each observation, which ``arviz.loo`` needs; None for unless
            it is very large
        posterior_predictive : add new observations in the rows of the fit, drawn with
            their random effects by ``seed``
        """
        return inference_data.inference_data(
            self._posterior,
            self.formula,
            log_likelihood=log_likelihood,
            posterior_predictive=posterior_predictive,
            seed=seed,
        )

    @property
    def log_posterior(self) -> Vector:
        """Log density of each draw, (S,), of the priors and restricted likelihood."""
        return self._posterior.log_posterior.copy()

    @property
    def priors(self) -> Priors:
        """The priors, with their numbers."""
        return self._posterior.priors

    @property
    def reml(self) -> Result:
        """The same model by REML."""
        call = self._call
        if call is not None:
            call = replace(call, method="REML", prior=None, control=None)
        return Result(self._posterior.fit, call)

    # The model.

    @property
    def formula(self) -> str:
        """The formula as written."""
        return self.design.formula.source

    @property
    def nobs(self) -> int:
        """Number of rows in the model."""
        return self._posterior.fit.n

    @property
    def method(self) -> str:
        """Always "Bayes"."""
        return "Bayes"

    @property
    def converged(self) -> bool:
        """Whether R-hat, effective sample sizes and the sampler raise no warning."""
        return not self._posterior.warnings

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know besides the numbers."""
        return tuple(posterior_notes(self._posterior))

    def update(
        self,
        formula: str | None = None,
        *,
        progress: bool | None = None,
        **changes: Any,
    ) -> BayesResult | Result:
        """Draw from a changed model, or with ``method="REML"`` fit it."""
        if self._call is None:
            raise MixformError(
                "This result does not know the data it was fitted to.",
                hint="Update one that fit() or update() returned.",
            )
        from mixform.result.fitted import fitted  # noqa: PLC0415 - it imports this

        return fitted(self._call.changed(formula, **changes), progress)

    def save(self, path: str | Path) -> None:
        """Refuse: the file of a model holds no draws.

        Raises
        ------
        InferenceError : always
        """
        raise InferenceError(
            "A posterior is not saved as a model is.",
            hint=f"Write its draws, posterior.to_netcdf({str(path)!r}), or pickle it.",
        )

    # The printout.

    def summary(self, level: float = 0.95) -> Summary:
        """Return the printed posterior, with text, HTML and LaTeX forms.

        Parameters
        ----------
        level : of the credible limits, equal tails
        """
        return summarize_posterior(
            self._posterior,
            self.variance_parameters(level),
            estimates.coefficients(self._posterior, level),
            self._convergence,
            level=level,
        )

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self._posterior, self._call))

    def __str__(self) -> str:
        return self.summary().as_text()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.summary().as_html()

    @cached_property
    def _convergence(self) -> pd.DataFrame:
        return inference_data.convergence(self._posterior)
