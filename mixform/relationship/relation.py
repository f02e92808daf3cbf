"""What a fit needs of related levels, whatever the user knows them by.

RELATIONSHIP= -> RELATIONS: a pedigree, a covariance K or a precision K^-1 becomes a
record with the members, the sparse precision and products with A.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
import pandas as pd
from scipy.sparse import csc_array, issparse
from scipy.sparse.linalg import splu, spsolve_triangular

from mixform._typing import Matrix, Vector
from mixform.design.random import Relation, level_labels
from mixform.errors import DesignError
from mixform.relationship.covariance import Covariance, covariance_relation
from mixform.relationship.genomic import Genomic
from mixform.relationship.labelled import (
    checked_labels,
    require_symmetric,
    square_matrix,
)
from mixform.relationship.pedigree import Pedigree
from mixform.relationship.single_step import SingleStep

#: Columns of the inverse of a precision that are solved for at a time.
AT_A_TIME = 256


@dataclass(frozen=True, eq=False)
class PedigreeRelation:
    """The numerator relationship A of a pedigree: A = T D T'."""

    pedigree: Pedigree

    @property
    def labels(self) -> pd.Index:
        return self.pedigree.labels

    @property
    def description(self) -> str:
        return f"pedigree of {len(self.pedigree)} members"

    @cached_property
    def precision(self) -> csc_array:
        return self.pedigree.A_inverse()

    @property
    def loading(self) -> None:
        return None

    @property
    def logdet(self) -> float:
        return self.pedigree.logdet

    @property
    def diagonal(self) -> Vector:
        return self.pedigree.diagonal

    def times(self, x: Matrix) -> Matrix:
        return self.pedigree.times_A(x)

    def half(self, x: Matrix) -> Matrix:
        return self.pedigree.times_root(x)


@dataclass(frozen=True, eq=False)
class Precision:
    """A precision K^-1 of labelled members: made by `precision`.

    With a permutation, K^-1 = L D L' (SuperLU, pivots on the diagonal).

    Attributes
    ----------
    labels : members
    precision : (m, m) sparse
    """

    labels: pd.Index
    precision: csc_array
    _lu: Any

    def __repr__(self) -> str:
        return f"<{self.description}>"

    @property
    def description(self) -> str:
        return f"precision of {len(self.labels)} members"

    @property
    def loading(self) -> None:
        return None

    @property
    def logdet(self) -> float:
        return -float(np.log(self._lu.U.diagonal()).sum())

    @property
    def diagonal(self) -> Vector:
        return self._diagonal

    @cached_property
    def _diagonal(self) -> Vector:
        m = len(self.labels)
        out = np.empty(m)
        for start in range(0, m, AT_A_TIME):
            here = np.arange(start, min(start + AT_A_TIME, m))
            units = np.zeros((m, len(here)))
            units[here, np.arange(len(here))] = 1.0
            out[here] = self._lu.solve(units)[here, np.arange(len(here))]
        return out

    def times(self, x: Matrix) -> Matrix:
        return self._lu.solve(np.ascontiguousarray(x))

    def half(self, x: Matrix) -> Matrix:
        scaled = x / np.sqrt(self._lu.U.diagonal())[:, None]
        solved = spsolve_triangular(self._lu.L.T.tocsr(), scaled, lower=False)
        return solved[self._lu.perm_c]


def precision(K_inverse: object, labels: object = None) -> Precision:
    """Return a precision matrix, dense or sparse, for ``relationship=``.

    Parameters
    ----------
    K_inverse : (m, m) symmetric positive definite inverse of a covariance: a frame, an
        array or a scipy sparse matrix
    labels : (m,) members, in its order; None for those of a frame

    Raises
    ------
    DesignError : asymmetric, not positive definite, or without labels

    Examples
    --------
    >>> two = precision([[2.0, 0.0], [0.0, 4.0]], ["a", "b"])
    >>> two.times(np.ones((2, 1))).ravel().tolist()
    [0.5, 0.25]
    """
    if issparse(K_inverse):
        Q = csc_array(cast("Any", K_inverse), dtype=np.float64)
        names = None if labels is None else level_labels(pd.Index(cast("Any", labels)))
        names = checked_labels(names, cast("Any", Q).shape)
    else:
        values, names = square_matrix(K_inverse, labels, "precision")
        Q = csc_array(values)
    require_symmetric(Q, names, "precision")
    options = {"SymmetricMode": True}
    try:
        lu = splu(Q, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options=options)
    except RuntimeError:
        lu = None
    if lu is None or np.any(lu.U.diagonal() <= 0) or np.any(lu.perm_r != lu.perm_c):
        raise DesignError(
            "The precision is not positive definite.",
            hint="Give the inverse of a covariance matrix.",
        )
    return Precision(names, Q, lu)


def resolve_relationship(given: object) -> dict[str, Relation]:
    """Return the relation of each grouping column.

    Parameters
    ----------
    given : grouping column -> `Pedigree`, frame with animal, sire and dam, covariance
        (frame with labels, or `Genomic`), `Precision`, `Covariance`, `SingleStep`

    Raises
    ------
    DesignError : not a mapping; a value is none of these
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise DesignError(
            f"relationship is a {type(given).__name__}, not a mapping.",
            hint='Write relationship={"animal": pedigree}.',
        )
    known: dict[int, Relation] = {}
    out: dict[str, Relation] = {}
    for name, value in cast("Mapping[Any, object]", given).items():
        if id(value) not in known:
            known[id(value)] = _relation(str(name), value)
        out[str(name)] = known[id(value)]
    return out


def _relation(name: str, value: object) -> Relation:
    if isinstance(value, Pedigree):
        return PedigreeRelation(value)
    if isinstance(value, Precision | Covariance | SingleStep):
        return value
    if isinstance(value, Genomic):
        return covariance_relation(value.K)
    if isinstance(value, pd.DataFrame):
        rows, columns = level_labels(value.index), level_labels(value.columns)
        if len(rows) == len(columns) and set(rows) == set(columns):
            return covariance_relation(value)
        if value.shape[1] >= 3:
            return PedigreeRelation(Pedigree(value))
    raise DesignError(
        f"The relationship of {name!r} is a {type(value).__name__}.",
        hint="Give a Pedigree, a table of animal, sire and dam, a covariance as a "
        "frame with labels, mf.genomic(...), mf.precision(...) or mf.loading(...).",
    )
