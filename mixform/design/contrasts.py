"""Contrasts by name: how the levels of a factor become columns of X."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from formulaic.transforms import C, ContrastsRegistry

from mixform.errors import DesignError, suggest

#: name -> formulaic's contrast; Helmert as in R (level j against the mean before it)
CONTRASTS = {
    "treatment": ContrastsRegistry.treatment,
    "sum": ContrastsRegistry.sum,
    "helmert": ContrastsRegistry.helmert,
    "poly": ContrastsRegistry.poly,
}


def resolve_contrasts(
    contrasts: Mapping[str, object] | None, columns: Mapping[str, pd.Series]
) -> dict[str, Any]:
    """Return formulaic's contrast object for each factor named.

    Parameters
    ----------
    contrasts : factor -> name, or matrix (levels, columns)
    columns : the model's fixed-effect variables

    Raises
    ------
    DesignError : unknown factor or contrast, not a factor, wrong shape of a matrix
    """
    resolved: dict[str, Any] = {}
    for name, contrast in (contrasts or {}).items():
        if name not in columns:
            raise DesignError(
                f"contrasts names {name!r}, which is no variable of the fixed part.",
                hint=suggest(name, columns, "Variables"),
            )
        if not isinstance(columns[name].dtype, pd.CategoricalDtype):
            raise DesignError(
                f"contrasts names {name!r}, which is numeric and has no levels.",
                hint=f"Write C({name}) in the formula, or convert it to strings.",
            )
        resolved[name] = _contrast(name, contrast, columns[name])
    return resolved


def _contrast(name: str, contrast: object, column: pd.Series) -> object:
    if isinstance(contrast, str):
        if contrast not in CONTRASTS:
            raise DesignError(
                f"Unknown contrast {contrast!r} for {name!r}.",
                hint=suggest(contrast, CONTRASTS, "Contrasts"),
            )
        return CONTRASTS[contrast]()
    matrix = np.asarray(contrast, dtype=np.float64)
    levels = len(column.cat.categories)
    if matrix.ndim != 2 or matrix.shape[0] != levels:
        raise DesignError(
            f"The contrast matrix of {name!r} has shape {matrix.shape}; "
            f"the factor has {levels} levels.",
            hint="Give one row for each level, in the order of the levels.",
        )
    return matrix


def coded(column: pd.Series, contrast: object) -> object:
    """Return a factor that formulaic codes by the given contrast."""
    return C(column, contrast)  # pyright: ignore[reportArgumentType]
