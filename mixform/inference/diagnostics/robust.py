"""Cluster-robust covariance of the fixed effects, with small-sample degrees of freedom.

    V^R = M [ sum_g X_g'W_g A_g e_g e_g'A_g'W_g X_g ] M,   M = (X'WX)^-1,  W = V^-1

e = y - X beta, V the fitted covariance (the working model), g the clusters, between
which V is zero. CR0 has A_g = I. CR2 has A_g = D'(D (V_g - X_g M X_g') D')^+1/2 D with
V_g = D'D, the square root of the Moore-Penrose inverse, and is unbiased if the working
model holds; CR3, the jackknife over clusters, A_g = (I - X_g M X_g'W_g)^-1 (Bell and
McCaffrey 2002, Surv. Methodol. 28, 169; Pustejovsky and Tipton 2018, J. Bus. Econ.
Stat. 36, 672). The df of a t test match the first two moments of its variance under the
working model; those of an F test the total variance of the covariance of the contrasts
(AHT: Tipton and Pustejovsky 2015, J. Educ. Behav. Stat. 40, 604).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.linalg import cho_factor, cho_solve

from mixform._typing import Matrix, Stack, Vector
from mixform.errors import InferenceError, suggest
from mixform.estimate import Fit
from mixform.inference.contrast_tests import HypothesisTest, joint_test, t_tests
from mixform.inference.diagnostics.cluster_rows import (
    ClusterRows,
    cluster_rows,
    crossing,
)
from mixform.inference.diagnostics.grouping import Grouping, grouping
from mixform.inference.estimability import read_contrast, require_estimable
from mixform.progress import Progress

#: Rows of a cluster up to which its n_g x n_g matrices are formed for CR2.
LARGEST_CLUSTER = 2000

#: Matrices of n_g x n_g numbers alive at once.
N_ARRAYS = 6

#: Eigenvalues up to this share of the largest count as zero in the square root.
RANK_TOLERANCE = 1e-10


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClusterRobust:
    """Cluster-robust covariance of the fixed effects of one fit.

    It has the shape of an `Approximation`, so that every test takes it.

    Attributes
    ----------
    fit : the fit
    kind : "CR0", "CR2" or "CR3"
    cluster : name of the clusters; n_clusters : how many
    V_beta : (p, p) cluster-robust covariance
    half : (p, p) with half half' = (X'V^-1X)^-1, V relative to sigma^2
    D : (G, p, p), H : (G, p, p) for each cluster X'WA V AWX and X'AWX, beta scaled so
        that X'WX = I
    """

    fit: Fit
    kind: str
    cluster: str
    n_clusters: int
    V_beta: Matrix
    half: Matrix
    D: Stack
    H: Stack

    @property
    def title(self) -> str:
        """Name of the method, as printed."""
        return f"{self.kind} by {self.cluster}"

    @property
    def note(self) -> str | None:
        """What a reader must know: too few clusters to estimate all of V_beta."""
        p = len(self.V_beta)
        if self.n_clusters > p:
            return None
        return (
            f"{self.n_clusters} clusters cannot determine the covariance of {p} fixed "
            "effects; it is singular."
        )

    @property
    def table(self) -> pd.DataFrame:
        """T tests of the fixed effects: ``estimate, se, df, t_value, p_value``."""
        fixed, p = self.fit.design.fixed, len(self.V_beta)
        table = t_tests(np.eye(p), np.zeros(p), self.fit, self)
        table.index = pd.Index([fixed.names[j] for j in fixed.kept])
        return table.reindex(pd.Index(fixed.names)) if fixed.aliased else table

    def __str__(self) -> str:
        heading = (
            f"Cluster-robust tests ({self.kind}), {self.n_clusters} clusters of "
            f"{self.cluster}"
        )
        lines = [heading, self.table.to_string(float_format="{:.5g}".format)]
        return "\n".join([*lines, f"Note: {self.note}"] if self.note else lines)

    __repr__ = __str__

    def cov_params(self) -> pd.DataFrame:
        """Return the covariance of the fixed effects, (c, c); NaN if aliased."""
        fixed = self.fit.design.fixed
        full = np.full((len(fixed.names), len(fixed.names)), np.nan)
        full[np.ix_(fixed.kept, fixed.kept)] = self.V_beta
        return pd.DataFrame(full, index=fixed.names, columns=fixed.names)

    def test(self, L: object, rhs: object = 0) -> HypothesisTest:
        """Test L beta = rhs, as `Result.test`; several rows jointly by AHT."""
        fixed = self.fit.design.fixed
        matrix, right, labels = read_contrast(L, rhs, fixed.names)
        kept = require_estimable(matrix, fixed)
        return joint_test(kept, right, labels, self.fit, self)

    def t_ddf(self, L: Matrix) -> Vector:
        """Return the Satterthwaite df of each row of L (r, p); NaN for a row of zeros.

        (sum_g P_gg)^2 / sum_gh P_gh^2 with P_gh = p_g'V p_h, the covariance of what
        clusters g and h contribute to the contrast.
        """
        out = np.full(len(L), np.nan)
        for i, ell in enumerate(L):
            if not np.any(ell):
                continue
            own, v = self._contributions(ell[None])
            d, v = own[:, 0, 0], v[:, :, 0]
            squares = v.T @ v
            norms = np.einsum("gp,gp->g", v, v)
            total = float(np.sum(d - norms))
            spread = float(np.sum(d**2) - 2.0 * np.sum(d * norms) + np.sum(squares**2))
            out[i] = total**2 / spread if spread > 0.0 else np.nan
        return out

    def f_ddf(self, L: Matrix) -> tuple[float, float]:
        """Return the denominator df and the factor of the Wald F of L (q, p)."""
        q = len(L)
        if q == 1:
            return float(self.t_ddf(L)[0]), 1.0
        own, v = self._contributions(L)
        Omega = (own - np.einsum("gps,gpt->gst", v, v)).sum(axis=0)
        values, vectors = np.linalg.eigh((Omega + Omega.T) / 2.0)
        if values[0] <= RANK_TOLERANCE * values[-1]:
            return np.nan, np.nan
        own, v = self._contributions((vectors / np.sqrt(values)).T @ L)
        eta = q * (q + 1) / _total_variance(own, v)
        if eta <= q - 1:
            return np.nan, np.nan
        return eta - q + 1.0, (eta - q + 1.0) / eta

    def _contributions(self, L: Matrix) -> tuple[Stack, Stack]:
        """Return c_s'D_g c_t, (G, q, q), and H_g c_s, (G, p, q), for rows c of L."""
        c = self.half.T @ L.T
        return c.T @ self.D @ c, self.H @ c


