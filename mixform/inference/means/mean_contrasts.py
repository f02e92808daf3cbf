"""Contrasts of estimates, within groups."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pandas as pd
from pandas.api.types import is_bool_dtype, is_numeric_dtype
from scipy.linalg import block_diag

from mixform._typing import Codes, Matrix, Vector
from mixform.errors import InferenceError
from mixform.inference.intervals import require_level
from mixform.inference.means.adjustment import read_adjustment
from mixform.inference.means.contrast_methods import (
    ContrastMethod,
    custom_contrasts,
    find_level,
    read_method,
)
from mixform.inference.means.linear_estimates import (
    LinearEstimates,
    evaluate_rows,
)

#: Signs that would be confused with those between labels.
SIGNS = re.compile(r"[-+*/]")


def contrast(
    estimates: LinearEstimates,
    method: object,
    *,
    adjust: str | None = None,
    by: object = None,
    ref: object = None,
    level: float | None = None,
) -> LinearEstimates:
    """Return contrasts of estimates, within groups.

    Parameters
    ----------
    method : a name of `contrast_methods`, or coefficients: a matrix, a mapping of
        levels to numbers, or of labels to either
    adjust : instead of the method's default
    by : the variables that make groups, instead of those of the estimates; [] for none
    ref : the level that others are compared with; the first if None
    level : of confidence limits, instead of that of the estimates

    Raises
    ------
    InferenceError : unknown method, variable, level or adjustment; wrong coefficients
    """
    known = read_method(method)
    columns = read_columns(by)
    groups_by = estimates.by if columns is None else columns
    level = estimates.level if level is None else level
    require_level(level)
    if ref is not None and (known is None or not known.has_control):
        hint = 'Use method="trt.vs.ctrl".'
        raise InferenceError("ref= is for comparisons with a control only.", hint=hint)
    groups = estimates.groups(groups_by)
    parts = [
        _one_group(estimates, rows, groups_by, known, (method, ref)) for rows in groups
    ]
    C = cast("Matrix", block_diag(*(block for _, block in parts)))
    L, offset = _combined(estimates, C, np.concatenate(groups))
    fit, approximation = estimates.fit, estimates.approximation
    estimate, se, den_df = evaluate_rows(fit, approximation, L, offset)
    sums_to_zero = np.abs(C.sum(axis=1)) <= 1e-6 * np.abs(C).max(axis=1)
    is_log = estimates.scale is not None and estimates.scale.is_log
    ratios = bool(np.all(sums_to_zero)) and is_log
    if adjust is None:
        adjust = "none" if known is None else known.adjust
    return replace(
        estimates,
        labels=_labels(estimates, groups, groups_by, parts, ratios=ratios),
        by=groups_by,
        L=L,
        offset=offset,
        estimate=estimate,
        se=se,
        den_df=den_df,
        kind="pairwise" if known is not None and known.pairwise else "contrast",
        name="estimate",
        ratios=ratios,
        adjust=read_adjustment(adjust),
        level=level,
    )


def _combined(
    estimates: LinearEstimates, C: Matrix, order: Codes
) -> tuple[Matrix, Vector]:
    """Return C L, NaN in rows that involve a mean that does not exist, and C offset."""
    L, offset = estimates.L[order], estimates.offset[order]
    missing = np.isnan(L).any(axis=1)
    L = np.where(missing.reshape(-1, 1), 0.0, L)
    broken = np.abs(C[:, missing]).sum(axis=1) > 0.0
    product = C @ L
    # What rounding leaves of a difference of equal rows is zero.
    size = np.abs(C) @ np.abs(L)
    product[np.abs(product) < 1e-14 * size] = 0.0
    product[broken] = np.nan
    return product, C @ offset


def read_columns(by: object) -> tuple[str, ...] | None:
    """Return names of columns given as one, several or None."""
    if by is None:
        return None
    names = [by] if isinstance(by, str) else cast("Sequence[Any]", by)
    return tuple(dict.fromkeys(map(str, names)))


def level_names(
    estimates: LinearEstimates, rows: Codes, by: tuple[str, ...]
) -> tuple[list[tuple[Any, ...]], list[str]]:
    """Return the levels of some rows as tuples, and as they are displayed.

    Numbers get the name of their variable: ``dose10``.
    """
    columns = [name for name in estimates.labels.columns if name not in by]
    table = estimates.labels.iloc[rows][columns]
    shown: list[list[str]] = []
    for name in columns:
        # A category that holds numbers is a number to a reader.
        column = table[name]
        values = pd.Index(column.cat.categories) if hasattr(column, "cat") else column
        number = is_numeric_dtype(values.dtype) and not is_bool_dtype(values.dtype)
        prefix = name if number else ""
        shown.append([f"{prefix}{_text(value)}" for value in column])
    levels = list(table.itertuples(index=False, name=None))
    labels = [" ".join(parts) for parts in zip(*shown, strict=True)]
    if not columns:  # every variable makes groups: one mean in each
        levels, labels = [()] * len(rows), ["mean"] * len(rows)
    return levels, labels


def _text(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _one_group(
    estimates: LinearEstimates,
    rows: Codes,
    by: tuple[str, ...],
    known: ContrastMethod | None,
    given: tuple[object, object],
) -> tuple[list[str], Matrix]:
    method, ref = given
    levels, labels = level_names(estimates, rows, by)
    if known is None:
        return custom_contrasts(method, levels, labels)
    control = 0 if ref is None else find_level(ref, levels, labels)
    shown = [f"({label})" if SIGNS.search(label) else label for label in labels]
    names, C = known.rule(shown, control)
    return names, C.reshape(len(names), len(rows))


def _labels(
    estimates: LinearEstimates,
    groups: tuple[Codes, ...],
    by: tuple[str, ...],
    parts: list[tuple[list[str], Matrix]],
    *,
    ratios: bool,
) -> pd.DataFrame:
    names = [label for labels, _ in parts for label in labels]
    counts = [len(block) for _, block in parts]
    sign = "/" if ratios and estimates.response else "-"
    title = "contrast"
    while title in estimates.labels.columns and title in by:
        title += "1"
    out = pd.DataFrame({title: [name.replace("{}", sign) for name in names]})
    first = np.repeat([members[0] for members in groups], counts)
    for name in by:
        out[name] = estimates.labels[name].iloc[first].to_numpy()
        column = estimates.labels[name]
        if isinstance(column.dtype, pd.CategoricalDtype):
            out[name] = pd.Categorical(out[name], dtype=column.dtype)
    return out
