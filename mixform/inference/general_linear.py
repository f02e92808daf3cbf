"""The general linear model y = X beta + e, Var(e) = sigma^2 V, for given matrices.

    X'V^-1X beta = X'V^-1y        beta = (X'V^-1X)^- X'V^-1y

by ordinary (V = I), weighted (V diagonal) or generalized least squares, which is
maximum likelihood for normal errors (Aitken 1935, Proc. R. Soc. Edinb. 55, 42). X may
have any rank. Side conditions pick one of the solutions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd
from scipy.sparse import issparse

from mixform._typing import Matrix, Vector
from mixform.design import ColumnSpace, matrix_part
from mixform.errors import DesignError
from mixform.estimate.criterion import LOG_2_PI
from mixform.inference.contrast_tests import HypothesisTest, joint_test, two_sided
from mixform.inference.estimability import read_contrast
from mixform.inference.least_squares import Exact, LeastSquares, sums_of_squares
from mixform.inference.side_conditions import side_conditions
from mixform.mme.matrix_level import column_names, floats
from mixform.mme.whitener import Whitener, whitener

#: What to do about missing values.
NONE = "Leave such rows out of y, X and V."


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Kept:
    """The estimates of the independent columns: beta (p,) and V_beta (p, p)."""

    beta: Vector
    V_beta: Matrix


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GeneralLinearModel:
    """A general linear model that was solved.

    Attributes
    ----------
    y, X : (n,), (n, c) as given
    space : which functions of beta are estimable
    beta : (c,) a solution; where X is not of full rank one of many
    ginv : (c, c) the generalized inverse of X'V^-1X that gives it
    kept : the estimates of the independent columns, the others set to zero
    sums : sums of squares; known_sigma2 : sigma^2 if it was given
    whitener : V^-1/2
    solution : how one of many solutions was chosen
    """

    y: Vector
    X: Matrix
    space: ColumnSpace
    beta: Vector
    ginv: Matrix
    kept: Kept
    sums: LeastSquares
    known_sigma2: float | None
    whitener: Whitener
    solution: str

    @property
    def params(self) -> pd.Series:
        """The solution by name."""
        return pd.Series(self.beta, index=self.space.names)

    @property
    def bse(self) -> pd.Series:
        """Standard errors of the solution."""
        variances = self.scale * self.ginv.diagonal()
        return pd.Series(np.sqrt(variances), index=self.space.names)

    @property
    def estimable(self) -> pd.Series:
        """Which coefficients are estimable by themselves: alike in all solutions."""
        possible = self.space.estimable(np.eye(len(self.beta)))
        return pd.Series(possible, index=self.space.names)

    def cov_params(self) -> pd.DataFrame:
        """Return sigma^2 (X'V^-1X)^-, of the solution that was chosen."""
        names = list(self.space.names)
        return pd.DataFrame(self.scale * self.ginv, index=names, columns=names)

    @property
    def table(self) -> pd.DataFrame:
        """The t test of each coefficient: ``estimate, se, df, t_value, p_value``."""
        se = self.bse.to_numpy()
        df = np.full(len(se), self.den_df)
        with np.errstate(divide="ignore", invalid="ignore"):
            t_values = self.beta / se
        columns = {
            "estimate": self.beta,
            "se": se,
            "df": df,
            "t_value": t_values,
            "p_value": two_sided(t_values, df),
        }
        return pd.DataFrame(columns, index=list(self.space.names))

    @property
    def scale(self) -> float:
        """The sigma^2 of standard errors: as given, or RSS / (n - rank)."""
        known = self.known_sigma2
        return self.sums.sigma2 if known is None else known

    @property
    def sigma2(self) -> float:
        """Unbiased estimate RSS / (n - rank)."""
        return self.sums.sigma2

    @property
    def sigma2_ml(self) -> float:
        """Maximum likelihood estimate RSS / n."""
        return self.sums.sigma2_ml

    @property
    def rss(self) -> float:
        """Generalized residual sum of squares (y - X beta)'V^-1(y - X beta)."""
        return self.sums.rss

    @property
    def rank(self) -> int:
        """Rank of X."""
        return self.sums.rank

    @property
    def nobs(self) -> int:
        """Number of rows."""
        return self.sums.n

    @property
    def df_resid(self) -> int:
        """Rows minus rank."""
        return self.sums.den_df

    @property
    def den_df(self) -> float:
        """Denominator df of tests: `df_resid`, or inf if sigma^2 is known."""
        return float(self.sums.den_df) if self.known_sigma2 is None else np.inf

    @property
    def rsquared(self) -> float:
        """R^2, about the generalized mean if X can express a constant."""
        return self.sums.rsquared

    @property
    def rsquared_adj(self) -> float:
        """R^2 adjusted for degrees of freedom."""
        return self.sums.rsquared_adj

    @property
    def f_value(self) -> float:
        """F of all columns beside a constant."""
        return self.sums.f_test(self.known_sigma2)[0]

    @property
    def p_value(self) -> float:
        """Upper tail of `f_value`."""
        return self.sums.f_test(self.known_sigma2)[2]

    @property
    def fittedvalues(self) -> Vector:
        """X beta, (n,): the same for all solutions."""
        return self.X[:, self.space.kept] @ self.kept.beta

    @property
    def resid(self) -> Vector:
        """Residuals y - X beta, (n,)."""
        return self.y - self.fittedvalues

    @property
    def llf(self) -> float:
        """Log-likelihood of normal errors, at sigma^2 as given or RSS / n."""
        n, known = self.sums.n, self.known_sigma2
        sigma2 = self.sigma2_ml if known is None else known
        log_dets = n * (LOG_2_PI + float(np.log(sigma2))) + self.whitener.logdet
        return -0.5 * (log_dets + self.rss / sigma2)

    @property
    def npar(self) -> int:
        """Number of parameters: the rank, and sigma^2 if it is estimated."""
        return self.rank + (self.known_sigma2 is None)

    @property
    def aic(self) -> float:
        """-2 `llf` + 2 `npar`."""
        return -2.0 * self.llf + 2.0 * self.npar

    def estimate(self, K: object) -> tuple[Vector, Vector]:
        """Return estimates of K beta, K (r, c), and their variances.

        Raises
        ------
        InferenceError : a row of K is not estimable
        """
        L, _, labels = read_contrast(K, 0, self.space.names)
        rows = self.space.require_estimable(L, labels)
        variances = np.einsum("ij,jk,ik->i", rows, self.kept.V_beta, rows)
        return rows @ self.kept.beta, variances

    def test(self, K: object, rhs: object = 0) -> HypothesisTest:
        """Test K beta = rhs; K as `Result.test` takes it.

        Raises
        ------
        InferenceError : a row of K is not estimable; says what changes it
        """
        L, right, labels = read_contrast(K, rhs, self.space.names)
        rows = self.space.require_estimable(L, labels)
        exact = Exact(V_beta=self.kept.V_beta, den_df=self.den_df)
        return joint_test(rows, right, labels, self.kept, exact)

    def blup(self, C: object) -> Vector:
        """Return the best linear unbiased prediction C V^-1 (y - X beta) of u, (q,).

        Parameters
        ----------
        C : (q, n) Cov(u, y) in the units of V: with Var(y) = sigma^2 V that is
            Cov(u, y) / sigma^2; of the mixed model y = X beta + Z u + e it is G Z'

        Raises
        ------
        DesignError : C has not n columns
        """
        whitened = self._whitened(C)
        return whitened.T @ self.whitener.whiten(self.resid)

    def pev(self, C: object, G: object) -> Vector:
        """Return the variances (q,) of the errors of `blup`.

        The diagonal of sigma^2 (G - C P C'), P = V^-1 - V^-1 X (X'V^-1X)^- X'V^-1.

        Parameters
        ----------
        C, G : Cov(u, y) and Var(u) (q, q), in the units of V
        """
        half = self._whitened(C)
        rows = self.whitener.whiten(self.X[:, self.space.kept])
        Q = np.linalg.qr(rows)[0]
        half = half - Q @ (Q.T @ half)
        values = _dense(G)
        q = half.shape[1]
        if values.shape != (q, q):
            raise DesignError(f"G has shape {values.shape}, not {(q, q)}.")
        variances = values.diagonal() - np.einsum("iq,iq->q", half, half)
        return self.scale * variances

    def _whitened(self, C: object) -> Matrix:
        values = np.atleast_2d(_dense(C))
        if values.ndim != 2 or values.shape[1] != len(self.y):
            raise DesignError(
                f"C has shape {values.shape}; y has {len(self.y)} rows.",
                hint="C = Cov(u, y) has a row for each u, a column for each y: G Z'.",
            )
        return self.whitener.whiten(np.ascontiguousarray(values.T))


def solve_general_linear(
    y: object, X: object, V: object, *, sigma2: float | None, solution: object
) -> GeneralLinearModel:
    """Solve the general linear model; see `mixform.api.gls`.

    Raises
    ------
    DesignError : shapes, values that are not finite, V not positive definite, too few
        rows, side conditions that do not pick one solution
    """
    response, columns = _checked(y, X)
    names = column_names(X)
    n = len(response)
    if sigma2 is not None:
        given = floats(sigma2, "sigma2")
        if given.ndim or not (np.isfinite(given) and given > 0.0):
            raise DesignError(f"sigma2 is {sigma2!r}, not a positive number.")
    root = whitener(V, n)
    space = matrix_part(columns, names).space
    if sigma2 is None and n <= len(space.kept):
        raise DesignError(
            f"{n} rows cannot estimate {len(space.kept)} coefficients and a variance.",
            hint="Give more rows, or the variance as sigma2=.",
        )
    white_y = root.whiten(response)
    Q, R = np.linalg.qr(root.whiten(np.ascontiguousarray(columns[:, space.kept])))
    beta = np.linalg.solve(R, Q.T @ white_y)
    half = np.linalg.solve(R, np.eye(len(beta)))
    inverse = half @ half.T
    sums = sums_of_squares(white_y, Q, root.whiten(np.ones(n)))
    T, how = side_conditions(space, solution)
    onto = T[:, space.kept]
    return GeneralLinearModel(
        y=response,
        X=columns,
        space=space,
        beta=onto @ beta,
        ginv=onto @ inverse @ onto.T,
        kept=Kept(
            beta=beta, V_beta=inverse * (sums.sigma2 if sigma2 is None else sigma2)
        ),
        sums=sums,
        known_sigma2=sigma2,
        whitener=root,
        solution=how,
    )


def _checked(y: object, X: object) -> tuple[Vector, Matrix]:
    response, columns = floats(y, "y"), as_matrix(X, "X")
    if response.ndim == 2 and 1 in response.shape:
        response = response.ravel()
    if response.ndim != 1:
        raise DesignError(f"y has shape {response.shape}, not (n,).")
    if len(columns) != len(response):
        raise DesignError(f"X has {len(columns)} rows, y has {len(response)}.")
    if not len(response):
        raise DesignError("y has no rows.")
    bad = np.flatnonzero(~np.isfinite(response))
    if len(bad):
        raise DesignError(
            f"y is missing or infinite in row {int(bad[0]) + 1}.", hint=NONE
        )
    return response, columns


def as_matrix(values: object, name: str) -> Matrix:
    """Return a matrix of finite numbers, dense.

    Raises
    ------
    DesignError : no matrix; values that are missing or infinite
    """
    columns = _dense(values, name)
    if columns.ndim != 2:
        raise DesignError(
            f"{name} has shape {columns.shape}; it is a matrix (n, c).",
            hint=f"One column is {name}.reshape(-1, 1).",
        )
    bad = np.flatnonzero(~np.isfinite(columns).all(axis=1))
    if len(bad):
        where = int(bad[0]) + 1
        raise DesignError(f"{name} is missing or infinite in row {where}.", hint=NONE)
    return columns


def _dense(values: object, name: str = "The matrix") -> Matrix:
    if issparse(values):
        values = cast("Any", values).toarray()
    return floats(values, name)
