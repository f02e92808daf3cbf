"""Pedigrees: inbreeding, the sparse inverse of the relationship matrix, its columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import coo_array, csc_array

from mixform._typing import Codes, Matrix, Vector
from mixform.design.frame import Table
from mixform.design.random import level_labels
from mixform.errors import DesignError, suggest
from mixform.relationship import sweeps

#: Members from which compiled loops are worth loading.
COMPILE_FROM = 500
#: Members of one sex whose relationships are found in one pass.
AT_A_TIME = 16
#: Names of an unknown parent, besides missing values.
UNKNOWN = {"0", "", "NA", "NaN", "nan", "None", "."}
COLUMNS = ("animal", "sire", "dam")


class Pedigree:
    """Animals (plants, families) and their parents.

    Parameters
    ----------
    animal : labels, or a table with columns of animals, sires and dams (named so, or
        the first three), in any order
    sire, dam : labels of the parents; 0, "", None or NaN if unknown. Parents that have
        no row of their own are added as founders
    hermaphrodite : allow an individual to be both sire and dam, as plants can

    Attributes
    ----------
    labels : (m,) names, parents before offspring
    sire, dam : (m,) positions of the parents, -1 if unknown
    inbreeding : (m,) F of each member, by name

    Raises
    ------
    DesignError : an animal twice, in its own ancestry, or both sire and dam; named

    References
    ----------
    Henderson (1976, Biometrics 32, 69): A^-1 by rules. Quaas (1976, Biometrics 32, 949)
    and Meuwissen and Luo (1992, Genet. Sel. Evol. 24, 305): A = T D T' with inbreeding.
    Colleau (2002, Genet. Sel. Evol. 34, 409): products with A by passes over the
    pedigree, which give the relationships of all mates of a sire at once.

    Examples
    --------
    >>> family = Pedigree(["c", "d"], ["a", "a"], ["b", 0])  # half sibs
    >>> list(family.labels)
    ['a', 'b', 'c', 'd']
    >>> float(family.A(["c"]).loc["d", "c"])
    0.25
    """

    def __init__(
        self,
        animal: object,
        sire: object = None,
        dam: object = None,
        *,
        hermaphrodite: bool = False,
    ) -> None:
        columns = _columns(animal, sire, dam)
        labels, parents = _positions(*map(_labels, columns))
        if not hermaphrodite:
            _require_sexes(labels, parents)
        generation = _generations(labels, parents)
        order = np.argsort(generation, kind="stable")
        place = np.empty(len(order) + 1, dtype=np.int64)
        place[order] = np.arange(len(order))
        place[-1] = -1  # of an unknown parent
        self.labels: pd.Index = pd.Index(labels[order], dtype=object)
        self.sire: Codes = place[parents[order, 0]]
        self.dam: Codes = place[parents[order, 1]]
        self._F, self._d = self._inbreeding(np.bincount(generation))

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        founders = int(np.sum((self.sire < 0) & (self.dam < 0)))
        return (
            f"<Pedigree of {len(self)}: {founders} founders, {int(np.sum(self._F > 0))}"
            f" inbred, largest F {self._F.max(initial=0.0):.4g}>"
        )

    @property
    def inbreeding(self) -> pd.Series:
        """Coefficients of inbreeding, (m,), by label."""
        return pd.Series(self._F, index=self.labels, name="inbreeding")

    @property
    def diagonal(self) -> Vector:
        """Diagonal of A, (m,): 1 + F."""
        return 1.0 + self._F

    @property
    def logdet(self) -> float:
        """log|A|: A = T D T', T unit triangular."""
        return float(np.log(self._d).sum())

    def A_inverse(self) -> csc_array:
        """Return A^-1, (m, m) sparse, members in the order of `labels`.

        Henderson's rules: each member adds a a' / d, a one at the member and -1/2 at
        its known parents.
        """
        m = len(self)
        who = np.arange(m)
        members = np.stack([who, self.sire, self.dam])
        share = np.array([1.0, -0.5, -0.5])
        rows, columns, values = [], [], []
        for a in range(3):
            for b in range(3):
                known = (members[a] >= 0) & (members[b] >= 0)
                rows.append(members[a][known])
                columns.append(members[b][known])
                values.append(share[a] * share[b] / self._d[known])
        entries = (np.concatenate(rows), np.concatenate(columns))
        return coo_array((np.concatenate(values), entries), shape=(m, m)).tocsc()

    def A(self, animals: Sequence[object] | None = None) -> pd.DataFrame:
        """Return columns of the relationship matrix A, (m, c); all if None.

        A = T D T' applied to unit vectors by two passes over the pedigree (Colleau
        2002, Genet. Sel. Evol. 34, 409).

        Raises
        ------
        DesignError : an animal is not in the pedigree
        """
        wanted = self.labels if animals is None else level_labels(pd.Index(animals))
        place = self.labels.get_indexer(wanted)
        if np.any(place < 0):
            name = wanted[int(np.argmin(place))]
            raise DesignError(
                f"{name!r} is not in the pedigree.",
                hint=suggest(str(name), self.labels, "Members"),
            )
        columns = np.zeros((len(self), len(wanted)))
        columns[place, np.arange(len(wanted))] = 1.0
        return pd.DataFrame(self.times_A(columns), index=self.labels, columns=wanted)

    def times_A(self, x: Matrix) -> Matrix:
        """Return A x for x (m, c)."""
        out = np.array(x, dtype=np.float64)
        self._loop("up")(self.sire, self.dam, out)
        out *= self._d[:, None]
        self._loop("down")(self.sire, self.dam, out)
        return out

    def times_root(self, x: Matrix) -> Matrix:
        """Return T D^1/2 x for x (m, c): its covariance is A if that of x is I."""
        out = np.sqrt(self._d)[:, None] * x
        self._loop("down")(self.sire, self.dam, out)
        return out

    def _inbreeding(self, sizes: Codes) -> tuple[Vector, Vector]:
        """Return F (m,) and within-family variances d (m,), generation by generation.

        F is half the relationship of the parents; d = 1 - (1 + F_sire)/4 -
        (1 + F_dam)/4, a term for each known parent.
        """
        relate = self._loop("relate")
        F, d = np.zeros(len(self) + 1), np.ones(len(self))
        F[-1] = -1.0  # of an unknown parent: no share
        ends = np.cumsum(sizes)
        for start, end in pairwise(ends.tolist()):
            sire, dam = self.sire[start:end], self.dam[start:end]
            d[start:end] -= (2.0 + F[sire] + F[dam]) / 4.0
            bred = start + np.flatnonzero((sire >= 0) & (dam >= 0))
            one, other = self.sire[bred], self.dam[bred]
            if len(np.unique(other)) < len(np.unique(one)):
                one, other = other, one
            chosen, which = np.unique(one, return_inverse=True)
            for first in range(0, len(chosen), AT_A_TIME):
                here = (which >= first) & (which < first + AT_A_TIME)
                needed = np.zeros(start, dtype=np.bool_)
                needed[other[here]] = True
                x = np.zeros((start, min(AT_A_TIME, len(chosen) - first)))
                batch = chosen[first : first + AT_A_TIME]
                relate(self.sire, self.dam, d, batch, needed, x)
                F[bred[here]] = 0.5 * x[other[here], which[here] - first]
        return F[:-1], d

    def _loop(self, name: str) -> Callable[..., Any]:
        if len(self.labels) < COMPILE_FROM:
            return getattr(sweeps, name)
        # numba takes longer to load than a small pedigree takes in plain Python.
        from mixform.relationship import compiled  # noqa: PLC0415

        return getattr(compiled, name)


