"""Fit a model again to another response.

Design, cross-products and symbolic factorisation are those of the fit; only Z'y, X'y
and y'y change.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from mixform._typing import Vector
from mixform.design import Design
from mixform.errors import DesignError
from mixform.estimate.anova import Sums, estimate_anova, resolve_sums
from mixform.estimate.fit import Fit
from mixform.estimate.known import require_estimated
from mixform.estimate.problem import Problem, with_response
from mixform.estimate.reml import (
    Control,
    Found,
    better,
    may_be_local,
    record,
    resolve_control,
    scaled_start,
    search,
    search_anew,
    small_start,
)
from mixform.mme import few_threads


def refit(
    fit: Fit,
    y: object = None,
    *,
    method: str | None = None,
    control: Control | Mapping[str, object] | None = None,
    start: object = "fit",
) -> Fit:
    """Fit the same model to another response, or by the other criterion.

    Parameters
    ----------
    fit : the model
    y : a value for each row in the model or for each row of the data, offset not
        subtracted; a Series is put in order by its index; None for the fit's own
    method : "REML" or "ML"; None for the fit's own, which may be "ANOVA"
    control : options of the search; its backend is that of the fit
    start : "fit" starts from the fit's theta, which is close for a response like the
        fit's; None as a new fit does; or theta (t,) in the user's units

    Raises
    ------
    DesignError : y is of another length, not numeric, not finite, or leaves nothing to
        estimate
    InferenceError : the variances come from mean squares, and other is asked for
    """
    if fit.anova is not None and method in (None, "ANOVA"):
        design = fit.design
        if y is not None:
            design = replace(design, y=read_response(design, y))
        own = Sums(sums=fit.anova.sums, backend=fit.convergence.backend)
        given = own if control is None else resolve_sums(control)
        return estimate_anova(design, given)
    require_estimated(fit, f"A refit by {method or fit.method}")
    problem, design = fit.evaluation.problem, fit.design
    method = method or fit.method
    if y is not None:
        design = replace(design, y=read_response(design, y))
        problem = with_response(problem, design)
    problem = replace(problem, reml=method == "REML")
    options = resolve_control(control)
    if isinstance(start, str) and start == "fit":
        found = search_from(problem, restart(fit, problem), options)
    elif start is None:
        with few_threads(problem.equations):
            found = search_anew(problem, options, [])
    else:
        found = search(problem, scaled_start(problem, start), options, [], by_em=False)
    return record(design, method, found, options)


def restart(fit: Fit, problem: Problem) -> Vector:
    """Return where to search for another response: the parameters (t + r,) of the fit.

    A residual parameter at the edge of its range, where the criterion is flat, is no
    start: all of them then start anew.
    """
    psi = fit.scaled_theta.copy()
    if not fit.interior[problem.n_theta :].all():
        psi[problem.n_theta :] = problem.start()[problem.n_theta :]
    return psi


def search_from(problem: Problem, theta: Vector, control: Control) -> Found:
    """Search from a theta (t,) that is expected to be close.

    A vector-valued term that ends singular may have other minima: a start at small
    variances then has its say as well, as in a new fit.
    """
    with few_threads(problem.equations):
        found = search(problem, theta, control, (), by_em=False)
        if found[3] >= control.max_evaluations or not may_be_local(problem, found):
            return found
        small = small_start(problem)
        again = search(problem, small, control, (), by_em=False, count=found[3])
    return better(found, again)


def read_response(design: Design, y: object) -> Vector:
    """Return a response (n,) for the rows in the model, as float64.

    Raises
    ------
    DesignError : of another length, not numeric, or not finite
    """
    n, N = len(design.y), len(design.used)
    if isinstance(y, pd.Series):
        y = _in_order(y, design)
    try:
        values = np.asarray(y, dtype=np.float64)
    except (TypeError, ValueError):
        raise DesignError(
            "The new response is not numeric.", hint="Give one number for each row."
        ) from None
    if n != N and values.shape == (N,):
        values = values[design.used]
    if values.shape != (n,):
        rows = f"{n} rows" if n == N else f"{n} rows, of {N} in the data"
        raise DesignError(
            f"The new response has shape {values.shape}; the model has {rows}.",
            hint="Give one number for each row; the rows stay those of the fit.",
        )
    bad = ~np.isfinite(values)
    if bad.any():
        first = design.row_index[int(np.flatnonzero(bad)[0])]
        raise DesignError(
            f"The new response has {int(bad.sum())} values that are missing or not "
            f"finite, the first in row {first!r}.",
            hint="A refit keeps the rows of the fit; use update(data=) to leave rows "
            "out.",
        )
    return values.copy()


def _in_order(y: pd.Series, design: Design) -> pd.Series:
    """Put a Series in the order of the model's rows, by its labels."""
    for index in (design.row_index, design.index):
        if len(y) != len(index) or y.index.equals(index):
            continue
        unique = y.index.is_unique and index.is_unique
        if unique and y.index.isin(index).all():
            return y.reindex(index)
        raise DesignError(
            "The index of the new response is not the index of the data.",
            hint="Give it the data's index, or pass y.to_numpy().",
        )
    return y
