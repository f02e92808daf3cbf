"""Contrasts among a set of means, by name.

A method is a function of the number of means, and one line in `METHODS`; the names and
the default adjustments are those of R's emmeans (Lenth).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import gcd, lcm
from typing import Any, cast

import numpy as np

from mixform._typing import Matrix
from mixform.errors import InferenceError, suggest

#: A rule: displayed labels of m means and the position of the control -> labels of the
#: contrasts and their coefficients, (q, m). {} stands for the sign between labels.
Rule = Callable[[Sequence[str], int], tuple[list[str], Matrix]]
DEGREES = ("linear", "quadratic", "cubic", "quartic", "degree 5", "degree 6")


def _differences(m: int, pairs: Sequence[tuple[int, int]]) -> Matrix:
    C = np.zeros((len(pairs), m))
    for row, (plus, minus) in enumerate(pairs):
        C[row, plus], C[row, minus] = 1.0, -1.0
    return C


def _of_pairs(
    labels: Sequence[str], pairs: Sequence[tuple[int, int]]
) -> tuple[list[str], Matrix]:
    names = [f"{labels[plus]} {{}} {labels[minus]}" for plus, minus in pairs]
    return names, _differences(len(labels), pairs)


def _pairwise(labels: Sequence[str], ref: int) -> tuple[list[str], Matrix]:
    m = len(labels)
    return _of_pairs(labels, [(i, j) for i in range(m) for j in range(i + 1, m)])


def _revpairwise(labels: Sequence[str], ref: int) -> tuple[list[str], Matrix]:
    m = len(labels)
    return _of_pairs(labels, [(i, j) for i in range(m) for j in range(i)])


def _control(labels: Sequence[str], ref: int) -> tuple[list[str], Matrix]:
    return _of_pairs(labels, [(i, ref) for i in range(len(labels)) if i != ref])


def _consecutive(labels: Sequence[str], ref: int) -> tuple[list[str], Matrix]:
    return _of_pairs(labels, [(i, i - 1) for i in range(1, len(labels))])


def _effect(labels: Sequence[str], ref: int) -> tuple[list[str], Matrix]:
    m = len(labels)
    return [f"{label} effect" for label in labels], np.eye(m) - 1.0 / m


def _deleted_effect(labels: Sequence[str], ref: int) -> tuple[list[str], Matrix]:
    m = len(labels)
    names, C = _effect(labels, ref)
    return names, C * (m / (m - 1.0)) if m > 1 else C


def _mean_change(labels: Sequence[str], ref: int) -> tuple[list[str], Matrix]:
    m = len(labels)
    C = np.zeros((m - 1, m))
    for i in range(1, m):
        C[i - 1, :i], C[i - 1, i:] = -1.0 / i, 1.0 / (m - i)
    return [f"{labels[i - 1]}|{labels[i]}" for i in range(1, m)], C


def _polynomial(labels: Sequence[str], ref: int) -> tuple[list[str], Matrix]:
    m = len(labels)
    rows = orthogonal_polynomials(m, min(m - 1, len(DEGREES)))
    C = np.array(rows, dtype=np.float64).reshape(len(rows), m)
    return list(DEGREES[: len(rows)]), C


def orthogonal_polynomials(m: int, degree: int) -> list[list[int]]:
    """Return orthogonal polynomials over 1, ..., m in lowest integers.

    Examples
    --------
    >>> orthogonal_polynomials(4, 3)
    [[-3, -1, 1, 3], [1, -1, -1, 1], [-1, 3, -3, 1]]
    """
    basis = [[Fraction(1)] * m]
    for d in range(1, degree + 1):
        row = [Fraction(i) ** d for i in range(m)]
        for other in basis:
            product = sum((a * b for a, b in zip(row, other, strict=True)), Fraction(0))
            size = sum((b * b for b in other), Fraction(0))
            row = [a - product / size * b for a, b in zip(row, other, strict=True)]
        basis.append(row)
    out: list[list[int]] = []
    for row in basis[1:]:
        scale = lcm(*(value.denominator for value in row))
        whole = [int(value * scale) for value in row]
        divisor = gcd(*whole)
        out.append([value // divisor for value in whole])
    return out


@dataclass(frozen=True, slots=True)
class ContrastMethod:
    """A named set of contrasts.

    Attributes
    ----------
    rule : how it is made
    adjust : the default adjustment
    pairwise : whether it is all differences of pairs
    has_control : whether others are compared with one mean
    """

    rule: Rule
    adjust: str
    pairwise: bool = False
    has_control: bool = False


METHODS = {
    "pairwise": ContrastMethod(_pairwise, "tukey", pairwise=True),
    "revpairwise": ContrastMethod(_revpairwise, "tukey", pairwise=True),
    "trt.vs.ctrl": ContrastMethod(_control, "dunnett", has_control=True),
    "consec": ContrastMethod(_consecutive, "dunnett"),
    "poly": ContrastMethod(_polynomial, "none"),
    "eff": ContrastMethod(_effect, "fdr"),
    "del.eff": ContrastMethod(_deleted_effect, "fdr"),
    "mean_chg": ContrastMethod(_mean_change, "dunnett"),
}
ALIASES = {
    "tukey": "pairwise",
    "treatment-control": "trt.vs.ctrl",
    "trt.vs.ctrl1": "trt.vs.ctrl",
    "dunnett": "trt.vs.ctrl",
    "consecutive": "consec",
    "polynomial": "poly",
    "effect": "eff",
    "effects": "eff",
    "mean_change": "mean_chg",
}


def read_method(method: object) -> ContrastMethod | None:
    """Return the method of this name; None if it is custom coefficients.

    Raises
    ------
    InferenceError : unknown name
    """
    if not isinstance(method, str):
        return None
    name = ALIASES.get(method.lower(), method.lower())
    if name not in METHODS:
        raise InferenceError(
            f"Unknown contrast method {method!r}.",
            hint=suggest(name, [*METHODS, *ALIASES], "Methods"),
        )
    return METHODS[name]


def custom_contrasts(
    method: object, levels: Sequence[tuple[Any, ...]], labels: Sequence[str]
) -> tuple[list[str], Matrix]:
    """Return the labels and the coefficients, (q, m), of a user's contrasts.

    Parameters
    ----------
    method : a matrix (q, m) or vector; a mapping of m levels to numbers; or a mapping
        of labels to vectors or to such mappings
    levels : the m combinations of levels, as tuples
    labels : how they are displayed

    Raises
    ------
    InferenceError : wrong number of coefficients, or an unknown level
    """
    if isinstance(method, Mapping):
        given = cast("Mapping[Any, Any]", method)
        if not given:
            raise InferenceError("The contrast has no coefficients.")
        single = all(np.isscalar(value) for value in given.values())
        rows = {"contrast": given} if single else given
        names = [str(name) for name in rows]
        return names, np.array([_row(row, levels, labels) for row in rows.values()])
    try:
        C = np.atleast_2d(np.asarray(method, dtype=np.float64))
    except (TypeError, ValueError):
        raise InferenceError(
            "The contrast is not numeric.",
            hint=f"Give {len(labels)} coefficients, or one of {', '.join(METHODS)}.",
        ) from None
    names = [f"contrast {i + 1}" for i in range(len(C))]
    return names, np.array([_row(row, levels, labels) for row in C])


def _row(
    row: Any, levels: Sequence[tuple[Any, ...]], labels: Sequence[str]
) -> list[float]:
    if isinstance(row, Mapping):
        values = [0.0] * len(levels)
        for level, value in cast("Mapping[Any, Any]", row).items():
            values[find_level(level, levels, labels)] = value
    else:
        values = list(np.atleast_1d(row))
    if len(values) != len(levels):
        raise InferenceError(
            f"A contrast has {len(values)} coefficients, but there are {len(levels)} "
            "means.",
            hint=f"The means are {', '.join(labels)}.",
        )
    try:
        numbers = [float(value) for value in values]
    except (TypeError, ValueError):
        numbers = [np.nan]
    if not np.all(np.isfinite(numbers)):
        raise InferenceError("The coefficients of a contrast must be finite numbers.")
    return numbers


def find_level(
    level: object, levels: Sequence[tuple[Any, ...]], labels: Sequence[str]
) -> int:
    """Return the position of a level, given as such, as a tuple, or as displayed.

    Raises
    ------
    InferenceError : there is no such level
    """
    wanted = level if isinstance(level, tuple) else (level,)
    text = tuple(str(part) for part in cast("tuple[Any, ...]", wanted))
    for i, known in enumerate(levels):
        joined = tuple(str(part) for part in known)
        if text == joined or text == (" ".join(joined),) or text == (labels[i],):
            return i
    raise InferenceError(
        f"There is no mean for the level {level!r}.",
        hint=suggest(str(level), [" ".join(map(str, k)) for k in levels], "Levels"),
    )
