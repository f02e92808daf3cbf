"""Sums of squares of a general linear model, R^2 and the overall F test.

With rows whitened by V^-1/2, y'V^-1y = SSM + RSS. SSM is about the (generalized) mean
of y where the columns of X can express a constant, else about zero::

    R^2 = SSM / (SSM + RSS)        F = (SSM / num_df) / (RSS / (n - p))

with p the rank of X, and num_df = p - 1 or p (Searle 1971, Linear Models).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mixform._typing import Matrix, Vector
from mixform.errors import InferenceError
from mixform.estimate import Fit
from mixform.inference.approximation import Approximation
from mixform.inference.contrast_tests import HypothesisTest, f_tail, joint_test
from mixform.inference.prediction import normalized_residuals

#: Share of the whitened constant outside the span of X that is rounding.
OUTSIDE = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class LeastSquares:
    """How well a general linear model fits.

    Attributes
    ----------
    n, rank : rows; independent columns of X
    rss : generalized residual sum of squares, (y - X beta)'V^-1(y - X beta)
    ssm : sum of squares of the model
    num_df : of the model: rank, less one where X can express a constant
    """

    n: int
    rank: int
    rss: float
    ssm: float
    num_df: int

    @property
    def den_df(self) -> int:
        """Residual degrees of freedom, n - rank."""
        return self.n - self.rank

    @property
    def sigma2(self) -> float:
        """Unbiased residual variance, RSS / (n - rank)."""
        return self.rss / self.den_df if self.den_df else np.nan

    @property
    def sigma2_ml(self) -> float:
        """Residual variance by maximum likelihood, RSS / n."""
        return self.rss / self.n

    @property
    def rsquared(self) -> float:
        """Share of the (corrected) sum of squares that the model explains."""
        total = self.ssm + self.rss
        return self.ssm / total if total > 0.0 else np.nan

    @property
    def rsquared_adj(self) -> float:
        """1 - RSS / (n - rank) over the total mean square."""
        if not self.den_df:
            return np.nan
        total = self.den_df + self.num_df
        return 1.0 - (1.0 - self.rsquared) * total / self.den_df

    def f_test(self, sigma2: float | None = None) -> tuple[float, float, float]:
        """Return F of the model, its denominator df and p.

        NaN without columns beside a constant.

        Parameters
        ----------
        sigma2 : the residual variance if it is known
        """
        den_df = float(self.den_df) if sigma2 is None else np.inf
        scale = self.sigma2 if sigma2 is None else sigma2
        if not self.num_df or not den_df:
            return np.nan, den_df, np.nan
        with np.errstate(divide="ignore", invalid="ignore"):
            f_value = float(np.float64(self.ssm / self.num_df) / scale)
        return f_value, den_df, f_tail(f_value, self.num_df, den_df)


def sums_of_squares(y: Vector, Q: Matrix, constant: Vector) -> LeastSquares:
    """Return the sums of squares of whitened rows.

    Parameters
    ----------
    y : (n,) V^-1/2 y
    Q : (n, p) orthonormal basis of V^-1/2 X
    constant : (n,) V^-1/2 1
    """
    inside = Q.T @ y
    rest = y - Q @ inside
    along = beside_constant(Q, constant)
    explained = along @ inside
    return LeastSquares(
        n=len(y),
        rank=Q.shape[1],
        rss=float(rest @ rest),
        ssm=float(explained @ explained),
        num_df=len(along),
    )


def exact(fit: Fit) -> Exact:
    """Return the tests of least squares of a fit without random effects."""
    df = fit.n - len(fit.beta)
    unbiased = fit.evaluation.problem.residual_df / df
    return Exact(V_beta=fit.V_beta * unbiased, den_df=float(df))


def least_squares(fit: Fit) -> LeastSquares | None:
    """Return the sums of squares of a fit; None with random effects or a structure."""
    design = fit.design
    if design.blocks or design.residual is not None:
        return None
    y = design.y if design.offset is None else design.y - design.offset
    root = np.ones(fit.n) if design.weights is None else np.sqrt(design.weights)
    return sums_of_squares(root * y, design.fixed.Q, root)


def residual_sum_of_squares(fit: Fit) -> float:
    """Return e'R^-1e, e what X beta + Z b leaves, R relative to sigma^2."""
    rest = fit.sigma * normalized_residuals(fit)
    return float(rest @ rest)


def overall_test(fit: Fit, approximation: Approximation) -> HypothesisTest:
    """Test that all fixed effects beside a constant are zero.

    Without random effects, structure or given variance that is the exact F of least
    squares, by ML too.

    Raises
    ------
    InferenceError : there is nothing but a constant
    """
    design = fit.design
    root = np.ones(fit.n) if design.weights is None else np.sqrt(design.weights)
    fixed = design.fixed
    L = beside_constant(fixed.Q, root) @ fixed.R
    labels = tuple(f"contrast {i + 1}" for i in range(len(L)))
    if len(L) < len(fixed.kept) and np.ptp(fixed.X[:, 0]) == 0.0:
        # Beside a column that is constant the others are what is tested.
        L = np.eye(len(fixed.kept))[1:]
        labels = tuple(fixed.names[j] for j in fixed.kept[1:])
    if not len(L):
        raise InferenceError(
            "The model has no fixed effect beside a constant to test.",
            hint="Test the constant itself: test('Intercept = 0').",
        )
    if least_squares(fit) is not None and not fit.known:
        approximation = exact(fit)
    return joint_test(L, np.zeros(len(L)), labels, fit, approximation)


def beside_constant(Q: Matrix, constant: Vector) -> Matrix:
    """Return an orthonormal basis (num_df, p) of the columns of Q less a constant.

    All of them where they cannot express one.
    """
    here = Q.T @ constant
    outside = constant - Q @ here
    if float(outside @ outside) >= OUTSIDE * float(constant @ constant):
        return np.eye(Q.shape[1])
    return np.linalg.qr(here[:, None], mode="complete")[0][:, 1:].T


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Exact:
    """The t and F tests of least squares, exact for normal errors.

    Attributes
    ----------
    V_beta : (p, p) covariance of the estimates
    den_df : residual degrees of freedom; inf where the variance is known
    """

    V_beta: Matrix
    den_df: float

    @property
    def title(self) -> str:
        return "variance known" if np.isinf(self.den_df) else "exact"

    @property
    def note(self) -> None:
        return None

    def t_ddf(self, L: Matrix) -> Vector:
        return np.where(np.any(L != 0.0, axis=1), self.den_df, np.nan)

    def f_ddf(self, L: Matrix) -> tuple[float, float]:
        return self.den_df, 1.0
