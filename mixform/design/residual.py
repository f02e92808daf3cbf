"""The residual structure on data: subjects, strata, positions, dispersion columns.

Which coordinates mean what (a visit by its label, a time by its value) is known to the
layer of the structures; here they are columns without missing values.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from mixform._typing import Codes, Mask, Matrix, Vector
from mixform.design.model_matrix import Coded, code_part, variables_of
from mixform.design.random import group_levels, joined_labels
from mixform.errors import DesignError, FormulaError, suggest
from mixform.formula import Part, ResidualTerm, formulaic_formula


@dataclass(frozen=True, slots=True, kw_only=True)
class ResidualFormula:
    """What was asked of the residuals, not yet applied to data.

    Attributes
    ----------
    term : the structure, None for independent residuals
    dispersion : formula of the log standard deviation, None for a constant
    """

    term: ResidualTerm | None = None
    dispersion: Part | None = None

    @property
    def variables(self) -> tuple[str, ...]:
        """Columns of the dispersion formula."""
        if self.dispersion is None:
            return ()
        return tuple(variables_of(formulaic_formula(self.dispersion.code)))

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the structure."""
        return () if self.term is None else self.term.columns

    def require_columns(self, names: Iterable[str]) -> None:
        """Require that the data have the columns.

        Raises
        ------
        FormulaError : one is unknown; underlined in the structure
        """
        known = list(names)
        for name in self.columns:
            if name not in known and self.term is not None:
                raise FormulaError(
                    f"Unknown column {name!r} in residual.",
                    formula=self.term.source,
                    span=self.term.find(name),
                    hint=suggest(name, known, "Columns"),
                )
        for name in self.variables:
            if name not in known and self.dispersion is not None:
                raise FormulaError(
                    f"Unknown column {name!r} in dispersion.",
                    formula=self.dispersion.text,
                    span=(0, len(self.dispersion.text)),
                    hint=suggest(name, known, "Columns"),
                )


