"""Contrasts as users write them, and whether they are estimable.

L has one column for each column of X, aliased ones included.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import pandas as pd
from formulaic.errors import FormulaParsingError, FormulaSyntaxError
from formulaic.utils.constraints import LinearConstraints
from scipy.sparse import issparse

from mixform._typing import Matrix, Vector
from mixform.design import FixedPart
from mixform.errors import InferenceError, suggest


def read_contrast(
    L: object, rhs: object, names: Sequence[str]
) -> tuple[Matrix, Vector, tuple[str, ...]]:
    """Return L (r, c), rhs (r,) and a label for each row.

    Parameters
    ----------
    L : matrix or vector over the columns of X; a mapping of coefficient names to
        numbers, or of labels to such mappings; or a string of equations such as
        ``"trt[T.b] - trt[T.c] = 0"``, several joined by commas
    rhs : value, or (r,) values, of L beta under the hypothesis
    names : the c coefficient names

    Raises
    ------
    InferenceError : unknown coefficient, wrong width, unreadable equation
    """
    if isinstance(L, list | tuple) and all(isinstance(row, str) for row in L):
        L = ", ".join(cast("list[str]", L))
    if isinstance(L, str):
        matrix, right, labels = _read_equations(L, names)
        if np.any(np.asarray(rhs) != 0.0):
            raise InferenceError("Give the right-hand side in the string, not as rhs=.")
    else:
        matrix, labels = _read_matrix(L, names)
        right = _as_floats(rhs, "rhs")
    _require_shape(matrix, names)
    if right.shape not in {(), (1,), (len(matrix),)} or not np.all(np.isfinite(right)):
        raise InferenceError(
            f"rhs must be a finite number, or {len(matrix)} of them, one for each row."
        )
    return matrix, np.broadcast_to(right, len(matrix)).copy(), labels


def _require_shape(matrix: Matrix, names: Sequence[str]) -> None:
    """Refuse no rows, another width, and values that are not finite."""
    if not len(matrix):
        raise InferenceError(
            "L has no rows.",
            hint="Give one for each function of the coefficients.",
        )
    if matrix.ndim != 2:
        raise InferenceError(f"L has shape {matrix.shape}, not (r, {len(names)}).")
    if matrix.shape[1] != len(names):
        raise InferenceError(
            f"L has {matrix.shape[1]} columns, the model has {len(names)} "
            "coefficients.",
            hint=f"The coefficients are {', '.join(names)}.",
        )
    if not np.all(np.isfinite(matrix)):
        raise InferenceError("L holds values that are not finite.")


def _read_matrix(L: Any, names: Sequence[str]) -> tuple[Matrix, tuple[str, ...]]:
    if isinstance(L, pd.Series):
        L = L.to_dict()
    if isinstance(L, pd.DataFrame):
        rows = cast("list[dict[str, Any]]", [row.to_dict() for _, row in L.iterrows()])
        return _read_rows(rows, names), tuple(map(str, L.index))
    if isinstance(L, Mapping):
        return _read_mapping(cast("Mapping[str, Any]", L), names)
    dense = cast("Any", L).toarray() if issparse(L) else L
    matrix = np.atleast_2d(_as_floats(dense, "L"))
    return matrix, tuple(f"row {i + 1}" for i in range(len(matrix)))


def _as_floats(values: object, what: str) -> Matrix:
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise InferenceError(
            f"{what} is not numeric.",
            hint="Give numbers, a mapping of coefficient names to numbers, or a string "
            "of equations.",
        ) from None


def _read_mapping(
    L: Mapping[str, Any], names: Sequence[str]
) -> tuple[Matrix, tuple[str, ...]]:
    nested = all(isinstance(value, Mapping) for value in L.values())
    rows = L if nested else {"contrast": L}
    return _read_rows(list(rows.values()), names), tuple(str(label) for label in rows)


def _read_rows(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Matrix:
    matrix = np.zeros((len(rows), len(names)))
    for i, row in enumerate(rows):
        for name, value in row.items():
            if name not in names:
                raise InferenceError(
                    f"There is no coefficient {name!r}.",
                    hint=suggest(str(name), names, "Coefficients"),
                )
            number = _as_floats(value, f"The number of {name!r}")
            if number.ndim:
                raise InferenceError(f"{name!r} has {value!r}, not one number.")
            matrix[i, list(names).index(name)] = number
    return matrix


def _read_equations(
    text: str, names: Sequence[str]
) -> tuple[Matrix, Vector, tuple[str, ...]]:
    # Names such as trt[T.b]:x get plain ones for formulaic's parser, longest first.
    known = sorted(names, key=len, reverse=True)
    pattern = "|".join(re.escape(name) for name in known)
    plain = {name: f"_coefficient_{i}_" for i, name in enumerate(names)}
    found = re.compile(rf"`({pattern})`|(?<![\w`\])])({pattern})(?![\w`\[(])")
    hidden = found.sub(lambda match: plain[match[1] or match[2]], text)
    try:
        constraints = LinearConstraints.from_spec(
            hidden, variable_names=list(plain.values())
        )
    except (FormulaParsingError, FormulaSyntaxError, ValueError, KeyError) as failure:
        raise InferenceError(
            f"The contrast {text!r} cannot be read.",
            hint="Write coefficients with + - * and numbers, e.g. 'a - 2 * b = 0'. "
            + suggest(text, names, "Coefficients"),
        ) from failure
    matrix = np.atleast_2d(np.asarray(constraints.constraint_matrix, dtype=np.float64))
    right = np.atleast_1d(np.asarray(constraints.constraint_values, dtype=np.float64))
    labels = tuple(part.strip() for part in text.split(","))
    if len(labels) != len(matrix):
        labels = tuple(f"row {i + 1}" for i in range(len(matrix)))
    return matrix, right, labels


def require_estimable(
    L: Matrix, fixed: FixedPart, labels: Sequence[str] | None = None
) -> Matrix:
    """Return the columns of L that are estimated, (r, p), once it is estimable.

    Raises
    ------
    InferenceError : a row is not estimable; says what changes it
    """
    return fixed.space.require_estimable(L, labels)