def _total_variance(own: Stack, v: Stack) -> float:
    """Return the sum over (s, t) of the variances of the entries of the covariance.

    sum_gh P^ss_gh P^tt_gh + (P^st_gh)^2 for normal data, with P^st_gh = [g = h] own_g
    - v_gs'v_ht.
    """
    C = np.einsum("gps,gqt->psqt", v, v)
    between = float(np.sum(C**2) + np.einsum("psqt,ptqs->", C, C))
    inner = np.einsum("gps,gpt->gst", v, v)
    return between + _squares(own - inner) - _squares(inner)


def _squares(P: Stack) -> float:
    """Return sum_g sum_st P^ss P^tt + (P^st)^2."""
    return float(np.sum(np.einsum("gss->g", P) ** 2) + np.sum(P**2))


def robust(
    fit: Fit,
    cluster: object = None,
    *,
    kind: str = "CR2",
    progress: bool | None = None,
) -> ClusterRobust:
    """Return the cluster-robust covariance of the fixed effects.

    Parameters
    ----------
    cluster : a grouping factor of the random terms or the subject of the residuals by
        name, or a label for each row; None for the one that all others are nested in
    kind : "CR2"; "CR0", which is too small with few clusters; "CR3", the jackknife,
        which is too large
    progress : show a bar; None after a few seconds

    Raises
    ------
    InferenceError : unknown kind or cluster; one cluster; clusters share a random
        effect or a subject, or have related ones; a cluster is too large for CR2
    """
    name = kind.upper() if isinstance(kind, str) else kind
    if name not in KINDS:
        raise InferenceError(
            f"Unknown kind {kind!r} of robust covariance.",
            hint=suggest(str(kind), KINDS, "Kinds"),
        )
    if len(fit.beta) == 0:
        raise InferenceError("The model has no fixed effects.")
    groups = _clusters(fit, cluster)
    half = np.linalg.solve(fit.design.fixed.R, fit.evaluation.R_inverse)
    rows = cluster_rows(fit, groups.codes)
    G, p = groups.m, len(half)
    D, H, scores = np.empty((G, p, p)), np.empty((G, p, p)), np.empty((G, p))
    if name == "CR2":
        _require_small(max(map(len, rows.members)), groups)
    with Progress(progress, G, "clusters") as bar:
        for g, part in enumerate(KINDS[name](rows)):
            D[g], H[g], scores[g] = part
            bar.advance()
    to_beta = fit.evaluation.problem.y_scale * half
    return ClusterRobust(
        fit=fit,
        kind=name,
        cluster=groups.name,
        n_clusters=G,
        V_beta=to_beta @ (scores.T @ scores) @ to_beta.T,
        half=half,
        D=D,
        H=H,
    )


