"""The residual covariance R as a function of its parameters rho.

Var(e) = sigma^2 R, R block-diagonal by subject. The block of a subject is D C D: C the
correlations of the structure, D = diag(exp(eta + w'delta)) relative standard
deviations, eta by stratum and position, delta of the dispersion columns w (in units of
their own, see `ResidualPart`). The first eta is zero, because sigma stands for it. With
C = L L', the rows of a subject are whitened as L^-1 D^-1, which makes an ordinary model
of the equations.

Parameters are unconstrained: for each stratum its etas and the x of its correlations,
then delta. Derivatives are given in whitened rows, E_a = (D L)^-1 dR_a (D L)^-T.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mixform._typing import Matrix, Vector
from mixform.design import ResidualPart
from mixform.errors import DesignError, suggest
from mixform.formula import ResidualTerm
from mixform.residual import RESIDUALS, Structure, make_structure
from mixform.residual.evaluated import Residual
from mixform.residual.independent import Independent
from mixform.residual.layout import Batch, Layout, build_layout

IID = Structure(name="iid", family=Independent(), heterogeneous=False)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ResidualModel:
    """The residual structure of a design.

    Attributes
    ----------
    structure : its family
    layout : the subjects
    n : number of rows
    eta : for each stratum the place (size,) of its log SDs in rho, -1 for the first;
        one entry where variances are equal
    x : for each stratum the place of its correlation parameters
    delta : the place of the dispersion coefficients
    dispersion_names : of the dispersion columns
    dispersion_unit : (d,) of the columns; delta / unit are their coefficients
    """

    structure: Structure
    layout: Layout
    n: int
    eta: tuple[np.ndarray, ...]
    x: tuple[slice, ...]
    delta: slice
    dispersion_names: tuple[str, ...]
    dispersion_unit: Vector

    @property
    def n_parameters(self) -> int:
        """Number r of parameters, sigma not counted."""
        return self.delta.stop

    def start(self) -> Vector:
        """Return parameters (r,) to start from: equal variances."""
        rho = np.zeros(self.n_parameters)
        for x, grid in zip(self.x, self.layout.grids, strict=True):
            if x.stop > x.start:
                rho[x] = self.structure.family.start(grid.size, self.layout.scale)
        return rho

    def started_from(self, rest: Vector) -> Vector:
        """Return `start` with the variances that residuals (n,) have by position."""
        rho = self.start()
        eta: dict[int, float] = {}
        for s, places in enumerate(self.eta):
            squares, counts = np.zeros(len(places)), np.zeros(len(places))
            for batch in self.layout.batches:
                if batch.stratum == s:
                    at = self.places_of(batch)[batch.which]
                    np.add.at(squares, at, rest[batch.rows] ** 2)
                    np.add.at(counts, at, 1.0)
            for place, size in zip(places, np.sqrt(squares / counts), strict=True):
                eta[int(place)] = float(np.log(max(size, 1e-3)))
        for place, value in eta.items():
            if place >= 0:
                rho[place] = value - eta[-1]
        return rho

    def places_of(self, batch: Batch) -> np.ndarray:
        """Return which log SD of its stratum each row of a pattern has, (U, v)."""
        if batch.places is None or not self.structure.heterogeneous:
            return np.zeros(batch.W.shape[:2], dtype=np.int64)
        return batch.places

    def at(self, rho: Vector) -> Residual:
        """Return R at parameters (r,).

        Raises
        ------
        SolverError : a correlation matrix is not positive definite to rounding
        """
        return Residual(self, np.asarray(rho, dtype=np.float64))

    def natural(self, rho: Vector, s: int) -> Vector:
        """Return the natural correlation parameters of stratum s."""
        return self.structure.family.natural(rho[self.x[s]], self.layout.grids[s].size)

    def dispersion(self, rho: Vector) -> Vector:
        """Return the dispersion coefficients (d,) of the columns of the data."""
        return rho[self.delta] / self.dispersion_unit

    def deviations(self, rho: Vector, s: int) -> Vector:
        """Return the relative SDs of stratum s, one for each log SD."""
        return np.exp(np.append(rho, 0.0)[self.eta[s]])

    def covariance(self, rho: Vector, s: int) -> Matrix:
        """Return R (size, size) over all positions of stratum s, without dispersion."""
        grid = self.layout.grids[s]
        C = self.structure.family.correlation(self.natural(rho, s), grid.D)
        D = np.broadcast_to(self.deviations(rho, s), (grid.size,))
        return np.asarray(C) * np.outer(D, D)


def build_residual_model(part: ResidualPart) -> ResidualModel:
    """Return the residual structure of a design.

    Raises
    ------
    DesignError : an option is unknown or has no sense; as `build_layout`
    """
    structure = IID if part.term is None else _structure(part.term)
    layout = build_layout(part, structure)
    names, W = part.dispersion_names, part.dispersion_values
    eta: list[np.ndarray] = []
    x: list[slice] = []
    end = -1  # the first log SD is no parameter
    for grid in layout.grids:
        width = grid.size if structure.heterogeneous else 1
        eta.append(np.arange(end, end + width))
        end += width
        c = len(structure.family.names(grid.labels))
        x.append(slice(end, end + c))
        end += c
    return ResidualModel(
        structure=structure,
        layout=layout,
        n=len(W),
        eta=tuple(eta),
        x=tuple(x),
        delta=slice(end, end + len(names)),
        dispersion_names=names,
        dispersion_unit=part.unit,
    )


def _structure(term: ResidualTerm) -> Structure:
    known = RESIDUALS[term.structure][2]
    options = dict(term.options)
    for name, value in options.items():
        valid = (
            isinstance(value, bool)
            if name == "nugget"
            else isinstance(value, int | float) and value > 0
        )
        if name not in known or not valid:
            raise DesignError(
                f"{term.structure!r} has no option {name}={value!r}.",
                formula=term.source,
                span=term.find(name),
                hint=suggest(name, known, "Options"),
            )
    return make_structure(term.structure, options)
