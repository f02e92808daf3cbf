"""t and F tests of estimable functions K'beta = k."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd
from scipy.special import chdtrc, fdtrc, stdtr

from mixform._typing import Matrix, Vector
from mixform.errors import InferenceError
from mixform.estimate import Fit
from mixform.inference.approximation import Approximation

#: Estimates whose covariance is printed.
PRINTED = 8


class Estimated(Protocol):
    """Estimated fixed effects, of a fit or of given matrices."""

    @property
    def beta(self) -> Vector:
        """Estimates, (p,), aliased ones left out."""
        ...

    @property
    def V_beta(self) -> Matrix:
        """(X'V^-1X)^-1, (p, p), units of y^2."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HypothesisTest:
    """An F test of L beta = rhs, with the t test of each row.

    Attributes
    ----------
    f_value, num_df, den_df, p_value : of the joint test; num_df is the rank of L
    table : for each row: estimate, se, df, t_value, p_value
    rhs : value of each row under the hypothesis
    covariance : (r, r) of the estimates L beta, by row
    method : of the covariance and the denominator degrees of freedom
    se_ratio : standard error of each row over that by (X'V^-1X)^-1, which ignores
        that V is estimated
    """

    f_value: float
    num_df: int
    den_df: float
    p_value: float
    table: pd.DataFrame
    rhs: pd.Series
    covariance: pd.DataFrame
    method: str
    se_ratio: pd.Series

    def __str__(self) -> str:
        shown = "{:.5g}".format
        table = self.table.copy()
        if self.rhs.any():
            table.insert(2, "rhs", self.rhs.to_numpy())
        lines = [table.to_string(float_format=shown), ""]
        if 1 < len(self.table) <= PRINTED:
            plain = self.covariance.set_axis(range(1, len(self.table) + 1), axis=1)
            lines += ["Covariance of the estimates:"]
            lines += [plain.to_string(float_format=shown), ""]
        notes: list[str] = []
        if self.num_df < len(self.table):
            notes.append(f"{len(self.table)} rows of rank {self.num_df}.")
        if self.method.startswith("Kenward-Roger"):
            notes.append(self._bias())
        lines += [f"Note: {note}" for note in notes]
        return "\n".join([*lines, self._verdict()])

    __repr__ = __str__

    def _verdict(self) -> str:
        return (
            f"F({self.num_df}, {self.den_df:.5g}) = {self.f_value:.5g}, "
            f"p = {self.p_value:.4g} ({self.method})"
        )

    def _bias(self) -> str:
        percent = 100.0 * (self.se_ratio - 1.0).round(6).to_numpy()
        low, high = percent.min(), percent.max()
        extent = f"{high:.2g} %" if low == high else f"{low:.2g} to {high:.2g} %"
        said = f"are {extent} larger" if low >= 0.0 else f"differ by {extent}"
        if high == low == 0.0:
            said = "are the same here"
        return (
            "(X'V^-1X)^-1 ignores that V is estimated; Kenward and Roger's standard "
            f"errors {said}."
        )


def t_tests(
    L: Matrix, rhs: Vector, fit: Estimated, approximation: Approximation
) -> pd.DataFrame:
    """Return the t test of each row of L beta = rhs, for L (r, p)."""
    estimate = L @ fit.beta
    se = np.sqrt(np.einsum("ij,jk,ik->i", L, approximation.V_beta, L))
    den_df = approximation.t_ddf(L)
    with np.errstate(divide="ignore", invalid="ignore"):
        t_values = (estimate - rhs) / se
    return pd.DataFrame(
        {
            "estimate": estimate,
            "se": se,
            "df": den_df,
            "t_value": t_values,
            "p_value": two_sided(t_values, den_df),
        }
    )


def coefficient_tests(fit: Fit, approximation: Approximation) -> pd.DataFrame:
    """Return the t test of each coefficient, by name; NaN if it is aliased."""
    fixed, p = fit.design.fixed, len(fit.beta)
    table = t_tests(np.eye(p), np.zeros(p), fit, approximation)
    table.index = pd.Index([fixed.names[j] for j in fixed.kept])
    return table.reindex(pd.Index(fixed.names)) if fixed.aliased else table


def two_sided(t_values: Vector, den_df: Vector) -> Vector:
    """Return two-sided p values of t statistics."""
    return 2.0 * stdtr(den_df, -np.abs(t_values))


def f_test(
    L: Matrix, rhs: Vector, fit: Estimated, approximation: Approximation
) -> tuple[float, int, float, float]:
    """Return F, its numerator and denominator df and p for L beta = rhs.

    L V L' is rotated to independent contrasts, whose df the approximation combines.
    Rows that repeat others count once.

    Raises
    ------
    InferenceError : L is zero; its rows contradict each other; or the covariance is
        singular along them, as a cluster-robust one of few clusters is
    """
    V_L = L @ approximation.V_beta @ L.T
    size = np.sqrt(np.diag(V_L))
    if not np.any(size > 0.0):
        raise InferenceError("The hypothesis is empty: every coefficient of L is zero.")
    size[size == 0.0] = 1.0
    values, vectors = np.linalg.eigh(V_L / np.outer(size, size))
    solid = values > 1e-10 * values[-1]
    _require_covariance(L, int(solid.sum()), approximation)
    gap = L @ fit.beta - rhs
    apart = vectors[:, ~solid].T @ (gap / size)
    if np.any(np.abs(apart) > 1e-6 * max(1.0, np.abs(gap / size).max())):
        raise InferenceError(
            "The rows of the hypothesis contradict each other.",
            hint="Remove the row that repeats another with a different value.",
        )
    num_df = int(solid.sum())
    along = vectors[:, solid].T @ (gap / size)
    f_value = float((along**2 / values[solid]).sum() / num_df)
    scaled = vectors[:, solid].T / size
    # For df, the rows of L as they are, not scaled: lmerTest's rotation. Rows of very
    # different size would lose their digits there.
    values, vectors = np.linalg.eigh(V_L)
    rotation = vectors[:, -num_df:].T
    if values[-num_df] < 1e-10 * values[-1]:
        rotation = scaled
    den_df, factor = approximation.f_ddf(rotation @ L)
    f_value *= factor
    return f_value, num_df, den_df, f_tail(f_value, num_df, den_df)


def _require_covariance(L: Matrix, rank: int, approximation: Approximation) -> None:
    """Refuse contrasts whose covariance has a lower rank than they have."""
    rows = np.sqrt(np.einsum("ij,ij->i", L, L))
    rows[rows == 0.0] = 1.0
    wanted = int(np.linalg.matrix_rank(L / rows[:, None], tol=1e-8))
    if rank < wanted and np.linalg.matrix_rank(approximation.V_beta) < L.shape[1]:
        raise InferenceError(
            f"The covariance by {approximation.title} has rank {rank} along the "
            f"{wanted} rows of the hypothesis.",
            hint="It takes more clusters to test so many rows at once; test fewer.",
        )


def f_tail(f_value: float, num_df: int, den_df: float) -> float:
    """Return the upper tail of F; of chi-square / num_df for infinite den_df.

    Examples
    --------
    >>> round(f_tail(-np.log(0.05), 2, np.inf), 12)  # chi-square with 2 df
    0.05
    """
    if np.isinf(den_df):
        return float(chdtrc(num_df, num_df * f_value))
    return float(fdtrc(num_df, den_df, f_value))


def joint_test(
    L: Matrix,
    rhs: Vector,
    labels: tuple[str, ...],
    fit: Estimated,
    approximation: Approximation,
) -> HypothesisTest:
    """Test L beta = rhs jointly and row by row, for estimable L (r, p)."""
    f_value, num_df, den_df, p_value = f_test(L, rhs, fit, approximation)
    names = list(labels)
    table = t_tests(L, rhs, fit, approximation).set_axis(names, axis=0)
    covariance = L @ approximation.V_beta @ L.T
    plain = np.einsum("ij,jk,ik->i", L, fit.V_beta, L)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.sqrt(covariance.diagonal() / plain)
    return HypothesisTest(
        f_value=f_value,
        num_df=num_df,
        den_df=den_df,
        p_value=p_value,
        table=table,
        rhs=pd.Series(rhs, index=names),
        covariance=pd.DataFrame(covariance, index=names, columns=names),
        method=approximation.title,
        se_ratio=pd.Series(ratio, index=names),
    )
