"""From the reference grid to marginal means: which combinations count how much.

The weights are those of R's emmeans (Lenth). For the factors that are averaged over:

- equal: each level counts the same (within the levels it is nested in);
- proportional: each combination of them counts as often as it is in the data;
- outer: the product of how often each of their levels is in the data;
- cells: each combination, together with the levels of the mean, as often as it is in
  the data, so that combinations without data count nothing;
- flat: the same for each of these combinations that is in the data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import pandas as pd

from mixform._typing import Codes, Matrix, Vector
from mixform.errors import InferenceError, suggest
from mixform.inference.means.reference_grid import ReferenceGrid


def average(
    grid: ReferenceGrid, X: Matrix, kept: Sequence[str], weights: object
) -> tuple[pd.DataFrame, Matrix, tuple[Codes, ...]]:
    """Average X over all variables of the grid but some.

    Parameters
    ----------
    X : (G, c) over the grid
    kept : the variables that the means are for; none for the overall mean
    weights : a name, or factor -> weights of its levels (level -> number)

    Returns
    -------
    labels : (r,) values of the kept variables, the first fastest
    L : (r, c) coefficients of the means; NaN where no combination counts
    members : for each mean the combinations that count

    Raises
    ------
    InferenceError : unknown weights
    """
    averaged = averaged_over(grid, kept)
    w = _weights(grid, averaged, weights)
    places = grid.columns(kept)
    group = np.zeros(len(X), dtype=np.int64)
    for name in reversed(kept):
        group = group * len(grid.variables[name].levels) + places[name]
    means, first, group = np.unique(
        group[grid.exists], return_index=True, return_inverse=True
    )
    rows = np.flatnonzero(grid.exists)
    w = w[rows]
    total = np.bincount(group, w, minlength=len(means))
    share = np.divide(
        w, total[group], out=np.full(len(w), np.nan), where=total[group] > 0.0
    )
    L = np.zeros((len(means), X.shape[1]))
    np.add.at(L, group, share[:, None] * X[rows])
    labels = pd.DataFrame(
        {name: _column(grid, name, places[name][rows[first]]) for name in kept}
        if kept
        else {"1": ["overall"]}
    )
    counting = np.isnan(share) | (share > 0.0)
    members = tuple(rows[(group == i) & counting] for i in range(len(means)))
    return labels, L, members


def averaged_over(grid: ReferenceGrid, kept: Sequence[str]) -> tuple[str, ...]:
    """Return the variables that means are averaged over: those with several values."""
    return tuple(
        name
        for name, variable in grid.variables.items()
        if name not in kept and len(variable.levels) > 1
    )


def _column(grid: ReferenceGrid, name: str, places: Codes) -> pd.Series:
    variable = grid.variables[name]
    if variable.categories is None:
        return pd.Series([variable.levels[i] for i in places])
    levels = pd.Index(variable.levels)
    return pd.Series(pd.Categorical.from_codes(places, categories=levels))


def _weights(grid: ReferenceGrid, averaged: tuple[str, ...], weights: object) -> Vector:
    """Return how much each combination counts, (G,), to any scale."""
    if isinstance(weights, Mapping):
        return _given(grid, averaged, cast("Mapping[str, Any]", weights))
    if not isinstance(weights, str) or weights not in WEIGHTS:
        raise InferenceError(
            f"Unknown weights {weights!r}.",
            hint=suggest(str(weights), WEIGHTS, "Weights")
            + " Or give a mapping of factors to weights of their levels.",
        )
    return WEIGHTS[weights](grid, averaged)


def _sums(grid: ReferenceGrid, names: Sequence[str], values: Vector) -> Vector:
    """Sum values over the combinations that share the levels of some variables."""
    places = grid.columns(names)
    key = np.zeros(len(values), dtype=np.int64)
    for name in names:
        key = key * len(grid.variables[name].levels) + places[name]
    return np.asarray(np.bincount(key, values)[key], dtype=np.float64)


def _equal(grid: ReferenceGrid, averaged: tuple[str, ...]) -> Vector:
    w = np.ones(len(grid.places))
    present = grid.exists.astype(np.float64)
    for name in averaged:
        above = [p for p in grid.parents.get(name, ()) if p in grid.variables]
        # Levels of this factor within the levels of those it is nested in.
        own = _sums(grid, [*above, name], present)
        each = np.divide(present, own, out=np.zeros_like(own), where=own > 0.0)
        w /= np.maximum(_sums(grid, above, each), 1.0)
    return w


def _proportional(grid: ReferenceGrid, averaged: tuple[str, ...]) -> Vector:
    above = {p for name in averaged for p in grid.parents.get(name, ())}
    return _sums(grid, _factors(grid, [*averaged, *above]), grid.counts)


def _outer(grid: ReferenceGrid, averaged: tuple[str, ...]) -> Vector:
    w = np.ones(len(grid.places))
    # Within the factors that others are nested in, margins are taken for each.
    within = {p for name in averaged for p in grid.parents.get(name, ())}
    for name in _factors(grid, averaged):
        above = grid.parents.get(name, ()) if name in within else within
        total = _sums(grid, list(above), grid.counts)
        part = _sums(grid, [*above, name], grid.counts)
        w *= np.divide(part, total, out=np.zeros_like(part), where=total > 0.0)
    return w


def _cells(grid: ReferenceGrid, averaged: tuple[str, ...]) -> Vector:
    return grid.counts if averaged else np.ones(len(grid.places))


def _flat(grid: ReferenceGrid, averaged: tuple[str, ...]) -> Vector:
    return (_cells(grid, averaged) > 0.0).astype(np.float64)


def _factors(grid: ReferenceGrid, names: Sequence[str]) -> list[str]:
    return [name for name in dict.fromkeys(names) if grid.variables[name].is_factor]


WEIGHTS: dict[str, Callable[[ReferenceGrid, tuple[str, ...]], Vector]] = {
    "equal": _equal,
    "proportional": _proportional,
    "outer": _outer,
    "cells": _cells,
    "flat": _flat,
}


def _given(
    grid: ReferenceGrid, averaged: tuple[str, ...], weights: Mapping[str, Any]
) -> Vector:
    """Return products of the weights given for the levels of some factors."""
    w = np.ones(len(grid.places))
    for name, given in weights.items():
        if name not in averaged:
            raise InferenceError(
                f"weights names {name!r}, which the means are not averaged over.",
                hint=suggest(str(name), averaged, "Averaged over"),
            )
        levels = grid.variables[name].levels
        if not isinstance(given, Mapping) or set(map(str, given)) != set(
            map(str, levels)
        ):
            raise InferenceError(
                f"weights of {name!r} must give a number for each of its levels.",
                hint=f"Levels: {', '.join(map(str, levels))}.",
            )
        known = {str(level): value for level, value in given.items()}
        try:
            values = np.array([float(known[str(level)]) for level in levels])
        except (TypeError, ValueError):
            values = np.array([np.nan])
        if not (np.all(values >= 0.0) and values.sum() > 0.0):
            raise InferenceError(
                f"weights of {name!r} must be positive numbers, or zero for some."
            )
        w *= values[grid.columns([name])[name]]
    return w
