"""Association scan: each marker tested as a fixed effect, given the fitted variances.

With the ratios of the variances held at the fit (EMMAX, Kang et al. 2010, Nat. Genet.
42, 348; P3D, Zhang et al. 2010, Nat. Genet. 42, 355), generalized least squares beside
X is, V relative to sigma^2 and P~ = V^-1 - V^-1X (X'V^-1X)^-1 X'V^-1::

    effect = m'P~y / m'P~m,   Var(effect) = sigma^2 / m'P~m,
    sigma^2 = (y'P~y - effect^2 m'P~m) / (n - p - 1)
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.special import ndtr, stdtr

from mixform._typing import Codes, Matrix, Vector
from mixform.design.random import level_labels
from mixform.errors import InferenceError
from mixform.estimate import Fit
from mixform.inference.marker_products import OneByOne, SharedFactor, Units
from mixform.inference.markers import Markers, read_markers
from mixform.inference.prediction import chosen_blocks

#: Share of a marker's variation that X must leave.
LEAST_LEFT = 1e-9
#: Markers that a note names.
NAMED = 5


def scan(
    fit: Fit,
    markers: object,
    *,
    by: str | None = None,
    ids: object = None,
    missing: float | None = None,
) -> pd.DataFrame:
    """Test each marker as a fixed effect beside those of the model.

    Parameters
    ----------
    markers : frame or array of genotypes (counts, or any covariate), a column for each
        marker; a row for each row of the data, by label where both have labels, or for
        each level of ``by``. Missing genotypes count as the mean of the marker over
        the rows in the model
    by : grouping factor whose levels the rows of ``markers`` are; None for rows
    ids : labels of the rows of ``markers``, or its column that holds them; None for the
        index of a pandas frame
    missing : value that stands for a missing genotype, as NaN does

    Returns
    -------
    frame : by marker, ``effect, se, t_value, p_value``; t has n - p - 1 degrees of
        freedom; where sigma^2 or what determines it was given, t is normal.
        NaN for a marker that is constant, or a combination of the columns of X;
        ``attrs["notes"]`` counts them, and the missing genotypes

    Raises
    ------
    InferenceError : no numbers; a row or level without genotypes, named
    """
    table = read_markers(markers, ids, missing)
    Py, Pm, n_missing = _products(fit, table, _places(fit, table, by))
    here = fit.evaluation
    y_scale = here.problem.y_scale
    df = fit.n - len(fit.beta) - 1
    sigma2 = np.full(len(Py), (fit.sigma / y_scale) ** 2)
    profiled = here.problem.profiled
    if profiled:
        sigma2 = (here.r2 - Py**2 / Pm) / df
    se = np.sqrt(sigma2 / Pm)
    t = Py / Pm / se
    tail = stdtr(df, -np.abs(t)) if profiled else ndtr(-np.abs(t))
    columns = {
        "effect": y_scale * Py / Pm,
        "se": y_scale * se,
        "t_value": t,
        "p_value": 2.0 * tail,
    }
    found = pd.DataFrame(columns, index=table.names)
    found.attrs["notes"] = _notes(table.names[np.isnan(Pm)], n_missing)
    return found


def _products(fit: Fit, table: Markers, places: Codes) -> tuple[Vector, Vector, int]:
    """Return m'P~y and m'P~m of all markers, NaN where X holds them.

    The third is the number of genotypes that were missing.
    """
    rows, codes = np.unique(places, return_inverse=True)
    units = Units(fit, codes.ravel(), len(rows))
    s, n_missing = len(table.names), 0
    shared = SharedFactor.worthwhile(units, s)
    products = SharedFactor(units) if shared else OneByOne(units)
    counts, weights = units.sums(np.ones(fit.n)), units.sums(units.roots**2)
    QS, centered = units.sums_of_Q(), _holds_constants(units)
    Py, Pm = np.empty(s), np.empty(s)
    for start in range(0, s, products.at_a_time):
        stop = min(start + products.at_a_time, s)
        g = table.block(start, stop, rows)
        n_missing += _fill(g, counts, centered=centered)
        Py[start:stop], here = products(g)
        size = weights @ g**2
        left = size - ((QS @ g) ** 2).sum(axis=0)
        Pm[start:stop] = np.where(left > LEAST_LEFT * size, here, np.nan)
    return Py, Pm, n_missing


def _fill(g: Matrix, counts: Vector, *, centered: bool) -> int:
    """Put missing values of g (u, s) at the mean over rows, in place; count them.

    Parameters
    ----------
    counts : (u,) rows of each unit
    centered : subtract the mean, which X may take out without a change to the test
    """
    gaps = np.isnan(g)
    n_missing = int(gaps.sum())
    if n_missing:
        g[gaps] = 0.0
        known = counts.sum() - counts @ gaps
        means = (counts @ g) / np.maximum(known, 1.0)
        g += gaps * means
    if centered:
        g -= (counts @ g) / counts.sum()
    return n_missing


def _holds_constants(units: Units) -> bool:
    """Whether a constant column is a combination of those of X."""
    one, Q = units.roots, units.fit.design.fixed.Q
    left = one - Q @ (Q.T @ one)
    return bool(left @ left <= 1e-20 * (one @ one))


def _places(fit: Fit, table: Markers, by: str | None) -> Codes:
    """Return which row of the markers each row (n,) has."""
    design = fit.design
    if by is None and table.labels is None:
        if table.n_rows != len(design.index):
            raise InferenceError(
                f"markers has {table.n_rows} rows, the data have {len(design.index)}.",
                hint="Give a row for each row of the data, or by= and ids=.",
            )
        return np.flatnonzero(design.used)
    if table.labels is None:
        raise InferenceError(
            f"The rows of markers do not say which level of {by!r} they are.",
            hint="Give ids=, their labels.",
        )
    wanted, index = design.row_index, table.labels
    if by is not None:
        block = design.blocks[chosen_blocks(fit, by)[0]]
        wanted, index = block.levels[block.codes], level_labels(index)
    if index.has_duplicates:
        twice = str(index[index.duplicated()][0])
        raise InferenceError(f"{twice!r} has more than one row of genotypes.")
    places = index.get_indexer(wanted)
    if np.any(places < 0):
        name = str(wanted[int(np.argmin(places))])
        raise InferenceError(
            f"{name!r} has no genotypes.",
            hint="The labels of markers must be those of the data"
            + (", or give by= a grouping factor." if by is None else "'s levels."),
        )
    return places


def _notes(untested: pd.Index, n_missing: int) -> tuple[str, ...]:
    notes: list[str] = []
    if len(untested):
        names = ", ".join(map(str, untested[:NAMED]))
        more = ", ..." if len(untested) > NAMED else ""
        notes.append(
            f"{len(untested)} marker{'s are' if len(untested) > 1 else ' is'} constant "
            f"or a combination of the columns of X: {names}{more}."
        )
    if n_missing:
        notes.append(
            f"{n_missing} missing genotype{'s count' if n_missing > 1 else ' counts'} "
            "as the mean of the marker."
        )
    return tuple(notes)
