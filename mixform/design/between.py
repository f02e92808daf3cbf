"""The design of a second stage: covariates that do not change within a subject.

The formula is coded on the rows of the data and then read off one row of each subject,
so that its columns are those of the mixed model of both stages: what ``scale(x)`` or
``poly(x, 2)`` take from all values, they take from the rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mixform._typing import Codes, Mask, Matrix
from mixform.design.fixed import orthonormalize
from mixform.design.frame import Table, is_missing, normalize
from mixform.design.model_matrix import Coded, code_part, find_name, variables_of
from mixform.design.random import RandomBlock
from mixform.design.record import Design
from mixform.design.rows import take
from mixform.errors import DesignError, FormulaError, suggest
from mixform.formula import Part, formulaic_formula


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Between:
    """The second stage on data, for k coefficients of m subjects.

    Attributes
    ----------
    sources : (k,) the formula of each coefficient, as given
    parts : (k,) their right-hand sides
    names : for each coefficient the names of its q_c covariates
    columns : for each coefficient its covariates, (m, q_c), of full rank
    bases : orthonormal bases of the columns, (m, q_c)
    kept : (M,) subjects of the first stage with all covariates, of which there are m
    missing : labels of the others
    """

    sources: tuple[str, ...]
    parts: tuple[Part, ...]
    names: tuple[tuple[str, ...], ...]
    columns: tuple[Matrix, ...]
    bases: tuple[Matrix, ...]
    kept: Mask
    missing: tuple[str, ...]

    @property
    def width(self) -> int:
        """Number of covariates of all coefficients together, q."""
        return sum(map(len, self.names))

    @property
    def ranks(self) -> tuple[int, ...]:
        """Number of covariates of each coefficient."""
        return tuple(map(len, self.names))

    def stacked(self) -> Matrix:
        """Return W_i of all subjects, (m, k, q): block diagonal, by coefficient."""
        m, k = len(self.columns[0]), len(self.columns)
        W = np.zeros((m, k, self.width))
        start = 0
        for c, columns in enumerate(self.columns):
            W[:, c, start : start + columns.shape[1]] = columns
            start += columns.shape[1]
        return W


def build_between(
    design: Design, data: object, parts: Sequence[tuple[str, Part]], missing: str
) -> Between:
    """Apply the formulas of a second stage to the subjects of a first one.

    Parameters
    ----------
    design : of the first stage; its random block holds the subjects
    data : the table behind it
    parts : from `parse_between`
    missing : "drop" subjects without a covariate, or "raise"

    Raises
    ------
    FormulaError : an unknown column
    DesignError : a covariate varies within a subject, or is missing; too few subjects;
        columns that are combinations of others
    """
    block, table = design.blocks[0], Table(data)
    columns = _columns(parts, table, design)
    gone = _missing_subjects(columns, block, missing)
    _require_constant(columns, block, parts)
    rows = ~gone[block.codes]
    columns = {name: take(column, rows) for name, column in columns.items()}
    m = int((~gone).sum())
    coded: dict[str, tuple[tuple[str, ...], Matrix, Matrix]] = {}
    for source, part in parts:
        if source not in coded:
            coded[source] = _coded((source, part), columns, block.codes[rows], m)
    names, values, bases = zip(*(coded[source] for source, _ in parts), strict=True)
    return Between(
        sources=tuple(source for source, _ in parts),
        parts=tuple(part for _, part in parts),
        names=names,
        columns=values,
        bases=bases,
        kept=~gone,
        missing=tuple(map(str, block.levels[gone])),
    )


def _columns(
    parts: Sequence[tuple[str, Part]], table: Table, design: Design
) -> dict[str, pd.Series]:
    """Return the normalized covariates of the rows of the first stage."""
    columns: dict[str, pd.Series] = {}
    for source, part in dict.fromkeys(parts):
        for name in variables_of(formulaic_formula(part.code)):
            if name not in table:
                raise FormulaError(
                    f"Unknown column {name!r} in formula.",
                    formula=source,
                    span=find_name(name, source, part.span),
                    hint=suggest(name, table.names, "Columns"),
                )
            full = normalize(table.column(name), name)
            columns[name] = full[design.used].reset_index(drop=True)
    return columns


def _missing_subjects(
    columns: Mapping[str, pd.Series], block: RandomBlock, missing: str
) -> Mask:
    """Return the subjects without a covariate, (M,)."""
    gone = np.zeros(block.m, dtype=bool)
    size = np.bincount(block.codes, minlength=block.m)
    for name, column in columns.items():
        gap = np.bincount(block.codes[is_missing(column)], minlength=block.m)
        some = np.flatnonzero((gap > 0) & (gap < size))
        if len(some):
            raise DesignError(
                f"{name!r} is missing in {gap[some[0]]} of {size[some[0]]} rows of "
                f"{block.term.group_label} {block.levels[some[0]]!r}.",
                hint="A covariate of the second stage belongs to the subject: fill it "
                "in all rows of a subject, or in none.",
            )
        gone |= gap > 0
        if gone.all() or (missing == "raise" and gone.any()):
            lost = block.levels[gone]
            raise DesignError(
                f"{name!r} is missing for {len(lost)} of {block.m} subjects: "
                f"{first_few(lost)}.",
                hint="Complete the data"
                + ("." if gone.all() else ', or leave them out with missing="drop".'),
            )
    return gone


def _require_constant(
    columns: Mapping[str, pd.Series],
    block: RandomBlock,
    parts: Sequence[tuple[str, Part]],
) -> None:
    first = first_rows(block.codes, block.m)
    for name, column in columns.items():
        category = isinstance(column.dtype, pd.CategoricalDtype)
        values = column.cat.codes.to_numpy() if category else column.to_numpy()
        known = ~is_missing(column)
        differs = known & (values != values[first][block.codes])
        if not differs.any():
            continue
        code = block.codes[int(np.argmax(differs))]
        labels = pd.unique(column[(block.codes == code) & known].astype(object))[:3]
        source, part = next(
            p for p in parts if name in variables_of(formulaic_formula(p[1].code))
        )
        raise DesignError(
            f"{name!r} varies within {block.term.group_label} {block.levels[code]!r} "
            f"({', '.join(f'{v:g}' if not category else str(v) for v in labels)}).",
            formula=source,
            span=find_name(name, source, part.span),
            hint="A covariate of the second stage is constant within a subject; what "
            "varies belongs in the first stage.",
        )


def _coded(
    given: tuple[str, Part], columns: Mapping[str, pd.Series], codes: Codes, m: int
) -> tuple[tuple[str, ...], Matrix, Matrix]:
    """Return names, columns (m, q) and their orthonormal basis."""
    source, part = given
    subjects, compact = np.unique(codes, return_inverse=True)
    coded = code_part(
        formulaic_formula(part.code), columns, len(codes), {}, (source, part.span)
    )
    for term in coded.terms:
        if not term.columns:
            reason = f"{term.name!r} has one level only in these subjects."
            raise _error(given, reason, "Leave it out of the formula.")
    values = coded.values[first_rows(compact, len(subjects))]
    if not np.isfinite(values).all():
        name = coded.names[int(np.argmin(np.isfinite(values).all(axis=0)))]
        raise _error(given, f"{name!r} is not finite for each subject.", "Correct it.")
    if values.shape[1] == 0:
        raise _error(given, "The second stage has no columns.", 'Write "~ 1".')
    basis = orthonormalize(
        Coded(values=values, names=coded.names, terms=coded.terms, spec=coded.spec),
        None,
    )
    if basis.aliased:
        raise _error(
            given,
            "Columns of the second stage are combinations of others: "
            f"{', '.join(basis.aliased_names)}.",
            "Leave them out, or check which subjects are in use.",
        )
    if m <= values.shape[1]:
        raise _error(
            given,
            f"{m} subjects cannot estimate {values.shape[1]} effects and a variance.",
            "Use fewer covariates, or more subjects.",
        )
    return coded.names, values, basis.Q


def _error(given: tuple[str, Part], message: str, hint: str) -> DesignError:
    return DesignError(message, formula=given[0], span=given[1].span, hint=hint)


def first_rows(codes: Codes, m: int) -> Codes:
    """Return the first row of each of m subjects, all of which have one."""
    rows = np.empty(m, dtype=np.int64)
    rows[codes[::-1]] = np.arange(len(codes))[::-1]
    return rows


def first_few(labels: Sequence[object] | pd.Index) -> str:
    """Return the first five labels in words."""
    return ", ".join(map(str, labels[:5])) + (", ..." if len(labels) > 5 else "")
