"""Predictions at each draw: the linear predictor, or new observations.

At draw s it is x'beta_s + z'b_s + offset, for a new observation plus a residual of
variance sigma_s^2 / w. Levels that the fit has not seen get effects from N(0, Sigma_s).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from mixform._typing import AnyArray, Matrix, Vector
from mixform.estimate.bayes.posterior import Posterior
from mixform.inference import prediction
from mixform.inference.intervals import require_level
from mixform.inference.posterior.draws import (
    at_means,
    credible_limits,
    deviations,
    of_effects,
)
from mixform.inference.prediction import Prediction, checked_request, read_rows
from mixform.inference.prediction_error import RowPart
from mixform.inference.resampling.simulation import seed_sequence

#: Draws times rows held at once.
CHUNK_NUMBERS = 5_000_000


def predict(
    posterior: Posterior,
    newdata: object,
    *,
    random: bool | str | Sequence[str],
    new_levels: str,
) -> pd.Series:
    """Return posterior means; arguments as of `prediction.predict`."""
    fit = at_means(posterior)
    return prediction.predict(fit, newdata, random=random, new_levels=new_levels)


def predict_frame(
    posterior: Posterior,
    newdata: object,
    *,
    random: bool | str | Sequence[str],
    new_levels: str,
    interval: str | None,
    level: float,
    method: str = "eti",
    seed: object = 0,
) -> pd.DataFrame:
    """Return posterior mean, SD and limits of each row.

    Parameters
    ----------
    newdata : a table with the model's columns; None for the rows in the model
    random : True, False, or names of random terms
    new_levels : for a level the fit has not seen: "raise"; "population" draws its
        effects, whose mean is zero; "nan"
    interval : "confidence" of the linear predictor, "prediction" of a new observation:
        it has a residual, and effects of new levels of the terms not in ``random``;
        None for mean and SD of the linear predictor
    method : of limits, "eti" or "hdi"
    seed : of what is drawn for new levels and observations

    Returns
    -------
    frame : ``estimate, se``, and with an interval ``lower, upper``. The estimate is the
        posterior mean of the linear predictor, without noise of the draws of levels and
        residuals, whose mean is zero

    Raises
    ------
    InferenceError : as `prediction.predict_frame`
    """
    require_level(level)
    found = _found(posterior, newdata, random, new_levels, interval)
    estimate: Vector = found.estimate
    out = np.full((3, len(estimate)), np.nan)
    size = max(1, CHUNK_NUMBERS // len(posterior.beta))
    starts = range(0, len(estimate), size)
    streams = seed_sequence(seed).spawn(len(starts))
    for start, stream in zip(starts, streams, strict=True):
        some = slice(start, start + size)
        values = _draws(posterior, found, some, np.random.default_rng(stream))
        out[0, some] = deviations(values)
        if interval is not None:
            out[1:, some] = credible_limits(values, level, method)
    columns = {"estimate": estimate, "se": out[0]}
    if interval is not None:
        columns |= {"lower": out[1], "upper": out[2]}
    return pd.DataFrame(
        {name: found.spread(values) for name, values in columns.items()},
        index=found.index,
    )


def predict_draws(
    posterior: Posterior,
    newdata: object,
    *,
    random: bool | str | Sequence[str],
    new_levels: str,
    interval: str | None,
    seed: object = 0,
) -> pd.DataFrame:
    """Return the draws themselves, (E, N), arguments as of `predict_frame`.

    Rows of one new level share its effects; the levels of terms not in ``random``,
    which new observations have, are others for each row.

    Returns
    -------
    frame : a row for each draw, columns by the index of the rows
    """
    found = _found(posterior, newdata, random, new_levels, interval)
    rng = np.random.default_rng(seed_sequence(seed))
    values = np.full((len(posterior.beta), len(found.index)), np.nan)
    values[:, found.complete] = _draws(posterior, found, slice(None), rng)
    return pd.DataFrame(values, columns=found.index)


def linear_draws(posterior: Posterior, some: slice) -> Matrix:
    """Return X beta + Z b + offset of rows of the fit at each draw, (E, c)."""
    asked = checked_request(posterior.fit, None, True, "raise", False)
    found = read_rows(at_means(posterior), None, asked)
    return _draws(posterior, found, some, np.random.default_rng(0))


def _found(
    posterior: Posterior,
    newdata: object,
    random: bool | str | Sequence[str],
    new_levels: str,
    interval: str | None,
) -> Prediction:
    fit = at_means(posterior)
    prediction.require_interval(interval)
    asked = checked_request(
        fit, newdata, random, new_levels, False, observed=interval == "prediction"
    )
    return read_rows(fit, newdata, asked)


def _draws(
    posterior: Posterior, found: Prediction, some: slice, rng: np.random.Generator
) -> Matrix:
    """Return draws (E, c) of some of the rows that were read.

    The posterior mean plus how far beta and b are from theirs, so that the offset, and
    rows that have no prediction, are as in the mean.
    """
    rows, n_draws = found.rows, len(posterior.beta)
    # One more pass over beta is cheaper than (E, c) arrays with offsets.
    apart = posterior.beta - posterior.beta.mean(axis=0)
    values = found.estimate[some] + apart @ rows.X[some].T
    sigma = of_effects(posterior, posterior.sigma)
    for part in rows.parts:
        codes, design = part.codes[some], part.design[some]
        old = codes >= 0
        b = posterior.b[part.block]
        centered = b - b.mean(axis=0)
        for c in range(design.shape[1]):
            values[:, old] += centered[:, codes[old], c] * design[old, c]
        if not old.all():
            effects = _new_effects(posterior, part, codes[~old], sigma, rng)
            values[:, ~old] += np.einsum("ecj,cj->ec", effects, design[~old])
    if rows.errors is not None:
        noise = rng.standard_normal((n_draws, values.shape[1]))
        values += sigma[:, None] * noise / np.sqrt(rows.errors.weights[some])
    return values


def _new_effects(
    posterior: Posterior,
    part: RowPart,
    codes: AnyArray,
    sigma: Vector,
    rng: np.random.Generator,
) -> AnyArray:
    """Draw effects (E, c, k) of unseen levels; rows with one code have one level."""
    T = of_effects(posterior, posterior.T[part.block])
    known, places = np.unique(codes, return_inverse=True)
    normal = rng.standard_normal((len(sigma), len(known), T.shape[1]))
    drawn = sigma[:, None, None] * (normal @ T.transpose(0, 2, 1))
    return drawn[:, places.ravel()]
