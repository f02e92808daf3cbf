"""Marginal slopes: how the mean changes with a covariate.

The derivative of X by a covariate on the reference grid, averaged like a mean. It is
taken by the central difference of order six: exact for polynomials up to degree six,
and to about 1e-10 for logarithms and splines between their knots.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from mixform._typing import Matrix
from mixform.errors import InferenceError
from mixform.estimate import Fit
from mixform.inference.approximation import Approximation
from mixform.inference.means.linear_estimates import LinearEstimates
from mixform.inference.means.means import (
    GridFunction,
    MeansOptions,
    Presentation,
    marginal,
    read_options,
    read_specs,
    with_parents,
)
from mixform.inference.means.reference_grid import (
    ReferenceGrid,
    code_grid,
    reference_grid,
    require_variable,
)

#: Step of the difference, in standard deviations of the covariate.
STEP = 1e-3
#: Weights of f(x + j h) - f(x - j h), j = 1, 2, 3 (Fornberg 1988).
STENCIL = (3.0 / 4.0, -3.0 / 20.0, 1.0 / 60.0)


def slopes(
    fit: Fit,
    approximation: Approximation,
    x: str,
    *,
    specs: object = None,
    by: object = None,
    options: MeansOptions | None = None,
) -> LinearEstimates:
    """Return the slope of a covariate for the combinations of some variables.

    Parameters
    ----------
    x : the covariate; the slope is taken at its mean, or at at={x: [...]}
    specs : what the slopes are for, as in `emmeans`; the overall slope if None
    by : without specs the same as specs; else variables that make groups
    options : the rest; slopes are on the scale of the model only

    Raises
    ------
    InferenceError : x is a factor, or not in the fixed part; as `emmeans`
    """
    options = MeansOptions() if options is None else options
    if options.type == "response":
        raise InferenceError(
            "Slopes are on the scale of the model only.", hint='Use type="link".'
        )
    scale, adjust = read_options(fit, options)
    grid = reference_grid(fit, options.at, covariates=[x])
    require_variable(fit, x, tuple(grid.variables))
    if grid.variables[x].is_factor:
        raise InferenceError(
            f"{x!r} is a factor, which has no slope.",
            hint=f"Use emmeans({x!r}).contrast(...) to compare its levels.",
        )
    if specs is None:
        specs, by = ("1" if by is None else by), None
    kept, groups = with_parents(grid, *read_specs(fit, grid, specs, by))
    derivative = GridFunction(
        grid=grid, X=_derivative(fit, grid, x), name=f"{x}.trend", offset=0.0
    )
    shown = Presentation(scale=scale, adjust=adjust, options=options)
    return marginal(fit, approximation, derivative, (kept, groups), shown)


def _derivative(fit: Fit, grid: ReferenceGrid, x: str) -> Matrix:
    """Return dX/dx over the grid, (G, c).

    All nodes are coded at once, so that no transformation can depend on which.
    """
    values = grid.values()
    column = fit.design.columns[x].to_numpy()
    h = STEP * float(np.std(column))
    steps = [sign * j for j in (1, 2, 3) for sign in (1, -1)]
    n = len(grid.places)
    stacked = {
        name: pd.concat([series] * len(steps), ignore_index=True)
        for name, series in values.items()
    }
    stacked[x] = stacked[x] + np.repeat(np.array(steps) * h, n)
    parts = code_grid(fit, stacked, n * len(steps)).reshape(len(steps), n, -1)
    total = np.zeros(parts.shape[1:])
    for j, weight in enumerate(STENCIL):
        total += weight * (parts[2 * j] - parts[2 * j + 1])
    return total / h
