"""Estimates of several linear functions of the fixed effects: means and contrasts.

Goes in: L over all columns of X, with a label for each row. Comes out: a record from
which tables with confidence limits and tests are made, on the scale of the model or of
the data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd

from mixform._typing import Codes, Mask, Matrix, Vector
from mixform.design import FixedPart
from mixform.errors import InferenceError, suggest
from mixform.estimate import Fit
from mixform.inference.approximation import Approximation
from mixform.inference.contrast_tests import t_tests
from mixform.inference.intervals import require_level
from mixform.inference.means.adjustment import (
    Families,
    adjust_p,
    critical_values,
    read_adjustment,
)
from mixform.inference.means.response_scale import ResponseScale

Kind = Literal["mean", "pairwise", "contrast"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LinearEstimates:
    """Estimates of L beta + offset, one for each row of L.

    Attributes
    ----------
    labels : (r,) frame of what each row is
    by : the columns of it that make groups
    L : (r, c) over all columns of X; NaN where a row has no meaning
    offset : (r,) known part of each row
    estimate, se, den_df : (r,) on the scale of the model, NaN if not estimable
    kind : "mean", "pairwise" (all differences of a set of means) or "contrast"
    name : column name of the estimates
    scale : how the response was transformed, None if it was not
    response : whether tables are on the scale of the data
    ratios : whether the rows are logarithms of ratios
    adjust, level : what tables use unless told otherwise
    averaged : the variables that were averaged over
    notes : what a reader must know
    """

    fit: Fit
    approximation: Approximation
    labels: pd.DataFrame
    by: tuple[str, ...]
    L: Matrix
    offset: Vector
    estimate: Vector
    se: Vector
    den_df: Vector
    kind: Kind
    name: str
    scale: ResponseScale | None
    response: bool
    ratios: bool
    adjust: str
    level: float
    averaged: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def shown_as(self) -> str:
        """Name of the column of the estimates in tables."""
        if self.response and self.ratios:
            return "ratio"
        return "response" if self.response and self.kind == "mean" else self.name

    @property
    def on_data_scale(self) -> bool:
        """Whether estimates and limits are transformed back."""
        return self.response and (self.ratios or self.kind == "mean")

    def groups(self, by: tuple[str, ...] | None = None) -> tuple[Codes, ...]:
        """Return the rows of each group, in order of appearance.

        Raises
        ------
        InferenceError : by names an unknown column
        """
        by = self.by if by is None else by
        for name in by:
            if name not in self.labels.columns:
                raise InferenceError(
                    f"by={name!r} is no column of these estimates.",
                    hint=suggest(name, self.labels.columns, "Columns"),
                )
        if not by:
            return (np.arange(len(self.labels)),)
        keys = self.labels.groupby(list(by), observed=True, sort=False).ngroup()
        codes = keys.to_numpy()
        return tuple(np.flatnonzero(codes == g) for g in range(int(codes.max()) + 1))


def evaluate_rows(
    fit: Fit, approximation: Approximation, L: Matrix, offset: Vector
) -> tuple[Vector, Vector, Vector]:
    """Return estimate, SE and df of L beta + offset, each (r,); NaN if not estimable.

    Parameters
    ----------
    L : (r, c) over all columns of X
    """
    fixed = fit.design.fixed
    good = ~not_estimable(L, fixed).any(axis=1)
    out = np.full((3, len(L)), np.nan)
    rows = L[good][:, fixed.kept]
    table = t_tests(rows, np.zeros(len(rows)), fit, approximation)
    out[:, good] = table[["estimate", "se", "df"]].to_numpy().T
    return out[0] + offset, out[1], out[2]


def not_estimable(L: Matrix, fixed: FixedPart) -> Mask:
    """Return which aliased columns make each row not estimable, (r, a + 1).

    The last column is for rows that are NaN.
    """
    missing = np.isnan(L).any(axis=1)
    L = np.where(missing.reshape(-1, 1), 0.0, L)
    return np.column_stack([fixed.space.undetermined(L), missing])


def frame(
    estimates: LinearEstimates,
    *,
    limits: bool,
    tests: bool,
    null: float = 0.0,
    level: float | None = None,
    adjust: str | None = None,
    by: tuple[str, ...] | None = None,
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Return a table of the estimates and notes on how it was made.

    Parameters
    ----------
    limits : add ``lower, upper``
    tests : add ``t_value, p_value`` (and ``null``, unless it is zero)
    null : what is tested, on the scale of the model
    level, adjust : instead of those of the estimates
    by : what makes families, if not the groups of the estimates; () for one family

    Raises
    ------
    InferenceError : unknown adjustment or column, or level outside (0, 1)
    """
    level = estimates.level if level is None else level
    require_level(level)
    adjust = estimates.adjust if adjust is None else read_adjustment(adjust)
    if not np.isfinite(null):
        raise InferenceError(f"The null value is {null}, not a finite number.")
    center, se = _to_shown(estimates, estimates.estimate, estimates.se)
    table = estimates.labels.copy()
    table[estimates.shown_as] = center
    table["se"] = se
    table["df"] = estimates.den_df
    notes = opening_notes(estimates, _notes_on_df(estimates))
    together = families(estimates, by)
    if limits:
        notes += _add_limits(table, estimates, together, level, adjust)
    if tests:
        notes += _add_tests(table, estimates, together, null, adjust)
    return table, (*notes, *estimates.notes)


