"""One part of the formula to numbers, through formulaic.

A part is evaluated on the normalized columns; formulaic's ModelSpec is kept, so that
new data are coded as the old were (levels, knots, polynomials, centers).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from formulaic import Formula, ModelSpec
from formulaic.errors import FactorEncodingError, FactorEvaluationError
from formulaic.materializers import PandasMaterializer

from mixform._typing import Matrix
from mixform.design.contrasts import coded
from mixform.errors import FormulaError, Span

#: Functions of R that formulaic does not define; all elementwise.
FUNCTIONS = {
    name: getattr(np, name)
    for name in ("sqrt", "log1p", "expm1", "sin", "cos", "tan", "tanh", "abs", "round")
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Coded:
    """A model matrix with what is needed to build it again on new data.

    Attributes
    ----------
    values : (n, c) the columns
    names : c formulaic names
    terms : for each term in order, its name, its factors and its columns
    spec : formulaic's ModelSpec
    """

    values: Matrix
    names: tuple[str, ...]
    terms: tuple[Term, ...]
    spec: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """A term of a model matrix.

    Attributes
    ----------
    name : as formulaic writes it, ``"1"`` for the intercept
    factors : expressions of its categorical factors
    covariates : expressions of its numeric factors
    columns : positions of its columns
    """

    name: str
    factors: frozenset[str]
    covariates: frozenset[str]
    columns: tuple[int, ...]


def code_part(
    part: Formula | Any,
    columns: Mapping[str, pd.Series],
    n: int,
    contrasts: Mapping[str, Any],
    source: tuple[str, Span],
    *,
    full_rank: bool = True,
) -> Coded:
    """Evaluate a part of the formula (or a kept spec) on normalized columns.

    Parameters
    ----------
    part : formulaic Formula, or the spec of an earlier `Coded`
    columns : name -> float64 or Categorical Series of length n
    contrasts : formulaic contrasts of the factors that do not take the default
    source : the whole formula and the span of this part, for errors
    full_rank : False keeps one column for each level of each factor

    Raises
    ------
    FormulaError : formulaic cannot evaluate it
    """
    plain = {name: s for name, s in columns.items() if name not in contrasts}
    context: dict[str, Any] = dict(FUNCTIONS)
    for name, contrast in contrasts.items():
        if name in columns:
            context[name] = coded(columns[name], contrast)
    frame = pd.DataFrame(plain, index=pd.RangeIndex(n), copy=False)
    extra: dict[str, Any] = {}
    if not isinstance(part, ModelSpec):
        extra = {"ensure_full_rank": full_rank}
    try:
        matrix: Any = PandasMaterializer(frame, context=context).get_model_matrix(
            part, na_action="ignore", output="numpy", **extra
        )
    except (FactorEvaluationError, FactorEncodingError) as failure:
        raise _explain(str(failure), *source) from failure
    spec = matrix.model_spec
    values = np.ascontiguousarray(matrix, dtype=np.float64)
    names = tuple(spec.column_names)
    return Coded(
        values=values.reshape(n, len(names)), names=names, terms=_terms(spec), spec=spec
    )


def _terms(spec: Any) -> tuple[Term, ...]:
    terms: list[Term] = []
    start = 0
    for entry in spec.structure:
        end = start + len(entry.columns)
        kinds = {
            factor.expr: spec.encoder_state[factor.expr][0].value
            for factor in entry.term.factors
            if factor.expr in spec.encoder_state
        }
        terms.append(
            Term(
                name=str(entry.term),
                factors=frozenset(k for k, v in kinds.items() if v == "categorical"),
                covariates=frozenset(k for k, v in kinds.items() if v == "numerical"),
                columns=tuple(range(start, end)),
            )
        )
        start = end
    return tuple(terms)


def _explain(report: str, source: str, span: Span) -> FormulaError:
    factor = re.search(r"factor `(.*?)`[ .]", report)
    if factor:
        inner = re.escape(factor[1].split("(")[0])
        here = re.compile(rf"(?<![\w.]){inner}(?![\w.])").search(source, *span)
        span = (here.start(), here.end()) if here else span
    reason = report.partition("[")[2].rstrip("]") or report
    unknown = re.search(r"name '(\w+)' is not defined", reason)
    if unknown:
        return FormulaError(
            f"Unknown function or name {unknown[1]!r} in the formula.",
            formula=source,
            span=span,
            hint="Compute the column in the data first, or use a NumPy function: "
            "np.sqrt(x).",
        )
    what = f"{factor[1]!r}" if factor else "A part of the formula"
    return FormulaError(
        f"{what} cannot be evaluated: {reason}",
        formula=source,
        span=span,
        hint="Check the types of the columns in it.",
    )


def variables_of(formula: Iterable[Any]) -> tuple[str, ...]:
    """Return the data columns that a part of the formula uses, in order of first use.

    Names that are called, and modules such as ``np``, are not columns.
    """
    found: dict[str, None] = {}
    for term in formula:
        for factor in term.factors:
            if factor.eval_method.value == "lookup":
                found.setdefault(factor.expr)
            elif factor.eval_method.value == "python":
                found.update(dict.fromkeys(_names_in(factor.expr)))
    return tuple(found)


def _names_in(expression: str) -> list[str]:
    quoted: list[str] = []

    def hide(match: re.Match[str]) -> str:
        quoted.append(match[1])
        return f"__quoted_{len(quoted) - 1}"

    tree = ast.parse(re.sub(r"`([^`]*)`", hide, expression), mode="eval")
    nodes = list(ast.walk(tree))
    called = {id(_root(node.func)) for node in nodes if isinstance(node, ast.Call)}
    names = [n for n in nodes if isinstance(n, ast.Name) and id(n) not in called]
    names.sort(key=lambda node: (node.lineno, node.col_offset))
    hidden = {f"__quoted_{i}": name for i, name in enumerate(quoted)}
    return [
        hidden.get(name.id, name.id) for name in names if name.id not in {"np", "contr"}
    ]


def _root(node: ast.expr) -> ast.expr:
    while isinstance(node, ast.Attribute):
        node = node.value
    return node
