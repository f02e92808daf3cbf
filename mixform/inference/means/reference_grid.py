"""The reference grid: where marginal means are evaluated.

All combinations of the levels of the factors in X, covariates at their mean over the
rows in the model (of the variable, so that poly(x, 2) and log(x) are taken at mean x).
As in R's emmeans (Lenth), a covariate with exactly two values is taken at both of
them, and the offset is its mean over the rows. Random terms do not enter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd

from mixform._typing import Codes, Mask, Matrix, Vector
from mixform.design import Design
from mixform.design.model_matrix import factors_coded_in, variables_of
from mixform.errors import InferenceError, suggest
from mixform.estimate import Fit
from mixform.inference.means.nesting import find_nesting, term_variables
from mixform.inference.new_rows import code_as_fitted

#: Largest number of entries of X over the grid (160 MB).
LARGEST = 20_000_000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GridVariable:
    """A variable of the fixed part.

    Attributes
    ----------
    levels : values it takes in the grid
    positions : (levels,) of these among the `n_levels` in the data, for a factor
    n_levels : number of levels in the data; 0 for a covariate
    categories : of a categorical column, else None
    """

    levels: tuple[Any, ...]
    positions: Codes
    n_levels: int
    categories: pd.Index | None

    @property
    def is_factor(self) -> bool:
        """Whether rows of the data are counted by it."""
        return self.n_levels > 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReferenceGrid:
    """The combinations of the values of the variables, the first fastest.

    Attributes
    ----------
    variables : v of them by name
    places : (G, v) which of its levels each variable has in each combination
    counts : (G,) rows of the data in the combination of factors
    exists : (G,) False where nesting rules the combination out
    parents : factors in which each nested factor is nested
    terms : the variables of each fixed term
    offset : mean of the offset over the rows
    """

    variables: dict[str, GridVariable]
    places: Codes
    counts: Vector
    exists: Mask
    parents: dict[str, tuple[str, ...]]
    terms: tuple[frozenset[str], ...]
    offset: float

    def columns(self, names: Sequence[str]) -> dict[str, Codes]:
        """Return the places of some variables, each (G,)."""
        position = {name: i for i, name in enumerate(self.variables)}
        return {name: self.places[:, position[name]] for name in names}

    def values(self) -> dict[str, pd.Series]:
        """Return the variables over the grid, as the design's normalized columns."""
        out: dict[str, pd.Series] = {}
        for name, places in self.columns(list(self.variables)).items():
            variable = self.variables[name]
            if variable.categories is None:
                out[name] = pd.Series(np.array(variable.levels, np.float64)[places])
            else:
                codes = variable.positions[places]
                out[name] = pd.Series(
                    pd.Categorical.from_codes(codes, categories=variable.categories)
                )
        return out


def reference_grid(
    fit: Fit, at: Mapping[str, object] | None, covariates: Sequence[str] = ()
) -> ReferenceGrid:
    """Return the reference grid of a fit.

    Parameters
    ----------
    at : values of covariates, or levels of factors, instead of the mean or all levels
    covariates : variables with two values that stay at their mean nevertheless

    Raises
    ------
    InferenceError : the model has no fixed effects; at= names an unknown variable or
        level; the grid is too large
    """
    design = fit.design
    if not design.fixed.kept:
        raise InferenceError("The model has no fixed effects, and so no means.")
    formula = design.fixed.coded.spec.formula
    names = variables_of(formula)
    at = {} if at is None else at
    if not isinstance(at, Mapping):
        raise InferenceError(
            f"at is of type {type(at).__name__!r}, not a mapping.",
            hint='Write at={"x": [1, 2]}.',
        )
    for name in at:
        require_variable(fit, name, names)
    factors = factors_coded_in(formula)
    variables: dict[str, GridVariable] = {}
    observed: dict[str, Codes] = {}
    for name in names:
        keep = name in factors or name not in covariates
        known, codes = _levels_in_data(design.columns[name], name in factors, keep)
        if known is not None and not _chosen_by_value(design, name, at, known):
            variables[name] = _factor(name, design.columns[name], known, at)
            observed[name] = codes
        else:
            variables[name] = _covariate(name, design.columns[name], at)
    places = _combinations(variables, len(design.fixed.names))
    terms = term_variables(formula)
    parents = find_nesting(observed, terms)
    counter = _Counter(fit.n, variables, observed, places)
    exists = np.ones(len(places), dtype=bool)
    for name, above in parents.items():
        exists &= counter([name, *above]) > 0
    return ReferenceGrid(
        variables=variables,
        places=places,
        counts=counter(list(observed)).astype(np.float64),
        exists=exists,
        parents=parents,
        terms=terms,
        offset=0.0 if design.offset is None else float(np.mean(design.offset)),
    )


def require_variable(fit: Fit, name: object, names: Sequence[str]) -> None:
    """Require that a name is a variable of the fixed part.

    Raises
    ------
    InferenceError : it is not; says so of a variable of the random part
    """
    if name in names:
        return
    random = {g for block in fit.design.blocks for g in block.term.group}
    for block in fit.design.blocks:
        if block.coded is not None:
            random.update(variables_of(block.coded.spec.formula))
    if name in random:
        raise InferenceError(
            f"{name!r} is in the random part only; means are over the fixed part.",
            hint=suggest(str(name), names, "Variables of the fixed part"),
        )
    raise InferenceError(
        f"There is no variable {name!r} in the fixed part of the model.",
        hint=suggest(str(name), names, "Variables"),
    )


