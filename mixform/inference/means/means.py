"""Estimated marginal means: what the fixed part predicts on a reference grid.

Names and conventions follow R's emmeans (Lenth); Searle, Speed and Milliken 1980, Am.
Stat. 34, 216, for the means themselves.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd

from mixform._typing import Codes, Matrix
from mixform.errors import InferenceError
from mixform.estimate import Fit
from mixform.inference.approximation import Approximation
from mixform.inference.intervals import require_level
from mixform.inference.means.adjustment import read_adjustment
from mixform.inference.means.averaging import average, averaged_over
from mixform.inference.means.linear_estimates import (
    LinearEstimates,
    evaluate_rows,
    not_estimable,
)
from mixform.inference.means.reference_grid import (
    ReferenceGrid,
    code_grid,
    reference_grid,
    require_variable,
)
from mixform.inference.means.response_scale import ResponseScale, response_scale

TYPES = ("link", "response")


@dataclass(frozen=True, slots=True, kw_only=True)
class MeansOptions:
    """What means are asked for, besides the factors.

    Attributes
    ----------
    at : values of variables instead of the mean, or of all levels
    weights : how factors are averaged over
    type : "link", the scale of the model, or "response", that of the data
    adjust, level : of the confidence limits
    """

    at: Mapping[str, object] | None = None
    weights: object = "equal"
    type: str = "link"
    adjust: str | None = None
    level: float = 0.95


def emmeans(
    fit: Fit,
    approximation: Approximation,
    specs: object,
    *,
    by: object = None,
    options: MeansOptions | None = None,
) -> LinearEstimates:
    """Return the marginal means of the combinations of some variables.

    Parameters
    ----------
    specs : a variable of the fixed part, several ("a:b" or a list), "1" for the overall
        mean, or "a | b" for those of a by b
    by : variables that make groups, within which means are compared
    options : the rest

    Raises
    ------
    InferenceError : unknown variable, level, weights, type or adjustment
    """
    options = MeansOptions() if options is None else options
    scale, adjust = read_options(fit, options)
    grid = reference_grid(fit, options.at)
    kept, groups = read_specs(fit, grid, specs, by)
    kept, groups = with_parents(grid, kept, groups)
    X = code_grid(fit, grid.values(), len(grid.places))
    return marginal(
        fit,
        approximation,
        GridFunction(grid=grid, X=X, name="emmean", offset=grid.offset),
        (kept, groups),
        Presentation(scale=scale, adjust=adjust, options=options),
    )


def read_options(fit: Fit, options: MeansOptions) -> tuple[ResponseScale | None, str]:
    """Return the scale of the response and the adjustment.

    Raises
    ------
    InferenceError : unknown type or adjustment, level outside (0, 1), or a
        transformation that cannot be undone
    """
    if options.type not in TYPES:
        raise InferenceError(
            f"Unknown type {options.type!r}.",
            hint='Use "link" (the scale of the model) or "response".',
        )
    require_level(options.level)
    adjust = read_adjustment(options.adjust)
    return response_scale(
        fit.design.formula, required=options.type == "response"
    ), adjust


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GridFunction:
    """A linear function of beta at each combination of a reference grid.

    Attributes
    ----------
    X : (G, c) its coefficients
    name : what it is
    offset : known part, the same everywhere
    """

    grid: ReferenceGrid
    X: Matrix
    name: str
    offset: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Presentation:
    """How estimates are shown."""

    scale: ResponseScale | None
    adjust: str
    options: MeansOptions


def marginal(
    fit: Fit,
    approximation: Approximation,
    function: GridFunction,
    names: tuple[tuple[str, ...], tuple[str, ...]],
    shown: Presentation,
) -> LinearEstimates:
    """Average a function over a reference grid and estimate it.

    Parameters
    ----------
    names : the variables that rows are for, and those that make groups
    """
    kept, groups = names
    grid = function.grid
    labels, L, members = average(
        grid, function.X, (*kept, *groups), shown.options.weights
    )
    offset = np.full(len(L), function.offset)
    estimate, se, den_df = evaluate_rows(fit, approximation, L, offset)
    notes = _interaction_note(grid, kept, groups)
    notes += _missing_notes(fit, function, labels, L, members)
    if fit.design.offset is not None and function.offset:
        notes.append(f"The offset is taken at its mean, {function.offset:.5g}.")
    return LinearEstimates(
        fit=fit,
        approximation=approximation,
        labels=labels,
        by=groups,
        L=L,
        offset=offset,
        estimate=estimate,
        se=se,
        den_df=den_df,
        kind="mean",
        name=function.name,
        scale=shown.scale,
        response=shown.options.type == "response" and shown.scale is not None,
        ratios=False,
        adjust=shown.adjust,
        level=shown.options.level,
        averaged=averaged_over(grid, (*kept, *groups)),
        notes=tuple(notes),
    )


def read_specs(
    fit: Fit, grid: ReferenceGrid, specs: object, by: object
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the variables that means are for, and those that make groups.

    Raises
    ------
    InferenceError : no variable, an unknown one, or one in both
    """
    known = tuple(grid.variables)
    rest: list[str] = []
    if isinstance(specs, str):
        left, bar, right = specs.partition("|")
        if bar and specs not in known:
            specs, rest = left, _names(right, known)
        if "~" in left.strip()[1:]:
            raise InferenceError(
                f"{left!r} has a left-hand side.",
                hint='Write emmeans("trt").pairs() for R\'s pairwise ~ trt.',
            )
    kept = _names(specs, known)
    groups = [*rest, *([] if by is None else _names(by, known))]
    if not kept:
        raise InferenceError(
            "No variable is named.",
            hint=f'Name some of {", ".join(known)}, or "1" for the overall mean.',
        )
    kept = [] if kept == ["1"] else kept
    for name in (*kept, *groups):
        require_variable(fit, name, known)
    groups = list(dict.fromkeys(groups))
    twice = [name for name in kept if name in groups]
    if twice:
        raise InferenceError(
            f"{twice[0]!r} is both in specs and in by.", hint="Name it once."
        )
    return tuple(dict.fromkeys(kept)), tuple(groups)