Part = tuple[Matrix, Matrix, Vector]


def _plain(rows: ClusterRows) -> Iterator[Part]:
    """Yield D, H and the score of each cluster for A = I: sums over rows."""
    for crossed, score in rows.sums():
        yield crossed, crossed, score


def _jackknife(rows: ClusterRows) -> Iterator[Part]:
    """Yield D, H and the score of each cluster for CR3.

    X'WA = (I - X'WX)^-1 X'W for A = (I - XX'W)^-1.
    """
    for crossed, score in rows.sums():
        left = np.eye(len(crossed)) - crossed
        if np.linalg.eigvalsh((left + left.T) / 2.0)[0] < RANK_TOLERANCE:
            raise InferenceError(
                "A fixed effect is estimated from one cluster alone, which CR3 leaves "
                "out.",
                hint='Use kind="CR2".',
            )
        inverse = np.linalg.inv(left)
        yield inverse @ crossed @ inverse, crossed @ inverse, inverse @ score


def _adjusted(rows: ClusterRows) -> Iterator[Part]:
    """Yield D, H and the score of each cluster for CR2."""
    for S, V in zip(rows.members, rows.blocks(), strict=True):
        X = rows.X[S]
        upper, _ = cho_factor(V, lower=False)
        upper = np.triu(upper)
        inner = upper @ (V - X @ X.T) @ upper.T
        values, vectors = np.linalg.eigh((inner + inner.T) / 2.0)
        solid = values > RANK_TOLERANCE * values[-1]
        vectors = upper.T @ vectors[:, solid]
        A = (vectors / np.sqrt(values[solid])) @ vectors.T
        # V is block diagonal: its inverse in a cluster is that of the cluster's V.
        AWX = A @ cho_solve((upper, False), X)
        yield AWX.T @ V @ AWX, X.T @ AWX, AWX.T @ rows.rest[S]


#: kind -> what each cluster contributes.
KINDS: dict[str, Callable[[ClusterRows], Iterator[Part]]] = {
    "CR0": _plain,
    "CR2": _adjusted,
    "CR3": _jackknife,
}


def _require_small(largest: int, groups: Grouping) -> None:
    if largest <= LARGEST_CLUSTER:
        return
    gigabytes = 8e-9 * N_ARRAYS * float(largest) ** 2
    raise InferenceError(
        f"A cluster of {groups.name!r} has {largest} rows: CR2 would need "
        f"{gigabytes:.1f} GB and time in proportion to the cube of its size (at most "
        f"{LARGEST_CLUSTER} rows).",
        hint='Use kind="CR0", which is as good when there are many clusters.',
    )


def _clusters(fit: Fit, cluster: object) -> Grouping:
    """Return the clusters; V must be zero between them."""
    if cluster is None:
        groups = _outermost(fit)
    else:
        groups = grouping(fit, cluster, "cluster")
        if crossed := crossing(fit, groups.codes):
            raise InferenceError(
                f"Levels of {', '.join(crossed)} occur in several clusters of "
                f"{groups.name!r}, so clusters are correlated in this model.",
                hint="Cluster by a factor that every grouping factor is nested in.",
            )
    if groups.m < 2:
        raise InferenceError(f"All rows are in one cluster of {groups.name!r}.")
    return groups


def _outermost(fit: Fit) -> Grouping:
    """Return the grouping factor, or the residual subject, that holds all others."""
    part = fit.design.residual
    labels = [block.term.group_label for block in fit.design.blocks]
    if part is not None and part.term is not None and part.term.group:
        labels.append(part.term.group_label)
    if not labels:
        raise InferenceError(
            "The model has no grouping factor to cluster by.",
            hint="Give a label for each row: cluster=data['id'].",
        )
    labels = list(dict.fromkeys(labels))
    for label in labels:
        groups = grouping(fit, label)
        if not crossing(fit, groups.codes):
            return groups
    related = any(block.relation is not None for block in fit.design.blocks)
    raise InferenceError(
        f"The grouping factors {', '.join(labels)} are "
        f"{'related or ' if related else ''}crossed: "
        "no one holds all others, so rows of different groups are correlated.",
        hint="Give cluster= a factor that holds them all.",
    )
