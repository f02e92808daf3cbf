"""Transformed responses: from the scale of the model back to that of the data."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mixform._typing import Vector
from mixform.errors import InferenceError, suggest
from mixform.formula import ModelFormula


@dataclass(frozen=True, slots=True)
class Transformation:
    """A monotone increasing function of the response.

    Attributes
    ----------
    inverse : back to the response; NaN or infinite outside the function's range
    slope : derivative of the inverse
    log_base : natural log of the base of a logarithm, else 0: differences are ratios
    smallest : of the function's values; limits below are taken to it
    """

    inverse: Callable[[Vector], Vector]
    slope: Callable[[Vector], Vector]
    log_base: float = 0.0
    smallest: float = -np.inf


def _slope_exp2(eta: Vector) -> Vector:
    return np.log(2.0) * np.exp2(eta)


def _exp10(eta: Vector) -> Vector:
    return np.power(10.0, eta)


def _slope_exp10(eta: Vector) -> Vector:
    return np.log(10.0) * _exp10(eta)


def _square(eta: Vector) -> Vector:
    return np.where(eta >= 0.0, eta, np.nan) ** 2


def _slope_square(eta: Vector) -> Vector:
    return 2.0 * np.where(eta >= 0.0, eta, np.nan)


def _log(eta: Vector) -> Vector:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log(eta)


def _slope_log(eta: Vector) -> Vector:
    return 1.0 / np.where(eta > 0.0, eta, np.nan)


#: Function of the response in the formula -> how it is undone.
TRANSFORMATIONS = {
    "log": Transformation(np.exp, np.exp, log_base=1.0),
    "log2": Transformation(np.exp2, _slope_exp2, log_base=float(np.log(2.0))),
    "log10": Transformation(_exp10, _slope_exp10, log_base=float(np.log(10.0))),
    "log1p": Transformation(np.expm1, np.exp),
    "sqrt": Transformation(_square, _slope_square, smallest=0.0),
    "exp": Transformation(_log, _slope_log, smallest=0.0),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseScale:
    """How the response of a formula was transformed.

    Attributes
    ----------
    name : of the function, a key of `TRANSFORMATIONS`
    shift : a constant that was added to the response first: 1 in ``log(y + 1)``
    text : the response as written
    """

    name: str
    shift: float
    text: str

    @property
    def transformation(self) -> Transformation:
        """The function and its inverse."""
        return TRANSFORMATIONS[self.name]

    @property
    def is_log(self) -> bool:
        """Whether differences are logarithms of ratios."""
        return self.transformation.log_base > 0.0

    def means(self, eta: Vector, se: Vector) -> tuple[Vector, Vector]:
        """Return means on the scale of the response, and their delta-method SE."""
        undo = self.transformation
        return undo.inverse(eta) - self.shift, undo.slope(eta) * se

    def limits(self, eta: Vector) -> Vector:
        """Return confidence limits on the scale of the response."""
        undo = self.transformation
        # Below its smallest value the function has no inverse; NaN stays NaN.
        return undo.inverse(np.maximum(eta, undo.smallest)) - self.shift

    def ratios(self, eta: Vector) -> Vector:
        """Return the ratios whose logarithms are given."""
        return np.exp(self.transformation.log_base * eta)


def response_scale(formula: ModelFormula, *, required: bool) -> ResponseScale | None:
    """Return how the response was transformed, None if it is a column as it is.

    Parameters
    ----------
    required : whether it must be undone; else None is returned if it cannot be

    Raises
    ------
    InferenceError : by a function whose inverse is not known
    """
    tree = _without_identity(ast.parse(formula.response.code.strip(), mode="eval").body)
    if isinstance(tree, ast.Name):
        return None
    text, name = formula.response.text, ""
    if isinstance(tree, ast.Call):
        name = re.sub(r"^np\.", "", ast.unparse(tree.func))
        if name in TRANSFORMATIONS:
            return ResponseScale(name=name, shift=_shift(tree.args[0]), text=text)
    if not required:
        return None
    raise InferenceError(
        f"The transformation of the response {text!r} cannot be undone.",
        hint=suggest(name, TRANSFORMATIONS, "Functions that can")
        + ' Or use type="link".',
    )


def _without_identity(tree: ast.expr) -> ast.expr:
    while (
        isinstance(tree, ast.Call)
        and isinstance(tree.func, ast.Name)
        and tree.func.id == "I"
    ):
        tree = tree.args[0]
    return tree


def _shift(inner: ast.expr) -> float:
    """Return c of ``y + c`` or ``y - c``; other expressions stay what they are."""
    inner = _without_identity(inner)
    if not isinstance(inner, ast.BinOp) or not isinstance(inner.op, ast.Add | ast.Sub):
        return 0.0
    sign = 1.0 if isinstance(inner.op, ast.Add) else -1.0
    left, right = inner.left, inner.right
    if isinstance(right, ast.Constant) and isinstance(right.value, int | float):
        return sign * float(right.value)
    if (
        sign > 0.0
        and isinstance(left, ast.Constant)
        and isinstance(left.value, int | float)
    ):
        return float(left.value)
    return 0.0