def _names(specs: object, known: Sequence[str]) -> list[str]:
    if isinstance(specs, int) and not isinstance(specs, bool):
        specs = str(specs)
    if not isinstance(specs, str):
        if not isinstance(specs, Sequence):
            raise InferenceError(
                f"{specs!r} names no variable.", hint='Write "trt" or ["a", "b"].'
            )
        return [name for s in cast("Sequence[Any]", specs) for name in _names(s, known)]
    if specs in known:
        return [specs]
    parts = re.split(r"[:*+]", specs.strip().removeprefix("~"))
    return [part.strip().strip("`") for part in parts if part.strip()]


def with_parents(
    grid: ReferenceGrid, kept: tuple[str, ...], groups: tuple[str, ...]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Add the factors that those named are nested in, without which they mean nothing.

    Those of a factor that makes groups make groups too.
    """
    above = [p for name in groups for p in grid.parents.get(name, ())]
    groups = tuple(dict.fromkeys([*groups, *(p for p in above if p not in kept)]))
    above = [p for name in kept for p in grid.parents.get(name, ())]
    kept = tuple(dict.fromkeys([*kept, *(p for p in above if p not in groups)]))
    return kept, groups


def _interaction_note(
    grid: ReferenceGrid, kept: tuple[str, ...], groups: tuple[str, ...]
) -> list[str]:
    """Warn of means over the levels of what their factors interact with."""
    named = set(kept) | set(groups)
    apart = averaged_over(grid, (*kept, *groups))
    partners = {
        other
        for term in grid.terms
        if named and term > named
        for other in term - named
        if other in apart and not set(grid.parents.get(other, ())) & named
    }
    if not partners:
        return []
    listed = ", ".join(name for name in grid.variables if name in partners)
    return [
        f"{':'.join(n for n in grid.variables if n in named)} interacts with {listed}: "
        "these averages may mislead."
    ]


def _missing_notes(
    fit: Fit,
    function: GridFunction,
    labels: pd.DataFrame,
    L: Matrix,
    members: tuple[Codes, ...],
) -> list[str]:
    """Say of each row that is not estimable which combinations lack data."""
    fixed = fit.design.fixed
    bad = not_estimable(L, fixed)
    notes: list[str] = []
    for i in np.flatnonzero(bad.any(axis=1)):
        row = ", ".join(f"{k} = {v}" for k, v in labels.iloc[i].items())
        cells = [
            g
            for g in members[i]
            if function.grid.counts[g] == 0.0
            and not_estimable(function.X[g : g + 1], fixed).any()
        ]
        if cells or bad[i, -1]:
            what = "; ".join(
                _cell(function.grid, g) for g in cells[:3] or members[i][:1]
            )
            more = ", ..." if len(cells) > 3 else ""
            reason = f"the data have no row with {what}{more}"
        else:
            names = [fixed.aliased_names[j] for j in np.flatnonzero(bad[i, :-1])]
            reason = (
                f"it needs {', '.join(names[:3])}, which the data do not tell from "
                "other columns"
            )
        notes.append(f"{row} is not estimable: {reason}.")
    return notes


def _cell(grid: ReferenceGrid, g: int) -> str:
    return ", ".join(
        f"{name} = {variable.levels[grid.places[g, i]]}"
        for i, (name, variable) in enumerate(grid.variables.items())
        if variable.is_factor
    )
