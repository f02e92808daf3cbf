"""What is not valid where the levels of a random term are related."""

from __future__ import annotations

import numpy as np

from mixform.design import Relation
from mixform.errors import InferenceError
from mixform.estimate import Fit


def require_unrelated(fit: Fit, what: str, hint: str = "") -> None:
    """Refuse what takes levels as independent.

    Raises
    ------
    InferenceError : a random term has related levels; named
    """
    for block in fit.design.blocks:
        if block.relation is not None:
            raise InferenceError(
                f"{what} takes levels as independent, but those of "
                f"{block.term.group_label!r} are related.",
                hint=hint or "Fit the model without relationship= for it.",
            )


def same_relation(one: Relation | None, two: Relation | None) -> bool:
    """Whether two terms have the same known relationship of levels, or none."""
    if one is None or two is None or one is two:
        return one is two
    if not one.labels.equals(two.labels):
        return False
    # Equal times random vectors only if equal, almost surely.
    x = np.random.default_rng(0).standard_normal((len(one.labels), 2))
    here, there = one.times(x), two.times(x)
    return bool(np.abs(here - there).max() <= 1e-9 * np.abs(here).max())
