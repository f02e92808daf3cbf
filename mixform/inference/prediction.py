"""Fitted values and predictions, for the data or for new data."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd
from formulaic.errors import DataMismatchWarning

from mixform._typing import Vector
from mixform.design import Design, RandomBlock
from mixform.design.frame import Table, as_numbers, factorize, is_missing
from mixform.design.model_matrix import code_part, variables_of
from mixform.design.random import joined_labels, level_labels
from mixform.errors import DesignError, InferenceError, Span, suggest
from mixform.estimate import Fit
from mixform.formula import formulaic_formula
from mixform.inference.variance_components import block_labels

NEW_LEVELS = ("raise", "population", "nan")


def chosen_blocks(fit: Fit, random: bool | str | Sequence[str]) -> list[int]:
    """Return the positions of the random terms to predict with.

    Parameters
    ----------
    random : True for all, False for none, or grouping factors or terms by name

    Raises
    ------
    InferenceError : a name is no random term of the model
    """
    blocks = fit.design.blocks
    if isinstance(random, bool | np.bool_):
        return list(range(len(blocks))) if random else []
    if not isinstance(random, str | Sequence):
        raise InferenceError(
            f"random is {random!r}, not True, False or names of random terms."
        )
    wanted = [random] if isinstance(random, str) else list(random)
    labels = block_labels(fit)
    chosen: set[int] = set()
    for name in wanted:
        squeezed = "".join(str(name).split())
        here = {
            j
            for j, block in enumerate(blocks)
            if squeezed
            in {labels[j], block.term.group_label, "".join(block.term.source.split())}
            or sorted(squeezed.split(":")) == sorted(block.term.group)
        }
        if not here:
            raise InferenceError(
                f"There is no random term {name!r}.",
                hint=suggest(str(name), labels, "Random terms"),
            )
        chosen |= here
    return sorted(chosen)


def fitted(fit: Fit, chosen: Sequence[int]) -> Vector:
    """Return X beta + Z b + offset for the rows in the model, (n,)."""
    design = fit.design
    values = design.fixed.X @ fit.beta
    for j in chosen:
        block = design.blocks[j]
        values = values + np.einsum("ij,ij->i", block.design, fit.b[j][block.codes])
    return values if design.offset is None else values + design.offset


def scaled_residuals(fit: Fit) -> Vector:
    """Return (y - fitted) sqrt(w) / sigma for the rows in the model, (n,)."""
    design = fit.design
    rest = (design.y - fitted(fit, range(len(design.blocks)))) / fit.sigma
    return rest if design.weights is None else rest * np.sqrt(design.weights)


def predict(
    fit: Fit, newdata: object, *, random: bool | str | Sequence[str], new_levels: str
) -> pd.Series:
    """Return predictions for each row of the new data, with its index.

    Parameters
    ----------
    newdata : a table with the model's columns; None for the data of the fit
    random : True, False, or names of random terms
    new_levels : for a level the fit has not seen: "raise"; "population" predicts
        with its expectation, zero; "nan"

    Returns
    -------
    Series, NaN where a needed value is missing

    Raises
    ------
    DesignError : a column or a level of a fixed factor is unknown
    InferenceError : an unseen level of a grouping factor, or an unknown option
    """
    if new_levels not in NEW_LEVELS:
        raise InferenceError(
            f"Unknown new_levels {new_levels!r}.",
            hint=suggest(str(new_levels), NEW_LEVELS, "Choices"),
        )
    chosen = chosen_blocks(fit, random)
    if newdata is None:
        return pd.Series(fitted(fit, chosen), index=fit.design.row_index)
    return _NewRows(fit, Table(newdata), chosen).predict(new_levels)


class _NewRows:
    """New data coded as the data of the fit were."""

    def __init__(self, fit: Fit, table: Table, chosen: Sequence[int]) -> None:
        self.fit, self.table, self.chosen = fit, table, chosen
        self.blocks = [fit.design.blocks[j] for j in chosen]
        needed = self._variables()
        self.columns = {n: self._column(n, fit.design) for n in needed}
        self.groups = {
            name: table.column(name)
            for block in self.blocks
            for name in block.term.group
        }
        self.complete = np.ones(len(table), dtype=bool)
        for series in (*self.columns.values(), *self.groups.values()):
            self.complete &= ~is_missing(series)

    def _variables(self) -> list[str]:
        design = self.fit.design
        parts = [design.fixed.coded.spec.formula]
        parts += [formulaic_formula(f"0 + {o.code}") for o in design.formula.offsets]
        parts += [b.coded.spec.formula for b in self.blocks if b.coded is not None]
        names = dict.fromkeys(name for part in parts for name in variables_of(part))
        return list(names)

    def _column(self, name: str, design: Design) -> pd.Series:
        old = design.columns[name]
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

    def predict(self, new_levels: str) -> pd.Series:
        fit = self.fit
        values = np.full(len(self.table), np.nan)
        if self.complete.any():
            rows = self._fixed() + self._offset()
            for j, block in zip(self.chosen, self.blocks, strict=True):
                rows = rows + self._random(block, fit.b[j], new_levels)
            values[self.complete] = rows
        return pd.Series(values, index=self.table.index)

    def _kept(self) -> dict[str, pd.Series]:
        return {
            n: s[self.complete].reset_index(drop=True) for n, s in self.columns.items()
        }

    def _code(self, part: object, span: Span) -> np.ndarray:
        design = self.fit.design
        n = int(self.complete.sum())
        with warnings.catch_warnings():
            warnings.simplefilter("error", DataMismatchWarning)
            try:
                coded = code_part(
                    part,
                    self._kept(),
                    n,
                    design.contrasts,
                    (design.formula.source, span),
                )
            except DataMismatchWarning as failure:
                raise DesignError(
                    "New data have a level that the fit has not seen.",
                    formula=design.formula.source,
                    span=span,
                    hint=str(failure),
                ) from None
        return coded.values

    def _fixed(self) -> Vector:
        fixed = self.fit.design.fixed
        if not fixed.kept:
            return np.zeros(int(self.complete.sum()))
        X = self._code(fixed.coded.spec, self.fit.design.formula.fixed.span)
        return X[:, fixed.kept] @ self.fit.beta

    def _offset(self) -> Vector:
        design = self.fit.design
        total = np.zeros(int(self.complete.sum()))
        for part in design.formula.offsets:
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

    def _random(self, block: RandomBlock, b: np.ndarray, new_levels: str) -> Vector:
        codes, labels = self._levels(block)
        new = codes < 0
        if new.any() and new_levels == "raise":
            first = labels[int(np.flatnonzero(new)[0])]
            raise InferenceError(
                f"New data have the level {first!r} of {block.term.group_label!r}, "
                "which the fit has not seen.",
                hint='Use new_levels="population" to predict with its expectation, '
                "or random=False.",
            )
        if block.coded is None:
            design = np.ones((len(codes), 1))
        else:
            design = self._code(block.coded.spec, block.term.span)
        effects = b[np.where(new, 0, codes)]
        effects[new] = 0.0 if new_levels == "population" else np.nan
        return np.einsum("ij,ij->i", design, effects)

    def _levels(self, block: RandomBlock) -> tuple[np.ndarray, pd.Index]:
        """Return the level of each complete row, -1 if new, and its labels."""
        pieces: list[pd.Index] = []
        for name in block.term.group:
            codes, values = pd.factorize(self.groups[name][self.complete])
            pieces.append(level_labels(pd.Index(values))[codes])
        known, new = _keys(block.pieces), _keys(pieces)
        return known.get_indexer(new), joined_labels(pieces)


def _keys(pieces: Sequence[pd.Index]) -> pd.Index:
    # Joined labels would confuse a:b with c and a with b:c.
    return pieces[0] if len(pieces) == 1 else pd.MultiIndex.from_arrays(list(pieces))
