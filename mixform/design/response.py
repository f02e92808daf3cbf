"""What y and the weights must be, and the errors that say what they are instead."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

from mixform._typing import Vector
from mixform.design.model_matrix import Coded
from mixform.errors import DesignError
from mixform.formula import ModelFormula, readable


def check_response(
    code: Callable[[], Coded],
    formula: ModelFormula,
    columns: Mapping[str, pd.Series],
) -> Vector:
    """Evaluate the response and require one numeric column, (n,).

    A boolean response counts as 0 and 1.

    Raises
    ------
    DesignError : the response is a factor, or has several columns
    """
    text, span = formula.response.text, formula.response.span
    name = readable(formula.response.code)
    if name in columns and isinstance(columns[name].dtype, pd.CategoricalDtype):
        levels = columns[name].cat.categories
        if set(levels) <= {False, True} and levels.dtype != np.float64:
            return np.asarray(columns[name].astype(np.float64))
        raise DesignError(
            f"The response {name!r} is not numeric; it has the levels "
            f"{', '.join(map(str, levels[:5]))}{', ...' if len(levels) > 5 else ''}.",
            formula=formula.source,
            span=span,
            hint="A linear mixed model needs a numeric response; check how the "
            "column was read.",
        )
    coded = code()
    if any(term.factors for term in coded.terms):
        raise DesignError(
            f"The response {text!r} is not numeric.",
            formula=formula.source,
            span=span,
            hint="A linear mixed model needs a numeric response.",
        )
    if coded.values.shape[1] != 1:
        raise DesignError(
            f"The response {text!r} has {coded.values.shape[1]} columns.",
            formula=formula.source,
            span=span,
            hint="Give one response; write I(a + b) for a sum.",
        )
    return coded.values[:, 0]


def check_weights(weights: Vector, index: pd.Index) -> None:
    """Require positive, finite weights.

    Raises
    ------
    DesignError : a weight is zero, negative or infinite; names the first row
    """
    bad = ~((weights > 0.0) & np.isfinite(weights))
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        raise DesignError(
            f"weights must be positive and finite; {int(bad.sum())} are not, the first "
            f"is {weights[first]:g} in row {index[first]!r}.",
            hint="A weight is a precision, Var(e_i) = sigma^2 / w_i; leave rows out "
            "with subset=.",
        )
