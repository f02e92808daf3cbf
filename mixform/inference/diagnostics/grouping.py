"""Which rows belong together: by a grouping factor of the model, or by any labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mixform._typing import Codes
from mixform.errors import InferenceError, suggest
from mixform.estimate import Fit


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Grouping:
    """A partition of the rows in the model.

    Attributes
    ----------
    name : of the grouping factor
    codes : (n,) group of each row, 0 to m - 1
    labels : m labels
    """

    name: str
    codes: Codes
    labels: pd.Index

    @property
    def m(self) -> int:
        """Number of groups."""
        return len(self.labels)


def grouping(fit: Fit, group: object, argument: str = "group") -> Grouping:
    """Return the groups of the rows in the model.

    Parameters
    ----------
    group : a grouping factor of the random terms, the subject of the residual
        structure, or a column of one, by name; or a label for each row in the
        model or each row of the data (a Series is put in order by its index)
    argument : what the caller calls it, for errors

    Raises
    ------
    InferenceError : unknown name; labels of the wrong length, or missing
    """
    if isinstance(group, str):
        return _by_name(fit, group)
    if not isinstance(group, pd.Series | pd.Index | np.ndarray | list | tuple):
        raise InferenceError(
            f"{argument} is a {type(group).__name__}, not a name or one label a row.",
            hint="Name a grouping factor of the random terms, or give a column of "
            "labels.",
        )
    labels = _in_order(fit, group, argument)
    if labels.isna().any():
        first = fit.design.row_index[int(np.flatnonzero(labels.isna())[0])]
        raise InferenceError(
            f"The labels of {argument} are missing in {int(labels.isna().sum())} rows, "
            f"the first is row {first!r}.",
            hint="Every row in the model needs a group.",
        )
    codes, found = pd.factorize(labels, sort=True)
    name = getattr(group, "name", None)
    return Grouping(
        name=argument if name is None else str(name),
        codes=np.asarray(codes, dtype=np.int64),
        labels=pd.Index(np.asarray(found)),
    )


def _by_name(fit: Fit, name: str) -> Grouping:
    squeezed = "".join(name.split())
    blocks = fit.design.blocks
    for block in blocks:
        if sorted(squeezed.split(":")) == sorted(block.term.group):
            return Grouping(
                name=block.term.group_label, codes=block.codes, labels=block.levels
            )
    for block in blocks:
        if squeezed in block.term.group:
            piece = block.pieces[block.term.group.index(squeezed)]
            codes, labels = pd.factorize(piece)
            return Grouping(name=squeezed, codes=codes[block.codes], labels=labels)
    found = _by_subject(fit, squeezed)
    if found is not None:
        return found
    known = [block.term.group_label for block in blocks]
    known += [column for block in blocks for column in block.term.group]
    part = fit.design.residual
    if part is not None and part.term is not None:
        known += [*filter(None, [part.term.group_label]), *part.term.group]
    raise InferenceError(
        f"There is no grouping factor {name!r}.",
        hint=suggest(name, dict.fromkeys(known), "Grouping factors"),
    )


def _by_subject(fit: Fit, name: str) -> Grouping | None:
    """Return the subjects of the residual structure, or one of their columns."""
    part = fit.design.residual
    if part is None or part.term is None or not part.term.group:
        return None
    if sorted(name.split(":")) == sorted(part.term.group):
        label = part.term.group_label
        return Grouping(name=label, codes=part.subjects, labels=part.labels)
    if name not in part.term.group:
        return None
    codes, labels = pd.factorize(part.pieces[part.term.group.index(name)])
    return Grouping(name=name, codes=codes[part.subjects], labels=labels)


def _in_order(fit: Fit, group: Any, argument: str) -> pd.Series:
    design = fit.design
    n, N = fit.n, len(design.used)
    labels = pd.Series(group)
    if len(labels) not in (n, N):
        rows = f"{n} rows" if n == N else f"{n} rows, of {N} in the data"
        raise InferenceError(
            f"{argument} has {len(labels)} labels; the model has {rows}.",
            hint="Give one label for each row.",
        )
    index = design.index if len(labels) == N else design.row_index
    if isinstance(group, pd.Series) and not group.index.equals(index):
        if (
            not (index.is_unique and group.index.is_unique)
            or not group.index.isin(index).all()
        ):
            raise InferenceError(
                f"The index of {argument} is not the index of the data.",
                hint="Give it the data's index, or pass .to_numpy().",
            )
        labels = labels.reindex(index)
    return labels[design.used] if len(labels) == N and n != N else labels
