"""F tests that marginal means are equal, and of the terms of a model by them.

As R's emmeans (Lenth): of hypotheses that are not all estimable, the estimable ones of
their span are tested, and the numerator df are fewer.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from mixform._typing import Codes, Matrix, Vector
from mixform.design import FixedPart
from mixform.errors import InferenceError
from mixform.estimate import Fit
from mixform.inference.approximation import Approximation
from mixform.inference.contrast_tests import f_test
from mixform.inference.means.averaging import average
from mixform.inference.means.linear_estimates import LinearEstimates
from mixform.inference.means.means import read_specs, with_parents
from mixform.inference.means.reference_grid import (
    ReferenceGrid,
    code_grid,
    reference_grid,
)

COLUMNS = ["num_df", "den_df", "f_value", "p_value"]
FEWER = "num_df is smaller where some hypotheses are not estimable."


def estimable_part(L: Matrix, rhs: Vector, fixed: FixedPart) -> tuple[Matrix, Vector]:
    """Return combinations of the rows of L (r, c) that span all estimable ones.

    Rows that are NaN are left out.

    Returns
    -------
    L : (s, p) over the kept columns
    rhs : (s,)
    """
    there = ~np.isnan(L).any(axis=1)
    L, rhs = L[there], rhs[there]
    kept = L[:, fixed.kept]
    if not fixed.aliased or not len(L):
        return kept, rhs
    U, values, _ = np.linalg.svd(fixed.space.changes(L))
    rank = int(np.sum(values > 1e-6 * max(1.0, float(np.abs(L).max()))))
    w = U[:, rank:].T
    return w @ kept, w @ rhs


def _test(
    L: Matrix, rhs: Vector, fit: Fit, approximation: Approximation
) -> tuple[int, float, float, float]:
    """Return num_df, den_df, F and p of the estimable part; num_df is 0 for none."""
    rows, right = estimable_part(L, rhs, fit.design.fixed)
    if not len(rows) or not np.any(np.abs(rows) > 1e-12):
        return 0, np.nan, np.nan, np.nan
    f_value, num_df, den_df, p_value = f_test(rows, right, fit, approximation)
    return num_df, den_df, f_value, p_value


def equality_tests(estimates: LinearEstimates) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Test in each group that all estimates are equal.

    Returns
    -------
    table : the by variables, ``num_df, den_df, f_value, p_value``
    notes : how; and whether hypotheses were left out
    """
    rows_out: list[tuple[Any, ...]] = []
    fewer = False
    for rows in estimates.groups():
        heading = tuple(estimates.labels[name].iloc[rows[0]] for name in estimates.by)
        L, rhs = _differences(estimates, rows)
        result = _test(L, rhs, estimates.fit, estimates.approximation)
        fewer |= result[0] < len(rows) - 1
        rows_out.append((*heading, *result))
    table = pd.DataFrame(rows_out, columns=[*estimates.by, *COLUMNS])
    return table, _notes(estimates.approximation, fewer=fewer)


def _differences(estimates: LinearEstimates, rows: Codes) -> tuple[Matrix, Vector]:
    """Return all later rows minus the first that exists, and their right-hand side."""
    L, offset = estimates.L[rows], estimates.offset[rows]
    there = ~np.isnan(L).any(axis=1)
    L, offset = L[there], offset[there]
    return L[1:] - L[:1], offset[:1] - offset[1:]


def _notes(approximation: Approximation, *, fewer: bool) -> tuple[str, ...]:
    notes = [f"Degrees-of-freedom method: {approximation.title.lower()}"]
    if approximation.note:
        notes.append(approximation.note)
    return (*notes, FEWER) if fewer else tuple(notes)


