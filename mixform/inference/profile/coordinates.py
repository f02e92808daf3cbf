"""Coordinates in which one parameter of a fit is fixed and the others are free.

Each parameter gets its own coordinates (kappa, x), kappa fixed and x free, so that no
constraint is left: a standard deviation is the first pivot of a Cholesky factor taken
in an order of coefficients that starts with its own, a correlation is the angle between
the first two rows of one. T is linear in w, the entries of these factors.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from mixform._typing import Codes, Matrix, Stack, Vector
from mixform.covariance import Structure, semidefinite_cholesky
from mixform.estimate import Fit
from mixform.estimate.criterion import Evaluation
from mixform.estimate.problem import Problem

#: A pivot of a covariance in units of the residual variance that counts as zero.
ZERO_PIVOT = 1e-12

HALF_PI = float(np.pi / 2.0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Chart:
    """The factors T of all blocks as functions of w, and the residual parameters.

    T is linear in w, but that of a curved structure.

    Attributes
    ----------
    bases : for each block (t_j, k, k): T = sum_i w_i basis_i, on the scaled problem
    slices : where each block's entries stand in w
    columns : (t,) which column of which lower triangular factor an entry belongs to
    w : (t + r,) at the estimates, entries of T first
    structures : of the blocks
    errors : how the last r of w stand for those of the residual structure
    """

    bases: tuple[Stack, ...]
    slices: tuple[slice, ...]
    columns: Codes
    w: Vector
    structures: tuple[Structure, ...]
    errors: ErrorChart | None = None

    def problem(self, problem: Problem, w: Vector) -> Problem:
        """Return the problem at the residual parameters of w."""
        if self.errors is None:
            return problem
        t = len(self.columns)
        return problem.at(np.append(np.zeros(t), self.errors.rho(w[t:])))

    def factors(self, w: Vector) -> tuple[Matrix, ...]:
        """Return T of each block."""
        return tuple(
            structure.factor(w[where], basis.shape[1])
            if structure.curved
            else (w[where] @ basis.reshape(len(basis), -1)).reshape(basis.shape[1:])
            for structure, where, basis in zip(
                self.structures, self.slices, self.bases, strict=True
            )
        )

    def pull(
        self,
        w: Vector,
        gradients: tuple[Matrix, ...],
        by_rho: Vector,
        here: Evaluation,
    ) -> Vector:
        """Return derivatives by w from those by the entries of T and by rho."""
        out = np.empty(len(self.w))
        if self.errors is not None:
            out[len(self.columns) :] = self.errors.pull(by_rho, here)
        for structure, where, basis, gradient in zip(
            self.structures, self.slices, self.bases, gradients, strict=True
        ):
            if structure.curved:
                basis = structure.derivatives(w[where], basis.shape[1])
            out[where] = basis.reshape(len(basis), -1) @ gradient.ravel()
        return out


def plain_chart(fit: Fit) -> Chart:
    """Return the chart of the fit's own parameters, w = theta."""
    problem = fit.evaluation.problem
    bases: list[Stack] = []
    columns: list[Codes] = []
    first = 0
    for structure, where, block in zip(
        problem.structures, problem.theta_slices, problem.blocks, strict=True
    ):
        basis = structure.derivatives(fit.scaled_theta[where], block.k)
        bases.append(basis)
        column = np.any(basis != 0.0, axis=1).argmax(axis=1)
        # Angles make no column small.
        columns.append(first + (0 * column if structure.curved else column))
        first += block.k
    return Chart(
        bases=tuple(bases),
        slices=problem.theta_slices,
        columns=np.concatenate(columns) if columns else np.empty(0, dtype=np.int64),
        w=fit.scaled_theta[: problem.n_theta],
        structures=problem.structures,
    )