def _columns(animal: object, sire: object, dam: object) -> tuple[Any, Any, Any]:
    if (sire is None) != (dam is None):
        raise DesignError("A pedigree needs sire and dam, or a table of all three.")
    if sire is not None:
        columns = (animal, sire, dam)
    else:
        table = Table(animal)
        names = list(table.names)
        if len(names) < 3:
            raise DesignError(
                f"A pedigree needs three columns, got {len(names)}.",
                hint="Give animal, sire and dam.",
            )
        lower = {name.lower(): name for name in names}
        if set(COLUMNS) <= set(lower):
            names = [lower[name] for name in COLUMNS]
        columns = tuple(table.column(name) for name in names[:3])
    if len({len(column) for column in columns}) > 1:  # type: ignore[arg-type]
        raise DesignError("Animals, sires and dams do not have the same length.")
    return columns[0], columns[1], columns[2]


def _labels(column: object) -> np.ndarray:
    """Return labels as strings (N,), None where unknown."""
    series = pd.Series(column).reset_index(drop=True)  # type: ignore[arg-type]
    codes, values = pd.factorize(series)
    labels = level_labels(pd.Index(values)).to_numpy(dtype=object)
    known: list[object] = [None if x in UNKNOWN else x for x in labels]
    # Code -1, a missing value, reads the last entry.
    return np.array([*known, None], dtype=object)[codes]


