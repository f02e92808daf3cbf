"""Arithmetic on variance components, with exact derivatives.

STRING in; out come a value and its derivatives by the components. Every number carries
its derivatives along (forward differentiation).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable

import numpy as np

from mixform._typing import Vector
from mixform.errors import InferenceError, suggest
from mixform.inference.diagnostics.component_functions import (
    RESIDUAL,
    TERM_FUNCTIONS,
    Components,
    Dual,
    TermFunctions,
)

_FUNCTIONS: dict[str, Callable[[float], tuple[float, float]]] = {
    "sqrt": lambda x: (np.sqrt(x), 0.5 / np.sqrt(x)),
    "log": lambda x: (np.log(x), 1.0 / x),
    "exp": lambda x: (np.exp(x), np.exp(x)),
}
_QUOTED = re.compile(r"`([^`]*)`")


def evaluate(expression: object, components: Components) -> Dual:
    """Return the value of an expression and its derivatives by the components.

    Raises
    ------
    InferenceError : it is no arithmetic on components, or has no value

    Examples
    --------
    >>> both = Components(values={"a": 3.0, "Residual": 1.0}, columns={"a": ("x",)})
    >>> value, gradient = evaluate("a / (a + residual)", both)
    >>> value, [float(x) for x in gradient]  # 1/16 and -3/16
    (0.75, [0.0625, -0.1875])
    """
    return _Reader(components).read(expression)


class _Reader:
    """Walks over the syntax tree of an expression; nothing of it is executed."""

    def __init__(self, components: Components) -> None:
        values = components.values
        unit = np.eye(len(values))
        self.duals: dict[str, Dual] = {
            label: (float(value), row)
            for (label, value), row in zip(values.items(), unit, strict=True)
        }
        self.components = components
        self.columns = components.columns
        self.quoted: dict[str, str] = {}
        self.expression = ""

    def read(self, expression: object) -> Dual:
        if not isinstance(expression, str) or not expression.strip():
            raise InferenceError(
                f"The expression is {expression!r}, not arithmetic on components.",
                hint=f"Components: {', '.join(self.duals)}.",
            )
        self.expression = expression
        code = _QUOTED.sub(self._placeholder, expression).replace("^", "**")
        try:
            tree = ast.parse(code.strip(), mode="eval")
        except (SyntaxError, ValueError):
            raise InferenceError(
                f"{expression!r} cannot be read.",
                hint="Names that are no plain words stand in backticks, e.g. `a:b`.",
            ) from None
        with np.errstate(all="ignore"):
            value, gradient = self._visit(tree.body)
        if not np.isfinite(value):
            raise InferenceError(f"{expression!r} has no value at the estimates.")
        return value, gradient

    def _placeholder(self, match: re.Match[str]) -> str:
        name = f"_quoted_{len(self.quoted)}_"
        self.quoted[name] = match[1]
        return name

    def _visit(self, node: ast.AST) -> Dual:
        if isinstance(node, ast.Constant) and not isinstance(node.value, bool):
            if not isinstance(node.value, int | float):
                raise self._foreign(node)
            return float(node.value), np.zeros(len(self.duals))
        if isinstance(node, ast.Name | ast.Subscript):
            return self._component(node)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
            value, gradient = self._visit(node.operand)
            sign = -1.0 if isinstance(node.op, ast.USub) else 1.0
            return sign * value, sign * gradient
        if isinstance(node, ast.BinOp):
            return self._binary(node)
        if isinstance(node, ast.Call):
            return self._call(node)
        raise self._foreign(node)

    def _foreign(self, node: ast.AST) -> InferenceError:
        return InferenceError(
            f"{self._text(node)} in {self.expression!r} is not arithmetic.",
            hint="Use + - * / **, brackets, sqrt, log, exp, var, cov, cor, total, "
            f"numbers and components: {', '.join(self.duals)}.",
        )

    def _text(self, node: ast.AST) -> str:
        text = ast.unparse(node)
        for name, quoted in self.quoted.items():
            text = text.replace(name, f"`{quoted}`")
        return text

    def _call(self, node: ast.Call) -> Dual:
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name in TERM_FUNCTIONS:
            return self._term_function(name, node)
        if name not in _FUNCTIONS or len(node.args) != 1 or node.keywords:
            raise self._foreign(node)
        value, gradient = self._visit(node.args[0])
        if (name == "sqrt" and value < 0.0) or (name == "log" and value <= 0.0):
            raise InferenceError(
                f"{self._text(node)} in {self.expression!r} has no value: its argument "
                f"is {value:.4g}."
            )
        out, slope = _FUNCTIONS[name](np.float64(value))
        return float(out), _chain(slope, gradient)

    def _binary(self, node: ast.BinOp) -> Dual:
        (a, da), (b, db) = self._visit(node.left), self._visit(node.right)
        match node.op:
            case ast.Add():
                return a + b, da + db
            case ast.Sub():
                return a - b, da - db
            case ast.Mult():
                return a * b, b * da + a * db
            case ast.Div():
                if b == 0.0:
                    raise InferenceError(
                        f"{self._text(node)} in {self.expression!r} divides by zero."
                    )
                return a / b, da / b - a / b**2 * db
            case ast.Pow():
                return self._power(node, (a, da), (b, db))
            case _:
                raise self._foreign(node)

    def _power(self, node: ast.BinOp, base: Dual, exponent: Dual) -> Dual:
        (a, da), (b, db) = base, exponent
        value = np.float64(a) ** b
        if not np.isfinite(value):
            raise InferenceError(
                f"{self._text(node)} in {self.expression!r} has no value: the base is "
                f"{a:.4g}."
            )
        by_base = b * np.float64(a) ** (b - 1.0) if b != 0.0 else 0.0
        by_exponent = value * np.log(np.float64(a)) if np.any(db) else 0.0
        return float(value), _chain(by_base, da) + _chain(by_exponent, db)

    def _component(self, node: ast.Name | ast.Subscript) -> Dual:
        if isinstance(node, ast.Name):
            return self._whole(self._name(node))
        group = self._term(self._name(node.value))
        inner = node.slice
        parts = inner.elts if isinstance(inner, ast.Tuple) else [inner]
        names = [self._name(part) for part in parts]
        if group not in self.columns:
            raise self._unknown(group)
        columns = self.columns[group]
        for name in names:
            if name not in columns:
                raise InferenceError(
                    f"{group!r} has no random coefficient {name!r}.",
                    hint=suggest(name, columns, "Coefficients"),
                )
        if len(columns) == 1 and len(names) == 1:
            return self.duals[group]
        order = sorted(dict.fromkeys(names), key=columns.index)
        label = f"{group}[{', '.join(order)}]"
        if len(names) > 2 or label not in self.duals:
            raise InferenceError(
                f"{self._text(node)} is no component of the model.",
                hint=f"Components: {', '.join(self.duals)}.",
            )
        return self.duals[label]

    def _term(self, name: str) -> str:
        """Return the label that a name means: the residual may have any capitals."""
        known = name in self.duals or name in self.columns
        return RESIDUAL if not known and name.lower() == RESIDUAL.lower() else name

    def _whole(self, name: str) -> Dual:
        name = self._term(name)
        if name in self.duals:
            return self.duals[name]
        if name in self.columns:
            first = next(label for label in self.duals if label.startswith(f"{name}["))
            raise InferenceError(
                f"{name!r} has {len(self.columns[name])} random coefficients, so no "
                "variance of its own.",
                hint=f"Write {first}, or the variance of another coefficient.",
            )
        raise self._unknown(name)

    def _term_function(self, name: str, node: ast.Call) -> Dual:
        """Return var, cov or cor of one term, or the total of all, at some values."""
        values = {self._keyword(k): self._values(k.value) for k in node.keywords}
        if len(node.args) != (name != "total"):
            raise self._foreign(node)
        terms = TermFunctions(self.components, self.duals, self._text(node))
        if name == "total":
            return terms.total(values)
        label = self._term(self._name(node.args[0]))
        if label not in self.columns and label not in self.duals:
            raise self._unknown(label)
        return terms.of_term(name, label, values)

    def _keyword(self, keyword: ast.keyword) -> str:
        name = keyword.arg or "**"
        return self.quoted.get(name, name)

    def _values(self, node: ast.AST) -> object:
        """Return a number, a level, or a pair of them."""
        if isinstance(node, ast.Tuple) and len(node.elts) == 2:
            return tuple(self._values(part) for part in node.elts)
        if isinstance(node, ast.Constant) and isinstance(node.value, str | int | float):
            return node.value
        if isinstance(node, ast.Name):
            return self.quoted.get(node.id, node.id)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            value = self._values(node.operand)
            if isinstance(value, int | float):
                return -value
        raise InferenceError(
            f"{self._text(node)} in {self.expression!r} is no value of a variable.",
            hint='Write a number, a level "a", or a pair of them, (1, 2).',
        )

    def _unknown(self, name: str) -> InferenceError:
        return InferenceError(
            f"There is no variance component {name!r}.",
            hint=suggest(name, self.duals, "Components"),
        )

    def _name(self, node: ast.AST) -> str:
        if not isinstance(node, ast.Name):
            if isinstance(node, ast.Constant):
                return str(node.value)
            return self._text(node)
        return self.quoted.get(node.id, node.id)


def _chain(slope: float, gradient: Vector) -> Vector:
    """Return slope * gradient; zero where the gradient is, at infinite slope too."""
    return np.where(gradient == 0.0, 0.0, slope * gradient)
