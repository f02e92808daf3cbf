"""Test each fixed term that may be left out: single term deletions.

A term may go if no other term contains it. F tests as lmerTest's ``drop1``; likelihood
ratios of models refitted by ML, with their AIC, as lme4's.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from mixform._typing import Matrix
from mixform.design import Design
from mixform.design.reduce import droppable_terms, orthonormal_basis, without_fixed_term
from mixform.errors import InferenceError, suggest
from mixform.estimate import Fit
from mixform.inference.anova import COLUMNS
from mixform.inference.approximation import Approximation, approximate
from mixform.inference.contrast_tests import f_test
from mixform.inference.hypotheses import hypotheses, term_space
from mixform.inference.likelihood import aic
from mixform.inference.selection.comparison import (
    Options,
    by_ml,
    likelihood_ratio,
    naive_p,
    refitted,
    uncertified,
)
from mixform.progress import Progress

TESTS = ("F", "lrt")
LRT_COLUMNS = ["num_df", "aic", "lrt", "p_value"]


def drop1(
    fit: Fit,
    *,
    test: str = "F",
    ddf: str = "satterthwaite",
    control: Options = None,
    progress: bool | None = None,
) -> tuple[pd.DataFrame, str, tuple[str, ...]]:
    """Test each fixed term that no other term contains.

    Parameters
    ----------
    test : "F", or "lrt" for likelihood ratios of models refitted by ML
    ddf : method for the denominator df of F
    control : options of the refits
    progress : show a bar over the refits

    Returns
    -------
    table : by term: ``sum_sq, mean_sq, num_df, den_df, f_value, p_value``; for "lrt"
        row ``<none>``, then by term: ``num_df, aic, lrt, p_value``
    heading : what the table is
    notes : what a reader must know

    Raises
    ------
    InferenceError : unknown test or ddf; there is no term to leave out
    """
    kind = next((t for t in TESTS if t.lower() == str(test).lower()), None)
    if kind is None:
        raise InferenceError(
            f"Unknown test {test!r}.", hint=suggest(str(test), TESTS, "Tests")
        )
    terms = droppable_terms(fit.design)
    if not terms:
        raise InferenceError(
            "The model has no fixed term that could be left out.",
            hint="Its fixed part is an intercept, or empty.",
        )
    model = f"Model: {fit.design.formula.source}"
    if kind == "lrt":
        table, notes = _by_likelihood(fit, terms, control, progress)
        heading = "Single term deletions by likelihood ratio, fits by ML"
        return table, f"{heading}\n{model}", notes
    approximation = approximate(fit, ddf)
    table, notes = f_table(fit, terms, approximation)
    method = approximation.title
    how = "asymptotic tests" if method == "Asymptotic" else f"{method}'s method"
    return table, f"Single term deletions with {how}\n{model}", notes


def f_table(
    fit: Fit, terms: Sequence[str], approximation: Approximation
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Return the F test of each of these terms, given all others, and notes."""
    rows: dict[str, tuple[float, ...]] = {}
    notes = [approximation.note] if approximation.note else []
    for name, L in deletions(fit.design, terms).items():
        if len(L) == 0:
            notes.append(f"{name} adds nothing to the other terms.")
            rows[name] = (np.nan, np.nan, 0, np.nan, np.nan, np.nan)
            continue
        f_value, num_df, den_df, p = f_test(L, np.zeros(len(L)), fit, approximation)
        mean_sq = f_value * fit.sigma**2
        rows[name] = (mean_sq * num_df, mean_sq, num_df, den_df, f_value, p)
    table = pd.DataFrame.from_dict(rows, orient="index", columns=COLUMNS)
    return table.astype({"num_df": int}), tuple(notes)


def deletions(design: Design, terms: Sequence[str]) -> dict[str, Matrix]:
    """Return L (num_df, p) of each term: L beta = 0 is the model without it.

    If columns are aliased, those of a term may come back when another is left out: the
    hypothesis is then made from the two spaces, as in lmerTest.
    """
    if not design.fixed.aliased:
        found = hypotheses(term_space(design), 2)
        return {name: found[name] for name in terms}
    return {
        name: _difference(design, without_fixed_term(design, name)) for name in terms
    }


def _difference(large: Design, small: Design) -> Matrix:
    """Return orthonormal rows of L: X beta is in the small model if L beta = 0."""
    Q, R = large.fixed.Q, large.fixed.R
    # X beta = Q (R beta): what of it lies outside of the small model.
    inside = Q.T @ small.fixed.Q
    U, values, _ = np.linalg.svd(inside)
    rank = int(np.sum(values > 0.5))
    outside = U[:, rank:].T @ R
    return orthonormal_basis(outside.T).T


def _by_likelihood(
    fit: Fit, terms: Sequence[str], control: Options, progress: bool | None
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    rows: list[list[float]] = []
    fits: dict[str, Fit] = {}
    with Progress(progress, len(terms) + 1, "refits") as bar:
        full = fit if fit.method == "ML" else by_ml(fit, control)
        bar.advance()
        rows.append([np.nan, aic(full), np.nan, np.nan])
        for name in terms:
            smaller = refitted(fit, without_fixed_term(fit.design, name), "ML", control)
            num_df = full.n_parameters - smaller.n_parameters
            chisq = likelihood_ratio(smaller.criterion, full.criterion)
            rows.append([num_df, aic(smaller), chisq, naive_p(chisq, num_df)])
            fits[name] = smaller
            bar.advance()
    index = pd.Index(["<none>", *terms])
    notes = uncertified([("<none>", full), *fits.items()])
    return pd.DataFrame(rows, index=index, columns=LRT_COLUMNS), tuple(notes)
