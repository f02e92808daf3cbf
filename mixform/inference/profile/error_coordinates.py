"""Coordinates in which one parameter of the residual structure is fixed.

A standard deviation is sigma exp(eta), so that eta follows from it and sigma. A
correlation parameter is one entry of w: that in which the search moves where it stands
for one natural parameter alone; else (``us`` and ``toep``) the correlations of the
stratum take the place of those the search moves in, as arctanh. A parameter at the edge
of its range stays there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mixform._typing import Vector
from mixform.errors import SolverError
from mixform.estimate import Fit
from mixform.estimate.criterion import Evaluation, require_rows
from mixform.inference.natural_parameters import Reading
from mixform.inference.profile.coordinates import Chart
from mixform.residual.evaluated import EDGE
from mixform.residual.model import ResidualModel

#: Steps of one on the unconstrained scale that are tried to find the edge of a range.
FARTHEST = 60


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PlainErrors:
    """The residual parameters as the search has them, those at an edge left out.

    Attributes
    ----------
    estimate : (r,) rho at the estimates
    free : positions in rho of what varies
    """

    estimate: Vector
    free: np.ndarray

    def rho(self, w: Vector) -> Vector:
        out = self.estimate.copy()
        out[self.free] = w
        return out

    def pull(self, by_rho: Vector, here: Evaluation) -> Vector:
        return by_rho[self.free]

    def start(self) -> Vector:
        """Return w at the estimates."""
        return self.estimate[self.free]

    def position(self, k: int) -> int:
        """Return where the parameter rho_k stands in w."""
        return int(np.flatnonzero(self.free == k)[0])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NaturalErrors:
    """The correlations of one stratum as arctanh, all else as in `PlainErrors`.

    Attributes
    ----------
    plain : the other parameters
    model : residual structure
    stratum : number of the stratum
    """

    plain: PlainErrors
    model: ResidualModel
    stratum: int

    @property
    def _size(self) -> int:
        return self.model.layout.grids[self.stratum].size

    @property
    def _own(self) -> slice:
        """Where the correlations stand in w; they are all free or none is."""
        x = self.model.x[self.stratum]
        first = self.plain.position(x.start)
        return slice(first, first + x.stop - x.start)

    def start(self) -> Vector:
        """Return w at the estimates."""
        w = self.plain.start()
        r = self.model.natural(self.plain.estimate, self.stratum)
        w[self._own] = np.arctanh(r)
        return w

    def rho(self, w: Vector) -> Vector:
        w = w.copy()
        r = np.tanh(w[self._own])
        try:
            x = self.model.structure.family.internal(r, self._size)
        except np.linalg.LinAlgError:
            x = np.full(len(r), np.nan)
        if not np.all(np.isfinite(x)):
            raise SolverError("There is no such matrix of correlations.")
        w[self._own] = x
        return self.plain.rho(w)

    def pull(self, by_rho: Vector, here: Evaluation) -> Vector:
        rho = require_rows(here.problem).residual.rho
        x = rho[self.model.x[self.stratum]]
        r = self.model.natural(rho, self.stratum)
        J = self.model.structure.family.jacobian(x, self._size)
        out = self.plain.pull(by_rho, here).copy()
        out[self._own] = np.linalg.solve(J.T, out[self._own]) * (1.0 - r**2)
        return out

    def position(self, k: int) -> int:
        """Return where the parameter rho_k, or the correlation there, stands in w."""
        return self.plain.position(k)


def plain_errors(fit: Fit) -> PlainErrors | None:
    """Return the residual parameters of a fit; None if there are none."""
    t = fit.evaluation.problem.n_theta
    if fit.evaluation.problem.rows is None:
        return None
    return PlainErrors(estimate=fit.rho, free=np.flatnonzero(fit.interior[t:]))


def edge(model: ResidualModel, rho: Vector, k: int, direction: float) -> float:
    """Return where rho_k reaches the edge of its range; infinite if it does not."""
    for step in range(1, FARTHEST):
        at = rho.copy()
        at[k] += direction * step
        try:
            if model.at(at).sensitivity[k] < EDGE:
                return float(at[k])
        except SolverError:
            break
    return direction * np.inf


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EntryCoordinates:
    """An entry of w is kappa; sigma is profiled out.

    Attributes
    ----------
    i : position of the entry
    reading : what it means
    """

    chart: Chart
    i: int
    reading: Reading
    lower: float = -np.inf
    upper: float = np.inf
    nonnegative: tuple[int, ...] = ()

    def start(self) -> tuple[float, Vector]:
        w = self.chart.w
        return float(w[self.i]), np.delete(w, self.i)

    def place(self, kappa: float, x: Vector) -> tuple[Vector, float | None]:
        return np.insert(x, self.i, kappa), None

    def pull(
        self, kappa: float, x: Vector, g_w: Vector, g_sigma: float
    ) -> tuple[float, Vector]:
        return float(g_w[self.i]), np.delete(g_w, self.i)

    def position(self, i: int) -> int:
        return -1 if i == self.i else i - (i > self.i)

    def value(self, kappa: float) -> float:
        return self.reading.value(kappa)

    def kappa(self, value: float) -> float:
        return self.reading.kappa(value)

    def stretch(self, kappa: float) -> float:
        return self.reading.stretch(kappa)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ResidualSdCoordinates:
    """The standard deviation of a position is y_scale exp(kappa).

    It is sigma exp(w_i), so w_i = kappa - log sigma; x is the rest of w, then log
    sigma.

    Attributes
    ----------
    i : position of log(sd / sigma) in w
    sigma : scaled residual standard deviation at the estimates
    """

    chart: Chart
    i: int
    y_scale: float
    sigma: float
    lower: float = -np.inf
    upper: float = np.inf
    nonnegative: tuple[int, ...] = ()

    def start(self) -> tuple[float, Vector]:
        w, log_sigma = self.chart.w, float(np.log(self.sigma))
        return float(w[self.i]) + log_sigma, np.append(np.delete(w, self.i), log_sigma)

    def place(self, kappa: float, x: Vector) -> tuple[Vector, float | None]:
        log_sigma = float(x[-1])
        return np.insert(x[:-1], self.i, kappa - log_sigma), log_sigma

    def pull(
        self, kappa: float, x: Vector, g_w: Vector, g_sigma: float
    ) -> tuple[float, Vector]:
        own = float(g_w[self.i])
        return own, np.append(np.delete(g_w, self.i), g_sigma - own)

    def position(self, i: int) -> int:
        return -1 if i == self.i else i - (i > self.i)

    def value(self, kappa: float) -> float:
        return self.y_scale * float(np.exp(kappa))

    def kappa(self, value: float) -> float:
        return float(np.log(value / self.y_scale)) if value > 0.0 else -np.inf

    def stretch(self, kappa: float) -> float:
        return self.value(kappa)
