"""Single-step relationships: a pedigree and the genotypes of some of its members.

With members ordered 1 (not genotyped) and 2 (genotyped), and G_w in the place of A22
(Legarra, Aguilar and Misztal 2009, J. Dairy Sci. 92, 4656; Aguilar et al. 2010, ibid.
93, 743; Christensen and Lund 2010, Genet. Sel. Evol. 42, 2)::

    H^-1 = A^-1 + [ 0                     0         ]
                  [ 0   tau G_w^-1 - omega A22^-1   ]
    H    = A + A_.2 A22^-1 (H22 - A22) A22^-1 A_2.
    H22  = (tau G_w^-1 + (1 - omega) A22^-1)^-1,  G_w if tau = omega = 1

Only A22 is ever dense: products with A are passes over the pedigree.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
import pandas as pd
from scipy.linalg import cho_solve, eigh, solve_triangular
from scipy.linalg.lapack import dpotrf, dpotri
from scipy.sparse import coo_array, csc_array

from mixform._typing import Codes, Matrix, Vector
from mixform.errors import DesignError, suggest
from mixform.relationship.genomic import Genomic
from mixform.relationship.labelled import require_symmetric, square_matrix
from mixform.relationship.pedigree import Pedigree

#: How the means of G are brought to those of A22, see `single_step`.
ALIGNMENTS = ("means", "drift", "none")
#: Columns of A that are formed at a time.
AT_A_TIME = 64


@dataclass(frozen=True, eq=False)
class SingleStep:
    """The relationship H of a pedigree's members, some genotyped: see `single_step`.

    Attributes
    ----------
    pedigree : of all members
    genotyped : (g,) their places among the members
    G : (g, g) genomic relationships as given
    blend, align, tau, omega : as given
    shift, slope : of the alignment: G_w = shift + slope ((1 - blend) G + blend A22)
    A22, H22 : (g, g) relationships of the genotyped members by pedigree, and in H
    H22_inverse : (g, g)
    """

    pedigree: Pedigree
    genotyped: Codes
    G: Matrix
    blend: float
    align: str
    tau: float
    omega: float
    shift: float
    slope: float
    A22: Matrix
    H22: Matrix
    H22_inverse: Matrix
    _factors: tuple[Matrix, Matrix]

    def __repr__(self) -> str:
        return f"<{self.description}>"

    @property
    def labels(self) -> pd.Index:
        """Members, (m,)."""
        return self.pedigree.labels

    @property
    def description(self) -> str:
        """What it is, and how G was changed."""
        blended = f"{1.0 - self.blend:g} G + {self.blend:g} A22" if self.blend else "G"
        if self.align != "none":
            blended = f"{self.shift:.4g} + {self.slope:.4g} ({blended})"
        scaled = ""
        if self.tau != 1.0 or self.omega != 1.0:
            scaled = f", tau {self.tau:g}, omega {self.omega:g}"
        return (
            f"single-step relationship of {len(self.pedigree)} members, "
            f"{len(self.genotyped)} genotyped (G_w = {blended}{scaled})"
        )

    @property
    def loading(self) -> None:
        """None: the precision is at hand."""
        return None

    @cached_property
    def precision(self) -> csc_array:
        """H^-1, (m, m) sparse but for the genotyped members."""
        m, g = len(self.pedigree), len(self.genotyped)
        A22_inverse = cho_solve((self._factors[0], True), np.eye(g))
        change = self.H22_inverse - A22_inverse
        rows = np.repeat(self.genotyped, g)
        columns = np.tile(self.genotyped, g)
        entries = (((change + change.T) / 2.0).ravel(), (rows, columns))
        change = coo_array(entries, shape=(m, m)).tocsc()
        return csc_array(cast("Any", self.pedigree.A_inverse() + change))

    @property
    def logdet(self) -> float:
        """log|H| = log|A| - log|A22| + log|H22|."""
        lower_A, lower_H = self._factors
        of_A22 = 2.0 * float(np.log(lower_A.diagonal()).sum())
        of_H22 = 2.0 * float(np.log(lower_H.diagonal()).sum())
        return self.pedigree.logdet - of_A22 + of_H22

    @property
    def diagonal(self) -> Vector:
        """Diagonal of H, (m,)."""
        return self._diagonal

    @cached_property
    def _diagonal(self) -> Vector:
        lower = self._factors[0]
        half = cho_solve((lower, True), self.H22 - self.A22)
        change = cho_solve((lower, True), half.T)
        values, vectors = eigh((change + change.T) / 2.0)
        out = self.pedigree.diagonal.copy()
        for first in range(0, len(values), AT_A_TIME):
            here = slice(first, first + AT_A_TIME)
            columns = self.pedigree.times_A(self._spread(vectors[:, here]))
            out += columns**2 @ values[here]
        return out

    def times(self, x: Matrix) -> Matrix:
        """Return H x for x (m, c)."""
        Ax = self.pedigree.times_A(x)
        known = cho_solve((self._factors[0], True), Ax[self.genotyped])
        return Ax + self._regress((self.H22 - self.A22) @ known)

    def half(self, x: Matrix) -> Matrix:
        """Return L x for x (m, c), with L L' = H.

        What the pedigree gives the genotyped members, of covariance A22, is turned into
        effects of covariance H22; the others follow by regression.
        """
        lower_A, lower_H = self._factors
        b = self.pedigree.times_root(x)
        own = b[self.genotyped]
        changed = lower_H @ solve_triangular(lower_A, own, lower=True)
        return b + self._regress(changed - own)

    def _regress(self, change: Matrix) -> Matrix:
        """Return A_.2 A22^-1 times a change (g, c) of the genotyped members."""
        weights = cho_solve((self._factors[0], True), change)
        return self.pedigree.times_A(self._spread(weights))

    def _spread(self, values: Matrix) -> Matrix:
        out = np.zeros((len(self.pedigree), values.shape[1]))
        out[self.genotyped] = values
        return out


def single_step(
    pedigree: object,
    genomic: Genomic | pd.DataFrame,
    *,
    blend: float = 0.05,
    align: str = "means",
    tau: float = 1.0,
    omega: float = 1.0,
) -> SingleStep:
    """Return the relationship of a pedigree, some of whose members are genotyped.

    G is blended with A22, the relationships by pedigree, then aligned with it::

        G_w  = shift + slope ((1 - blend) G + blend A22)
        H^-1 = A^-1 + tau G_w^-1 - omega A22^-1 at the genotyped members

    What was done stands in the summary of a model, and in ``description``.

    Parameters
    ----------
    pedigree : `Pedigree`, or a table of animal, sire and dam
    genomic : `genomic` relationships, or a frame with labels; of members only
    blend : share of A22, which makes a centred G definite
    align : "means": mean diagonal and mean off-diagonal entry become those of A22 (Chen
        et al. 2011, J. Anim. Sci. 89, 2673). "drift": shift = mean(A22) - mean(G),
        slope = 1 - shift / 2 (Vitezica et al. 2011, Genet. Res. 93, 357). "none"
    tau, omega : of H^-1

    Raises
    ------
    DesignError : a genotyped animal is no member; G_w or H is not positive definite

    Examples
    --------
    >>> family = Pedigree(["c", "d"], ["a", "a"], ["b", "b"])  # full sibs
    >>> G = pd.DataFrame([[1.0, 0.7], [0.7, 1.0]], ["c", "d"], ["c", "d"])
    >>> H = single_step(family, G, blend=0.0, align="none")
    >>> H.times(np.eye(4))[2:, 2:].round(9).tolist()
    [[1.0, 0.7], [0.7, 1.0]]
    """
    _check_choices(blend, align)
    if not isinstance(pedigree, Pedigree):
        pedigree = Pedigree(pedigree)
    G, names = _symmetric(genomic.K if isinstance(genomic, Genomic) else genomic)
    A22 = pedigree.A_among(names)
    blended = (1.0 - blend) * G + blend * A22
    shift, slope = _alignment(blended, A22, align)
    G_w = shift + slope * blended
    lower_A = np.linalg.cholesky(A22)
    G_inverse = _inverse(G_w, "G_w", "Blend more of A22, such as blend=0.05.")
    H22, H22_inverse = G_w, G_inverse
    if tau != 1.0 or omega != 1.0:
        H22, H22_inverse = _scaled(G_inverse, lower_A, tau, omega)
    return SingleStep(
        pedigree=pedigree,
        genotyped=pedigree.labels.get_indexer(names),
        G=G, blend=blend, align=align, tau=tau, omega=omega, shift=shift, slope=slope,
        A22=A22, H22=H22, H22_inverse=H22_inverse,
        _factors=(lower_A, np.linalg.cholesky(H22)),
    )  # fmt: skip


def _scaled(
    G_inverse: Matrix, lower_A: Matrix, tau: float, omega: float
) -> tuple[Matrix, Matrix]:
    """Return H22 and its inverse."""
    A22_inverse = cho_solve((lower_A, True), np.eye(len(lower_A)))
    H22_inverse = tau * G_inverse + (1.0 - omega) * A22_inverse
    return _inverse(
        H22_inverse, "H^-1", "Bring tau and omega closer to 1."
    ), H22_inverse


def _symmetric(K: pd.DataFrame) -> tuple[Matrix, pd.Index]:
    G, names = square_matrix(K, None, "genomic relationship")
    require_symmetric(G, names, "genomic relationship")
    return (G + G.T) / 2.0, names


def _check_choices(blend: float, align: str) -> None:
    if align not in ALIGNMENTS:
        hint = suggest(str(align), ALIGNMENTS, "Alignments")
        raise DesignError(f"Unknown align {align!r}.", hint=hint)
    if not 0.0 <= blend <= 1.0:
        raise DesignError(f"blend is {blend:g}; a share is within 0 and 1.")


def _alignment(G: Matrix, A22: Matrix, align: str) -> tuple[float, float]:
    """Return what G is multiplied by, and what is added to it."""
    g = len(G)
    if align == "none":
        return 0.0, 1.0
    if align == "drift":
        shift = float(A22.mean() - G.mean())
        return shift, 1.0 - shift / 2.0
    means = [
        (K.trace() / g, (K.sum() - K.trace()) / max(g * (g - 1), 1)) for K in (G, A22)
    ]
    (own, between), (own_A, between_A) = means
    if not own > between:
        raise DesignError(
            "G cannot be aligned: its diagonal is on average no larger than the rest.",
            hint='Check the genotypes, or use align="drift" or "none".',
        )
    slope = float((own_A - between_A) / (own - between))
    return float(between_A - slope * between), slope


def _inverse(matrix: Matrix, what: str, hint: str) -> Matrix:
    lower, info = dpotrf(matrix, lower=1, clean=1)
    pivots = np.square(lower.diagonal())
    if info != 0 or not float(pivots.min()) > 1e-10 * float(pivots.max()):
        smallest = float(np.linalg.eigvalsh(matrix)[0])
        raise DesignError(
            f"{what} is not positive definite: its smallest eigenvalue is "
            f"{smallest:.4g}.",
            hint=hint,
        )
    inverse = np.tril(dpotri(lower, lower=1)[0])
    return inverse + np.tril(inverse, -1).T