def families(estimates: LinearEstimates, by: tuple[str, ...] | None) -> Families:
    """Return which rows are adjusted together.

    Raises
    ------
    InferenceError : by names an unknown column
    """
    kept = estimates.L[:, estimates.fit.design.fixed.kept]
    own = by is None or by == estimates.by
    return Families(
        rows=estimates.groups(by),
        pairwise=estimates.kind == "pairwise" and own,
        L=kept,
        V_beta=estimates.approximation.V_beta,
    )


def _add_limits(
    table: pd.DataFrame,
    estimates: LinearEstimates,
    together: Families,
    level: float,
    adjust: str,
) -> list[str]:
    critical, notes = critical_values(level, estimates.den_df, together, adjust)
    width = critical * estimates.se
    table["lower"] = _limit(estimates, estimates.estimate - width)
    table["upper"] = _limit(estimates, estimates.estimate + width)
    notes = [f"Confidence level used: {level:g}", *notes]
    if estimates.on_data_scale and estimates.scale is not None:
        notes.append(
            f"Intervals are back-transformed from the {estimates.scale.name} scale"
        )
    return notes


def _add_tests(
    table: pd.DataFrame,
    estimates: LinearEstimates,
    together: Families,
    null: float,
    adjust: str,
) -> list[str]:
    with np.errstate(divide="ignore", invalid="ignore"):
        t_values = (estimates.estimate - null) / estimates.se
    p_values, notes = adjust_p(t_values, estimates.den_df, together, adjust)
    shown = _limit(estimates, np.array([null]))[0]
    if shown != 0.0:
        table["null"] = shown
    table["t_value"] = t_values
    table["p_value"] = p_values
    if estimates.on_data_scale and estimates.scale is not None:
        notes.append(f"Tests are performed on the {estimates.scale.name} scale")
    return notes


def _to_shown(
    estimates: LinearEstimates, center: Vector, se: Vector
) -> tuple[Vector, Vector]:
    scale = estimates.scale
    if scale is None or not estimates.on_data_scale:
        return center, se
    if estimates.ratios:
        ratios = scale.ratios(center)
        return ratios, ratios * scale.transformation.log_base * se
    return scale.means(center, se)


def _limit(estimates: LinearEstimates, limit: Vector) -> Vector:
    scale = estimates.scale
    if scale is None or not estimates.on_data_scale:
        return limit
    return scale.ratios(limit) if estimates.ratios else scale.limits(limit)


def opening_notes(estimates: LinearEstimates, judged: Sequence[str]) -> list[str]:
    """Return what was averaged over, and on which scale the estimates are.

    Parameters
    ----------
    judged : notes on where errors come from, which stand between the two
    """
    notes: list[str] = []
    scale = estimates.scale
    if scale is not None and estimates.response and not estimates.on_data_scale:
        notes.append(f"contrasts are still on the {scale.name} scale")
    if estimates.averaged:
        names = ", ".join(estimates.averaged)
        notes.append(f"Results are averaged over the levels of: {names}")
    notes += judged
    if scale is not None and not estimates.response:
        notes.append(f"Results are given on the {scale.name} (not the response) scale.")
    return notes


def _notes_on_df(estimates: LinearEstimates) -> list[str]:
    title, note = estimates.approximation.title.lower(), estimates.approximation.note
    return [f"Degrees-of-freedom method: {title}", *([note] if note else [])]


def with_level(estimates: LinearEstimates, level: float) -> LinearEstimates:
    """Return the same estimates with another confidence level."""
    require_level(level)
    return replace(estimates, level=level)