def ordered_chart(fit: Fit, plain: Chart, j: int, first: tuple[int, ...]) -> Chart:
    """Return a chart in which the coefficients ``first`` of block j lead.

    T = M lower(w), M = C[:, order] / rms: row i of lower(w) is the factor of the
    user's coefficient order[i], times the root mean square of its covariate.
    """
    C, T = fit.evaluation.problem.Z_scales[j], fit.evaluation.T[j]
    k = len(C)
    order = [*first, *(c for c in range(k) if c not in first)]
    diagonal = not np.any(C - np.diag(np.diag(C)))
    structure = fit.evaluation.problem.structures[j]
    if not structure.couples or structure.curved or k == 1:
        return plain
    if diagonal and order == list(range(k)):
        return plain
    rms = np.sqrt(np.einsum("ij,ij->j", C, C))[order]
    rows = np.linalg.solve(C, T)[order] * rms[:, None]
    lower = semidefinite_cholesky(rows @ rows.T, ZERO_PIVOT)
    where = plain.slices[j]
    unit = fit.evaluation.problem.structures[j].derivatives(plain.w[where], k)
    w = plain.w.copy()
    w[where] = fit.evaluation.problem.structures[j].from_factor(lower)
    bases = list(plain.bases)
    bases[j] = np.einsum("ab,tbc->tac", C[:, order] / rms, unit)
    return replace(plain, bases=tuple(bases), w=w)


class ErrorChart(Protocol):
    """How the last entries of w stand for the residual parameters rho."""

    def rho(self, w: Vector) -> Vector:
        """Return rho (r,)."""
        ...

    def pull(self, by_rho: Vector, here: Evaluation) -> Vector:
        """Return derivatives by w from those by rho, at a solution."""
        ...


