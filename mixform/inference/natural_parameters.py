"""Residual parameters as they are reported, and back to those the search moves in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import ndtri

from mixform._typing import Vector
from mixform.errors import InferenceError
from mixform.estimate import Fit
from mixform.inference.intervals import require_level
from mixform.inference.residual_structure import natural_parameters
from mixform.residual.model import ResidualModel


def residual_names(fit: Fit) -> list[str]:
    """Return ``sd`` or ``sd(visit)``, correlations, ``log sd: x``; or ``sigma``."""
    if fit.evaluation.problem.rows is None:
        return ["sigma"]
    return natural_parameters(fit)[0]


def residual_values(fit: Fit, rho: Vector, sigma: float) -> Vector:
    """Return the values in the order of `residual_names`.

    Parameters
    ----------
    rho : (r,) unconstrained parameters
    sigma : residual standard deviation of the first position
    """
    rows = fit.evaluation.problem.rows
    if rows is None:
        return np.array([sigma])
    model, parts = rows.model, []
    for s in range(len(model.layout.grids)):
        parts += [sigma * model.deviations(rho, s), model.natural(rho, s)]
    return np.concatenate([*parts, model.dispersion(rho)])


def from_natural(fit: Fit, values: Sequence[float]) -> tuple[float, Vector]:
    """Return sigma and rho (r,) of values in the order of `residual_names`.

    Raises
    ------
    InferenceError : a standard deviation is not positive, or there are no such
        correlations
    """
    rows = fit.evaluation.problem.rows
    names = residual_names(fit)
    given = np.array(values, dtype=np.float64)
    for name, value in zip(names, given, strict=True):
        is_sd = name.split(":")[-1].startswith("sd") or name == "sigma"
        if is_sd and not value > 0.0:
            raise InferenceError(f"{name} is {value:g}; it must be positive.")
    if rows is None:
        return float(given[0]), np.empty(0)
    model, rho, start = rows.model, np.zeros(rows.model.n_parameters), 0
    for s, places in enumerate(model.eta):
        end = start + len(places)
        logs = np.log(given[start:end] / given[0])
        free = places >= 0
        rho[places[free]] = logs[free]
        c = model.x[s].stop - model.x[s].start
        rho[model.x[s]] = _internal(model, s, given[end : end + c])
        start = end + c
    rho[model.delta] = given[start:] * model.dispersion_unit
    return float(given[0]), rho


def _internal(model: ResidualModel, s: int, r: Vector) -> Vector:
    """Return unconstrained correlation parameters of stratum s."""
    x = np.full(len(r), np.nan)
    with np.errstate(all="ignore"), suppress(np.linalg.LinAlgError):
        x = model.structure.family.internal(r, model.layout.grids[s].size)
    if not np.all(np.isfinite(x)):
        raise InferenceError(
            f"There are no residual correlations {model.structure.name!r} with "
            f"parameters {', '.join(f'{value:g}' for value in r)}.",
            hint="Correlations of all positions must be possible together.",
        )
    return x


def is_separable(model: ResidualModel, rho: Vector, s: int) -> bool:
    """Whether each correlation parameter of a stratum is moved by one entry of rho."""
    size = model.layout.grids[s].size
    J = model.structure.family.jacobian(rho[model.x[s]], size)
    return not np.any(J - np.diag(J.diagonal()))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reading:
    """What an entry of w means: the parameter, back, and its derivative."""

    value: Callable[[float], float]
    kappa: Callable[[float], float]
    stretch: Callable[[float], float]


def in_units(unit: float = 1.0) -> Reading:
    """Return the reading of an entry that is the parameter times a unit."""
    return Reading(
        value=lambda kappa: kappa / unit,
        kappa=lambda v: v * unit,
        stretch=lambda kappa: 1.0 / unit,
    )


def as_log() -> Reading:
    """Return the reading of a positive parameter by its logarithm."""
    return Reading(
        value=lambda kappa: float(np.exp(kappa)),
        kappa=lambda v: float(np.log(v)),
        stretch=lambda kappa: float(np.exp(kappa)),
    )


def as_arctanh() -> Reading:
    """Return the reading of a correlation that is entered as arctanh."""
    return Reading(
        value=lambda kappa: float(np.tanh(kappa)),
        kappa=lambda v: float(np.arctanh(v)),
        stretch=lambda kappa: float(1.0 / np.cosh(kappa) ** 2),
    )


def of_family(model: ResidualModel, rho: Vector, s: int, j: int) -> Reading:
    """Return the reading of natural parameter j of a stratum, if separable."""
    family, size = model.structure.family, model.layout.grids[s].size

    def moved(kappa: float) -> Vector:
        x = rho[model.x[s]].copy()
        x[j] = kappa
        return x

    def kappa_of(value: float) -> float:
        r = model.natural(rho, s).copy()
        r[j] = value
        return float(family.internal(r, size)[j])

    return Reading(
        value=lambda kappa: float(family.natural(moved(kappa), size)[j]),
        kappa=kappa_of,
        stretch=lambda kappa: float(family.jacobian(moved(kappa), size)[j, j]),
    )


def residual_limits(fit: Fit, table: pd.DataFrame, level: float) -> pd.DataFrame:
    """Return Wald limits of the residual parameters, ``lower, upper`` by name.

    On the scale of the logarithm for standard deviations, of the search for parameters
    that it moves one by one (the logarithm of a range), of arctanh for correlations;
    dispersion coefficients as they are.

    Parameters
    ----------
    table : of `residual_parameters`
    """
    require_level(level)
    width = float(ndtri(0.5 * (1.0 + level)))
    rows: list[tuple[float, float]] = []
    values = zip(table["estimate"].tolist(), table["se"].tolist(), strict=True)
    for (estimate, se), reading in zip(values, _readings(fit), strict=True):
        if not np.isfinite(se):
            rows.append((np.nan, np.nan))
            continue
        at = reading.kappa(estimate)
        apart = width * se / abs(reading.stretch(at))
        rows.append((reading.value(at - apart), reading.value(at + apart)))
    return pd.DataFrame(rows, index=table.index, columns=["lower", "upper"])


def _readings(fit: Fit) -> list[Reading]:
    """Return the scale of each parameter in the order of `residual_names`."""
    rows = fit.evaluation.problem.rows
    assert rows is not None, "there is a residual structure"
    model, out = rows.model, list[Reading]()
    for s, places in enumerate(model.eta):
        out += [as_log()] * len(places)
        c = model.x[s].stop - model.x[s].start
        own = is_separable(model, fit.rho, s)
        out += [
            of_family(model, fit.rho, s, j) if own else as_arctanh() for j in range(c)
        ]
    return out + [in_units()] * len(model.dispersion_names)