def _levels_in_data(
    column: pd.Series, coded: bool, keep: bool
) -> tuple[tuple[Any, ...] | None, Codes]:
    """Return the levels, or None for a covariate, and their codes in the data."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        codes = np.asarray(column.cat.codes, dtype=np.int64)
        return tuple(column.cat.categories), codes
    values, inverse = np.unique(column.to_numpy(), return_inverse=True)
    codes = np.asarray(inverse.ravel(), dtype=np.int64)
    if coded or (keep and len(values) == 2):
        return tuple(_plain(v) for v in values), codes
    return None, codes


def _plain(value: float) -> float | int:
    whole = float(value).is_integer() and abs(value) < 2.0**53
    return int(value) if whole else float(value)


def _chosen_by_value(
    design: Design, name: str, at: Mapping[str, object], known: tuple[Any, ...]
) -> bool:
    """Whether a covariate with two values was asked for at other values."""
    if name not in at or name in factors_coded_in(design.fixed.coded.spec.formula):
        return False
    if isinstance(design.columns[name].dtype, pd.CategoricalDtype):
        return False
    return not set(_listed(name, at[name])) <= set(known)


def _listed(name: str, values: object) -> list[Any]:
    if isinstance(values, str | bytes) or not hasattr(values, "__iter__"):
        values = [values]
    found = list(dict.fromkeys(cast("Sequence[Any]", values)))
    if not found:
        raise InferenceError(f"at names no value of {name!r}.", hint="Give at least 1.")
    return found


def _factor(
    name: str, column: pd.Series, known: tuple[Any, ...], at: Mapping[str, object]
) -> GridVariable:
    positions = range(len(known))
    if name in at:
        positions = [_position(name, v, known) for v in _listed(name, at[name])]
    categorical = isinstance(column.dtype, pd.CategoricalDtype)
    return GridVariable(
        levels=tuple(known[i] for i in positions),
        positions=np.array(positions, dtype=np.int64),
        n_levels=len(known),
        categories=column.cat.categories if categorical else None,
    )


def _position(name: str, value: object, known: tuple[Any, ...]) -> int:
    if value in known:
        return known.index(value)
    text = [str(level) for level in known]
    if str(value) in text:
        return text.index(str(value))
    raise InferenceError(
        f"{name!r} has no level {value!r}.", hint=suggest(str(value), known, "Levels")
    )


def _covariate(name: str, column: pd.Series, at: Mapping[str, object]) -> GridVariable:
    values = [float(column.mean())]
    if name in at:
        try:
            values = [float(value) for value in _listed(name, at[name])]
        except (TypeError, ValueError):
            values = [np.nan]
        if not np.all(np.isfinite(values)):
            raise InferenceError(
                f"at={{{name!r}: {at[name]!r}}} is not numeric, but {name!r} is.",
                hint="Give numbers.",
            )
    return GridVariable(
        levels=tuple(map(_plain, values)),
        positions=np.arange(len(values)),
        n_levels=0,
        categories=None,
    )


def _combinations(variables: Mapping[str, GridVariable], c: int) -> Codes:
    sizes = {name: len(variable.levels) for name, variable in variables.items()}
    total = float(np.prod(list(sizes.values()) or [1], dtype=np.float64))
    if total * c > LARGEST:
        large = sorted(sizes, key=lambda name: -sizes[name])[:3]
        raise InferenceError(
            f"The reference grid has {total:.4g} combinations of "
            f"{', '.join(f'{name} ({sizes[name]})' for name in large)}, too many.",
            hint=f"Restrict a factor: at={{{large[0]!r}: [...]}}.",
        )
    if not sizes:
        return np.zeros((1, 0), dtype=np.int64)
    places = np.unravel_index(np.arange(int(total)), list(sizes.values()), order="F")
    return np.column_stack(places).astype(np.int64)


class _Counter:
    """Counts the rows of the data by combinations of factors.

    Parameters
    ----------
    n : rows of the data
    observed : factor -> (n,) codes in the data
    places : (G, v) of the grid
    """

    def __init__(
        self,
        n: int,
        variables: Mapping[str, GridVariable],
        observed: Mapping[str, Codes],
        places: Codes,
    ) -> None:
        self.n, self.total = n, len(places)
        self.sizes = {name: variables[name].n_levels for name in observed}
        self.observed = observed
        self.in_grid = {
            name: variable.positions[places[:, i]]
            for i, (name, variable) in enumerate(variables.items())
            if name in observed
        }

    def __call__(self, names: Sequence[str]) -> Codes:
        """Return for each combination of the grid its number of rows, (G,)."""
        if not names:
            return np.full(self.total, self.n)
        rows, cells = np.zeros(self.n, np.int64), np.zeros(self.total, np.int64)
        for name in names:  # compressed at each step, so that no product overflows
            rows = rows * self.sizes[name] + self.observed[name]
            cells = cells * self.sizes[name] + self.in_grid[name]
            known, rows = np.unique(rows, return_inverse=True)
            found = np.minimum(np.searchsorted(known, cells), len(known) - 1)
            cells = np.where(known[found] == cells, found, len(known))
        return np.append(np.bincount(rows), 0)[cells]


def code_grid(fit: Fit, values: dict[str, pd.Series], n: int) -> Matrix:
    """Return all columns of X on the given variables, (n, c).

    Raises
    ------
    InferenceError : a transformation is undefined there; names the column
    """
    fixed = fit.design.fixed
    X = code_as_fitted(fit, fixed.coded.spec, fit.design.formula.fixed.span, values, n)
    bad = ~np.isfinite(X)
    if bad.any():
        name = fixed.names[int(np.flatnonzero(bad.any(axis=0))[0])]
        raise InferenceError(
            f"{name} is not defined at the values asked for.",
            hint="Choose others with at=.",
        )
    return X
