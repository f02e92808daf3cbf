"""A random term on data: level codes and a small design, never a dense Z."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pandas as pd
from scipy.sparse import csc_array

from mixform._typing import Codes, Matrix, Vector
from mixform.design.frame import factorize
from mixform.design.model_matrix import Coded
from mixform.errors import DesignError, suggest
from mixform.formula import RandomTerm

#: The structure whose levels are independent, whatever is known of their relationship.
INDEPENDENT = "iid"


class Relation(Protocol):
    """A known covariance A of the levels of a grouping factor, its members."""

    @property
    def labels(self) -> pd.Index:
        """Members, (m,)."""
        ...

    @property
    def description(self) -> str:
        """What it is, in words."""
        ...

    @property
    def precision(self) -> Any:
        """A^-1, (m, m) sparse, by the labels; None if (nearly) singular."""
        ...

    @property
    def loading(self) -> Matrix | None:
        """F (m, r), r <= m, with A = F F'; None if only A^-1 is at hand."""
        ...

    @property
    def logdet(self) -> float:
        """log|A|, where there is a precision."""
        ...

    @property
    def diagonal(self) -> Vector:
        """Diagonal of A, (m,)."""
        ...

    def times(self, x: Matrix) -> Matrix:
        """Return A x for x (m, c)."""
        ...

    def half(self, x: Matrix) -> Matrix:
        """Return L x for x (m, c), with L (m, m) and L L' = A."""
        ...


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
    relation : of the levels, which are all its members; None if they are independent
    """

    term: RandomTerm
    levels: pd.Index
    pieces: tuple[pd.Index, ...]
    columns: tuple[str, ...]
    codes: Codes
    design: Matrix
    coded: Coded | None
    relation: Relation | None = None

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


def member_codes(
    codes: Codes, levels: pd.Index, relation: Relation, name: str
) -> Codes:
    """Return the member (n,) of each row.

    Raises
    ------
    DesignError : a level is not among the members
    """
    places = relation.labels.get_indexer(levels)
    unknown = levels[places < 0]
    if len(unknown):
        more = ", ..." if len(unknown) > 5 else ""
        shown = ", ".join(map(repr, unknown[:5])) + more
        raise DesignError(
            f"{len(unknown)} of {len(levels)} levels of {name!r} are not in its "
            f"relationship: {shown}.",
            hint="Add them to it, or leave their rows out.",
        )
    return places[codes].astype(np.int64, copy=False)


def relation_of(
    term: RandomTerm, relationship: Mapping[str, Relation]
) -> Relation | None:
    """Return the relation of a term's levels, None where they are independent."""
    if term.structure == INDEPENDENT:
        return None
    return relationship.get(term.group_label)


def require_grouping(names: Sequence[str], terms: Sequence[RandomTerm]) -> None:
    """Refuse relationships of what is no grouping factor by itself.

    Raises
    ------
    DesignError : named, with a suggestion
    """
    groups = [
        term.group[0]
        for term in terms
        if len(term.group) == 1 and term.structure != INDEPENDENT
    ]
    for name in names:
        if name not in groups:
            raise DesignError(
                f"relationship names {name!r}, which no random term is grouped by.",
                hint=suggest(name, groups, "Grouping factors"),
            )


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
    if levels.dtype.kind in "iu":
        return pd.Index(list(map(str, levels.tolist())), dtype=object)
    labels = [
        str(int(value))
        if isinstance(value, float) and value.is_integer()
        else str(value)
        for value in levels.tolist()
    ]
    return pd.Index(labels, dtype=object)


def block_labels(blocks: Sequence[RandomBlock]) -> tuple[str, ...]:
    """Return a unique label for each random term: its group, numbered if repeated."""
    names = [block.term.group_label for block in blocks]
    labels: list[str] = []
    for j, name in enumerate(names):
        label, number = name, names[:j].count(name)
        while number and label in {*names, *labels}:
            label, number = f"{name}.{number}", number + 1
        labels.append(label)
    return tuple(labels)


def check_blocks(blocks: Sequence[RandomBlock], source: str) -> None:
    """Refuse terms that no data could tell apart.

    Raises
    ------
    DesignError : no coefficients; one level only; a coefficient of one group in two
        terms
    """
    seen: dict[tuple[frozenset[str], str, bool], RandomBlock] = {}
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
            key = (frozenset(block.term.group), name, block.relation is None)
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
