"""Fitted values and predictions with their uncertainty, for the data or new data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy.special import ndtri, stdtrit

from mixform._typing import Mask, Matrix, Vector
from mixform.errors import InferenceError, suggest
from mixform.estimate import Fit
from mixform.inference.approximation import Approximation
from mixform.inference.intervals import require_level
from mixform.inference.new_residuals import (
    RowErrors,
    new_errors,
    own_errors,
    require_correlated,
)
from mixform.inference.new_rows import Errors, NewRows
from mixform.inference.predictable import (
    estimable_rows,
    require_independent,
    require_known,
    require_member,
)
from mixform.inference.prediction_error import (
    PredictedRows,
    RowPart,
    standard_errors,
)
from mixform.inference.variance_components import block_labels

NEW_LEVELS = ("raise", "population", "nan")
INTERVALS = ("confidence", "prediction")


def chosen_blocks(fit: Fit, random: bool | str | Sequence[str]) -> list[int]:
    """Return the positions of the random terms to predict with.

    Parameters
    ----------
    random : True for all, False for none, or grouping factors or terms by name

    Raises
    ------
    InferenceError : a name is no random term of the model
    """
    blocks = fit.design.blocks
    if isinstance(random, bool | np.bool_):
        return list(range(len(blocks))) if random else []
    if not isinstance(random, str | Sequence):
        raise InferenceError(
            f"random is {random!r}, not True, False or names of random terms."
        )
    wanted = [random] if isinstance(random, str) else list(random)
    labels = block_labels(fit)
    chosen: set[int] = set()
    for name in wanted:
        squeezed = "".join(str(name).split())
        here = {
            j
            for j, block in enumerate(blocks)
            if squeezed
            in {labels[j], block.term.group_label, "".join(block.term.source.split())}
            or sorted(squeezed.split(":")) == sorted(block.term.group)
        }
        if not here:
            raise InferenceError(
                f"There is no random term {name!r}.",
                hint=suggest(str(name), labels, "Random terms"),
            )
        chosen |= here
    return sorted(chosen)


def fitted(fit: Fit, chosen: Sequence[int]) -> Vector:
    """Return X beta + Z b + offset for the rows in the model, (n,)."""
    design = fit.design
    values = design.fixed.X @ fit.beta
    for j in chosen:
        block = design.blocks[j]
        values = values + np.einsum("ij,ij->i", block.design, fit.b[j][block.codes])
    return values if design.offset is None else values + design.offset


def scaled_residuals(fit: Fit) -> Vector:
    """Return (y - fitted) over its row's SD for the rows in the model, (n,).

    That is sigma / sqrt(w), or with a residual structure sigma sqrt(R_ii / w).
    """
    design = fit.design
    rest = design.y - fitted(fit, range(len(design.blocks)))
    return rest / (fit.sigma * np.sqrt(own_errors(fit).variances(fit.evaluation)))


def normalized_residuals(fit: Fit) -> Vector:
    """Return R^-1/2 (y - fitted) sqrt(w) / sigma, (n,).

    Each scaled residual less what the earlier ones of its subject predict, in the
    order of positions; independent with unit variance in the model.
    """
    design, rows = fit.design, fit.evaluation.problem.rows
    if rows is None:
        return scaled_residuals(fit)
    rest = (design.y - fitted(fit, range(len(design.blocks)))) / fit.sigma
    if design.weights is not None:
        rest = rest * np.sqrt(design.weights)
    return rows.residual.whiten(rest[:, None])[:, 0]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prediction:
    """Predictions of r rows, and what their errors come from.

    index : (N,) of the table; complete : (N,) which of its rows are the r rows
    estimate : (r,) NaN where there is none
    rows : the rows, of which the linear predictor or a new observation is predicted
    """

    index: pd.Index
    complete: Mask
    estimate: Vector
    rows: PredictedRows

    def spread(self, values: Vector) -> Vector:
        """Return values (r,) over all N rows; NaN elsewhere."""
        out = np.full(len(self.index), np.nan)
        out[self.complete] = values
        return out


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is to be predicted of the rows.

    chosen : positions of the random terms; new_levels : as of `predict`
    observed : new observations, not their expectation
    given : with residuals that correlated ones of the fit predict
    """

    chosen: list[int]
    new_levels: str
    observed: bool
    given: bool


