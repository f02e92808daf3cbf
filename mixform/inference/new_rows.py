"""New data, coded as the data of the fit were: levels, contrasts, knots, centers."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
from formulaic.errors import DataMismatchWarning

from mixform._typing import Mask, Matrix, Vector
from mixform.design import RandomBlock
from mixform.design.frame import Table, as_numbers, factorize, is_missing
from mixform.design.model_matrix import code_part, variables_of
from mixform.design.random import joined_labels, level_labels
from mixform.design.response import check_weights
from mixform.errors import DesignError, InferenceError, Span, suggest
from mixform.estimate import Fit
from mixform.formula import formulaic_formula

#: What is needed of the residuals of new rows.
Errors = Literal["none", "variances", "covariances"]


def residual_columns(fit: Fit, errors: Errors) -> tuple[str, ...]:
    """Return the columns of the residual structure that new rows need.

    Variances do not depend on where a residual stands, unless each position has its
    own, nor on the subject beyond its stratum.
    """
    part = fit.design.residual
    if part is None or part.term is None or errors == "none":
        return ()
    if errors == "covariances":
        return part.term.columns
    rows = fit.evaluation.problem.rows
    assert rows is not None, "there is a residual structure"
    if rows.model.structure.heterogeneous:
        return (*part.term.coordinates, *part.term.strata)
    return part.term.strata


class NewRows:
    """The rows of a new table that have no missing value in what is needed.

    Parameters
    ----------
    fit : the model
    newdata : a table with the model's columns, or a path to one
    chosen : positions of the random terms that are needed
    covariates_of : positions of further random terms of which only the covariates are
        needed, not the levels
    errors : what is needed of the residuals: nothing, their "variances", or their
        "covariances" too

    Attributes
    ----------
    complete : (N,) rows of the table without missing values, of which there are r
    index : (N,) of the table
    groups : column -> (N,) labels and coordinates as given

    Raises
    ------
    DesignError : a column is missing, or a fixed factor has an unseen level
    """

    def __init__(
        self,
        fit: Fit,
        newdata: object,
        chosen: Sequence[int],
        *,
        covariates_of: Sequence[int] = (),
        errors: Errors = "none",
    ) -> None:
        self.fit, self.table, self.errors = fit, Table(newdata), errors
        blocks = [fit.design.blocks[j] for j in chosen]
        others = [fit.design.blocks[j] for j in covariates_of]
        names = self._variables(fit, blocks + others)
        part = fit.design.residual
        if part is not None and errors != "none":
            names = list(dict.fromkeys((*names, *part.variables)))
        self._columns = {name: self._column(name) for name in names}
        groups = [name for block in blocks for name in block.term.group]
        groups += residual_columns(fit, errors)
        self.groups = {name: self.table.column(name) for name in groups}
        self.complete: Mask = np.ones(len(self.table), dtype=bool)
        for series in (*self._columns.values(), *self.groups.values()):
            self.complete &= ~is_missing(series)

    @property
    def index(self) -> pd.Index:
        """Index of all N rows of the table."""
        return self.table.index

    @property
    def n(self) -> int:
        """Number of complete rows."""
        return int(self.complete.sum())

    def X(self) -> Matrix:
        """Return the fixed-effects design (r, p), the estimated columns."""
        fixed = self.fit.design.fixed
        columns = self.all_columns()
        return columns[:, fixed.kept] if fixed.aliased else columns

    def all_columns(self) -> Matrix:
        """Return the fixed-effects design (r, c), aliased columns included."""
        fixed = self.fit.design.fixed
        if not fixed.names or not self.n:
            return np.zeros((self.n, len(fixed.names)))
        return self._code(fixed.coded.spec, self.fit.design.formula.fixed.span)

    def group(self, name: str) -> pd.Series:
        """Return a column of labels or coordinates of the rows, (r,), as given."""
        return self.groups[name][self.complete].reset_index(drop=True)

    def dispersion(self) -> Matrix:
        """Return all columns of the dispersion formula, (r, c)."""
        part = self.fit.design.residual
        assert part is not None, "there is a dispersion"
        assert part.dispersion is not None, "there is a dispersion"
        if not self.n:
            return np.empty((0, len(part.dispersion.names)))
        return self._code(part.dispersion.spec, (0, 0))

    def offset(self) -> Vector:
        """Return the offset (r,), evaluated on the new rows.

        Raises
        ------
        InferenceError : the fit had an offset array
        """
        design = self.fit.design
        total = np.zeros(self.n)
        for part in design.formula.offsets if self.n else ():
            formula = formulaic_formula(f"0 + {part.code}")
            total += self._code(formula, part.span).sum(axis=1)
        if design.offset_is_array:
            raise InferenceError(
                "The fit had an offset array, which new data do not have.",
                hint="Give the offset as a column name or in the formula.",
            )
        if design.offset_column is not None:
            column = as_numbers(
                self.table.column(design.offset_column), design.offset_column
            )
            total += column[self.complete]
        return total

    def weights(self) -> Vector:
        """Return the precision weights (r,), ones if the fit had none; NaN if missing.

        Raises
        ------
        DesignError : the column is not there, or holds a weight that is not positive
        InferenceError : the fit had an array of weights
        """
        design = self.fit.design
        if design.weights is None:
            return np.ones(self.n)
        if design.weights_column is None:
            raise InferenceError(
                "The fit had an array of weights, which new data do not have.",
                hint="Give the weights as a column name.",
            )
        name = design.weights_column
        weights = as_numbers(self.table.column(name), name)[self.complete]
        known = ~np.isnan(weights)
        check_weights(weights[known], self.index[self.complete][known])
        return weights

    def random(self, j: int) -> tuple[np.ndarray, pd.Index, Matrix]:
        """Return what random term j makes of the rows.

        Returns
        -------
        codes : (r,) level, -1 if the fit has not seen it
        labels : (r,) of the levels, new ones included
        design : (r, k) covariates of the coefficients
        """
        block = self.fit.design.blocks[j]
        pieces: list[pd.Index] = []
        for name in block.term.group:
            codes, values = pd.factorize(self.groups[name][self.complete])
            pieces.append(level_labels(pd.Index(values))[codes])
        codes = level_keys(block.pieces).get_indexer(level_keys(pieces))
        return codes, joined_labels(pieces), self.covariates(j)

    def covariates(self, j: int) -> Matrix:
        """Return the covariates (r, k) of random term j's coefficients."""
        block = self.fit.design.blocks[j]
        if block.coded is None or not self.n:
            return np.ones((self.n, block.k))
        return self._code(block.coded.spec, block.term.span)

    @staticmethod
    def _variables(fit: Fit, blocks: Sequence[RandomBlock]) -> list[str]:
        design = fit.design
        parts = [design.fixed.coded.spec.formula]
        parts += [formulaic_formula(f"0 + {o.code}") for o in design.formula.offsets]
        parts += [b.coded.spec.formula for b in blocks if b.coded is not None]
        names = dict.fromkeys(name for part in parts for name in variables_of(part))
        return list(names)

    def _column(self, name: str) -> pd.Series:
        old = self.fit.design.columns[name]
        raw = self.table.column(name)
        if not isinstance(old.dtype, pd.CategoricalDtype):
            return pd.Series(as_numbers(raw, name))
        levels = old.cat.categories
        codes, values = factorize(raw, name)
        labels = level_labels(values)
        places = level_labels(levels).get_indexer(labels)
        if (places < 0).any():
            unseen = labels[int(np.argmin(places))]
            raise DesignError(
                f"Column {name!r} has the level {unseen!r}, which the fit has not "
                "seen.",
                hint=suggest(unseen, levels, "Levels"),
            )
        codes = np.append(places, -1)[codes]  # code -1 reads the last entry
        return pd.Series(pd.Categorical.from_codes(codes, categories=levels))

    def _code(self, part: object, span: Span) -> Matrix:
        columns = {
            name: series[self.complete].reset_index(drop=True)
            for name, series in self._columns.items()
        }
        return code_as_fitted(self.fit, part, span, columns, self.n)


def code_as_fitted(
    fit: Fit, part: object, span: Span, columns: dict[str, pd.Series], n: int
) -> Matrix:
    """Code a part of the formula on normalized columns as the fit did.

    Parameters
    ----------
    part : formulaic formula, or the spec that the fit kept
    span : of the part in the formula, for errors
    columns : name -> float64 or Categorical Series of length n, with the categories of
        the fit

    Raises
    ------
    DesignError : a level that the fit has not seen
    """
    design = fit.design
    with warnings.catch_warnings():
        warnings.simplefilter("error", DataMismatchWarning)
        try:
            coded = code_part(
                part, columns, n, design.contrasts, (design.formula.source, span)
            )
        except DataMismatchWarning as failure:
            raise DesignError(
                "New data have a level that the fit has not seen.",
                formula=design.formula.source,
                span=span,
                hint=str(failure),
            ) from None
    return coded.values


def level_keys(pieces: Sequence[pd.Index]) -> pd.Index:
    """Return levels by the labels of their columns, to look others up in.

    Joined labels would confuse a:b with c and a with b:c.
    """
    return pieces[0] if len(pieces) == 1 else pd.MultiIndex.from_arrays(list(pieces))
