"""Association scan: each marker tested as a fixed effect, given the fitted variances.

With the ratios of the variances held at the fit (EMMAX, Kang et al. 2010, Nat. Genet.
42, 348; P3D, Zhang et al. 2010, Nat. Genet. 42, 355), generalized least squares beside
X is, V relative to sigma^2 and P~ = V^-1 - V^-1X (X'V^-1X)^-1 X'V^-1::

    effect = m'P~y / m'P~m,   Var(effect) = sigma^2 / m'P~m,
    sigma^2 = (y'P~y - effect^2 m'P~m) / (n - p - 1)

for blocks of markers on the Z side: m'V^-1m = m'R^-1m - s'M^-1 s, s = Lambda'Z'R^-1m.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.special import ndtr, stdtr

from mixform._typing import Codes, Matrix, Vector
from mixform.design.random import level_labels
from mixform.errors import InferenceError
from mixform.estimate import Fit
from mixform.inference.prediction import chosen_blocks
from mixform.mme import few_threads

#: Markers worked on at a time.
AT_A_TIME = 512
#: Share of a marker's variation that X must leave.
LEAST_LEFT = 1e-9


def scan(fit: Fit, markers: object, *, by: str | None = None) -> pd.DataFrame:
    """Test each marker as a fixed effect beside those of the model.

    Parameters
    ----------
    markers : frame of genotypes (counts, or any covariate), a column for each marker;
        a row for each row in the model, by the index of the data, or for each level of
        ``by``. Missing genotypes count as the mean of the marker over the rows
    by : grouping factor whose levels are the index of ``markers``; None for rows

    Returns
    -------
    frame : by marker, ``effect, se, t_value, p_value``; t has n - p - 1 degrees of
        freedom; where sigma^2 or what determines it was given, t is normal.
        NaN for a marker that is constant, or a combination of the columns of X

    Raises
    ------
    InferenceError : no frame of numbers; a row or level without genotypes, named
    """
    table, places = _aligned(fit, markers, by)
    parts: list[Matrix] = [np.empty((2, 0))]
    with few_threads(fit.evaluation.problem.equations):
        rest = _response(fit)
        for start in range(0, table.shape[1], AT_A_TIME):
            G = _genotypes(table.iloc[:, start : start + AT_A_TIME], places)
            parts.append(_products(fit, G, rest))
    GPy, GPG = np.hstack(parts)
    here = fit.evaluation
    y_scale = here.problem.y_scale
    df = fit.n - len(fit.beta) - 1
    sigma2 = np.full(len(GPy), (fit.sigma / y_scale) ** 2)
    profiled = here.problem.profiled
    if profiled:
        sigma2 = (here.r2 - GPy**2 / GPG) / df
    se = np.sqrt(sigma2 / GPG)
    t = GPy / GPG / se
    tail = stdtr(df, -np.abs(t)) if profiled else ndtr(-np.abs(t))
    columns = {
        "effect": y_scale * GPy / GPG,
        "se": y_scale * se,
        "t_value": t,
        "p_value": 2.0 * tail,
    }
    return pd.DataFrame(columns, index=table.columns)


def _response(fit: Fit) -> Vector:
    """Return what X leaves of the response, (n,), on the scaled problem."""
    design, problem = fit.design, fit.evaluation.problem
    y = design.y if design.offset is None else design.y - design.offset
    if design.weights is not None:
        y = y * np.sqrt(design.weights)
    return (y - design.fixed.Q @ problem.projection) / problem.y_scale


def _products(fit: Fit, G: Matrix, rest: Vector) -> Matrix:
    """Return m'P~y and m'P~m of markers G (n, s), (2, s); NaN where X holds them."""
    here = fit.evaluation
    equations = here.problem.equations
    if fit.design.weights is not None:
        G = G * np.sqrt(fit.design.weights)[:, None]
    Q = fit.design.fixed.Q
    size = np.einsum("is,is->s", G, G)
    G = G - Q @ (Q.T @ G)  # P~ does not notice
    left = np.einsum("is,is->s", G, G)
    S = equations.Lambda_dot(here.T, equations.Zt_dot(G), transpose=True)
    GPy = G.T @ rest - S.T @ here.V[:, -1]
    GPG = left - np.einsum("qs,qs->s", S, here.factor.solve(S))
    XVG = here.R_inverse.T @ (Q.T @ G - here.V[:, :-1].T @ S)
    # X'R^-1y is zero on the scaled problem, so X'V^-1y is what Z gives.
    GPy -= XVG.T @ (here.R_inverse.T @ -(here.V[:, :-1].T @ here.LambdaZtW[:, -1]))
    GPG -= np.einsum("ps,ps->s", XVG, XVG)
    return np.where(left > LEAST_LEFT * size, [GPy, GPG], np.nan)


def _genotypes(table: pd.DataFrame, places: Codes) -> Matrix:
    """Return the markers of the rows, (n, s), missing ones at the mean."""
    try:
        values = table.to_numpy(dtype=np.float64)[places]
    except (TypeError, ValueError):
        raise InferenceError(
            "The markers are not numeric.", hint="Give counts of one allele."
        ) from None
    missing = np.isnan(values)
    if not missing.any():
        return values
    counts = np.maximum((~missing).sum(axis=0), 1)
    means = np.where(missing, 0.0, values).sum(axis=0) / counts
    return np.where(missing, means, values)


def _aligned(fit: Fit, markers: object, by: str | None) -> tuple[pd.DataFrame, Codes]:
    """Return the table of markers, and which of its rows each row (n,) has."""
    if not isinstance(markers, pd.DataFrame):
        raise InferenceError(
            f"markers is a {type(markers).__name__}, not a frame.",
            hint="Give a DataFrame, a column for each marker.",
        )
    wanted, index = fit.design.row_index, markers.index
    if by is not None:
        block = fit.design.blocks[chosen_blocks(fit, by)[0]]
        wanted, index = block.levels[block.codes], level_labels(markers.index)
    if index.has_duplicates:
        twice = index[index.duplicated()][0]
        raise InferenceError(f"{twice!r} has more than one row of genotypes.")
    places = index.get_indexer(wanted)
    if np.any(places < 0):
        name = wanted[int(np.argmin(places))]
        raise InferenceError(
            f"{name!r} has no genotypes.",
            hint="The index of markers must be that of the data"
            + (", or give by= a grouping factor." if by is None else "'s levels."),
        )
    return markers, places
