"""Fitted values and predictions with their uncertainty, for the data or new data."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy.special import ndtri, stdtrit

from mixform._typing import Mask, Matrix, Vector
from mixform.design import FixedPart
from mixform.errors import InferenceError, RankDeficiencyWarning, suggest
from mixform.estimate import Fit
from mixform.inference.approximation import Approximation
from mixform.inference.intervals import require_level
from mixform.inference.new_rows import NewRows
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
    """Return (y - fitted) sqrt(w) / sigma for the rows in the model, (n,)."""
    design = fit.design
    rest = (design.y - fitted(fit, range(len(design.blocks)))) / fit.sigma
    return rest if design.weights is None else rest * np.sqrt(design.weights)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Prediction:
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


def predict(
    fit: Fit, newdata: object, *, random: bool | str | Sequence[str], new_levels: str
) -> pd.Series:
    """Return predictions for each row of the new data, with its index.

    Parameters
    ----------
    newdata : a table with the model's columns; None for the data of the fit
    random : True, False, or names of random terms
    new_levels : for a level the fit has not seen: "raise"; "population" predicts
        with its expectation, zero; "nan"

    Returns
    -------
    Series, NaN where a needed value is missing, or where the data do not determine the
    prediction because columns of X are aliased (with a warning)

    Raises
    ------
    DesignError : a column or a level of a fixed factor is unknown
    InferenceError : an unseen level of a grouping factor, or an unknown option
    """
    chosen = _checked(fit, random, new_levels)
    if newdata is None:
        return pd.Series(fitted(fit, chosen), index=fit.design.row_index)
    found = _read(fit, newdata, chosen, new_levels, observed=False)
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
) -> pd.DataFrame:
    """Return predictions with standard errors and limits, as `predict` otherwise.

    The error is that of x'beta^ + z'b^ against x'beta + z'b, beta and b uncertain
    together (Henderson 1975). Terms not in ``random`` are not predicted: they are
    neither in the estimate nor in its error. A level the fit has not seen adds
    its prior variance z'Sigma z. ``interval="prediction"`` is for a new observation: it
    adds the residual variance sigma^2 / w, w from the weights column of newdata, and
    for the terms not in ``random`` their prior variance, as of new levels.

    Parameters
    ----------
    interval : "confidence", "prediction", or None for standard errors only
    level : confidence level in (0, 1)
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
    chosen = _checked(fit, random, new_levels)
    require_level(level)
    if interval is not None and interval not in INTERVALS:
        raise InferenceError(
            f"Unknown interval {interval!r}.",
            hint=suggest(str(interval), INTERVALS, "Intervals"),
        )
    found = _read(fit, newdata, chosen, new_levels, observed=interval == "prediction")
    se, ddf = standard_errors(fit, found.rows, approximation)
    unknown = np.isnan(found.estimate)
    se, ddf = np.where(unknown, np.nan, se), np.where(unknown, np.nan, ddf)
    columns = {"estimate": found.estimate, "se": se, "df": ddf}
    if interval is not None:
        tail = 0.5 * (1.0 + level)
        width = np.where(np.isinf(ddf), ndtri(tail), stdtrit(ddf, tail)) * se
        columns |= {"lower": found.estimate - width, "upper": found.estimate + width}
    return pd.DataFrame(
        {name: found.spread(values) for name, values in columns.items()},
        index=found.index,
    )


def _checked(
    fit: Fit, random: bool | str | Sequence[str], new_levels: str
) -> list[int]:
    """Return the positions of the random terms, options checked."""
    if new_levels not in NEW_LEVELS:
        raise InferenceError(
            f"Unknown new_levels {new_levels!r}.",
            hint=suggest(str(new_levels), NEW_LEVELS, "Choices"),
        )
    return chosen_blocks(fit, random)


def _read(
    fit: Fit, newdata: object, chosen: list[int], new_levels: str, *, observed: bool
) -> _Prediction:
    """Predict the rows; ``observed`` says whether as new observations."""
    absent = [j for j in range(len(fit.design.blocks)) if observed and j not in chosen]
    if newdata is None:
        found = _predict_own(fit, chosen)
        covariates = {j: fit.design.blocks[j].design for j in absent}
        weights = fit.design.weights
    else:
        table = NewRows(fit, newdata, chosen, covariates_of=absent)
        found = _predict_new(fit, table, chosen, new_levels)
        covariates = {j: table.covariates(j) for j in absent}
        weights = table.weights() if observed else None
    if not observed:
        return found
    for j in absent:
        _require_independent(fit, j)
    return replace(found, rows=_new_observations(found.rows, covariates, weights))


