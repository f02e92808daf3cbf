"""Ways to judge estimates of the fixed effects: their covariance, df and F tests.

A method is one class of the shape of `Approximation` in its own file, and one line in
`DDF`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from mixform._typing import Matrix, Vector
from mixform.errors import InferenceError, suggest
from mixform.estimate import Fit
from mixform.inference.kenward_roger import KenwardRoger, kenward_roger
from mixform.inference.satterthwaite import Satterthwaite, variance_model


class Approximation(Protocol):
    """How the estimates of the fixed effects of one fit are judged."""

    @property
    def title(self) -> str:
        """Name of the method, as printed."""
        ...

    @property
    def V_beta(self) -> Matrix:
        """Covariance of the estimates that standard errors come from, (p, p)."""
        ...

    @property
    def note(self) -> str | None:
        """Why there are no degrees of freedom, if there are none."""
        ...

    def t_ddf(self, L: Matrix) -> Vector:
        """Return the degrees of freedom of the t test of each row of L (r, p).

        NaN for a row of zeros, or where there are none.
        """
        ...

    def f_ddf(self, L: Matrix) -> tuple[float, float]:
        """Return the denominator df and the factor of the Wald F of L (r, p).

        L has full row rank; L V_beta L' is diagonal.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Asymptotic:
    """Normal and chi-square tests: as if the variances were known.

    Attributes
    ----------
    V_beta : (p, p) covariance of the estimates
    """

    V_beta: Matrix

    @property
    def title(self) -> str:
        return "asymptotic tests"

    @property
    def note(self) -> None:
        return None

    def t_ddf(self, L: Matrix) -> Vector:
        return np.where(np.any(L != 0.0, axis=1), np.inf, np.nan)

    def f_ddf(self, L: Matrix) -> tuple[float, float]:
        return np.inf, 1.0


def _satterthwaite(fit: Fit) -> Satterthwaite:
    return Satterthwaite(V_beta=fit.V_beta, variances=variance_model(fit))


def _kenward_roger(fit: Fit) -> KenwardRoger:
    return kenward_roger(fit)


def _kenward_roger_linear(fit: Fit) -> KenwardRoger:
    return kenward_roger(fit, linear=True)


def _kenward_roger_observed(fit: Fit) -> KenwardRoger:
    return kenward_roger(fit, observed=True)


def _kenward_roger_linear_observed(fit: Fit) -> KenwardRoger:
    return kenward_roger(fit, linear=True, observed=True)


def _asymptotic(fit: Fit) -> Asymptotic:
    return Asymptotic(V_beta=fit.V_beta)


#: ddf= -> how the approximation of a fit is made.
DDF: dict[str, Callable[[Fit], Approximation]] = {
    "satterthwaite": _satterthwaite,
    "kenward-roger": _kenward_roger,
    "kenward-roger-linear": _kenward_roger_linear,
    "kenward-roger-observed": _kenward_roger_observed,
    "kenward-roger-linear-observed": _kenward_roger_linear_observed,
    "asymptotic": _asymptotic,
}


def approximate(fit: Fit, ddf: str) -> Approximation:
    """Return the approximation of this name for a fit.

    Raises
    ------
    InferenceError : unknown name; or Kenward-Roger of a fit by ML
    """
    name = ddf.lower() if isinstance(ddf, str) else ddf
    if name not in DDF:
        raise InferenceError(
            f"Unknown ddf {ddf!r}.", hint=suggest(str(ddf), DDF, "Methods")
        )
    if fit.held:
        require_not_adjusted(name)
    if fit.known:
        return _asymptotic(fit)
    return DDF[name](fit)


def require_not_adjusted(name: str) -> None:
    """Refuse to adjust for the estimation of variances that were given."""
    if name.startswith("kenward-roger"):
        raise InferenceError(
            "Kenward-Roger adjusts for variances being estimated; those of this fit "
            "were given.",
            hint="Leave ddf= out: where all were given, tests are exact normal and "
            "chi-square tests.",
        )
