"""Apply a formula to a table: the design of a mixed model."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mixform._typing import Mask, Matrix, Vector
from mixform.design.contrasts import resolve_contrasts, without_full
from mixform.design.fixed import orthonormalize
from mixform.design.frame import Table, aligned_values, as_numbers, normalize
from mixform.design.model_matrix import (
    Coded,
    code_part,
    factors_coded_in,
    find_name,
    variables_of,
)
from mixform.design.random import (
    RandomBlock,
    Relation,
    check_blocks,
    group_levels,
    joined_labels,
    member_codes,
    relation_of,
    require_grouping,
)
from mixform.design.record import Design
from mixform.design.residual import PLAIN, ResidualFormula, build_residual
from mixform.design.response import check_response, check_weights
from mixform.design.rows import (
    all_finite,
    complete_rows,
    listed,
    require_rows,
    subset_rows,
    take,
    too_few_rows,
    without_undefined,
)
from mixform.errors import DesignError, FormulaError, Span, suggest
from mixform.formula import ModelFormula, alias, formulaic_formula


def build_design(
    formula: ModelFormula,
    data: object,
    *,
    weights: object = None,
    offset: object = None,
    contrasts: object = None,
    subset: object = None,
    missing: str = "drop",
    relationship: Mapping[str, Relation] | None = None,
    errors: ResidualFormula = PLAIN,
) -> Design:
    """Apply the formula to the data.

    Parameters
    ----------
    formula : from `parse_formula`
    data : a table, or a path to one
    weights, offset : column name, or one value for each row of the data
    contrasts : factor -> name or matrix
    subset : boolean values, or an expression in the columns (pandas ``eval``)
    missing : "drop" or "raise"
    relationship : grouping column -> relation of its levels
    errors : structure and dispersion of the residuals

    Raises
    ------
    FormulaError : an unknown column or function
    DesignError : the data do not support the model
    """
    table = Table(data)
    if len(table) == 0:
        raise DesignError("The data have no rows.", hint="Check how they were read.")
    relationship = relationship or {}
    require_grouping(list(relationship), formula.random)
    return _Builder(formula, table, relationship, errors).build(
        weights=weights,
        offset=offset,
        contrasts=contrasts,
        subset=subset,
        missing=missing,
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Columns:
    """The parts of the formula as numbers, for the rows in use.

    Attributes
    ----------
    y : (n,) response
    fixed : X
    random : the coefficients of each random term, None for a plain intercept
    offsets : (n,) values of each offset in the formula
    """

    y: Vector
    fixed: Coded
    random: Sequence[Coded | None]
    offsets: Sequence[Vector]


class _Builder:
    """Holds the table and the parts of the formula while a design is made."""

    def __init__(
        self,
        formula: ModelFormula,
        table: Table,
        relationship: Mapping[str, Relation],
        errors: ResidualFormula,
    ) -> None:
        self.formula = formula
        self.relationship = relationship
        self.errors = errors
        self.table = table
        self.response = formulaic_formula(formula.response.code + " - 1")
        self.fixed = self._part(formula.fixed.code)
        self.offsets = [self._part(f"0 + {part.code}") for part in formula.offsets]
        self.random = [self._part(term.coefficients) for term in formula.random]
        self.parts = [self.response, self.fixed, *self.offsets, *self.random]
        self.coefficient_names = list(
            dict.fromkeys(name for part in self.parts for name in variables_of(part))
        )
        self.group_names = [n for term in formula.random for n in term.group]
        self._require_names()
        errors.require_columns(table.names)
        self.coefficient_names = list(
            dict.fromkeys((*self.coefficient_names, *errors.variables))
        )
        self.group_names += errors.columns

    def _part(self, code: str) -> Any:
        """Read a part; '.' stands for all columns but the response."""
        if "." not in re.sub(r"\w\.|\.\w", "", code):
            return formulaic_formula(code)
        response = variables_of(self.response)
        others = [alias(n) for n in self.table.names if n not in response]
        return formulaic_formula(code, tuple(others))

    def _require_names(self) -> None:
        for name in (*self.coefficient_names, *self.group_names):
            if name not in self.table:
                source = self.formula.source
                raise FormulaError(
                    f"Unknown column {name!r} in formula.",
                    formula=source,
                    span=find_name(name, source, (0, len(source))),
                    hint=suggest(name, self.table.names, "Columns"),
                )

    def build(
        self,
        *,
        weights: object,
        offset: object,
        contrasts: object,
        subset: object,
        missing: str,
    ) -> Design:
        table = self.table
        columns = {n: normalize(table.column(n), n) for n in self.coefficient_names}
        groups = {n: table.column(n) for n in self.group_names}
        weight_values, weights_column = self._argument(weights, "weights")
        offset_values, offset_column = self._argument(offset, "offset")
        given = {"weights": weight_values, "offset": offset_values}
        extra = {name: values for name, values in given.items() if values is not None}
        asked = subset_rows(subset, table)
        used, counts = complete_rows(asked, {**columns, **groups}, extra)
        made_factors = {n for part in self.parts for n in factors_coded_in(part)}
        kept = {n: take(s, used) for n, s in columns.items()}
        resolved = resolve_contrasts(contrasts, kept, made_factors)
        coded = self._code(kept, int(used.sum()), resolved)
        undefined = self._undefined(coded)
        if undefined:
            # log(-1) is as missing as a missing value: one joint mask, as in R.
            used, counts = without_undefined(used, undefined, counts)
            require_rows(used, asked, counts)
            kept = {n: take(s, used) for n, s in columns.items()}
            resolved = resolve_contrasts(contrasts, kept, made_factors)
            coded = self._code(kept, int(used.sum()), resolved)
            self._require_defined(coded)
        n_missing = int(asked.sum() - used.sum())
        if n_missing and missing == "raise":
            raise DesignError(
                f"{n_missing} of {int(asked.sum())} rows have missing values "
                f"({listed(counts)}).",
                hint='Use missing="drop" to leave them out, or complete the data.',
            )
        return self._assemble(
            coded,
            groups={n: s[used] for n, s in groups.items()},
            extra={n: v[used] for n, v in extra.items()},
            facts={
                "columns": kept,
                "contrasts": resolved,
                "index": table.index,
                "used": used,
                "n_missing": n_missing,
                "missing_columns": counts,
                "offset_column": offset_column,
                "offset_is_array": offset is not None and offset_column is None,
                "weights_column": weights_column,
            },
        )

    def _argument(self, values: object, name: str) -> tuple[Vector | None, str | None]:
        if values is None:
            return None, None
        series, column = aligned_values(values, self.table, name)
        if column is None:
            return as_numbers(series, name), None
        return as_numbers(series, column, name), column

    def _code(
        self, columns: Mapping[str, pd.Series], n: int, contrasts: Mapping[str, Any]
    ) -> _Columns:
        formula = self.formula

        inner = without_full(contrasts)

        def code(part: Any, span: Span, by: Mapping[str, Any] = contrasts) -> Coded:
            coded = code_part(part, columns, n, by, (formula.source, span))
            self._require_columns(coded, columns, span)
            return coded

        def response() -> Coded:
            return code(self.response, formula.response.span)

        fixed = code(self.fixed, formula.fixed.span)
        random: list[Coded | None] = []
        for term, part in zip(formula.random, self.random, strict=True):
            if str(part) == "1":
                random.append(None)
            elif list(part) == list(self.fixed) and len(inner) == len(contrasts):
                random.append(fixed)
            else:
                random.append(code(part, term.span, inner))
        offsets = zip(self.offsets, formula.offsets, strict=True)
        return _Columns(
            y=check_response(response, formula, columns),
            fixed=fixed,
            random=random,
            offsets=[self._offset(code(part, o.span), o.span) for part, o in offsets],
        )

    def _require_columns(
        self, coded: Coded, columns: Mapping[str, pd.Series], span: Span
    ) -> None:
        """Require that each term has columns, and each column a name of its own."""
        twice = [name for name in coded.names if coded.names.count(name) > 1]
        if twice:
            raise self._error(
                f"Two coefficients are named {twice[0]!r}.",
                find_name(twice[0], self.formula.source, span),
                "Rename the column.",
            )
        for term in coded.terms:
            if not term.columns:
                single = next(
                    name
                    for name in sorted(term.factors)
                    if name not in columns or len(columns[name].cat.categories) == 1
                )
                raise self._error(
                    f"The factor {single!r} has one level only.",
                    find_name(single.split("(")[0], self.formula.source, span),
                    "Leave it out of the formula, or check which rows are in use.",
                )

    def _offset(self, coded: Coded, span: Span) -> Vector:
        if any(term.factors for term in coded.terms) or coded.values.shape[1] != 1:
            raise self._error(
                "The offset is not one numeric column.", span, "Give numbers."
            )
        return coded.values[:, 0]

    def _error(self, message: str, span: Span, hint: str) -> DesignError:
        return DesignError(message, formula=self.formula.source, span=span, hint=hint)

    def _arrays(self, coded: _Columns) -> Iterator[tuple[Sequence[str], Matrix, Span]]:
        """Yield names, values and span of all that was evaluated."""
        formula = self.formula
        yield (formula.response.text,), coded.y[:, None], formula.response.span
        yield coded.fixed.names, coded.fixed.values, formula.fixed.span
        for term, part in zip(formula.random, coded.random, strict=True):
            if part is not None and part is not coded.fixed:
                yield part.names, part.values, term.span
        for part, values in zip(formula.offsets, coded.offsets, strict=True):
            yield (f"offset({part.text})",), values[:, None], part.span

    def _undefined(self, coded: _Columns) -> dict[str, Mask]:
        """Return the rows, (n,), in which a transformation gave NaN, by its name."""
        undefined: dict[str, Mask] = {}
        known = np.zeros(len(coded.y), dtype=bool)
        for names, values, _ in self._arrays(coded):
            if all_finite(values):
                continue
            for name, gap in zip(names, np.isnan(values).T, strict=True):
                if (gap & ~known).any():
                    undefined[name] = gap
                    known |= gap
        return undefined

    def _require_defined(self, coded: _Columns) -> None:
        for name in self._undefined(coded):
            raise self._error(
                f"{name!r} has other missing values when rows are dropped for its "
                "missing values.",
                find_name(name, self.formula.source, self.formula.fixed.span),
                "It depends on which rows are in use: make it a column of the data.",
            )

    def _require_finite(self, coded: _Columns, offset: Vector | None) -> None:
        arrays = list(self._arrays(coded))
        if offset is not None:
            arrays.append((("offset",), offset[:, None], self.formula.response.span))
        for names, values, span in arrays:
            if all_finite(values):
                continue
            counts = np.isinf(values).sum(axis=0).tolist()
            name, count = next((n, c) for n, c in zip(names, counts, strict=True) if c)
            raise self._error(
                f"{name!r} is infinite in {count} row{'s' if count > 1 else ''}.",
                find_name(name, self.formula.source, span),
                "Mark such values as missing (NaN), or correct them.",
            )

    def _assemble(
        self,
        coded: _Columns,
        *,
        groups: Mapping[str, pd.Series],
        extra: Mapping[str, Vector],
        facts: Mapping[str, Any],
    ) -> Design:
        self._require_finite(coded, extra.get("offset"))
        weights = extra.get("weights")
        if weights is not None:
            check_weights(weights, facts["index"][facts["used"]])
        offsets = [*coded.offsets, *([extra["offset"]] if "offset" in extra else [])]
        fixed = orthonormalize(coded.fixed, None if weights is None else weights**0.5)
        blocks = self._blocks(coded, groups)
        check_blocks(blocks, self.formula.source)
        n = len(coded.y)
        if n <= len(fixed.kept):
            raise DesignError(
                f"{n} rows cannot estimate {len(fixed.kept)} fixed effects and a "
                "residual variance.",
                hint=too_few_rows(n, facts["columns"]),
            )
        return Design(
            formula=self.formula,
            y=coded.y,
            fixed=fixed,
            blocks=blocks,
            weights=weights,
            offset=np.sum(offsets, axis=0) if offsets else None,
            residual=build_residual(
                self.errors, groups, facts["columns"], n, facts["contrasts"]
            ),
            **facts,
        )

    def _blocks(
        self, coded: _Columns, groups: Mapping[str, pd.Series]
    ) -> tuple[RandomBlock, ...]:
        blocks: list[RandomBlock] = []
        for term, part in zip(self.formula.random, coded.random, strict=True):
            codes, pieces = group_levels([groups[n] for n in term.group], term.group)
            relation = relation_of(term, self.relationship)
            if relation is not None:
                codes = member_codes(codes, pieces[0], relation, term.group_label)
                pieces = (relation.labels,)
            blocks.append(
                RandomBlock(
                    term=term,
                    levels=joined_labels(pieces),
                    pieces=pieces,
                    columns=("Intercept",) if part is None else part.names,
                    codes=codes,
                    design=np.ones((len(codes), 1)) if part is None else part.values,
                    coded=part,
                    relation=relation,
                )
            )
        return tuple(blocks)
