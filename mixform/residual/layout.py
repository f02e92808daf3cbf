"""Which rows form a subject, and where they stand: batches of subjects alike.

Goes in: the residual part of a design. Comes out: for each stratum its positions, and
batches of subjects with equally many rows; those with the same positions, distances
and dispersion share a pattern, and with it a covariance matrix.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.spatial.distance import cdist

from mixform._typing import AnyArray, Codes, Matrix, Stack
from mixform.design import ResidualPart
from mixform.design.frame import factorize, normalize
from mixform.design.random import level_labels
from mixform.errors import DesignError
from mixform.formula import ResidualTerm
from mixform.residual.structure import Structure


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Grid:
    """The positions of one stratum.

    Attributes
    ----------
    labels : of the positions, in order; empty for times and coordinates
    D : (size, size) integer differences of the positions
    """

    labels: tuple[str, ...]
    D: AnyArray

    @property
    def size(self) -> int:
        """Number of positions."""
        return len(self.D)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """N subjects of one stratum with v rows each, in U patterns.

    Attributes
    ----------
    rows : (N, v) rows of the design
    which : (N,) pattern of each subject
    stratum : number of the stratum
    places : (U, v) positions of the pattern; None for times and coordinates
    D : (U, v, v) distances; None for positions
    W : (U, v, d) dispersion columns
    """

    rows: Codes
    which: Codes
    stratum: int
    places: Codes | None
    D: Stack | None
    W: Stack


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Layout:
    """The subjects of a model.

    Attributes
    ----------
    grids : positions of each stratum
    strata : their labels
    batches : the subjects
    scale : median distance between rows of a subject, 1 for positions
    """

    grids: tuple[Grid, ...]
    strata: tuple[str, ...]
    batches: tuple[Batch, ...]
    scale: float


def build_layout(part: ResidualPart, structure: Structure) -> Layout:
    """Sort the rows of a design into subjects.

    Raises
    ------
    DesignError : no subject has two residuals to correlate, a position occurs twice
        in a subject or is the only one, a coordinate is not numeric
    """
    term, family = part.term, structure.family
    W = part.dispersion_values
    alone = term is None or not family_correlates(structure)
    n = len(part.subjects)
    subjects = np.arange(n) if alone else part.subjects
    if family.kind == "distance":
        assert term is not None, "distances are of coordinates"
        points = points_of(part, term)
        grid = Grid(labels=(), D=np.zeros((1, 1), dtype=np.int64))
        grids, places = [grid] * len(part.stratum_labels), None
        order = np.lexsort((*points.T[::-1], subjects))
    else:
        points = None
        places, grids = _positions(part, structure)
        order = np.lexsort((places, subjects))
    batches = tuple(sorted_batches(part.strata, subjects, order, places, points, W))
    if not alone and term is not None:
        _require_pairs(batches, term)
        require_distinct(batches, part, term, structure)
    distances = [b.D[:50][b.D[:50] > 0.0] for b in batches if b.D is not None]
    values = np.concatenate([d.ravel()[:200_000] for d in distances] or [np.ones(1)])
    return Layout(
        grids=tuple(grids),
        strata=tuple(map(str, part.stratum_labels)),
        batches=batches,
        scale=float(np.median(values)) if values.size else 1.0,
    )


def family_correlates(structure: Structure) -> bool:
    """Whether the residuals of a subject are correlated."""
    return structure.name not in {"diag", "iid"}


def sorted_batches(
    strata: Codes,
    subjects: AnyArray,
    order: AnyArray,
    places: Codes | None,
    points: Matrix | None,
    W: Matrix,
) -> Iterator[Batch]:
    """Yield batches; rows of a subject in the order of their positions."""
    sorted_subjects = subjects[order]
    firsts = np.flatnonzero(np.append(True, np.diff(sorted_subjects) != 0))
    sizes = np.diff(np.append(firsts, len(order)))
    stratum = strata[order[firsts]]
    for s in np.unique(stratum):
        for v in np.unique(sizes[stratum == s]):
            chosen = firsts[(stratum == s) & (sizes == v)]
            rows = order[chosen[:, None] + np.arange(v)]
            parts = [W[rows].reshape(len(rows), -1)]
            if places is not None:
                parts.append(places[rows].astype(np.float64))
            if points is not None:
                apart = points[rows] - points[rows][:, :1]
                parts.append(apart.reshape(len(rows), -1))
            first, which = _patterns(np.concatenate(parts, axis=1))
            of_pattern = rows[first]
            yield Batch(
                rows=rows,
                which=which,
                stratum=int(s),
                places=None if places is None else places[of_pattern],
                D=None if points is None else _distances(points[of_pattern]),
                W=W[of_pattern],
            )


def _patterns(keys: Matrix) -> tuple[AnyArray, AnyArray]:
    """Return the first of each distinct row, and which of them each row (N,) is."""
    which = np.zeros(len(keys), dtype=np.int64)
    for column in keys.T:
        values, codes = np.unique(column, return_inverse=True)
        if len(values) > 1:
            which = np.unique(which * len(values) + codes, return_inverse=True)[1]
    first = np.unique(which, return_index=True)[1]
    return first, which


def _distances(points: Stack) -> Stack:
    """Return (U, v, v) Euclidean distances of points (U, v, d)."""
    if len(points) == 1:
        return cdist(points[0], points[0])[None]
    apart = points[:, :, None, :] - points[:, None, :, :]
    return np.sqrt(np.einsum("uijd,uijd->uij", apart, apart))


def points_of(part: ResidualPart, term: ResidualTerm) -> Matrix:
    """Return the coordinates (n, d)."""
    columns: list[AnyArray] = []
    for name, values in part.coordinates.items():
        numbers = normalize(values, name)
        if isinstance(numbers.dtype, pd.CategoricalDtype):
            raise DesignError(
                f"{name!r} in residual is not numeric (type {values.dtype}), and "
                f"{term.structure!r} needs distances.",
                formula=term.source,
                span=term.find(name),
                hint="Give numbers, or use ar1 for positions in order.",
            )
        columns.append(numbers.to_numpy())
    points = np.column_stack(columns)
    if not np.all(np.isfinite(points)):
        raise DesignError(
            f"A coordinate in residual={term.source!r} is infinite.",
            hint="Correct it, or leave the row out.",
        )
    return points


def _positions(part: ResidualPart, structure: Structure) -> tuple[Codes, list[Grid]]:
    """Return the position (n,) of each row within its stratum, and the grids."""
    term, n = part.term, len(part.subjects)
    if term is None:
        one = Grid(labels=("",), D=np.zeros((1, 1), dtype=np.int64))
        return np.zeros(n, dtype=np.int64), [one]
    if len(part.coordinates) != 1:
        raise DesignError(
            f"{term.structure!r} has one position column, got "
            f"{', '.join(part.coordinates)}.",
            formula=term.source,
            hint=f"Write {term.structure}(visit | id), or exp(x + y | id) for "
            "coordinates.",
        )
    if not term.group and structure.family.kind == "order" and structure.name != "diag":
        raise DesignError(
            f"{term.structure!r} needs the subject whose residuals are correlated.",
            formula=term.source,
            span=(0, len(term.source)),
            hint=f"Write {term.structure}({term.coordinates[0]} | id).",
        )
    ((name, column),) = part.coordinates.items()
    codes, levels = factorize(column, name)
    values = np.arange(len(levels))
    if structure.family.kind == "integer":
        values = _integers(levels, name, term)
    labels = level_labels(levels)
    places = np.empty(n, dtype=np.int64)
    grids: list[Grid] = []
    for s in range(len(part.stratum_labels)):
        here = part.strata == s
        present = np.unique(codes[here])
        places[here] = np.searchsorted(present, codes[here])
        if structure.family.kind == "order":
            ranks = np.arange(len(present))
            D = np.abs(ranks[:, None] - ranks)
        else:
            D = np.abs(values[present][:, None] - values[present])
        grids.append(Grid(labels=tuple(map(str, labels[present])), D=D))
        if len(present) < 2:
            where = f" of stratum {part.stratum_labels[s]!r}" if s else ""
            raise DesignError(
                f"{name!r} in residual has one position only{where}, "
                f"{labels[present[0]]!r}.",
                formula=term.source,
                span=term.find(name),
                hint="Leave residual= out, or check which rows are in use.",
            )
    return places, grids


def _integers(levels: pd.Index, name: str, term: ResidualTerm) -> Codes:
    """Return integer positions of numeric levels; others are in their order."""
    if levels.dtype.kind not in "iuf":
        return np.arange(len(levels))
    values = levels.to_numpy(dtype=np.float64)
    if np.any(values != np.round(values)):
        raise DesignError(
            f"{name!r} in residual is not whole numbers, and {term.structure!r} has "
            "integer positions.",
            formula=term.source,
            span=term.find(name),
            hint=f"Write car1({name} | ...) for continuous time.",
        )
    return np.round(values).astype(np.int64)


def _require_pairs(batches: tuple[Batch, ...], term: ResidualTerm) -> None:
    if all(batch.rows.shape[1] < 2 for batch in batches):
        label = term.group_label
        raise DesignError(
            f"No {label!r} has two residuals, so none are correlated.",
            formula=term.source,
            span=(0, len(term.source)),
            hint=f"Check the subject {label!r}, or use diag(...).",
        )


def require_distinct(
    batches: tuple[Batch, ...],
    part: ResidualPart,
    term: ResidualTerm,
    structure: Structure,
) -> None:
    """Refuse a subject with two residuals at one place, which would be one."""
    nugget = dict(term.options).get("nugget")
    for batch in batches:
        v = batch.rows.shape[1]
        if v < 2 or nugget:
            continue
        if batch.places is not None:
            same = np.diff(batch.places, axis=1) == 0
            twice = np.flatnonzero(same.any(axis=1))
        else:
            assert batch.D is not None, "places or distances"
            off = batch.D + np.eye(v)
            twice = np.flatnonzero((off == 0.0).any(axis=(1, 2)))
        if not twice.size:
            continue
        subject = int(np.flatnonzero(batch.which == twice[0])[0])
        rows = batch.rows[subject]
        where = _first_repeat(part, rows)
        who = f"{term.group_label} {part.labels[part.subjects[rows[0]]]!r} has"
        raise DesignError(
            f"{who if term.group else 'The data have'} two residuals at {where}.",
            formula=term.source,
            span=(0, len(term.source)),
            hint="Check for duplicate rows, or write nugget=True."
            if structure.family.kind == "distance" and structure.name != "car1"
            else "Check for duplicate rows, or name the subject more finely.",
        )


def _first_repeat(part: ResidualPart, rows: AnyArray) -> str:
    """Return the first coordinates that occur twice in the rows."""
    columns = [values.iloc[rows].tolist() for values in part.coordinates.values()]
    points = list(zip(*columns, strict=True))
    point = next(p for i, p in enumerate(points) if p in points[:i])
    return ", ".join(
        f"{name} {value!r}" for name, value in zip(part.coordinates, point, strict=True)
    )
