"""Prior distributions of standard deviations, correlations and covariances.

Each is stated in the user's units, for `fit(..., method="Bayes", prior={...})`::

    prior = {
        "Subject": [half_t(3, 50.0), lkj(2)],
        "Subject[Days]": half_t(3, 10.0),
        "residual": half_t(3, 50.0),
    }
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Literal, cast

import numpy as np

from mixform._typing import Matrix
from mixform.errors import DesignError, suggest

#: On what a flat prior is uniform.
Scale = Literal["sd", "variance", "log", "covariance"]
SCALES: tuple[Scale, ...] = ("sd", "variance", "log", "covariance")


@dataclass(frozen=True, slots=True)
class HalfT:
    """Half-t prior of a standard deviation; see `half_t`."""

    df: float
    scale: float | None

    def __str__(self) -> str:
        scale = "default" if self.scale is None else f"{self.scale:.4g}"
        return f"half_t({self.df:g}, {scale})"


@dataclass(frozen=True, slots=True)
class LKJ:
    """Prior of a correlation matrix; see `lkj`."""

    eta: float

    def __str__(self) -> str:
        return f"lkj({self.eta:g})"


@dataclass(frozen=True, slots=True, eq=False)
class InverseWishart:
    """Prior of the covariance matrix of a term; see `inverse_wishart`."""

    df: float
    scale: Matrix

    def __str__(self) -> str:
        shown = (
            f"{self.scale[0, 0]:.4g}"
            if len(self.scale) == 1
            else str(np.round(self.scale, 4).tolist())
        )
        return f"inverse_wishart({self.df:g}, {shown})"


@dataclass(frozen=True, slots=True)
class Flat:
    """Uniform, improper prior; see `flat`."""

    on: Scale

    def __str__(self) -> str:
        return f'flat("{self.on}")'


Prior = HalfT | LKJ | InverseWishart | Flat
#: Priors of one standard deviation.
PriorOfSD = HalfT | InverseWishart | Flat


# `df` is what every text on the distribution calls it.
def half_t(df: float = 3.0, scale: float | None = None) -> HalfT:
    """Return a half-t prior of standard deviations (Gelman 2006, Bayesian Anal. 1).

    p(sd) proportional to (1 + (sd / scale)^2 / df)^(-(df + 1) / 2), sd > 0.

    Parameters
    ----------
    df : degrees of freedom; 1 for the half-Cauchy, ``inf`` for the half-normal
    scale : in units of the standard deviation; None for 2.5 residual standard
        deviations of the response from the fixed part, over that of the covariate

    Examples
    --------
    >>> print(half_t(3, 50))
    half_t(3, 50)
    """
    _require_positive(df, "half_t: df", infinite=True)
    if scale is not None:
        _require_positive(scale, "half_t: scale")
    return HalfT(float(df), None if scale is None else float(scale))


def lkj(eta: float = 1.0) -> LKJ:
    """Return the prior |R|^(eta - 1) of a correlation matrix R.

    Lewandowski, Kurowicka and Joe (2009, J. Multivar. Anal. 100, 1989). 1 is uniform
    over correlation matrices; more draws them to zero.
    """
    _require_positive(eta, "lkj: eta")
    return LKJ(float(eta))


def inverse_wishart(df: float, scale: object) -> InverseWishart:
    """Return an inverse-Wishart prior of a covariance matrix (k, k).

    p(Sigma) proportional to |Sigma|^(-(df + k + 1) / 2) exp(-tr(scale Sigma^-1) / 2).
    Of one variance it is the inverse gamma with shape df / 2 and rate scale / 2.

    Parameters
    ----------
    df : degrees of freedom, above k - 1
    scale : (k, k) positive definite, or a number for one variance
    """
    _require_positive(df, "inverse_wishart: df")
    try:
        S = np.atleast_2d(np.array(scale, dtype=np.float64))
    except (TypeError, ValueError):
        raise DesignError(
            f"inverse_wishart: the scale is a {type(scale).__name__}, no matrix of "
            "numbers."
        ) from None
    if S.ndim != 2 or S.shape[0] != S.shape[1] or not np.allclose(S, S.T):
        raise DesignError(
            f"inverse_wishart: the scale of shape {S.shape} is no matrix "
            "that is square and symmetric."
        )
    if not np.all(np.isfinite(S)) or np.linalg.eigvalsh(S)[0] <= 0.0:
        raise DesignError("inverse_wishart: the scale is not positive definite.")
    k = len(S)
    if not df > k - 1:
        raise DesignError(
            f"inverse_wishart({df:g}) of a {k} x {k} covariance is no proper "
            f"distribution: df must be above {k - 1}.",
            hint=f"{k + 1} makes each correlation uniform.",
        )
    return InverseWishart(float(df), S)


def flat(on: Scale = "sd") -> Flat:
    """Return a uniform, improper prior; an improper posterior is refused.

    Parameters
    ----------
    on : "sd" uniform on the standard deviation (Gelman 2006); "variance"; "log", for
        the residual only, p(sigma^2) proportional to 1 / sigma^2; "covariance", on all
        variances and covariances of a term
    """
    if on not in SCALES:
        raise DesignError(
            f"A prior cannot be flat on {on!r}.",
            hint=suggest(str(on), SCALES, "Scales"),
        )
    return Flat(on)


def is_improper(prior: Prior) -> bool:
    """Whether a prior has no finite integral."""
    return isinstance(prior, Flat)


def _require_positive(value: object, what: str, *, infinite: bool = False) -> None:
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if number:
        x = float(cast("float", value))
        if x > 0.0 and (isfinite(x) or infinite):
            return
    raise DesignError(f"{what} must be a positive number, got {value!r}.")
