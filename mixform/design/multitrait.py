"""Several traits in columns to one row for each record and trait.

A multivariate model in long format has one response, a factor ``trait`` and the record
that joins the traits of one animal: ``us(0 + trait | animal)`` is their genetic
covariance, ``us(trait | record)`` that of their residuals.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import numpy as np
import pandas as pd

from mixform._typing import Matrix
from mixform.design.frame import Table, as_numbers
from mixform.errors import DesignError, suggest


def multitrait(
    traits: Iterable[str],
    data: object,
    *,
    trait: str = "trait",
    value: str = "value",
    record: str = "record",
) -> pd.DataFrame:
    """Return a row for each record and trait, for a multivariate model.

    Parameters
    ----------
    traits : two or more numeric columns
    data : pandas, polars or pyarrow table, mapping of columns, path to CSV or Parquet
    trait, value, record : names of the columns that are made

    Returns
    -------
    frame : ``record`` (the label of the row in the index of pandas data, else its
        number from 0), ``trait`` (categorical, ordered as given), ``value``, and all
        other columns. Row by row, trait by trait; traits that were not measured have no
        row, and ``attrs["n_missing"]`` counts them by trait

    Raises
    ------
    DesignError : a trait is unknown, no number, twice there or never measured; fewer
        than two of them; a name that is taken; labels of rows that are not unique

    Examples
    --------
    >>> wide = {"calf": ["a", "b"], "wwg": [4.5, 2.9], "pwg": [6.8, None]}
    >>> multitrait(["wwg", "pwg"], wide)
       record trait  value calf
    0       0   wwg    4.5    a
    1       0   pwg    6.8    a
    2       1   wwg    2.9    b
    """
    table = Table(data)
    chosen = _require_traits(traits, table)
    others = [name for name in table.names if name not in chosen]
    _require_names({"trait": trait, "value": value, "record": record}, others)
    labels = _record_labels(table)
    values = _values(table, chosen)
    known = ~np.isnan(values)
    rows, places = np.nonzero(known)
    columns = {
        record: labels.take(rows).array,
        trait: pd.Categorical.from_codes(
            cast("Any", places), categories=cast("Any", chosen), ordered=True
        ),
        value: values[rows, places],
    }
    columns |= {name: table.column(name).array.take(rows) for name in others}
    long = pd.DataFrame(columns)
    missing = (~known).sum(axis=0).tolist()
    long.attrs["n_missing"] = dict(zip(chosen, missing, strict=True))
    return long


def _require_traits(traits: object, table: Table) -> list[str]:
    if isinstance(traits, str) or not isinstance(traits, Iterable):
        raise DesignError(
            f"traits is {traits!r}, not a list of columns.",
            hint='Write multitrait(["wwg", "pwg"], data).',
        )
    chosen = [str(name) for name in traits]
    for name in chosen:
        if name not in table:
            raise DesignError(
                f"Unknown trait {name!r}.", hint=suggest(name, table.names, "Columns")
            )
        if chosen.count(name) > 1:
            raise DesignError(
                f"The trait {name!r} is named twice.", hint="Name each trait once."
            )
    if len(chosen) < 2:
        raise DesignError(
            f"A multivariate model has two traits or more, not {len(chosen)}.",
            hint="Fit a single trait as it is, without multitrait().",
        )
    if not len(table):
        raise DesignError("The data have no rows.", hint="Check how they were read.")
    return chosen


def _values(table: Table, chosen: list[str]) -> Matrix:
    columns = [as_numbers(table.column(name), name) for name in chosen]
    for name, column in zip(chosen, columns, strict=True):
        if np.isnan(column).all():
            raise DesignError(
                f"The trait {name!r} has no value.", hint="Leave it out of traits."
            )
    return np.column_stack(columns)


def _require_names(made: dict[str, str], others: list[str]) -> None:
    names = list(made.values())
    for argument, name in made.items():
        if name in others:
            raise DesignError(
                f"The data have a column {name!r} already.",
                hint=f"Give another name: {argument}=...",
            )
        if names.count(name) > 1:
            raise DesignError(
                f"Two of the columns to make are named {name!r}.",
                hint="Give trait=, value= and record= names of their own.",
            )


def _record_labels(table: Table) -> pd.Index:
    """Return the label of each row.

    Raises
    ------
    DesignError : two rows have the same, or labels are tuples
    """
    index = table.index
    hint = "Call reset_index() first, or give the rows unique labels."
    if isinstance(index, pd.MultiIndex):
        raise DesignError("The index of the data has several levels.", hint=hint)
    if index.has_duplicates or index.hasnans:
        twice = index[index.duplicated() | index.isna()][0]
        raise DesignError(
            f"The index of the data does not tell rows apart: {twice} is there twice "
            "or missing.",
            hint=hint,
        )
    return index
