"""Whether K beta is estimable, and why.

A row ell of K is estimable if and only if it is a combination of rows of X, so that
ell'beta is the expectation of a combination of observations (Searle 1971, Linear
Models). The answer shows such a combination; or else a change of beta that no
observation could tell, but which changes ell'beta.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from textwrap import wrap
from typing import Any

import numpy as np
import pandas as pd
from scipy.linalg import qr

from mixform._typing import Matrix, Vector
from mixform.design import ColumnSpace, Design
from mixform.design.model_matrix import variables_of

#: Distinct rows of X up to which a difference of two is looked for.
PAIRS = 2000

#: Coefficient of a combination, relative to the largest, that is rounding.
ROUNDING = 1e-9

#: Characters of a line.
WIDTH = 80

#: Rows of a combination that are written out.
WRITTEN = 12


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Estimability:
    """Which rows of K beta are estimable; true if all are.

    Attributes
    ----------
    table : for each row: estimable, and the reason in words
    combinations : for each row the coefficients of expectations of observations that
        it is, by description of the row; empty if it is not estimable
    """

    table: pd.DataFrame
    combinations: tuple[dict[str, float], ...]

    def __bool__(self) -> bool:
        return bool(self.table["estimable"].all())

    def __str__(self) -> str:
        lines: list[str] = []
        for label, possible, reason in self.table.itertuples():
            lines.append(f"{label}: {'' if possible else 'not '}estimable")
            lines += wrap(
                reason, WIDTH, initial_indent=" " * 4, subsequent_indent=" " * 4
            )
        return "\n".join(lines)

    __repr__ = __str__


def estimability(
    X: Matrix,
    space: ColumnSpace,
    L: Matrix,
    labels: tuple[str, ...],
    name_row: Callable[[int], str],
) -> Estimability:
    """Return which rows of L beta are estimable.

    Parameters
    ----------
    X : (n, c); space : its null space
    L : (r, c), with a label for each row
    name_row : describes row i of X
    """
    first = np.sort(np.unique(X, axis=0, return_index=True)[1])
    cells = X[first]
    possible = space.estimable(L)
    reasons: list[str] = []
    combinations: list[dict[str, float]] = []
    for ell, yes in zip(L, possible, strict=True):
        if not yes:
            reasons.append(space.reason(ell))
            combinations.append({})
            continue
        weights = _combination(cells, ell)
        used = np.flatnonzero(weights)
        found = {name_row(int(first[j])): float(weights[j]) for j in used}
        combinations.append(found)
        reasons.append(_written(found))
    table = pd.DataFrame({"estimable": possible, "reason": reasons}, index=list(labels))
    return Estimability(table=table, combinations=tuple(combinations))


def _combination(cells: Matrix, ell: Vector) -> Vector:
    """Return weights (m,) of the distinct rows of X (m, c), few of them, that make ell.

    One row, a difference of two, else a basic solution or that of least length.
    """
    m = len(cells)
    out = np.zeros(m)
    scale = float(np.abs(ell).max(initial=0.0))
    if scale == 0.0:
        return out
    near = 1e-9 * max(scale, float(np.abs(cells).max()))
    apart = np.abs(cells - ell).max(axis=1)
    if apart.min() <= near:
        out[apart.argmin()] = 1.0
        return out
    if m <= PAIRS:
        for j in range(m):
            apart = np.abs(cells - cells[j] - ell).max(axis=1)
            if apart.min() <= near:
                out[apart.argmin()], out[j] = 1.0, -1.0
                return out
    least = np.linalg.lstsq(cells.T, ell, rcond=None)[0]
    R, order = qr(cells.T, mode="r", pivoting=True)
    size = np.abs(np.diag(np.atleast_2d(R)))
    basis = np.sort(order[: int(np.sum(size > 1e-10 * size[0]))])
    basic = np.zeros(m)
    basic[basis] = np.linalg.lstsq(cells[basis].T, ell, rcond=None)[0]
    for weights in (least, basic):
        weights[np.abs(weights) < ROUNDING * np.abs(weights).max()] = 0.0
    return basic if np.count_nonzero(basic) < np.count_nonzero(least) else least


def _written(combination: dict[str, float]) -> str:
    if not combination:
        return "zero whatever the coefficients are"
    parts: list[str] = []
    ordered = sorted(combination.items(), key=lambda item: item[1] < 0.0)
    for name, weight in ordered[:WRITTEN]:
        size = "" if abs(abs(weight) - 1.0) < ROUNDING else f"{abs(weight):.6g} "
        sign = "-" if weight < 0.0 else "+"
        parts.append(f"{sign} {size}E(y | {name})")
    rest = len(combination) - WRITTEN
    text = " ".join(parts).removeprefix("+ ")
    return text + (f" + ... ({rest} more)" if rest > 0 else "")


def row_namer(design: Design) -> Callable[[int], str]:
    """Return a description of the rows of X: the values of the fixed variables."""
    names = variables_of(design.fixed.coded.spec.formula)
    columns = {name: design.columns[name] for name in names if name in design.columns}

    def describe(i: int) -> str:
        said = (f"{n} = {_value(s.iloc[i])}" for n, s in columns.items())
        return ", ".join(said) or f"row {design.row_index[i]}"

    return describe


def _value(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
