"""Apply a formula to a table: the design of a mixed model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mixform._typing import Mask, Vector
from mixform.design.contrasts import resolve_contrasts
from mixform.design.fixed import FixedPart, orthonormalize
from mixform.design.frame import (
    Table,
    aligned_values,
    as_numbers,
    is_missing,
    normalize,
)
from mixform.design.model_matrix import Coded, code_part, variables_of
from mixform.design.random import RandomBlock, check_blocks, group_levels
from mixform.design.response import check_response, check_weights
from mixform.errors import DesignError, FormulaError, Span, suggest
from mixform.formula import ModelFormula, formulaic_formula


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Design:
    """Everything a model needs of the data; rows that are not used are gone.

    Attributes
    ----------
    formula : the parsed formula
    y : (n,) response, offset not subtracted
    fixed : X and its basis
    blocks : the random terms
    weights : (n,) precision weights, or None
    offset : (n,) sum of the offsets, or None
    columns : normalized variables of the fixed and random coefficients
    contrasts : formulaic contrasts of the factors that do not take the default
    index : (N,) index of the data
    used : (N,) rows in the model
    n_missing : rows dropped because of missing values
    missing_columns : column -> number of its missing values in the rows asked for
    offset_names : column or argument behind the offset, for prediction
    """

    formula: ModelFormula
    y: Vector
    fixed: FixedPart
    blocks: tuple[RandomBlock, ...]
    weights: Vector | None
    offset: Vector | None
    columns: Mapping[str, pd.Series]
    contrasts: Mapping[str, Any]
    index: pd.Index
    used: Mask
    n_missing: int
    missing_columns: Mapping[str, int]
    offset_column: str | None
    offset_is_array: bool
    weights_column: str | None

    @property
    def row_index(self) -> pd.Index:
        """Index of the n rows in the model."""
        return self.index if self.used.all() else self.index[self.used]

    @property
    def X(self) -> pd.DataFrame:
        """The fixed-effects design, aliased columns included."""
        coded = self.fixed.coded
        return pd.DataFrame(coded.values, index=self.row_index, columns=coded.names)

    @property
    def Z(self) -> Any:
        """The random-effects design, (n, q) sparse, blocks side by side."""
        from scipy.sparse import csc_array, hstack  # noqa: PLC0415 - on request only

        if not self.blocks:
            return csc_array((len(self.y), 0))
        return hstack([block.Z for block in self.blocks], format="csc")

    @property
    def terms(self) -> tuple[str, ...]:
        """Names of the fixed terms and sources of the random ones."""
        fixed = (term.name for term in self.fixed.coded.terms)
        return (*fixed, *(block.term.source for block in self.blocks))


def build_design(
    formula: ModelFormula,
    data: object,
    *,
    weights: object = None,
    offset: object = None,
    contrasts: Mapping[str, object] | None = None,
    subset: object = None,
    missing: str = "drop",
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

    Raises
    ------
    FormulaError : an unknown column or function
    DesignError : the data do not support the model
    """
    table = Table(data)
    if len(table) == 0:
        raise DesignError("The data have no rows.", hint="Check how they were read.")
    return _Builder(formula, table).build(
        weights=weights,
        offset=offset,
        contrasts=contrasts,
        subset=subset,
        missing=missing,
    )