def joint_tests(
    fit: Fit,
    approximation: Approximation,
    *,
    by: object = None,
    at: Mapping[str, object] | None = None,
) -> tuple[pd.DataFrame, tuple[str, ...], tuple[str, ...]]:
    """Test each set of variables that interact: main effects and interactions.

    The contrasts of the equally weighted means of each set are tested, those of an
    interaction as differences of differences. Covariates are compared at their mean
    plus and minus one.

    Parameters
    ----------
    by : variables in each combination of whose levels the tests are made
    at : values of variables, instead of all levels or mean -/+ 1

    Returns
    -------
    table : the by variables, ``term, num_df, den_df, f_value, p_value``
    notes : how it was made
    by : the names of the by variables

    Raises
    ------
    InferenceError : as `means.emmeans`; or there is nothing to test
    """
    grid = reference_grid(fit, _around_means(fit, at))
    groups = read_specs(fit, grid, "1", by)[1]
    groups = with_parents(grid, (), groups)[1]
    X = code_grid(fit, grid.values(), len(grid.places))
    sets = _tested_sets(grid, groups)
    if not sets:
        raise InferenceError(
            "There is nothing to test besides the by variables.",
            hint="Leave some variable out of by.",
        )
    rows_out: list[tuple[Any, ...]] = []
    fewer = False
    for names in sets:
        labels, L, _ = average(grid, X, (*names, *groups), "equal")
        for heading, rows in _group_rows(labels, groups):
            C = _interaction(grid, names, labels.iloc[rows])
            if C is None:
                continue
            product = _without_missing(C, L[rows])
            result = _test(product, np.zeros(len(product)), fit, approximation)
            fewer |= result[0] < len(C)
            if result[0] > 0:
                rows_out.append((*heading, ":".join(names), *result))
    table = pd.DataFrame(rows_out, columns=[*groups, "term", *COLUMNS])
    if groups:
        table = table.sort_values(list(groups), kind="stable", ignore_index=True)
    return table, _notes(approximation, fewer=fewer), groups


def _around_means(fit: Fit, at: Mapping[str, object] | None) -> dict[str, object]:
    """Return values of the covariates that the user did not set: mean -/+ 1."""
    values = dict(at) if isinstance(at, Mapping) else {}
    for name, variable in reference_grid(fit, at).variables.items():
        if not variable.is_factor and name not in values:
            values[name] = [variable.levels[0] - 1.0, variable.levels[0] + 1.0]
    return values


def _tested_sets(grid: ReferenceGrid, by: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Return the sets of variables inside some term, small ones first."""
    names = [n for n, v in grid.variables.items() if n not in by and len(v.levels) > 1]
    terms = [
        *grid.terms,
        *(frozenset([name, *above]) for name, above in grid.parents.items()),
    ]
    largest = max((len(term) for term in terms), default=0)
    return [
        chosen
        for size in range(1, largest + 1)
        for chosen in combinations(names, size)
        if any(set(chosen) <= term for term in terms)
        and all(set(grid.parents.get(name, ())) <= {*chosen, *by} for name in chosen)
    ]


def _group_rows(
    labels: pd.DataFrame, by: tuple[str, ...]
) -> list[tuple[tuple[Any, ...], Codes]]:
    if not by:
        return [((), np.arange(len(labels)))]
    codes = labels.groupby(list(by), observed=True, sort=False).ngroup().to_numpy()
    out: list[tuple[tuple[Any, ...], Codes]] = []
    for g in range(int(codes.max()) + 1):
        rows = np.flatnonzero(codes == g)
        out.append((tuple(labels[name].iloc[rows[0]] for name in by), rows))
    return out


def _interaction(
    grid: ReferenceGrid, names: tuple[str, ...], labels: pd.DataFrame
) -> Matrix | None:
    """Return differences of differences over the rows, None if there are none.

    A factor nested in others of the set is compared within their levels only.
    """
    nests = {p for name in names for p in grid.parents.get(name, ())}
    inner = [name for name in names if name not in nests]
    outer = [name for name in names if name in nests]
    blocks: list[Matrix] = []
    for _, rows in _group_rows(labels, tuple(outer)):
        sizes = [labels[name].iloc[rows].nunique() for name in inner]
        if int(np.prod(sizes)) != len(rows) or min(sizes) < 2:
            continue
        C = np.ones((1, 1))
        for m in sizes:  # the first varies fastest
            C = np.kron(np.diff(np.eye(m), axis=0), C)
        block = np.zeros((len(C), len(labels)))
        block[:, rows] = C
        blocks.append(block)
    return np.concatenate(blocks) if blocks else None


def _without_missing(C: Matrix, L: Matrix) -> Matrix:
    missing = np.isnan(L).any(axis=1)
    product = C @ np.where(missing.reshape(-1, 1), 0.0, L)
    product[np.abs(C[:, missing]).sum(axis=1) > 0.0] = np.nan
    return product
