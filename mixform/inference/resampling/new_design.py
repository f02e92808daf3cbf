"""Designs to simulate for: new rows, and models under a linear hypothesis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from scipy.linalg import null_space

from mixform._typing import Matrix, Vector
from mixform.design import Design, ResidualPart
from mixform.design.fixed import FixedPart, orthonormalize
from mixform.design.model_matrix import Coded
from mixform.design.random import check_blocks
from mixform.errors import InferenceError
from mixform.estimate import Control, Fit, estimate
from mixform.inference.new_residuals import new_part
from mixform.inference.new_rows import NewRows
from mixform.inference.related import require_unrelated
from mixform.inference.resampling.simulation import Simulator, chunks


def restricted(design: Design, L: Matrix, rhs: Vector) -> Design:
    """Return the design under L beta = rhs: X on the null space of L."""
    X = design.fixed.X
    fixed = _fixed_part(X @ null_space(L), design)
    offset = X @ np.linalg.lstsq(L, rhs, rcond=None)[0]
    if design.offset is not None:
        offset = offset + design.offset
    return replace(design, fixed=fixed, offset=offset)


def _fixed_part(X: Matrix, design: Design, names: Sequence[str] = ()) -> FixedPart:
    names = tuple(names) or tuple(f"column {j + 1}" for j in range(X.shape[1]))
    coded = Coded(values=X, names=names, terms=(), spec=None)
    weights = design.weights
    return orthonormalize(coded, None if weights is None else np.sqrt(weights))


def read_new_rows(fit: Fit, newdata: object) -> NewRows:
    """Return the complete rows of another design for the model.

    Raises
    ------
    InferenceError : there is none; the levels of a term are related
    """
    require_unrelated(fit, "Power on new data")
    every = range(len(fit.design.blocks))
    rows = NewRows(fit, newdata, every, errors="covariances")
    if not rows.n:
        raise InferenceError("The new data have no complete row.")
    return rows


def fit_of_new_rows(fit: Fit, rows: NewRows, simulator: Simulator, seed: object) -> Fit:
    """Return a fit of one response drawn on the design of new data."""
    design = _new_design(fit, rows)
    y = simulator.draw(*next(iter(chunks(simulator, 1, seed))))[:, 0]
    control = Control()
    return estimate(replace(design, y=y), method=fit.method, control=control)


def _new_design(fit: Fit, rows: NewRows) -> Design:
    """Return the design of new rows, coded as that of the fit."""
    old = fit.design
    blocks = []
    for j, block in enumerate(old.blocks):
        codes, labels, design = rows.random(j)
        codes, levels = pd.factorize(labels)
        blocks.append(
            replace(block, levels=levels, pieces=(), codes=codes, design=design)
        )
    check_blocks(blocks, old.formula.source)
    design = replace(
        old,
        y=np.zeros(rows.n),
        blocks=tuple(blocks),
        weights=None if old.weights is None else rows.weights(),
        offset=None if old.offset is None else rows.offset(),
        residual=None if old.residual is None else _new_residual(old.residual, rows),
        index=rows.index,
        used=rows.complete,
    )
    names = [old.fixed.names[j] for j in old.fixed.kept]
    fixed = _fixed_part(rows.X(), design, names)
    if fixed.aliased:
        raise InferenceError(
            "The new data do not determine the coefficients "
            f"{', '.join(fixed.aliased_names)}.",
            hint="Give rows with all levels and enough values of the covariates.",
        )
    return replace(design, fixed=fixed)


def _new_residual(part: ResidualPart, rows: NewRows) -> ResidualPart:
    """Return the residual part of a design of its own, without subjects of the fit."""
    new = new_part(part, rows)
    absent = np.setdiff1d(np.arange(len(part.stratum_labels)), new.strata)
    if len(absent):
        raise InferenceError(
            "The new data have no row of the stratum "
            f"{part.stratum_labels[absent[0]]!r} of the residual structure.",
            hint="Give rows of all strata.",
        )
    numbers, codes = np.unique(new.subjects, return_inverse=True)
    labels = new.labels[numbers]
    return replace(new, subjects=codes.astype(np.int64), labels=labels, pieces=())
