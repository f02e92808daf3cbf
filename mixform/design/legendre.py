"""Legendre polynomials as a transform of the formula.

The basis of random regressions on age or days in milk and of covariance functions
(Kirkpatrick, Lofsvold and Bulmer 1990, Genetics 124, 979)::

    phi_k(x) = sqrt((2k + 1) / 2) P_k(t),   t = 2 (x - a) / (b - a) - 1

P_k the Legendre polynomial of degree k, so that the integral of phi_j phi_k over t from
-1 to 1 is 1 for j = k and 0 otherwise. a and b are the range of the data of the fit,
kept for new data, or given.
"""

from __future__ import annotations

from collections.abc import Iterable, MutableMapping
from typing import Any, cast

import numpy as np
from formulaic.materializers.types import FactorValues
from formulaic.transforms import stateful_transform
from numpy.polynomial.legendre import legvander

from mixform._typing import Matrix, Vector
from mixform.errors import FormulaError

#: How far outside its bounds, in units of the range, x may be: rounding, and the
#: differences that give a slope at an end.
MARGIN = 2e-3


def legendre_basis(t: Vector, degree: int) -> Matrix:
    """Return the normalized polynomials of degree 0 to ``degree``, (n, degree + 1).

    Examples
    --------
    >>> legendre_basis(np.array([-1.0, 0.0, 1.0]), 2).round(4).tolist()
    [[0.7071, -1.2247, 1.5811], [0.7071, 0.0, -0.7906], [0.7071, 1.2247, 1.5811]]
    """
    return legvander(t, degree) * np.sqrt(np.arange(degree + 1) + 0.5)


@stateful_transform
def legendre(
    data: Any,
    degree: int = 1,
    bounds: Iterable[float] | None = None,
    intercept: bool = False,
    _state: MutableMapping[str, Any] | None = None,
) -> Any:
    """Return normalized Legendre polynomials of a covariate.

    Parameters
    ----------
    data : (n,) the covariate; NaN stays NaN
    degree : highest degree
    bounds : (a, b), which become -1 and 1; None for the range of the data of the fit
    intercept : whether the constant phi_0 = sqrt(1/2) is the first column, in place
        of the formula's intercept of 1

    Raises
    ------
    FormulaError : values that are no numbers, without variation, or out of bounds; a
        degree or bounds that are none
    """
    x = _numbers(data)
    least = 0 if intercept is True else 1
    whole = isinstance(degree, int | np.integer) and not isinstance(degree, bool)
    if not whole or degree < least:
        raise FormulaError(
            f"legendre() of degree {degree!r} has no columns.",
            hint=f"Give a whole number of {least} or more.",
        )
    state = {} if _state is None else _state
    if "bounds" not in state:
        state["bounds"] = _range(x) if bounds is None else _given(bounds)
    a, b = state["bounds"]
    slack = MARGIN * (b - a)
    outside = (x < a - slack) | (x > b + slack)
    if outside.any():
        raise FormulaError(
            f"legendre() was fitted from {a:g} to {b:g}; "
            f"{float(x[outside][0]):g} is outside.",
            hint="A polynomial says nothing there. Fit it with bounds=(a, b) that hold "
            "all values, those to predict at included.",
        )
    t = 2.0 * (x - a) / (b - a) - 1.0
    first = 0 if intercept else 1
    return FactorValues(
        legendre_basis(t, int(degree))[:, first:],
        column_names=tuple(map(str, range(first, int(degree) + 1))),
    )


def _numbers(data: Any) -> Vector:
    values = np.asarray(getattr(data, "__wrapped__", data))
    if values.ndim != 1 or values.dtype.kind not in "fiu":
        raise FormulaError(
            "legendre() is of one numeric column.",
            hint="Convert the column to numbers first.",
        )
    return values.astype(np.float64)


def _range(x: Vector) -> tuple[float, float]:
    known = x[np.isfinite(x)]
    a, b = (float(known.min()), float(known.max())) if len(known) else (0.0, 0.0)
    if not a < b:
        raise FormulaError(
            "legendre() is of a column without variation.",
            hint="Leave it out, or give bounds=(a, b).",
        )
    return a, b


def _given(bounds: object) -> tuple[float, float]:
    try:
        a, b = (float(bound) for bound in cast("Iterable[Any]", bounds))
    except (TypeError, ValueError):
        a = b = np.nan
    if not (np.isfinite([a, b]).all() and a < b):
        raise FormulaError(
            f"legendre(bounds={bounds!r}) is no range.",
            hint="Write bounds=(a, b) with a < b.",
        )
    return a, b
