"""t and F tests of estimable functions K'beta = k."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import fdtrc, stdtr

from mixform._typing import Matrix, Vector
from mixform.errors import InferenceError
from mixform.estimate import Fit
from mixform.inference.satterthwaite import (
    VarianceModel,
    satterthwaite,
    satterthwaite_f,
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HypothesisTest:
    """An F test of L beta = rhs, with the t test of each row.

    Attributes
    ----------
    f_value, num_df, den_df, p_value : of the joint test
    table : for each row: estimate, se, df, t_value, p_value
    """

    f_value: float
    num_df: int
    den_df: float
    p_value: float
    table: pd.DataFrame

    def __str__(self) -> str:
        verdict = (
            f"F({self.num_df}, {self.den_df:.5g}) = {self.f_value:.5g}, "
            f"p = {self.p_value:.4g}"
        )
        return f"{self.table.to_string(float_format='{:.5g}'.format)}\n\n{verdict}"

    __repr__ = __str__


def t_ddf(L: Matrix, fit: Fit, variances: VarianceModel) -> Vector:
    """Return Satterthwaite's df of each row of L (r, p); NaN where there is none."""
    if variances.V_phi is None:
        return np.full(len(L), np.nan)
    return np.array(
        [
            satterthwaite(ell, fit.V_beta, variances.dV_beta, variances.V_phi)
            if np.any(ell)
            else np.nan
            for ell in L
        ]
    )


def t_tests(L: Matrix, rhs: Vector, fit: Fit, variances: VarianceModel) -> pd.DataFrame:
    """Return the t test of each row of L beta = rhs, for L (r, p)."""
    estimate = L @ fit.beta
    se = np.sqrt(np.einsum("ij,jk,ik->i", L, fit.V_beta, L))
    den_df = t_ddf(L, fit, variances)
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


def two_sided(t_values: Vector, den_df: Vector) -> Vector:
    """Return two-sided p values of t statistics."""
    return 2.0 * stdtr(den_df, -np.abs(t_values))


def f_test(
    L: Matrix, rhs: Vector, fit: Fit, variances: VarianceModel
) -> tuple[float, int, float, float]:
    """Return F, its numerator and denominator df and p for L beta = rhs.

    L V L' is rotated to independent contrasts, whose df are combined (Fai and Cornelius
    1996). Rows that repeat others count once.

    Raises
    ------
    InferenceError : L is zero; or its rows contradict each other
    """
    V_L = L @ fit.V_beta @ L.T
    size = np.sqrt(np.diag(V_L))
    if not np.any(size > 0.0):
        raise InferenceError("The hypothesis is empty: every coefficient of L is zero.")
    size[size == 0.0] = 1.0
    values, vectors = np.linalg.eigh(V_L / np.outer(size, size))
    solid = values > 1e-10 * values[-1]
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
    nu = t_ddf(rotation @ L, fit, variances)
    den_df = satterthwaite_f(nu) if np.all(np.isfinite(nu)) else np.nan
    return f_value, num_df, den_df, float(fdtrc(num_df, den_df, f_value))


def joint_test(
    L: Matrix, rhs: Vector, labels: tuple[str, ...], fit: Fit, variances: VarianceModel
) -> HypothesisTest:
    """Test L beta = rhs jointly and row by row, for estimable L (r, p)."""
    f_value, num_df, den_df, p_value = f_test(L, rhs, fit, variances)
    table = t_tests(L, rhs, fit, variances).set_axis(list(labels), axis=0)
    return HypothesisTest(
        f_value=f_value, num_df=num_df, den_df=den_df, p_value=p_value, table=table
    )
