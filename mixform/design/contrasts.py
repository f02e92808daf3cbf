"""Contrasts by name: how the levels of a factor become columns of X."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from typing import Any, cast

import numpy as np
import pandas as pd
from formulaic.transforms import C, ContrastsRegistry
from formulaic.transforms.contrasts import TreatmentContrasts

from mixform.errors import DesignError, suggest


class FullContrasts(TreatmentContrasts):
    """A column for each level beside the intercept: y = mu + delta_i, of less rank.

    Random coefficients, whose covariance that would leave undetermined, are coded by
    treatment contrasts.
    """


#: name -> formulaic's contrast; Helmert as in R (level j against the mean before it)
CONTRASTS = {
    "treatment": ContrastsRegistry.treatment,
    "sum": ContrastsRegistry.sum,
    "helmert": ContrastsRegistry.helmert,
    "poly": ContrastsRegistry.poly,
    "full": FullContrasts,
}


def resolve_contrasts(
    contrasts: object, columns: Mapping[str, pd.Series], made_factors: Set[str]
) -> dict[str, Any]:
    """Return formulaic's contrast object for each factor named.

    Parameters
    ----------
    contrasts : factor -> name, or matrix (levels, columns); or None
    columns : the model's variables
    made_factors : the numeric ones that the formula makes factors of: C(x)

    Raises
    ------
    DesignError : unknown factor or contrast, not a factor, wrong shape of a matrix
    """
    if contrasts is None:
        return {}
    if not isinstance(contrasts, Mapping):
        raise DesignError(
            f"contrasts is of type {type(contrasts).__name__!r}, not a mapping.",
            hint='Write contrasts={"trt": "sum"}.',
        )
    resolved: dict[str, Any] = {}
    for name, contrast in cast("Mapping[str, object]", contrasts).items():
        if name not in columns:
            raise DesignError(
                f"contrasts names {name!r}, which is no variable of the formula.",
                hint=suggest(str(name), columns, "Variables"),
            )
        column = columns[name]
        if isinstance(column.dtype, pd.CategoricalDtype):
            n_levels = len(column.cat.categories)
        elif name in made_factors:
            n_levels = column.nunique()
        else:
            raise DesignError(
                f"contrasts names {name!r}, which is numeric and has no levels.",
                hint=f"Write C({name}) in the formula, or convert it to strings.",
            )
        resolved[name] = _contrast(name, contrast, n_levels)
    return resolved


def _contrast(name: str, contrast: object, n_levels: int) -> object:
    if isinstance(contrast, str):
        contrast = contrast.removeprefix("contr.")
        if contrast not in CONTRASTS:
            raise DesignError(
                f"Unknown contrast {contrast!r} for {name!r}.",
                hint=suggest(contrast, CONTRASTS, "Contrasts"),
            )
        return CONTRASTS[contrast]()
    try:
        matrix = np.asarray(contrast, dtype=np.float64)
    except (TypeError, ValueError):
        matrix = np.full((n_levels, 1), np.nan)
    if not np.isfinite(matrix).all():
        raise DesignError(
            f"The contrast matrix of {name!r} holds values that are no numbers.",
            hint=f"Give a matrix of numbers, or one of {', '.join(CONTRASTS)}.",
        )
    if matrix.ndim != 2 or matrix.shape[0] != n_levels:
        raise DesignError(
            f"The contrast matrix of {name!r} has shape {matrix.shape}; "
            f"the factor has {n_levels} levels.",
            hint="Give one row for each level, in the order of the levels.",
        )
    return matrix


def coded(column: pd.Series, contrast: object) -> object:
    """Return a factor that formulaic codes by the given contrast.

    A numeric column is returned as it is: it is a factor only inside ``C(...)``.
    """
    if not isinstance(column.dtype, pd.CategoricalDtype):
        return column
    full = isinstance(contrast, FullContrasts)
    return C(column, cast("Any", contrast), spans_intercept=not full)


def without_full(contrasts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the contrasts but those that are full, which random coefficients lack."""
    return {n: c for n, c in contrasts.items() if not isinstance(c, FullContrasts)}


def coding_by_default(
    columns: Mapping[str, pd.Series], contrasts: Mapping[str, Any]
) -> Callable[..., object]:
    """Return formulaic's C with the contrasts asked for as its defaults.

    Whole numbers are levels 1, 2, not 1.0, 2.0, whatever type held them.
    """
    chosen = [(columns[name], c) for name, c in contrasts.items() if name in columns]

    def code(data: Any, contrasts: Any = None, **options: Any) -> object:
        values = getattr(data, "__wrapped__", data)
        if contrasts is None:
            contrasts = next((c for s, c in chosen if s is values), None)
            if isinstance(contrasts, FullContrasts):
                options = {"spans_intercept": False, **options}
        if getattr(values, "dtype", None) == np.float64:
            whole = np.asarray(values)
            if np.all(np.abs(whole) < 2.0**53) and np.all(whole == np.floor(whole)):
                values = pd.Series(whole.astype(np.int64))
        return C(values, contrasts, **options)

    return code


def as_numeric(data: Any) -> Any:
    """Return numbers: of a factor its levels, if they are numbers.

    Raises
    ------
    DesignError : a level is no number
    """
    values = pd.Series(getattr(data, "__wrapped__", data))
    if not isinstance(values.dtype, pd.CategoricalDtype):
        return values
    try:
        levels = np.array(values.cat.categories.tolist(), dtype=np.float64)
    except (TypeError, ValueError):
        levels = ", ".join(map(str, values.cat.categories[:5]))
        raise DesignError(
            f"The levels {levels} are not all numbers.",
            hint="Compute the numbers in the data first.",
        ) from None
    codes = values.cat.codes.to_numpy()
    return pd.Series(np.where(codes < 0, np.nan, levels[codes]))
