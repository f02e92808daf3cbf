"""The table of mean squares: what each expects, and the test against its error term.

An error term is the combination of mean squares of random terms and the residual that
has the expectation of the mean square tested, but for what is tested. It is one mean
square, exactly, in balanced designs; else it is synthesized, with degrees of freedom by
Satterthwaite (1946, Biometrics Bull. 2, 110)::

    (sum_k c_k MS_k)^2 / sum_k (c_k MS_k)^2 / f_k
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import f as f_distribution

from mixform._typing import Matrix, Vector
from mixform.design import RandomBlock
from mixform.errors import InferenceError
from mixform.estimate import Fit
from mixform.estimate.anova import basis_after, columns_of, rest_after, span
from mixform.estimate.mean_squares import SUMS, MeanSquares
from mixform.estimate.responses import checked_response
from mixform.inference.hypotheses import contains
from mixform.inference.variance_components import block_labels

COLUMNS = ["num_df", "sum_sq", "mean_sq", "den_df", "f_value", "p_value"]

#: Size of a coefficient, relative to the largest, that is nothing but rounding.
ROUNDING = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FixedSource:
    """The mean square of a fixed term.

    Attributes
    ----------
    name : of the term
    num_df, mean_sq : its degrees of freedom, which may be none, and mean square
    expectation : (r + 1,) coefficients of the variances in its expectation
    quadratic : names of the fixed terms that are in it
    """

    name: str
    num_df: int
    mean_sq: float
    expectation: Vector
    quadratic: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MeanSquaresReport:
    """Mean squares by source, as they are laid out.

    Attributes
    ----------
    table : by source, ``num_df, sum_sq, mean_sq, den_df, f_value, p_value``
    expectations : by source, the coefficient of each variance
    components : by variance, ``estimate, se``
    expected, errors : by source in symbols, "" where there is none
    heading, notes : what stands around it
    """

    table: pd.DataFrame
    expectations: pd.DataFrame
    components: pd.DataFrame
    expected: tuple[str, ...]
    errors: tuple[str, ...]
    heading: str
    notes: tuple[str, ...]


def mean_squares(fit: Fit) -> MeanSquaresReport:
    """Return the mean squares of all terms.

    Fixed terms are after all terms that do not contain them, or of type 1 after the
    fixed terms before them.

    Raises
    ------
    InferenceError : the fit is not by analysis of variance
    """
    if fit.anova is None:
        raise InferenceError(
            f"A fit by {fit.method} has no mean squares.",
            hint='Fit the model with method="ANOVA".',
        )
    found = fit.anova
    every = _fixed_sources(fit, found.sums)
    fixed = [one for one in every if one.num_df]
    names = (*block_labels(fit), "Residual")
    rows: list[tuple[float, ...]] = []
    expected: list[str] = []
    errors: list[str] = []
    for one in fixed:
        tested, error = _tested(one.num_df, one.mean_sq, one.expectation, found)
        rows.append((one.num_df, one.num_df * one.mean_sq, one.mean_sq, *tested))
        expected.append(_expected(one.expectation, names, one.quadratic))
        errors.append(_combination(error, names))
    for i in range(len(names)):
        num_df, mean_sq = float(found.num_df[i]), float(found.mean_sq[i])
        expectation = found.expectation[i].copy()
        expected.append(_expected(expectation, names, ()))
        expectation[i] = 0.0
        tested, error = (np.nan,) * 3, np.zeros(0)
        if i < len(names) - 1:
            tested, error = _tested(num_df, mean_sq, expectation, found)
        rows.append((num_df, num_df * mean_sq, mean_sq, *tested))
        errors.append(_combination(error, names))
    sources = [*(one.name for one in fixed), *names]
    table = pd.DataFrame(rows, index=sources, columns=COLUMNS)
    coefficients = np.vstack([*(one.expectation for one in fixed), found.expectation])
    return MeanSquaresReport(
        table=table.astype({"num_df": int}),
        expectations=pd.DataFrame(coefficients, index=sources, columns=list(names)),
        components=_components(found, names),
        expected=tuple(expected),
        errors=tuple(errors),
        heading=f"Analysis of variance by {SUMS[found.sums]}",
        notes=tuple(_notes(every, table, errors)),
    )


def _components(found: MeanSquares, names: Sequence[str]) -> pd.DataFrame:
    """Return the estimates with standard errors from their sampling covariance.

    NaN where negative estimates make that no covariance matrix.
    """
    variances = found.V.diagonal()
    se = np.sqrt(np.where(variances >= 0.0, variances, np.nan))
    return pd.DataFrame({"estimate": found.components, "se": se}, index=list(names))


def _notes(
    fixed: Sequence[FixedSource], table: pd.DataFrame, errors: Sequence[str]
) -> list[str]:
    """Say what is not in the table."""
    notes = [
        f"{one.name} has no degrees of freedom after the other terms."
        for one in fixed
        if not one.num_df
    ]
    for name, error, value in zip(table.index, errors, table["f_value"], strict=True):
        if error and np.isnan(value):
            notes.append(f"{name} is not tested: its error term is not positive.")
    return notes


def _fixed_sources(fit: Fit, sums: str) -> list[FixedSource]:
    fixed, blocks = fit.design.fixed, fit.design.blocks
    columns = columns_of(fit.design)
    X = _unit_columns(fit)
    response = checked_response(fit.design)
    y = columns.Q @ response.projection[:, 0]
    y += response.y_scale[0] * response.rest[:, 0]
    terms, kept = fixed.coded.terms, set(fixed.kept)
    # A term is all its columns, aliased ones too, or out of the model.
    own = [list(t.columns) if kept & set(t.columns) else [] for t in terms]
    left: dict[frozenset[int], Matrix] = {}
    out: list[FixedSource] = []
    for t, term in enumerate(terms):
        if not (term.factors or term.covariates) or not own[t]:
            continue
        others, random = list(range(t)), frozenset[int]()
        if sums != "type1":
            others = [
                s for s, u in enumerate(terms) if s != t and not contains(u, term)
            ]
            values = fixed.coded.values[:, list(term.columns)]
            random = frozenset(
                j for j, block in enumerate(blocks) if not _spans(block, values)
            )
        if random not in left:
            left[random] = rest_after(columns, span(columns, random, fixed=False), X)
        rest = left[random]
        U = basis_after([rest[:, own[s]] for s in others], rest[:, own[t]])
        num_df = U.shape[1]
        traces = [*(_squares(U, Z) for Z in columns.Z), num_df]
        out.append(
            FixedSource(
                name=term.name,
                num_df=num_df,
                mean_sq=float(np.sum((U.T @ y) ** 2)) / max(num_df, 1),
                expectation=_clean(traces, num_df),
                quadratic=tuple(
                    other.name
                    for s, other in enumerate(terms)
                    if own[s]
                    and (contains(other, term) or _squares(U, X[:, own[s]]) > ROUNDING)
                ),
            )
        )
    return out


def _unit_columns(fit: Fit) -> Matrix:
    """Return X (n, c) with aliased columns, weighted, its columns of unit length."""
    X = fit.design.fixed.coded.values
    if fit.design.weights is not None:
        X = X * np.sqrt(fit.design.weights)[:, None]
    lengths = np.sqrt(np.einsum("ij,ij->j", X, X))
    return X / np.where(lengths > 0.0, lengths, 1.0)


def _spans(block: RandomBlock, values: Matrix) -> bool:
    """Whether columns (n, c) are multiples of a term's covariate within its levels.

    For a random intercept: whether they do not vary within levels.
    """
    covariate = block.design[:, 0]
    used = covariate != 0.0
    if np.any(values[~used]):
        return False
    factor = values[used] / covariate[used, None]
    order = np.argsort(block.codes[used], kind="stable")
    same = np.diff(block.codes[used][order]) == 0
    change = np.abs(np.diff(factor[order], axis=0)[same])
    return not np.any(change > ROUNDING * np.abs(factor).max(initial=0.0))


def _squares(U: Matrix, columns: Any) -> float:
    return float(np.sum(np.square(columns.T @ U)))


def _clean(traces: Sequence[float], num_df: int) -> Vector:
    """Return coefficients without what rounding left of a zero."""
    out = np.array(traces, dtype=np.float64) / max(num_df, 1)
    out[np.abs(out) < ROUNDING * out.max()] = 0.0
    return out


def _tested(
    num_df: float, mean_sq: float, expectation: Vector, found: MeanSquares
) -> tuple[tuple[float, float, float], Vector]:
    """Return error df, F and p; and the error term's combination (r + 1,)."""
    c = np.linalg.solve(found.expectation.T, expectation)
    c[np.abs(c) < ROUNDING * np.abs(c).max()] = 0.0
    parts = c * found.mean_sq
    error = float(parts.sum())
    den_df = error**2 / float(np.sum(parts**2 / found.num_df))
    if error <= 0.0:
        return (np.nan, np.nan, np.nan), c
    f_value = mean_sq / error
    return (den_df, f_value, float(f_distribution.sf(f_value, num_df, den_df))), c


def _expected(
    coefficients: Vector, names: Sequence[str], quadratic: Sequence[str]
) -> str:
    """Return an expectation as SAS prints it: ``Var(Residual) + 2 Var(A:Block)``."""
    order = range(len(names) - 1, -1, -1)
    parts = [
        f"{_times(float(coefficients[j]))}Var({names[j]})"
        for j in order
        if coefficients[j] != 0.0
    ]
    if quadratic:
        parts.append(f"Q({', '.join(quadratic)})")
    return " + ".join(parts)


def _combination(c: Vector, names: Sequence[str]) -> str:
    """Return a combination of mean squares in symbols."""
    out = ""
    for value, name in zip(c.tolist(), names, strict=False):
        if value == 0.0:
            continue
        sign = " - " if value < 0.0 else " + "
        lead = sign if out else sign.strip(" +")
        out += f"{lead}{_times(abs(value))}MS({name})"
    return out


def _times(value: float) -> str:
    """Return a factor to four digits; none where it is exactly one."""
    if abs(value - 1.0) < ROUNDING:
        return ""
    shown = f"{value:.4g}"
    return f"{shown if 'e' not in shown else f'{value:.0f}'} "
