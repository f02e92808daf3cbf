"""The analysis of variance table of the fixed terms."""

from __future__ import annotations

import numpy as np
import pandas as pd

from mixform.design.model_matrix import Term
from mixform.errors import InferenceError
from mixform.estimate import Fit
from mixform.inference.approximation import Approximation
from mixform.inference.contrast_tests import f_test
from mixform.inference.hypotheses import hypotheses, term_space

TYPES = {1: "I", 2: "II", 3: "III", "1": "I", "2": "II", "3": "III"}
ROMAN = {"I": 1, "II": 2, "III": 3}
COLUMNS = ["sum_sq", "mean_sq", "num_df", "den_df", "f_value", "p_value"]


def anova(
    fit: Fit, approximation: Approximation, *, kind: int | str
) -> tuple[pd.DataFrame, str, tuple[str, ...]]:
    """Test each fixed term.

    Parameters
    ----------
    kind : 1, 2, 3 or "I", "II", "III"

    Returns
    -------
    table : indexed by term: ``sum_sq, mean_sq, num_df, den_df, f_value, p_value``; the
        mean square is f_value times the residual variance
    heading : what the table is
    notes : what a reader of the table must know

    Raises
    ------
    InferenceError : unknown type
    """
    roman = TYPES.get(kind, str(kind))
    if roman not in ROMAN:
        raise InferenceError(
            f"Unknown type {str(kind)[:20]!r} of analysis of variance.",
            hint="Give 1, 2 or 3 (models are not compared here).",
        )
    rows: dict[str, tuple[float, ...]] = {}
    notes: list[str] = []
    if fit.design.fixed.kept:
        space = term_space(fit.design)
        for name, L in hypotheses(space, ROMAN[roman]).items():
            if len(L) == 0:
                notes.append(f"{name} has no estimable function of its own.")
                rows[name] = (np.nan, np.nan, 0, np.nan, np.nan, np.nan)
                continue
            f_value, num_df, den_df, p = f_test(L, np.zeros(len(L)), fit, approximation)
            mean_sq = f_value * fit.sigma**2
            rows[name] = (mean_sq * num_df, mean_sq, num_df, den_df, f_value, p)
        if roman != "I":
            notes += _at_zero(space.terms)
        if roman == "III":
            notes += _missing_cells(fit, space.terms)
    if not rows:
        notes.append("The model has no fixed term to test.")
    table = pd.DataFrame.from_dict(rows, orient="index", columns=COLUMNS)
    table = table.astype({"num_df": int})
    method = approximation.title
    if method in {"Satterthwaite", "Kenward-Roger"}:
        method += "'s method"
    heading = f"Type {roman} analysis of variance table with {method}"
    return table, heading, tuple(notes)


def _missing_cells(fit: Fit, terms: tuple[Term, ...]) -> list[str]:
    """Name the interactions of factors that have combinations without data."""
    fixed = fit.design.fixed
    names = [
        term.name
        for term in fixed.coded.terms
        if len(term.factors) > 1 and set(term.columns) & set(fixed.aliased)
    ]
    if not names:
        return []
    return [
        f"{', '.join(names)} has combinations without data: interpret type III "
        "hypotheses with care."
    ]


def _at_zero(terms: tuple) -> list[str]:
    """Say which factors are compared where covariates are zero."""
    notes: list[str] = []
    for term in terms:
        slopes = {
            name
            for other in terms
            if other.factors >= term.factors and other.covariates > term.covariates
            for name in other.covariates - term.covariates
        }
        if term.factors and slopes:
            notes.append(f"{term.name} is tested at {', '.join(sorted(slopes))} = 0.")
    return notes