class _Builder:
    """Holds the table, the columns and the growing row mask while a design is made."""

    def __init__(self, formula: ModelFormula, table: Table) -> None:
        self.formula = formula
        self.table = table
        self.response = self._parts(formula.response.text + " - 1")
        self.fixed = self._parts(formula.fixed.text)
        self.offsets = [self._parts(f"0 + {part.text}") for part in formula.offsets]
        self.random = [self._parts(term.coefficients) for term in formula.random]
        parts = [self.response, self.fixed, *self.offsets, *self.random]
        self.coefficient_names = list(
            dict.fromkeys(name for part in parts for name in variables_of(part))
        )
        self.group_names = [n for term in formula.random for n in term.group]
        self._check_names()

    def _parts(self, text: str) -> Any:
        if "." not in re.sub(r"[\w`]\.|\.[\w`]", "", text):
            return formulaic_formula(text)
        return formulaic_formula(text, tuple(self._dot_columns()))

    def _dot_columns(self) -> list[str]:
        """All columns but the response: what '.' stands for."""
        response = formulaic_formula(self.formula.response.text + " - 1")
        return [n for n in self.table.names if n not in variables_of(response)]

    def _check_names(self) -> None:
        for name in (*self.coefficient_names, *self.group_names):
            if name in self.table:
                continue
            source = self.formula.source
            found = re.search(rf"(?<![\w.]){re.escape(name)}(?![\w.])", source)
            raise FormulaError(
                f"Unknown column {name!r} in formula.",
                formula=source,
                span=(found.start(), found.end()) if found else (0, len(source)),
                hint=suggest(name, self.table.names, "Columns"),
            )

    def build(
        self,
        *,
        weights: object,
        offset: object,
        contrasts: Mapping[str, object] | None,
        subset: object,
        missing: str,
    ) -> Design:
        columns = {
            name: normalize(self.table.column(name), name)
            for name in self.coefficient_names
        }
        groups = {
            name: self.table.column(name).reset_index(drop=True)
            for name in self.group_names
        }
        weight_values, weights_column = self._argument(weights, "weights")
        offset_values, offset_column = self._argument(offset, "offset")
        given = {"weights": weight_values, "offset": offset_values}
        extra = {name: values for name, values in given.items() if values is not None}
        asked = self._subset(subset)
        used, counts = self._complete_rows(asked, {**columns, **groups}, extra)
        coded: dict[str, Any] = {}
        while True:
            kept = {n: _take(s, used) for n, s in columns.items()}
            resolved = resolve_contrasts(contrasts, kept)
            coded = self._code(kept, int(used.sum()), resolved)
            bad = self._undefined(coded)
            if not bad.any():
                break
            # log(-1) is as missing as a missing value: one joint mask, as in R.
            counts["a transformed term"] = int(bad.sum())
            used = used.copy()
            used[np.flatnonzero(used)[bad]] = False
            self._require_rows(used, asked, counts)
        n_missing = int(asked.sum() - used.sum())
        if n_missing and missing == "raise":
            raise DesignError(
                f"{n_missing} of {int(asked.sum())} rows have missing values "
                f"({_listed(counts)}).",
                hint='Use missing="drop" to leave them out, or complete the data.',
            )
        return self._assemble(
            coded,
            kept=kept,
            contrasts=resolved,
            groups={n: s[used] for n, s in groups.items()},
            extra={n: v[used] for n, v in extra.items()},
            facts={
                "index": self.table.index,
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
        return as_numbers(series, column or name), column

    def _subset(self, subset: object) -> Mask:
        if subset is None:
            return np.ones(len(self.table), dtype=bool)
        if isinstance(subset, str):
            used = {n for n in self.table.names if re.search(rf"\b{n}\b", subset)}
            frame = pd.DataFrame(
                {n: self.table.column(n).reset_index(drop=True) for n in used}
            )
            try:
                subset = frame.eval(subset)
            except Exception as failure:
                raise DesignError(
                    f"subset={subset!r} cannot be evaluated: {failure}",
                    hint="Write a condition on columns, e.g. 'age > 3'.",
                ) from failure
        chosen, _ = aligned_values(subset, self.table, "subset")
        truth = chosen.to_numpy(dtype=object)
        if not all(isinstance(value, bool | np.bool_) for value in truth):
            raise DesignError(
                "subset is not boolean.",
                hint="Give True or False for each row, or a condition as a string.",
            )
        if not truth.any():
            raise DesignError("subset selects no row.", hint="Check the condition.")
        return truth.astype(bool)

    def _complete_rows(
        self,
        asked: Mask,
        columns: Mapping[str, pd.Series],
        extra: Mapping[str, Vector],
    ) -> tuple[Mask, dict[str, int]]:
        used = asked.copy()
        counts: dict[str, int] = {}
        gaps = {name: is_missing(series) for name, series in columns.items()}
        gaps |= {name: np.isnan(values) for name, values in extra.items()}
        for name, gap in gaps.items():
            if gap.any():
                used &= ~gap
                counts[name] = int((gap & asked).sum())
        self._require_rows(used, asked, counts)
        return used, {name: count for name, count in counts.items() if count}

    def _require_rows(self, used: Mask, asked: Mask, counts: dict[str, int]) -> None:
        if used.any():
            return
        raise DesignError(
            f"No row is complete; missing values by column: {_listed(counts)} "
            f"(of {int(asked.sum())} rows).",
            hint="Drop the column that is missing from the model, or fill it.",
        )

    def _code(
        self, columns: Mapping[str, pd.Series], n: int, contrasts: Mapping[str, Any]
    ) -> dict[str, Any]:
        formula = self.formula
        here = formula.source

        def code(part: Any, span: Span) -> Coded:
            return code_part(part, columns, n, contrasts, (here, span))

        text = formula.response.text.strip("`")
        if text in columns and not isinstance(columns[text].dtype, pd.CategoricalDtype):
            response = columns[text].to_numpy()
        else:
            response = check_response(
                lambda: code(self.response, formula.response.span), formula, columns
            )
        fixed = code(self.fixed, formula.fixed.span)
        random: list[Coded | None] = []
        for term, part in zip(formula.random, self.random, strict=True):
            if str(part) == "1":
                random.append(None)
            elif list(part) == list(self.fixed):
                random.append(fixed)
            else:
                random.append(code(part, term.span))
        offsets = [
            code(part, source.span).values.sum(axis=1)
            for part, source in zip(self.offsets, formula.offsets, strict=True)
        ]
        return {"y": response, "X": fixed, "Z": random, "offsets": offsets}

    def _undefined(self, coded: Mapping[str, Any]) -> Mask:
        """Return the rows where a transformation gave NaN, (n,)."""
        arrays = [coded["y"][:, None], coded["X"].values]
        arrays += [part.values for part in coded["Z"] if part is not None]
        arrays += [values[:, None] for values in coded["offsets"]]
        bad = np.zeros(len(coded["y"]), dtype=bool)
        for values in arrays:
            # A sum is NaN or infinite if any entry is, and costs one pass.
            if not np.isfinite(values.sum()):
                bad |= np.isnan(values).any(axis=1)
        return bad

    def _assemble(
        self,
        coded: Mapping[str, Any],
        *,
        kept: Mapping[str, pd.Series],
        contrasts: Mapping[str, Any],
        groups: Mapping[str, pd.Series],
        extra: Mapping[str, Vector],
        facts: Mapping[str, Any],
    ) -> Design:
        formula, y = self.formula, coded["y"]
        self._check_finite(coded)
        weights = extra.get("weights")
        if weights is not None:
            check_weights(weights, facts["index"][facts["used"]])
        offsets = [*coded["offsets"], *([extra["offset"]] if "offset" in extra else [])]
        root_weights = None if weights is None else np.sqrt(weights)
        fixed = orthonormalize(coded["X"], root_weights)
        blocks: list[RandomBlock] = []
        for term, part in zip(formula.random, coded["Z"], strict=True):
            codes, levels = group_levels([groups[n] for n in term.group], term.group)
            blocks.append(
                RandomBlock(
                    term=term,
                    levels=levels,
                    columns=("Intercept",) if part is None else part.names,
                    codes=codes,
                    design=np.ones((len(y), 1)) if part is None else part.values,
                    coded=part,
                )
            )
        check_blocks(blocks, formula.source)
        if len(y) <= len(fixed.kept):
            raise DesignError(
                f"{len(y)} rows cannot estimate {len(fixed.kept)} fixed effects "
                "and a residual variance.",
                hint="Use fewer fixed effects, or more data.",
            )
        return Design(
            formula=formula,
            y=y,
            fixed=fixed,
            blocks=tuple(blocks),
            weights=weights,
            offset=np.sum(offsets, axis=0) if offsets else None,
            columns=kept,
            contrasts=contrasts,
            **facts,
        )

    def _check_finite(self, coded: Mapping[str, Any]) -> None:
        formula = self.formula
        check = [(formula.response.text, coded["y"][:, None], formula.response.span)]
        check += [
            (coded["X"].names[j], coded["X"].values[:, [j]], formula.fixed.span)
            for j in range(len(coded["X"].names))
            if not np.isfinite(coded["X"].values[:, j].sum())
        ]
        for term, part in zip(formula.random, coded["Z"], strict=True):
            if part is not None:
                check.append((term.source, part.values, term.span))
        for part, values in zip(formula.offsets, coded["offsets"], strict=True):
            check.append((part.text, values[:, None], part.span))
        for name, values, span in check:
            infinite = np.isinf(values).any(axis=1)
            if infinite.any():
                raise DesignError(
                    f"{name!r} is infinite in {int(infinite.sum())} rows.",
                    formula=formula.source,
                    span=span,
                    hint="Mark such values as missing (NaN), or correct them.",
                )


def _take(series: pd.Series, used: Mask) -> pd.Series:
    """Return the rows in use; categories that no longer occur are dropped."""
    if not used.all():
        series = series[used].reset_index(drop=True)
    if isinstance(series.dtype, pd.CategoricalDtype):
        series = series.cat.remove_unused_categories()
    return series


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())