def _predict_own(fit: Fit, chosen: Sequence[int]) -> _Prediction:
    design = fit.design
    blocks = [(j, design.blocks[j]) for j in chosen]
    return _Prediction(
        index=design.row_index,
        complete=np.ones(fit.n, dtype=bool),
        estimate=fitted(fit, chosen),
        rows=PredictedRows(
            X=design.fixed.X,
            parts=tuple(
                RowPart(block=j, codes=block.codes, design=block.design)
                for j, block in blocks
            ),
            residual=None,
            in_sample=len(blocks) == len(design.blocks),
        ),
    )


def _predict_new(
    fit: Fit, table: NewRows, chosen: Sequence[int], new_levels: str
) -> _Prediction:
    X, estimable = _estimable(table.all_columns(), fit.design.fixed)
    estimate = np.where(estimable, X @ fit.beta, np.nan) + table.offset()
    parts: list[RowPart] = []
    for j in chosen:
        codes, labels, design = table.random(j)
        new = codes < 0
        if new_levels == "raise":
            _require_known(fit, j, labels[new])
        elif new_levels == "population" and new.any():
            _require_member(fit, j, labels[new])
        effects = fit.b[j][np.where(new, 0, codes)]
        effects[new] = 0.0 if new_levels == "population" else np.nan
        estimate = estimate + np.einsum("ij,ij->i", design, effects)
        parts.append(RowPart(block=j, codes=codes, design=design))
    return _Prediction(
        index=table.index,
        complete=table.complete,
        estimate=estimate,
        rows=PredictedRows(X=X, parts=tuple(parts), residual=None, in_sample=False),
    )


def _new_observations(
    rows: PredictedRows, covariates: Mapping[int, Matrix], weights: Vector | None
) -> PredictedRows:
    """Return rows of new observations, on new levels of terms that are not predicted.

    Parameters
    ----------
    covariates : (r, k) for each of those terms
    weights : (r,) precision weights of the observations, None for ones
    """
    n = len(rows.X)
    unseen = np.full(n, -1)
    absent = [
        RowPart(block=j, codes=unseen, design=design)
        for j, design in covariates.items()
    ]
    residual = np.ones(n) if weights is None else 1.0 / weights
    return replace(rows, parts=(*rows.parts, *absent), residual=residual)


def _require_known(fit: Fit, j: int, unseen: pd.Index) -> None:
    if len(unseen):
        raise InferenceError(
            f"New data have the level {unseen[0]!r} of "
            f"{fit.design.blocks[j].term.group_label!r}, which the fit has not seen.",
            hint='Use new_levels="population" to predict with its expectation, '
            "or random=False.",
        )


def _require_member(fit: Fit, j: int, unseen: pd.Index) -> None:
    block = fit.design.blocks[j]
    if block.relation is not None:
        raise InferenceError(
            f"{unseen[0]!r} is not in the relationship of {block.term.group_label!r}, "
            "so how it is related to the others is not known.",
            hint='Add it to the relationship and fit again, or use new_levels="nan".',
        )


def _require_independent(fit: Fit, j: int) -> None:
    block = fit.design.blocks[j]
    if block.relation is not None:
        raise InferenceError(
            f"A new observation of an unknown {block.term.group_label!r} has no "
            "variance: it depends on the member of the relationship.",
            hint='Use random=True, or interval="confidence".',
        )


def _estimable(columns: Matrix, fixed: FixedPart) -> tuple[Matrix, Mask]:
    """Return the estimated columns (r, p), and which rows the data determine, (r,).

    A row is determined if its aliased columns are what the kept ones imply.
    """
    if not fixed.aliased:
        return columns, np.ones(len(columns), dtype=bool)
    X, others = columns[:, fixed.kept], columns[:, fixed.aliased]
    size = np.abs(X) @ np.abs(fixed.alias_of_kept) + np.abs(others)
    apart = np.abs(others - X @ fixed.alias_of_kept) > 1e-6 * size
    estimable: Mask = np.all(~apart, axis=1)
    if apart.any():
        involved = np.flatnonzero(apart.any(axis=0))
        names = tuple(fixed.aliased_names[a] for a in involved)
        count = len(X) - int(estimable.sum())
        warnings.warn(
            RankDeficiencyWarning(
                f"The data do not determine the prediction of {count} of "
                f"{len(columns)} rows, which is NaN: they need {', '.join(names)}, "
                "aliased in the fit.",
                names,
            ),
            stacklevel=6,  # where the user asked for a prediction
        )
    return X, estimable
