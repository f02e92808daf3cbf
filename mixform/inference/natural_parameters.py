"""Residual parameters as they are reported, and back to those the search moves in."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import numpy as np

from mixform._typing import Vector
from mixform.errors import InferenceError
from mixform.estimate import Fit
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
    return np.concatenate([*parts, rho[model.delta]])


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
    rho[model.delta] = given[start:]
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
