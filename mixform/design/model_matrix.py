"""One part of the formula to numbers, through formulaic.

A part is evaluated on the normalized columns; formulaic's ModelSpec is kept, so that
new data are coded as the old were (levels, knots, polynomials, centers). Formulaic sees
columns under their aliases; names in `Coded` are readable.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
from formulaic import Formula, ModelSpec
from formulaic.errors import FactorEncodingError, FactorEvaluationError
from formulaic.materializers import PandasMaterializer

from mixform._typing import Matrix
from mixform.design.contrasts import as_numeric, coded, coding_by_default
from mixform.design.legendre import legendre
from mixform.errors import FormulaError, MixformError, Span
from mixform.formula import FUNCTIONS, alias, readable


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
    formula: Any = part.formula if isinstance(part, ModelSpec) else part
    plain = _plain_columns(formula, columns)
    if plain is not None:
        return _stacked(formula, plain, n)
    spec, values = _evaluate(part, columns, n, contrasts, source, full_rank=full_rank)
    names = tuple(map(readable, spec.column_names))
    return Coded(
        values=values.reshape(n, len(names)), names=names, terms=_terms(spec), spec=spec
    )


def _plain_columns(
    formula: Iterable[Any], columns: Mapping[str, pd.Series]
) -> dict[str, pd.Series | None] | None:
    """Return the columns of a part that is a sum of numeric columns, else None.

    The intercept is None. These parts are common, and formulaic takes most of the time
    of a small fit.
    """
    found: dict[str, pd.Series | None] = {}
    for term in formula:
        if str(term) == "1":
            found["1"] = None
            continue
        name = readable(str(term))
        factor = term.factors[0]
        if len(term.factors) > 1 or factor.eval_method.value != "lookup":
            return None
        if isinstance(columns[name].dtype, pd.CategoricalDtype):
            return None
        found[name] = columns[name]
    return found


def _stacked(formula: Any, plain: Mapping[str, pd.Series | None], n: int) -> Coded:
    values = np.ones((n, len(plain)))
    terms: list[Term] = []
    for j, (name, column) in enumerate(plain.items()):
        if column is not None:
            values[:, j] = column.to_numpy()
        covariates = frozenset() if column is None else frozenset([name])
        terms.append(
            Term(name=name, factors=frozenset(), covariates=covariates, columns=(j,))
        )
    names = tuple("Intercept" if c is None else name for name, c in plain.items())
    return Coded(
        values=values, names=names, terms=tuple(terms), spec=ModelSpec(formula=formula)
    )


def _evaluate(
    part: Formula | Any,
    columns: Mapping[str, pd.Series],
    n: int,
    contrasts: Mapping[str, Any],
    source: tuple[str, Span],
    *,
    full_rank: bool,
) -> tuple[ModelSpec, Matrix]:
    plain = {alias(name): s for name, s in columns.items() if name not in contrasts}
    code = coding_by_default(columns, contrasts)
    own = {"C": code, "as_numeric": as_numeric, "legendre": legendre}
    context: dict[str, Any] = {**FUNCTIONS, **own}
    for name, contrast in contrasts.items():
        if name in columns:
            context[alias(name)] = coded(columns[name], contrast)
    frame = pd.DataFrame(plain, index=pd.RangeIndex(n), copy=False)
    options: dict[str, Any] = (
        {} if isinstance(part, ModelSpec) else {"ensure_full_rank": full_rank}
    )
    try:
        # What is not defined, such as log(-1), becomes NaN: a missing value.
        with np.errstate(all="ignore"):
            matrix: Any = PandasMaterializer(frame, context=context).get_model_matrix(
                part, na_action="ignore", output="numpy", **options
            )
        values = np.ascontiguousarray(matrix, dtype=np.float64)
    except (FactorEvaluationError, FactorEncodingError) as failure:
        raise _explain(failure, *source) from failure
    except (ValueError, TypeError) as failure:
        raise FormulaError(
            "This part of the formula does not give a number for each row.",
            formula=source[0],
            span=source[1],
            hint="Compute the column in the data first.",
        ) from failure
    return matrix.model_spec, values


def _terms(spec: Any) -> tuple[Term, ...]:
    terms: list[Term] = []
    start = 0
    for entry in spec.structure:
        end = start + len(entry.columns)
        kinds = {
            readable(factor.expr): spec.encoder_state[factor.expr][0].value
            for factor in entry.term.factors
            if factor.expr in spec.encoder_state
        }
        terms.append(
            Term(
                name=readable(str(entry.term)),
                factors=frozenset(k for k, v in kinds.items() if v == "categorical"),
                covariates=frozenset(k for k, v in kinds.items() if v == "numerical"),
                columns=tuple(range(start, end)),
            )
        )
        start = end
    return tuple(terms)


def _explain(failure: Exception, source: str, span: Span) -> FormulaError:
    """Turn formulaic's report on a factor into ours."""
    report = readable(str(failure))
    factor = re.search(r"[Ff]actor `(.*?)`(?:\. | is | to )", report)
    span = find_name(factor[1].split("(")[0], source, span) if factor else span
    if isinstance(failure.__cause__, MixformError):
        ours = failure.__cause__
        return FormulaError(ours.message, formula=source, span=span, hint=ours.hint)
    reason = report.partition("[")[2].rstrip("]") or report
    unknown = re.search(r"name '(\w+)' is not defined", reason)
    if unknown:
        called = re.search(rf"(?<![\w.]){unknown[1]}[\w.]*", source)
        return FormulaError(
            f"Unknown function {called[0] if called else unknown[1]!r} in the formula.",
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


def find_name(name: str, source: str, span: Span) -> Span:
    """Return where a name stands in a part of the formula, else the whole part."""
    found = re.compile(rf"(?<![\w.]){re.escape(name)}(?![\w.])").search(source, *span)
    return found.span() if found else span


def variables_of(formula: Iterable[Any]) -> tuple[str, ...]:
    """Return the data columns that a part of the formula uses, in order of first use.

    Names that are called, and modules such as ``np``, are not columns.
    """
    found: dict[str, None] = {}
    for term in formula:
        for factor in term.factors:
            if factor.eval_method.value == "lookup":
                found.setdefault(readable(factor.expr))
            elif factor.eval_method.value == "python":
                found.update(dict.fromkeys(_names_in(factor.expr)))
    return tuple(found)


@lru_cache(maxsize=512)
def _names_in(expression: str) -> tuple[str, ...]:
    nodes = list(ast.walk(ast.parse(expression, mode="eval")))
    called = {id(_root(node.func)) for node in nodes if isinstance(node, ast.Call)}
    names = [n for n in nodes if isinstance(n, ast.Name) and id(n) not in called]
    names.sort(key=lambda node: (node.lineno, node.col_offset))
    return tuple(readable(n.id) for n in names if n.id not in {"np", "contr"})


def factors_coded_in(formula: Iterable[Any]) -> set[str]:
    """Return the columns that a part of the formula makes factors of: C(x)."""
    calls = (
        re.match(r"C\((\w+)[,)]", str(factor.expr))
        for term in formula
        for factor in term.factors
    )
    return {readable(call[1]) for call in calls if call}


def _root(node: ast.expr) -> ast.expr:
    while isinstance(node, ast.Attribute):
        node = node.value
    return node
