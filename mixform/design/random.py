"""A random term on data: level codes and a small design, never a dense Z."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.sparse import csc_array

from mixform._typing import AnyArray, Codes, Matrix
from mixform.design.frame import factorize
from mixform.design.model_matrix import Coded
from mixform.errors import DesignError
from mixform.formula import RandomTerm


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RandomBlock:
    """The columns of Z that one random term contributes, e.g. ``(1 + days | id)``.

    Column ``j*k + c`` of Z is coefficient c of level j: row i holds ``design[i]`` at
    the columns of level ``codes[i]``.

    Attributes
    ----------
    term : where the block came from; carries the span for error messages
    levels : m group labels in order
    columns : k coefficient names, the same for every level
    codes : (n,) level of each row
    design : (n, k) coefficients' covariates
    coded : the model matrix behind ``design``; None for a plain intercept
    """

    term: RandomTerm
    levels: pd.Index
    columns: tuple[str, ...]
    codes: Codes
    design: Matrix
    coded: Coded | None

    @property
    def m(self) -> int:
        """Number of levels."""
        return len(self.levels)

    @property
    def k(self) -> int:
        """Number of coefficients of each level."""
        return len(self.columns)

    @property
    def Z(self) -> csc_array:
        """The columns of Z, (n, m*k) sparse."""
        n = len(self.codes)
        rows = np.repeat(np.arange(n), self.k)
        places = (self.codes[:, None] * self.k + np.arange(self.k)).ravel()
        return csc_array(
            (self.design.ravel(), (rows, places)), shape=(n, self.m * self.k)
        )


def group_levels(
    columns: Sequence[pd.Series], names: Sequence[str]
) -> tuple[Codes, pd.Index]:
    """Cross grouping columns without missing values into one factor.

    Returns
    -------
    codes : (n,) level of each row
    levels : labels, ``a:b`` for crossed columns; ordered by the first column, then
        by the second; combinations that do not occur have no level
    """
    codes, labels = factorize(columns[0], names[0])
    levels = level_labels(labels)
    for column, name in zip(columns[1:], names[1:], strict=True):
        inner, labels = factorize(column, name)
        inner_levels = level_labels(labels)
        pairs, codes = np.unique(codes * len(inner_levels) + inner, return_inverse=True)
        outer, nested = np.divmod(pairs, len(inner_levels))
        levels = pd.Index(
            [
                f"{levels[i]}:{inner_levels[j]}"
                for i, j in zip(outer, nested, strict=True)
            ],
            dtype=object,
        )
    return codes.astype(np.int64, copy=False), levels


def level_labels(levels: pd.Index) -> pd.Index:
    """Return levels as strings; whole numbers without a decimal point.

    Examples
    --------
    >>> list(level_labels(pd.Index([1.0, 2.0])))
    ['1', '2']
    """
    values: AnyArray = levels.to_numpy()
    if values.dtype.kind == "f" and np.all(values == np.floor(values)):
        values = values.astype(np.int64)
    return pd.Index([str(value) for value in values.tolist()], dtype=object)


def check_blocks(blocks: Sequence[RandomBlock], source: str) -> None:
    """Refuse terms that no data could tell apart.

    Raises
    ------
    DesignError : one level only; a coefficient of one group in two terms
    """
    seen: dict[tuple[frozenset[str], str], RandomBlock] = {}
    for block in blocks:
        label = block.term.group_label
        if block.m < 2:
            raise DesignError(
                f"Grouping by {label!r} needs at least 2 levels, got {block.m}.",
                formula=source,
                span=block.term.span,
                hint="Drop the term, or check whether rows were lost to missing data.",
            )
        for name in block.columns:
            key = (frozenset(block.term.group), name)
            if key in seen:
                other = seen[key].term.source
                raise DesignError(
                    f"{name!r} of {label!r} is in two terms, {other} and "
                    f"{block.term.source}: no data can tell them apart.",
                    formula=source,
                    span=block.term.span,
                    hint=f"Keep one of them, or write (0 + ... | {label}) in one.",
                )
            seen[key] = block
