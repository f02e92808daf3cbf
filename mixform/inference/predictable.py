"""What cannot be predicted: unseen levels, rows that the data do not determine."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd

from mixform._typing import Mask, Matrix
from mixform.design import FixedPart
from mixform.errors import InferenceError, RankDeficiencyWarning
from mixform.estimate import Fit


def require_known(fit: Fit, j: int, unseen: pd.Index) -> None:
    """Refuse levels of random term j that the fit has not seen."""
    if len(unseen):
        raise InferenceError(
            f"New data have the level {unseen[0]!r} of "
            f"{fit.design.blocks[j].term.group_label!r}, which the fit has not seen.",
            hint='Use new_levels="population" to predict with its expectation, '
            "or random=False.",
        )


def require_member(fit: Fit, j: int, unseen: pd.Index) -> None:
    """Refuse levels outside the relationship of random term j, if it has one."""
    block = fit.design.blocks[j]
    if block.relation is not None:
        raise InferenceError(
            f"{unseen[0]!r} is not in the relationship of {block.term.group_label!r}, "
            "so how it is related to the others is not known.",
            hint='Add it to the relationship and fit again, or use new_levels="nan".',
        )


def require_independent(fit: Fit, j: int) -> None:
    """Refuse an unknown level of random term j if its levels are related."""
    block = fit.design.blocks[j]
    if block.relation is not None:
        raise InferenceError(
            f"A new observation of an unknown {block.term.group_label!r} has no "
            "variance: it depends on the member of the relationship.",
            hint='Use random=True, or interval="confidence".',
        )


def estimable_rows(columns: Matrix, fixed: FixedPart) -> tuple[Matrix, Mask]:
    """Return the estimated columns (r, p), and which rows the data determine, (r,)."""
    if not fixed.aliased:
        return columns, np.ones(len(columns), dtype=bool)
    X = columns[:, fixed.kept]
    apart = fixed.space.undetermined(columns)
    estimable: Mask = ~np.any(apart, axis=1)
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
