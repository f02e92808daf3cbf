"""Pedigrees: inbreeding, the sparse inverse of the relationship matrix, its columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import pandas as pd
from scipy.sparse import csc_array, csr_array

from mixform._typing import Codes, Matrix, Vector
from mixform.design.frame import Table
from mixform.design.random import level_labels
from mixform.errors import DesignError, suggest
from mixform.relationship import sweeps
from mixform.relationship.inbreeding import inbreeding
from mixform.relationship.sweeps import WIDTH

#: Members from which compiled loops are worth loading.
COMPILE_FROM = 500
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
    pedigree, which give the relationships of all mates of some sires at once.

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
        self._F, self._d = inbreeding(
            self.sire, self.dam, np.bincount(generation), self._loop("relate")
        )

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

        A^-1 = S'D^-1 S with S = T^-1, a one at each member and -1/2 at its known
        parents: Henderson's rules as a product.
        """
        m = len(self)
        parents = np.column_stack([np.arange(m), self.sire, self.dam])
        known = parents >= 0
        ends = np.append(0, np.cumsum(known.sum(axis=1))).astype(np.int32)
        columns = parents[known].astype(np.int32)
        shares = np.broadcast_to([1.0, -0.5, -0.5], parents.shape)[known]
        weighted = shares / np.repeat(self._d, np.diff(ends))
        S = csr_array((shares, columns, ends), shape=(m, m))
        D_inverse_S = csr_array((weighted, columns, ends), shape=(m, m))
        product = cast("Any", S.T.tocsr() @ D_inverse_S)
        product.sort_indices()
        entries = (product.data, product.indices, product.indptr)
        return csc_array(entries, shape=(m, m))  # it is symmetric

    def A(self, animals: Sequence[object] | None = None) -> pd.DataFrame:
        """Return columns of the relationship matrix A, (m, c); all if None.

        A = T D T' applied to unit vectors by two passes over the pedigree (Colleau
        2002, Genet. Sel. Evol. 34, 409).

        Raises
        ------
        DesignError : an animal is not in the pedigree
        """
        wanted = self.labels if animals is None else level_labels(pd.Index(animals))
        place = self._places(wanted)
        columns = np.zeros((len(self), len(wanted)))
        columns[place, np.arange(len(wanted))] = 1.0
        return pd.DataFrame(self.times_A(columns), index=self.labels, columns=wanted)

    def A_among(self, animals: object) -> Matrix:
        """Return A between some members, (c, c), passing over their ancestors only.

        Raises
        ------
        DesignError : an animal is not in the pedigree
        """
        place = self._places(level_labels(pd.Index(cast("Any", animals))))
        relate = self._loop("relate")
        out = np.empty((len(place), len(place)))
        x = np.empty((len(self), WIDTH))
        for first in range(0, len(place), WIDTH):
            batch = place[first : first + WIDTH]
            needed = np.zeros(len(self), dtype=np.bool_)
            needed[place] = True
            relate(self.sire, self.dam, self._d, batch, needed, x)
            out[:, first : first + len(batch)] = x[place, : len(batch)]
        return (out + out.T) / 2.0

    def _places(self, wanted: pd.Index) -> Codes:
        place = self.labels.get_indexer(wanted)
        if np.any(place < 0):
            name = wanted[int(np.argmin(place))]
            raise DesignError(
                f"{name!r} is not in the pedigree.",
                hint=suggest(str(name), self.labels, "Members"),
            )
        return place

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


def _labels(column: object) -> tuple[Codes, pd.Index]:
    """Return codes (N,) of distinct labels, and those as strings; -1 where unknown."""
    series = pd.Series(column).reset_index(drop=True)  # type: ignore[arg-type]
    codes, values = pd.factorize(series)
    # 1 and 1.0 print alike and are one label.
    same, labels = pd.factorize(level_labels(pd.Index(values)).to_numpy(dtype=object))
    unknown = np.array([label in UNKNOWN for label in labels], dtype=np.bool_)
    place = np.where(unknown, -1, np.cumsum(~unknown) - 1)
    # Code -1, a missing value, reads the last entry.
    return np.append(place[same], -1)[codes], pd.Index(labels[~unknown], dtype=object)


def _positions(
    animal: tuple[Codes, pd.Index],
    sire: tuple[Codes, pd.Index],
    dam: tuple[Codes, pd.Index],
) -> tuple[pd.Index, Codes]:
    """Return all members, and positions of their parents (m, 2), -1 if unknown."""
    codes, own = animal
    if np.any(codes < 0):
        raise DesignError(
            f"Row {int(np.argmax(codes < 0)) + 1} of the pedigree has no animal.",
            hint="0, empty and missing values stand for unknown parents only.",
        )
    if len(own) < len(codes):
        raise DesignError(
            f"{_listed(own[np.bincount(codes) > 1])} more than one row in the "
            "pedigree.",
            hint="Keep one row for each animal.",
        )
    # Codes count labels as they appear: those of distinct animals are their rows.
    places = [own.get_indexer(labels) for _, labels in (sire, dam)]
    absent = [
        labels[place < 0]
        for place, (_, labels) in zip(places, (sire, dam), strict=True)
    ]
    founders = absent[0].append(absent[1][~absent[1].isin(absent[0])])
    parents = np.full((len(founders) + len(own), 2), -1, dtype=np.int64)
    for c, (place, (codes, labels)) in enumerate(zip(places, (sire, dam), strict=True)):
        found = np.where(place < 0, founders.get_indexer(labels), place + len(founders))
        parents[len(founders) :, c] = np.append(found, -1)[codes]
    return founders.append(own), parents


def _listed(names: pd.Index) -> str:
    shown = ", ".join(map(repr, names[:5])) + (", ..." if len(names) > 5 else "")
    return f"{shown} {'has' if len(names) == 1 else 'have'}"


def _require_sexes(labels: pd.Index, parents: Codes) -> None:
    used = np.zeros((2, len(labels) + 1), dtype=np.bool_)  # the last of unknown ones
    used[0, parents[:, 0]] = used[1, parents[:, 1]] = True
    mixed = labels[used[0, :-1] & used[1, :-1]]
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