def predict(
    fit: Fit,
    newdata: object,
    *,
    random: bool | str | Sequence[str],
    new_levels: str,
    residual: bool = False,
) -> pd.Series:
    """Return predictions for each row of the new data, with its index.

    Parameters
    ----------
    newdata : a table with the model's columns; None for the data of the fit
    random : True, False, or names of random terms
    new_levels : for a level the fit has not seen: "raise"; "population" predicts
        with its expectation, zero; "nan"
    residual : add what the residuals of the fit say of those of the new rows: the best
        linear unbiased prediction of new observations, as in kriging

    Returns
    -------
    Series, NaN where a needed value is missing, or where the data do not determine the
    prediction because columns of X are aliased (with a warning)

    Raises
    ------
    DesignError : a column or a level of a fixed factor is unknown
    InferenceError : an unseen level of a grouping factor, or an unknown option; a
        position that the residual structure does not know; with ``residual`` no new
        rows, independent residuals, or not all random terms
    """
    asked = checked_request(fit, newdata, random, new_levels, residual)
    if newdata is None:
        return pd.Series(fitted(fit, asked.chosen), index=fit.design.row_index)
    found = read_rows(fit, newdata, asked)
    return pd.Series(found.spread(found.estimate), index=found.index)


def predict_frame(
    fit: Fit,
    newdata: object,
    *,
    random: bool | str | Sequence[str],
    new_levels: str,
    interval: str | None,
    level: float,
    approximation: Approximation,
    residual: bool = False,
) -> pd.DataFrame:
    """Return predictions with standard errors and limits, as `predict` otherwise.

    The error is that of x'beta^ + z'b^ against x'beta + z'b, beta and b uncertain
    together (Henderson 1975). Terms not in ``random`` are not predicted: they are
    neither in the estimate nor in its error. A level the fit has not seen adds
    its prior variance z'Sigma z. ``interval="prediction"`` is for a new observation: it
    adds the residual variance sigma^2 / w, w from the weights column of newdata, times
    that of its position and dispersion in a residual structure, and for the terms not
    in ``random`` their prior variance, as of new levels. With ``residual`` new
    observations are what is predicted, and the error is theirs in any case (kriging
    variance; that of universal kriging, since beta is estimated).

    Parameters
    ----------
    interval : "confidence", "prediction", or None for standard errors only
    approximation : covariance and df of the fixed effects; with random effects or for
        a new observation Satterthwaite's df of the whole error, or normal quantiles

    Returns
    -------
    frame : ``estimate, se, df``, and with an interval ``lower, upper``. se is of
        the error that the interval is for.

    Raises
    ------
    InferenceError : as `predict`; or the approximation is for fixed effects only
    """
    observed = interval == "prediction"
    asked = checked_request(
        fit, newdata, random, new_levels, residual, observed=observed
    )
    require_level(level)
    require_interval(interval)
    found = read_rows(fit, newdata, asked)
    se, ddf = standard_errors(fit, found.rows, approximation)
    unknown = np.isnan(found.estimate)
    se, ddf = np.where(unknown, np.nan, se), np.where(unknown, np.nan, ddf)
    columns = {"estimate": found.estimate, "se": se, "df": ddf}
    if interval is not None:
        tail = 0.5 * (1.0 + level)
        width = np.where(np.isinf(ddf), ndtri(tail), stdtrit(ddf, tail)) * se
        width = np.where(se == 0.0, 0.0, width)
        columns |= {"lower": found.estimate - width, "upper": found.estimate + width}
    return pd.DataFrame(
        {name: found.spread(values) for name, values in columns.items()},
        index=found.index,
    )


def require_interval(interval: str | None) -> None:
    """Refuse an unknown kind of interval."""
    if interval is not None and interval not in INTERVALS:
        raise InferenceError(
            f"Unknown interval {interval!r}.",
            hint=suggest(str(interval), INTERVALS, "Intervals"),
        )