def _positions(
    animal: np.ndarray, sire: np.ndarray, dam: np.ndarray
) -> tuple[pd.Index, Codes]:
    """Return all members, and positions of their parents (m, 2), -1 if unknown."""
    if any(label is None for label in animal):
        row = next(i for i, label in enumerate(animal) if label is None)
        raise DesignError(
            f"Row {row + 1} of the pedigree has no animal.",
            hint="0, empty and missing values stand for unknown parents only.",
        )
    own = pd.Index(animal, dtype=object)
    if own.has_duplicates:
        twice = own[own.duplicated()].unique()
        raise DesignError(
            f"{_listed(twice)} more than one row in the pedigree.",
            hint="Keep one row for each animal.",
        )
    both = pd.Index(np.concatenate([sire, dam]), dtype=object).dropna().unique()
    labels = both[~both.isin(own)].append(own)
    parents = np.full((len(labels), 2), -1, dtype=np.int64)
    first = len(labels) - len(own)
    for c, column in enumerate((sire, dam)):
        parents[first:, c] = labels.get_indexer(pd.Index(column, dtype=object))
    return labels, parents


def _listed(names: pd.Index) -> str:
    shown = ", ".join(map(repr, names[:5])) + (", ..." if len(names) > 5 else "")
    return f"{shown} {'has' if len(names) == 1 else 'have'}"


def _require_sexes(labels: pd.Index, parents: Codes) -> None:
    sires, dams = (column[column >= 0] for column in parents.T)
    mixed = labels[np.intersect1d(sires, dams)]
    if len(mixed):
        shown = ", ".join(map(repr, mixed[:5])) + (", ..." if len(mixed) > 5 else "")
        raise DesignError(
            f"{shown} {'is' if len(mixed) == 1 else 'are'} both sire and dam.",
            hint="Correct the pedigree; for plants, hermaphrodite=True allows it.",
        )


def _generations(labels: pd.Index, parents: Codes) -> Codes:
    """Return the generation of each member, (m,): 0, or one after the later parent."""
    generation = np.full(len(labels) + 1, -1, dtype=np.int64)
    generation[-1] = 0  # unknown parents, position -1
    waiting = np.arange(len(labels))
    level = 0
    while len(waiting):
        level += 1
        ready = np.all(generation[parents[waiting]] >= 0, axis=1)
        if not ready.any():
            raise DesignError(
                f"The pedigree has a loop: {_loop_in(labels, parents, waiting)}.",
                hint="An animal cannot be its own ancestor: correct a parent.",
            )
        generation[waiting[ready]] = level
        waiting = waiting[~ready]
    return generation[:-1] - 1


def _loop_in(labels: pd.Index, parents: Codes, waiting: Codes) -> str:
    """Return one loop in words, offspring to parent."""
    stuck = set(waiting.tolist())
    path = [int(waiting[0])]
    while True:
        following = next(int(p) for p in parents[path[-1]] if int(p) in stuck)
        if following in path:
            loop = [*path[path.index(following) :], following]
            return " <- ".join(str(labels[i]) for i in loop)
        path.append(following)
