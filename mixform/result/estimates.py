"""The estimates of a fitted model and what is read off them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Literal, Self

import numpy as np
import pandas as pd

from mixform._typing import Stack, Vector
from mixform.call import Call
from mixform.design import Design
from mixform.errors import MixformError
from mixform.estimate import Control, Convergence, Fit, resolve_control
from mixform.inference import (
    likelihood,
    random_effects,
    random_structure,
    residual_structure,
)
from mixform.inference.approximation import Approximation, approximate
from mixform.inference.contrast_tests import coefficient_tests
from mixform.inference.leverage import leverage
from mixform.inference.natural_parameters import residual_limits
from mixform.inference.prediction import fitted, predict, predict_frame
from mixform.inference.variance_components import varcorr
from mixform.report import fit_notes

#: A method for the degrees of freedom: its name, or one that was made before.
Ddf = str | Approximation


class Estimates:
    """The first part of `Result`: what was estimated, and how well.

    Coefficients carry formulaic's names; columns of X that are combinations of others
    are there with NaN. Everything that takes work is done when it is first asked for,
    and once.
    """

    def __init__(self, fit: Fit, call: Call | None = None) -> None:
        self._fit = fit
        self._call = call
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

    @property
    def rho(self) -> pd.Series:
        """Parameters of the residual structure other than SDs, by name."""
        if self._fit.design.residual is None:
            return pd.Series(dtype=float)
        table = residual_structure.residual_parameters(self._fit)["estimate"]
        deviations = [str(name).split(":")[-1].startswith("sd") for name in table.index]
        return table[~np.array(deviations)].rename(None)

    def random_parameters(self) -> pd.DataFrame:
        """Return the parameters of random terms with a structure (cs, ar1, fa1, ...).

        Returns
        -------
        frame : ``grp, structure, parameter, estimate, se``; se is NaN at a limit of the
            parameter's range. No rows without such a term
        """
        return random_structure.random_parameters(self._fit)

    def residual_parameters(self, level: float | None = None) -> pd.DataFrame:
        """Return SDs, correlations and dispersion of the residuals.

        Parameters
        ----------
        level : of confidence limits to add, of Wald's kind on the scales of logarithms
            and arctanh; `conf_int` with method "profile" has better ones

        Returns
        -------
        frame : ``estimate, se`` by name: ``sd`` or ``sd(visit)``, the correlation
            parameters of the structure, ``log sd: column``; in strata
            ``stratum:name``; with a level ``lower, upper``

        Raises
        ------
        InferenceError : the residuals are independent with equal variance
        """
        table = residual_structure.residual_parameters(self._fit)
        if level is None:
            return table
        return table.join(residual_limits(self._fit, table, level))

    def residual_covariance(
        self, stratum: object = None, *, subject: object = None
    ) -> pd.DataFrame:
        """Return the covariance of the residuals of a subject, units of y^2.

        Parameters
        ----------
        stratum : label of the stratum, where there are several
        subject : its rows, with their weights and dispersion, in place of all
            positions of the stratum

        Raises
        ------
        InferenceError : no residual structure; no such stratum or subject
        """
        return residual_structure.residual_covariance(
            self._fit, stratum, subject=subject
        )

    def cov_params(self, ddf: Ddf = "satterthwaite") -> pd.DataFrame:
        """Return the covariance of the fixed effects, (c, c); NaN if aliased.

        Parameters
        ----------
        ddf : "kenward-roger" for the adjusted covariance; or what `robust` returns
        """
        fixed = self._fit.design.fixed
        full = np.full((len(fixed.names), len(fixed.names)), np.nan)
        full[np.ix_(fixed.kept, fixed.kept)] = self._approximation(ddf).V_beta
        return pd.DataFrame(full, index=fixed.names, columns=fixed.names)

    @property
    def varcorr(self) -> pd.DataFrame:
        """Variance components: ``grp, var1, var2, vcov, sdcor``, as lme4's."""
        return varcorr(self._fit)

    @property
    def sigma(self) -> float:
        """Residual standard deviation; with a structure that of its first position."""
        return self._fit.sigma

    @property
    def theta(self) -> Vector:
        """Relative covariance factors, (t,): by term as written, each as lme4's."""
        return self._fit.theta.copy()

    # The random effects.

    def ranef(self, *, pev: bool = False, reliability: bool = False) -> pd.DataFrame:
        """Return predicted random effects: ``grp, term, level, estimate, se``.

        se is the standard deviation given beta and the variances (lme4's condVar).

        Parameters
        ----------
        pev : add the prediction error variance, that counts beta as estimated
        reliability : add 1 - pev / variance
        """
        return random_effects.ranef(self._fit, pev=pev, reliability=reliability)

    def condvar(self) -> dict[str, Stack]:
        """Return Var(b_level | y, beta), (m, k, k), by label of the random term."""
        return random_effects.condvar(self._fit)

    def coef(self) -> dict[str, pd.DataFrame]:
        """Return fixed plus random coefficients of each level, by grouping factor."""
        return random_effects.coef(self._fit)

    # The likelihood.

    @property
    def llf(self) -> float:
        """Log-likelihood that was maximized: restricted under REML."""
        return -0.5 * self.criterion

    @property
    def criterion(self) -> float:
        """The criterion that was minimized: -2 times `llf`, constants included."""
        return likelihood.criterion(self._fit)

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
    def df_resid(self) -> int:
        """Rows minus estimated fixed effects."""
        return self._fit.n - len(self._fit.beta)

    @property
    def npar(self) -> int:
        """Number of parameters: fixed effects, theta, sigma."""
        return self._fit.n_parameters

    @property
    def method(self) -> str:
        """REML or ML, the criterion that was minimized; or ANOVA."""
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
        se: bool = False,
        interval: Literal["confidence", "prediction"] | None = None,
        level: float = 0.95,
        ddf: Ddf = "satterthwaite",
        residual: bool = False,
    ) -> pd.Series | pd.DataFrame:
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
        se : add standard errors: beta and random effects are uncertain together
        interval : "confidence" of the prediction, "prediction" of a new observation
        level : confidence level in (0, 1)
        ddf : "kenward-roger" only without random effects, and not for new observations
        residual : predict new observations, given correlated residuals of the same
            subject or field (kriging); errors are then those of the observations

        Returns
        -------
        Series with the index of newdata; NaN where a needed value is missing. With se
        or interval a frame: ``estimate, se, df``, and ``lower, upper``
        """
        if not se and interval is None:
            return predict(
                self._fit,
                newdata,
                random=random,
                new_levels=new_levels,
                residual=residual,
            )
        return predict_frame(
            self._fit,
            newdata,
            random=random,
            new_levels=new_levels,
            interval=interval,
            level=level,
            approximation=self._approximation(ddf),
            residual=residual,
        )

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

    # What the other parts build on.

    @property
    def _control(self) -> Control | None:
        if self._call is None or self.method == "ANOVA":  # which does not search
            return None
        return resolve_control(self._call.control)

    def _require_call(self) -> Call:
        if self._call is None:
            raise MixformError(
                "This result does not know the data it was fitted to.",
                hint="Update one that fit() or update() returned.",
            )
        return self._call

    def _like(self, fit: Fit) -> Self:
        return type(self)(fit)

    def _approximation(self, ddf: Ddf) -> Approximation:
        if not isinstance(ddf, str):
            return ddf
        if ddf not in self._approximations:
            self._approximations[ddf] = approximate(self._fit, ddf)
        return self._approximations[ddf]

    @cached_property
    def _coefficients(self) -> pd.DataFrame:
        return self._tests_by("satterthwaite")

    def _tests_by(self, ddf: Ddf) -> pd.DataFrame:
        return coefficient_tests(self._fit, self._approximation(ddf))
