"""`fit`: the pipeline on one screen."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Literal

from mixform.covariance import STRUCTURES
from mixform.design import build_design
from mixform.errors import (
    ConvergenceWarning,
    DesignError,
    FormulaError,
    RankDeficiencyWarning,
    SingularFitWarning,
    suggest,
)
from mixform.estimate import Control, Fit, estimate, resolve_control
from mixform.formula import parse_formula
from mixform.progress import SearchProgress
from mixform.result import Result

METHODS = ("REML", "ML")
MISSING = ("drop", "raise")


def fit(
    formula: str,
    data: object,
    *,
    method: Literal["REML", "ML"] = "REML",
    weights: object = None,
    offset: object = None,
    contrasts: Mapping[str, object] | None = None,
    subset: object = None,
    missing: Literal["drop", "raise"] = "drop",
    start: object = None,
    control: Control | Mapping[str, object] | None = None,
    progress: bool | None = None,
) -> Result:
    """Fit a linear mixed model, ``y = X beta + Z b + e``.

    Parameters
    ----------
    formula : as lme4's: ``"y ~ trt * time + (1 + time | id)"``; random terms
        ``(1 | g)``, ``(x || g)``, ``(1 | a/b)``, ``(1 | a:b)``; the rest is formulaic's
        grammar with R's ``I(x^2)``, ``factor(x)``, ``offset(z)`` and ``.``
    data : pandas, polars or pyarrow table, mapping of columns, path to CSV or Parquet
    method : "REML" or "ML"
    weights, offset : column name, or a value for each row; Var(e_i) = sigma^2 / w_i
    contrasts : factor -> "treatment", "sum", "helmert", "poly" or a matrix
    subset : boolean for each row, or a condition on the columns as a string
    missing : rows with missing values: "drop" (counted in the printout) or "raise"
    start : theta (t,) to start from, as `Result.theta`
    control : options of the search, `Control` or a mapping of its fields
    progress : show a bar; None after a few seconds, if tqdm is installed

    Raises
    ------
    FormulaError : the formula cannot be read or names an unknown column
    DesignError, SolverError : the data do not support the model, or do not fit

    Examples
    --------
    >>> import mixform as mf
    >>> m = mf.fit("gain ~ group", mf.datasets.load("pigs"))  # means 52.33 and 61.33
    >>> f"{m.params['group[T.Treatment]']:.4f}"
    '9.0000'
    """
    method = _require_arguments(formula, method, missing)
    design = build_design(
        parse_formula(formula, tuple(STRUCTURES)),
        data,
        weights=weights,
        offset=offset,
        contrasts=contrasts,
        subset=subset,
        missing=missing,
    )
    control = resolve_control(control)
    with SearchProgress(progress) as bar:
        record = estimate(
            design, method=method, control=control, start=start, progress=bar
        )
    _warn(record)
    return Result(record)


def _require_arguments(
    formula: object, method: object, missing: object
) -> Literal["REML", "ML"]:
    if not isinstance(formula, str):
        raise FormulaError(
            f"The formula is a {type(formula).__name__}, not a string.",
            hint='Write fit("y ~ x + (1 | id)", data).',
        )
    method = method.upper() if isinstance(method, str) else method
    _require_choice(method, METHODS, "method")
    _require_choice(missing, MISSING, "missing")
    return "ML" if method == "ML" else "REML"


def _require_choice(value: object, choices: tuple[str, ...], argument: str) -> None:
    if value not in choices:
        raise DesignError(
            f"Unknown {argument} {value!r}.",
            hint=suggest(str(value), choices, "Choices"),
        )


def _warn(record: Fit) -> None:
    """Warn, at the caller of `fit`, of what a script must not miss."""
    fixed, convergence = record.design.fixed, record.convergence
    if fixed.aliased:
        names = fixed.aliased_names
        warnings.warn(
            RankDeficiencyWarning(
                f"Dropped as combinations of other columns: {', '.join(names)}.", names
            ),
            stacklevel=3,
        )
    if not convergence.converged:
        warnings.warn(
            ConvergenceWarning(
                f"The fit is {convergence.message}.",
                convergence.predicted_decrease,
                convergence.smallest_eigenvalue,
            ),
            stacklevel=3,
        )
        terms = tuple(
            record.design.blocks[j].term.source for j in record.singular_terms
        )
        if terms:
            warnings.warn(
                SingularFitWarning(
                    f"The covariance of {', '.join(terms)} is singular.",
                    terms,
                    record.theta,
                ),
                stacklevel=3,
            )