PLAIN = ResidualFormula()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ResidualPart:
    """The residuals of n rows: who is correlated with whom, and how they vary.

    Attributes
    ----------
    term : the structure; None if residuals are independent
    coordinates : column -> (n,) values, categories or numbers, none missing
    subjects : (n,) subject of each row
    labels : of the subjects
    strata : (n,) stratum of each row, each with parameters of its own
    stratum_labels : of the strata; one, empty, if there is one
    dispersion : columns of the log standard deviation, a constant among them or not
    origin, unit : (d,) of the columns without the constant, which count as
        (column - origin) / unit: so do years and days move in steps of one size
    pieces, stratum_pieces : for each column of the subject, or of the stratum, its
        label in each of them
    """

    term: ResidualTerm | None
    coordinates: Mapping[str, pd.Series]
    subjects: Codes
    labels: pd.Index
    strata: Codes
    stratum_labels: pd.Index
    dispersion: Coded | None
    origin: Vector
    unit: Vector
    pieces: tuple[pd.Index, ...] = ()
    stratum_pieces: tuple[pd.Index, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the data behind it, each once."""
        names = () if self.term is None else self.term.columns
        return tuple(dict.fromkeys((*names, *self.variables)))

    @property
    def variables(self) -> tuple[str, ...]:
        """Columns of the dispersion formula."""
        if self.dispersion is None:
            return ()
        return tuple(variables_of(self.dispersion.spec.formula))

    @property
    def dispersion_values(self) -> Matrix:
        """The dispersion columns in their units, (n, d), none for a constant SD."""
        if self.dispersion is None:
            return np.empty((len(self.subjects), 0))
        return (_without_constant(self.dispersion) - self.origin) / self.unit

    @property
    def dispersion_names(self) -> tuple[str, ...]:
        """Names of the dispersion columns."""
        if self.dispersion is None:
            return ()
        return tuple(n for n in self.dispersion.names if n != "Intercept")


def build_residual(
    asked: ResidualFormula,
    columns: Mapping[str, pd.Series],
    variables: Mapping[str, pd.Series],
    n: int,
    contrasts: Mapping[str, Any],
) -> ResidualPart | None:
    """Apply what was asked of the residuals to the rows in the model.

    Parameters
    ----------
    asked : structure and dispersion
    columns : columns of the structure, rows in use, as in the data
    variables : normalized columns of the dispersion formula, rows in use
    n : number of rows in use
    contrasts : formulaic contrasts of factors

    Raises
    ------
    DesignError : the dispersion has no variable column, or aliased ones
    """
    if asked == PLAIN:
        return None
    term = asked.term
    subjects = strata = np.zeros(n, dtype=np.int64)
    labels = stratum_labels = pd.Index([""], dtype=object)
    of_subjects: tuple[pd.Index, ...] = ()
    of_strata: tuple[pd.Index, ...] = ()
    if term is not None and term.group:
        subjects, of_subjects = group_levels(
            [columns[c] for c in term.group], term.group
        )
        labels = joined_labels(of_subjects)
    if term is not None and term.strata:
        strata, of_strata = group_levels([columns[c] for c in term.strata], term.strata)
        stratum_labels = joined_labels(of_strata)
    dispersion = _dispersion(asked.dispersion, variables, n, contrasts)
    origin, unit = _units(dispersion)
    return ResidualPart(
        term=term,
        coordinates={}
        if term is None
        else {c: columns[c].reset_index(drop=True) for c in term.coordinates},
        subjects=subjects,
        labels=labels,
        strata=strata,
        stratum_labels=stratum_labels,
        dispersion=dispersion,
        origin=origin,
        unit=unit,
        pieces=of_subjects,
        stratum_pieces=of_strata,
    )


def residual_of_rows(part: ResidualPart | None, keep: Mask) -> ResidualPart | None:
    """Return the residuals of some rows (n,); subjects and strata keep their labels.

    Raises
    ------
    DesignError : no row of a stratum is left
    """
    if part is None:
        return None
    lost = np.setdiff1d(part.strata, part.strata[keep])
    if len(lost):
        raise DesignError(
            f"no row of the stratum {part.stratum_labels[lost[0]]!r} of residual is "
            "left."
        )
    coded = part.dispersion
    return replace(
        part,
        coordinates={
            name: values[keep].reset_index(drop=True)
            for name, values in part.coordinates.items()
        },
        subjects=part.subjects[keep],
        strata=part.strata[keep],
        dispersion=None if coded is None else replace(coded, values=coded.values[keep]),
    )


def same_residuals(one: ResidualPart | None, two: ResidualPart | None) -> bool:
    """Whether two residual parts say the same of their rows."""
    if one is None or two is None:
        return one is two
    return (
        one.term == two.term
        and np.array_equal(one.subjects, two.subjects)
        and np.array_equal(one.strata, two.strata)
        and np.array_equal(one.dispersion_values, two.dispersion_values)
        and all(
            values.equals(two.coordinates[name])
            for name, values in one.coordinates.items()
        )
    )


def _dispersion(
    part: Part | None,
    variables: Mapping[str, pd.Series],
    n: int,
    contrasts: Mapping[str, Any],
) -> Coded | None:
    if part is None:
        return None
    coded = code_part(
        formulaic_formula(part.code), variables, n, contrasts, (part.text, (0, 0))
    )
    values = coded.values
    if not np.all(np.isfinite(values)):
        raise DesignError(
            f"The dispersion '~ {part.text}' is not finite in all rows.",
            hint="Correct the values, or leave the rows out.",
        )
    keep = [j for j, name in enumerate(coded.names) if name != "Intercept"]
    with_constant = np.column_stack([np.ones(n), values[:, keep]])
    scale = np.sqrt(np.mean(with_constant**2, axis=0))
    if not keep or np.any(scale == 0.0):
        raise DesignError(
            f"The dispersion '~ {part.text}' does not vary.",
            hint="Name a column that takes several values.",
        )
    sizes = np.linalg.svd(with_constant / scale, compute_uv=False)
    if sizes[-1] < 1e-10 * sizes[0]:
        raise DesignError(
            f"The columns of the dispersion '~ {part.text}' are combinations of each "
            f"other and the constant: {', '.join(coded.names[j] for j in keep)}.",
            hint="Leave one of them out.",
        )
    return coded


def _without_constant(coded: Coded) -> Matrix:
    keep = [j for j, name in enumerate(coded.names) if name != "Intercept"]
    return coded.values[:, keep]


def _units(coded: Coded | None) -> tuple[Vector, Vector]:
    """Return origin and unit (d,) of dispersion columns.

    The origin is zero, or the mean of data farther from zero than they are apart, such
    as years; the unit is the largest distance from it. Both leave dummies as they are.
    """
    if coded is None:
        return np.empty(0), np.empty(0)
    W = _without_constant(coded)
    largest, smallest = W.max(axis=0), W.min(axis=0)
    away = np.maximum(smallest, -largest) > largest - smallest
    origin = np.where(away, W.mean(axis=0), 0.0)
    return origin, np.abs(W - origin).max(axis=0)
