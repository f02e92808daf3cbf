"""Confidence intervals of the fixed effects."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.special import ndtri, stdtrit

from mixform._typing import Matrix, Vector
from mixform.errors import InferenceError, suggest

METHODS = (
    "satterthwaite",
    "kenward-roger",
    "kenward-roger-linear",
    "kenward-roger-observed",
    "kenward-roger-linear-observed",
    "wald",
    "profile",
    "bootstrap",
)


def require_level(level: float) -> None:
    """Refuse a confidence level outside (0, 1), and one that must be an error rate."""
    _require_number(level, "level", "0.95 for 95 %")
    if 0.0 < level <= 0.2:
        raise InferenceError(
            f"The confidence level is {level}: an interval that misses the truth in "
            f"{100 * (1 - level):g} % of all samples.",
            hint=f"Write level={1 - level:g} for {100 * (1 - level):g} %.",
        )
    if not 0.0 < level < 1.0:
        raise InferenceError(
            f"The confidence level is {level}, not between 0 and 1.",
            hint="Write level=0.95 for 95 %.",
        )


def require_alpha(alpha: float) -> None:
    """Refuse a level of a test outside (0, 1)."""
    _require_number(alpha, "alpha", "0.05")
    if not 0.0 < alpha < 1.0:
        raise InferenceError(
            f"alpha is {alpha}, not between 0 and 1.", hint="Write alpha=0.05."
        )


def _require_number(value: object, name: str, example: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise InferenceError(
            f"{name} is {value!r}, not a number.", hint=f"Write {name}={example}."
        )


def symmetric_interval(
    estimate: Vector, se: Vector, den_df: Vector, *, level: float, method: str
) -> Matrix:
    """Return lower and upper limits, (r, 2): estimate -/+ quantile * se.

    Raises
    ------
    InferenceError : unknown method, or level outside (0, 1)
    """
    require_level(level)
    if method not in METHODS:
        raise InferenceError(
            f"Unknown interval method {method!r}.",
            hint=suggest(method, METHODS, "Methods"),
        )
    tail = 0.5 * (1.0 + level)
    quantile = ndtri(tail) if method == "wald" else stdtrit(den_df, tail)
    width = quantile * se
    return np.column_stack([estimate - width, estimate + width])


def chosen_rows(
    frame: pd.DataFrame, parameters: str | Sequence[str] | None
) -> pd.DataFrame:
    """Return the rows of some parameters, in the order asked for; all if None.

    Raises
    ------
    InferenceError : there is no parameter of a name
    """
    if parameters is None:
        return frame
    wanted = [parameters] if isinstance(parameters, str) else list(parameters)
    for name in wanted:
        if name not in frame.index:
            raise InferenceError(
                f"There is no parameter {name!r}.",
                hint=suggest(str(name), frame.index, "Parameters"),
            )
    return frame.loc[wanted]
