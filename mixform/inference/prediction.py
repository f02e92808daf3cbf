"""Fitted values and predictions, for the data or for new data."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from mixform._typing import Vector
from mixform.errors import InferenceError, suggest
from mixform.estimate import Fit
from mixform.inference.new_rows import NewRows
from mixform.inference.variance_components import block_labels

NEW_LEVELS = ("raise", "population", "nan")


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
    Series, NaN where a needed value is missing

    Raises
    ------
    DesignError : a column or a level of a fixed factor is unknown
    InferenceError : an unseen level of a grouping factor, or an unknown option
    """
    if new_levels not in NEW_LEVELS:
        raise InferenceError(
            f"Unknown new_levels {new_levels!r}.",
            hint=suggest(str(new_levels), NEW_LEVELS, "Choices"),
        )
    chosen = chosen_blocks(fit, random)
    if newdata is None:
        return pd.Series(fitted(fit, chosen), index=fit.design.row_index)
    rows = NewRows(fit, newdata, chosen)
    values = rows.X() @ fit.beta + rows.offset()
    for j in chosen:
        values = values + _random_part(fit, rows, j, new_levels)
    return rows.spread(values)


def _random_part(fit: Fit, rows: NewRows, j: int, new_levels: str) -> Vector:
    codes, labels, design = rows.random(j)
    new = codes < 0
    if new.any() and new_levels == "raise":
        first = labels[int(np.flatnonzero(new)[0])]
        raise InferenceError(
            f"New data have the level {first!r} of "
            f"{fit.design.blocks[j].term.group_label!r}, which the fit has not seen.",
            hint='Use new_levels="population" to predict with its expectation, '
            "or random=False.",
        )
    effects = fit.b[j][np.where(new, 0, codes)]
    effects[new] = 0.0 if new_levels == "population" else np.nan
    return np.einsum("ij,ij->i", design, effects)
