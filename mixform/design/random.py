"""A random term on data: level codes and a small design, never a dense Z."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.sparse import csc_array

from mixform._typing import Codes, Matrix
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
    pieces : for each grouping column its label in each of the m levels
    columns : k coefficient names, the same for every level
    codes : (n,) level of each row
    design : (n, k) coefficients' covariates
    coded : the model matrix behind ``design``; None for a plain intercept
    """

    term: RandomTerm
    levels: pd.Index
    pieces: tuple[pd.Index, ...]
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
) -> tuple[Codes, tuple[pd.Index, ...]]:
    """Cross grouping columns without missing values into one factor.

    Returns
    -------
    codes : (n,) level of each row
    pieces : for each column its label in each level. Levels are ordered by the first
        column, then by the second; combinations that do not occur have no level
    """
    codes, labels = factorize(columns[0], names[0])
    pieces = [level_labels(labels)]
    for column, name in zip(columns[1:], names[1:], strict=True):
        inner, labels = factorize(column, name)
        pairs, codes = np.unique(codes * len(labels) + inner, return_inverse=True)
        outer, nested = np.divmod(pairs, len(labels))
        pieces = [piece[outer] for piece in pieces]
        pieces.append(level_labels(labels)[nested])
    return codes.astype(np.int64, copy=False), tuple(pieces)


def joined_labels(pieces: Sequence[pd.Index]) -> pd.Index:
    """Return the label of each level, ``a:b`` for crossed columns."""
    if len(pieces) == 1:
        return pieces[0]
    labels = [":".join(parts) for parts in zip(*pieces, strict=True)]
    return pd.Index(labels, dtype=object)


def level_labels(levels: pd.Index) -> pd.Index:
    """Return levels as strings; whole numbers without a decimal point.

    Examples
    --------
    >>> list(level_labels(pd.Index([1.0, 2.5])))
    ['1', '2.5']
    """
    if levels.dtype == "str":
        return pd.Index(levels.to_numpy(dtype=object), dtype=object)
    labels = [
        str(int(value))
        if isinstance(value, float) and value.is_integer()
        else str(value)
        for value in levels.tolist()
    ]
    return pd.Index(labels, dtype=object)


def check_blocks(blocks: Sequence[RandomBlock], source: str) -> None:
    """Refuse terms that no data could tell apart.

    Raises
    ------
    DesignError : no coefficients; one level only; a coefficient of one group in two
        terms
    """
    seen: dict[tuple[frozenset[str], str], RandomBlock] = {}
    for block in blocks:
        label = block.term.group_label
        if block.k == 0:
            raise DesignError(
                f"The random term {block.term.source} has no coefficients.",
                formula=source,
                span=block.term.span,
                hint=f"Write (1 | {label}), or drop the term.",
            )
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
