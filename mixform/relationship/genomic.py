"""Genomic relationships from markers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from mixform._typing import Mask, Matrix, Vector
from mixform.design.random import level_labels
from mixform.errors import DesignError, suggest

METHODS = ("vanraden1", "vanraden2")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Genomic:
    """A genomic relationship matrix and how it was made.

    Attributes
    ----------
    K : (m, m) relationships, by label
    frequencies : (s,) frequency of the counted allele of each marker that was used
    dropped : markers that were not used, because of their frequency
    n_missing : genotypes that were missing, taken as twice the frequency
    method : "vanraden1" or "vanraden2"
    """

    K: pd.DataFrame
    frequencies: pd.Series
    dropped: tuple[str, ...]
    n_missing: int
    method: str

    def __repr__(self) -> str:
        return (
            f"<Genomic relationships of {len(self.K)} by {self.method}: "
            f"{len(self.frequencies)} markers used, {len(self.dropped)} dropped, "
            f"{self.n_missing} genotypes missing>"
        )


def genomic(
    markers: object,
    *,
    ids: object = None,
    method: str = "vanraden1",
    maf: float = 0.0,
) -> Genomic:
    """Return relationships from marker genotypes.

    VanRaden (2008, J. Dairy Sci. 91, 4414). With M the counts of one allele, p its
    frequency and Z = M - 2 p::

        vanraden1   K = Z Z' / sum_j 2 p_j (1 - p_j)
        vanraden2   K = sum_j z_j z_j' / (2 p_j (1 - p_j)) / s

    Parameters
    ----------
    markers : (m, s) counts 0, 1, 2 (or between, if imputed) of one allele; NaN where
        missing, which counts as the mean of its marker. A frame, by its index, or an
        array
    ids : (m,) labels of the rows, instead of the index
    maf : markers whose rarer allele has a smaller frequency are dropped; those without
        variation always are

    Raises
    ------
    DesignError : genotypes out of range; a label twice; no marker left

    Examples
    --------
    >>> genomic([[0, 2], [1, 1], [2, 0]], ids=["a", "b", "c"]).K.loc["a"].tolist()
    [2.0, 0.0, -2.0]
    """
    if method not in METHODS:
        raise DesignError(
            f"Unknown method {method!r}.", hint=suggest(str(method), METHODS, "Methods")
        )
    M, labels, names = _read(markers, ids)
    missing = np.isnan(M)
    with np.errstate(invalid="ignore", divide="ignore"):
        counts = (~missing).sum(axis=0)
        p = np.nansum(M, axis=0) / (2.0 * counts)
    variance = 2.0 * p * (1.0 - p)
    used: Mask = (np.minimum(p, 1.0 - p) >= maf) & (variance > 0.0)
    if not used.any():
        raise DesignError(
            f"No marker has a minor allele frequency of {maf:g} or more.",
            hint="Lower maf, or check the coding of the genotypes.",
        )
    Z = M[:, used] - 2.0 * p[used]
    Z[missing[:, used]] = 0.0
    K = _products(Z, variance[used], method)
    return Genomic(
        K=pd.DataFrame(K, index=labels, columns=labels),
        frequencies=pd.Series(p[used], index=names[used], name="frequency"),
        dropped=tuple(map(str, names[~used])),
        n_missing=int(missing.sum()),
        method=method,
    )


def _products(Z: Matrix, variance: Vector, method: str) -> Matrix:
    if method == "vanraden1":
        return Z @ Z.T / float(variance.sum())
    Z = Z / np.sqrt(variance)
    return Z @ Z.T / len(variance)


def _read(markers: object, ids: object) -> tuple[Matrix, pd.Index, pd.Index]:
    """Return genotypes (m, s), labels of the rows and names of the markers."""
    if isinstance(markers, pd.DataFrame):
        index, names = markers.index, markers.columns
    else:
        index, names = None, None
    try:
        M = np.array(markers, dtype=np.float64)
    except (TypeError, ValueError):
        raise DesignError(
            "The genotypes are not numeric.",
            hint="Give counts 0, 1, 2 of one allele; NaN where missing.",
        ) from None
    if M.ndim != 2 or not M.size:
        raise DesignError(
            f"The genotypes have shape {M.shape}, not (animals, markers).",
            hint="One row for each animal, one column for each marker.",
        )
    if ids is not None:
        index = pd.Index(ids)  # type: ignore[arg-type]
    if index is None:
        raise DesignError(
            "The genotypes have no labels.", hint="Give ids=, or a frame by animal."
        )
    names = pd.RangeIndex(M.shape[1]) if names is None else names
    labels = level_labels(index)
    if len(labels) != len(M):
        raise DesignError(f"{len(labels)} ids for {len(M)} rows of genotypes.")
    if labels.has_duplicates:
        twice = labels[labels.duplicated()][0]
        raise DesignError(
            f"{twice!r} has more than one row of genotypes.", hint="Keep one of them."
        )
    wrong = (M < 0.0) | (M > 2.0)
    if wrong.any():
        row, column = (int(i) for i in np.argwhere(wrong)[0])
        raise DesignError(
            f"Marker {names[column]!r} of {labels[row]!r} is {M[row, column]:g}; "
            "genotypes count an allele, 0 to 2.",
            hint="Recode -1, 0, 1 by adding one; write missing genotypes as NaN.",
        )
    return M, labels, names