class Coordinates(Protocol):
    """How (kappa, x) stands for w, log sigma and the fixed parameter.

    Attributes
    ----------
    chart : what w means
    lower, upper : of kappa
    nonnegative : positions of x that must not become negative
    """

    @property
    def chart(self) -> Chart: ...
    @property
    def lower(self) -> float: ...
    @property
    def upper(self) -> float: ...
    @property
    def nonnegative(self) -> tuple[int, ...]: ...

    def start(self) -> tuple[float, Vector]:
        """Return kappa and x at the estimates."""
        ...

    def place(self, kappa: float, x: Vector) -> tuple[Vector, float | None]:
        """Return w (t,) and log sigma (scaled), None where sigma is profiled out."""
        ...

    def pull(
        self, kappa: float, x: Vector, g_w: Vector, g_sigma: float
    ) -> tuple[float, Vector]:
        """Return derivatives by kappa and x from those by w and log sigma."""
        ...

    def position(self, i: int) -> int:
        """Return where w_i stands in x, -1 if it is not one of x."""
        ...

    def value(self, kappa: float) -> float:
        """Return the parameter in the user's units."""
        ...

    def kappa(self, value: float) -> float:
        """Return kappa of a value of the parameter: `value` undone."""
        ...

    def stretch(self, kappa: float) -> float:
        """Return dvalue / dkappa."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FixedCoordinates:
    """A coefficient is fixed at kappa; sigma is profiled out.

    Attributes
    ----------
    row : (p,) of R^-1: the coefficient is row'(Q'y + y_scale beta) on the scale of beta
    centre : row'Q'y
    estimate : in the user's units
    """

    chart: Chart
    row: Vector
    centre: float
    y_scale: float
    estimate: float
    lower: float = -np.inf
    upper: float = np.inf
    nonnegative: tuple[int, ...] = ()

    def start(self) -> tuple[float, Vector]:
        return self.estimate, self.chart.w

    def place(self, kappa: float, x: Vector) -> tuple[Vector, float | None]:
        return x, None

    def pull(
        self, kappa: float, x: Vector, g_w: Vector, g_sigma: float
    ) -> tuple[float, Vector]:
        return 0.0, g_w

    def position(self, i: int) -> int:
        return i

    def value(self, kappa: float) -> float:
        return kappa

    def kappa(self, value: float) -> float:
        return value

    def stretch(self, kappa: float) -> float:
        return 1.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SigmaCoordinates:
    """The residual standard deviation is exp(kappa)."""

    chart: Chart
    y_scale: float
    estimate: float
    lower: float = -np.inf
    upper: float = np.inf
    nonnegative: tuple[int, ...] = ()

    def start(self) -> tuple[float, Vector]:
        return float(np.log(self.estimate)), self.chart.w

    def place(self, kappa: float, x: Vector) -> tuple[Vector, float | None]:
        return x, kappa - float(np.log(self.y_scale))

    def pull(
        self, kappa: float, x: Vector, g_w: Vector, g_sigma: float
    ) -> tuple[float, Vector]:
        return g_sigma, g_w

    def position(self, i: int) -> int:
        return i

    def value(self, kappa: float) -> float:
        return float(np.exp(kappa))

    def kappa(self, value: float) -> float:
        return float(np.log(value)) if value > 0.0 else -np.inf

    def stretch(self, kappa: float) -> float:
        return float(np.exp(kappa))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SdCoordinates:
    """The standard deviation of a random coefficient is kappa.

    It is sigma times the pivot w_d, so w_d = kappa unit / sigma; x is the rest of w,
    then log sigma.

    Attributes
    ----------
    d : position of the pivot in w
    unit : root mean square of the covariate over y_scale
    sigma : scaled residual standard deviation at the estimates
    """

    chart: Chart
    d: int
    unit: float
    sigma: float
    lower: float = 0.0
    upper: float = np.inf
    nonnegative: tuple[int, ...] = ()

    def start(self) -> tuple[float, Vector]:
        w = self.chart.w
        kappa = abs(float(w[self.d])) * self.sigma / self.unit
        return kappa, np.append(np.delete(w, self.d), np.log(self.sigma))

    def place(self, kappa: float, x: Vector) -> tuple[Vector, float | None]:
        log_sigma = float(x[-1])
        pivot = kappa * self.unit * float(np.exp(-log_sigma))
        return np.concatenate([x[: self.d], [pivot], x[self.d : -1]]), log_sigma

    def pull(
        self, kappa: float, x: Vector, g_w: Vector, g_sigma: float
    ) -> tuple[float, Vector]:
        d, per_kappa = self.d, self.unit * float(np.exp(-x[-1]))
        by_sigma = g_sigma - g_w[d] * kappa * per_kappa
        g_x = np.concatenate([g_w[:d], g_w[d + 1 :], [by_sigma]])
        return float(g_w[d] * per_kappa), g_x

    def position(self, i: int) -> int:
        return -1 if i == self.d else i - (i > self.d)

    def value(self, kappa: float) -> float:
        return kappa

    def kappa(self, value: float) -> float:
        return value

    def stretch(self, kappa: float) -> float:
        return 1.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CorCoordinates:
    """The correlation of two random coefficients is sin(kappa); sigma profiled out.

    The first two rows of the factor are (d_1, 0) and d_2 (sin kappa, cos kappa);
    x is w without the second row, then d_2.

    Attributes
    ----------
    one, low, two : positions in w of d_1 and of the two entries of the second row
    """

    chart: Chart
    one: int
    low: int
    two: int
    lower: float = -HALF_PI
    upper: float = HALF_PI

    @property
    def nonnegative(self) -> tuple[int, ...]:
        return self.position(self.one), len(self.chart.w) - 2

    def start(self) -> tuple[float, Vector]:
        w = self.chart.w
        kappa = float(np.arctan2(w[self.low], abs(w[self.two])))
        size = float(np.hypot(w[self.low], w[self.two]))
        return kappa, np.append(np.delete(w, [self.low, self.two]), size)

    def place(self, kappa: float, x: Vector) -> tuple[Vector, float | None]:
        w = np.empty(len(self.chart.w))
        rest = np.ones(len(w), dtype=bool)
        rest[[self.low, self.two]] = False
        w[rest] = x[:-1]
        w[self.low] = x[-1] * np.sin(kappa)
        # cos(pi / 2) is not quite zero in floating point.
        w[self.two] = 0.0 if abs(kappa) >= HALF_PI else x[-1] * np.cos(kappa)
        return w, None

    def pull(
        self, kappa: float, x: Vector, g_w: Vector, g_sigma: float
    ) -> tuple[float, Vector]:
        sine, cosine = float(np.sin(kappa)), float(np.cos(kappa))
        low, two = float(g_w[self.low]), float(g_w[self.two])
        by_kappa = float(x[-1]) * (low * cosine - two * sine)
        rest = np.delete(g_w, [self.low, self.two])
        return by_kappa, np.append(rest, low * sine + two * cosine)

    def position(self, i: int) -> int:
        if i in (self.low, self.two):
            return -1
        return i - (i > self.low) - (i > self.two)

    def value(self, kappa: float) -> float:
        return float(np.sin(kappa))

    def kappa(self, value: float) -> float:
        return float(np.arcsin(value))

    def stretch(self, kappa: float) -> float:
        return 0.0 if abs(kappa) >= HALF_PI else float(np.cos(kappa))
