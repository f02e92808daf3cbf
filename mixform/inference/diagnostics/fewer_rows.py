"""The model fitted to some of its rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mixform._typing import Mask
from mixform.design import Design, residual_of_rows
from mixform.design.fixed import orthonormalize
from mixform.errors import DesignError
from mixform.estimate import Control, Fit
from mixform.estimate.problem import Problem, build_problem
from mixform.estimate.refit import restart, search_from
from mixform.estimate.reml import record, scaled_start


def fit_without(fit: Fit, keep: Mask, control: Control) -> Fit:
    """Fit the rows that are kept, from the theta of all.

    Raises
    ------
    DesignError, SolverError : they do not determine the same parameters
    """
    design = _rows_of(fit.design, keep)
    if design.fixed.kept != fit.design.fixed.kept:
        names = [fit.design.fixed.names[j] for j in fit.design.fixed.kept]
        left = {design.fixed.names[j] for j in design.fixed.kept}
        gone = [name for name in names if name not in left]
        raise DesignError(f"{', '.join(gone)} cannot be estimated.")
    backend = fit.evaluation.problem.equations.name
    problem = build_problem(design, reml=fit.method == "REML", backend=backend)
    _require_positions(fit, problem)
    start = scaled_start(problem, fit.theta, restart(fit, problem)[problem.n_theta :])
    return record(design, fit.method, search_from(problem, start, control), control)


def _require_positions(fit: Fit, problem: Problem) -> None:
    """Require that each position of the residual structure has rows.

    Raises
    ------
    DesignError : one has none, so that its parameters cannot be estimated
    """
    old, new = fit.evaluation.problem.rows, problem.rows
    if old is None or new is None:
        return
    for one, two in zip(old.model.layout.grids, new.model.layout.grids, strict=True):
        gone = [label for label in one.labels if label not in two.labels]
        if gone and problem.n_rho != fit.evaluation.problem.n_rho:
            raise DesignError(f"no row at position {gone[0]!r} of residual is left.")


def _rows_of(design: Design, keep: Mask) -> Design:
    """Return the design of some of its rows; the columns are coded as before.

    Levels without rows stay: their random effects are zero.
    """
    used = design.used.copy()
    used[used] = keep
    weights = None if design.weights is None else design.weights[keep]
    coded = replace(design.fixed.coded, values=design.fixed.coded.values[keep])
    roots = None if weights is None else np.sqrt(weights)
    return replace(
        design,
        y=design.y[keep],
        fixed=orthonormalize(coded, roots),
        blocks=tuple(
            replace(block, codes=block.codes[keep], design=block.design[keep])
            for block in design.blocks
        ),
        weights=weights,
        residual=residual_of_rows(design.residual, keep),
        offset=None if design.offset is None else design.offset[keep],
        used=used,
    )
