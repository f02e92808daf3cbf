"""The rows of a fit by cluster: X, residuals and blocks of V, where V is zero between.

Rows are those of the scaled problem, before whitening and without weights, so that V is
the covariance of y over sigma^2; X is orthonormal in V^-1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from mixform._typing import AnyArray, Codes, Matrix, Vector
from mixform.estimate import Fit
from mixform.inference.diagnostics.deletion import row_parts
from mixform.mme.backends import require_memory


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClusterRows:
    """What each row contributes.

    Attributes
    ----------
    fit : the fit
    members : for each cluster its rows
    X : (n, p) with X'V^-1X = I
    rest : (n,) y - X beta
    """

    fit: Fit
    members: list[AnyArray]
    X: Matrix
    rest: Vector

    def sums(self) -> Iterator[tuple[Matrix, Vector]]:
        """Yield X'V^-1X and X'V^-1(y - X beta) of each cluster."""
        here = self.fit.evaluation
        rows = here.problem.rows
        if rows is None:
            parts = row_parts(self.fit)
            X, B, e = self.fit.design.fixed.Q @ here.R_inverse, parts.B, parts.e
        else:
            X, B = rows.X @ here.R_inverse, here.RootVinvX @ here.R_inverse
            e = here.e
        for S in self.members:
            yield X[S].T @ B[S], X[S].T @ e[S]

    def blocks(self) -> Iterator[Matrix]:
        """Yield V of each cluster, (n_g, n_g)."""
        fit, problem = self.fit, self.fit.evaluation.problem
        root = _root_weights(fit)
        colors = self._colors()
        known = [self._known(j) for j in range(len(problem.blocks))]
        for S in self.members:
            V = np.eye(len(S))
            if colors is not None:
                own = colors[S, : len(S)]
                V = own @ own.T
            for block, T, related in zip(
                problem.blocks, fit.evaluation.T, known, strict=True
            ):
                codes, loading = block.codes[S], block.design[S] @ T
                same = codes[:, None] == codes
                if related is not None:
                    place, A = related
                    same = A[codes[:, None], place[codes]]
                V = V + (loading @ loading.T) * same
            yield V / np.outer(root[S], root[S])

    def _colors(self) -> Matrix | None:
        """Return R^1/2, the columns of each cluster side by side; None if R is I."""
        rows = self.fit.evaluation.problem.rows
        if rows is None:
            return None
        n, width = self.fit.n, max(map(len, self.members))
        require_memory(8.0 * 4 * n * width, f"Clusters of up to {width} rows")
        units = np.zeros((n, width))
        for S in self.members:
            units[S, np.arange(len(S))] = 1.0
        return rows.residual.color(units)

    def _known(self, j: int) -> tuple[Codes, Matrix] | None:
        """Return the column of each related level, and A by level and column."""
        problem = self.fit.evaluation.problem
        relation = problem.relations[j] if problem.relations else None
        if relation is None:
            return None
        block = problem.blocks[j]
        place = np.zeros(block.m, dtype=np.int64)
        levels = [np.unique(block.codes[S]) for S in self.members]
        width = max(map(len, levels))
        require_memory(8.0 * 4 * block.m * width, f"{width} related levels")
        units = np.zeros((block.m, width))
        for used in levels:
            place[used] = np.arange(len(used))
            units[used, place[used]] = 1.0
        return place, relation.times(units)


def cluster_rows(fit: Fit, codes: Codes) -> ClusterRows:
    """Return the rows of a fit by cluster; codes (n,) from 0, none left out."""
    here = fit.evaluation
    problem, design = here.problem, fit.design
    root = _root_weights(fit)
    y = design.y if design.offset is None else design.y - design.offset
    rest = (y * root - design.fixed.Q @ problem.projection) / problem.y_scale
    rest = (rest - design.fixed.Q @ here.beta) / root
    order = np.argsort(codes, kind="stable")
    return ClusterRows(
        fit=fit,
        members=np.split(order, np.cumsum(np.bincount(codes))[:-1]),
        X=design.fixed.Q @ here.R_inverse / root[:, None],
        rest=rest,
    )


def _root_weights(fit: Fit) -> Vector:
    weights = fit.design.weights
    return np.ones(fit.n) if weights is None else np.sqrt(weights)


def crossing(fit: Fit, codes: Codes) -> list[str]:
    """Return what correlates rows of several clusters: grouping factors, subjects."""
    out: list[str] = []
    for block in fit.design.blocks:
        groups = block.codes
        if block.relation is not None:
            groups = _families(block.relation.precision)[groups]
        if _splits(groups, codes):
            related = "" if block.relation is None else " (related)"
            out.append(block.term.group_label + related)
    rows = fit.evaluation.problem.rows
    if rows is not None and _splits(subject_codes(fit), codes):
        part = fit.design.residual
        label = part.term.group_label if part and part.term else ""
        out.append(label or "the residuals")
    return list(dict.fromkeys(out))


def subject_codes(fit: Fit) -> Codes:
    """Return the subject of each row whose residuals are correlated, (n,)."""
    out = np.arange(fit.n)
    rows = fit.evaluation.problem.rows
    if rows is not None:
        for batch in rows.model.layout.batches:
            out[batch.rows] = batch.rows[:, :1]
    return out


def _families(precision: AnyArray) -> Codes:
    """Return for each level which of those it is related with, directly or not."""
    labels = connected_components(coo_array(precision), directed=False)[1]
    return labels.astype(np.int64)


def _splits(groups: Codes, codes: Codes) -> bool:
    """Whether a group has rows in several clusters."""
    some = np.empty(int(groups.max()) + 1, dtype=np.int64)
    some[groups] = codes
    return bool(np.any(some[groups] != codes))
