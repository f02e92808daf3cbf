"""Which rows of the data are in the model: those asked for, and complete."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import pandas as pd

from mixform._typing import Mask, Matrix, Vector
from mixform.design.frame import Table, aligned_values, is_missing
from mixform.errors import DesignError, suggest


def subset_rows(subset: object, table: Table) -> Mask:
    """Return the rows that ``subset=`` asks for, (N,).

    Parameters
    ----------
    subset : None, a boolean for each row, or a condition on the columns as a string

    Raises
    ------
    DesignError : it cannot be evaluated, is not boolean, or selects no row
    """
    if subset is None:
        return np.ones(len(table), dtype=bool)
    if isinstance(subset, str):
        subset = _evaluate(subset, table)
    chosen, _ = aligned_values(subset, table, "subset")
    truth = chosen.to_numpy(dtype=object)
    if not all(isinstance(value, bool | np.bool_) for value in truth):
        raise DesignError(
            "subset is not boolean.",
            hint="Give True or False for each row, or a condition as a string.",
        )
    if not truth.any():
        raise DesignError("subset selects no row.", hint="Check the condition.")
    return truth.astype(bool)


def _evaluate(condition: str, table: Table) -> object:
    mentioned = [name for name in table.names if name in condition]
    frame = pd.DataFrame(
        {n: table.column(n).array for n in dict.fromkeys(mentioned)},
        index=pd.RangeIndex(len(table)),
    )
    try:
        return np.asarray(frame.eval(condition))
    except Exception as failure:  # pandas runs the condition: anything may go wrong
        unknown = re.search(r"name '(.+?)' is not defined", str(failure))
        raise DesignError(
            f"subset={condition!r} cannot be evaluated: {failure}.",
            hint=suggest(unknown[1], table.names, "Columns")
            if unknown
            else "Write a condition on columns, e.g. 'age > 3'.",
        ) from failure


def complete_rows(
    asked: Mask, columns: Mapping[str, pd.Series], extra: Mapping[str, Vector]
) -> tuple[Mask, dict[str, int]]:
    """Find the rows without a missing value in anything the model uses.

    Parameters
    ----------
    asked : (N,) rows asked for
    columns, extra : columns, and arguments such as weights, by name

    Returns
    -------
    used : (N,) rows asked for and complete
    counts : name -> number of missing values in the rows asked for, if any

    Raises
    ------
    DesignError : no row is complete
    """
    used = asked.copy()
    counts: dict[str, int] = {}
    gaps = {name: is_missing(series) for name, series in columns.items()}
    gaps |= {name: np.isnan(values) for name, values in extra.items()}
    for name, gap in gaps.items():
        if gap.any():
            used &= ~gap
            counts[name] = int((gap & asked).sum())
    counts = {name: count for name, count in counts.items() if count}
    require_rows(used, asked, counts)
    return used, counts


def require_rows(used: Mask, asked: Mask, counts: Mapping[str, int]) -> None:
    """Require a complete row.

    Raises
    ------
    DesignError : there is none; counts the missing values by column
    """
    if not used.any():
        raise DesignError(
            f"No row is complete; missing values by column: {listed(counts)} "
            f"(of {int(asked.sum())} rows).",
            hint="Leave the column that is missing out of the model, or fill it.",
        )


def take(series: pd.Series, used: Mask) -> pd.Series:
    """Return a copy of the rows in use; categories that no longer occur are dropped.

    A copy, because tests of terms code these columns later, and the user may have
    changed the table by then.
    """
    if used.all():
        series = series.copy(deep=True)
    else:
        series = series[used].reset_index(drop=True)
    if isinstance(series.dtype, pd.CategoricalDtype):
        series = series.cat.remove_unused_categories()
    return series


def listed(counts: Mapping[str, int]) -> str:
    """Return counts by name in words: ``x 3, trt 1``."""
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def all_finite(values: Matrix) -> bool:
    """Return whether all entries are finite."""
    # A sum is NaN or infinite if any entry is, and costs one pass.
    with np.errstate(all="ignore"):
        return bool(np.isfinite(values.sum()) or np.isfinite(values).all())


def without_undefined(
    used: Mask, undefined: Mapping[str, Mask], counts: Mapping[str, int]
) -> tuple[Mask, dict[str, int]]:
    """Return the rows in use without the undefined ones, and the new counts."""
    used = used.copy()
    used[np.flatnonzero(used)[np.any(list(undefined.values()), axis=0)]] = False
    more = {name: int(gap.sum()) for name, gap in undefined.items()}
    return used, {**counts, **more}


def too_few_rows(n: int, columns: Mapping[str, pd.Series]) -> str:
    """Return a hint; the usual cause is a column of numbers that was read as text."""
    for name, column in columns.items():
        if isinstance(column.dtype, pd.CategoricalDtype):
            levels = len(column.cat.categories)
            if levels > 2 and 2 * levels > n:
                return (
                    f"{name!r} is a factor with {levels} levels; convert it to numbers "
                    "if it should be a covariate."
                )
    return "Use fewer fixed effects, or more data."
