"""Square matrices of labelled members, as users give them."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pandas as pd
from scipy.sparse import csc_array

from mixform._typing import Matrix
from mixform.design.random import level_labels
from mixform.errors import DesignError

#: Asymmetry, relative to the largest entry, that counts as rounding.
SYMMETRIC = 1e-8


def square_matrix(matrix: object, labels: object, what: str) -> tuple[Matrix, pd.Index]:
    """Return a dense square matrix and its labels, columns in the order of rows."""
    names = None if labels is None else level_labels(pd.Index(cast("Any", labels)))
    if isinstance(matrix, pd.DataFrame):
        rows, columns = level_labels(matrix.index), level_labels(matrix.columns)
        if names is None:
            names = rows
            places = columns.get_indexer(rows) if columns.is_unique else None
            if places is None or len(rows) != len(columns) or np.any(places < 0):
                raise DesignError(
                    f"The rows and columns of the {what} do not have the same labels.",
                    hint="Give index and columns the names of the members.",
                )
            matrix = matrix.iloc[:, places]
    try:
        values = np.array(matrix, dtype=np.float64)
    except (TypeError, ValueError):
        raise DesignError(f"The {what} is not numeric.") from None
    names = checked_labels(names, values.shape)
    if not np.all(np.isfinite(values)):
        row = int(np.flatnonzero(~np.isfinite(values).all(axis=1))[0])
        raise DesignError(f"The {what} of {names[row]!r} has missing values.")
    return values, names


def checked_labels(names: pd.Index | None, shape: tuple[int, ...]) -> pd.Index:
    """Return the labels of a square matrix, one for each row."""
    if len(shape) != 2 or shape[0] != shape[1]:
        raise DesignError(f"A relationship of shape {shape} is not square.")
    if names is None:
        raise DesignError(
            "The relationship has no labels.",
            hint="Give labels=, or a frame with the members as index and columns.",
        )
    if len(names) != shape[0]:
        raise DesignError(f"{len(names)} labels for {shape[0]} members.")
    if names.has_duplicates:
        twice = names[names.duplicated()][0]
        raise DesignError(f"{twice!r} is a label of two members.")
    return names


def require_symmetric(Q: csc_array | Matrix, labels: pd.Index, what: str) -> None:
    """Refuse an asymmetric matrix, dense or sparse, and name its worst entry."""
    apart: Any = abs(Q - Q.T)
    largest = float(abs(Q).max()) if Q.size else 0.0
    if Q.size == 0 or float(apart.max()) <= SYMMETRIC * largest:
        return
    if isinstance(apart, np.ndarray):
        places = np.unravel_index(int(np.argmax(apart)), apart.shape)
        difference = float(apart[places])
    else:
        apart = apart.tocoo()
        at = int(np.argmax(apart.data))
        places, difference = (apart.row[at], apart.col[at]), float(apart.data[at])
    row, column = (labels[int(place)] for place in places)
    raise DesignError(
        f"The {what} is not symmetric: entries of {row!r} and {column!r} differ by "
        f"{difference:.4g}.",
        hint="Check how it was computed.",
    )
