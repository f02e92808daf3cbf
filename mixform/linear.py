"""`gls` and `estimable`: the general linear model of given matrices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mixform._typing import Matrix
from mixform.design import ColumnSpace, matrix_part
from mixform.errors import InferenceError
from mixform.inference.estimability import read_contrast
from mixform.inference.estimable import Estimability, estimability, row_namer
from mixform.inference.general_linear import as_matrix, solve_general_linear
from mixform.mme.matrix_level import column_names
from mixform.report.bootstrap import Printed
from mixform.report.general_linear import printed_general_linear
from mixform.result import BayesResult, LmList, Result
from mixform.result.second_stage import SecondStage


def gls(
    y: object,
    X: object,
    V: object = None,
    *,
    sigma2: float | None = None,
    solution: object = "set-to-zero",
) -> Printed:
    """Solve the general linear model of given matrices, ``y = X beta + e``.

    Parameters
    ----------
    y : (n,); X : (n, c) of any rank, an array, sparse matrix, or frame whose columns
        name the coefficients (else x1, x2, ...)
    V : Var(e) = sigma^2 V: None (ordinary least squares), a diagonal (weighted), or a
        matrix (n, n), dense or sparse (generalized)
    sigma2 : if it is known; 1 if V is Var(y) itself. None estimates RSS / (n - rank)
    solution : where X is not of full rank "set-to-zero" for columns that are
        combinations of earlier ones, "moore-penrose" (least length), or side
        conditions such as ``"x2 + x3 = 0"``

    Returns
    -------
    what prints as R's lm, with ``.params, .bse, .cov_params(), .estimable, .rss,
    .sigma2, .sigma2_ml, .rsquared, .rsquared_adj, .f_value, .p_value, .llf``,
    ``.estimate(K), .test(K, rhs), .blup(C), .pev(C, G)``

    Raises
    ------
    DesignError : shapes, values not finite, V not positive definite, side conditions
        that do not pick one solution

    Examples
    --------
    The pigs of a lecture, y = mu + delta_i: one solution, but the difference is 9.

    >>> X = [[1, 1, 0]] * 3 + [[1, 0, 1]] * 3
    >>> m = gls([53, 46, 58, 61, 66, 57], X)
    >>> m.params.round(3).tolist(), m.estimable.tolist()
    ([61.333, -9.0, 0.0], [False, False, False])
    >>> m.estimate([0, -1, 1])[0].round(9).tolist(), round(m.rss, 6)
    ([9.0], 113.333333)
    """
    record = solve_general_linear(y, X, V, sigma2=sigma2, solution=solution)
    return printed_general_linear(record)


def estimable(model: object, K: object = None) -> Estimability:
    """Tell which rows of K beta are estimable, and why.

    Parameters
    ----------
    model : what `fit`, `gls` or `MixedModelEquations.solve` returned, or X itself, a
        matrix or frame (n, c)
    K : matrix, mapping or string, as `Result.test` takes it; None for each
        coefficient by itself

    Returns
    -------
    true if all rows are; prints for each the expectations of observations that it is,
    or a change of beta that no observation tells but which changes it

    Examples
    --------
    >>> X = [[1, 1, 0], [1, 1, 0], [1, 0, 1]]
    >>> bool(estimable(X, "x2 - x3 = 0"))
    True
    >>> print(estimable(X, {"x2": 1}))
    contrast: not estimable
        adding -1 to x1 and 1 to x2, x3 leaves all fitted values as they are, but
        changes this function by 1
    """
    columns, space, name_row = _columns_of(model)
    if K is None:
        L, labels = np.eye(len(space.names)), space.names
    else:
        L, _, labels = read_contrast(K, 0, space.names)
    return estimability(columns, space, L, labels, name_row)


def _columns_of(model: Any) -> tuple[Matrix, ColumnSpace, Callable[[int], str]]:
    """Return X, what it determines, and how its rows are described."""
    if isinstance(model, Result | BayesResult):
        fixed = model.design.fixed
        return fixed.coded.values, fixed.space, row_namer(model.design)
    if hasattr(model, "space"):
        return as_matrix(model.X, "X"), model.space, _numbered
    if isinstance(model, LmList | SecondStage):
        raise InferenceError(
            f"A {type(model).__name__} is not one model with one X.",
            hint="Ask of its single_stage(), or of X.",
        )
    columns = as_matrix(model, "X")
    return columns, matrix_part(columns, column_names(model)).space, _numbered


def _numbered(i: int) -> str:
    return f"row {i + 1}"
