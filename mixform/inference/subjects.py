"""Tests, intervals and predictions of the regressions of subjects."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from mixform._typing import AnyArray, Codes, Matrix, Vector
from mixform.errors import InferenceError, suggest
from mixform.estimate.subjects import SubjectFits
from mixform.inference.contrast_tests import two_sided
from mixform.inference.intervals import require_level
from mixform.inference.new_rows import NewRows


def by_subject(fits: SubjectFits, values: Matrix) -> pd.DataFrame:
    """Return numbers for each subject and coefficient, (m, k), as a frame."""
    return pd.DataFrame(values, index=_index(fits), columns=list(fits.names))


def of_subjects(fits: SubjectFits, values: AnyArray, name: str) -> pd.Series:
    """Return a number for each subject, (m,), as a Series."""
    return pd.Series(values, index=_index(fits), name=name)


def standard_errors(fits: SubjectFits) -> Matrix:
    """Return the standard errors of the coefficients, (m, k)."""
    scale = np.einsum("icd,icd->ic", fits.roots, fits.roots)
    return np.sqrt(fits.variances[:, None] * scale)


def degrees_of_freedom(fits: SubjectFits) -> Vector:
    """Return those of the residual variance that each subject's tests use, (m,)."""
    if fits.pool:
        return np.full(fits.m, float(fits.pooled_df))
    return fits.subject_df.astype(float)


def t_statistics(fits: SubjectFits) -> tuple[Matrix, Matrix]:
    """Return t statistics and two-sided p values, (m, k) each."""
    with np.errstate(divide="ignore", invalid="ignore"):
        t_values = fits.coefficients / standard_errors(fits)
    return t_values, two_sided(t_values, degrees_of_freedom(fits)[:, None])


def confidence_limits(fits: SubjectFits, level: float) -> pd.DataFrame:
    """Return ``estimate, lower, upper`` by subject and coefficient.

    Raises
    ------
    InferenceError : level outside (0, 1)
    """
    require_level(level)
    quantile = stdtrit(degrees_of_freedom(fits), 0.5 * (1.0 + level))
    width = quantile[:, None] * standard_errors(fits)
    index = pd.MultiIndex.from_product([_index(fits), list(fits.names)])
    index.names = [_index(fits).name, "coefficient"]
    estimate = fits.coefficients
    limits = {"estimate": estimate, "lower": estimate - width}
    limits["upper"] = estimate + width
    return pd.DataFrame({n: v.ravel() for n, v in limits.items()}, index=index)


def covariance(fits: SubjectFits, subject: object) -> pd.DataFrame:
    """Return the covariance of one subject's coefficients, (k, k).

    Raises
    ------
    InferenceError : there is no such subject
    """
    place = _place(fits, str(subject))
    root = fits.roots[place]
    values = fits.variances[place] * root @ root.T
    return pd.DataFrame(values, index=list(fits.names), columns=list(fits.names))


def predict(fits: SubjectFits, newdata: object) -> pd.Series:
    """Predict with each subject's own regression.

    Returns
    -------
    Series with the index of newdata; NaN where a needed value is missing

    Raises
    ------
    InferenceError : a subject that has no regression
    """
    design = fits.design
    if newdata is None:
        return pd.Series(fits.fitted, index=design.row_index)
    # NewRows reads the design of a fit only, where residuals have no structure.
    rows = NewRows(cast("Any", fits), newdata, [0])
    out = np.full(len(rows.index), np.nan)
    if rows.n:
        codes, labels, _ = rows.random(0)
        _require_known(fits, codes, labels)
        values = np.einsum("ij,ij->i", rows.all_columns(), fits.coefficients[codes])
        out[rows.complete] = values + rows.offset()
    return pd.Series(out, index=rows.index)


def _require_known(fits: SubjectFits, codes: Codes, labels: pd.Index) -> None:
    if (codes < 0).any():
        label = str(labels[int(np.argmin(codes))])
        raise InferenceError(
            f"There is no regression for {_index(fits).name} {label!r}.",
            hint=suggest(label, fits.levels, "Subjects"),
        )


def _place(fits: SubjectFits, label: str) -> int:
    place = fits.levels.get_indexer(pd.Index([label], dtype=object))
    _require_known(fits, place.astype(np.int64), pd.Index([label], dtype=object))
    return int(place[0])


def _index(fits: SubjectFits) -> pd.Index:
    return fits.levels.rename(fits.design.blocks[0].term.group_label)
