"""One of the many solutions of least squares where X is not of full rank.

All solutions are beta + N z, N the null space of X. Side conditions S beta = 0 pick
T beta with T = I - N (S N)^-1 S, and the generalized inverse T G T' of X'V^-1X, G any
(Searle 1971, Linear Models). S = N' gives the solution of least length, and the
Moore-Penrose inverse.
"""

from __future__ import annotations

import numpy as np

from mixform._typing import Matrix, Vector
from mixform.design import ColumnSpace
from mixform.errors import DesignError, InferenceError, suggest
from mixform.inference.estimability import read_contrast

SOLUTIONS = ("set-to-zero", "moore-penrose")


def side_conditions(space: ColumnSpace, given: object) -> tuple[Matrix, str]:
    """Return T (c, c) that takes any solution to the one chosen, and its description.

    Raises
    ------
    DesignError : unknown name; side conditions that leave several solutions, or that
        concern estimable functions and so restrict the model
    """
    c, a, N = len(space.names), len(space.aliased), space.null_space
    if isinstance(given, str) and given in SOLUTIONS:
        S = np.eye(c)[list(space.aliased)] if given == SOLUTIONS[0] else N.T
        zero = ", ".join(space.names[j] for j in space.aliased)
        how = f"that with {zero} = 0" if a else "unique"
        if given == SOLUTIONS[1]:
            how = "the one of least length"
        return np.eye(c) - N @ np.linalg.solve(S @ N, S), how
    unknown = isinstance(given, str) and "=" not in given and given not in space.names
    if unknown or given is None:
        raise DesignError(
            f"Unknown solution {given!r}.",
            hint=suggest(str(given), SOLUTIONS, "Choices")
            + " Or side conditions such as 'a + b = 0'.",
        )
    try:
        S, rhs, _ = read_contrast(given, 0, space.names)
    except InferenceError as failure:
        raise DesignError(failure.message, hint=failure.hint) from None
    if np.any(rhs != 0.0):
        raise DesignError("Side conditions are equal to zero.")
    SN = S @ N
    size = np.abs(S).max(initial=0.0) * np.abs(N).max(initial=0.0)
    if np.linalg.matrix_rank(SN, tol=1e-8 * size) < a:
        raise DesignError(
            f"The side conditions leave more than one solution: X leaves {a} "
            f"direction{'s' if a > 1 else ''} undetermined, and it takes {a} on them.",
            hint="Give one for each column that is a combination of others: "
            f"{', '.join(space.names[j] for j in space.aliased)}.",
        )
    T = np.eye(c) - N @ np.linalg.lstsq(SN, S, rcond=None)[0]
    if np.abs(S @ T).max(initial=0.0) > 1e-8 * np.abs(S).max(initial=1.0):
        raise DesignError(
            "The side conditions restrict an estimable function: that is another "
            "model, not another solution.",
            hint="Leave out those on functions that the data determine.",
        )
    return T, "that with " + ", ".join(_equation(row, space.names) for row in S)


def _equation(row: Vector, names: tuple[str, ...]) -> str:
    parts: list[str] = []
    for j in np.flatnonzero(row):
        size = "" if abs(row[j]) == 1.0 else f"{abs(row[j]):.6g} "
        parts.append(f"{'-' if row[j] < 0.0 else '+'} {size}{names[j]}")
    return f"{' '.join(parts).removeprefix('+ ')} = 0"
