"""The covariates of a random term's coefficients at values of their variables."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from mixform._typing import Vector
from mixform.design import RandomBlock
from mixform.design.model_matrix import variables_of
from mixform.design.random import level_labels
from mixform.errors import InferenceError, suggest
from mixform.estimate import Fit
from mixform.inference.new_rows import code_as_fitted


def term_variables(block: RandomBlock) -> tuple[str, ...]:
    """Return the columns of the data that a term's coefficients are made of."""
    return () if block.coded is None else variables_of(block.coded.spec.formula)


def term_covariates(
    fit: Fit, block: RandomBlock, values: Mapping[str, object]
) -> Vector:
    """Return the covariates (k,) of a term's coefficients.

    Parameters
    ----------
    values : a number or level for each of its variables

    Raises
    ------
    InferenceError : a level that is none, or no number
    """
    if block.coded is None:
        return np.ones(1)
    columns = {n: _column(fit.design.columns[n], n, v) for n, v in values.items()}
    return code_as_fitted(fit, block.coded.spec, block.term.span, columns, 1)[0]


def _column(column: pd.Series, name: str, value: object) -> pd.Series:
    """Return a value as a normalized column of one row."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        levels = level_labels(column.cat.categories)
        place = levels.get_indexer(level_labels(pd.Index([value])))
        if place[0] < 0:
            raise InferenceError(
                f"{name!r} has no level {value!r}.",
                hint=suggest(str(value), levels, "Levels"),
            )
        return pd.Series(pd.Categorical.from_codes(place, dtype=column.dtype))
    if not isinstance(value, int | float) or not np.isfinite(value):
        raise InferenceError(
            f"{name!r} is numeric, but its value is {value!r}.", hint="Give a number."
        )
    return pd.Series([float(value)])