def checked_request(
    fit: Fit,
    newdata: object,
    random: bool | str | Sequence[str],
    new_levels: str,
    residual: bool,
    *,
    observed: bool = False,
) -> Request:
    """Return what to predict, options checked; observed: not their expectation."""
    if new_levels not in NEW_LEVELS:
        raise InferenceError(
            f"Unknown new_levels {new_levels!r}.",
            hint=suggest(str(new_levels), NEW_LEVELS, "Choices"),
        )
    chosen = chosen_blocks(fit, random)
    if residual:
        require_correlated(fit)
        if newdata is None:
            raise InferenceError(
                "The residuals in the rows of the fit are observed, not predicted.",
                hint="Give newdata= for new observations.",
            )
        if len(chosen) < len(fit.design.blocks):
            raise InferenceError(
                "A new observation beside those of the fit has its random effects.",
                hint="Use random=True with residual=True.",
            )
    return Request(
        chosen=chosen,
        new_levels=new_levels,
        observed=residual or observed,
        given=residual,
    )


def read_rows(fit: Fit, newdata: object, asked: Request) -> Prediction:
    """Predict the rows.

    Raises
    ------
    DesignError : a column or a level of a fixed factor is unknown
    InferenceError : an unseen level that the request does not allow
    """
    chosen, observed = asked.chosen, asked.observed
    absent = [j for j in range(len(fit.design.blocks)) if observed and j not in chosen]
    errors = None
    if newdata is None:
        found = _predict_own(fit, chosen)
        covariates = {j: fit.design.blocks[j].design for j in absent}
        errors = own_errors(fit) if observed else None
    else:
        needed: Errors = "variances" if observed else "none"
        table = NewRows(
            fit,
            newdata,
            chosen,
            covariates_of=absent,
            errors="covariances" if asked.given else needed,
        )
        found = _predict_new(fit, table, chosen, asked.new_levels)
        covariates = {j: table.covariates(j) for j in absent}
        errors = new_errors(fit, table) if observed else None
    if errors is None:
        return found
    for j in absent:
        require_independent(fit, j)
    rows = _new_observations(found.rows, covariates, errors)
    if not asked.given:
        return replace(found, rows=rows)
    estimate = found.estimate + errors.predicted(fit)
    return replace(found, estimate=estimate, rows=replace(rows, given=True))


def _predict_own(fit: Fit, chosen: Sequence[int]) -> Prediction:
    design = fit.design
    blocks = [(j, design.blocks[j]) for j in chosen]
    return Prediction(
        index=design.row_index,
        complete=np.ones(fit.n, dtype=bool),
        estimate=fitted(fit, chosen),
        rows=PredictedRows(
            X=design.fixed.X,
            parts=tuple(
                RowPart(block=j, codes=block.codes, design=block.design)
                for j, block in blocks
            ),
            errors=None,
            in_sample=len(blocks) == len(design.blocks) and design.residual is None,
        ),
    )


def _predict_new(
    fit: Fit, table: NewRows, chosen: Sequence[int], new_levels: str
) -> Prediction:
    X, estimable = estimable_rows(table.all_columns(), fit.design.fixed)
    estimate = np.where(estimable, X @ fit.beta, np.nan) + table.offset()
    parts: list[RowPart] = []
    for j in chosen:
        codes, labels, design = table.random(j)
        new = codes < 0
        if new_levels == "raise":
            require_known(fit, j, labels[new])
        elif new_levels == "population" and new.any():
            require_member(fit, j, labels[new])
        effects = fit.b[j][np.where(new, 0, codes)]
        effects[new] = 0.0 if new_levels == "population" else np.nan
        estimate = estimate + np.einsum("ij,ij->i", design, effects)
        codes = codes.copy()
        codes[new] = -1 - pd.factorize(labels[new])[0]
        parts.append(RowPart(block=j, codes=codes, design=design))
    return Prediction(
        index=table.index,
        complete=table.complete,
        estimate=estimate,
        rows=PredictedRows(X=X, parts=tuple(parts), errors=None, in_sample=False),
    )


def _new_observations(
    rows: PredictedRows, covariates: Mapping[int, Matrix], errors: RowErrors
) -> PredictedRows:
    """Return rows of new observations, on new levels of terms that are not predicted.

    Parameters
    ----------
    covariates : (r, k) for each of those terms
    errors : residuals of the observations
    """
    unseen = -1 - np.arange(len(rows.X))  # each row on a level of its own
    absent = [
        RowPart(block=j, codes=unseen, design=design)
        for j, design in covariates.items()
    ]
    return replace(rows, parts=(*rows.parts, *absent), errors=errors)
