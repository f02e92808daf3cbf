"""The residuals of other rows: their variances, and covariances with those of the fit.

Goes in: the residual structure of a fit, its rows and new ones. A position that the fit
has not seen is one of its own where the structure says how it is correlated with the
others: times, coordinates, integer positions of ``ar1``, and any label of ``cs``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from mixform._typing import AnyArray, Codes, Matrix, Stack, Vector
from mixform.design import ResidualPart
from mixform.design.frame import factorize
from mixform.design.random import level_labels
from mixform.errors import InferenceError, suggest
from mixform.residual.layout import (
    Grid,
    Layout,
    family_correlates,
    points_of,
    require_distinct,
    sorted_batches,
)
from mixform.residual.model import Residual, ResidualModel

#: Structures whose correlations do not depend on which positions there are.
ANY_LABEL = "cs"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Placed:
    """Where the residuals of r rows stand.

    Attributes
    ----------
    strata, subjects : (r,) stratum and subject
    places : (r,) positions in the grid of the stratum; None for times and coordinates
    points : (r, d) coordinates; None for positions
    W : (r, c) dispersion columns
    """

    strata: Codes
    subjects: Codes
    places: Codes | None
    points: Matrix | None
    W: Matrix


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Placement:
    """New rows beside those of a fit.

    Attributes
    ----------
    model : the structure, of the rows of the fit
    part : the new rows; subjects and strata are numbered as those of the fit
    grids : positions of each stratum, those that only the new rows have last
    known, new : the rows of the fit, and the new ones
    """

    model: ResidualModel
    part: ResidualPart
    grids: tuple[Grid, ...]
    known: Placed
    new: Placed

    def variances(self, rho: Vector) -> Vector:
        """Return the diagonal of R at the new rows, (r,)."""
        return self._deviations(rho, self.new) ** 2

    def covariances(self, rho: Vector, some: slice) -> Matrix:
        """Return R (n, c) between the rows of the fit and some of the new ones."""
        model, known, new = self.model, self.known, self.new
        n, subjects = len(known.subjects), new.subjects[some]
        out = np.zeros((n, len(subjects)))
        if not family_correlates(model.structure):
            return out
        order = np.argsort(known.subjects, kind="stable")
        own = known.subjects[order]
        first = np.searchsorted(own, subjects, "left")
        counts = np.searchsorted(own, subjects, "right") - first
        j = np.repeat(np.arange(len(subjects)), counts)
        within = np.arange(len(j)) - np.repeat(np.cumsum(counts) - counts, counts)
        i = order[np.repeat(first, counts) + within]
        there = j + (some.start or 0)
        out[i, j] = self._correlations(rho, i, there)
        out *= self._deviations(rho, known)[:, None]
        return out * self._deviations(rho, new)[some]

    def own(self, rho: Vector) -> Residual:
        """Return R among the new rows.

        Raises
        ------
        DesignError : a subject has two rows at one position
        InferenceError : ``cs`` with a negative correlation of more positions
        """
        model, new, structure = self.model, self.new, self.model.structure
        subjects = new.subjects
        if not family_correlates(structure):
            subjects = np.arange(len(new.strata))
        by = new.points.T[::-1] if new.points is not None else (new.places,)
        order = np.lexsort((*by, subjects))  # pyright: ignore[reportArgumentType]
        batches = tuple(
            sorted_batches(new.strata, subjects, order, new.places, new.points, new.W)
        )
        if family_correlates(structure) and self.part.term is not None:
            require_distinct(batches, self.part, self.part.term, structure)
        layout = Layout(
            grids=self.grids,
            strata=model.layout.strata,
            batches=batches,
            scale=model.layout.scale,
        )
        here = replace(model, layout=layout, n=len(new.strata))
        return here.at(self._carried(rho))

    def _carried(self, rho: Vector) -> Vector:
        """Return parameters of the extended grids."""
        out, structure = rho.copy(), self.model.structure
        family = structure.family
        for s, grid in enumerate(self.grids if structure.name == ANY_LABEL else ()):
            if grid.size != self.model.layout.grids[s].size:
                with np.errstate(invalid="ignore"):
                    x = family.internal(self.model.natural(rho, s), grid.size)
                if not np.all(np.isfinite(x)):
                    raise InferenceError(
                        f"A correlation of {self.model.natural(rho, s)[0]:.3g} is not "
                        f"possible between {grid.size} positions.",
                        hint="Keep to the positions of the fit.",
                    )
                out[self.model.x[s]] = x
        return out

    def _deviations(self, rho: Vector, rows: Placed) -> Vector:
        """Return relative standard deviations of rows, weights left out."""
        log_D = rows.W @ rho[self.model.delta]
        for s in range(len(self.grids)):
            here = rows.strata == s
            logs = np.log(self.model.deviations(rho, s))
            many = self.model.structure.heterogeneous and rows.places is not None
            log_D[here] += logs[rows.places[here]] if many else logs[0]  # type: ignore[index]
        return np.exp(log_D)

    def _correlations(self, rho: Vector, i: Codes, j: Codes) -> Vector:
        """Return correlations of pairs: row i of the fit, new row j."""
        out, family = np.empty(len(i)), self.model.structure.family
        known, new = self.known, self.new
        strata = new.strata[j]
        for s, grid in enumerate(self.grids):
            here = strata == s
            r = self.model.natural(rho, s)
            if known.points is not None and new.points is not None:
                gaps = known.points[i[here]] - new.points[j[here]]
                apart = np.sqrt(np.einsum("ij,ij->i", gaps, gaps))
                C = family.correlation(r, _as_pairs(apart))
                out[here] = C[:, 1, 0]
            elif known.places is not None and new.places is not None:
                C = np.asarray(family.correlation(r, grid.D))
                out[here] = C[known.places[i[here]], new.places[j[here]]]
        return out


def place(model: ResidualModel, known: ResidualPart, new: ResidualPart) -> Placement:
    """Return new rows beside those of a fit.

    Parameters
    ----------
    known : the rows of the fit
    new : other rows, subjects and strata numbered alike; without coordinates where
        only variances are wanted that do not depend on them

    Raises
    ------
    InferenceError : a position that the fit has not seen, named
    DesignError : a coordinate is not numeric
    """
    structure, term = model.structure, known.term
    rows = _placed(known)
    grids = model.layout.grids
    if term is None:
        nowhere = np.zeros(len(new.strata), dtype=np.int64)
        placed = replace(_placed(new), places=nowhere)
    elif structure.family.kind == "distance":
        points = points_of(new, term) if new.coordinates else None
        rows, placed = replace(rows, points=points_of(known, term)), _placed(new)
        placed = replace(placed, points=points)
    else:
        places = np.zeros(model.n, dtype=np.int64)
        for batch in model.layout.batches:
            assert batch.places is not None, "positions"
            places[batch.rows] = batch.places[batch.which]
        rows = replace(rows, places=places)
        placed = _placed(new)
        if new.coordinates:
            positions, grids = _positions(model, known, new)
            placed = replace(placed, places=positions)
    return Placement(model=model, part=new, grids=grids, known=rows, new=placed)


def _placed(part: ResidualPart) -> Placed:
    return Placed(
        strata=part.strata,
        subjects=part.subjects,
        places=None,
        points=None,
        W=part.dispersion_values,
    )


def _as_pairs(apart: Vector) -> Stack:
    """Return (P, 2, 2) distances of pairs."""
    D = np.zeros((len(apart), 2, 2))
    D[:, 0, 1] = D[:, 1, 0] = apart
    return D


def _positions(
    model: ResidualModel, known: ResidualPart, new: ResidualPart
) -> tuple[Codes, tuple[Grid, ...]]:
    """Return the position (r,) of each new row, and the extended grids."""
    ((name, column),) = new.coordinates.items()
    old = factorize(known.coordinates[name], name)[1]
    codes, values = pd.factorize(column)
    labels = level_labels(pd.Index(values))
    places = np.empty(len(column), dtype=np.int64)
    grids: list[Grid] = []
    for s, grid in enumerate(model.layout.grids):
        here = new.strata == s
        found = pd.Index(grid.labels).get_indexer(labels)
        wanted = np.unique(codes[here])
        unseen = wanted[found[wanted] < 0]
        if len(unseen):
            _require_extendable(model, known, name, labels[unseen], grid, old)
            found[unseen] = grid.size + np.arange(len(unseen))
            grid = _extended(grid, labels[unseen], model.structure.name)
        places[here] = found[codes[here]]
        grids.append(grid)
    return places, tuple(grids)


def _require_extendable(
    model: ResidualModel,
    known: ResidualPart,
    name: str,
    unseen: pd.Index,
    grid: Grid,
    old: pd.Index,
) -> None:
    structure, term = model.structure, known.term
    assert term is not None, "there are positions"
    numeric = old.dtype.kind in "iuf"
    if structure.name == ANY_LABEL:
        return
    hint = suggest(unseen[0], grid.labels, "Positions")
    if structure.family.kind == "integer" and not structure.heterogeneous and numeric:
        if all(_is_whole(label) for label in unseen):
            return
        hint = f"{structure.name} has integer positions."
    raise InferenceError(
        f"The residual structure {term.source!r} does not know the position "
        f"{unseen[0]!r} of {name!r}, which the fit has not seen.",
        hint=hint,
    )


def _is_whole(label: str) -> bool:
    return label.lstrip("+-").isdigit()


def _extended(grid: Grid, labels: pd.Index, name: str) -> Grid:
    """Return a grid with more positions, last."""
    every = (*grid.labels, *map(str, labels))
    values: AnyArray = np.arange(len(every))
    if name != ANY_LABEL:
        values = np.array([int(label) for label in every])
    return Grid(labels=every, D=np.abs(values[:, None] - values))
