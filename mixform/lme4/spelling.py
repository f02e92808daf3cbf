"""Formulas in R's spelling.

Goes in: the expression of one factor as formulaic holds it, which is Python. Comes out:
the R expression of the same values. What has no counterpart in R is refused, never
passed on in the hope that it means the same.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mixform.errors import InferenceError
from mixform.formula import readable

#: Functions of one argument or more that have the same name and meaning in R.
SAME = frozenset(
    {"log", "log10", "log2", "log1p", "expm1", "exp", "sqrt", "abs", "round"}
    | {"sin", "cos", "tan", "tanh"}
)
OPERATORS: dict[type[ast.AST], str] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.Pow: "^",
    ast.Mod: "%%",
    ast.FloorDiv: "%/%",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.USub: "-",
    ast.UAdd: "+",
    ast.Not: "!",
}
CONTRASTS = frozenset({"treatment", "sum", "helmert", "poly"})
_WORD = re.compile(r"(?:[A-Za-z]|\.(?![0-9]))[A-Za-z0-9._]*")
_RESERVED = frozenset(
    {"if", "else", "repeat", "while", "function", "for", "in", "next", "break"}
    | {"TRUE", "FALSE", "NULL", "Inf", "NaN", "NA", "NA_integer_", "NA_real_"}
    | {"NA_character_"}
)


def r_string(text: str) -> str:
    r"""Return a string as R writes it, in ASCII.

    Examples
    --------
    >>> print(r_string('a "b" \u00e9'))
    "a \"b\" \u00e9"
    """
    return f'"{_escaped(text, chr(34))}"'


def r_column(name: str) -> str:
    r"""Return the name of a column as R knows it: in ASCII, as R's locale may be.

    Examples
    --------
    >>> r_column("gr\u00f6\u00dfe")
    'gr.u00f6.u00dfe'
    """
    return "".join(c if " " <= c <= "~" else f".u{ord(c):04x}" for c in name)


def r_name(name: str) -> str:
    """Return a column as formulas name it, in backticks if R needs them.

    Examples
    --------
    >>> r_name("body.mass"), r_name("body mass"), r_name("if")
    ('body.mass', '`body mass`', '`if`')
    """
    column = r_column(name)
    if _WORD.fullmatch(column) and column not in _RESERVED:
        return column
    return f"`{_escaped(column, '`')}`"


def r_numbers(values: Sequence[float]) -> str:
    """Return numbers as an R vector, in full precision."""
    return f"c({', '.join(repr(float(value)) for value in values)})"


def r_matrix(values: np.ndarray) -> str:
    """Return a matrix as R reads it, by columns."""
    entries = r_numbers(values.ravel(order="F").tolist())
    return f"matrix({entries}, nrow = {values.shape[0]})"


def _escaped(text: str, quote: str) -> str:
    out: list[str] = []
    for sign in text:
        if sign in (quote, "\\"):
            out.append(f"\\{sign}")
        elif " " <= sign <= "~":
            out.append(sign)
        else:
            code = ord(sign)
            out.append(f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}")
    return "".join(out)


@dataclass(frozen=True, slots=True, kw_only=True)
class Speller:
    """Writes factors of a formula in R.

    Attributes
    ----------
    factors : names of the columns that are factors in the data
    contrasts : R expression of the contrasts asked for, by column
    """

    factors: frozenset[str]
    contrasts: Mapping[str, str]

    def factor(self, expression: str, kind: str) -> str:
        """Return one factor of a term.

        Parameters
        ----------
        expression : of formulaic
        kind : formulaic's method: "literal", "lookup" (a column) or "python"

        Raises
        ------
        InferenceError : it has no counterpart in R
        """
        if kind == "lookup":
            return r_name(readable(expression))
        if kind == "literal":
            return expression
        node = ast.parse(expression, mode="eval").body
        text = self._spell(node)
        if isinstance(node, ast.Call | ast.Name):
            return text
        return f"I({text})"

    def _spell(self, node: ast.expr) -> str:
        writer = _WRITERS.get(type(node))
        if writer is None:
            raise _refuse(ast.unparse(node))
        return writer(self, node)

    def _name(self, node: ast.Name) -> str:
        return r_name(readable(node.id))

    def _constant(self, node: ast.Constant) -> str:
        value = node.value
        if isinstance(value, bool):
            return "TRUE" if value else "FALSE"
        if isinstance(value, int | float):
            return repr(value)
        if isinstance(value, str):
            return r_string(value)
        raise _refuse(ast.unparse(node))

    def _unary(self, node: ast.UnaryOp) -> str:
        return f"{_operator(node.op, node)}{self._inner(node.operand)}"

    def _binary(self, node: ast.BinOp) -> str:
        left, right = self._inner(node.left), self._inner(node.right)
        sign = _operator(node.op, node)
        return f"{left}^{right}" if sign == "^" else f"{left} {sign} {right}"

    def _compare(self, node: ast.Compare) -> str:
        if len(node.ops) > 1:
            raise _refuse(ast.unparse(node))
        left, right = self._inner(node.left), self._inner(node.comparators[0])
        return f"{left} {_operator(node.ops[0], node)} {right}"

    def _inner(self, node: ast.expr) -> str:
        """Return an operand, in brackets if it is an operation itself."""
        text = self._spell(node)
        simple = isinstance(node, ast.Name | ast.Constant | ast.Call)
        return text if simple else f"({text})"

    def _sequence(self, node: ast.List | ast.Tuple) -> str:
        return f"c({', '.join(self._spell(entry) for entry in node.elts)})"

    def _call(self, node: ast.Call) -> str:
        name = ast.unparse(node.func).removeprefix("np.")
        if name in SAME and not node.keywords:
            return f"{name}({', '.join(self._spell(value) for value in node.args)})"
        writer = _CALLS.get(name)
        if writer is None or not node.args:
            raise _refuse(ast.unparse(node))
        return writer(self, node)

    def _protected(self, node: ast.Call) -> str:
        return f"I({self._only(node)})"

    def _only(self, node: ast.Call) -> str:
        """Return the one argument of a call."""
        if len(node.args) != 1 or node.keywords:
            raise _refuse(ast.unparse(node))
        return self._spell(node.args[0])

    def _made_factor(self, node: ast.Call) -> str:
        """Return C(x): in R a factor, with its contrasts if any are named."""
        given = [*node.args[1:], *(k.value for k in node.keywords)]
        named_else = any(k.arg != "contrasts" for k in node.keywords)
        if len(given) > 1 or named_else:
            raise _refuse(ast.unparse(node))
        name = readable(ast.unparse(node.args[0]))
        column = self._spell(node.args[0])
        text = column if name in self.factors else f"factor({column})"
        if given:
            return f"C({text}, {self._contrast(given[0], node)})"
        if name in self.contrasts and name not in self.factors:
            return f"C({text}, {self.contrasts[name]})"
        return text

    def _contrast(self, given: ast.expr, node: ast.Call) -> str:
        if isinstance(given, ast.Call) and not given.args and not given.keywords:
            given = given.func  # contr.sum() as contr.sum
        name = ast.unparse(given).removeprefix("contr.")
        if name not in CONTRASTS:
            raise _refuse(ast.unparse(node))
        return f"contr.{name}"

    def _as_numeric(self, node: ast.Call) -> str:
        text = self._only(node)
        is_factor = readable(ast.unparse(node.args[0])) in self.factors
        return f"as.numeric(as.character({text}))" if is_factor else text

    def _center(self, node: ast.Call) -> str:
        text = self._only(node)
        return f"I({text} - mean({text}))"

    def _scale(self, node: ast.Call) -> str:
        text = self._only(node)
        return f"I(({text} - mean({text})) / sd({text}))"

    def _poly(self, node: ast.Call) -> str:
        given = self._arguments(node, ("x", "degree", "raw"))
        options = {"degree": given.get("degree", "1")}
        options |= {"raw": given["raw"]} if "raw" in given else {}
        return _called("poly", given["x"], options)

    def _bs(self, node: ast.Call) -> str:
        names = ("x", "df", "knots", "degree", "include_intercept")
        bounds = ("lower_bound", "upper_bound")
        given = self._arguments(node, (*names, *bounds))
        options = {n: given[n] for n in ("df", "knots", "degree") if n in given}
        if "include_intercept" in given:
            options["intercept"] = given["include_intercept"]
        if any(name in given for name in bounds):
            low, high = (
                given.get(n, f"{f}({given['x']})")
                for n, f in zip(bounds, ("min", "max"), strict=True)
            )
            options["Boundary.knots"] = f"c({low}, {high})"
        return _called("splines::bs", given["x"], options)

    def _arguments(self, node: ast.Call, names: tuple[str, ...]) -> dict[str, str]:
        """Return the arguments of a call by name, None left out."""
        if len(node.args) > len(names):
            raise _refuse(ast.unparse(node))
        given = dict(zip(names, node.args, strict=False))
        for keyword in node.keywords:
            if keyword.arg not in names:
                raise _refuse(ast.unparse(node))
            given[keyword.arg] = keyword.value
        return {
            name: self._spell(value)
            for name, value in given.items()
            if not (isinstance(value, ast.Constant) and value.value is None)
        }


def _called(function: str, first: str, options: Mapping[str, str]) -> str:
    rest = "".join(f", {name} = {value}" for name, value in options.items())
    return f"{function}({first}{rest})"


def _operator(sign: ast.AST, node: ast.expr) -> str:
    if type(sign) not in OPERATORS:
        raise _refuse(ast.unparse(node))
    return OPERATORS[type(sign)]


def _refuse(expression: str) -> InferenceError:
    text = readable(expression)
    return InferenceError(
        f"{text!r} in the formula cannot be written in R.",
        hint="Compute the column in the data first, and name it in the formula.",
    )


_WRITERS: dict[type[ast.expr], Callable[..., str]] = {
    ast.Name: Speller._name,
    ast.Constant: Speller._constant,
    ast.UnaryOp: Speller._unary,
    ast.BinOp: Speller._binary,
    ast.Compare: Speller._compare,
    ast.List: Speller._sequence,
    ast.Tuple: Speller._sequence,
    ast.Call: Speller._call,
}
_CALLS: dict[str, Callable[[Speller, ast.Call], str]] = {
    "I": Speller._protected,
    "C": Speller._made_factor,
    "as_numeric": Speller._as_numeric,
    "center": Speller._center,
    "scale": Speller._scale,
    "standardize": Speller._scale,
    "poly": Speller._poly,
    "bs": Speller._bs,
}
