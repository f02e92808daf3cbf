"""The residuals of new rows: their variances, and what those of the fit say of them.

With a residual structure the row of a known subject has a residual that is correlated
with observed ones. Given them, e of the new row is k'R^-1 e^ on average, k its
covariances with those of the fit over sigma^2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from mixform._typing import Codes, Matrix, Vector
from mixform.design import ResidualPart
from mixform.design.random import joined_labels, level_labels
from mixform.errors import InferenceError, suggest
from mixform.estimate import Fit
from mixform.estimate.criterion import Evaluation
from mixform.inference.new_rows import NewRows, level_keys
from mixform.residual.layout import family_correlates
from mixform.residual.placement import Placement, place

#: Numbers in the covariances of the rows of the fit and new ones held at once.
CHUNK_NUMBERS = 4_000_000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RowErrors:
    """The residuals of r rows.

    Attributes
    ----------
    weights : (r,) precision weights
    placement : of the rows in the residual structure; None without one
    """

    weights: Vector
    placement: Placement | None

    def variances(self, here: Evaluation) -> Vector:
        """Return Var(e) over sigma^2, (r,), at the parameters of a solution."""
        if self.placement is None:
            return 1.0 / self.weights
        return self.placement.variances(rho_of(here)) / self.weights

    def chunks(self) -> list[slice]:
        """Return ranges of rows whose covariances fit in memory."""
        assert self.placement is not None, "there is a residual structure"
        n, r = len(self.placement.known.subjects), len(self.weights)
        size = max(1, CHUNK_NUMBERS // max(n, 1))
        return [slice(start, min(start + size, r)) for start in range(0, r, size)]

    def whitened(self, here: Evaluation, some: slice) -> Matrix:
        """Return R^-1/2 k (n, c) of some rows: k'R^-1 e is this times R^-1/2 e."""
        rows = here.problem.rows
        assert self.placement is not None, "there is a residual structure"
        assert rows is not None, "there is a residual structure"
        k = self.placement.covariances(rho_of(here), some)
        return rows.residual.whiten(k / np.sqrt(self.weights[some]))

    def predicted(self, fit: Fit) -> Vector:
        """Return E(e | y) of the rows, (r,), in units of y."""
        here = fit.evaluation
        out = np.empty(len(self.weights))
        for some in self.chunks():
            out[some] = self.whitened(here, some).T @ here.e
        return here.problem.y_scale * out


def rho_of(here: Evaluation) -> Vector:
    """Return the residual parameters (r,) of a solution."""
    assert here.problem.rows is not None, "there is a residual structure"
    return here.problem.rows.residual.rho


def own_errors(fit: Fit) -> RowErrors:
    """Return the residuals of new observations in the rows of the fit."""
    part, rows, weights = fit.design.residual, fit.evaluation.problem.rows, None
    weights = np.ones(fit.n) if fit.design.weights is None else fit.design.weights
    if part is None or rows is None:
        return RowErrors(weights=weights, placement=None)
    return RowErrors(weights=weights, placement=place(rows.model, part, part))


def new_errors(fit: Fit, table: NewRows) -> RowErrors:
    """Return the residuals of new rows.

    Raises
    ------
    InferenceError : a position or stratum that the fit has not seen
    """
    part, rows = fit.design.residual, fit.evaluation.problem.rows
    if part is None or rows is None:
        return RowErrors(weights=table.weights(), placement=None)
    new = new_part(part, table)
    return RowErrors(weights=table.weights(), placement=place(rows.model, part, new))


def require_correlated(fit: Fit) -> None:
    """Require residuals that say something of others.

    Raises
    ------
    InferenceError : they are independent
    """
    rows = fit.evaluation.problem.rows
    if rows is None or not family_correlates(rows.model.structure):
        raise InferenceError(
            "The residuals of this fit are independent: those of its rows say nothing "
            "of others.",
            hint='Leave residual=True out, or fit with residual="ar1(time | id)".',
        )


def new_part(part: ResidualPart, table: NewRows) -> ResidualPart:
    """Return the residual part of new rows; subjects that are new get new numbers.

    Raises
    ------
    InferenceError : a stratum that the fit has not seen
    """
    term, coded = part.term, part.dispersion
    subjects = strata = np.zeros(table.n, dtype=np.int64)
    labels, coordinates = part.labels, {}
    if coded is not None:
        coded = replace(coded, values=table.dispersion())
    if term is not None and table.errors == "covariances":
        coordinates = {name: table.group(name) for name in term.coordinates}
        if term.group:
            pieces = _labels(table, term.group)
            subjects = level_keys(part.pieces).get_indexer(level_keys(pieces))
            joined = joined_labels(pieces)
            subjects, labels = _with_new(subjects, joined, part.labels)
    elif term is not None and all(n in table.groups for n in term.coordinates):
        coordinates = {name: table.group(name) for name in term.coordinates}
    if term is not None and term.strata:
        pieces = _labels(table, term.strata)
        strata = level_keys(part.stratum_pieces).get_indexer(level_keys(pieces))
        if np.any(strata < 0):
            unseen = joined_labels(pieces)[int(np.argmin(strata))]
            raise InferenceError(
                f"The residual structure {term.source!r} does not know the stratum "
                f"{unseen!r} of {':'.join(term.strata)!r}.",
                hint=suggest(str(unseen), part.stratum_labels, "Strata"),
            )
    return replace(
        part,
        coordinates=coordinates,
        subjects=subjects,
        labels=labels,
        strata=strata,
        dispersion=coded,
    )


def _labels(table: NewRows, names: Sequence[str]) -> list[pd.Index]:
    """Return the labels (r,) of each column."""
    pieces: list[pd.Index] = []
    for name in names:
        codes, values = pd.factorize(table.group(name))
        pieces.append(level_labels(pd.Index(values))[codes])
    return pieces


def _with_new(
    subjects: Codes, labels: pd.Index, known: pd.Index
) -> tuple[Codes, pd.Index]:
    """Return subjects with numbers of their own for the new ones (-1), and labels."""
    new = subjects < 0
    codes, unseen = pd.factorize(labels[new])
    subjects = subjects.copy()
    subjects[new] = len(known) + codes
    return subjects, pd.Index([*known, *unseen], dtype=object)
